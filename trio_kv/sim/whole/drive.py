"""The disk of one node of the whole world: no thread, no file, and power that fails on purpose.

A `Drive` outlives all lives of its node. For each life there is a `SimulatedDisk`, with the same twin of the disk
thread that the core world uses.
"""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Protocol

import trio

from trio_kv.check.violation import Violation
from trio_kv.cluster.disks import Decode, Known, Loaded
from trio_kv.cluster.registry import State
from trio_kv.kv.machine import Machine
from trio_kv.kv.restorer import Restorer
from trio_kv.raft.ready import HardState, Write
from trio_kv.replica.jobs import Completion, DiskFailed, Job
from trio_kv.sim.disk import Condition, TimedDisk, may_be_refused
from trio_kv.sim.host import Host
from trio_kv.sim.whole.root import Root
from trio_kv.storage.errors import DamagedError
from trio_kv.storage.memory import PowerLossError
from trio_kv.storage.node_directory import REBUILDING_NAME, NodeDirectory
from trio_kv.storage.opening import Opened

START_AGAIN_S = 0.2
"""A node whose disk did not work, and may now, is started again so often."""
TAIL_BYTES = 100
"""How much of the log's used end is its tail."""


class DiskHost(Host, Protocol):
    """The world, as disks see it."""

    def completed(self) -> None:
        """Count a completion of a disk."""
        ...

    def restart(self, node: int, state: State) -> None:
        """Let a node that is down in this state start again."""
        ...

    def fail(self, error: Exception) -> None:
        """End the run with an error."""
        ...


