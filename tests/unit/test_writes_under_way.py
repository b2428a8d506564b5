"""What writes that wait for their commit may take of memory, whatever keeps them waiting: nodes and gateway, joined."""

from functools import partial
from random import Random

import msgspec
import pytest
import trio
import trio.testing

from trio_kv.cluster.inbox import Inbox
from trio_kv.cluster.node import Clock, Node
from trio_kv.cluster.registry import Handle, Registry
from trio_kv.gateway.raft import RaftStore
from trio_kv.kv.operations import Set
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.messages import Message
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import Ticket, Write
from trio_kv.replica.group import GROUP_S
from trio_kv.replica.jobs import Job, Stored
from trio_kv.replica.patience import PATIENCE_S
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import SNAPSHOT_LEASE_S, Turns
from trio_kv.trace.trace import Trace
from trio_kv.wire.node_status import State

LIMIT_BYTES = 100_000
SET = Set("k", msgspec.Raw(b"1" * 9_000))


class Disk:
    """A disk that stores at once what it is given, unless it stands still."""

    def __init__(self, inbox: Inbox) -> None:
        self.is_stalled = False
        self._inbox = inbox
        self._tickets: list[Ticket] = []

    def submit(self, item: Write | Job) -> None:
        assert isinstance(item, Write)
        self._tickets.append(item.ticket)
        if not self.is_stalled:
            self.unstall()

    async def stop(self, *, drop_queued: bool = True) -> None:
        raise NotImplementedError

    def unstall(self) -> None:
        self.is_stalled = False
        for ticket in self.take_tickets():
            self._inbox.post(Stored(ticket))

    def take_tickets(self) -> list[Ticket]:
        """Return those of all writes that nobody was told of."""
        tickets, self._tickets = self._tickets, []
        return tickets


class Cluster:
    """Three nodes without a network or disks, and their gateway."""

    def __init__(self) -> None:
        self.registry = Registry([1, 2, 3])
        self.store = RaftStore(self.registry, Random(1))
        self.inboxes = {node: Inbox() for node in self.registry.nodes}
        self.disks = {node: Disk(inbox) for node, inbox in self.inboxes.items()}
        self.nodes = {node: self._make(node) for node in self.registry.nodes}
        self.is_cut = False
        self.sent: list[Message] = []
        self.changed = trio.Event()

    def _make(self, number: int) -> Node:
        status = self.registry.nodes[number]
        status.state = State.UP
        self.registry.attach(Handle(status, self.inboxes[number].post_request, lambda: None))
        clock = Clock()
        raft = Raft(
            id=number,
            peers={1, 2, 3} - {number},
            config=RaftConfig(),
            random=Random(number),
            incarnation=number,
            now=clock.now(),
        )
        return Node(
            replica=Replica(raft, snapshot_log_bytes_min=1 << 40),
            inbox=self.inboxes[number],
            disk=self.disks[number],
            send=self._send,
            deliver=self.registry.deliver,
            status=status,
            publish=self.registry.changed,
            rebuilt=trio.lowlevel.checkpoint,
            trace=Trace(),
            clock=clock,
            turns=Turns(SNAPSHOT_LEASE_S),
        )

    def _send(self, message: Message) -> None:
        self.sent.append(message)
        if not self.is_cut:
            self.inboxes[message.target].post_peer(message)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; started when a first write has been committed."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.store.run)
            for node in self.nodes.values():
                nursery.start_soon(node.run)
            assert (await self.store.write([SET], timeout_s=10.0)).replies[0].code == "ok"
            task_status.started()

    def lead(self) -> int:
        """Return who leads."""
        leader = self.registry.leader()
        assert leader is not None
        return leader.status.node

    def uncommitted_bytes(self) -> int:
        """Return the bytes in the leader's log that wait for their commit."""
        raft = self.nodes[self.lead()].replica.raft
        return raft.log.size_bytes(raft.commit + 1, raft.log.last_index)


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


