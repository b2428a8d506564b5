"""The bytes in which Raft's messages go to nodes of another process, and the frames that carry them."""

import contextlib
import struct
import tracemalloc
from typing import Any

import attrs
import msgspec
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from tests.drawn_commands import COMMANDS, NUMBERS
from trio_kv.kv.commands import OpenSession
from trio_kv.raft import messages
from trio_kv.raft.entry import HEADER, Entry, make_entry
from trio_kv.raft.messages import AppendEntries, Message
from trio_kv.wire.peer_frames import MESSAGES_MAX, FrameReader, encode_frame, encode_header
from trio_kv.wire.peers import ENTRIES_MAX, NUMBER_MAX, PAIRS_MAX, MessageReader, PeerError, encode_message

HEAD = (1, 2, 7, 8, False)
"""What the members of every message begin with."""
FRAME_BYTES_MAX = 1 << 20
NODES = st.integers(1, 2**32 - 1)
PAIRS = st.lists(st.tuples(NODES, NUMBERS), max_size=4).map(tuple)
KINDS = sorted(
    (each for each in vars(messages).values() if isinstance(each, type) and Message in each.__bases__),
    key=lambda kind: kind.__name__,
)
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: NUMBERS,
    int | None: st.none() | NUMBERS,
    bool: st.booleans(),
    bytes: st.binary(),
    tuple[int, int]: st.tuples(NUMBERS, NUMBERS),
    tuple[tuple[int, int], ...]: PAIRS,
}
BY_NAME = {"source": NODES, "target": NODES}


@st.composite
def appends(draw: st.DrawFn) -> AppendEntries:
    """Draw entries that follow on one another, or none."""
    index, term, time_us = draw(st.integers(0, 2**62)), draw(st.integers(0, 2**62)), 0
    steps = st.integers(0, 2) | st.integers(0, 2**50)
    prev_index, prev_term = index, term
    entries = []
    for command in draw(st.lists(st.none() | COMMANDS, max_size=5)):
        index, term, time_us = index + 1, term + draw(steps), time_us + draw(steps)
        entries.append(make_entry(index, term, time_us, command))
    head = draw(NODES), draw(NODES), term + draw(steps), draw(NUMBERS), draw(st.booleans())
    return AppendEntries(*head, prev_index, prev_term, tuple(entries), draw(NUMBERS))


