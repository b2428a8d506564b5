"""The supervisor: keeps each node of a cluster running in a crash scope of its own, and breaks it on request.

A node that raises, or is told to crash, ends alone; it comes back from what its disk holds, with a new inbox and a
new nonce, after its disk thread has ended. A node whose disk failed or is damaged stays down: the reason
stands in its status.

The faults are one API, used by the control door, the dashboard and the chaos command alike.
"""

import traceback
from random import Random

import attrs
import trio

from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.inbox import DiskFailed, Inbox, Stored, Transfer
from trio_kv.cluster.node import Clock, DiskFailedError, Node
from trio_kv.cluster.registry import NodeStatus, Registry, State
from trio_kv.raft.log import Log
from trio_kv.raft.ready import Ticket
from trio_kv.replica.replica import Replica
from trio_kv.storage.disk import DiskThread
from trio_kv.storage.errors import DamagedError
from trio_kv.storage.manifest import DataDirectory, NodeDirectory
from trio_kv.storage.recovery import Recovered
from trio_kv.storage.wal import Wal
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import (
    DiskFailed as DiskFailedEvent,
)
from trio_kv.trace.vocabulary import (
    DiskSlowed,
    LinkCut,
    LinkFaulted,
    LinksHealed,
    LinksPartitioned,
    NodeCrashed,
    NodeDamaged,
    NodePaused,
    NodeRebuildNeeded,
    NodeRestarted,
    NodeResumed,
    NodeStarted,
    NodeStopped,
    WalTornTailCut,
)
from trio_kv.transport.links import LinkFault, Links
from trio_kv.transport.memory import MemoryNetwork


class FaultError(ValueError):
    """A fault was asked for that makes no sense now. The text says why."""


@attrs.define(eq=False)
class _Member:
    """A node as its supervisor sees it."""

    directory: NodeDirectory
    status: NodeStatus
    is_wanted: bool = True
    crashes: int = 0
    """In a row."""
    attempts: int = 0
    clock: Clock = attrs.field(factory=Clock)
    node: Node | None = None
    disk: DiskThread | None = None
    disk_delay_s: float = 0.0
    scope: trio.CancelScope | None = None
    paused_at: float = 0.0
    wake: trio.Event = attrs.field(factory=trio.Event)


