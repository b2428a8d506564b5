"""What clients are told when nodes are silent, change their role or die: the gateway before nodes under control.

No time passes but that which the gateway waits for: the clock jumps when everybody waits.
"""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import attrs
import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_kv.cluster.registry import Handle, Registry
from trio_kv.gateway.raft import RaftStore
from trio_kv.gateway.store import Answer, View
from trio_kv.kv.commands import OpenSession, Write
from trio_kv.kv.operations import Get, Scan, Set
from trio_kv.kv.reply import Reply
from trio_kv.wire.node_port import Done, Full, Propose, Read, Refused, Unknown
from trio_kv.wire.node_status import State

SESSION = 7


@attrs.define
class Nodes:
    """Three nodes that note what they are asked; sessions are opened at once, all else waits for the test."""

    registry: Registry
    store: RaftStore
    nursery: trio.Nursery
    asked: list[tuple[int, Propose | Read]] = attrs.field(factory=list)
    openings: int = 0

    def lead(self, node: int | None, term: int) -> None:
        """Let a node, or nobody, lead."""
        for status in self.registry.nodes.values():
            status.role, status.term = ("leader" if status.node == node else "follower"), term
        self.registry.changed()

    def take(self, node: int, request: Propose | Read) -> bool:
        if isinstance(request, Propose) and isinstance(request.commands[0], OpenSession):
            self.openings += 1
            opened = Done(request.number, node, 1, SESSION, [Reply("ok", revision=SESSION)])
            self.nursery.start_soon(self._deliver, opened)
        else:
            self.asked.append((node, request))
        return True

    async def _deliver(self, answer: Done) -> None:
        self.store.deliver(answer)

    def sets(self) -> list[Write]:
        """Return the writes that nodes were given, one an attempt."""
        proposals = [request for _, request in self.asked if isinstance(request, Propose)]
        return [command for each in proposals for command in each.commands if isinstance(command, Write)]

    def done(self, place: int, *replies: Reply) -> None:
        """Let the node that was asked answer."""
        node, request = self.asked[place]
        self.store.deliver(Done(request.number, node, 1, 9, replies))


@pytest.fixture
async def nodes(nursery: trio.Nursery) -> Nodes:
    registry = Registry([1, 2, 3])
    store = RaftStore(registry, Random(1))
    nodes = Nodes(registry, store, nursery)
    for status in registry.nodes.values():
        status.state = State.UP
        registry.attach(Handle(status, partial(nodes.take, status.node), lambda: None))
    nodes.lead(1, 1)
    await nursery.start(store.run)
    return nodes


class Call:
    """A call of the store that runs beside the test."""

    def __init__(self, nursery: trio.Nursery, call: Callable[[], Any]) -> None:
        self.answer: Answer | None = None
        self._call = call
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        self.answer = await self._call()

    @property
    def code(self) -> str:
        return self.codes[0]

    @property
    def codes(self) -> list[str]:
        assert self.answer is not None
        return [reply.code for reply in self.answer.replies]


def begin_write(nodes: Nodes, nursery: trio.Nursery, timeout_s: float = 5.0) -> Call:
    return Call(nursery, lambda: nodes.store.write([Set("k", msgspec.Raw(b"1"))], timeout_s=timeout_s))


def begin_read(nodes: Nodes, nursery: trio.Nursery, timeout_s: float = 5.0) -> Call:
    return Call(
        nursery, lambda: nodes.store.read([Get("k")], timeout_s=timeout_s, is_stale=False, view=View())
    )


async def test_C1_a_write_is_repeated_under_its_own_number(
    autojump_clock: MockClock, nodes: Nodes, nursery: trio.Nursery
) -> None:
    """No answer, an unknown outcome, another leader: all attempts are one command of one session."""
    call = begin_write(nodes, nursery)
    await trio.sleep(1.5)
    nodes.lead(2, 2)
    await wait_all_tasks_blocked()
    node, request = nodes.asked[-1]
    nodes.store.deliver(Unknown(request.number, node))
    await wait_all_tasks_blocked()
    assert [node for node, _ in nodes.asked] == [1, 1, 2, 2]
    assert [(each.session, each.seq) for each in nodes.sets()] == [(SESSION, 1)] * 4
    nodes.done(1, Reply("ok", revision=9))
    await wait_all_tasks_blocked()
    assert call.code == "ok"


async def test_C1_two_writes_never_share_a_number(
    autojump_clock: MockClock, nodes: Nodes, nursery: trio.Nursery
) -> None:
    """Runs that are under way at the same time have numbers of their own, and each hears its own answer."""
    first, second = begin_write(nodes, nursery), begin_write(nodes, nursery)
    await wait_all_tasks_blocked()
    assert len({each.seq for each in nodes.sets()}) == 2
    nodes.done(1, Reply("conflict"))
    await wait_all_tasks_blocked()
    nodes.done(0, Reply("ok", revision=9))
    await wait_all_tasks_blocked()
    assert {first.code, second.code} == {"ok", "conflict"}
    assert nodes.asked[0][1].number != nodes.asked[1][1].number


