"""Carrying out the faults of a plan in the core world."""

from trio_kv.replica.driver import TakeSnapshot
from trio_kv.sim import faults
from trio_kv.sim.injector import Injector
from trio_kv.sim.node import NodeHost


class CoreInjector(Injector):
    """Lets faults happen to simulated nodes."""

    def __init__(self, world: NodeHost) -> None:
        """Let nothing happen yet."""
        super().__init__(world, world.drives, world.network)
        self._world = world

    def _order(self, fault: faults.Order) -> None:
        world = self._world
        match fault:
            case faults.Transfer():
                leader = self._leader()
                if leader is not None:
                    world.transfers.add(fault.target)
                    world.nodes[leader].transfer(fault.target)
            case faults.ForceElection():
                world.nodes[fault.node].stand(is_pre_vote=fault.is_pre_vote)
            case faults.ForceSnapshot():
                world.nodes[self._pick(fault.node)].post(TakeSnapshot())
            case faults.Drift():
                world.nodes[fault.node].set_rate(fault.rate)
            case faults.Jump():
                world.nodes[self._pick(fault.node)].jump(fault.by_s)

    def _crash(self, node: int, for_s: float, interruptions: int = 0, *, is_answered: bool = False) -> None:
        self._world.crash(
            self._world.nodes[node], for_s, is_answered=is_answered, interruptions=interruptions
        )

    def _pause(self, node: int, for_s: float) -> None:
        paused = self._world.nodes[node]
        paused.pause()
        self._later.end("pause", node, for_s, paused.resume)

    def _starve(self, node: int, step_s: float) -> None:
        self._world.nodes[node].step_s = step_s

    def _wipe(self, node: int, for_s: float) -> None:
        world, wiped = self._world, self._world.nodes[node]
        self._crash(node, for_s)
        wiped.wipe()
        world.restart_later(wiped, for_s)

    def _flip(self, node: int, fault: faults.FlipBit) -> None:
        drive = self._world.drives[node]
        self._crash(node, fault.for_s)
        if not (drive.is_failed or drive.is_damaged):
            drive.flip(fault.part)