class Cluster:
    """All nodes of one process. `run` keeps them going; everything else may be called meanwhile."""

    def __init__(self, directory: DataDirectory, config: ClusterConfig, trace: Trace, random: Random) -> None:
        """Supervise the nodes of a data directory.

        Args:
            directory: where they live.
            config: time-outs and limits.
            trace: takes all events.
            random: seeds what the nodes and the links draw.

        """
        self.registry = Registry(list(directory.nodes))
        self.links = Links(Random(random.getrandbits(64)))
        self.network = MemoryNetwork(self.links)
        self._config = config
        self._trace = trace
        self._random = random
        self._directory = directory
        self._members = {
            node: _Member(directory.node(node), self.registry.nodes[node]) for node in directory.nodes
        }

    async def run(self) -> None:
        """Run all nodes until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.network.run)
            for member in self._members.values():
                nursery.start_soon(self._supervise, member)

    async def wait_leader(self) -> int:
        """Wait until a node leads; return it."""
        while (leader := self.registry.leader()) is None:
            changed = trio.Event()
            unlisten = self.registry.listen(changed.set)
            try:
                await changed.wait()
            finally:
                unlisten()
        return leader.node

    def status(self) -> dict[str, object]:
        """Return the members of the protocol's status reply."""
        return self.registry.status()

    # One node's life

    async def _supervise(self, member: _Member) -> None:
        node = member.status.node
        while True:
            if not member.is_wanted:
                self._trace.emit(NodeStopped(), node=node)
                self._set_state(member, State.STOPPED, "asked to stop")
                while not member.is_wanted:
                    await _wait_wake(member)
            if member.attempts:
                self._trace.emit(NodeRestarted(member.attempts), node=node)
            member.attempts += 1
            started_at = trio.current_time()
            crash = await self._live(member)
            if crash is None:
                await _wait_wake(member)
                continue
            if self._is_stopping(member):
                continue
            if trio.current_time() - started_at >= self._config.restart_calm_s:
                member.crashes = 0
            delay_s = self._config.restart_delay_min_s * 2**member.crashes
            delay_s = min(delay_s, self._config.restart_delay_max_s)
            member.crashes += 1
            self._trace.emit(attrs.evolve(crash, restart_in_s=delay_s), node=node, term=member.status.term)
            self._set_state(member, State.CRASHED, crash.reason)
            with trio.move_on_after(delay_s):
                await _wait_wake(member)

    @staticmethod
    def _is_stopping(member: _Member) -> bool:
        """Return whether `stop` was asked for while the node ran."""
        return not member.is_wanted

    async def _live(self, member: _Member) -> NodeCrashed | None:
        """Run a node until it ends; return the crash it died of, or None if it can't come back by itself."""
        crash: NodeCrashed | None = None
        failure: Exception | None = None
        with trio.CancelScope() as member.scope:
            try:
                await self._start_and_run(member)
            except* (DiskFailedError, DamagedError, OSError) as group:
                failure = _first(group)
            except* Exception as group:  # noqa: BLE001 - whatever it is, it ends this node alone, and is told
                text = "".join(traceback.format_exception(group))
                crash = NodeCrashed(repr(_first(group)), False, None, text)
        if member.scope.cancelled_caught:
            return NodeCrashed("asked to crash", True, None)
        if crash is None:
            self._stay_down(member, failure)
        return crash

    def _stay_down(self, member: _Member, failure: Exception | None) -> None:
        """Say why a node can't run: its disk failed, is damaged, or is not there."""
        node, directory = member.status.node, member.directory
        if isinstance(failure, DamagedError):
            self._trace.emit(
                NodeDamaged(failure.file, failure.offset, failure.reason, failure.way_out), node=node
            )
            self._set_state(member, State.DAMAGED, str(failure))
        elif failure is not None:
            self._trace.emit(DiskFailedEvent("write", str(failure)), node=node)
            self._set_state(member, State.STOPPED, f"disk failed: {failure}")
        elif directory.state == "damaged":
            self._trace.emit(
                NodeDamaged(str(directory.path), 0, directory.reason, directory.way_out), node=node
            )
            self._set_state(member, State.DAMAGED, directory.reason)
        else:
            self._trace.emit(NodeRebuildNeeded(directory.reason), node=node)
            self._set_state(member, State.NEEDS_REBUILD, directory.reason)

    async def _start_and_run(self, member: _Member) -> None:
        # Looked at anew each time: a person may have brought the directory back meanwhile.
        member.directory = await trio.to_thread.run_sync(self._directory.node, member.status.node)
        if member.directory.state != "ok":
            return
        wal, recovered = await trio.to_thread.run_sync(member.directory.open_wal)
        inbox = Inbox()
        disk = self._open_disk(member, wal, inbox)
        try:
            await self._run_node(member, inbox, disk, recovered)
        finally:
            member.node = member.disk = None
            member.status.inbox = member.status.refresh = None
            self.network.detach(member.status.node)
            self.registry.changed()
            with trio.CancelScope(shield=True):
                await disk.stop(drop_queued=True)

    def _open_disk(self, member: _Member, wal: Wal, inbox: Inbox) -> DiskThread:
        def on_stored(ticket: Ticket) -> None:
            inbox.post(Stored(ticket))

        def on_failed(error: Exception) -> None:
            inbox.post(DiskFailed(error))

        disk = DiskThread(wal, on_stored=on_stored, on_failed=on_failed, name=f"disk-{member.status.node}")
        disk.delay_s = member.disk_delay_s
        member.disk = disk
        return disk

    async def _run_node(self, member: _Member, inbox: Inbox, disk: DiskThread, recovered: Recovered) -> None:
        node, status = member.status.node, member.status
        for warning in recovered.warnings:
            self._trace.emit(WalTornTailCut(warning), node=node)
        log = Log(recovered.entries)

        def make_replica(now: float) -> Replica:
            return Replica(
                id=node,
                peers=tuple(other for other in self._members if other != node),
                config=self._config.raft,
                random=Random(self._random.getrandbits(64)),
                incarnation=member.directory.incarnation,
                now=now,
                hard_state=recovered.hard_state,
                log=log,
                events_level=self._trace.level,
            )

        member.node = Node(
            make_replica=make_replica,
            inbox=inbox,
            disk=disk,
            send=self.network.send_nowait,
            status=status,
            publish=self.registry.changed,
            trace=self._trace,
            clock=member.clock,
        )
        self.network.attach(node, inbox.post_peer)
        status.inbox = inbox
        status.refresh = member.node.refresh_status
        status.role = "follower"
        self._set_state(member, State.UP, "")
        self._trace.emit(
            NodeStarted(log.base_index + 1, log.last_index, member.directory.incarnation),
            node=node,
            term=recovered.hard_state.term,
        )
        await member.node.run()

    def _set_state(self, member: _Member, state: State, reason: str) -> None:
        member.status.state = state
        member.status.reason = reason
        self.registry.changed()

    # Faults

    def crash(self, node: int) -> None:
        """Let a node die as if its power failed: unsynced writes are dropped. It comes back by itself."""
        member = self._live_member(node)
        assert member.scope is not None
        member.scope.cancel()

    def stop(self, node: int) -> None:
        """Let a node die and stay down until `restart`."""
        member = self._member(node)
        if member.node is None and member.status.state is not State.CRASHED:
            raise FaultError(f"node {node} does not run: it is {member.status.state}")
        member.is_wanted = False
        member.wake.set()
        if member.node is not None and member.scope is not None:
            member.scope.cancel()

    def restart(self, node: int) -> None:
        """Start a node that is down; crash and start one that runs."""
        member = self._member(node)
        if member.node is None:
            member.is_wanted = True
            member.wake.set()
        else:
            self.crash(node)

    def pause(self, node: int) -> None:
        """Let a node do nothing, as if its process were stopped."""
        member = self._live_member(node)
        assert member.node is not None
        member.node.pause()
        member.paused_at = trio.current_time()
        self._trace.emit(NodePaused(), node=node)
        self._set_state(member, State.PAUSED, "asked to pause")

    def resume(self, node: int) -> None:
        """Let a paused node go on."""
        member = self._member(node)
        if member.node is None or member.status.state is not State.PAUSED:
            raise FaultError(f"node {node} is not paused, but {member.status.state}")
        member.node.resume()
        self._trace.emit(NodeResumed(trio.current_time() - member.paused_at), node=node)
        self._set_state(member, State.UP, "")

    def partition(self, groups: list[list[int]]) -> None:
        """Cut all links between the groups. A node in no group is alone."""
        named = [node for group in groups for node in group]
        for node in named:
            self._member(node)
        if len(set(named)) != len(named):
            raise FaultError("a node can be in one group only")
        self.links.partition(groups)
        self._trace.emit(LinksPartitioned(tuple(tuple(group) for group in groups)))

    def cut(self, source: int, target: int) -> None:
        """Cut the link between two nodes, both ways."""
        self._member(source)
        self._member(target)
        if source == target:
            raise FaultError("a link joins two nodes")
        self.links.cut(source, target)
        self.links.cut(target, source)
        self._trace.emit(LinkCut((source, target)))

    def heal(self) -> None:
        """Make all links and disks sound again (a disk that failed stays failed)."""
        self.links.heal()
        for node in self._members:
            self._set_disk_delay(node, 0.0)
        self._trace.emit(LinksHealed())

    def delay(self, delay_s: float) -> None:
        """Let every message take this long."""
        self._set_link_fault(attrs.evolve(self.links.fault(), delay_s=delay_s))

    def drop(self, fraction: float) -> None:
        """Lose this share of all messages."""
        self._set_link_fault(attrs.evolve(self.links.fault(), drop=fraction))

    def duplicate(self, fraction: float) -> None:
        """Let this share of all messages arrive twice."""
        self._set_link_fault(attrs.evolve(self.links.fault(), duplicate=fraction))

    def reorder(self, jitter_s: float) -> None:
        """Delay each message by up to this much more, so that messages overtake one another."""
        self._set_link_fault(attrs.evolve(self.links.fault(), jitter_s=jitter_s))

    def slow_disk(self, node: int, delay_s: float) -> None:
        """Let every write of a node take this much longer; 0 ends it."""
        self._member(node)
        self._set_disk_delay(node, delay_s)
        self._trace.emit(DiskSlowed(delay_s), node=node)

    def fail_disk(self, node: int) -> None:
        """Let a node's next write fail: it stops."""
        member = self._live_member(node)
        assert member.disk is not None
        member.disk.fail_next()

    def skew_clock(self, node: int, rate: float) -> None:
        """Let a node's clock run at another rate; 1 is true."""
        self._member(node).clock.set_rate(rate)

    def transfer(self, node: int) -> None:
        """Ask the leader to hand over to a node."""
        member = self._live_member(node)
        leader = self.registry.leader()
        if leader is None or leader.inbox is None:
            raise FaultError("no node leads just now")
        if leader.node == node:
            raise FaultError(f"node {node} leads already")
        leader.inbox.post(Transfer(member.status.node))

    def _set_link_fault(self, fault: LinkFault) -> None:
        self.links.set_fault(fault)
        self._trace.emit(LinkFaulted(fault.delay_s, fault.jitter_s, 100 * fault.drop, 100 * fault.duplicate))

    def _set_disk_delay(self, node: int, delay_s: float) -> None:
        member = self._members[node]
        member.disk_delay_s = delay_s
        if member.disk is not None:
            member.disk.delay_s = delay_s

    def _member(self, node: int) -> _Member:
        if node not in self._members:
            raise FaultError(f"there is no node {node}: the nodes are {', '.join(map(str, self._members))}")
        return self._members[node]

    def _live_member(self, node: int) -> _Member:
        member = self._member(node)
        if member.node is None:
            raise FaultError(f"node {node} does not run: it is {member.status.state}")
        return member


async def _wait_wake(member: _Member) -> None:
    await member.wake.wait()
    member.wake = trio.Event()


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """Return the first exception of a group that is none itself."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, Exception)
    return found
