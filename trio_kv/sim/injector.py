"""Carrying out the faults of a plan."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trio_kv.sim import faults
from trio_kv.sim.node import SimulatedNode

if TYPE_CHECKING:
    from trio_kv.sim.world import World


class Injector:
    """Lets faults happen in a world, and end."""

    def __init__(self, world: "World") -> None:
        """Let nothing happen yet."""
        self._world = world
        self._ends: dict[tuple[str, int], int] = {}
        """(kind, node) -> the fault that ends it; an earlier one of the kind ends nothing any more."""
        self._number = 0

    def stop(self) -> None:
        """End no fault any more: the world mends everything itself."""
        self._ends.clear()

    def happen(self, fault: faults.Fault) -> None:
        """Carry out a fault."""
        self._world.say(str(fault))
        match fault:
            case faults.Partition() | faults.Isolate() | faults.Bridge() | faults.Weather():
                self._break_links(fault)
                self._end_later("links", 0, fault.for_s, self._world.links.heal)
            case faults.SlowDisk() | faults.StallDisk() | faults.FailDisk():
                self._break_disk(fault)
            case faults.Crash():
                self._crash(fault)
            case faults.CrashAll():
                for node, for_s in zip(self._world.nodes.values(), fault.for_s, strict=True):
                    self._world.crash(node, for_s, is_answered=False, interruptions=0)
            case faults.Pause():
                node = self._pick(fault.node)
                node.pause()
                self._end_later("pause", node.id, fault.for_s, node.resume)
            case faults.Replay():
                self._replay(fault.count)
            case faults.Transfer():
                leader = self._world.leader()
                if leader is not None:
                    self._world.transfers.add(fault.target)
                    leader.transfer(fault.target)
            case faults.Drift():
                self._world.nodes[fault.node].set_rate(fault.rate)
            case _:
                raise AssertionError(f"no rule for {fault}")

    def _pick(self, number: int) -> SimulatedNode:
        if number:
            return self._world.nodes[number]
        return self._world.leader() or self._world.nodes[1]

    def _crash(self, fault: faults.Crash) -> None:
        node = self._pick(fault.node)

        def crash() -> None:
            interruptions = int(fault.is_interrupted_again)
            self._world.crash(node, fault.for_s, is_answered=fault.is_answered, interruptions=interruptions)

        if fault.is_in_batch:
            node.in_next_batch = crash
        else:
            crash()

    def _break_links(self, fault: faults.Partition | faults.Isolate | faults.Bridge | faults.Weather) -> None:
        links, members = self._world.links, self._world.members
        match fault:
            case faults.Partition():
                links.partition(fault.groups)
            case faults.Isolate():
                node = self._pick(fault.node).id
                for other in members:
                    if other != node and fault.is_deaf:
                        links.cut(other, node)
                    if other != node and fault.is_mute:
                        links.cut(node, other)
            case faults.Bridge():
                left, right = (set(group) - {fault.node} for group in fault.groups)
                for one in sorted(left):
                    for other in sorted(right):
                        links.cut(one, other)
                        links.cut(other, one)
            case faults.Weather():
                links.set_fault(fault.links)

    def _break_disk(self, fault: faults.SlowDisk | faults.StallDisk | faults.FailDisk) -> None:
        node = self._pick(fault.node)
        match fault:
            case faults.SlowDisk():
                node.disk_factor = fault.factor
                self._end_later("slow", node.id, fault.for_s, node.end_slowness)
            case faults.StallDisk():
                node.is_stalled = True
                self._end_later("stall", node.id, fault.for_s, node.unstall)
            case faults.FailDisk():
                # It fails with its next write; what a recovery would meet is another fault.
                if node.is_up:
                    node.files.fail_after(fault.steps, OSError(5, "a fault that was planned"))

    def _replay(self, count: int) -> None:
        world = self._world
        for _ in range(count):
            if world.past:
                world.after(world.random.random() * 0.2, world.deliver_late, world.random.choice(world.past))

    def _end_later(
        self, kind: str, node: int, for_s: float, end: Callable[..., None], *arguments: Any
    ) -> None:
        """End a fault, unless one of its kind came meanwhile: then that one's end counts."""
        self._number += 1
        number = self._ends[kind, node] = self._number

        def maybe_end() -> None:
            if self._ends.get((kind, node)) == number:
                end(*arguments)

        self._world.after(for_s, maybe_end)
