"""A run, drawn from its seed before it begins: how many nodes, which numbers, which faults and when.

Swarm testing (Groce et al., ISSTA 2012): each seed switches some kinds of faults off altogether, so that those which
are left reach deeper than they would if everything always happened at once.

The budget: at most a minority of the disks is failed, damaged or being rebuilt at any time, and all else ends by
itself or is healed, so a majority can always be brought back for the liveness phase.

Beyond the budget any number of disks may be lost, and no liveness is asked for. Safety is judged all the same: a node
whose disk is damaged refuses to start, and one that is being rebuilt counts for nothing until a majority of the others
has told it what was committed. A cluster that lost too much stands still for good; it never forgets.
"""

from collections.abc import Collection, Iterable
from random import Random

import attrs

from trio_kv.raft.config import RaftConfig
from trio_kv.raft.voters import Voters
from trio_kv.sim.draw import MAKERS, draw_faults, nodes_min
from trio_kv.sim.faults import Fault

STANDING_KINDS = ("stragglers", "lost_answers", "forged_retries", "short_queues")
"""What is wrong all the time, or never."""
KINDS = (*MAKERS, *STANDING_KINDS)
INBOX_MAX = 4096
HOSTS_SHARE = 0.5
"""Share of the runs on hosts, of those in which a disk may be lost. In the others it makes no difference."""


@attrs.frozen(kw_only=True)
class Plan:
    """All that a run depends on. Times in seconds of the simulated world.

    `is_beyond_budget` decides what is asked of it: with a sound majority in the end the cluster must serve again, and
    without one it must only never forget. See the module's text.
    """

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
    forged_retries: float = 0.0
    """Share of the retries that carry another command under the same (session, seq)."""
    inbox_max: int = INBOX_MAX
    """Messages and requests that wait at a node; what comes beyond it is lost."""
    processes: int = 1
    """Over so many processes the nodes are spread; the core world has none."""
    is_beyond_budget: bool = False
    """Whether majorities of the disks may be lost; then only safety is judged."""
    is_on_hosts: bool = False
    """Whether no manifest is shared: a node knows of others' incarnations what it heard, and stored."""
    kinds: tuple[str, ...]
    faults: tuple[Fault, ...]

    @property
    def is_tied(self) -> bool:
        """Whether time-outs are nearly equal on purpose: then votes are split again and again."""
        return self.raft.election_timeout_max_s < 1.2 * self.raft.election_timeout_min_s

    def near(self, node: int, nodes: Iterable[int]) -> list[int]:
        """Return which of these nodes are near one, in a world without processes: now and then the even or odd ones."""
        return [other for other in nodes if (other - node) % 2 == 0 and self.raft.spare_delay_s > 0.03]

    def allows_loss(self, nodes: Iterable[int], left: Collection[int]) -> bool:
        """Return whether only these nodes may be left with all of their data: they must be a majority of all."""
        return self.is_beyond_budget or Voters(nodes).has_majority(left)

    def __str__(self) -> str:
        lines = [
            f"  {name} = {value}"
            for name, value in attrs.asdict(self, recurse=False).items()
            if name != "faults"
        ]
        return "\n".join([*lines, "  faults:", *(f"    {fault}" for fault in self.faults)])


