"""How each kind of fault is drawn: when it happens is given, all else is up to chance."""

from collections.abc import Callable
from random import Random

from trio_kv.sim import faults
from trio_kv.sim.faults import Fault
from trio_kv.transport.links import LinkFault

SHARED_SHARE = 0.3
"""Of the full disks, those whose files held no room after all."""


def draw_faults(
    random: Random, kinds: tuple[str, ...], nodes: int, phase_s: float, *, is_beyond_budget: bool
) -> tuple[Fault, ...]:
    """Draw the faults of these kinds for the fault phase of a run, in the order of their times."""
    drawn: list[Fault] = []
    makers = [
        MAKERS[kind]
        for kind in kinds
        if kind in MAKERS and nodes >= nodes_min(kind, is_beyond_budget=is_beyond_budget)
    ]
    gap_s = random.choice((0.1, 0.3, 0.7))
    at_s = random.expovariate(1 / gap_s)
    while makers and at_s < phase_s:
        fault = random.choice(makers)(random, at_s, nodes)
        drawn.append(fault)
        at_s += random.expovariate(1 / gap_s)
        if isinstance(fault, faults.Partition | faults.Isolate | faults.Pause) and random.random() < 0.4:
            drawn += _draw_bad_luck(random, kinds, fault.at_s + fault.for_s)
    return tuple(sorted((fault for fault in drawn if fault.at_s < phase_s), key=lambda fault: fault.at_s))


def nodes_min(kind: str, *, is_beyond_budget: bool = False) -> int:
    """Return how many nodes it takes for a kind of fault to have an effect."""
    if kind in _NEEDS_MAJORITY and not is_beyond_budget:
        return 3
    return _NODES_MIN.get(kind, 1)


def _draw_bad_luck(random: Random, kinds: tuple[str, ...], mended_s: float) -> list[Fault]:
    """Return what hits whoever leads just when something is mended: then a log that stayed behind may win."""
    at_s = mended_s + random.uniform(-0.05, 0.05)
    for_s = random.uniform(0.2, 1.5)
    choices: dict[str, Fault] = {
        "crash": faults.Crash(at_s, 0, for_s, False, False),
        "pause": faults.Pause(at_s, 0, for_s),
        "isolate": faults.Isolate(at_s, 0, True, True, for_s),
    }
    drawn = [choices[kind] for kind in choices if kind in kinds]
    return [random.choice(drawn)] if drawn else []


def _node(random: Random, nodes: int) -> int:
    """Draw a node; 0, the leader, as often as all others together."""
    return 0 if random.random() < 0.5 else random.randint(1, nodes)


def _shuffled(random: Random, nodes: int) -> tuple[int, ...]:
    return tuple(random.sample(range(1, nodes + 1), nodes))


def _split(random: Random, nodes: int) -> tuple[tuple[int, ...], ...]:
    members = _shuffled(random, nodes)
    size = random.randint(1, nodes - 1)
    return tuple(sorted(members[:size])), tuple(sorted(members[size:]))


# Processes


def _crash(random: Random, at_s: float, nodes: int) -> Fault:
    for_s = random.choice((0.01, 0.3, random.uniform(0.0, 2.0), random.uniform(0.0, 5.0)))
    return faults.Crash(
        at_s, _node(random, nodes), for_s, *(random.random() < share for share in (0.5, 0.2, 0.5, 0.3, 0.2))
    )


