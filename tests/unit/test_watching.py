"""Watches of a store before nodes that are fakes: what they are told, by whom, and what their clients never see."""

import math
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from trio_kv.cluster.registry import Handle, Registry
from trio_kv.gateway.drawn import DRAWN_BYTES_MAX, Drawn, Selector
from trio_kv.gateway.pace import REST_MAX_S, REST_SHARE, Pace
from trio_kv.gateway.pulls import SILENCE_S
from trio_kv.gateway.raft import RaftStore
from trio_kv.gateway.store import Answer, Watch
from trio_kv.kv.history import History
from trio_kv.kv.operations.operation import Change
from trio_kv.wire.node_port import Batch, Done, Gone, Pull, Read, Refused, Request, Unknown
from trio_kv.wire.node_status import State

ALL = Selector("", is_prefix=True)


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


class FakeNode:
    """A node that has applied what it was given, and answers when it is told to."""

    def __init__(self, registry: Registry, id: int, after: int = 0) -> None:
        self.id = id
        self.history = History(after)
        self.requests: list[Request] = []
        self.is_silent = False
        self.pulled: list[int] = []
        """What it was asked for, by pulls."""
        self._registry = registry

    def start(self, role: str = "follower") -> None:
        status = self._registry.nodes[self.id]
        status.role, status.term, status.state = role, 1, State.UP
        self._registry.attach(Handle(status, self._submit, lambda: None))
        self._registry.changed()

    def stop(self) -> None:
        self._registry.detach(self.id)
        for request in self.requests:
            self._registry.deliver([(request.reply_to, Unknown(request.number, self.id))])
        self.requests.clear()

    def answer(self) -> None:
        """Answer all that can be answered."""
        history, requests = self.history, self.requests
        self.requests = []
        for request in requests:
            if isinstance(request, Read):
                self._deliver(request, Done(request.number, self.id, 1, history.upto, ()))
            elif not isinstance(request, Pull) or self.is_silent or request.after >= history.upto:
                self.requests.append(request)
            elif request.after < history.after:
                self._deliver(request, Gone(request.number, self.id, history.after))
            else:
                upto, changes = history.read(request.after, 100)
                self._deliver(request, Batch(request.number, self.id, request.after, upto, changes))

    def refuse(self) -> None:
        """Refuse all that waits."""
        requests, self.requests = self.requests, []
        for request in requests:
            self._deliver(request, Refused(request.number, self.id, None))

    def _submit(self, request: Request) -> bool:
        self.requests.append(request)
        if isinstance(request, Pull):
            self.pulled.append(request.after)
        return True

    def _deliver(self, request: Request, answer: Any) -> None:
        self._registry.deliver([(request.reply_to, answer)])


class Cluster:
    """Some nodes, and a store."""

    def __init__(self, *, nodes: int = 3, window: int = 8192) -> None:
        self.registry = Registry(list(range(1, nodes + 1)))
        self.nodes = [FakeNode(self.registry, id) for id in self.registry.nodes]
        for node in self.nodes:
            node.start("leader" if node.id == nodes else "follower")
        self.store = RaftStore(self.registry, Random(1), watch_window=window)
        self.revision = 0

    def change(self, *keys: str, on: list[int] | None = None, size: int = 1) -> None:
        """Let a revision change keys, at all nodes or at some."""
        self.revision += 1
        value = msgspec.Raw(b'"' + b"x" * size + b'"')
        changes = [Change("set", key, value, self.revision, 0) for key in keys]
        for node in self.nodes:
            if on is None or node.id in on:
                node.history.note(self.revision, changes, size)

    async def settle(self) -> None:
        """Let all happen that can."""
        for _ in range(20):
            for node in self.nodes:
                node.answer()
            await trio.testing.wait_all_tasks_blocked()

    async def watch(
        self,
        selector: Selector = ALL,
        first: int | None = None,
        progress_s: float = math.inf,
        on_more: Callable[[], object] = lambda: None,
    ) -> tuple[Answer, Watch | None]:
        """Begin a watch."""
        answers: list[Answer] = []
        call = self.store.start_watch(
            selector,
            first=first,
            progress_s=progress_s,
            timeout_s=5.0,
            on_more=on_more,
            done=answers.append,
        )
        assert not isinstance(call, Answer)
        while not answers:
            await self.settle()
            await trio.sleep(0.01)
        return answers[0], call.watch

    async def begin(self, *args: Any, **options: Any) -> Watch:
        """Begin a watch that can begin."""
        answer, watch = await self.watch(*args, **options)
        assert answer.replies[0].code == "ok", answer
        assert watch is not None
        return watch

    async def told(self, watch: Watch) -> list[tuple[int, list[str]]]:
        """Return what a watch is told now, and where it is lost."""
        await self.settle()
        await trio.sleep(0.5)
        found = []
        while (drawn := watch.draw()) is not None:
            if drawn.is_lost:
                found.append((drawn.after + 1, ["lost"]))
            found += [(each[0].revision, [change.key for change in each]) for each in drawn.revisions]
        return found


