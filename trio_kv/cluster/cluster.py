"""The supervisor: keeps each node of a cluster running in a crash scope of its own, and breaks it on
request.

A node that raises, or is told to crash, ends alone; it comes back from what its disk holds, with a new
inbox and a new nonce, after its disk thread has ended. A node whose disk failed or is damaged stays
down: the reason stands in its status.

The faults are one API, used by the control door, the dashboard and the chaos command alike.
"""

import gc
import traceback
from functools import partial
from pathlib import Path
from random import Random

import attrs
import trio

from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.inbox import (
    ChunkAdded,
    ChunkWasRead,
    DiskFailed,
    Inbox,
    RoomChanged,
    SnapshotFailed,
    SnapshotStored,
    Stored,
    TakeSnapshot,
    Transfer,
)
from trio_kv.cluster.node import Clock, DiskFailedError, Node, Turn
from trio_kv.cluster.registry import NodeStatus, Registry, State
from trio_kv.kv.commands import decode_command
from trio_kv.kv.machine import Machine, Restorer
from trio_kv.raft.entry import SharingDecoder
from trio_kv.raft.log import Log
from trio_kv.raft.ready import Ticket
from trio_kv.replica.replica import Replica
from trio_kv.replica.requests import Answer, Done, Read
from trio_kv.storage.disk import DiskThread
from trio_kv.storage.errors import DamagedError, StorageError
from trio_kv.storage.manifest import DataDirectory, NodeDirectory
from trio_kv.storage.opening import Opened
from trio_kv.storage.rebuild import end_rebuild, rebuild_node
from trio_kv.storage.recovery import Recovered
from trio_kv.storage.snapshots import SnapshotInfo, snapshot_name
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import (
    DiskFailed as DiskFailedEvent,
)
from trio_kv.trace.vocabulary import (
    DiskSlowed,
    DiskStalled,
    LinkCut,
    LinkFaulted,
    LinksHealed,
    LinksPartitioned,
    NodeCrashed,
    NodeDamaged,
    NodeLoading,
    NodePaused,
    NodeRebuildNeeded,
    NodeRestarted,
    NodeResumed,
    NodeStarted,
    NodeStopped,
    RebuildStarted,
    WalTornTailCut,
)
from trio_kv.transport.links import LinkFault, Links
from trio_kv.transport.memory import MemoryNetwork

LOADING_TOLD_S = 1.0
"""How often a node that reads a large snapshot tells how far it is."""


SERVING_FIRST_S = 10.0
"""At a start with much data the last nodes are read only when the first ones serve, or after this long."""
SERVING_CHECKED_S = 0.02
LARGE_BYTES = 16 << 20
"""From this size of its snapshot on a node takes long to read."""
BACKUP_S = 60.0
"""How long a backup waits for its snapshot."""


class FaultError(ValueError):
    """A fault was asked for that makes no sense now. The text says why."""


