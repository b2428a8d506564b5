"""Carrying out the faults of a plan on a real cluster: by its own API for faults, and at the twins of its disks."""

from trio_kv.sim import faults
from trio_kv.sim.cuts import cut_off, links_of_ring, pairs_of_bridge, swizzle
from trio_kv.sim.faults import Fault
from trio_kv.sim.later import Later
from trio_kv.sim.network import Pipe
from trio_kv.sim.whole import faults as door_faults
from trio_kv.sim.whole.faults import DoorFault
from trio_kv.sim.whole.world import WholeWorld


class Injector:
    """Lets faults happen in a world, and end."""

    def __init__(self, world: WholeWorld) -> None:
        """Let nothing happen yet."""
        self._world = world
        self._later = Later(world, before=world.terms.disturbed)

    def stop(self) -> None:
        """End no fault any more: the world mends everything itself."""
        self._later.stop()

    def happen(self, fault: Fault) -> None:
        """Carry out a fault."""
        if self._world.is_healed:
            return
        self._world.say(str(fault))
        if not isinstance(fault, DoorFault):
            self._world.terms.disturbed()
        if isinstance(fault, faults.NetworkFault):
            self._break_links(fault)
            self._later.end("links", 0, fault.for_s, self._world.links.heal)
        elif isinstance(fault, faults.Swizzle):
            swizzle(fault, self._world.links, self._world.members, self._later)
        elif isinstance(fault, faults.DiskFault):
            self._break_disk(fault)
        elif isinstance(fault, faults.DataFault):
            self._take_away(fault)
        elif isinstance(fault, faults.NodeFault):
            self._stop(fault)
        elif isinstance(fault, faults.Replay):
            self._replay(fault)
        elif isinstance(fault, faults.Order):
            self._order(fault)
        elif isinstance(fault, DoorFault):
            self._trouble_door(fault)
        else:
            raise TypeError(f"no rule for {fault}")

    def _pick(self, number: int) -> int:
        """Return a node: 0 is whoever leads."""
        if number:
            return number
        leader = self._world.cluster.registry.leader()
        return 1 if leader is None else leader.status.node

    # Nodes

    def _stop(self, fault: faults.NodeFault) -> None:
        world = self._world
        match fault:
            case faults.Crash():
                self._crash(fault)
            case faults.CrashAll():
                for node, for_s in zip(world.members, fault.for_s, strict=True):
                    world.crash(node, for_s)
                world.disks.root.cut_power()
            case faults.RollingRestart():
                for turn, node in enumerate(fault.order):
                    self._later.do(turn * fault.gap_s, world.crash, node, fault.for_s)
            case faults.Pause():
                node = self._pick(fault.node)
                if world.is_up(node):
                    if not world.is_paused(node):
                        world.cluster.faults.pause(node)
                    self._later.end("pause", node, fault.for_s, world.resume, node)
            case faults.SlowNode():
                node = self._pick(fault.node)
                world.starvation.begin(node, fault.step_s)
                self._later.end("slow node", node, fault.for_s, world.starvation.end, node)

    def _crash(self, fault: faults.Crash) -> None:
        world, node = self._world, self._pick(fault.node)
        condition = world.disks.drives[node].condition

        def crash() -> None:
            if world.is_healed:
                return
            victim = self._pick(fault.node) if fault.is_in_install else node
            world.crash(victim, fault.for_s, int(fault.is_interrupted_again))

        if fault.is_in_install:
            world.node_network.in_next_install = lambda: world.after(world.plan.latency_s * 4, crash)
        elif fault.is_in_job:
            condition.in_next_job = crash
        elif fault.is_in_batch:
            condition.in_next_batch = crash
        else:
            crash()

    def _replay(self, fault: faults.Replay) -> None:
        world = self._world
        for _ in range(fault.count):
            if world.node_network.past:
                message = world.random.choice(world.node_network.past)
                world.after(world.random.random() * 0.2, world.node_network.send_again, message)

    def _order(self, fault: faults.Order) -> None:
        world = self._world
        match fault:
            case faults.Transfer():
                leader = world.cluster.registry.leader()
                if leader is not None and world.is_up(fault.target) and leader.status.node != fault.target:
                    world.transfers.add(fault.target)
                    world.cluster.transfer(fault.target)
            case faults.ForceElection():
                if world.is_up(fault.node):
                    world.running[fault.node].stand(is_pre_vote=fault.is_pre_vote)
            case faults.ForceSnapshot():
                node = self._pick(fault.node)
                if world.is_up(node):
                    world.cluster.snapshot(node)
            case faults.Drift():
                world.cluster.faults.skew_clock(fault.node, fault.rate)
            case faults.Jump():
                world.cluster.faults.jump_clock(self._pick(fault.node), fault.by_s)

    # Links

    def _break_links(self, fault: faults.NetworkFault) -> None:
        world, live = self._world, self._world.cluster.faults
        match fault:
            case faults.Partition():
                live.partition([list(group) for group in fault.groups])
            case faults.Isolate():
                # One way: an operator's `cut` is always both.
                node = self._pick(fault.node)
                cut_off(world.links, world.members, node, is_deaf=fault.is_deaf, is_mute=fault.is_mute)
            case faults.Bridge():
                for one, other in pairs_of_bridge(fault):
                    live.cut(one, other)
            case faults.Ring():
                for one, other in links_of_ring(fault, world.members):
                    live.cut(one, other)
            case faults.Weather():
                live.delay(fault.links.delay_s)
                live.reorder(fault.links.jitter_s)
                live.drop(fault.links.drop)
                live.duplicate(fault.links.duplicate)
            case faults.SlowLink():
                world.links.pipes[fault.source, fault.target] = Pipe(fault.message_s, fault.waiting_max)

    # Disks

    def _break_disk(self, fault: faults.DiskFault) -> None:
        world, slow_disk = self._world, self._world.cluster.faults.slow_disk
        node = self._pick(fault.node)
        if isinstance(fault, faults.SlowDisk):
            slow_disk(node, world.plan.disk_s * (fault.factor - 1))
            self._later.end("slow", node, fault.for_s, slow_disk, node, 0.0)
            return
        lasts = isinstance(fault, faults.FailDisk) and fault.for_s is None
        may_fail = world.is_up(node) and (not lasts or self._may_lose(node))
        world.disks.drives[node].suffer(fault, self._later, may_fail=may_fail)

    def _take_away(self, fault: faults.DataFault) -> None:
        world = self._world
        match fault:
            case faults.FillDisk():
                self._fill(self._pick(fault.node), fault)
            case faults.FillAll():
                for node in world.members:
                    self._fill(node, fault)
            case faults.FlipBit() | faults.Wipe():
                node = self._pick(fault.node)
                # Only a node that is lost already, or may be lost too.
                if self._may_lose(node):
                    if isinstance(fault, faults.Wipe):
                        world.wipe(node, fault.for_s)
                    else:
                        world.flip(node, fault.for_s, fault.part)

    def _fill(self, node: int, fault: faults.FillDisk | faults.FillAll) -> None:
        drive = self._world.disks.drives[node]
        drive.fill(fault.free_bytes, is_shared=fault.is_shared)
        self._later.end("full", node, fault.for_s, drive.unfill)

    def _may_lose(self, node: int) -> bool:
        """Return whether a majority would be left with all of its data: nothing could bring back more."""
        drives = self._world.disks.drives
        left = [drive.node for drive in drives.values() if drive.node != node and not drive.is_lost]
        return self._world.plan.allows_loss(drives, left)

    # The door

    def _trouble_door(self, fault: DoorFault) -> None:
        world = self._world
        match fault:
            case door_faults.Disconnect():
                world.clients[fault.client].disconnect(is_half_line=fault.is_half_line)
            case door_faults.SlowReader():
                world.clients[fault.client].read_nothing(fault.for_s)
            case door_faults.RestartDoor():
                world.door.restart(fault.for_s, is_graceful=fault.is_graceful)
            case door_faults.Stranger():
                world.let_in(fault.lines)
            case _:
                raise AssertionError(f"no rule for {fault}")
