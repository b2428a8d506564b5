"""Claims about frames: when they are taken, what they hold and leave out, how they are kept, the way of a request."""

import json
import random
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_kv.control.feed import FrameFeed
from trio_kv.control.frames import EVENTS_MAX, EventTally, Frame
from trio_kv.control.hops import Observer
from trio_kv.control.kept_frames import PACKED_FRAMES, Kept, KeptFrames, pack, texts
from trio_kv.control.sampling import KINDS, MESSAGES_MAX, MessageSampler, note_of
from trio_kv.gateway.store import Answer
from trio_kv.kv.commands import Write
from trio_kv.kv.operations import Set
from trio_kv.kv.reply import Reply
from trio_kv.raft.entry import make_entry
from trio_kv.raft.events import (
    EntriesAppended,
    EntriesCommitted,
    EntriesStored,
    Event,
    LeaderSteppedDown,
    PreVoteStarted,
)
from trio_kv.raft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    Heartbeat,
    HeartbeatReply,
    InstallReply,
    InstallSnapshot,
    Message,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from trio_kv.trace.trace import Record, Trace
from trio_kv.trace.vocabulary import EntriesApplied
from trio_kv.transport.network import Tap


class SeenCluster:
    """Stands for a cluster that is looked at."""

    def __init__(self) -> None:
        self.taps: list[Tap] = []

    async def refresh(self) -> None:
        await trio.lowlevel.checkpoint()

    def look(self) -> dict[str, object]:
        return {"leader": 1, "term": 2, "nodes": [], "links": [], "faults": []}

    def add_tap(self, tap: Tap) -> None:
        self.taps.append(tap)

    def remove_tap(self, tap: Tap) -> None:
        self.taps.remove(tap)


async def open_feed(nursery: trio.Nursery) -> tuple[FrameFeed, SeenCluster, Trace]:
    cluster, trace = SeenCluster(), Trace(mono_s=trio.current_time)
    feed = FrameFeed(cluster, None, trace)  # type: ignore[arg-type]
    await nursery.start(feed.run)
    return feed, cluster, trace


async def read(feed: FrameFeed, after: int) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads((await feed.wait_frame(after)).text)
    return frame


# --- when -----------------------------------------------------------------------------------------------------