async def test_C10_a_write_that_was_handed_over_never_fails_definitely(
    autojump_clock: MockClock, nodes: Nodes, nursery: trio.Nursery
) -> None:
    """Its node is silent, then nobody leads: the outcome is not known, and nobody says that nothing was written."""
    call = begin_write(nodes, nursery)
    await wait_all_tasks_blocked()
    nodes.lead(None, 2)
    await trio.sleep(6)
    assert call.code == "timeout"


async def test_C10_a_refusal_does_not_deny_an_earlier_attempt(
    autojump_clock: MockClock, nodes: Nodes, nursery: trio.Nursery
) -> None:
    """The first leader may have it in its log; that the second one did not take it says nothing about that."""
    call = begin_write(nodes, nursery, 0.5)
    await wait_all_tasks_blocked()
    nodes.lead(2, 2)
    await wait_all_tasks_blocked()
    node, request = nodes.asked[-1]
    assert node == 2
    nodes.lead(None, 3)
    nodes.store.deliver(Refused(request.number, node, None))
    await trio.sleep(1)
    assert call.code == "timeout"


async def test_C10_a_write_that_nobody_took_fails_definitely(
    autojump_clock: MockClock, nodes: Nodes, nursery: trio.Nursery
) -> None:
    """It was refused and handed to nobody else: the client may do what it likes, nothing will come of it."""
    call = begin_write(nodes, nursery, 0.5)
    await wait_all_tasks_blocked()
    node, request = nodes.asked[-1]
    nodes.lead(None, 2)
    nodes.store.deliver(Refused(request.number, node, None))
    await trio.sleep(1)
    assert call.code == "unavailable"


def begin_run(nodes: Nodes, nursery: trio.Nursery, timeout_s: float = 5.0) -> Call:
    run: list[Any] = [
        Get("a"),
        Set("k", msgspec.Raw(b"1")),
        Get("k"),
        Get("b"),
        Set("k", msgspec.Raw(b"2")),
        Get("k"),
    ]
    return Call(nursery, lambda: nodes.store.write(run, timeout_s=timeout_s))


async def test_reads_beside_writes_go_with_them_to_the_leader(
    autojump_clock: MockClock, nodes: Nodes, nursery: trio.Nursery
) -> None:
    """One request, in which each read has its place among the writes; its replies are those of the run."""
    call = begin_run(nodes, nursery)
    await wait_all_tasks_blocked()
    ((node, request),) = nodes.asked
    assert isinstance(request, Propose)
    assert node == 1
    assert [each.seq for each in nodes.sets()] == [1, 2]
    assert [(place, [str(query) for query in queries]) for place, queries in request.queries] == [
        (0, [str(Get("a"))]),
        (1, [str(Get("k")), str(Get("b"))]),
        (2, [str(Get("k"))]),
    ]
    assert request.size_bytes > 6 * 512
    replies = [Reply("missing"), Reply("ok"), Reply("ok"), Reply("missing"), Reply("conflict"), Reply("ok")]
    nodes.done(0, *replies)
    await wait_all_tasks_blocked()
    assert call.codes == [reply.code for reply in replies]


async def test_C10_a_run_that_is_late_is_unknown_and_its_reads_are_not(
    autojump_clock: MockClock, nodes: Nodes, nursery: trio.Nursery
) -> None:
    """A read has no effect: it fails for certain, and only what may take effect is said to be late."""
    call = begin_run(nodes, nursery)
    await wait_all_tasks_blocked()
    nodes.lead(None, 2)
    await trio.sleep(6)
    read = "unavailable"
    assert call.codes == [read, "timeout", read, read, "timeout", read]


async def test_C10_a_run_that_nobody_took_fails_definitely(
    autojump_clock: MockClock, nodes: Nodes, nursery: trio.Nursery
) -> None:
    """Without a leader in time nothing was written, and nothing read."""
    nodes.lead(None, 2)
    call = begin_run(nodes, nursery, 0.5)
    await trio.sleep(1)
    assert call.codes == ["unavailable"] * 6