def draw_plan(
    seed: int, kinds: tuple[str, ...] | None = None, *, is_beyond_budget: bool = False, nodes_least: int = 1
) -> Plan:
    """Return the plan of a seed: always the same.

    Args:
        seed: which one.
        kinds: only these kinds of faults happen, and the cluster is large enough for them; None: the seed chooses.
        is_beyond_budget: whether majorities of the disks may be lost: so they are, if the seed chooses the kinds.
        nodes_least: the cluster has at least so many.

    Raises:
        ValueError: there is no such kind.

    """
    if unknown := {*(kinds or ())} - {*KINDS}:
        raise ValueError(f"no such kinds of faults: {sorted(unknown)}; there are {KINDS}")
    random = Random(seed)
    drawn = tuple(kind for kind in KINDS if random.random() < 0.4)
    if kinds is None:
        kinds = tuple(
            dict.fromkeys((*drawn, *(("wipe", "flip_bit", "fail_disk") if is_beyond_budget else ())))
        )
        least = nodes_least
    else:
        least = max([nodes_least, *(nodes_min(kind, is_beyond_budget=is_beyond_budget) for kind in kinds)])
    nodes = random.choice([nodes for nodes in (1, 2, 3, 3, 3, 3, 4, 5, 5, 5) if nodes >= least])
    # A world of more nodes has more messages for each operation: less simulated time for the same effort.
    fault_phase_s = random.uniform(10.0, 20.0) if nodes < 4 else random.uniform(8.0, 16.0)
    # Some clusters are busy and keep no log behind a snapshot: a node that stays behind there needs the snapshot.
    is_busy = random.random() < 0.25
    return Plan(
        seed=seed,
        nodes=nodes,
        raft=_draw_raft(random, is_busy=is_busy),
        fault_phase_s=fault_phase_s,
        latency_s=random.choice((0.0002, 0.002, 0.008)),
        stragglers=random.choice((0.01, 0.1)) if "stragglers" in kinds else 0.0,
        disk_s=random.choice((0.0001, 0.002, 0.01)),
        think_s=random.choice((0.0, 0.0, 0.001, 0.004)),
        # While a disk is full votes need room, and with small segments hardly any is kept.
        segment_bytes=random.choice(
            (16384, 32768) if {"fill_disk", "fill_all"} & {*kinds} else (4096, 8192, 16384)
        ),
        snapshot_log_bytes_min=random.choice((200, 1000) if is_busy else (200, 1000, 5000, 20_000, 1 << 30)),
        clients=random.randint(1, 3),
        lanes=random.randint(1, 3),
        pause_between_s=0.02 if is_busy else random.choice((0.02, 0.1, 0.3)),
        client_timeout_s=random.uniform(0.1, 0.8),
        keys=random.randint(1, 4),
        read_share=random.choice((0.2, 0.5, 0.8)),
        session_timeout_us=random.choice((400_000, 2_000_000, 60_000_000)),
        answer_loss=random.choice((0.05, 0.2)) if "lost_answers" in kinds else 0.0,
        forged_retries=random.choice((0.1, 0.5)) if "forged_retries" in kinds else 0.0,
        inbox_max=random.choice((8, 50)) if "short_queues" in kinds else INBOX_MAX,
        is_beyond_budget=is_beyond_budget,
        is_on_hosts="wipe" in kinds and Random(f"{seed}/hosts").random() < HOSTS_SHARE,
        kinds=kinds,
        faults=draw_faults(random, kinds, nodes, fault_phase_s, is_beyond_budget=is_beyond_budget),
    )


def _draw_raft(random: Random, *, is_busy: bool) -> RaftConfig:
    heartbeat_s = random.uniform(0.05, 0.15)
    election_min_s = heartbeat_s * random.uniform(2.0, 4.0)
    # One entry in one append at a time would be too little: the requests of the clients would queue up to the end of
    # the run.
    entries_max, window = random.choice(((1, 16), (3, 2), (4096, 1), (4096, 16)))
    return RaftConfig(
        heartbeat_interval_s=heartbeat_s,
        election_timeout_min_s=election_min_s,
        # Now and then nearly equal time-outs, for split votes.
        election_timeout_max_s=election_min_s * random.choice((1.02, 1.5, 2.0, 2.5)),
        append_entries_max=entries_max,
        append_bytes_max=random.choice((200, 1 << 20)),
        append_window=window,
        committed_entries_max=random.choice((3, 4096, 4096)),
        log_entries_kept=random.choice((0, 0, 5) if is_busy else (0, 0, 5, 50)),
        write_stall_s=random.uniform(0.6, 2.0),
        # These are taken from what was drawn: one more draw would change all that is drawn behind it.
        append_window_entries=(2048, 3, 40)[int(heartbeat_s * 1_000_000) // 9 % 3],
        append_window_bytes=(2 << 20, 2 << 20, 300)[int(heartbeat_s * 1_000_000) // 27 % 3],
        spare_delay_s=(0.0, 0.03, heartbeat_s)[int(heartbeat_s * 1_000_000) // 3 % 3],
        commit_delay_s=(0.0, 0.005, heartbeat_s / 2)[int(heartbeat_s * 1_000_000) % 3],
    )
