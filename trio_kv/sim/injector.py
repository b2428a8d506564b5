"""Carrying out the faults of a plan: what is the same in both worlds."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from trio_kv.sim import faults
from trio_kv.sim.cuts import cut_off, links_of_ring, pairs_of_bridge, swizzle
from trio_kv.sim.drive import Drive
from trio_kv.sim.host import Host
from trio_kv.sim.later import Later
from trio_kv.sim.pipes import Pipe
from trio_kv.transport.links import LinkFault


class Network(Protocol):
    """What carries the messages."""

    in_next_install: Callable[[], None] | None

    def replay(self, count: int) -> None:
        """Let messages of the past be on their way once more."""
        ...


class Injector(ABC):
    """Lets faults happen in a world, and end.

    Args:
        world: where.
        drives: each node's.
        network: between the nodes.

    """

    def __init__(self, world: Host, drives: Mapping[int, Drive], network: Network) -> None:
        """Let nothing happen yet; see the class."""
        self._host = world
        self._drives = drives
        self._network = network
        self._later = Later(world)

    def stop(self) -> None:
        """End no fault any more: the world mends everything itself."""
        self._later.stop()

    def happen(self, fault: faults.Fault) -> None:
        """Carry out a fault."""
        host = self._host
        if host.is_healed:
            return
        host.say(str(fault))
        host.terms.disturbed()
        if isinstance(fault, faults.NetworkFault):
            self._break_links(fault)
            self._later.end("links", 0, fault.for_s, host.links.heal)
        elif isinstance(fault, faults.Swizzle):
            swizzle(fault, host.links, host.members, self._later)
        elif isinstance(fault, faults.DiskFault):
            self._break_disk(self._pick(fault.node), fault)
        elif isinstance(fault, faults.DataFault):
            self._take_away(fault)
        elif isinstance(fault, faults.NodeFault):
            self._hurt_nodes(fault)
        elif isinstance(fault, faults.Replay):
            self._network.replay(fault.count)
        elif isinstance(fault, faults.Order):
            self._order(fault)
        else:
            raise TypeError(f"no rule for {fault}")

    def _pick(self, number: int) -> int:
        """Return a node: 0 is whoever leads."""
        return number or self._leader() or 1

    def _leader(self) -> int | None:
        leader = self._host.leading()
        return None if leader is None else leader.id

    @abstractmethod
    def _order(self, fault: faults.Order) -> None: ...

    # Nodes

    def _hurt_nodes(self, fault: faults.NodeFault) -> None:
        match fault:
            case faults.Crash():
                self._crash_when_planned(fault)
            case faults.CrashAll():
                for node, for_s in zip(self._host.members, fault.for_s, strict=True):
                    self._crash(node, for_s)
            case faults.RollingRestart():
                for turn, node in enumerate(fault.order):
                    self._later.do(
                        turn * fault.gap_s, partial(self._crash, node, fault.for_s, is_answered=True)
                    )
            case faults.Pause():
                self._pause(self._pick(fault.node), fault.for_s)
            case faults.SlowNode():
                node = self._pick(fault.node)
                self._starve(node, fault.step_s)
                self._later.end("slow node", node, fault.for_s, self._starve, node, 0.0)

    def _crash_when_planned(self, fault: faults.Crash) -> None:
        host, node = self._host, self._pick(fault.node)
        condition = self._drives[node].condition

        def crash() -> None:
            if host.is_healed:
                return
            victim = self._pick(fault.node) if fault.is_in_install else node
            interruptions = int(fault.is_interrupted_again)
            self._crash(victim, fault.for_s, interruptions, is_answered=fault.is_answered)

        if fault.is_in_install:
            self._network.in_next_install = partial(host.after, host.plan.latency_s * 4, crash)
        elif fault.is_in_job:
            condition.in_next_job = crash
        elif fault.is_in_batch:
            condition.in_next_batch = crash
        else:
            crash()

    @abstractmethod
    def _crash(
        self, node: int, for_s: float, interruptions: int = 0, *, is_answered: bool = False
    ) -> None: ...

    @abstractmethod
    def _pause(self, node: int, for_s: float) -> None: ...

    @abstractmethod
    def _starve(self, node: int, step_s: float) -> None: ...

    # Links

    def _break_links(self, fault: faults.NetworkFault) -> None:
        host = self._host
        match fault:
            case faults.Partition():
                self._partition(fault.groups)
            case faults.Isolate():
                # One way: an operator's `cut` is always both.
                node = self._pick(fault.node)
                cut_off(host.links, host.members, node, is_deaf=fault.is_deaf, is_mute=fault.is_mute)
            case faults.Bridge():
                for one, other in pairs_of_bridge(fault):
                    self._cut(one, other)
            case faults.Ring():
                for one, other in links_of_ring(fault, host.members):
                    self._cut(one, other)
            case faults.Weather():
                self._spoil(fault.links)
            case faults.SlowLink():
                host.links.pipes[fault.source, fault.target] = Pipe(fault.message_s, fault.waiting_max)

    def _partition(self, groups: tuple[tuple[int, ...], ...]) -> None:
        self._host.links.partition(groups)

    def _cut(self, one: int, other: int) -> None:
        self._host.links.cut(one, other)
        self._host.links.cut(other, one)

    def _spoil(self, weather: LinkFault) -> None:
        self._host.links.set_fault(weather)

    # Disks

    def _break_disk(self, node: int, fault: faults.DiskFault) -> None:
        lasts = isinstance(fault, faults.FailDisk) and fault.for_s is None
        may_fail = self._host.replica(node) is not None and (not lasts or self._may_lose(node))
        self._drives[node].suffer(fault, self._later, may_fail=may_fail)

    def _take_away(self, fault: faults.DataFault) -> None:
        if isinstance(fault, faults.FillAll):
            for node in self._host.members:
                self._fill(node, fault)
            return
        node = self._pick(fault.node)
        if isinstance(fault, faults.FillDisk):
            self._fill(node, fault)
        elif self._may_lose(node):
            if isinstance(fault, faults.Wipe):
                self._wipe(node, fault.for_s)
            else:
                self._flip(node, fault)

    def _fill(self, node: int, fault: faults.FillDisk | faults.FillAll) -> None:
        drive = self._drives[node]
        drive.fill(fault.free_bytes, is_shared=fault.is_shared)
        self._later.end("full", node, fault.for_s, drive.unfill)

    def _may_lose(self, node: int) -> bool:
        """Return whether a majority would be left with all of its data: nothing could bring back more."""
        left = [drive.node for drive in self._drives.values() if drive.node != node and not drive.is_lost]
        return self._host.plan.allows_loss(self._drives, left)

    @abstractmethod
    def _wipe(self, node: int, for_s: float) -> None: ...

    @abstractmethod
    def _flip(self, node: int, fault: faults.FlipBit) -> None: ...