class Drive:
    """What a node's data lives on, from the first start to the end of the world."""

    def __init__(self, host: DiskHost, root: Root, node: int) -> None:
        """Stand on a node's directory."""
        self.host = host
        self.node = node
        self.root = root
        self.files = root.content(node)
        self.condition = Condition()
        self.disk: SimulatedDisk | None = None
        """The disk of the life that goes on."""
        self.is_failed = False
        """The disk failed: the node stays down, unless it is rebuilt."""
        self.is_damaged = False
        """The disk did not keep what it was given: the node refuses to start, unless it is rebuilt."""
        self.is_flipped = False
        """Bits were flipped while the node was down: whether that is noticed shows at its start."""
        self.is_armed = False
        """The disk is going to fail for good."""
        self.restart_after_s: float | None = None
        """When it fails: somebody restarts the node after so long."""
        self._is_reviving = False
        """Somebody sees to it that the node runs again."""
        self._moving = trio.lowlevel.ParkingLot()
        self.interruptions = 0
        """So often power fails while the node recovers the next time."""

    @property
    def directory(self) -> NodeDirectory:
        """What there is of the node, as a start would find it."""
        return self.root.directory.node(self.node)

    @property
    def is_rebuilding(self) -> bool:
        """Whether the directory says that it is to be filled by the others."""
        return REBUILDING_NAME in self.files.names()

    @property
    def is_lost(self) -> bool:
        """Whether the node has not all of its data, or may not have it soon."""
        return self.is_failed or self.is_damaged or self.is_flipped or self.is_armed or self.is_rebuilding

    def load(self, decode: Decode, known: Known | None) -> Loaded:
        """Recover from what is there; power fails some times before that is done.

        Raises:
            DamagedError: a bit was flipped, and that was noticed.
            OSError: the disk is full, or can't be read.

        """
        host = self.host
        if self.is_failed:
            raise OSError(5, "the disk is lost")
        for _ in range(self.interruptions):
            self.files.fail_after(host.random.randrange(12), PowerLossError())
            try:
                self._open(decode)
            except PowerLossError:
                host.coverage.reach("recovery interrupted")
            except (DamagedError, OSError):
                pass  # It is met again below.
            self.files.crash(host.random)
        self.interruptions = 0
        try:
            opened = self._open(decode)
        except DamagedError as error:
            if not self.is_flipped:
                host.fail(error)
            host.coverage.reach("damage refused")
            self.is_damaged = True
            raise
        except OSError as error:
            self._refused(error)
            raise
        self.is_flipped = False
        recovered = opened.recovered
        if any("interrupted" in warning for warning in recovered.warnings):
            host.coverage.reach("torn tail cut")
        machine = Machine()
        if recovered.snapshot is not None:
            host.coverage.reach("restart from snapshot")
            restorer = Restorer(known)
            for chunk in opened.snapshots.chunks(recovered.snapshot):
                restorer.feed(chunk)
            machine = restorer.finish()
        return Loaded(recovered, machine, partial(self._start, opened))

    def _open(self, decode: Decode) -> Opened:
        return self.directory.open(decode)

    def _refused(self, error: OSError) -> None:
        if not may_be_refused(error, self.files):
            self.host.fail(error)
        self._revive_after(START_AGAIN_S)

    def examine(self) -> NodeDirectory:
        """Look at the directory before a start; a sound node's is in order, or that ends the run."""
        try:
            found = self.directory
        except OSError as error:
            self._refused(error)
            raise
        if found.state != "ok" and not (self.is_failed or self.is_damaged):
            if not self.is_flipped:
                self.host.fail(Violation(f"n{self.node} is {found.state}: {found.reason}"))
            self.host.coverage.reach("damage refused")
            self.is_damaged = True
        return found

    def lose(self) -> None:
        """Have nothing any more."""
        self.is_failed = True
        self.files.clear_faults()
        for name in self.files.names():
            self.files.lose(name)
        self.files.sync_directory()

    def _start(self, opened: Opened, post: Callable[[Completion], object]) -> "SimulatedDisk":
        self.disk = SimulatedDisk(self, opened, post)
        return self.disk

    def cut_power(self) -> None:
        """Lose or tear what is not durable, at this moment; nothing of this life reaches the disk any more."""
        assert self.disk is not None
        self.is_armed, self.restart_after_s = False, None
        if self.disk.timed.wal.segment > 1:
            self.host.coverage.reach("segment filled")
        self.disk.cut_power()
        self.disk = None

    def replaced(self) -> None:
        """Stand on the directory that took the place of the lost one: of a higher incarnation, to be rebuilt."""
        assert self.disk is None
        self.files = self.root.content(self.node)
        self.is_failed = self.is_damaged = self.is_flipped = self.is_armed = False
        self.host.watch.wiped(self.node)

    def flip(self, random: Random, part: str) -> None:
        """Flip a bit of a byte that is in use: what is not is written before it is read again.

        Args:
            random: draws which.
            part: "any" file and byte, the "tail" of the log, or a "snapshot".

        """
        files = self.files
        names = files.names()
        snapshots = [name for name in names if name.startswith("snapshot-")]
        if part == "snapshot":
            names = snapshots
        elif part == "tail":
            names = [name for name in names if name not in snapshots and files.content(name).strip(b"\0")][
                -1:
            ]
        name = random.choice(names) if names else ""
        used = len(files.content(name).rstrip(b"\0")) if name else 0
        if used:
            self.is_flipped = True
            self.host.watch.flipped(self.node)
            first = max(0, used - TAIL_BYTES) if part == "tail" else 0
            files.flip(name, random.randrange(first, used), 1 << random.randrange(8))

    def fill(self, free_bytes: int, *, is_shared: bool = False) -> None:
        """Leave so much room, and where somebody's copy shares the blocks of all files, nothing that was reserved."""
        if is_shared:
            self.files.share()
        self.files.capacity_bytes = self.files.used_bytes + free_bytes

    def unfill(self) -> None:
        """Leave room enough."""
        self.files.capacity_bytes = None
        if self.disk is not None:
            self.disk.timed.look_for_room()

    def end_unreadable(self) -> None:
        """Let it be read again."""
        self.files.is_unreadable = False

    @property
    def is_slow(self) -> bool:
        """Whether it is slower than others, or full."""
        condition = self.condition
        return condition.factor > 1 or condition.is_stalled or self.files.capacity_bytes is not None

    def fail(self, error: OSError) -> None:
        """Fail, for good or until somebody sees to it (scenario D11). A failure that was not asked for ends the run."""
        host = self.host
        if not self.files.is_fault(error):
            host.fail(Violation(f"n{self.node}: its disk failed, and nothing was wrong with it: {error!r}"))
        is_lasting = self.restart_after_s is None and not self.files.is_unreadable
        self.is_armed = False
        host.coverage.reach("disk failed")
        if is_lasting:
            self.lose()
            return
        # What else was planned for this disk is over: it would fail for good, which nobody has a budget for.
        self.files.clear_faults()
        # The process alone ended, or whoever sees to it turns the machine off.
        if host.random.random() < 0.5:
            self.files.crash(host.random)
        host.coverage.reach("disk failed, node came back")
        self._revive_after(self.restart_after_s or START_AGAIN_S)
        self.restart_after_s = None

    def _revive_after(self, for_s: float) -> None:
        if not self._is_reviving:
            self._is_reviving = True
            self.host.after(for_s, self._revive)

    def _revive(self) -> None:
        """See to it that the node runs again, as often as that takes."""
        is_alive = self.disk is not None and not self.disk.has_failed
        self._is_reviving = not (is_alive or self.is_failed or self.is_damaged)
        if self._is_reviving:
            self.host.restart(self.node, State.STOPPED)
            self.host.after(START_AGAIN_S, self._revive)

    async def wait_moving(self) -> None:
        """Wait until the disk does not stand still any more."""
        while self.condition.is_stalled:
            self.host.coverage.reach("disk hung at a start")
            await self._moving.park()

    def unstall(self) -> None:
        """End a stall, in whatever life it began."""
        self.condition.is_stalled = False
        self._moving.unpark_all()
        if self.disk is not None:
            self.disk.timed.unstall()

    def mend(self) -> None:
        """Let it be as fast as others, and finish at once what it does slowly just now."""
        self.unfill()
        self.end_unreadable()
        self.files.clear_faults()
        self.is_armed, self.restart_after_s = False, None
        self.condition.factor = self.condition.job_factor = 1.0
        self.unstall()
        self.condition.in_next_batch = self.condition.in_next_job = None
        if self.disk is not None:
            self.disk.timed.mend()