def _crash_all(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.CrashAll(at_s, tuple(random.uniform(0.0, 1.0) for _ in range(nodes)))


def _rolling_restart(random: Random, at_s: float, nodes: int) -> Fault:
    gap_s = random.uniform(0.02, 0.4)
    return faults.RollingRestart(at_s, _shuffled(random, nodes), gap_s, gap_s * random.uniform(0.3, 1.5))


def _pause(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.Pause(at_s, _node(random, nodes), random.uniform(0.05, 2.0))


def _slow_node(random: Random, at_s: float, nodes: int) -> Fault:
    step_s = random.choice((0.005, 0.05, 0.2))
    return faults.SlowNode(at_s, _node(random, nodes), step_s, random.uniform(0.3, 3.0))


# Links


def _partition(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.Partition(at_s, _split(random, nodes), random.uniform(0.1, 2.5))


def _isolate(random: Random, at_s: float, nodes: int) -> Fault:
    is_deaf, is_mute = random.choice(((True, True), (True, False), (False, True)))
    return faults.Isolate(at_s, _node(random, nodes), is_deaf, is_mute, random.uniform(0.1, 2.0))


def _bridge(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.Bridge(at_s, random.randint(1, nodes), _split(random, nodes), random.uniform(0.3, 2.5))


def _ring(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.Ring(at_s, _shuffled(random, nodes), random.uniform(0.3, 2.5))


def _swizzle(random: Random, at_s: float, nodes: int) -> Fault:
    cut = _shuffled(random, nodes)[: random.randint(1, nodes)]
    mended = tuple(random.sample(cut, len(cut)))
    return faults.Swizzle(at_s, cut, mended, random.uniform(0.02, 0.5))


def _slow_link(random: Random, at_s: float, nodes: int) -> Fault:
    source, target = _shuffled(random, nodes)[:2]
    message_s = random.choice((0.002, 0.02, 0.2))
    return faults.SlowLink(
        at_s, source, target, message_s, random.choice((2, 8, 50)), random.uniform(0.3, 3.0)
    )


def _weather(random: Random, at_s: float, _: int) -> Fault:
    links = LinkFault(
        delay_s=random.choice((0.0, 0.0, 0.02)),
        jitter_s=random.choice((0.0, 0.01, 0.05, 0.3)),
        drop=random.choice((0.0, 0.05, 0.3)),
        duplicate=random.choice((0.0, 0.1, 0.5)),
    )
    return faults.Weather(at_s, links, random.uniform(0.2, 3.0))


def _replay(random: Random, at_s: float, _: int) -> Fault:
    return faults.Replay(at_s, random.randint(1, 60))


# Disks


def _slow_disk(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.SlowDisk(
        at_s, _node(random, nodes), random.choice((3.0, 20.0, 100.0)), random.uniform(0.2, 2.0)
    )


def _stall_disk(random: Random, at_s: float, nodes: int) -> Fault:
    node, for_s = _node(random, nodes), random.uniform(0.2, 4.0)
    # Some hang for longer than anybody waits.
    return faults.StallDisk(at_s, node, for_s if for_s < 3.0 else 4 * for_s)


def _fail_disk(random: Random, at_s: float, nodes: int) -> Fault:
    steps = random.choice((0, 1, random.randint(2, 30)))
    return faults.FailDisk(at_s, _node(random, nodes), steps, random.choice((None, random.uniform(0.0, 2.0))))


def _fail_reads(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.FailReads(at_s, _node(random, nodes), random.uniform(0.2, 2.0))


def _slow_jobs(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.SlowJobs(
        at_s, _node(random, nodes), random.choice((5.0, 50.0, 300.0)), random.uniform(0.5, 4.0)
    )


def _fill_disk(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.FillDisk(
        at_s,
        _node(random, nodes),
        random.choice((0, 2000, 40_000)),
        random.uniform(0.5, 5.0),
        random.random() < SHARED_SHARE,
    )


def _fill_all(random: Random, at_s: float, _: int) -> Fault:
    free_bytes, for_s = random.choice((0, 2000, 40_000)), random.uniform(0.5, 5.0)
    return faults.FillAll(at_s, free_bytes, for_s, random.random() < SHARED_SHARE)


def _flip_bit(random: Random, at_s: float, nodes: int) -> Fault:
    part = random.choice(("any", "any", "tail", "snapshot"))
    return faults.FlipBit(at_s, _node(random, nodes), random.uniform(0.05, 1.0), part)


def _wipe(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.Wipe(at_s, _node(random, nodes), random.uniform(0.0, 1.0))


# Operators and clocks


def _transfer(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.Transfer(at_s, random.randint(1, nodes))


def _force_election(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.ForceElection(at_s, random.randint(1, nodes), random.random() < 0.5)


def _force_snapshot(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.ForceSnapshot(at_s, _node(random, nodes))


def _drift(random: Random, at_s: float, nodes: int) -> Fault:
    rate = random.choice((0.5, 0.8, 0.95, 1.05, 1.25, 2.0))
    return faults.Drift(at_s, random.randint(1, nodes), rate)


def _jump(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.Jump(at_s, _node(random, nodes), random.choice((0.1, 1.0, 60.0)))


MAKERS: dict[str, Callable[[Random, float, int], Fault]] = {
    "crash": _crash,
    "crash_all": _crash_all,
    "rolling_restart": _rolling_restart,
    "pause": _pause,
    "slow_node": _slow_node,
    "partition": _partition,
    "isolate": _isolate,
    "bridge": _bridge,
    "ring": _ring,
    "swizzle": _swizzle,
    "slow_link": _slow_link,
    "weather": _weather,
    "replay": _replay,
    "slow_disk": _slow_disk,
    "stall_disk": _stall_disk,
    "fail_disk": _fail_disk,
    "fail_reads": _fail_reads,
    "slow_jobs": _slow_jobs,
    "fill_disk": _fill_disk,
    "fill_all": _fill_all,
    "flip_bit": _flip_bit,
    "wipe": _wipe,
    "transfer": _transfer,
    "force_election": _force_election,
    "force_snapshot": _force_snapshot,
    "drift": _drift,
    "jump": _jump,
}
"""The kinds that happen at moments."""
_NODES_MIN = {
    "partition": 2,
    "isolate": 2,
    "bridge": 3,
    "ring": 4,
    "swizzle": 2,
    "slow_link": 2,
    "transfer": 2,
}
_NEEDS_MAJORITY = frozenset({"fail_disk", "flip_bit", "wipe"})
"""The budget allows them for a minority of the disks: with fewer than three nodes for none."""
