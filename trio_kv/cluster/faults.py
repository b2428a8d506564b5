"""The faults of a live cluster: what can be broken, and is broken still.

They are one API, used by the control door, the dashboard, the chaos command and the simulator alike.
"""

from collections.abc import Collection

import attrs
import trio

from trio_kv.cluster.disks import Disk
from trio_kv.cluster.members import FaultError
from trio_kv.cluster.supervisor import Supervisor
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import (
    DiskHealed,
    DiskSlowed,
    DiskStalled,
    LinkCut,
    LinkFaulted,
    LinksHealed,
    LinksPartitioned,
    NodePaused,
    NodeResumed,
)
from trio_kv.transport.links import Links
from trio_kv.wire.node_status import State


class Faults:
    """What can be broken in a cluster. A method raises `FaultError` if it makes no sense now.

    Args:
        supervisor: keeps the nodes running that are broken here.
        links: those between the nodes.
        trace: takes all events.
        nodes: those of all processes.

    """

    def __init__(self, supervisor: Supervisor, links: Links, trace: Trace, nodes: Collection[int]) -> None:
        """Break nothing yet; see the class."""
        self._nodes = nodes
        self.links = links
        self._supervisor = supervisor
        self._members = supervisor.members
        self._trace = trace
        self._disk_faults: dict[tuple[str, int], Disk] = {}
        """What was done to which disk; a node that starts again has another, sound one."""

    def active(self) -> list[dict[str, object]]:
        """Return what is wrong with links, disks and clocks, by the names and members of the commands that do it.

        Nodes that are down or paused tell so in their state.
        """
        faults: list[dict[str, object]] = [
            {"fault": name, **members} for name, members in self.links.active_faults()
        ]
        for node, member in self._members.all.items():
            if member.disk_delay_s:
                faults.append(
                    {"fault": "slow-disk", "node": node, "ms": round(1000 * member.disk_delay_s, 6)}
                )
            done = self.disk_faults(node)
            faults += [{"fault": name, "node": node} for name in done]
            if "fill-disk" not in done and member.node is not None and member.node.is_disk_full:
                faults.append({"fault": "full-disk", "node": node})
            if member.clock.rate != 1.0:
                faults.append({"fault": "clock", "node": node, "rate": member.clock.rate})
        return faults

    def crash(self, node: int) -> None:
        """Let a node die as if its power failed: unsynced writes are dropped. It comes back by itself."""
        self._members.named_running(node)[0].kill()

    def pause(self, node: int) -> None:
        """Let a node do nothing, as if its process were stopped."""
        member, running = self._members.named_running(node)
        running.pause()
        member.paused_at = trio.current_time()
        self._trace.emit(NodePaused(), node=node)
        self._supervisor.set_state(member, State.PAUSED, "asked to pause")

    def resume(self, node: int) -> None:
        """Let a paused node go on."""
        member = self._members.named(node)
        if member.node is None or member.status.state is not State.PAUSED:
            raise FaultError(f"node {node} is not paused, but {member.status.state}")
        member.node.resume()
        self._trace.emit(NodeResumed(trio.current_time() - member.paused_at), node=node)
        self._supervisor.set_state(member, State.UP, "")

    def partition(self, groups: list[list[int]]) -> None:
        """Cut all links between the groups. A node in no group is alone."""
        named = [node for group in groups for node in group]
        for node in named:
            self._members.check(node)
        if len(set(named)) != len(named):
            raise FaultError("a node can be in one group only")
        self.links.partition([*groups, *([node] for node in self._nodes if node not in named)])
        self._trace.emit(LinksPartitioned(tuple(tuple(group) for group in groups)))

    def cut(self, source: int, target: int) -> None:
        """Cut the link between two nodes, both ways."""
        for each in self._both_ways((source, target)):
            self.links.cut(*each)
        self._trace.emit(LinkCut((source, target)))

    def heal(self, link: tuple[int, int] | None = None) -> None:
        """Make one link sound again, both ways; without one, all links and disks (a disk that failed stays failed)."""
        if link is None:
            self.links.heal()
            for node in self._members.all:
                self._heal_disk(node)
        else:
            for each in self._both_ways(link):
                self.links.heal_link(*each)
        self._trace.emit(LinksHealed(link))

    def heal_disk(self, node: int) -> None:
        """Make a node's disk sound again (one that failed stays failed)."""
        self._members.named(node)
        self._heal_disk(node)
        self._trace.emit(DiskHealed(), node=node)

    def delay(self, delay_s: float, link: tuple[int, int] | None = None) -> None:
        """Let every message take this long, or those of one link, both ways."""
        self._set_link_fault(link, delay_s=delay_s)

    def drop(self, fraction: float, link: tuple[int, int] | None = None) -> None:
        """Lose this share of all messages, or of those of one link, both ways."""
        self._set_link_fault(link, drop=fraction)

    def duplicate(self, fraction: float) -> None:
        """Let this share of all messages arrive twice."""
        self._set_link_fault(duplicate=fraction)

    def reorder(self, jitter_s: float) -> None:
        """Delay each message by up to this much more, so that messages overtake one another."""
        self._set_link_fault(jitter_s=jitter_s)

    def slow_disk(self, node: int, delay_s: float) -> None:
        """Let every write of a node take this much longer; 0 ends it."""
        self._members.named(node)
        self._set_disk_delay(node, delay_s)
        self._trace.emit(DiskSlowed(delay_s), node=node)

    def stall_disk(self, node: int) -> None:
        """Let a node's disk stand still until `heal`, or until the node starts again."""
        self._break_disk(node, "stall-disk").stall()
        self._trace.emit(DiskStalled(), node=node)

    def fill_disk(self, node: int) -> None:
        """Let a node's disk be full: nothing new can be made on it, until `heal` or the node starts again."""
        self._break_disk(node, "fill-disk").fill()

    def fail_disk(self, node: int) -> None:
        """Let a node's next write fail: it stops."""
        self._break_disk(node, "fail-disk").fail_next()

    def skew_clock(self, node: int, rate: float) -> None:
        """Let a node's clock run at another rate; 1 is true."""
        member = self._members.named(node)
        member.clock.set_rate(rate)
        if member.node is not None:
            member.node.clock_changed()

    def jump_clock(self, node: int, by_s: float) -> None:
        """Let a node's clock jump forward, as that of a machine that was suspended."""
        member = self._members.named(node)
        member.clock.jump(by_s)
        if member.node is not None:
            member.node.clock_changed()

    def _set_link_fault(self, link: tuple[int, int] | None = None, **changes: float) -> None:
        for each in [None] if link is None else self._both_ways(link):
            self.links.set_fault(attrs.evolve(self.links.fault(each), **changes), each)
        fault = self.links.fault(link)
        numbers = (fault.delay_s, fault.jitter_s, 100 * fault.drop, 100 * fault.duplicate)
        self._trace.emit(LinkFaulted(*numbers, link))

    def _both_ways(self, link: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the directions of a link that somebody has named."""
        source, target = link
        self._members.check(source)
        self._members.check(target)
        if source == target:
            raise FaultError("a link joins two nodes")
        return [(source, target), (target, source)]

    def _heal_disk(self, node: int) -> None:
        self._set_disk_delay(node, 0.0)
        disk = self._members.all[node].disk
        if disk is not None:
            disk.unstall()
            disk.unfill()
        for fault in ("stall-disk", "fill-disk"):
            self._disk_faults.pop((fault, node), None)

    def disk_faults(self, node: int) -> list[str]:
        """Return what was made wrong with the disk that a node has now, beside its delay."""
        disk = self._members.all[node].disk
        return [name for (name, to), broken in self._disk_faults.items() if to == node and broken is disk]

    def _set_disk_delay(self, node: int, delay_s: float) -> None:
        member = self._members.all[node]
        member.disk_delay_s = delay_s
        if member.disk is not None:
            member.disk.delay_s = delay_s

    def _break_disk(self, node: int, fault: str) -> Disk:
        """Note a fault of the disk of a node that runs; return that disk."""
        disk = self._members.named_running(node)[0].disk
        assert disk is not None
        self._disk_faults[fault, node] = disk
        return disk
