"""What goes wrong between processes, and with them: the faults that only a world of several processes has."""

from collections.abc import Callable
from random import Random

import attrs

from trio_kv.sim.faults import Fault
from trio_kv.sim.whole.strangers import STRANGERS

PROCESS_KINDS = (
    "kill_process",
    "freeze_process",
    "stick_wire",
    "reset_wire",
    "tear_wires",
    "flip_wire",
    "close_wire",
    "former_self",
    "wrong_caller",
)


@attrs.frozen
class WireFault(Fault):
    """Something that goes wrong between processes."""


@attrs.frozen
class KillProcess(WireFault):
    """A process dies at any moment, or its host loses power, and comes back later."""

    process: int
    for_s: float
    is_told: bool
    """Whether its connections end at once; else nobody is told."""


@attrs.frozen
class FreezeProcess(WireFault):
    """A process stands still: others can connect to it, and it says nothing."""

    process: int
    for_s: float


@attrs.frozen
class StickWire(WireFault):
    """Nothing comes through from one process to another, and nobody is told."""

    source: int
    target: int
    for_s: float
    is_both_ways: bool


@attrs.frozen
class ResetWire(WireFault):
    """All connections between two processes end, in the midst of whatever is on its way."""

    one: int
    other: int
    is_told: bool
    """Whether both ends are told; else the other one hears of it when it says something."""


@attrs.frozen
class TearWires(WireFault):
    """What is sent comes in very small pieces."""

    for_s: float


@attrs.frozen
class FlipWire(WireFault):
    """A bit of what is sent next comes wrong."""

    source: int
    target: int


@attrs.frozen
class CloseWire(WireFault):
    """Connections between two processes end, and none can be opened one way: it is refused."""

    source: int
    target: int
    for_s: float


@attrs.frozen
class FormerSelf(WireFault):
    """A process of which a node was replaced still runs somewhere, and talks."""

    target: int


@attrs.frozen
class WrongCaller(WireFault):
    """Somebody calls a process who is none of the cluster."""

    target: int
    kind: str


def draw_wire_faults(
    random: Random, kinds: tuple[str, ...], processes: int, phase_s: float
) -> tuple[Fault, ...]:
    """Return what goes wrong with processes and between them."""
    drawn: list[Fault] = []
    gap_s = random.choice((0.2, 0.5, 1.0))
    at_s = random.expovariate(1 / gap_s)
    while kinds and at_s < phase_s:
        drawn.append(_MAKERS[random.choice(kinds)](random, at_s, processes))
        at_s += random.expovariate(1 / gap_s)
    return tuple(drawn)


def _two(random: Random, processes: int) -> tuple[int, int]:
    one, other = random.sample(range(processes), 2)
    return one, other


def _for_s(random: Random) -> float:
    return random.choice((random.uniform(0.01, 0.3), random.uniform(0.1, 1.5)))


def _kill(random: Random, at_s: float, processes: int) -> Fault:
    return KillProcess(at_s, random.randrange(1, processes), _for_s(random), random.random() < 0.6)


def _freeze(random: Random, at_s: float, processes: int) -> Fault:
    return FreezeProcess(at_s, random.randrange(1, processes), _for_s(random))


def _stick(random: Random, at_s: float, processes: int) -> Fault:
    return StickWire(at_s, *_two(random, processes), _for_s(random), random.random() < 0.5)


def _reset(random: Random, at_s: float, processes: int) -> Fault:
    return ResetWire(at_s, *_two(random, processes), random.random() < 0.7)


def _tear(random: Random, at_s: float, processes: int) -> Fault:
    del processes
    return TearWires(at_s, _for_s(random))


def _flip(random: Random, at_s: float, processes: int) -> Fault:
    return FlipWire(at_s, *_two(random, processes))


def _close(random: Random, at_s: float, processes: int) -> Fault:
    return CloseWire(at_s, *_two(random, processes), _for_s(random))


def _former_self(random: Random, at_s: float, processes: int) -> Fault:
    return FormerSelf(at_s, random.randrange(processes))


def _wrong_caller(random: Random, at_s: float, processes: int) -> Fault:
    return WrongCaller(at_s, random.randrange(processes), random.choice(STRANGERS))


_MAKERS: dict[str, Callable[[Random, float, int], Fault]] = {
    "kill_process": _kill,
    "freeze_process": _freeze,
    "stick_wire": _stick,
    "reset_wire": _reset,
    "tear_wires": _tear,
    "flip_wire": _flip,
    "close_wire": _close,
    "former_self": _former_self,
    "wrong_caller": _wrong_caller,
}