def drawn(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Draw a message of this kind."""
    if kind is AppendEntries:
        return appends()
    return st.builds(
        kind,
        *[BY_NAME[each.name] if each.name in BY_NAME else BY_TYPE[each.type] for each in attrs.fields(kind)],
    )


MESSAGES = st.sampled_from(KINDS).flatmap(drawn)
FRAMES = st.lists(st.lists(st.binary(), min_size=1, max_size=4), max_size=5)


def append_of(*entries: Entry, prev_index: int = 4, prev_term: int = 7, term: int = 7) -> AppendEntries:
    """Return a message with these entries."""
    return AppendEntries(1, 2, term, 8, False, prev_index, prev_term, entries, 3)


def read(data: bytes | memoryview) -> Message:
    """Return the message whose bytes these are, over a link on which nothing came before."""
    return MessageReader().read(data)


def frames_of(pieces: list[bytes], reader: FrameReader | None = None) -> list[list[bytes]]:
    """Return the frames that come in these pieces."""
    reader = FrameReader(FRAME_BYTES_MAX) if reader is None else reader
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (messages := reader.next()) is not None:
            found.append(messages)
    return found


def frame_with(payload: bytes) -> bytes:
    """Return a frame whose check is right, whatever stands in it."""
    return encode_header(len(payload), crc32c(payload)) + payload


# Messages


@pytest.mark.parametrize("kind", KINDS)
def test_each_message_comes_out_as_it_went_in(kind: type[Message]) -> None:
    """All of it, of every class that Raft has."""

    @given(drawn(kind))
    def check(message: Message) -> None:
        data = encode_message(message)
        decoded = read(data)
        assert decoded == message
        assert type(decoded) is kind
        assert read(memoryview(data)) == message

    check()


@given(st.lists(appends(), min_size=1, max_size=3), st.data())
def test_entries_travel_as_the_log_has_them_and_are_shared(
    sent: list[AppendEntries], data: st.DataObject
) -> None:
    """A reader gives the very entries again that it has read just before, and never others."""
    reader = MessageReader()
    seen: dict[tuple[Entry, ...], tuple[Entry, ...]] = {}
    for message in data.draw(st.lists(st.sampled_from(sent), max_size=6)):
        encoded = encode_message(message)
        assert b"".join(entry.encoded for entry in message.entries) in encoded
        decoded = reader.read(encoded)
        assert isinstance(decoded, AppendEntries)
        assert decoded == message
        again = seen.setdefault(decoded.entries, decoded.entries)
        assert all(first is second for first, second in zip(decoded.entries, again, strict=True))


def test_only_the_last_runs_of_entries_are_kept() -> None:
    """What was read long ago is forgotten: a link keeps no log."""
    reader = MessageReader()
    runs = [append_of(make_entry(5, 7, time_us, None)) for time_us in range(20)]
    entries = [reader.read(encode_message(each)).entries[0] for each in runs]  # type: ignore[attr-defined]
    again = [reader.read(encode_message(each)).entries[0] for each in runs]  # type: ignore[attr-defined]
    assert entries == again
    assert all(first is not second for first, second in zip(entries, again, strict=True))


@given(st.binary() | MESSAGES.map(encode_message), st.data())
def test_bytes_are_a_message_or_refused(data: bytes, draw: st.DataObject) -> None:
    """Whatever comes, also if a part of it was replaced, it is a message or a PeerError: nothing else is raised."""
    if data and draw.draw(st.booleans()):
        place = draw.draw(st.integers(0, len(data) - 1))
        data = data[:place] + draw.draw(st.binary(max_size=4)) + data[place + draw.draw(st.integers(0, 4)) :]
    with contextlib.suppress(PeerError):
        message = read(data)
        assert read(encode_message(message)) == message


@given(MESSAGES, st.data())
def test_half_a_message_is_refused(message: Message, data: st.DataObject) -> None:
    """A message that was cut, or has something behind it, is none."""
    whole = encode_message(message)
    for wrong in (whole[: data.draw(st.integers(0, len(whole) - 1))], whole + b"\x00"):
        with pytest.raises(PeerError):
            read(wrong)


@pytest.mark.parametrize(
    ("letter", "members", "why"),
    [
        (b"?", (), r"no message begins with b'\?'"),
        (b"", (), "no message begins with b''"),
        (b"H", HEAD, "length 6"),
        (b"H", (*HEAD, -1), ">= 0"),
        (b"H", (*HEAD, NUMBER_MAX + 1), f"<= {NUMBER_MAX}"),
        (b"H", (*HEAD, "1"), "Expected `int`, got `str`"),
        (b"H", (*HEAD, True), "Expected `int`, got `bool`"),
        (b"H", (*HEAD, 1.0), "Expected `int`, got `float`"),
        (b"H", (0, *HEAD[1:], 1), ">= 1"),
        (b"H", (1, 2**32, *HEAD[2:], 1), "<= 4294967295"),
        (b"H", (1, 2, 2**64 - 1, 8, False, 1), f"<= {NUMBER_MAX}"),
        (b"H", (1, 2, 7, 2**64 - 1, False, 1), f"<= {NUMBER_MAX}"),
        (b"H", (*HEAD[:4], 0, 1), "Expected `bool`, got `int`"),
        (b"A", (*HEAD, 5, -1), ">= 0"),
        (b"V", (*HEAD, True, [(1, 1)] * (PAIRS_MAX + 1), (0, 0)), f"length <= {PAIRS_MAX}"),
        (b"V", (*HEAD, True, [(0, 1)], (0, 0)), ">= 1"),
        (b"V", (*HEAD, True, [], (0, 2**63)), f"<= {NUMBER_MAX}"),
        (b"i", (*HEAD, 9, 7, 0, "text", True), "Expected `bytes`, got `str`"),
        (b"a", (*HEAD, 4, 7, b"\x05", 3), "entry header cut short at byte 0"),
        (b"a", (*HEAD, 4, 7, HEADER.pack(5, 7, 0, 9), 3), "entry 5 cut short at byte 0"),
        (b"a", (*HEAD, 4, 7, HEADER.pack(5, 7, 0, 4) + b"null", 3), "Expected `array`, got `null`"),
        (b"a", (*HEAD, 4, 7, HEADER.pack(5, 7, 0, 11) + b'["open",-1]', 3), ">= 0"),
        (b"a", (*HEAD, 4, 7, HEADER.pack(5, 7, 2**63, 0), 3), f"beyond {NUMBER_MAX}"),
        (b"a", (*HEAD, 4, 7, HEADER.pack(5, 2**63, 0, 0), 3), f"beyond {NUMBER_MAX}"),
        (b"a", (*HEAD, 4, 7, HEADER.pack(2**64 - 1, 7, 0, 0), 3), f"beyond {NUMBER_MAX}"),
    ],
)
def test_a_malformed_message_says_what_is_wrong(letter: bytes, members: Any, why: str) -> None:
    """A peer of another version, or a bug of ours, is told by the text of the error."""
    with pytest.raises(PeerError, match=why):
        read(letter + (msgspec.msgpack.encode(members) if letter else b""))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (append_of(make_entry(6, 7, 0, None)), "entry 6@7 does not follow 4@7"),
        (append_of(make_entry(5, 6, 0, None)), "entry 5@6 does not follow 4@7"),
        (append_of(make_entry(5, 8, 0, None)), "later term than its leader's 7"),
        (
            append_of(make_entry(5, 7, 0, None), make_entry(7, 7, 0, None)),
            "entry 7@7 of time 0 does not follow 5@7",
        ),
        (
            append_of(make_entry(5, 7, 0, None), make_entry(5, 7, 0, None)),
            "entry 5@7 of time 0 does not follow 5@7",
        ),
        (
            append_of(make_entry(5, 8, 0, None), make_entry(6, 7, 0, None), term=8),
            "entry 6@7 of time 0 does not",
        ),
        (
            append_of(make_entry(5, 7, 9, None), make_entry(6, 7, 8, None)),
            "entry 6@7 of time 8 does not follow",
        ),
    ],
)
def test_entries_that_no_log_can_hold_are_refused(message: AppendEntries, why: str) -> None:
    """They would make a node raise that joins them to its log."""
    with pytest.raises(PeerError, match=why):
        read(encode_message(message))


def test_known_entries_still_stand_where_the_message_says() -> None:
    """The same bytes came before, in a message that was right."""
    entry = make_entry(5, 7, 0, OpenSession(1))
    reader = MessageReader()
    reader.read(encode_message(append_of(entry)))
    with pytest.raises(PeerError, match="does not follow 3@7"):
        reader.read(encode_message(append_of(entry, prev_index=3)))


def test_entries_without_end_are_refused() -> None:
    """An empty one takes a handful of times its bytes in memory."""
    header = b"".join([HEADER.pack(5 + place, 7, 0, 0) for place in range(ENTRIES_MAX + 1)])
    with pytest.raises(PeerError, match=f"more than {ENTRIES_MAX} entries"):
        read(b"a" + msgspec.msgpack.encode((*HEAD, 4, 7, header, 3)))


# Frames


@given(FRAMES, st.data())
def test_frames_come_out_however_their_bytes_are_split(
    frames: list[list[bytes]], data: st.DataObject
) -> None:
    """The pieces in which a stream comes mean nothing."""
    stream = b"".join(map(encode_frame, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    pieces = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert frames_of(pieces) == frames


@given(FRAMES.filter(bool), st.data())
def test_a_wrong_bit_never_becomes_a_message(frames: list[list[bytes]], data: st.DataObject) -> None:
    """What stands before it comes, and behind it nothing but a PeerError, as soon as the frame has come."""
    stream = bytearray(b"".join(map(encode_frame, frames)))
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place] ^= 1 << data.draw(st.integers(0, 7))
    reader = FrameReader(FRAME_BYTES_MAX)
    reader.feed(stream)
    found: list[list[bytes]] = []
    for _ in range(2):
        with pytest.raises(PeerError):
            found += iter(reader.next, None)
    assert len(found) < len(frames)
    assert found == frames[: len(found)]


@given(FRAMES, st.binary())
def test_garbage_is_refused_or_waited_for(frames: list[list[bytes]], garbage: bytes) -> None:
    """Nothing but a PeerError is raised, and what came before is not lost."""
    reader = FrameReader(FRAME_BYTES_MAX)
    assert frames_of([encode_frame(each) for each in frames], reader) == frames
    with contextlib.suppress(PeerError):
        assert frames_of([garbage], reader) == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (encode_header(0, 0), "a frame of 0 bytes: right would be 1 to 1048576"),
        (encode_header(FRAME_BYTES_MAX + 1, 0), "a frame of 1048577 bytes"),
        (encode_header(2**32 - 1, 0), "a frame of 4294967295 bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", "a frame of 542393671 bytes"),
        (encode_frame([b"a"])[:-1] + b"b", "the check of a frame of 4 bytes does not match"),
        (encode_header(4, 0)[:-1] + b"?", "the check of a frame's header does not match"),
        (frame_with(b"\x90"), "length >= 1"),
        (frame_with(b"\x80"), "Expected `array`, got `object`"),
        (frame_with(b"\x91\xa1a"), "Expected `bytes`, got `str`"),
        (frame_with(b"\x91\xc4\x01"), "truncated"),
        (frame_with(b"\x91\xc4\x01a\x00"), "trailing characters"),
        (frame_with(b"\xdd\xff\xff\xff\xff"), f"length <= {MESSAGES_MAX}"),
        (frame_with(b"\xdd" + struct.pack(">I", MESSAGES_MAX + 1)), f"length <= {MESSAGES_MAX}"),
    ],
)
def test_what_is_no_frame_says_why(data: bytes, why: str) -> None:
    """And says it again: nobody can tell where the next one begins."""
    reader = FrameReader(FRAME_BYTES_MAX)
    reader.feed(data)
    for _ in range(2):
        with pytest.raises(PeerError, match=why):
            reader.next()


def test_a_frame_that_is_too_long_is_refused_before_it_comes() -> None:
    """Its length says so, and nothing is kept for it."""
    reader = FrameReader(100)
    reader.feed(encode_header(101, 0)[:-1])
    assert reader.next() is None
    reader.feed(b"\x00")
    with pytest.raises(PeerError, match="a frame of 101 bytes"):
        reader.next()


def test_a_reader_holds_no_more_than_a_frame() -> None:
    """Hours of frames later it takes no more memory than at the beginning, and what a length promises takes none."""
    reader = FrameReader(FRAME_BYTES_MAX)
    stream = encode_frame([bytes(1000)] * 20) * 3
    tracemalloc.start()
    for _ in range(20):
        for start in range(0, len(stream), 4096):
            reader.feed(stream[start : start + 4096])
            while reader.next() is not None:
                pass
    reader.feed(encode_header(FRAME_BYTES_MAX, 0))
    assert reader.next() is None
    held_bytes, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < 100_000
    assert peak_bytes < 300_000
