"""The supervisor: keeps each node of a cluster running in a crash scope of its own.

A node that raises, or is told to crash, ends alone; it comes back from what its disk holds, with a new
inbox and a new nonce, after its disk has ended. A node whose disk failed or is damaged stays down: the
reason stands in its status.
"""

import contextlib
import traceback
from collections.abc import AsyncIterator, Callable
from functools import partial
from random import Random

import attrs
import trio

from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.disks import Disk, Disks, Found, Loaded
from trio_kv.cluster.inbox import Inbox
from trio_kv.cluster.node import Clock, DiskFailedError, Node, Turn
from trio_kv.cluster.registry import NodeStatus, Registry, State
from trio_kv.kv.commands import decode_command
from trio_kv.raft.entry import SharingDecoder
from trio_kv.raft.log import Log
from trio_kv.replica.replica import Replica
from trio_kv.storage.errors import FULL, DamagedError
from trio_kv.storage.helper import FULL_RETRY_S
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import (
    DiskFailed as DiskFailedEvent,
)
from trio_kv.trace.vocabulary import (
    NodeCrashed,
    NodeDamaged,
    NodeRebuildNeeded,
    NodeRestarted,
    NodeStarted,
    NodeStopped,
    WalTornTailCut,
)
from trio_kv.transport.memory import MemoryNetwork

SERVING_FIRST_S = 10.0
"""At a start with much data the last nodes are read only when the first ones serve, or after this long."""
SERVING_CHECKED_S = 0.02
EXAMINED_S = 0.5
"""How long the first load waits until it is known of all nodes how much they have to read."""
LARGE_BYTES = 16 << 20
"""From this size of its snapshot on a node takes long to read."""


@attrs.define(eq=False)
class Member:
    """A node as its supervisor sees it."""

    status: NodeStatus
    is_wanted: bool = True
    is_living: bool = False
    """From before its disk is opened until after its disk has ended."""
    is_being_replaced: bool = False
    """It gets a new directory just now, and must not start before that is there."""
    found: Found | None = None
    """What its disk looked like when it started last."""
    crashes: int = 0
    """In a row."""
    attempts: int = 0
    clock: Clock = attrs.field(factory=Clock)
    node: Node | None = None
    disk: Disk | None = None
    disk_delay_s: float = 0.0
    scope: trio.CancelScope | None = None
    paused_at: float = 0.0
    wake: trio.Event = attrs.field(factory=trio.Event)


