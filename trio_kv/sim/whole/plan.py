"""The plan of a run of the whole world: that of the core world, shorter, and what goes wrong at the door besides.

What the core world's clients do by themselves comes of connections here: answers get lost with them, and sessions are
the gateway's, which forges nothing.
"""

from collections.abc import Callable
from random import Random

import attrs

from trio_kv.sim.draw import MAKERS
from trio_kv.sim.faults import Fault
from trio_kv.sim.plan import Plan, draw_plan
from trio_kv.sim.whole import faults
from trio_kv.sim.whole.wire_faults import PROCESS_KINDS, draw_wire_faults

CORE_KINDS = (*MAKERS, "stragglers", "short_queues")
"""What goes wrong in both worlds."""
DOOR_KINDS = ("disconnect", "slow_reader", "restart_door", "stranger")
KINDS = (*CORE_KINDS, *DOOR_KINDS, *PROCESS_KINDS)
PROCESSES_SHARE = 0.2
"""So many of the seeds have several processes."""
PHASE_S = (4.0, 8.0)
"""Bounds of the time with faults."""
STRANGE_LINES = (
    b"",
    b"   ",
    b"{",
    b"[]",
    b'"text"',
    b"\xff\xfe",
    b'{"key": "\xed\xa0\x80"}',
    b'{"key": ""}',
    b'{"key": "k0", "value": 1, "value": 2}',
    b'{"op": "nothing", "key": "k0"}',
    b'{"key": "k0", "timeout": -1}',
    b'{"key": "k0", "value": ' + b"[" * 200 + b"]" * 200 + b"}",
    b'{"key": "k0", "value": "' + b"x" * 20_000 + b'"}',
    b"GET / HTTP/1.1",
)
"""None of these is a request."""


def draw_whole_plan(
    seed: int, kinds: tuple[str, ...] | None = None, *, is_beyond_budget: bool = False
) -> Plan:
    """Return the plan of a seed: always the same. Arguments and errors as for `sim.plan.draw_plan`."""
    if unknown := {*(kinds or ())} - {*KINDS}:
        raise ValueError(f"no such kinds of faults: {sorted(unknown)}; there are {KINDS}")
    random = Random(seed ^ 0xD004)
    core_kinds = None if kinds is None else tuple(kind for kind in kinds if kind in CORE_KINDS)
    nodes_least = 1 if {*(kinds or ())}.isdisjoint(PROCESS_KINDS) else 2
    plan = draw_plan(seed, core_kinds, is_beyond_budget=is_beyond_budget, nodes_least=nodes_least)
    phase_s = random.uniform(*PHASE_S)
    door_kinds = tuple(kind for kind in DOOR_KINDS if random.random() < 0.5)
    if kinds is not None:
        door_kinds = tuple(kind for kind in kinds if kind in DOOR_KINDS)
    drawn = [fault for fault in plan.faults if fault.at_s < phase_s]
    plan = attrs.evolve(plan, clients=random.randint(1, 4), pause_between_s=random.choice((0.01, 0.05, 0.1)))
    drawn += _draw_door_faults(random, door_kinds, plan.clients, phase_s)
    plan = attrs.evolve(
        plan,
        fault_phase_s=phase_s,
        # A node takes what its inbox holds.
        think_s=0.0,
        answer_loss=0.0,
        forged_retries=0.0,
        # All nodes are in one process, and have one data directory.
        is_on_hosts=False,
        kinds=(*(kind for kind in plan.kinds if kind in CORE_KINDS), *door_kinds),
        faults=tuple(sorted(drawn, key=lambda fault: fault.at_s)),
    )
    return _spread(plan, kinds)


def _spread(plan: Plan, kinds: tuple[str, ...] | None) -> Plan:
    """Return the plan with its nodes in several processes, or as it is: no other draw depends on this one."""
    random = Random(f"{plan.seed}/processes")
    is_spread = random.random() < PROCESSES_SHARE
    process_kinds = tuple(kind for kind in PROCESS_KINDS if random.random() < 0.5)
    if kinds is not None:
        process_kinds = tuple(kind for kind in kinds if kind in PROCESS_KINDS)
        is_spread = bool(process_kinds)
    if not is_spread or plan.nodes == 1:
        return plan
    processes = random.randint(2, plan.nodes)
    drawn = (*plan.faults, *draw_wire_faults(random, process_kinds, processes, plan.fault_phase_s))
    return attrs.evolve(
        plan,
        processes=processes,
        kinds=(*plan.kinds, *process_kinds),
        faults=tuple(sorted(drawn, key=lambda fault: fault.at_s)),
    )


def _draw_door_faults(random: Random, kinds: tuple[str, ...], clients: int, phase_s: float) -> list[Fault]:
    drawn: list[Fault] = []
    gap_s = random.choice((0.3, 0.8))
    at_s = random.expovariate(1 / gap_s)
    while kinds and at_s < phase_s:
        drawn.append(_MAKERS[random.choice(kinds)](random, at_s, clients))
        at_s += random.expovariate(1 / gap_s)
    return drawn


def _disconnect(random: Random, at_s: float, clients: int) -> Fault:
    return faults.Disconnect(at_s, random.randint(1, clients), random.random() < 0.3)


def _slow_reader(random: Random, at_s: float, clients: int) -> Fault:
    return faults.SlowReader(at_s, random.randint(1, clients), random.uniform(0.1, 1.5))


def _restart_door(random: Random, at_s: float, _: int) -> Fault:
    return faults.RestartDoor(at_s, random.choice((0.0, random.uniform(0.0, 0.5))), random.random() < 0.5)


def _stranger(random: Random, at_s: float, _: int) -> Fault:
    return faults.Stranger(at_s, tuple(random.sample(STRANGE_LINES, random.randint(1, 5))))


_MAKERS: dict[str, Callable[[Random, float, int], Fault]] = {
    "disconnect": _disconnect,
    "slow_reader": _slow_reader,
    "restart_door": _restart_door,
    "stranger": _stranger,
}
