"""The supervisor: keeps each node of a cluster running in a crash scope of its own.

A node that raises, or is told to crash, ends alone; it comes back from what its disk holds, with a new
inbox and a new nonce, after its disk has ended. A node whose disk failed or is damaged stays down: the
reason stands in its status. A node whose disk hangs, at its start or at its end, waits for it alone.
"""

import traceback
from collections.abc import Callable, Collection
from functools import partial
from random import Random

import attrs
import trio

from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.disks import Disk, Disks, Found, Loaded
from trio_kv.cluster.hangs import HUNG_S, DiskWaits
from trio_kv.cluster.inbox import Inbox
from trio_kv.cluster.loading import Loader
from trio_kv.cluster.members import Member, Members
from trio_kv.cluster.node import Node
from trio_kv.cluster.registry import Handle, Registry
from trio_kv.raft.events import DEBUG
from trio_kv.raft.node import Raft
from trio_kv.replica.driver import DiskFailedError
from trio_kv.replica.replica import Replica
from trio_kv.replica.telling import node_started
from trio_kv.replica.turns import SNAPSHOT_LEASE_S, Turns
from trio_kv.storage.errors import DamagedError, GoneError
from trio_kv.trace.text import encodable
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import (
    DiskFailed as DiskFailedEvent,
)
from trio_kv.trace.vocabulary import (
    DiskHung,
    DiskMoved,
    NodeCrashed,
    NodeDamaged,
    NodeRebuildNeeded,
    NodeRestarted,
    NodeStopped,
    WalTornTailCut,
)
from trio_kv.transport.network import Network
from trio_kv.wire.node_status import State

