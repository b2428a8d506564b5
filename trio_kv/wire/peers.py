"""The bytes of Raft's messages between processes, for links that carry each to where it goes or lose it.

::

    message = kind u8 | msgpack [source, target, term, incarnation, is_rebuilding, ...]

The members stand in the order in which the class has them. Entries travel as the bytes that the log has, one after the
other in one bin: a leader makes them once for all followers, and nodes of one process that hear the same get the same
objects (decision 0026).

What a peer sends is not believed. Numbers are at most half of what the log's header holds, so whatever a node adds to
one fits into it as well; nodes are what a vote in the log can name; entries follow on one another and on what the
message says of the place before them, as in any log. What only a node's own state can tell, as an answer to a question
that it never asked, is the node's matter.
"""

from collections import deque
from itertools import islice
from operator import attrgetter
from typing import Annotated, Any, Final

import attrs
from msgspec import Meta

from trio_kv.kv.commands import decode_command
from trio_kv.raft import messages
from trio_kv.raft.entry import Entry, decode_entries
from trio_kv.raft.messages import AppendEntries, Message
from trio_kv.wire.packed import Kinds, encode

NUMBER_MAX: Final = (1 << 63) - 1
"""The highest index, term, time or other number in a message."""

NODE_MAX: Final = (1 << 32) - 1
"""The highest number of a node."""

PAIRS_MAX: Final = 256
"""Nodes that one message tells something of."""

ENTRIES_MAX: Final = 1 << 16
"""Entries in one message: as empty ones they would take several times their bytes in memory."""

KEPT: Final = 4
"""Runs of entries that are kept beside their bytes. A follower that is behind has other ones than the rest."""


class PeerError(ValueError):
    """Bytes that no peer of this version sends. The text says why."""


Number = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
Node = Annotated[int, Meta(ge=1, le=NODE_MAX)]

_TYPES: Final[dict[Any, Any]] = {
    bool: bool,
    bytes: bytes,
    int: Number,
    int | None: Number | None,
    messages.TermTime: tuple[Number, Number],
    tuple[tuple[int, int], ...]: Annotated[tuple[tuple[Node, Number], ...], Meta(max_length=PAIRS_MAX)],
    tuple[Entry, ...]: bytes,
}
"""What is decoded for a member of a message, by its type there."""

_CLASSES: Final[dict[bytes, type[Message]]] = {
    b"p": messages.RequestPreVote,
    b"P": messages.PreVoteReply,
    b"v": messages.RequestVote,
    b"V": messages.VoteReply,
    b"a": messages.AppendEntries,
    b"A": messages.AppendAccepted,
    b"J": messages.AppendRejected,
    b"h": messages.Heartbeat,
    b"H": messages.HeartbeatReply,
    b"r": messages.ReadIndex,
    b"R": messages.ReadIndexReply,
    b"t": messages.TimeoutNow,
    b"i": messages.InstallSnapshot,
    b"I": messages.InstallReply,
}
"""Small letters say or ask something, large ones answer it."""


def _members(kind: type[Message]) -> Any:
    """Return the type of what stands behind the letter of a message."""
    return tuple[  # type: ignore[misc]  # made of values
        tuple(
            [Node if each.name in {"source", "target"} else _TYPES[each.type] for each in attrs.fields(kind)]
        )
    ]


_KINDS: Final = Kinds({letter: _members(kind) for letter, kind in _CLASSES.items()}, PeerError)
_ENCODERS: Final[dict[type[Message], tuple[bytes, Any]]] = {
    kind: (letter, attrgetter(*[each.name for each in attrs.fields(kind)]))
    for letter, kind in _CLASSES.items()
}
_APPEND: Final[Any] = AppendEntries
_ENTRIES_PLACE: Final = [each.name for each in attrs.fields(AppendEntries)].index("entries")


class _Runs:
    """The runs of entries that were met last, and their bytes."""

    def __init__(self) -> None:
        self._kept: deque[tuple[tuple[Entry, ...], bytes]] = deque(maxlen=KEPT)

    def bytes_of(self, entries: tuple[Entry, ...]) -> bytes:
        """Return the bytes of entries one after the other."""
        for known, data in self._kept:
            # Equal entries have equal bytes; mostly these are the same objects, which is told at once.
            if known == entries:
                return data
        assert len(entries) <= ENTRIES_MAX, f"{len(entries)} entries in one message"
        return self._keep(entries, b"".join([entry.encoded for entry in entries]))[1]

    def entries_of(self, data: bytes) -> tuple[Entry, ...]:
        """Return the entries whose bytes these are; raise PeerError where they can't follow on one another."""
        for entries, known in self._kept:
            if known == data:
                return entries
        return self._keep(_decode_entries(data), data)[0]

    def _keep(self, entries: tuple[Entry, ...], data: bytes) -> tuple[tuple[Entry, ...], bytes]:
        run = entries, data
        self._kept.appendleft(run)
        return run


_sent: Final = _Runs()


def encode_message(message: Message) -> bytes:
    """Return the bytes of a message."""
    letter, members_of = _ENCODERS[type(message)]
    members = members_of(message)
    if type(message) is AppendEntries:
        data = _sent.bytes_of(message.entries) if message.entries else b""
        members = (*members[:_ENTRIES_PLACE], data, *members[_ENTRIES_PLACE + 1 :])
    return letter + encode(members)


class MessageReader:
    """Reads the messages of one link. Entries that came with the last ones as well are the same objects again."""

    def __init__(self) -> None:
        """Begin without any."""
        self._received = _Runs()

    def read(self, data: bytes | memoryview) -> Message:
        """Return the message whose bytes these are.

        Raises:
            PeerError: they are none of a message.

        """
        letter, members = _KINDS.split(bytes(data))
        if letter != b"a":
            return _CLASSES[letter](*members)
        blob = members[_ENTRIES_PLACE]
        entries = self._received.entries_of(blob) if blob else ()
        message: AppendEntries = _APPEND(*members[:_ENTRIES_PLACE], entries, *members[_ENTRIES_PLACE + 1 :])
        if entries:
            _check_place(message)
        return message


def _decode_entries(data: bytes) -> tuple[Entry, ...]:
    """Return the entries whose bytes these are; where they stand in a log is still to be looked at."""
    try:
        entries = tuple(islice(decode_entries(data, decode_command), ENTRIES_MAX + 1))
    except ValueError as error:
        raise PeerError(f"malformed entries: {error}") from error
    if len(entries) > ENTRIES_MAX:
        raise PeerError(f"more than {ENTRIES_MAX} entries in one message")
    index, term, time_us = entries[0].index, 0, 0
    for entry in entries:
        if entry.index != index or entry.term < term or entry.time_us < time_us:
            raise PeerError(
                f"entry {entry} of time {entry.time_us} does not follow {index - 1}@{term} of time {time_us}"
            )
        index, term, time_us = index + 1, entry.term, entry.time_us
    if max(index, term, time_us) > NUMBER_MAX:
        raise PeerError(f"entry {entries[-1]} of time {time_us} is beyond {NUMBER_MAX}")
    return entries


def _check_place(message: AppendEntries) -> None:
    """Refuse entries that do not stand where their message says."""
    first, last = message.entries[0], message.entries[-1]
    if first.index != message.prev_index + 1 or first.term < message.prev_term:
        raise PeerError(f"entry {first} does not follow {message.prev_index}@{message.prev_term}")
    if last.term > message.term:
        raise PeerError(f"entry {last} is of a later term than its leader's {message.term}")
