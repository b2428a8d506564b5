"""A run, drawn from its seed before it begins: how many nodes, which numbers, which faults and when.

Swarm testing (Groce et al., ISSTA 2012): each seed switches some kinds of faults off altogether, so that those which
are left reach deeper than they would if everything always happened at once.

The budget: at most a minority of the disks is failed, damaged or being rebuilt at any time, and all else ends by
itself or is healed, so a majority can always be brought back for the liveness phase.
"""

from collections.abc import Callable
from random import Random

import attrs

from trio_kv.raft.config import RaftConfig
from trio_kv.sim import faults
from trio_kv.sim.faults import Fault
from trio_kv.transport.links import LinkFault

KINDS = (
    "crash", "crash_all", "pause", "partition", "isolate", "bridge", "weather", "replay",
    "slow_disk", "stall_disk", "fail_disk", "transfer", "drift",
    "slow_jobs", "fill_disk", "fill_all", "flip_bit", "wipe",
)  # fmt: skip


@attrs.frozen(kw_only=True)
class Plan:
    """All that a run depends on. Times in seconds of the simulated world."""

    seed: int
    nodes: int
    raft: RaftConfig
    fault_phase_s: float
    latency_s: float
    """A message takes between half and twice as long."""
    stragglers: float
    """Share of the messages that take up to two seconds longer, past later cuts: the network was never in order."""
    disk_s: float
    """A write takes between half and twice as long."""
    think_s: float
    """A node takes in what came within this time as one batch; 0: each message alone."""
    segment_bytes: int
    snapshot_log_bytes_min: int
    clients: int
    lanes: int
    """Requests that a client has under way at a time."""
    pause_between_s: float
    """Mean time between two requests of a lane."""
    client_timeout_s: float
    keys: int
    read_share: float
    session_timeout_us: int
    answer_loss: float
    """Share of the answers that get lost on the way to the client."""
    kinds: tuple[str, ...]
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        lines = [
            f"  {name} = {value}"
            for name, value in attrs.asdict(self, recurse=False).items()
            if name != "faults"
        ]
        return "\n".join([*lines, "  faults:", *(f"    {fault}" for fault in self.faults)])


def draw_plan(seed: int) -> Plan:
    """Return the plan of a seed: always the same."""
    random = Random(seed)
    nodes = random.choice((1, 2, 3, 3, 3, 3, 4, 5, 5, 5))
    heartbeat_s = random.uniform(0.05, 0.15)
    election_min_s = heartbeat_s * random.uniform(2.0, 4.0)
    # One entry at a time and none beside it would be too little for the clients: runs would end in a queue.
    entries_max, window = random.choice(((1, 16), (3, 2), (4096, 1), (4096, 16)))
    raft = RaftConfig(
        heartbeat_interval_s=heartbeat_s,
        election_timeout_min_s=election_min_s,
        # Now and then nearly equal time-outs, for split votes.
        election_timeout_max_s=election_min_s * random.choice((1.02, 1.5, 2.0, 2.5)),
        append_entries_max=entries_max,
        append_bytes_max=random.choice((200, 1 << 20)),
        append_window=window,
        committed_entries_max=random.choice((3, 4096, 4096)),
        log_entries_kept=random.choice((0, 0, 5, 50)),
        write_stall_s=random.uniform(0.6, 2.0),
    )
    # A world of more nodes has more messages for each operation: less simulated time for the same effort.
    fault_phase_s = random.uniform(10.0, 20.0) if nodes < 4 else random.uniform(8.0, 16.0)
    kinds = tuple(kind for kind in KINDS if random.random() < 0.45)
    latency_s = random.choice((0.0002, 0.002, 0.008))
    return Plan(
        seed=seed,
        nodes=nodes,
        raft=raft,
        fault_phase_s=fault_phase_s,
        latency_s=latency_s,
        stragglers=random.choice((0.0, 0.0, 0.01, 0.1)),
        disk_s=random.choice((0.0001, 0.002, 0.01)),
        think_s=random.choice((0.0, 0.0, 0.001, 0.004)),
        # While a disk is full votes need room, and with small segments hardly any is kept.
        segment_bytes=random.choice(
            (16384, 32768) if {"fill_disk", "fill_all"} & {*kinds} else (4096, 8192, 16384)
        ),
        snapshot_log_bytes_min=random.choice((200, 1000, 1000, 5000, 20_000, 1 << 30)),
        clients=random.randint(1, 3),
        lanes=random.randint(1, 3),
        pause_between_s=random.choice((0.02, 0.1, 0.3)),
        client_timeout_s=random.uniform(0.1, 0.8),
        keys=random.randint(1, 4),
        read_share=random.choice((0.2, 0.5, 0.8)),
        session_timeout_us=random.choice((400_000, 2_000_000, 60_000_000)),
        answer_loss=random.choice((0.0, 0.0, 0.05, 0.2)),
        kinds=kinds,
        faults=_draw_faults(random, kinds, nodes, fault_phase_s),
    )