async def test_R2_reads_go_on_where_the_writes_beside_them_are_refused(
    autojump_clock: MockClock, nodes: Nodes, nursery: trio.Nursery
) -> None:
    """Full disks keep nobody from reading: as no write takes effect, any state is the one between them."""
    call = begin_run(nodes, nursery)
    await wait_all_tasks_blocked()
    node, request = nodes.asked[0]
    nodes.store.deliver(Full(request.number, node))
    await trio.sleep(0.01)
    assert len(nodes.asked) == 2
    read = nodes.asked[1][1]
    assert isinstance(read, Read)
    assert [str(query) for query in read.queries] == [str(Get(key)) for key in "akbk"]
    nodes.done(1, Reply("missing"), Reply("ok", msgspec.Raw(b"1")), Reply("missing"), Reply("ok"))
    await wait_all_tasks_blocked()
    assert call.codes == ["missing", "read_only", "ok", "missing", "read_only", "ok"]
    assert call.answer is not None
    assert call.answer.applied == 9


async def test_C10_reads_do_not_go_on_while_an_attempt_may_take_effect(
    autojump_clock: MockClock, nodes: Nodes, nursery: trio.Nursery
) -> None:
    """The first leader may have the run: that the second one has no room says nothing of what a read would meet."""
    call = begin_run(nodes, nursery, 0.5)
    await wait_all_tasks_blocked()
    nodes.lead(2, 2)
    await wait_all_tasks_blocked()
    node, request = nodes.asked[-1]
    assert node == 2
    nodes.lead(None, 3)
    nodes.store.deliver(Full(request.number, node))
    await trio.sleep(1)
    assert not [request for _, request in nodes.asked if isinstance(request, Read)]
    assert call.codes[:2] == ["unavailable", "timeout"]


async def test_a_run_that_ends_with_reads_tells_that_its_session_was_forgotten(
    autojump_clock: MockClock, nodes: Nodes, nursery: trio.Nursery
) -> None:
    """It is its last write that knows whether the session is there, and not its last operation."""
    call = begin_run(nodes, nursery)
    await wait_all_tasks_blocked()
    gone, read = Reply("session_expired"), Reply("missing")
    nodes.done(0, read, gone, read, read, gone, read)
    await wait_all_tasks_blocked()
    assert call.codes[1] == "session_expired"
    asked = len(nodes.asked)
    begin_write(nodes, nursery)
    await trio.sleep(0.01)
    assert nodes.openings == 2
    assert len(nodes.asked) == asked + 1


async def test_R2_a_read_that_finds_nobody_is_no_missing_key(
    autojump_clock: MockClock, nodes: Nodes, nursery: trio.Nursery
) -> None:
    """A client that reads while no node can answer hears an error in time, and never that there is no such key."""
    call = begin_read(nodes, nursery, 0.5)
    await trio.sleep(1)
    assert len(nodes.asked) > 1
    assert call.code == "unavailable"


async def test_R2_a_read_that_is_lost_is_given_to_another_node(
    autojump_clock: MockClock, nodes: Nodes, nursery: trio.Nursery
) -> None:
    """A node that stays silent costs 20 ms, and no error."""
    call = begin_read(nodes, nursery)
    await trio.sleep(0.03)
    assert len({node for node, _ in nodes.asked}) == 2
    nodes.done(1, Reply("missing"))
    await wait_all_tasks_blocked()
    assert call.code == "missing"


async def test_a_page_is_given_time_before_another_node_is_asked(
    autojump_clock: MockClock, nodes: Nodes, nursery: trio.Nursery
) -> None:
    """A node that puts its keys in order first must not make all others do so, too; after a second another is asked."""
    read = partial(nodes.store.read, [Get("k"), Scan()], timeout_s=5, is_stale=False, view=View())
    Call(nursery, read)
    await trio.sleep(1.0)
    assert len(nodes.asked) == 1
    await trio.sleep(0.03)
    assert len({node for node, _ in nodes.asked}) == 2


async def test_R7_a_stale_read_is_not_older_than_what_its_connection_read_before(
    autojump_clock: MockClock, nodes: Nodes, nursery: trio.Nursery
) -> None:
    """A linearizable read is seen, too: a follower that lags behind it must not answer the stale one after it."""
    view = View()
    call = Call(nursery, lambda: nodes.store.read([Get("k")], timeout_s=5, is_stale=False, view=view))
    await wait_all_tasks_blocked()
    nodes.done(0, Reply("ok", msgspec.Raw(b"2"), 9))
    await wait_all_tasks_blocked()
    assert call.code == "ok"
    Call(nursery, lambda: nodes.store.read([Get("k")], timeout_s=5, is_stale=True, view=view))
    await wait_all_tasks_blocked()
    request = nodes.asked[-1][1]
    assert isinstance(request, Read)
    assert (request.is_stale, request.applied_min) == (True, 9)


async def test_an_answer_that_is_late_or_empty_takes_nothing_back_from_a_view() -> None:
    """What a connection has seen only grows, and an error tells it nothing."""
    view = View()
    for applied in (9, 0, 7):
        view.note(Answer([Reply("ok")], applied=applied))
    assert view.applied == 9
