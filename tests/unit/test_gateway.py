"""The gateway before nodes that are fakes: what it asks them, how often, and under which session."""

import math
from collections.abc import Callable
from random import Random

import msgspec
import pytest
import trio
import trio.testing

from trio_kv.cluster.inbox import Inbox
from trio_kv.cluster.registry import Handle, Registry
from trio_kv.gateway.raft import RaftStore
from trio_kv.gateway.runs import HEDGE_S
from trio_kv.gateway.store import View
from trio_kv.kv.commands import OpenSession, Write
from trio_kv.kv.operations import Cas, Delete, Get, Set
from trio_kv.kv.reply import Reply
from trio_kv.kv.session import REPLIES_MAX
from trio_kv.wire.node_port import Answer, Done, Full, Propose, Refused
from trio_kv.wire.node_status import State

SET = Set("k", msgspec.Raw(b"1"))


def start(registry: Registry, node: int, inbox: Inbox, role: str) -> None:
    """Let a node run."""
    status = registry.nodes[node]
    status.role, status.term, status.state = role, 1, State.UP
    registry.attach(Handle(status, inbox.post_request, lambda: None))
    registry.changed()


class Leader:
    """A node that leads, and answers each proposal as told."""

    def __init__(self, answer: Callable[[Propose], Answer]) -> None:
        self.registry = Registry([1])
        self.proposals: list[Propose] = []
        self.inbox = Inbox()
        self.start()
        self.takes_s = 0.0
        self._answer = answer

    def start(self) -> None:
        start(self.registry, 1, self.inbox, "leader")

    async def run(self) -> None:
        while True:
            for propose in await self.inbox.receive():
                self.proposals.append(propose)
                await trio.sleep(self.takes_s)
                self.registry.deliver([(propose.reply_to, self._answer(propose))])


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


def done(propose: Propose, replies: list[Reply]) -> Done:
    return Done(propose.number, 1, 1, 1, replies)


def is_opening(propose: Propose) -> bool:
    return isinstance(propose.commands[0], OpenSession)