async def test_while_nobody_looks_a_frame_is_taken_each_second_and_soon_after_an_event(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """So the rewind shows an election that nobody saw; ten frames a second are the most, whatever happens."""
    feed, cluster, trace = await open_feed(nursery)
    await trio.sleep(10.05)
    assert feed.kept.kept() is not None
    assert feed.kept_members()["count"] == 11
    trace.emit(LeaderSteppedDown("asked"), node=1)
    await trio.sleep(0.1)
    assert feed.kept_members()["count"] == 12
    for _ in range(500):
        trace.emit(LeaderSteppedDown("asked"), node=1)
        await trio.sleep(0.002)
    assert 20 <= feed.kept_members()["count"] <= 23  # type: ignore[operator]
    assert cluster.taps == []


async def test_while_somebody_looks_there_are_ten_a_second_and_messages_are_seen(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """The first one comes at once; when the last one who looks leaves, messages are seen no more."""
    feed, cluster, _ = await open_feed(nursery)
    await trio.sleep(5.5)
    began_at = trio.current_time()
    with feed.looking():
        (tap,) = cluster.taps
        with feed.looking():
            assert cluster.taps == [tap]
        number = feed.kept_members()["last"]
        assert isinstance(number, int)
        frame = await read(feed, number)
        assert trio.current_time() - began_at < 0.05
        tap(TimeoutNow(1, 2, 7, 0, False), False)
        frame = await read(feed, frame["number"])
        assert [(each["kind"], each["from"], each["to"]) for each in frame["messages"]] == [
            ("timeout-now", 1, 2)
        ]
        before = frame["number"]
        await trio.sleep(2.0)
        assert (await read(feed, before))["number"] == before + 20
    assert cluster.taps == []


async def test_who_is_slow_gets_the_newest_frame_and_nothing_is_queued(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Whoever looks once a second sees what is true then; from the totals he knows how many events he has missed."""
    feed, _, trace = await open_feed(nursery)
    with feed.looking():
        last = await read(feed, 0)
        for _ in range(5):
            for _ in range(7):
                trace.emit(LeaderSteppedDown("asked"), node=1)
                await trio.sleep(0.15)
            frame = await read(feed, last["number"])
            assert abs(frame["mono"] - trio.current_time()) <= 0.11
            assert frame["number"] >= last["number"] + 10
            assert frame["events_total"] == last["events_total"] + 7
            last = frame


async def test_frames_are_packed_beside_the_work(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """What was packed in a thread is read as what was not, and takes less."""
    feed, _, _ = await open_feed(nursery)
    before = 0
    for _ in range(10_000):
        await trio.sleep(1.0)
        if feed.kept.size_bytes < before:
            break
        before = feed.kept.size_bytes
    else:
        raise AssertionError("nothing was packed")
    count = feed.kept_members()["count"]
    assert isinstance(count, int)
    found = [json.loads(text)["number"] for text in await feed.page(0, count, 1 << 20)]
    assert found == list(range(1, count + 1))


def test_events_are_told_up_to_a_limit_and_the_others_counted() -> None:
    """A flood of events makes a frame no larger than its limit, and what is left out is told. Debug is not for it."""
    heard: list[int] = []
    tally = EventTally(lambda: heard.append(1))
    trace = Trace([tally])
    for number in range(EVENTS_MAX + 5):
        trace.emit(LeaderSteppedDown(f"reason {number}"), node=1)
        trace.emit(PreVoteStarted("heard no leader"), node=1)
    events, left_out = tally.take()
    assert [event["reason"] for event in events] == [f"reason {number}" for number in range(EVENTS_MAX)]
    assert (left_out, tally.total, len(heard)) == (5, EVENTS_MAX + 5, EVENTS_MAX + 5)
    assert tally.take() == ([], 0)
    trace.emit(LeaderSteppedDown("once more"), node=1)
    events, left_out = tally.take()
    assert ([event["reason"] for event in events], left_out) == (["once more"], 0)


# --- messages -------------------------------------------------------------------------------------------------

HEAD = (1, 2, 7, 99, False)
ENTRY = make_entry(5, 7, 0, Write(1, 1, 1, Set("secret-key", b'"secret-value"')))  # type: ignore[arg-type]
ONE_OF_EACH: list[Message] = [
    RequestPreVote(*HEAD, 4, 6),
    PreVoteReply(*HEAD, 7, is_granted=True),
    RequestVote(*HEAD, 4, 6),
    VoteReply(*HEAD, is_granted=False),
    AppendEntries(*HEAD, 4, 6, (ENTRY,), 3),
    AppendAccepted(*HEAD, 5),
    AppendRejected(*HEAD, 4, 6, 2),
    Heartbeat(*HEAD, 3, 4, 6, 4),
    HeartbeatReply(*HEAD, 3),
    ReadIndex(*HEAD, 12, 1),
    ReadIndexReply(*HEAD, 12, 1, 5, 7),
    TimeoutNow(*HEAD),
    InstallSnapshot(*HEAD, 4, 6, 0, b"secret-bytes", is_last=False),
    InstallReply(*HEAD, 4, 6, 1),
]


def test_each_message_has_a_kind_and_a_note_without_anything_that_was_stored() -> None:
    """All messages that there are can be shown, and nobody's values with them."""
    names = {type(message).__name__ for message in ONE_OF_EACH}
    assert names == {kind.__name__ for kind in Message.__subclasses__()} == {kind.__name__ for kind in KINDS}
    notes = [note_of(message) for message in ONE_OF_EACH]
    assert all(notes)
    assert not any("secret" in note for note in notes)


async def test_messages_are_counted_by_link_and_kind(autojump_clock: MockClock) -> None:
    """However many are sent, a frame has one entry for each direction, kind and fate; the first of each is shown."""
    sampler = MessageSampler()
    for _ in range(1000):
        sampler(Heartbeat(*HEAD, 3, 4, 6, 4), False)
    sampler(Heartbeat(*HEAD, 3, 4, 6, 4), True)
    await trio.sleep(0.05)
    sampler(TimeoutNow(*HEAD), False)
    messages, left_out = sampler.take(trio.current_time() + 0.01)
    assert [(each["kind"], each["count"], each["dropped"], each["at_ms"]) for each in messages] == [
        ("heartbeat", 1000, False, -60.0),
        ("heartbeat", 1, True, -60.0),
        ("timeout-now", 1, False, -10.0),
    ]
    assert left_out == 0
    assert sampler.take(trio.current_time()) == ([], 0)


async def test_of_too_many_messages_the_rare_ones_are_shown(autojump_clock: MockClock) -> None:
    """An election among nine nodes is seen also under load; what is not shown is counted."""
    sampler = MessageSampler()
    pairs = [(one, other) for one in range(1, 10) for other in range(1, 10) if one != other]
    for source, target in pairs:
        for _ in range(3):
            sampler(HeartbeatReply(source, target, 7, 99, False, 1), False)
    sampler(RequestVote(*HEAD, 4, 6), False)
    messages, left_out = sampler.take(trio.current_time())
    assert len(messages) == MESSAGES_MAX
    assert [each["kind"] for each in messages].count("vote") == 1
    assert left_out == 3 * (len(pairs) - (MESSAGES_MAX - 1))


# --- what is kept -----------------------------------------------------------------------------------------------


def frame(number: int, *, time_s: float, size: int = 50) -> Frame:
    text = json.dumps({"number": number, "time": time_s, "text": random.Random(number).randbytes(size).hex()})
    return Frame(number, time_s, text.encode())


def held(kept: KeptFrames) -> list[bytes]:
    there = kept.kept()
    if there is None:
        return []
    count = there.last - there.first + 1
    return texts(kept.pieces(there.first, count), there.first, count, 1 << 30)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(10, 3000), min_size=1, max_size=400),
    packs_after=st.integers(1, 90),
    step_s=st.floats(0.1, 5.0),
)
def test_what_is_kept_is_the_end_of_all_frames_within_its_bounds(
    sizes: list[int], packs_after: int, step_s: float
) -> None:
    """Whatever comes, and whenever packing is done: no gap, not too old, not too much, and each frame as it was."""
    kept = KeptFrames(bytes_max=200_000, age_s=300.0)
    all_texts: list[bytes] = []
    under_way: list[Frame] = []
    for number, size in enumerate(sizes, 1):
        new = frame(number, time_s=number * step_s, size=size)
        all_texts.append(new.text)
        kept.add(new)
        under_way = under_way or kept.due()
        if under_way and number % packs_after == 0:
            kept.replace(pack(under_way))
            under_way = []
        found = held(kept)
        assert found == all_texts[len(all_texts) - len(found) :]
        assert found, "the newest frame is there"
        assert kept.size_bytes <= 200_000
        there = kept.kept()
        assert there is not None
        assert there.last == number
        # Packs go as a whole.
        assert there.first_time_s >= new.time_s - 300.0 - PACKED_FRAMES * step_s


def test_a_page_is_what_was_asked_for_and_no_more_bytes_than_it_may_be() -> None:
    """From a number on, across packs and what is not packed; one frame comes in any case."""
    kept = KeptFrames()
    frames = [frame(number, time_s=float(number)) for number in range(1, 201)]
    for each in frames:
        kept.add(each)
    kept.replace(pack(kept.due()))
    assert kept.kept() == Kept(1, 200, 1.0, 200.0)

    def page(first: int, count: int, bytes_max: int) -> list[int]:
        found = texts(kept.pieces(first, count), first, count, bytes_max)
        return [json.loads(text)["number"] for text in found]

    assert page(60, 10, 1 << 20) == list(range(60, 70))
    assert page(195, 100, 1 << 20) == list(range(195, 201))
    assert page(201, 100, 1 << 20) == []
    assert page(60, 10, 3 * len(frames[60].text) + 10) == [60, 61, 62]
    assert page(60, 10, 1) == [60]


def test_ten_minutes_of_frames_take_a_tenth_of_their_bytes() -> None:
    """Frames resemble one another: what is kept of them is packed."""
    kept = KeptFrames()
    like: dict[str, Any] = {
        "nodes": [{"node": node, "role": "follower", "digest": "0" * 16} for node in range(5)] * 5
    }
    total = 0
    for number in range(1, 641):
        text = json.dumps({"number": number, **like}).encode()
        total += len(text)
        kept.add(Frame(number, number / 10, text))
        while due := kept.due():
            kept.replace(pack(due))
    assert kept.size_bytes < total / 10
    assert len(held(kept)) == 640


# --- the way of a request ---------------------------------------------------------------------------------------


async def test_the_way_of_a_write_is_what_was_told_of_its_entry(autojump_clock: MockClock) -> None:
    """Entries before and behind it are none of it; what is told just after what it caused is shown before that."""
    observer = Observer()

    def tell(node: int, event: Event) -> None:
        observer.write(Record(0.0, 0.0, 1, event, node))

    tell(1, EntriesAppended(1, 4, 7, 0))
    await trio.sleep(0.001)
    observer(AppendEntries(1, 2, 7, 99, False, 4, 6, (ENTRY,), 3), False)
    observer(AppendEntries(1, 3, 7, 99, False, 4, 6, (ENTRY,), 3), True)
    await trio.sleep(0.001)
    tell(1, EntriesAppended(5, 5, 7, 0))
    await trio.sleep(0.001)
    tell(2, EntriesStored(5))  # of what was there before
    tell(2, EntriesAppended(5, 5, 7, 0))
    await trio.sleep(0.001)
    observer(AppendAccepted(2, 1, 7, 99, False, 4), False)
    observer(AppendAccepted(2, 1, 7, 99, False, 5), False)
    tell(2, EntriesStored(5))
    tell(1, EntriesCommitted(5, 5, 7, 0))
    tell(1, EntriesApplied(5, 5, 7, 0, 0))
    tell(1, EntriesAppended(6, 9, 7, 0))
    hops = observer.hops(Answer([Reply("ok", None, 5)], 1, 7, 5), leader=1, is_write=True)
    assert [(hop["kind"], hop["node"], hop.get("to")) for hop in hops] == [
        ("handed", None, None),
        ("appended", 1, None),
        ("sent", 1, 2),
        ("appended", 2, None),
        ("stored", 2, None),
        ("accepted", 2, 1),
        ("committed", 1, None),
        ("applied", 1, None),
        ("answered", 1, None),
    ]
    assert [hop["at_ms"] for hop in hops] == [0.0, 1.0, 1.0, 3.0, 4.0, 4.0, 4.0, 4.0, 4.0]


async def test_the_way_of_a_read_is_its_question_and_the_answer_to_that(autojump_clock: MockClock) -> None:
    """Questions of other nodes, and answers to them, are none of it."""
    observer = Observer()
    for message in (
        ReadIndex(3, 1, 7, 99, False, 33, 1),
        ReadIndex(2, 1, 7, 99, False, 22, 8),
        ReadIndex(2, 1, 7, 99, False, 22, 9),
        ReadIndexReply(1, 3, 7, 99, False, 33, 1, 4, 7),
        HeartbeatReply(4, 1, 7, 99, False, 2),
        ReadIndexReply(1, 2, 7, 99, False, 22, 8, 5, 7),
        ReadIndexReply(1, 2, 7, 99, False, 22, 9, 6, 7),
    ):
        observer(message, False)
    hops = observer.hops(Answer([Reply("ok", None, 5)], 2, 7, 5), leader=1, is_write=False)
    assert [(hop["kind"], hop["node"], hop.get("to")) for hop in hops] == [
        ("handed", None, None),
        ("asked", 2, 1),
        ("confirmed", 4, 1),
        ("confirmed", 1, 2),
        ("answered", 2, None),
    ]


async def test_of_a_write_without_an_answer_the_way_is_not_known(autojump_clock: MockClock) -> None:
    """There is its beginning and its end, and nothing that may be another's."""
    observer = Observer()
    observer.write(Record(0.0, 0.0, 1, EntriesAppended(5, 5, 7, 0), 1))
    hops = observer.hops(Answer([Reply("timeout")]), leader=None, is_write=True)
    assert [hop["kind"] for hop in hops] == ["handed", "answered"]
    assert hops[0]["what"] == "no leader is known: it waits for one"
    assert hops[1]["node"] is None
