"""Carrying out the faults of a plan on a real cluster: by its own API for faults, and at the twins of its disks."""

from trio_kv.sim import faults
from trio_kv.sim.faults import Fault
from trio_kv.sim.injector import Injector
from trio_kv.sim.whole import faults as door_faults
from trio_kv.sim.whole import wire_faults
from trio_kv.sim.whole.faults import DoorFault
from trio_kv.sim.whole.house import House
from trio_kv.sim.whole.processes import ProcessesHouse
from trio_kv.sim.whole.wires import Wire
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
                    world.transfer(leader, fault.target)
            case faults.ForceElection():
                if world.is_up(fault.node):
                    world.running[fault.node].stand(is_pre_vote=fault.is_pre_vote)
            case faults.ForceSnapshot():
                node = self._pick(fault.node)
                if world.is_up(node):
                    world.cluster_of(node).snapshot(node)
            case faults.Drift():
                world.cluster_of(fault.node).faults.skew_clock(fault.node, fault.rate)
                world.judges.expiry.clock_may_run(fault.rate)
            case faults.Jump():
                world.judges.expiry.clock_leapt()
                node = self._pick(fault.node)
                world.cluster_of(node).faults.jump_clock(node, fault.by_s)

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
                world.cluster_of(node).faults.pause(node)
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
            slow_disk = self._world.cluster_of(node).faults.slow_disk
            slow_disk(node, self._world.plan.disk_s * (fault.factor - 1))
            self._later.end("slow", node, fault.for_s, slow_disk, node, 0.0)
        else:
            super()._break_disk(node, fault)

    def _wipe(self, node: int, for_s: float) -> None:
        self._world.wipe(node, for_s)

    def _flip(self, node: int, fault: faults.FlipBit) -> None:
        self._world.flip(node, fault.for_s, fault.part)


class ProcessesInjector(WholeInjector):
    """Lets faults happen to the processes of a cluster, and between them."""

    def __init__(self, world: ProcessesHouse) -> None:
        """Let nothing happen yet."""
        super().__init__(world)
        self._processes = world

    def happen(self, fault: Fault) -> None:
        """Carry out a fault."""
        if not isinstance(fault, wire_faults.WireFault):
            super().happen(fault)
        elif not self._processes.is_healed:
            self._processes.say(str(fault))
            self._processes.terms.disturbed()
            self._trouble_wires(fault)

    def _trouble_wires(self, fault: wire_faults.WireFault) -> None:
        world, wires, later = self._processes, self._processes.wires, self._later
        match fault:
            case wire_faults.KillProcess():
                world.kill(fault.process, fault.for_s, is_told=fault.is_told)
            case wire_faults.FreezeProcess(process=process):
                for node in world.nodes_of[process]:
                    self._pause(node, fault.for_s)
                world.coverage.reach("process frozen")
                self._stick([(process, other) for other in world.nodes_of if other != process], fault.for_s)
            case wire_faults.StickWire(source=source, target=target):
                world.coverage.reach("wire stuck")
                self._stick([(source, target), *([(target, source)] * fault.is_both_ways)], fault.for_s)
            case wire_faults.ResetWire():
                world.coverage.reach("connections reset")
                wires.reset(fault.one, fault.other, is_told=fault.is_told)
            case wire_faults.TearWires():
                wires.is_torn = True
                later.end("torn", 0, fault.for_s, setattr, wires, "is_torn", False)
            case wire_faults.FlipWire():
                wires.flip_next((fault.source, fault.target))
            case wire_faults.CloseWire(source=source, target=target):
                wires.reset(source, target)
                wires.refuse([(source, target)])
                later.do(fault.for_s, wires.accept, [(source, target)])
            case wire_faults.FormerSelf():
                world.let_former_call(fault.target)
            case wire_faults.WrongCaller():
                world.let_stranger_call(fault.target, fault.kind)
            case _:
                raise AssertionError(f"no rule for {fault}")

    def _stick(self, wires: list[Wire], for_s: float) -> None:
        """Let nothing through for a while."""
        self._processes.wires.stick(wires)
        self._later.do(for_s, self._processes.wires.let_go, wires)