async def test_a_leader_that_refuses_is_asked_again_later(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A leader that hands over refuses for a while: it is asked once a sweep, and not as fast as it can refuse."""
    leader = Leader(lambda propose: Refused(propose.number, 1, None))
    leader.takes_s = 0.001  # Or else virtual time would never pass while it is asked without end.
    store = RaftStore(leader.registry, Random(1))
    nursery.start_soon(leader.run)
    await nursery.start(store.run)
    answer = await store.write([SET], timeout_s=1.0)
    assert answer.replies[0].code == "unavailable"
    assert 2 <= len(leader.proposals) <= 1.0 / HEDGE_S + 1
    nursery.cancel_scope.cancel()


async def test_a_forgotten_session_is_given_up(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """When the cluster says that it has forgotten the session, the next write opens another one and succeeds."""
    opened: list[int] = []

    def answer(propose: Propose) -> Answer:
        if is_opening(propose):
            opened.append(10 * (len(opened) + 1))
            return done(propose, [Reply("ok", None, opened[-1])])
        sessions = [getattr(command, "session", 0) for command in propose.commands]
        code = "session_expired" if sessions[0] == 10 else "ok"
        return done(propose, [Reply(code, None, 99)] * len(propose.commands))

    leader = Leader(answer)
    store = RaftStore(leader.registry, Random(1))
    nursery.start_soon(leader.run)
    await nursery.start(store.run)
    codes = [(await store.write([SET, SET], timeout_s=1.0)).replies[0].code for _ in range(3)]
    assert codes == ["session_expired", "ok", "ok"]
    assert opened == [10, 20]
    nursery.cancel_scope.cancel()


async def test_writes_that_wait_for_a_session_are_not_too_many(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """However many seqs the last session gave out, those who come while the next one is opened are served."""

    def answer(propose: Propose) -> Answer:
        return done(propose, [Reply("ok", None, 10)] * len(propose.commands))

    leader = Leader(answer)
    store = RaftStore(leader.registry, Random(1), session_timeout_s=10.0)
    nursery.start_soon(leader.run)
    await nursery.start(store.run)
    for _ in range(70):
        await store.write([SET] * 1000, timeout_s=1.0)
    await trio.sleep(8.0)
    leader.takes_s = 0.1
    codes: list[str] = []

    async def write() -> None:
        codes.append((await store.write([SET], timeout_s=1.0)).replies[0].code)

    async with trio.open_nursery() as writers:
        for _ in range(5):
            writers.start_soon(write)
            await trio.sleep(0.01)
    assert codes == ["ok"] * 5
    nursery.cancel_scope.cancel()


class Cluster:
    """What a leader answers that opens sessions 10, 20, … and forgets them when told."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.known: set[int] = set()
        self.is_full = False
        self.commands: list[Write] = []

    def __call__(self, propose: Propose) -> Answer:
        if self.is_full:
            return Full(propose.number, 1)
        if is_opening(propose):
            self.opened.append(10 * (len(self.opened) + 1))
            self.known.add(self.opened[-1])
            return done(propose, [Reply("ok", None, self.opened[-1])])
        commands = [each for each in propose.commands if isinstance(each, Write)]
        self.commands += commands
        return done(
            propose, [Reply("ok" if each.session in self.known else "session_expired") for each in commands]
        )


async def test_writes_that_waited_for_a_session_stay_within_its_window(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """What would have more answers awaited than a session keeps is refused before it is handed over.

    The session would refuse it at apply, and take it from a later attempt, when its owner awaits less.
    """
    cluster = Cluster()
    leader = Leader(cluster)
    leader.takes_s = 0.1
    store = RaftStore(leader.registry, Random(1))
    nursery.start_soon(leader.run)
    await nursery.start(store.run)
    codes: list[str] = []

    async def write() -> None:
        codes.append((await store.write([SET] * 1024, timeout_s=60.0)).replies[0].code)

    async with trio.open_nursery() as writers:
        for _ in range(70):
            writers.start_soon(write)
    assert max(each.seq - each.done for each in cluster.commands) < REPLIES_MAX
    assert sorted(codes) == ["ok"] * 64 + ["overloaded"] * 6
    nursery.cancel_scope.cancel()


async def test_nobody_writes_under_a_session_that_is_being_replaced(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """After a silence in which the session was forgotten, all who write at once wait for the next one."""
    cluster = Cluster()
    leader = Leader(cluster)
    store = RaftStore(leader.registry, Random(1), session_timeout_s=10.0)
    nursery.start_soon(leader.run)
    await nursery.start(store.run)
    await store.write([SET], timeout_s=1.0)
    await trio.sleep(20.0)
    cluster.known.clear()
    leader.takes_s = 0.1
    codes: list[str] = []

    async def write() -> None:
        codes.append((await store.write([SET], timeout_s=1.0)).replies[0].code)

    async with trio.open_nursery() as writers:
        for _ in range(3):
            writers.start_soon(write)
            await trio.sleep(0.01)
    assert codes == ["ok"] * 3
    assert cluster.opened == [10, 20]
    nursery.cancel_scope.cancel()


async def test_time_outs_shorter_than_a_commit_open_one_session(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Clients that give up before a session can be open don't open one each: the next one finds that one."""
    cluster = Cluster()
    leader = Leader(cluster)
    leader.takes_s = 0.1
    store = RaftStore(leader.registry, Random(1))
    nursery.start_soon(leader.run)
    await nursery.start(store.run)
    replies = [(await store.write([SET], timeout_s=0.001)).replies[0] for _ in range(4)]
    assert {reply.code for reply in replies} == {"unavailable"}
    await trio.sleep(0.1)
    replies = [(await store.write([SET], timeout_s=0.001)).replies[0] for _ in range(1_000)]
    assert {reply.code for reply in replies} == {"timeout"}
    assert (await store.write([SET], timeout_s=1_000.0)).replies[0].code == "ok"
    assert cluster.opened == [10]
    nursery.cancel_scope.cancel()


async def test_an_opening_outlives_its_leader(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """It goes to whoever leads next, also when nobody waits for it any more; writes wait until it is done."""
    cluster = Cluster()
    leader = Leader(cluster)
    store = RaftStore(leader.registry, Random(1))
    await nursery.start(store.run)
    leader.registry.detach(1)
    assert (await store.write([SET], timeout_s=0.5)).replies[0].code == "unavailable"
    leader.start()
    nursery.start_soon(leader.run)
    assert (await store.write([SET], timeout_s=0.5)).replies[0].code == "ok"
    assert cluster.opened == [10]
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("session_timeout_s", [0.0, 0.099, -1.0, 1e9, math.inf, math.nan])
def test_time_outs_of_sessions_have_a_range(session_timeout_s: float) -> None:
    """One that an entry can't hold, or that forgets a session at once, is refused before anything is written."""
    with pytest.raises(ValueError, match=r"0\.1 to 31536000 seconds"):
        RaftStore(Registry([1]), Random(1), session_timeout_s=session_timeout_s)


async def test_writes_that_nobody_took_do_not_use_a_session(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Full disks refuse writes for longer than a session lives: the first that is taken has a new session."""
    cluster = Cluster()
    leader = Leader(cluster)
    store = RaftStore(leader.registry, Random(1), session_timeout_s=10.0)
    nursery.start_soon(leader.run)
    await nursery.start(store.run)
    await store.write([SET], timeout_s=1.0)
    cluster.is_full = True
    for _ in range(12):
        await trio.sleep(1.0)
        assert (await store.write([SET], timeout_s=1.0)).replies[0].code == "read_only"
    cluster.is_full = False
    cluster.known.clear()
    assert (await store.write([SET], timeout_s=1.0)).replies[0].code == "ok"
    nursery.cancel_scope.cancel()


async def test_a_session_that_cannot_be_opened_says_why(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """The first writer of all hears that the disks or the queue are full, and not that no leader answered."""
    cluster = Cluster()
    cluster.is_full = True
    leader = Leader(cluster)
    store = RaftStore(leader.registry, Random(1))
    nursery.start_soon(leader.run)
    await nursery.start(store.run)
    assert (await store.write([SET], timeout_s=1.0)).replies[0].code == "read_only"
    leader.registry.attach(Handle(leader.registry.nodes[1], lambda _: False, lambda: None))
    leader.registry.changed()
    assert (await store.write([SET], timeout_s=1.0)).replies[0].code == "overloaded"
    nursery.cancel_scope.cancel()


async def test_a_run_weighs_all_that_it_carries(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Keys and expected values count towards the bytes that a node's queue takes, as values do."""
    leader = Leader(Cluster())
    store = RaftStore(leader.registry, Random(1))
    nursery.start_soon(leader.run)
    await nursery.start(store.run)
    long = msgspec.Raw(b'"' + b"x" * 998 + b'"')
    for operation in (Cas("k", msgspec.Raw(b"1"), long), Delete("k" * 1000)):
        await store.write([operation], timeout_s=1.0)
        assert leader.proposals[-1].size_bytes >= 1000
    nursery.cancel_scope.cancel()


async def test_a_node_that_never_answers_costs_no_reader_its_patience(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One read at a time tries it, ever more seldom: what hedging may cost is not spent on it, however long it lasts.

    Once it answers it is asked like any other.
    """
    monkeypatch.setattr("trio_kv.gateway.readers.HEDGES_MAX", 20)
    registry = Registry([1, 2, 3])
    asked: dict[int, int] = {1: 0, 2: 0, 3: 0}
    is_mute = True
    inboxes = {node: Inbox() for node in registry.nodes}
    for node, inbox in inboxes.items():
        start(registry, node, inbox, "leader" if node == 1 else "follower")

    async def run(node: int) -> None:
        while True:
            for read in await inboxes[node].receive():
                asked[node] += 1
                if node != 3 or not is_mute:
                    await trio.sleep(0.001)
                    registry.deliver(
                        [(read.reply_to, Done(read.number, node, 1, 1, [Reply("ok", revision=1)]))]
                    )

    store = RaftStore(registry, Random(1))
    for node in registry.nodes:
        nursery.start_soon(run, node)
    await nursery.start(store.run)
    slowest_s, answered = 0.0, 0

    async def reader() -> None:
        nonlocal slowest_s, answered
        while True:
            began_s = trio.current_time()
            await store.read([Get("k")], timeout_s=5.0, is_stale=False, view=View())
            slowest_s, answered = max(slowest_s, trio.current_time() - began_s), answered + 1
            await trio.sleep(0.1)

    with trio.move_on_after(120.0):
        async with trio.open_nursery() as readers:
            for _ in range(16):
                readers.start_soon(reader)
    assert answered > 10_000
    assert slowest_s < 3 * HEDGE_S
    assert asked[3] < 40
    is_mute = False
    with trio.move_on_after(60.0):
        await reader()
    assert asked[3] > 100
    nursery.cancel_scope.cancel()