class Supervisor:
    """Keeps the nodes going while `run` runs.

    Args:
        disks: where they live.
        registry: is told how they are.
        network: joins them.
        config: time-outs and limits.
        trace: takes all events.
        random: seeds what the nodes draw.
        make_node: makes a node of its parts.

    """

    def __init__(
        self,
        *,
        disks: Disks,
        registry: Registry,
        network: MemoryNetwork,
        config: ClusterConfig,
        trace: Trace,
        random: Random,
        make_node: Callable[..., Node],
    ) -> None:
        """Run nothing yet; see the class."""
        self.members = {node: Member(registry.nodes[node]) for node in disks.nodes}
        self._disks = disks
        self._registry = registry
        self._network = network
        self._config = config
        self._trace = trace
        self._random = random
        self._make_node = make_node
        self._turn = Turn()
        self._to_load: list[tuple[int, int]] = []
        """(bytes of log, node) of those that wait to be loaded. One is loaded after the other, for each takes the whole
        processor, and three of five can elect: so those go first that are done first."""
        self._is_one_loading = False
        self._load_ended = trio.lowlevel.ParkingLot()
        self._examined: set[int] = set()
        self._all_examined = trio.Event()
        self._loads = 0
        """Nodes that are loaded or wait for it."""
        self._decoder = SharingDecoder(decode_command)

    async def run(self) -> None:
        """Run all nodes until cancelled."""
        async with trio.open_nursery() as nursery:
            for member in self.members.values():
                nursery.start_soon(self._supervise, member)

    @property
    def is_loading(self) -> bool:
        """Whether nodes still read what their disks hold."""
        return self._loads > 0

    def set_state(self, member: Member, state: State, reason: str) -> None:
        """Let everybody know how a node is."""
        member.status.state = state
        member.status.reason = reason
        self._registry.changed()

    async def _supervise(self, member: Member) -> None:
        node = member.status.node
        while True:
            if not member.is_wanted:
                self._trace.emit(NodeStopped(), node=node)
                self.set_state(member, State.STOPPED, "asked to stop")
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
            self.set_state(member, State.CRASHED, crash.reason)
            with trio.move_on_after(delay_s):
                await _wait_wake(member)

    @staticmethod
    def _is_stopping(member: Member) -> bool:
        """Return whether `stop` was asked for while the node ran."""
        return not member.is_wanted

    async def _live(self, member: Member) -> NodeCrashed | None:
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

    def _stay_down(self, member: Member, failure: Exception | None) -> None:
        """Say why a node can't run: its disk failed, is damaged, or is not there."""
        node, found = member.status.node, member.found
        if isinstance(failure, DamagedError):
            self._trace.emit(
                NodeDamaged(failure.file, failure.offset, failure.reason, failure.way_out), node=node
            )
            self.set_state(member, State.DAMAGED, str(failure))
        elif failure is not None:
            self._trace.emit(DiskFailedEvent("write", str(failure)), node=node)
            self.set_state(member, State.STOPPED, f"disk failed: {failure}")
        elif found is not None and found.state == "damaged":
            self._trace.emit(NodeDamaged(str(found.path), 0, found.reason, found.way_out), node=node)
            self.set_state(member, State.DAMAGED, found.reason)
        elif found is not None:
            self._trace.emit(NodeRebuildNeeded(found.reason), node=node)
            self.set_state(member, State.NEEDS_REBUILD, found.reason)

    async def _start_and_run(self, member: Member) -> None:
        # Looked at anew each time: a person may have brought the directory back meanwhile.
        found = member.found = await self._disks.examine(member.status.node)
        self._examined.add(member.status.node)
        if len(self._examined) == len(self.members):
            self._all_examined.set()
        if found.state != "ok":
            return
        loaded = await self._load_when_it_fits(member, found)
        config = self._config
        inbox = Inbox(peers_max=config.inbox_peers_max, requests_max=config.inbox_requests_max)
        disk = member.disk = loaded.start(inbox.post)
        disk.delay_s = member.disk_delay_s
        try:
            await self._run_node(member, inbox, disk, found, loaded)
        finally:
            member.node = member.disk = None
            member.status.inbox = member.status.refresh = None
            self._network.detach(member.status.node)
            self._registry.changed()
            with trio.CancelScope(shield=True):
                await disk.stop(drop_queued=True)

    async def _load_when_it_fits(self, member: Member, found: Found) -> Loaded:
        """Load a node; where that takes room on a disk that is full, as seldom it does, wait for that."""
        while True:
            try:
                return await self._load_in_turn(member, found)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                member.status.reason = f"its disk is full: {error.strerror}"
            await trio.sleep(FULL_RETRY_S)

    async def _load_in_turn(self, member: Member, found: Found) -> Loaded:
        self._loads += 1
        member.status.reason = "its disk is being read"
        try:
            async with self._turn_to_load(found.log_bytes, member.status.node):
                if found.snapshot_bytes >= LARGE_BYTES:
                    with trio.move_on_after(SERVING_FIRST_S):
                        await self._let_majority_serve()
                running = self._running()
                known = running[0].replica.machine.get if running else None
                return await self._disks.load(member.status.node, self._decoder, known)
        finally:
            self._loads -= 1
            if not self._loads:
                self._decoder = SharingDecoder(decode_command)

    @contextlib.asynccontextmanager
    async def _turn_to_load(self, log_bytes: int, node: int) -> AsyncIterator[None]:
        """Wait until no other node is loaded, and none waits that has less log to read and to apply."""
        place = (log_bytes, node)
        self._to_load.append(place)
        try:
            with trio.move_on_after(EXAMINED_S):
                await self._all_examined.wait()
            while self._is_one_loading or min(self._to_load) != place:
                await self._load_ended.park()
        except BaseException:
            self._to_load.remove(place)
            self._load_ended.unpark_all()
            raise
        self._to_load.remove(place)
        self._is_one_loading = True
        try:
            yield
        finally:
            self._is_one_loading = False
            self._load_ended.unpark_all()

    async def _let_majority_serve(self) -> None:
        """Once a majority runs, let it elect and apply its logs before further nodes take the processor."""
        running = self._running()
        if len(running) <= len(self.members) // 2:
            return
        # What it waits for is looked up, not told: it happens once, at a start with much data.
        while self._registry.leader() is None or any(  # noqa: ASYNC110 - see above
            node.replica.raft.has_more for node in running
        ):
            await trio.sleep(SERVING_CHECKED_S)

    def _running(self) -> list[Node]:
        return [member.node for member in self.members.values() if member.node is not None]

    async def _run_node(self, member: Member, inbox: Inbox, disk: Disk, found: Found, loaded: Loaded) -> None:
        node, status = member.status.node, member.status
        recovered, machine = loaded.recovered, loaded.machine
        for warning in recovered.warnings:
            self._trace.emit(WalTornTailCut(warning), node=node)
        base, snapshot = recovered.base, recovered.snapshot
        log = Log(recovered.entries, base_index=base.index, base_term=base.term, base_time_us=machine.time_us)

        def make_replica(now: float) -> Replica:
            return Replica(
                id=node,
                peers=tuple(other for other in self.members if other != node),
                config=self._config.raft,
                random=Random(self._random.getrandbits(64)),
                incarnation=found.incarnation,
                incarnations=self._disks.incarnations,
                now=now,
                hard_state=recovered.hard_state,
                is_rebuilding=found.is_rebuilding,
                log=log,
                machine=machine,
                snapshot=None if snapshot is None else (snapshot.index, snapshot.term),
                snapshot_bytes=0 if snapshot is None else snapshot.total_bytes,
                snapshot_log_bytes_min=found.snapshot_log_bytes_min,
                events_level=self._trace.level,
            )

        member.node = self._make_node(
            make_replica=make_replica,
            inbox=inbox,
            disk=disk,
            send=self._network.send_nowait,
            status=status,
            publish=self._registry.changed,
            rebuilt=partial(self._disks.end_rebuild, node),
            trace=self._trace,
            clock=member.clock,
            turn=self._turn,
        )
        self._network.attach(node, inbox.post_peer)
        status.inbox = inbox
        status.refresh = member.node.refresh_status
        status.role = "follower"
        self.set_state(member, State.UP, "")
        self._trace.emit(
            NodeStarted(log.base_index + 1, log.last_index, found.incarnation),
            node=node,
            term=recovered.hard_state.term,
        )
        await member.node.run()


async def _wait_wake(member: Member) -> None:
    await member.wake.wait()
    member.wake = trio.Event()


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """Return the first exception of a group that is none itself."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, Exception)
    return found