class SimulatedDisk:
    """The disk of one life of a node: a `cluster.disks.Disk` without threads."""

    def __init__(self, drive: Drive, opened: Opened, post: Callable[[Completion], object]) -> None:
        """Begin to work.

        Args:
            drive: what it writes to.
            opened: the log and the snapshots.
            post: takes completions.

        """
        self._drive = drive
        self._post = post
        self.has_failed = False
        self.timed = TimedDisk(
            drive.host,
            drive.node,
            drive.files,
            opened,
            drive.condition,
            post=self._completed,
            fail=self.failed,
        )
        self.hard_state: HardState = opened.recovered.hard_state
        """What this life began with."""

    def submit(self, item: Write | Job) -> None:
        """Take a write or a job."""
        self.timed.submit(item)

    async def stop(self, *, drop_queued: bool = True) -> None:
        """End: what waits is dropped."""
        assert drop_queued
        self.timed.close()
        if self._drive.disk is self:
            self._drive.disk = None
        await trio.lowlevel.checkpoint()

    def cut_power(self) -> None:
        """End with whatever is on the disk at this moment."""
        drive = self._drive
        self.timed.close()
        if self.has_failed:
            # Nothing is under way any more, though its node may not have taken note of that.
            drive.files.crash(drive.host.random)
        else:
            self.timed.crash(drive.host.random)

    # Faults

    @property
    def delay_s(self) -> float:
        """How much longer each batch and job takes."""
        return (self._drive.condition.factor - 1) * self._drive.host.plan.disk_s

    @delay_s.setter
    def delay_s(self, delay_s: float) -> None:
        self._drive.condition.factor = 1 + delay_s / self._drive.host.plan.disk_s

    def fail_next(self) -> None:
        """Let the next step fail."""
        self._drive.files.fail_next()

    def stall(self) -> None:
        """Finish nothing."""
        self._drive.condition.is_stalled = True

    def unstall(self) -> None:
        """Finish what was held back."""
        self._drive.unstall()

    def fill(self) -> None:
        """Be full."""
        self._drive.fill(0)

    def unfill(self) -> None:
        """Have room."""
        self._drive.unfill()

    # What the twin tells

    def _completed(self, completion: Completion) -> None:
        self._drive.host.completed()
        self._post(completion)

    def failed(self, error: OSError) -> None:
        """Take note that the disk did not do what it was asked for, and tell the node."""
        self.has_failed = True
        self.timed.close()
        self._drive.fail(error)
        self._post(DiskFailed(OSError(5, "a fault that was planned")))
