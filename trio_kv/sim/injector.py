"""Carrying out the faults of a plan."""

from trio_kv.replica.driver import TakeSnapshot
from trio_kv.sim import faults
from trio_kv.sim.cuts import cut_off, links_of_ring, pairs_of_bridge, swizzle
from trio_kv.sim.engine import Engine
from trio_kv.sim.later import Later
from trio_kv.sim.network import Pipe
from trio_kv.sim.node import SimulatedNode


class Injector:
    """Lets faults happen in a world, and end."""

    def __init__(self, world: Engine) -> None:
        """Let nothing happen yet."""
        self._world = world
        self._later = Later(world, before=world.terms.disturbed)

    def stop(self) -> None:
        """End no fault any more: the world mends everything itself."""
        self._later.stop()

    def happen(self, fault: faults.Fault) -> None:
        """Carry out a fault."""
        self._world.say(str(fault))
        self._world.terms.disturbed()
        if isinstance(fault, faults.NetworkFault):
            self._break_links(fault)
            self._later.end("links", 0, fault.for_s, self._world.network.heal)
        elif isinstance(fault, faults.Swizzle):
            swizzle(fault, self._world.links, self._world.members, self._later)
        elif isinstance(fault, faults.DiskFault):
            self._break_disk(fault)
        elif isinstance(fault, faults.DataFault):
            self._take_away(fault)
        elif isinstance(fault, faults.NodeFault):
            self._stop(fault)
        elif isinstance(fault, faults.Replay):
            self._world.network.replay(fault.count)
        elif isinstance(fault, faults.Order):
            self._order(fault)
        else:
            raise TypeError(f"no rule for {fault}")

    def _order(self, fault: faults.Order) -> None:
        world = self._world
        match fault:
            case faults.Transfer():
                leader = world.leader()
                if leader is not None:
                    world.transfers.add(fault.target)
                    leader.transfer(fault.target)
            case faults.ForceElection():
                world.nodes[fault.node].stand(is_pre_vote=fault.is_pre_vote)
            case faults.ForceSnapshot():
                self._pick(fault.node).post(TakeSnapshot())
            case faults.Drift():
                world.nodes[fault.node].set_rate(fault.rate)
            case faults.Jump():
                self._pick(fault.node).jump(fault.by_s)

    def _stop(self, fault: faults.NodeFault) -> None:
        world = self._world
        match fault:
            case faults.Crash():
                self._crash(fault)
            case faults.CrashAll():
                for node, for_s in zip(world.nodes.values(), fault.for_s, strict=True):
                    world.crash(node, for_s, is_answered=False, interruptions=0)
            case faults.RollingRestart():
                for turn, number in enumerate(fault.order):
                    self._later.do(turn * fault.gap_s, self._crash_one, number, fault.for_s)
            case faults.Pause():
                node = self._pick(fault.node)
                node.pause()
                self._later.end("pause", node.id, fault.for_s, node.resume)
            case faults.SlowNode():
                node = self._pick(fault.node)
                node.step_s = fault.step_s
                self._later.end("slow node", node.id, fault.for_s, node.end_starvation)

    def _crash_one(self, number: int, for_s: float) -> None:
        self._world.crash(self._world.nodes[number], for_s, is_answered=True, interruptions=0)

    def _take_away(self, fault: faults.DataFault) -> None:
        match fault:
            case faults.FillDisk():
                self._fill(self._pick(fault.node), fault)
            case faults.FillAll():
                for node in self._world.nodes.values():
                    self._fill(node, fault)
            case faults.FlipBit() | faults.Wipe():
                self._lose(fault)

    def _pick(self, number: int) -> SimulatedNode:
        if number:
            return self._world.nodes[number]
        return self._world.leader() or self._world.nodes[1]

    def _crash(self, fault: faults.Crash) -> None:
        node = self._pick(fault.node)

        def crash() -> None:
            if self._world.is_healed:
                return
            interruptions = int(fault.is_interrupted_again)
            victim = self._pick(fault.node) if fault.is_in_install else node
            self._world.crash(victim, fault.for_s, is_answered=fault.is_answered, interruptions=interruptions)

        if fault.is_in_install:
            self._world.network.in_next_install = crash
        elif fault.is_in_job:
            node.drive.condition.in_next_job = crash
        elif fault.is_in_batch:
            node.drive.condition.in_next_batch = crash
        else:
            crash()

    def _break_links(self, fault: faults.NetworkFault) -> None:
        links, members = self._world.links, self._world.members
        match fault:
            case faults.Partition():
                links.partition(fault.groups)
            case faults.Isolate():
                node = self._pick(fault.node).id
                cut_off(links, members, node, is_deaf=fault.is_deaf, is_mute=fault.is_mute)
            case faults.Bridge():
                for one, other in pairs_of_bridge(fault):
                    links.cut(one, other)
                    links.cut(other, one)
            case faults.Ring():
                for source, target in links_of_ring(fault, members):
                    links.cut(source, target)
            case faults.Weather():
                links.set_fault(fault.links)
            case faults.SlowLink():
                pipe = Pipe(fault.message_s, fault.waiting_max)
                self._world.network.pipes[fault.source, fault.target] = pipe

    def _break_disk(self, fault: faults.DiskFault) -> None:
        node = self._pick(fault.node)
        lasts = isinstance(fault, faults.FailDisk) and fault.for_s is None
        node.drive.suffer(fault, self._later, may_fail=node.is_up and (not lasts or self._may_lose(node)))

    def _fill(self, node: SimulatedNode, fault: faults.FillDisk | faults.FillAll) -> None:
        node.drive.fill(fault.free_bytes, is_shared=fault.is_shared)
        self._later.end("full", node.id, fault.for_s, node.drive.unfill)

    def _may_lose(self, node: SimulatedNode) -> bool:
        nodes = self._world.nodes
        left = [other.id for other in nodes.values() if other is not node and not other.is_lost]
        return self._world.plan.allows_loss(nodes, left)

    def _lose(self, fault: faults.FlipBit | faults.Wipe) -> None:
        """Let a node forget a bit, or all. Only a node that is lost already, or may be lost too."""
        world, node = self._world, self._pick(fault.node)
        if not self._may_lose(node):
            return
        if node.is_up:
            world.crash(node, fault.for_s, is_answered=False, interruptions=0)
        if isinstance(fault, faults.Wipe):
            node.wipe()
            world.restart_later(node, fault.for_s)
        elif not (node.drive.is_failed or node.drive.is_damaged):
            node.drive.flip(fault.part)
