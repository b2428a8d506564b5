"""Carrying out the faults of a plan on a real cluster: by its own API for faults, and at the twins of its disks."""

from trio_kv.sim import faults
from trio_kv.sim.faults import Fault
from trio_kv.sim.injector import Injector
from trio_kv.sim.whole import faults as door_faults
from trio_kv.sim.whole.faults import DoorFault
from trio_kv.sim.whole.house import House
from trio_kv.transport.links import LinkFault


class WholeInjector(Injector):
    """Lets faults happen to a cluster and at its door."""

    def __init__(self, world: House) -> None:
        """Let nothing happen yet."""
        super().__init__(world, world.drives, world.node_network)
        self._world = world

    def happen(self, fault: Fault) -> None:
        """Carry out a fault."""
        if not isinstance(fault, DoorFault):
            super().happen(fault)
        elif not self._world.is_healed:
            self._world.say(str(fault))
            self._trouble_door(fault)

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

    def _leader(self) -> int | None:
        leader = self._world.cluster.registry.leader()
        return None if leader is None else leader.status.node

    def _order(self, fault: faults.Order) -> None:
        world = self._world
        match fault:
            case faults.Transfer():
                leader = self._leader()
                if leader is not None and world.is_up(fault.target) and leader != fault.target:
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
                world.judges.expiry.clock_may_run(fault.rate)
            case faults.Jump():
                world.judges.expiry.clock_leapt()
                world.cluster.faults.jump_clock(self._pick(fault.node), fault.by_s)

    def _hurt_nodes(self, fault: faults.NodeFault) -> None:
        super()._hurt_nodes(fault)
        if isinstance(fault, faults.CrashAll):
            self._world.disks.root.cut_power()

    def _crash(self, node: int, for_s: float, interruptions: int = 0, *, is_answered: bool = False) -> None:
        del is_answered  # The supervisor always answers.
        self._world.crash(node, for_s, interruptions)

    def _pause(self, node: int, for_s: float) -> None:
        world = self._world
        if world.is_up(node):
            if not world.is_paused(node):
                world.cluster.faults.pause(node)
            self._later.end("pause", node, for_s, world.resume, node)

    def _starve(self, node: int, step_s: float) -> None:
        if step_s:
            self._world.starvation.begin(node, step_s)
        else:
            self._world.starvation.end(node)

    def _partition(self, groups: tuple[tuple[int, ...], ...]) -> None:
        self._world.cluster.faults.partition([list(group) for group in groups])

    def _cut(self, one: int, other: int) -> None:
        self._world.cluster.faults.cut(one, other)

    def _spoil(self, weather: LinkFault) -> None:
        live = self._world.cluster.faults
        live.delay(weather.delay_s)
        live.reorder(weather.jitter_s)
        live.drop(weather.drop)
        live.duplicate(weather.duplicate)

    def _break_disk(self, node: int, fault: faults.DiskFault) -> None:
        if isinstance(fault, faults.SlowDisk):
            slow_disk = self._world.cluster.faults.slow_disk
            slow_disk(node, self._world.plan.disk_s * (fault.factor - 1))
            self._later.end("slow", node, fault.for_s, slow_disk, node, 0.0)
        else:
            super()._break_disk(node, fault)

    def _wipe(self, node: int, for_s: float) -> None:
        self._world.wipe(node, for_s)

    def _flip(self, node: int, fault: faults.FlipBit) -> None:
        self._world.flip(node, fault.for_s, fault.part)
