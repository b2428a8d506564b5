"""A cluster of one process: its nodes, the network between them, and the faults that can be asked for.

The faults are one API, used by the control door, the dashboard and the chaos command alike.
"""

from collections.abc import Callable, Collection
from functools import partial
from random import Random

import attrs
import trio

from trio_kv.cluster.backup import take_backup
from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.disks import Disk, Disks
from trio_kv.cluster.node import Node
from trio_kv.cluster.registry import FaultError, Registry, State
from trio_kv.cluster.supervisor import Member, Supervisor
from trio_kv.replica import jobs
from trio_kv.replica.driver import TakeSnapshot, Transfer
from trio_kv.storage.errors import StorageError
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import (
    DiskFailed,
    DiskSlowed,
    DiskStalled,
    LinkCut,
    LinkFaulted,
    LinksHealed,
    LinksPartitioned,
    NodePaused,
    NodeResumed,
    RebuildStarted,
)
from trio_kv.transport.links import LinkFault, Links
from trio_kv.transport.memory import MemoryNetwork

REBUILD_S = 10.0
"""How long a command waits for a rebuild's first step, which takes milliseconds on a disk that works."""


class Cluster:
    """All nodes of one process. `run` keeps them going; everything else may be called meanwhile."""

    def __init__(
        self,
        disks: Disks,
        config: ClusterConfig,
        trace: Trace,
        random: Random,
        *,
        network: MemoryNetwork | None = None,
        make_node: Callable[..., Node] = Node,
    ) -> None:
        """Make a cluster of the nodes that have disks.

        Args:
            disks: where they live.
            config: time-outs and limits.
            trace: takes all events.
            random: seeds what the nodes and the links draw.
            network: what joins the nodes; by default one whose links are sound.
            make_node: makes a node of its parts, which are the arguments of `Node`.

        """
        self.registry = Registry(list(disks.nodes))
        self.network = network or MemoryNetwork(Links(Random(random.getrandbits(64))))
        self.links = self.network.links
        self._disks = disks
        self._trace = trace
        self._random = random
        self._supervisor = Supervisor(
            disks=disks,
            registry=self.registry,
            network=self.network,
            config=config,
            trace=trace,
            random=random,
            make_node=make_node,
        )
        self._members = self._supervisor.members
        self._nursery: trio.Nursery | None = None
        self._disk_faults: dict[tuple[str, int], Disk] = {}
        """What was done to which disk; a node that starts again has another, sound one."""
        self.registry.faults = self.active_faults

    async def run(self) -> None:
        """Run all nodes until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.network.run)
            nursery.start_soon(self._supervisor.run)
            for node in self._members:
                nursery.start_soon(self._watch_place, node)

    async def _watch_place(self, node: int) -> None:
        """Stop a node whose directory is not where it was: as a disk that failed, it would keep nothing."""
        while True:
            error = await self._disks.wait_gone(node)
            inbox = self._members[node].status.inbox
            if inbox is not None:
                inbox.post(jobs.DiskFailed(error))

    async def wait_leader(self) -> int:
        """Wait until a node leads; return it."""
        while (leader := self.registry.leader()) is None:
            await self.registry.wait_change()
        return leader.node

    @property
    def is_disk_abandoned(self) -> bool:
        """Whether `run` ended without a disk that hangs: that may write as long as the process lives."""
        return self._supervisor.disk_waits.is_abandoned

    @property
    def is_loading(self) -> bool:
        """Whether nodes still read what their disks hold."""
        return self._supervisor.is_loading

    def status(self) -> dict[str, object]:
        """Return the members of the protocol's status reply."""
        return self.registry.status()

    def leader(self) -> int:
        """Return the node that leads.

        Raises:
            FaultError: none does just now.

        """
        leader = self.registry.leader()
        if leader is None:
            raise FaultError("no node leads just now")
        return leader.node

    def active_faults(self) -> list[dict[str, object]]:
        """Return what is wrong with links, disks and clocks, by the names and members of the commands that do it.

        Nodes that are down or paused tell so in their state.
        """
        faults: list[dict[str, object]] = [
            {"fault": name, **members} for name, members in self.links.active_faults()
        ]
        for node, member in self._members.items():
            if member.disk_delay_s:
                faults.append(
                    {"fault": "slow-disk", "node": node, "ms": round(1000 * member.disk_delay_s, 6)}
                )
            done = [
                name for (name, to), disk in self._disk_faults.items() if to == node and disk is member.disk
            ]
            faults += [{"fault": name, "node": node} for name in done]
            if "fill-disk" not in done and member.node is not None and member.node.is_disk_full:
                faults.append({"fault": "full-disk", "node": node})
            if member.clock.rate != 1.0:
                faults.append({"fault": "clock", "node": node, "rate": member.clock.rate})
        return faults

    # Faults

    def crash(self, node: int) -> None:
        """Let a node die as if its power failed: unsynced writes are dropped. It comes back by itself."""
        member = self._live_member(node)
        assert member.scope is not None
        member.scope.cancel()

    def stop(self, node: int) -> None:
        """Let a node die and stay down until `restart`."""
        member = self._member(node)
        if not member.is_living and member.status.state is not State.CRASHED:
            raise FaultError(f"node {node} does not run: it is {member.status.state}")
        member.is_wanted = False
        member.wake.set()
        # Also one whose disk is still being read: it would run all the same.
        if member.is_living and member.scope is not None:
            member.scope.cancel()

    def restart(self, node: int) -> None:
        """Start a node that is down, or let one that runs die and start again: at once, whatever its back-off was.

        Raises:
            FaultError: it is being rebuilt just now, or its disk hangs, and it starts by itself after that.

        """
        member = self._member(node)
        if member.is_being_replaced:
            raise FaultError(f"node {node} is just given a new directory, and starts by itself then")
        if member.node is None:
            member.is_wanted = True
            member.wake.set()
            self._supervisor.watch_disk(member)
            if member.is_living and member.hung_reason:
                raise FaultError(f"node {node} starts by itself as soon as it can: {member.hung_reason}")
        else:
            member.is_restarting = True
            self.crash(node)

    def pause(self, node: int) -> None:
        """Let a node do nothing, as if its process were stopped."""
        member = self._live_member(node)
        assert member.node is not None
        member.node.pause()
        member.paused_at = trio.current_time()
        self._trace.emit(NodePaused(), node=node)
        self._supervisor.set_state(member, State.PAUSED, "asked to pause")

    def resume(self, node: int) -> None:
        """Let a paused node go on."""
        member = self._member(node)
        if member.node is None or member.status.state is not State.PAUSED:
            raise FaultError(f"node {node} is not paused, but {member.status.state}")
        member.node.resume()
        self._trace.emit(NodeResumed(trio.current_time() - member.paused_at), node=node)
        self._supervisor.set_state(member, State.UP, "")

    def partition(self, groups: list[list[int]]) -> None:
        """Cut all links between the groups. A node in no group is alone."""
        named = [node for group in groups for node in group]
        for node in named:
            self._member(node)
        if len(set(named)) != len(named):
            raise FaultError("a node can be in one group only")
        self.links.partition([*groups, *([node] for node in self._members if node not in named)])
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
        for fault in [fault for fault in self._disk_faults if fault[0] != "fail-disk"]:
            del self._disk_faults[fault]
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
        self._disk_faults["stall-disk", node] = member.disk
        self._trace.emit(DiskStalled(), node=node)

    def fill_disk(self, node: int) -> None:
        """Let a node's disk be full: nothing new can be made on it, until `heal` or the node starts again."""
        member = self._live_member(node)
        assert member.disk is not None
        member.disk.fill()
        self._disk_faults["fill-disk", node] = member.disk

    def fail_disk(self, node: int) -> None:
        """Let a node's next write fail: it stops."""
        member = self._live_member(node)
        assert member.disk is not None
        member.disk.fail_next()
        self._disk_faults["fail-disk", node] = member.disk

    def skew_clock(self, node: int, rate: float) -> None:
        """Let a node's clock run at another rate; 1 is true."""
        member = self._member(node)
        member.clock.set_rate(rate)
        if member.node is not None:
            member.node.clock_changed()

    def jump_clock(self, node: int, by_s: float) -> None:
        """Let a node's clock jump forward, as that of a machine that was suspended."""
        member = self._member(node)
        member.clock.jump(by_s)
        if member.node is not None:
            member.node.clock_changed()

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
            FaultError: it runs, or too few of the others have all of their data, or a disk hangs.

        """
        member = self._member(node)
        if member.is_living:
            if member.node is None and member.hung_reason:
                raise FaultError(f"node {node} can't be rebuilt now: {member.hung_reason}")
            raise FaultError(f"node {node} runs: stop it first")
        if member.is_being_replaced:
            raise FaultError(f"node {node} is being rebuilt already")
        # It must not come back, by itself or because somebody asks for it, while its directory is replaced.
        rebuilding = _Rebuilding(node, member.is_wanted)
        member.is_wanted, member.is_being_replaced = False, True
        member.wake.set()
        assert self._nursery is not None
        # Of its own, for it must not be left half done: whoever asked may leave, and is not kept waiting for a disk.
        self._nursery.start_soon(self._rebuild, member, rebuilding)
        with trio.move_on_after(REBUILD_S):
            await rebuilding.ended.wait()
            if rebuilding.error is not None:
                raise rebuilding.error
            return {"moved_to": rebuilding.moved_to}
        rebuilding.is_awaited = False
        raise FaultError(
            f"the rebuild of node {node} waits for a disk that hangs; it goes on by itself when that moves again"
        )

    async def _rebuild(self, member: Member, rebuilding: "_Rebuilding") -> None:
        node = rebuilding.node
        try:
            running = {other for other, each in self._members.items() if each.has_all_data}
            rebuild = partial(self._disks.rebuild, node, self._random, running)
            aside = await self._supervisor.disk_waits.wait(node, rebuild)
        except Exception as error:  # noqa: BLE001 - whoever asked is told, and else everybody
            # Nothing was done: it goes on as it would have.
            rebuilding.error = FaultError(str(error)) if isinstance(error, StorageError) else error
            if not rebuilding.is_awaited:
                self._trace.emit(DiskFailed("rebuild", str(error)), node=node)
            member.is_wanted, member.is_being_replaced = rebuilding.was_wanted, False
            member.wake.set()
        else:
            rebuilding.moved_to = None if aside is None else str(aside.absolute())
            member.is_being_replaced = False
            self._trace.emit(RebuildStarted(str(aside or "")), node=node)
            self.restart(node)
        finally:
            rebuilding.ended.set()

    async def backup(self, without: Collection[int] = ()) -> dict[str, object]:
        """Take a snapshot that holds every write acknowledged before this call, for somebody to copy.

        A node that does not hear a leader, dies, or does not get its snapshot done costs some seconds: then another
        is asked, too, and the first snapshot that will do is taken.

        Args:
            without: nodes whose snapshots are of no use.

        Returns:
            its `path`, the `index` and `term` up to which it goes, and the `node` that took it. The file stays until
            the node's next snapshot.

        Raises:
            FaultError: no node could take it in time.

        """
        return await take_backup(self.registry, self._members, without)

    def transfer(self, node: int) -> None:
        """Ask the leader to hand over to a node."""
        member = self._live_member(node)
        leader = self.leader()
        if leader == node:
            raise FaultError(f"node {node} leads already")
        inbox = self.registry.nodes[leader].inbox
        assert inbox is not None
        inbox.post(Transfer(member.status.node))

    def _set_link_fault(self, fault: LinkFault) -> None:
        self.links.set_fault(fault)
        self._trace.emit(LinkFaulted(fault.delay_s, fault.jitter_s, 100 * fault.drop, 100 * fault.duplicate))

    def _set_disk_delay(self, node: int, delay_s: float) -> None:
        member = self._members[node]
        member.disk_delay_s = delay_s
        if member.disk is not None:
            member.disk.delay_s = delay_s

    def _member(self, node: int) -> Member:
        if node not in self._members:
            raise FaultError(f"there is no node {node}: the nodes are {', '.join(map(str, self._members))}")
        return self._members[node]

    def _live_member(self, node: int) -> Member:
        member = self._member(node)
        if member.node is None:
            hung = f", and {member.hung_reason}" if member.hung_reason else ""
            raise FaultError(f"node {node} does not run: it is {member.status.state}{hung}")
        return member


@attrs.define(eq=False)
class _Rebuilding:
    """A rebuild whose first step is under way: who asked for it waits for what comes of it."""

    node: int
    was_wanted: bool
    ended: trio.Event = attrs.field(factory=trio.Event)
    is_awaited: bool = True
    moved_to: str | None = None
    error: Exception | None = None