WATCHED_S = 0.5
"""How often it is looked at which disks hang."""


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
        here: the nodes of this process.

    """

    def __init__(
        self,
        *,
        disks: Disks,
        registry: Registry,
        network: Network,
        config: ClusterConfig,
        trace: Trace,
        random: Random,
        make_node: Callable[..., Node],
        here: Collection[int],
    ) -> None:
        """Run nothing yet; see the class."""
        self.members = Members(registry.nodes, here)
        self._disks = disks
        self._registry = registry
        self._network = network
        self._config = config
        self._trace = trace
        self._random = random
        self._make_node = make_node
        self.disk_waits = DiskWaits()
        self._snapshot_turns = Turns(SNAPSHOT_LEASE_S)
        self.loader = Loader(disks, self.disk_waits, self.members, registry)

    async def run(self) -> None:
        """Run all nodes until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.disk_waits.end, self._is_ended)
            nursery.start_soon(self._watch_disks)
            for member in self.members.all.values():
                nursery.start_soon(self._supervise, member)

    def _is_ended(self) -> bool:
        return not any(member.is_living for member in self.members.all.values())

    def tell_level(self, level: int) -> None:
        """Let nodes that run tell what somebody wants to hear from now on, and no more than that."""
        for node in self.members.running():
            node.replica.raft.wants_debug = level <= DEBUG

    def set_state(self, member: Member, state: State, reason: str, *, is_gone: bool = False) -> None:
        """Let everybody know how a node is."""
        member.status.state = state
        member.status.is_gone = is_gone
        # It may name a file, in bytes that are no UTF-8.
        member.status.reason = encodable(reason)
        self._registry.changed()

    async def _supervise(self, member: Member) -> None:
        node = member.status.node
        while True:
            if not member.is_wanted:
                self._trace.emit(NodeStopped(), node=node)
                self.set_state(member, State.STOPPED, "asked to stop")
                while not member.is_wanted:
                    await member.wait_wake()
            if member.attempts:
                self._trace.emit(NodeRestarted(member.attempts), node=node)
            member.attempts += 1
            member.is_restarting = member.has_disk_failed = False
            started_at = trio.current_time()
            member.is_living = True
            try:
                crash = await self._live(member)
            finally:
                member.is_living = False
            if crash is None:
                await member.wait_wake()
                continue
            if self._is_stopping(member):
                continue
            if member.is_restarting:
                crash = attrs.evolve(crash, reason="asked to restart", restart_in_s=0.0)
                self._trace.emit(crash, node=node, term=member.status.term)
                self.set_state(member, State.CRASHED, crash.reason)
                continue
            if trio.current_time() - started_at >= self._config.restart_calm_s:
                member.crashes = 0
            delay_s = self._config.restart_delay_min_s * 2**member.crashes
            delay_s = min(delay_s, self._config.restart_delay_max_s)
            member.crashes += 1
            self._trace.emit(attrs.evolve(crash, restart_in_s=delay_s), node=node, term=member.status.term)
            self.set_state(member, State.CRASHED, crash.reason)
            with trio.move_on_after(delay_s):
                await member.wait_wake()

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
        node, found = member.status.node, None if member.found is None else member.found.directory
        if isinstance(failure, DamagedError):
            self._trace.emit(
                NodeDamaged(failure.file, failure.offset, failure.reason, failure.way_out), node=node
            )
            self.set_state(member, State.DAMAGED, str(failure))
        elif failure is not None:
            member.has_disk_failed = True
            is_gone = isinstance(failure, GoneError) or isinstance(failure.__cause__, GoneError)
            self._trace.emit(DiskFailedEvent("look" if is_gone else "write", str(failure)), node=node)
            self.set_state(
                member, State.STOPPED, str(failure) if is_gone else f"disk failed: {failure}", is_gone=is_gone
            )
        elif found is not None and found.state == "damaged":
            self._trace.emit(NodeDamaged(str(found.path), 0, found.reason, found.way_out), node=node)
            self.set_state(member, State.DAMAGED, found.reason)
        elif found is not None:
            self._trace.emit(NodeRebuildNeeded(found.reason), node=node)
            self.set_state(member, State.NEEDS_REBUILD, found.reason)

    async def _start_and_run(self, member: Member) -> None:
        # Looked at anew each time: a person may have brought the directory back meanwhile.
        node = member.status.node
        found = member.found = await self.loader.examine(node)
        if found.directory.state != "ok":
            return
        loaded = await self.loader.load(member, found)
        # The wait for a disk is shielded: a node that was killed meanwhile must not be seen to run.
        await trio.lowlevel.checkpoint_if_cancelled()
        config = self._config
        inbox = Inbox(peers_max=config.inbox_peers_max, requests_max=config.inbox_requests_max)
        disk = member.disk = loaded.start(inbox.post)
        disk.delay_s = member.disk_delay_s
        try:
            await self._run_node(member, inbox, disk, found, loaded)
        finally:
            member.node = member.disk = None
            self._network.detach(node)
            self._registry.detach(node)
            await self.disk_waits.wait(node, disk.stop)  # noqa: ASYNC102 - it shields, but from the process's end

    async def _watch_disks(self) -> None:
        """Tell which disks hang, as long as they do."""
        while True:
            await trio.sleep(WATCHED_S)
            for member in self.members.all.values():
                self.watch_disk(member)
            self.loader.forget_shared()

    def watch_disk(self, member: Member) -> None:
        """Tell whether a node's disk hangs, and what waits for it."""
        node, status = member.status.node, member.status
        hung_s = self.disk_waits.hung_s(node)
        if not hung_s and member.node is not None and status.state is State.UP:
            hung_s = member.node.write_waits_s
            hung_s = hung_s if hung_s >= HUNG_S else 0.0
        reason = f"its disk hangs: {self._waiting_work(member)}" if hung_s else ""
        if reason == member.hung_reason:
            return
        if not member.hung_reason:
            self._trace.emit(DiskHung(reason, hung_s), node=node)
        elif not reason:
            self._trace.emit(DiskMoved(), node=node)
        if reason or status.reason == member.hung_reason:
            status.reason = reason
        if reason and member.node is None and status.state in {State.UP, State.PAUSED}:
            status.state = State.STOPPED
        member.hung_reason = reason

    def _waiting_work(self, member: Member) -> str:
        """Say what waits for a disk that hangs, and what comes of it."""
        if member.node is not None:
            return "it stores nothing"
        if member.is_being_replaced:
            return "the node gets its new directory when what was begun is done"
        if not member.is_wanted:
            return "the node is stopped when what was begun is done"
        if member.status.node in self.loader:
            return "it gives nothing of what it holds"
        return "the node starts again when what was begun is done"

    async def _run_node(self, member: Member, inbox: Inbox, disk: Disk, found: Found, loaded: Loaded) -> None:
        node, status = member.status.node, member.status
        recovered, machine = loaded.recovered, loaded.machine
        for warning in recovered.warnings:
            self._trace.emit(WalTornTailCut(warning), node=node)
        log = recovered.log(machine.time_us)
        raft = Raft(
            id=node,
            peers=self._registry.nodes.keys() - {node},
            config=self._config.raft,
            random=Random(self._random.getrandbits(64)),
            incarnation=found.directory.incarnation,
            incarnations=self._disks.incarnations,
            now=member.clock.now(),
            hard_state=recovered.hard_state,
            is_rebuilding=found.is_rebuilding,
            log=log,
            near=self.members.all.keys(),
            events_level=self._trace.level,
        )
        member.node = self._make_node(
            replica=Replica(
                raft,
                machine,
                snapshot_bytes=recovered.snapshot_bytes,
                snapshot_log_bytes_min=found.snapshot_log_bytes_min,
            ),
            inbox=inbox,
            disk=disk,
            send=self._network.send_nowait,
            deliver=self._registry.deliver,
            status=status,
            publish=self._registry.changed,
            rebuilt=partial(self.disk_waits.wait, node, partial(self._disks.end_rebuild, node)),
            trace=self._trace,
            clock=member.clock,
            turns=self._snapshot_turns,
        )
        self._network.attach(node, inbox.post_peer)
        status.role = "follower"
        self._registry.attach(Handle(status, inbox.post_request, member.node.refresh_status))
        self.set_state(member, State.UP, "")
        self._trace.emit(node_started(raft, machine), node=node, term=raft.term)
        await member.node.run()


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """Return the first exception of a group that is none itself."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, Exception)
    return found
