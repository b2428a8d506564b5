"""What a node's data lives on in both worlds, from the first start over all crashes to the end, and its faults."""

from collections.abc import Callable
from typing import Any

from trio_kv.check.violation import Violation
from trio_kv.kv.machine import Machine
from trio_kv.replica.jobs import Completion
from trio_kv.sim import faults
from trio_kv.sim.disk import Condition, TimedDisk
from trio_kv.sim.host import Host
from trio_kv.sim.later import Later
from trio_kv.storage.errors import FULL, DamagedError
from trio_kv.storage.memory import MemoryFiles, PowerLossError
from trio_kv.storage.opening import Opened

START_AGAIN_S = 0.2
"""A node whose disk did not work, and may now, is started again so often."""
TAIL_BYTES = 100
"""How much of the log's used end is its tail."""


class Drive:
    """The disk of one node.

    Args:
        host: the world.
        node: whose disk.
        files: what is on it.
        moves: is called when it stands still no more.

    """

    def __init__(self, host: Host, node: int, files: MemoryFiles, moves: Callable[[], object]) -> None:
        """Work; see the class."""
        self.host = host
        self.node = node
        self.files = files
        self._moves = moves
        self.condition = Condition()
        self.timed: TimedDisk | None = None
        """At work in the life that goes on."""
        self.is_failed = False
        """It failed: the node stays down, unless it is rebuilt."""
        self.is_damaged = False
        """It did not keep what it was given: the node refuses to start, unless it is rebuilt."""
        self.is_flipped = False
        """Bits were flipped while the node was down: whether that is noticed shows at its start."""
        self.is_armed = False
        """It is going to fail for good."""
        self.is_new = False
        """It took the place of a lost one, and its node was not told yet that the rebuild is over."""
        self.restart_after_s: float | None = None
        """When it fails: somebody restarts the node after so long."""

    @property
    def is_rebuilding(self) -> bool:
        """Whether it is still to be filled by the other nodes."""
        return self.is_new

    @property
    def is_lost(self) -> bool:
        """Whether it does not hold all of its node's data, or may not soon."""
        return self.is_failed or self.is_damaged or self.is_flipped or self.is_armed or self.is_rebuilding

    @property
    def is_slow(self) -> bool:
        """Whether it is slower than others, or full."""
        condition = self.condition
        return condition.factor > 1 or condition.is_stalled or self.files.capacity_bytes is not None

    # A start and an end

    def recover(self, open_node: Callable[[], Opened], interruptions: int, steps_max: int) -> Opened:
        """Recover from what is there; power fails some times before that is done.

        Args:
            open_node: does it.
            interruptions: so many times.
            steps_max: at one of so many steps.

        Raises:
            DamagedError: a bit was flipped, and that was noticed.
            OSError: the disk is full, or can't be read.
            Violation: neither was planned.

        """
        host = self.host
        for _ in range(interruptions):
            self.files.fail_after(host.random.randrange(steps_max), PowerLossError())
            try:
                open_node()
            except PowerLossError:
                host.coverage.reach("recovery interrupted")
            except (DamagedError, OSError):
                pass  # It is met again below.
            self.files.crash(host.random)
        try:
            opened = open_node()
        except DamagedError as error:
            self.found_damaged(error)
            raise
        except OSError as error:
            self.require_refusable(error)
            raise
        self.is_flipped = False
        if any("interrupted" in warning for warning in opened.recovered.warnings):
            host.coverage.reach("torn tail cut")
        return opened

    def begin_life(
        self, opened: Opened, post: Callable[[Completion], object], failed: Callable[[OSError], None]
    ) -> TimedDisk:
        """Work for a node that starts; `post` takes completions, `failed` is called if the disk fails."""
        self.timed = TimedDisk(
            self.host, self.node, self.files, opened, self.condition, post=post, failed=failed
        )
        return self.timed

    def restore(self, opened: Opened, *known: Any) -> Machine:
        """Return the state machine that the newest snapshot holds; `known` is for its `Restorer`."""
        if opened.recovered.snapshot is not None:
            self.host.coverage.reach("restart from snapshot")
        return opened.restore(*known)

    def found_damaged(self, error: Exception | str) -> None:
        """Let the node stay down, for what the disk holds can't be believed.

        Raises:
            Violation: nobody flipped a bit.

        """
        if not self.is_flipped:
            raise Violation(f"n{self.node} finds damage, and no bit was flipped: {error}")
        self.host.coverage.reach("damage refused")
        self.is_damaged = True

    def require_refusable(self, error: OSError) -> None:
        """Require that a disk that is as this one is may refuse to be opened with this error.

        Raises:
            Violation: it may not.

        """
        if not (
            self.files.is_fault(error) or (error.errno in FULL and self.files.capacity_bytes is not None)
        ):
            raise Violation(
                f"n{self.node} can't be opened, and nothing was wrong with it: {error!r}"
            ) from error

    def fail(self, error: OSError) -> bool:
        """Take note of a failure (scenario D11); return whether it is for good.

        Raises:
            Violation: nobody had planned it.

        """
        if not self.files.is_fault(error):
            raise Violation(
                f"n{self.node}: its disk failed, and nothing was wrong with it: {error!r}"
            ) from error
        self.is_armed = False
        self.host.coverage.reach("disk failed")
        return self.restart_after_s is None and not self.files.is_unreadable

    def outlive_failure(self) -> float:
        """Work again after a failure that was not for good; return when the node is to be started."""
        host, for_s = self.host, self.restart_after_s or START_AGAIN_S
        # What else was planned for this disk is over: it would fail for good, which nobody has a budget for.
        self.files.clear_faults()
        self.restart_after_s = None
        # The process alone ended, or whoever sees to it turns the machine off.
        if host.random.random() < 0.5:
            self.files.crash(host.random)
        host.coverage.reach("disk failed, node came back")
        return for_s

    def let_go(self) -> None:
        """Finish nothing any more of what this life began: its process ended."""
        if self.timed is not None:
            self.timed.close()
            self.timed = None

    def cut_power(self) -> None:
        """Lose or tear what is not durable, at this moment; nothing of this life reaches the disk any more."""
        timed, self.timed = self.timed, None
        assert timed is not None
        self.is_armed, self.restart_after_s = False, None
        if timed.wal.segment > 1:
            self.host.coverage.reach("segment filled")
        timed.close()
        timed.crash(self.host.random)

    def replace(self, files: MemoryFiles) -> None:
        """Stand on files that took the place of the lost ones: of a higher incarnation, to be rebuilt."""
        assert self.timed is None
        self.files = files
        self.is_failed = self.is_damaged = self.is_flipped = self.is_armed = False
        self.is_new = True
        self.host.watch.wiped(self.node)

    # Faults

    def suffer(self, fault: faults.DiskFault, later: Later, *, may_fail: bool) -> None:
        """Let a fault happen, and end.

        Args:
            fault: which one.
            later: ends it.
            may_fail: whether the disk may fail: its node is up, and there is a budget for that.

        """
        match fault:
            case faults.SlowDisk():
                self.condition.factor = fault.factor
                later.end("slow", self.node, fault.for_s, self.condition.end_slowness)
            case faults.SlowJobs():
                self.condition.job_factor = fault.factor
                later.end("slow jobs", self.node, fault.for_s, self.condition.end_slow_jobs)
            case faults.StallDisk():
                # Also that of a node that is down: it hangs when the node starts.
                self.condition.is_stalled = True
                later.end("stall", self.node, fault.for_s, self.unstall)
            case faults.FailDisk():
                # It fails with one of its next writes; what a recovery would meet is another fault.
                if may_fail:
                    self.is_armed, self.restart_after_s = fault.for_s is None, fault.for_s
                    self.files.fail_after(fault.steps, OSError(5, "a fault that was planned"))
            case faults.FailReads():
                self.files.is_unreadable = True
                later.end("unreadable", self.node, fault.for_s, self.end_unreadable)

    def fill(self, free_bytes: int, *, is_shared: bool = False) -> None:
        """Leave so much room, and where somebody's copy shares the blocks of all files, nothing that was reserved."""
        if is_shared:
            self.files.share()
        self.files.capacity_bytes = self.files.used_bytes + free_bytes

    def flip(self, part: str) -> None:
        """Flip a bit of a byte that is in use: what is not is written before it is read again.

        Args:
            part: "any" file and byte, the "tail" of the log, or a "snapshot".

        """
        random, files = self.host.random, self.files
        names = files.names()
        snapshots = [name for name in names if name.startswith("snapshot-")]
        logs = [name for name in names if name not in snapshots and files.content(name).strip(b"\0")]
        if part == "snapshot":
            names = snapshots
        elif part == "tail":
            names = logs[-1:]
        name = random.choice(names) if names else ""
        used = len(files.content(name).rstrip(b"\0")) if name else 0
        if used:
            self.is_flipped = True
            self.host.watch.flipped(self.node)
            first = max(0, used - TAIL_BYTES) if part == "tail" else 0
            files.flip(name, random.randrange(first, used), 1 << random.randrange(8))

    def unfill(self) -> None:
        """Leave room enough."""
        self.files.capacity_bytes = None
        if self.timed is not None:
            self.timed.look_for_space()

    def end_unreadable(self) -> None:
        """Let it be read again."""
        self.files.is_unreadable = False

    def unstall(self) -> None:
        """End a stall, in whatever life it began: finish what was held back."""
        self.condition.is_stalled = False
        self._moves()
        if self.timed is not None:
            self.timed.unstall()

    def mend(self) -> None:
        """Let it be as fast as others, and finish at once what it does slowly just now."""
        self.files.clear_faults()
        self.is_armed, self.restart_after_s = False, None
        self.unfill()
        self.end_unreadable()
        self.condition.mend()
        if self.timed is not None:
            self.timed.mend()