@pytest.fixture
async def cluster(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> Cluster:
    # A test has to take the clock itself, too: pytest-trio looks for it among the arguments of tests alone.
    made = Cluster()
    await nursery.start(made.store.run)
    return made


async def test_it_begins_behind_what_was_acknowledged(
    cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    """Or where it is told to; a revision is told once, its keys in their order, and what is about others is not."""
    cluster.change("a")
    cluster.change("b")
    new = await cluster.begin()
    old = await cluster.begin(Selector("a", is_prefix=True), first=1)
    cluster.change("c", "ab", "aa")
    cluster.change("d")
    assert await cluster.told(new) == [(3, ["aa", "ab", "c"]), (4, ["d"])]
    assert await cluster.told(old) == [(1, ["a"]), (3, ["aa", "ab"])]


async def test_from_beyond_the_next_revision_is_a_mistake(
    cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    """The next one is none."""
    cluster.change("a")
    answer, watch = await cluster.watch(first=3)
    assert (answer.replies[0].code, watch) == ("bad_request", None)
    assert "the next revision is 2" in answer.replies[0].message
    watch = await cluster.begin(first=2)
    cluster.change("b")
    assert await cluster.told(watch) == [(2, ["b"])]


async def test_many_watches_are_one_stream(cluster: Cluster, autojump_clock: trio.testing.MockClock) -> None:
    """A node is asked as often for a thousand as for one, and not at all once the last has ended."""
    watches = [await cluster.begin(Selector(f"k{number}", is_prefix=False)) for number in range(50)]
    same = [await cluster.begin(Selector("k1", is_prefix=False)) for _ in range(2)]
    cluster.change("k1")
    await cluster.settle()
    assert sum(len(node.requests) for node in cluster.nodes) == 1
    await trio.sleep(1.0)
    drawn = [watch.draw() for watch in same]
    assert isinstance(drawn[0], Drawn)
    assert drawn[0] is drawn[1]
    for watch in (*watches, *same):
        watch.end()
        watch.end()
    asked = sum(len(node.pulled) for node in cluster.nodes)
    cluster.change("k2")
    await cluster.settle()
    await trio.sleep(2 * SILENCE_S)
    assert sum(len(node.pulled) for node in cluster.nodes) <= asked + 1


@pytest.mark.parametrize("way", ["dies", "refuses", "says nothing"])
async def test_C2_a_watch_goes_on_elsewhere(
    cluster: Cluster, way: str, autojump_clock: trio.testing.MockClock
) -> None:
    """A node that can't go on is left for another one behind the last revision: no gap, and nothing twice."""
    watch = await cluster.begin()
    cluster.change("a")
    assert await cluster.told(watch) == [(1, ["a"])]
    (node,) = [each for each in cluster.nodes if each.requests]
    others = [each.id for each in cluster.nodes if each is not node]
    cluster.change("b", on=others)
    if way == "dies":
        node.stop()
    elif way == "refuses":
        node.refuse()
    else:
        node.is_silent = True
        await trio.sleep(SILENCE_S + 0.1)
    cluster.change("c", on=others)
    assert await cluster.told(watch) == [(2, ["b"]), (3, ["c"])]


async def test_C2_a_node_that_lost_its_history_is_no_loss(
    cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    """It was made of a snapshot: what is missing there is asked of another node, before anybody is told."""
    watch = await cluster.begin()
    cluster.change("a")
    await cluster.settle()
    (node,) = [each for each in cluster.nodes if each.requests]
    cluster.change("b", on=[each.id for each in cluster.nodes if each is not node])
    cluster.change("c")
    node.history = History(3)
    assert await cluster.told(watch) == [(1, ["a"]), (2, ["b"]), (3, ["c"])]


async def test_C2_what_no_node_has_is_told(cluster: Cluster, autojump_clock: trio.testing.MockClock) -> None:
    """A watch that is to begin there is `compacted`, with the oldest revision that would do; others are lost."""
    watch = await cluster.begin()
    cluster.change("a")
    assert await cluster.told(watch) == [(1, ["a"])]
    for node in cluster.nodes:
        node.is_silent = True
    for _ in range(9):
        cluster.change("b")
    for node in cluster.nodes:
        node.history, node.is_silent = History(10 + node.id), False
        node.refuse()
    cluster.revision = 13
    await trio.sleep(1.0)
    for node in cluster.nodes:
        node.history.note(20, [], 0)
    cluster.revision = 20
    await trio.sleep(1.0)
    assert await cluster.told(watch) == [(2, ["lost"])]
    answer, _ = await cluster.watch(first=5)
    assert (answer.replies[0].code, answer.replies[0].revision) == ("compacted", 12)
    again = await cluster.begin(first=12)
    cluster.change("c")
    assert await cluster.told(again) == [(21, ["c"])]


async def test_C2_a_slow_watch_is_lost_and_resumes(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Once its place is out of the window; the nodes have it still, so that nothing is missed by who begins anew there.

    One that is about other keys, of which nothing changed, is not lost.
    """
    cluster = Cluster(window=128)
    await nursery.start(cluster.store.run)
    watch, quiet = await cluster.begin(), await cluster.begin(Selector("q", is_prefix=False))
    for _ in range(400):
        cluster.change("a")
        if cluster.revision % 50 == 0:
            await cluster.settle()
    assert await cluster.told(watch) == [(1, ["lost"])]
    cluster.change("q")
    assert await cluster.told(quiet) == [(401, ["q"])]
    again = await cluster.begin(first=1)
    revisions: list[int] = []
    for _ in range(10):
        revisions += [revision for revision, _ in await cluster.told(again)]
    assert revisions == list(range(1, 402))


def test_who_has_told_many_rests() -> None:
    """For a multiple of what that took, but not for long; and it goes on at once when much has come."""
    pace = Pace(revisions_max=128, bytes_max=4000)
    pace.rest(10.0, 0.02)
    assert pace.due_at == pytest.approx(10.0 + REST_SHARE * 0.02)
    pace.rest(10.0, 3.0)
    assert pace.due_at == 10.0 + REST_MAX_S

    def presses(revisions: int, size_bytes: int) -> bool:
        pace.came(revisions, size_bytes)
        return pace.is_pressing

    assert [presses(31, 0), presses(1, 0)] == [False, True]
    pace.told()
    pace.rest(10.0, 3.0)
    assert [presses(1, 999), presses(0, 1)] == [False, True]
    # What came in the round itself is still to be told.
    pace.rest(10.0, 3.0)
    assert pace.is_pressing


async def test_clients_of_several_speeds_share_what_is_made_for_them(
    cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    """Two that are behind, and two that are not, draw in turn: for each place it is made once."""
    watches = [await cluster.begin() for _ in range(4)]
    cluster.change("a")
    await cluster.settle()
    await trio.sleep(0.5)
    assert all(watch.draw() is not None for watch in watches[:2])
    cluster.change("b")
    await cluster.settle()
    await trio.sleep(0.5)
    fast_1, slow_1, fast_2, slow_2 = (watches[n].draw() for n in (0, 2, 1, 3))
    assert fast_1 is fast_2
    assert slow_1 is slow_2
    assert fast_1 is not None
    assert slow_1 is not None
    assert (len(fast_1.revisions), len(slow_1.revisions)) == (1, 2)


async def test_C2_no_watch_is_lost_by_a_rest(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a rest would be so long that what is to be told falls out of the window, there is none."""
    cluster = Cluster(window=128)
    await nursery.start(cluster.store.run)
    told: list[int] = []

    def on_more() -> None:
        while (drawn := watch.draw()) is not None:
            assert not drawn.is_lost
            told.extend([each[0].revision for each in drawn.revisions])

    watch = await cluster.begin(on_more=on_more)
    real = Pace.rest
    monkeypatch.setattr(Pace, "rest", lambda self, now, _took_s: real(self, now, 1e9))
    monkeypatch.setattr("trio_kv.gateway.pace.REST_MAX_S", 3600.0)
    for _ in range(400):
        cluster.change("a")
        if cluster.revision % 20 == 0:
            await cluster.settle()
    await trio.sleep(0.5)
    assert told == list(range(1, len(told) + 1))
    assert len(told) > 400 - 128
    await trio.sleep(3600.0)
    assert told == list(range(1, 401))


async def test_C3_progress_is_never_ahead(cluster: Cluster, autojump_clock: trio.testing.MockClock) -> None:
    """It tells up to where all was told, at least as often as asked for, and only behind all that there was to tell."""
    watch = await cluster.begin(progress_s=2.0)
    at, last = 0, trio.current_time()
    for number in range(100):
        cluster.change("a" if number % 3 else "b")
        await cluster.settle()
        await trio.sleep(0.3)
        while (drawn := watch.draw()) is not None:
            if drawn.revisions:
                revisions = [each[0].revision for each in drawn.revisions]
                assert revisions == list(range(at + 1, at + 1 + len(revisions)))
                at = revisions[-1]
            else:
                assert drawn.upto == at
                assert trio.current_time() - last <= 2.0
                last = trio.current_time()
    assert at == 100
    assert trio.current_time() - last <= 2.0


async def test_much_is_told_in_pieces(cluster: Cluster, autojump_clock: trio.testing.MockClock) -> None:
    """Each ends with a revision; a single one is told whole, whatever its size."""
    watch = await cluster.begin()
    cluster.change("a", size=3 * DRAWN_BYTES_MAX)
    for _ in range(4):
        cluster.change("a", size=DRAWN_BYTES_MAX // 3)
    await cluster.settle()
    await trio.sleep(1.0)
    pieces = []
    while (drawn := watch.draw()) is not None:
        pieces.append([each[0].revision for each in drawn.revisions])
    assert pieces == [[1], [2, 3, 4], [5]]


async def test_a_beginning_can_be_cancelled(cluster: Cluster, autojump_clock: trio.testing.MockClock) -> None:
    """Nobody hears of it then, and nothing is left."""
    call = cluster.store.start_watch(
        ALL,
        first=None,
        progress_s=math.inf,
        timeout_s=5.0,
        on_more=lambda: None,
        done=lambda answer: pytest.fail(str(answer)),
    )
    assert not isinstance(call, Answer)
    cluster.store.cancel(call)
    await cluster.settle()
    assert not any(node.pulled for node in cluster.nodes)


async def test_without_a_node_no_watch_begins(
    cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    """In time it hears that."""
    for node in cluster.nodes:
        node.stop()
    began = trio.current_time()
    answer, watch = await cluster.watch()
    assert (answer.replies[0].code, watch) == ("unavailable", None)
    assert trio.current_time() - began < 5.5