@attrs.define(eq=False)
class _Member:
    """A node as its supervisor sees it."""

    directory: NodeDirectory
    status: NodeStatus
    is_wanted: bool = True
    is_living: bool = False
    """From before its disk is opened until after its disk thread has ended."""
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
        self._turn = Turn()
        self._loading = trio.Lock()
        """Nodes are loaded one after the other: each takes the whole processor, and three of five can elect."""
        self._loads = 0
        """Nodes that are loaded or wait for it."""
        self._decoder = SharingDecoder(decode_command)
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
            await self._wait_change()
        return leader.node

    @property
    def is_loading(self) -> bool:
        """Whether nodes still read what their disks hold."""
        return self._loads > 0

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
            member.is_living = True
            try:
                crash = await self._live(member)
            finally:
                member.is_living = False
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
        opened, machine = await self._load_in_turn(member)
        inbox = Inbox()
        disk = self._open_disk(member, opened, inbox)
        try:
            await self._run_node(member, inbox, disk, opened.recovered, machine)
        finally:
            member.node = member.disk = None
            member.status.inbox = member.status.refresh = None
            self.network.detach(member.status.node)
            self.registry.changed()
            with trio.CancelScope(shield=True):
                await disk.stop(drop_queued=True)

    async def _load_in_turn(self, member: _Member) -> tuple[Opened, Machine]:
        self._loads += 1
        member.status.reason = "its disk is being read"
        try:
            async with self._loading:
                if await trio.to_thread.run_sync(_snapshot_bytes, member.directory.path) >= LARGE_BYTES:
                    with trio.move_on_after(SERVING_FIRST_S):
                        await self._let_majority_serve()
                return await trio.to_thread.run_sync(self._load, member)
        finally:
            self._loads -= 1
            if not self._loads:
                self._decoder = SharingDecoder(decode_command)

    async def _let_majority_serve(self) -> None:
        """Once a majority runs, let it elect and apply its logs before further nodes take the processor."""
        running = [each.node for each in self._members.values() if each.node is not None]
        if len(running) <= len(self._members) // 2:
            return
        # What it waits for is looked up, not told: it happens once, at a start with much data.
        while self.registry.leader() is None or any(  # noqa: ASYNC110
            node.replica.raft.has_more for node in running
        ):
            await trio.sleep(SERVING_CHECKED_S)

    def _load(self, member: _Member) -> tuple[Opened, Machine]:
        """Open a node's log and restore its state machine from the newest snapshot. Runs in a thread of
        its own.

        Millions of objects are made, of which Python's collector could free none: it would only walk
        over all of them again and again, so it rests meanwhile.
        """
        gc.disable()
        try:
            return self._open_and_restore(member)
        finally:
            gc.enable()

    def _open_and_restore(self, member: _Member) -> tuple[Opened, Machine]:
        opened = member.directory.open(self._decoder)
        info = opened.recovered.snapshot
        if info is None:
            return opened, Machine()
        running = [other.node.replica.machine for other in self._members.values() if other.node is not None]
        restorer = Restorer(running[0].get if running else None)
        told_at, done_bytes = self._trace.mono_s(), 0
        for chunk in opened.snapshots.chunks(info):
            restorer.feed(chunk)
            done_bytes += len(chunk)
            if self._trace.mono_s() - told_at >= LOADING_TOLD_S:
                told_at = self._trace.mono_s()
                loading = NodeLoading(100 * done_bytes // info.total_bytes, info.total_bytes)
                trio.from_thread.run_sync(partial(self._trace.emit, loading, node=member.status.node))
        return opened, restorer.finish()

    def _open_disk(self, member: _Member, opened: Opened, inbox: Inbox) -> DiskThread:
        def on_stored(ticket: Ticket) -> None:
            inbox.post(Stored(ticket))

        def on_failed(error: Exception) -> None:
            inbox.post(DiskFailed(error))

        def on_snapshot_added(index: int, term: int, number: int) -> None:
            inbox.post(ChunkAdded(index, term, number))

        def on_snapshot_stored(info: SnapshotInfo) -> None:
            inbox.post(SnapshotStored(info.index, info.term, info.total_bytes))

        def on_snapshot_failed(index: int, term: int, reason: str) -> None:
            inbox.post(SnapshotFailed(f"snapshot {index}@{term}: {reason}"))

        def on_chunk_read(index: int, term: int, number: int, data: bytes | None, is_last: bool) -> None:
            del number
            inbox.post(ChunkWasRead(index, term, data, is_last))

        def on_room(room_bytes: int | None) -> None:
            inbox.post(RoomChanged(room_bytes))

        disk = DiskThread(
            opened.wal,
            opened.snapshots,
            on_stored=on_stored,
            on_failed=on_failed,
            name=f"disk-{member.status.node}",
            on_snapshot_added=on_snapshot_added,
            on_snapshot_stored=on_snapshot_stored,
            on_snapshot_failed=on_snapshot_failed,
            on_chunk_read=on_chunk_read,
            on_room=on_room,
        )
        disk.delay_s = member.disk_delay_s
        member.disk = disk
        return disk

    async def _run_node(
        self, member: _Member, inbox: Inbox, disk: DiskThread, recovered: Recovered, machine: Machine
    ) -> None:
        node, status = member.status.node, member.status
        for warning in recovered.warnings:
            self._trace.emit(WalTornTailCut(warning), node=node)
        base, snapshot = recovered.base, recovered.snapshot
        log = Log(recovered.entries, base_index=base.index, base_term=base.term, base_time_us=machine.time_us)

        def make_replica(now: float) -> Replica:
            return Replica(
                id=node,
                peers=tuple(other for other in self._members if other != node),
                config=self._config.raft,
                random=Random(self._random.getrandbits(64)),
                incarnation=member.directory.incarnation,
                incarnations=self._directory.manifest.incarnations,
                now=now,
                hard_state=recovered.hard_state,
                is_rebuilding=member.directory.is_rebuilding,
                log=log,
                machine=machine,
                snapshot=None if snapshot is None else (snapshot.index, snapshot.term),
                snapshot_bytes=0 if snapshot is None else snapshot.total_bytes,
                snapshot_log_bytes_min=member.directory.segment_bytes // 2,
                events_level=self._trace.level,
            )

        member.node = Node(
            make_replica=make_replica,
            inbox=inbox,
            disk=disk,
            send=self.network.send_nowait,
            status=status,
            publish=self.registry.changed,
            rebuilt=partial(end_rebuild, member.directory),
            trace=self._trace,
            clock=member.clock,
            turn=self._turn,
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
        for node, member in self._members.items():
            self._set_disk_delay(node, 0.0)
            if member.disk is not None:
                member.disk.unstall()
                member.disk.unfill()
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

    def stall_disk(self, node: int) -> None:
        """Let a node's disk stand still until `heal`, or until the node starts again."""
        member = self._live_member(node)
        assert member.disk is not None
        member.disk.stall()
        self._trace.emit(DiskStalled(), node=node)

    def fill_disk(self, node: int) -> None:
        """Let a node's disk be full: nothing new can be made on it, until `heal` or the node starts again."""
        member = self._live_member(node)
        assert member.disk is not None
        member.disk.fill()

    def fail_disk(self, node: int) -> None:
        """Let a node's next write fail: it stops."""
        member = self._live_member(node)
        assert member.disk is not None
        member.disk.fail_next()

    def skew_clock(self, node: int, rate: float) -> None:
        """Let a node's clock run at another rate; 1 is true."""
        self._member(node).clock.set_rate(rate)

    def snapshot(self, node: int) -> None:
        """Let a node take a snapshot now."""
        inbox = self._live_member(node).status.inbox
        assert inbox is not None
        inbox.post(TakeSnapshot())

    async def rebuild(self, node: int) -> dict[str, object]:
        """Give a node that is down a new directory, and start it to be filled by the others.

        Returns:
            where the old one was `moved_to`, or None if there was none.

        Raises:
            FaultError: it runs, or too few of the others have all of their data.

        """
        member = self._member(node)
        if member.is_living:
            raise FaultError(f"node {node} runs: stop it first")
        # It must not come back by itself while its directory is replaced.
        member.is_wanted = False
        member.wake.set()
        try:
            aside = await trio.to_thread.run_sync(rebuild_node, self._directory, node, self._random)
        except StorageError as error:
            raise FaultError(str(error)) from error
        self._trace.emit(RebuildStarted(str(aside or "")), node=node)
        self.restart(node)
        return {"moved_to": None if aside is None else str(aside.absolute())}

    async def backup(self) -> dict[str, object]:
        """Take a snapshot that holds every write acknowledged before this call, for somebody to copy.

        Returns:
            its `path`, and the `index` and `term` up to which it goes. The file stays until the node's
            next snapshot.

        Raises:
            FaultError: no node could take it in time.

        """
        with trio.move_on_after(BACKUP_S):
            await self.wait_leader()
            for status in self.registry.readable():
                reader = _Reader()
                assert status.inbox is not None
                status.inbox.post_request(Read(reader, 0, ()))
                done = await reader.wait()
                if isinstance(done, Done):
                    # Applied on that node is all that was acknowledged before: a linearizable read has
                    # said so.
                    status.inbox.post(TakeSnapshot())
                    index, term = await self._wait_snapshot(status.node, done.applied)
                    path = self._members[status.node].directory.path / snapshot_name(index, term)
                    return {"path": str(path), "index": index, "term": term}
        raise FaultError("no node could take a snapshot in time: is there a leader, and room on the disk?")

    def transfer(self, node: int) -> None:
        """Ask the leader to hand over to a node."""
        member = self._live_member(node)
        leader = self.registry.leader()
        if leader is None or leader.inbox is None:
            raise FaultError("no node leads just now")
        if leader.node == node:
            raise FaultError(f"node {node} leads already")
        leader.inbox.post(Transfer(member.status.node))

    async def _wait_snapshot(self, node: int, applied: int) -> tuple[int, int]:
        """Wait for a snapshot of a node that holds what it had applied up to there."""
        member = self._members[node]
        while True:
            stored = None if member.node is None else member.node.replica.snapshots.stored
            if stored is not None and stored[0] >= applied:
                return stored
            await self._wait_change()

    async def _wait_change(self) -> None:
        changed = trio.Event()
        unlisten = self.registry.listen(changed.set)
        try:
            await changed.wait()
        finally:
            unlisten()

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


class _Reader:
    """Asks a node directly, and waits for its answer."""

    def __init__(self) -> None:
        self._answer: Answer | None = None
        self._came = trio.Event()

    def deliver(self, answer: Answer) -> None:
        self._answer = answer
        self._came.set()

    async def wait(self) -> Answer:
        await self._came.wait()
        assert self._answer is not None
        return self._answer


def _snapshot_bytes(path: Path) -> int:
    """Return the size of the largest snapshot in a node's directory."""
    return max((file.stat().st_size for file in path.glob("*.snap")), default=0)


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