async def test_a_log_that_nothing_is_committed_of_does_not_grow_without_end(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disks of a majority stand still and their leader leads on: it takes so many bytes of writes and no more.

    What is handed over again, and what clients write after their time-outs, would fill its memory and its disk.
    """
    monkeypatch.setattr("trio_kv.cluster.inbox.WRITE_BYTES_MAX", LIMIT_BYTES)
    cluster = Cluster()
    await nursery.start(cluster.run)
    lead = cluster.lead()
    for node, disk in cluster.disks.items():
        disk.is_stalled = node != lead
    codes: list[str] = []

    async def write(count: int) -> None:
        for _ in range(count):
            codes.append((await cluster.store.write([SET], timeout_s=5.0)).replies[0].code)
            # Or else virtual time would never pass while the queue is full.
            await trio.sleep(0.1)

    async with trio.open_nursery() as clients:
        for _ in range(50):
            clients.start_soon(write, 1000)
        for _ in range(30):
            await trio.sleep(1.0)
            assert cluster.lead() == lead
            assert LIMIT_BYTES / 2 < cluster.uncommitted_bytes() <= LIMIT_BYTES
        assert set(codes) == {"overloaded", "timeout"}
        clients.cancel_scope.cancel()
    for disk in cluster.disks.values():
        disk.unstall()
    await trio.sleep(1.0)
    assert cluster.uncommitted_bytes() == 0
    codes.clear()
    async with trio.open_nursery() as clients:
        for _ in range(LIMIT_BYTES // 10_000):
            clients.start_soon(write, 3)
    assert set(codes) == {"ok"}
    nursery.cancel_scope.cancel()


async def test_writes_that_wait_for_a_leader_are_bounded(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no node can lead, so many bytes of writes wait in the gateway and no more; then all of these are done."""
    monkeypatch.setattr("trio_kv.gateway.writes.WRITE_BYTES_MAX", LIMIT_BYTES)
    cluster = Cluster()
    await nursery.start(cluster.run)
    cluster.is_cut = True
    await trio.sleep(2.0)
    assert cluster.registry.leader() is None
    codes: list[str] = []

    async def write() -> None:
        codes.append((await cluster.store.write([SET], timeout_s=30.0)).replies[0].code)

    async with trio.open_nursery() as writers:
        for _ in range(50):
            writers.start_soon(write)
        await trio.sleep(10.0)
        refused = len(codes)
        assert codes == ["overloaded"] * refused
        waiting_bytes = (50 - refused) * len(SET.value)
        assert LIMIT_BYTES / 2 < waiting_bytes <= LIMIT_BYTES
        cluster.is_cut = False
    assert codes[refused:] == ["ok"] * (50 - refused)
    nursery.cancel_scope.cancel()


async def test_writes_that_wait_for_a_session_are_weighed_too(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first writers of all wait for a session, which needs a leader: they hold as much memory as others."""
    monkeypatch.setattr("trio_kv.gateway.writes.WRITE_BYTES_MAX", LIMIT_BYTES)
    store = Cluster().store
    await nursery.start(store.run)
    codes: list[str] = []

    async def write() -> None:
        codes.append((await store.write([SET], timeout_s=1.0)).replies[0].code)

    async with trio.open_nursery() as writers:
        for _ in range(50):
            writers.start_soon(write)
    assert sorted(codes) == ["overloaded"] * 40 + ["unavailable"] * 10
    # A larger one is served when it is alone, or nobody could ever write it.
    large = Set("k", msgspec.Raw(b"1" * 2 * LIMIT_BYTES))
    assert (await store.write([large], timeout_s=1.0)).replies[0].code == "unavailable"
    nursery.cancel_scope.cancel()


async def test_what_lies_in_the_inbox_is_taken_before_long(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A write that can wait for the commit of those before it wakes nobody, but it does not wait for ever."""
    cluster = Cluster()
    await nursery.start(cluster.run)
    leader = cluster.lead()
    log = cluster.nodes[leader].replica.raft.log
    for node, disk in cluster.disks.items():
        disk.is_stalled = node != leader
    # Behind a heartbeat: at the next one it is taken anyhow.
    leading = cluster.nodes[leader]
    await trio.sleep_until(leading.clock.to_trio(leading.replica.deadline) + 0.001)
    before = log.last_index
    for _ in range(2):
        nursery.start_soon(partial(cluster.store.write, [SET], timeout_s=10.0))
        await trio.sleep(0.001)
    assert log.last_index == before + 1
    await trio.sleep(PATIENCE_S + GROUP_S)
    assert log.last_index == before + 2
    nursery.cancel_scope.cancel()


async def test_what_the_disk_tells_in_a_pause_is_not_overtaken(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A node that was resumed and did not look yet: what its disk tells goes behind what lies there."""
    cluster = Cluster()
    await nursery.start(cluster.run)
    follower = cluster.lead() % 3 + 1
    node, disk = cluster.nodes[follower], cluster.disks[follower]
    disk.is_stalled = True
    for _ in range(2):
        assert (await cluster.store.write([SET], timeout_s=1.0)).replies[0].code == "ok"
        await trio.sleep(0.001)
    first, second = disk.take_tickets()
    node.pause()
    node.inbox.post(Stored(first))
    node.resume()
    node.inbox.post(Stored(second))
    await trio.sleep(0.001)
    assert node.replica.raft.log.durable == node.replica.raft.log.last_index
    nursery.cancel_scope.cancel()


async def test_a_node_that_has_ended_says_nothing_more(autojump_clock: trio.testing.MockClock) -> None:
    """What its disk had begun is still stored, and told; but nobody hears of it from a node that is dead."""
    cluster = Cluster()
    async with trio.open_nursery() as nursery:
        await nursery.start(cluster.run)
        follower = cluster.lead() % 3 + 1
        cluster.disks[follower].is_stalled = True
        assert (await cluster.store.write([SET], timeout_s=1.0)).replies[0].code == "ok"
        await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    cluster.sent.clear()
    cluster.disks[follower].unstall()
    assert cluster.sent == []


async def test_a_bug_where_a_completion_is_passed_on_ends_that_node_alone(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk tells it from a callback of the event loop, which an exception would end, and all nodes with it."""
    node = Cluster().nodes[1]
    is_told = False

    def stored(ticket: Ticket) -> list[Message]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(node.replica.raft.persistence, "stored", stored)
    with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        async with trio.open_nursery() as alone:
            alone.start_soon(node.run)
            await trio.sleep(0.001)
            node.inbox.post(Stored(Ticket(1, 1, 1)))
            is_told = True
    assert is_told


async def test_what_lies_is_looked_at_in_time_also_when_the_clock_changes(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """How long something lies is a matter of Trio's clock, however slow that of the node is from now on."""
    cluster = Cluster()
    await nursery.start(cluster.run)
    leader = cluster.lead()
    node = cluster.nodes[leader]
    for other, disk in cluster.disks.items():
        disk.is_stalled = other != leader
    for _ in range(2):
        nursery.start_soon(partial(cluster.store.write, [SET], timeout_s=10.0))
        await trio.sleep(0.001)
    assert node.replica.requests_waiting == 1
    node.clock.set_rate(0.01)
    node.clock_changed()
    await trio.sleep(PATIENCE_S)
    assert node.replica.requests_waiting == 2
    nursery.cancel_scope.cancel()