def _draw_faults(random: Random, kinds: tuple[str, ...], nodes: int, phase_s: float) -> tuple[Fault, ...]:
    drawn: list[Fault] = []
    makers = [_MAKERS[kind] for kind in kinds if nodes > 1 or kind not in _FOR_SEVERAL]
    gap_s = random.choice((0.1, 0.3, 0.7))
    at_s = random.expovariate(1 / gap_s)
    while makers and at_s < phase_s:
        fault = random.choice(makers)(random, at_s, nodes)
        drawn.append(fault)
        at_s += random.expovariate(1 / gap_s)
        if isinstance(fault, faults.Partition | faults.Isolate | faults.Pause) and random.random() < 0.4:
            drawn += _draw_bad_luck(random, kinds, fault.at_s + fault.for_s)
    return tuple(sorted((fault for fault in drawn if fault.at_s < phase_s), key=lambda fault: fault.at_s))


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


def _split(random: Random, nodes: int) -> tuple[tuple[int, ...], ...]:
    members = random.sample(range(1, nodes + 1), nodes)
    size = random.randint(1, nodes - 1)
    return tuple(sorted(members[:size])), tuple(sorted(members[size:]))


def _crash(random: Random, at_s: float, nodes: int) -> Fault:
    for_s = random.choice((0.01, 0.3, random.uniform(0.0, 2.0)))
    return faults.Crash(
        at_s, _node(random, nodes), for_s, *(random.random() < share for share in (0.5, 0.2, 0.5, 0.3, 0.2))
    )


def _crash_all(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.CrashAll(at_s, tuple(random.uniform(0.0, 1.0) for _ in range(nodes)))


def _pause(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.Pause(at_s, _node(random, nodes), random.uniform(0.05, 2.0))


def _partition(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.Partition(at_s, _split(random, nodes), random.uniform(0.1, 2.5))


def _isolate(random: Random, at_s: float, nodes: int) -> Fault:
    is_deaf, is_mute = random.choice(((True, True), (True, False), (False, True)))
    return faults.Isolate(at_s, _node(random, nodes), is_deaf, is_mute, random.uniform(0.1, 2.0))


def _bridge(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.Bridge(at_s, random.randint(1, nodes), _split(random, nodes), random.uniform(0.3, 2.5))


def _weather(random: Random, at_s: float, nodes: int) -> Fault:
    del nodes
    links = LinkFault(
        delay_s=random.choice((0.0, 0.0, 0.02)),
        jitter_s=random.choice((0.0, 0.01, 0.05, 0.3)),
        drop=random.choice((0.0, 0.05, 0.3)),
        duplicate=random.choice((0.0, 0.1, 0.5)),
    )
    return faults.Weather(at_s, links, random.uniform(0.2, 3.0))


def _replay(random: Random, at_s: float, nodes: int) -> Fault:
    del nodes
    return faults.Replay(at_s, random.randint(1, 60))


def _slow_disk(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.SlowDisk(
        at_s, _node(random, nodes), random.choice((3.0, 20.0, 100.0)), random.uniform(0.2, 2.0)
    )


def _stall_disk(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.StallDisk(at_s, _node(random, nodes), random.uniform(0.2, 4.0))


def _fail_disk(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.FailDisk(at_s, _node(random, nodes), random.choice((0, 1, random.randint(2, 30))))


def _slow_jobs(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.SlowJobs(
        at_s, _node(random, nodes), random.choice((5.0, 50.0, 300.0)), random.uniform(0.5, 4.0)
    )


def _fill_disk(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.FillDisk(
        at_s, _node(random, nodes), random.choice((0, 2000, 40_000)), random.uniform(0.5, 5.0)
    )


def _fill_all(random: Random, at_s: float, nodes: int) -> Fault:
    del nodes
    return faults.FillAll(at_s, random.choice((0, 2000, 40_000)), random.uniform(0.5, 5.0))


def _flip_bit(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.FlipBit(at_s, _node(random, nodes), random.uniform(0.05, 1.0))


def _wipe(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.Wipe(at_s, _node(random, nodes), random.uniform(0.0, 1.0))


def _transfer(random: Random, at_s: float, nodes: int) -> Fault:
    return faults.Transfer(at_s, random.randint(1, nodes))


def _drift(random: Random, at_s: float, nodes: int) -> Fault:
    rate = random.choice((0.5, 0.8, 0.95, 1.05, 1.25, 2.0))
    return faults.Drift(at_s, random.randint(1, nodes), rate)


_FOR_SEVERAL = frozenset({"partition", "isolate", "bridge", "transfer", "fail_disk", "flip_bit", "wipe"})
_MAKERS: dict[str, Callable[[Random, float, int], Fault]] = {
    "crash": _crash,
    "crash_all": _crash_all,
    "pause": _pause,
    "partition": _partition,
    "isolate": _isolate,
    "bridge": _bridge,
    "weather": _weather,
    "replay": _replay,
    "slow_disk": _slow_disk,
    "stall_disk": _stall_disk,
    "fail_disk": _fail_disk,
    "transfer": _transfer,
    "drift": _drift,
    "slow_jobs": _slow_jobs,
    "fill_disk": _fill_disk,
    "fill_all": _fill_all,
    "flip_bit": _flip_bit,
    "wipe": _wipe,
}
