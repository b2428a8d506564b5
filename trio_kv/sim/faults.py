"""The faults of the core world, as values: a schedule is drawn before a run, can be printed, and cut down.

A fault that names node 0 means whoever leads when it happens. Each fault with `for_s` ends by itself; where several of
one kind meet on one node, or on the links, the end of the last one ends them all.
"""

import attrs

from trio_kv.transport.links import LinkFault


@attrs.frozen
class Fault:
    """Something that goes wrong at a moment of the run."""

    at_s: float


@attrs.frozen
class Crash(Fault):
    """Power fails at one node; it comes back later."""

    node: int
    for_s: float
    is_answered: bool
    """Whether clients are told at once that the outcome is unknown, as by the supervisor of a task, or never."""
    is_interrupted_again: bool
    """Power fails once more while the node recovers."""
    is_in_batch: bool = False
    """It waits until the disk is in the middle of a batch."""
    is_in_job: bool = False
    """It waits until the disk is in the middle of ending a snapshot, or of dropping a part of the log."""
    is_in_install: bool = False
    """It waits until a snapshot is being sent by anybody."""


@attrs.frozen
class RollingRestart(Fault):
    """One node after the other restarts, faster than elections follow."""

    order: tuple[int, ...]
    gap_s: float
    """Between two crashes."""
    for_s: float
    """How long each one is down."""


@attrs.frozen
class CrashAll(Fault):
    """Power fails everywhere; each node comes back at its own time."""

    for_s: tuple[float, ...]


@attrs.frozen
class Pause(Fault):
    """A node does nothing for a while: what comes piles up, its timers are late."""

    node: int
    for_s: float


@attrs.frozen
class SlowNode(Fault):
    """A node is starved: so much time passes between two times at which it takes what came, and looks at its timers."""

    node: int
    step_s: float
    for_s: float


@attrs.frozen
class Partition(Fault):
    """Links between groups are cut."""

    groups: tuple[tuple[int, ...], ...]
    for_s: float


@attrs.frozen
class Isolate(Fault):
    """One node is cut off: in one direction, or in both."""

    node: int
    is_deaf: bool
    is_mute: bool
    for_s: float


@attrs.frozen
class Bridge(Fault):
    """Two groups hear each other only by way of one node that is in both."""

    node: int
    groups: tuple[tuple[int, ...], ...]
    for_s: float


@attrs.frozen
class Ring(Fault):
    """Each node hears only the two beside it: with four nodes or more nobody hears all."""

    order: tuple[int, ...]
    for_s: float


@attrs.frozen
class Swizzle(Fault):
    """Nodes are cut off one after the other, and come back one after the other in another order."""

    cut: tuple[int, ...]
    mended: tuple[int, ...]
    gap_s: float
    """Between two of them."""


@attrs.frozen
class SlowLink(Fault):
    """One direction of a link is a thin pipe: a message at a time, and what finds it full is lost."""

    source: int
    target: int
    message_s: float
    """How long one message takes."""
    waiting_max: int
    for_s: float


@attrs.frozen
class Weather(Fault):
    """All links lose, delay, double and reorder messages."""

    links: LinkFault
    for_s: float


@attrs.frozen
class Replay(Fault):
    """Messages of the past arrive once more."""

    count: int


@attrs.frozen
class SlowDisk(Fault):
    """A disk takes longer."""

    node: int
    factor: float
    for_s: float


@attrs.frozen
class StallDisk(Fault):
    """A disk finishes nothing for a while."""

    node: int
    for_s: float


@attrs.frozen
class FailDisk(Fault):
    """A disk fails one of its next steps, once. Its node stops at that, though the disk works afterwards."""

    node: int
    steps: int
    for_s: float | None = None
    """Somebody restarts the node so long after it stopped; None: it stays down."""


@attrs.frozen
class FailReads(Fault):
    """A disk can't read for a while: its node stops at the next thing it reads, or does not start."""

    node: int
    for_s: float


@attrs.frozen
class SlowJobs(Fault):
    """A disk takes longer for snapshots, and not for the log."""

    node: int
    factor: float
    for_s: float


@attrs.frozen
class FillDisk(Fault):
    """A disk has only so much space left for a while."""

    node: int
    free_bytes: int
    for_s: float
    is_shared: bool = False
    """Somebody has copied its files, by sharing their blocks: what they held reserved is gone."""


@attrs.frozen
class FillAll(Fault):
    """All disks have only so much space left for a while: they are one disk, say."""

    free_bytes: int
    for_s: float
    is_shared: bool = False
    """As with `FillDisk`."""


@attrs.frozen
class FlipBit(Fault):
    """A node dies, and while it is down its disk forgets a bit."""

    node: int
    for_s: float
    part: str = "any"
    """Where: "any" file and byte, the "tail" of the log, or a "snapshot"."""


@attrs.frozen
class Wipe(Fault):
    """A node's disk is lost; the node is rebuilt from the others."""

    node: int
    for_s: float


@attrs.frozen
class Transfer(Fault):
    """Whoever leads is told to hand over."""

    target: int


@attrs.frozen
class ForceElection(Fault):
    """A node stands for election although nothing is wrong."""

    node: int
    is_pre_vote: bool
    """Whether it asks first, as at a time-out; else it enters a new term at once."""


@attrs.frozen
class ForceSnapshot(Fault):
    """A node is asked for a snapshot, due or not."""

    node: int


@attrs.frozen
class Jump(Fault):
    """A node's clock jumps forward, as that of a machine that was suspended. A monotonic clock never goes back."""

    node: int
    by_s: float


@attrs.frozen
class Drift(Fault):
    """A node's clock runs at another rate from now on."""

    node: int
    rate: float


NodeFault = Crash | RollingRestart | CrashAll | Pause | SlowNode
NetworkFault = Partition | Isolate | Bridge | Ring | Weather | SlowLink
"""Those that end by healing all links."""
DiskFault = SlowDisk | StallDisk | FailDisk | FailReads | SlowJobs
"""What a disk does."""
DataFault = FillDisk | FillAll | FlipBit | Wipe
"""What a disk holds, or could hold."""
Order = Transfer | ForceElection | ForceSnapshot | Jump | Drift
"""What an operator asks for at a bad moment, or a clock does."""
