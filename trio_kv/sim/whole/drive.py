"""The disk of one node of the whole world: no thread, no file, and power that fails on purpose.

A `WholeDrive` outlives all lives of its node. For each life there is a `SimulatedDisk`. Behind both is what the core
world uses.
"""

from collections.abc import Callable
from functools import partial

import trio

from trio_kv.check.violation import Violation
from trio_kv.cluster.disks import Decode, Known, Loaded
from trio_kv.raft.ready import HardState, Write
from trio_kv.replica.jobs import Completion, DiskFailed, Job
from trio_kv.sim.drive import START_AGAIN_S, Drive
from trio_kv.sim.whole.host import WholeHost
from trio_kv.sim.whole.root import Root
from trio_kv.storage.node_directory import REBUILDING_NAME, NodeDirectory
from trio_kv.storage.opening import Opened
from trio_kv.wire.node_status import State

RECOVERY_STEPS_MAX = 12
"""Power fails at one of so many steps of a recovery."""


class WholeDrive(Drive):
    """What a node's data lives on, from the first start to the end of the world."""

    host: WholeHost

    def __init__(self, host: WholeHost, root: Root, node: int) -> None:
        """Stand on a node's directory."""
        self._moving = trio.lowlevel.ParkingLot()
        super().__init__(host, node, root.content(node), self._moving.unpark_all)
        self.root = root
        self._is_reviving = False
        """Somebody sees to it that the node runs again."""
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

    def load(self, decode: Decode, known: Known | None) -> Loaded:
        """Recover from what is there; power fails some times before that is done.

        Raises:
            DamagedError: a bit was flipped, and that was noticed.
            OSError: the disk is full, or can't be read.

        """
        if self.is_failed:
            raise OSError(5, "the disk is lost")
        interruptions, self.interruptions = self.interruptions, 0
        try:
            opened = self.recover(lambda: self.directory.open(decode), interruptions, RECOVERY_STEPS_MAX)
        except OSError:
            self._revive_after(START_AGAIN_S)
            raise
        except Violation as violation:
            self.host.fail(violation)
            raise
        return Loaded(opened.recovered, self.restore(opened, known), partial(SimulatedDisk, self, opened))

    def examine(self) -> NodeDirectory:
        """Look at the directory before a start; a sound node's is in order, or that ends the run."""
        try:
            found = self.directory
            if found.state != "ok" and not (self.is_failed or self.is_damaged):
                self.found_damaged(f"it is {found.state}: {found.reason}")
        except OSError as error:
            self.require_refusable(error)
            self._revive_after(START_AGAIN_S)
            raise
        except Violation as violation:
            self.host.fail(violation)
            raise
        return found

    def lose(self) -> None:
        """Have nothing any more."""
        self.is_failed = True
        self.files.clear_faults()
        for name in self.files.names():
            self.files.lose(name)
        self.files.sync_directory()

    def failed(self, error: OSError) -> None:
        """Fail, for good or until somebody sees to it. A failure that was not asked for ends the run."""
        try:
            is_lasting = self.fail(error)
        except Violation as violation:
            self.host.fail(violation)
            raise
        if is_lasting:
            self.lose()
        else:
            self._revive_after(self.outlive_failure())

    def _revive_after(self, for_s: float) -> None:
        if not self._is_reviving:
            self._is_reviving = True
            self.host.after(for_s, self._revive)

    def _revive(self) -> None:
        """See to it that the node runs again, as often as that takes."""
        is_alive = self.timed is not None and not self.timed.has_failed
        self._is_reviving = not (is_alive or self.is_failed or self.is_damaged)
        if self._is_reviving:
            self.host.restart(self.node, State.STOPPED)
            self.host.after(START_AGAIN_S, self._revive)

    async def wait_moving(self) -> None:
        """Wait until the disk does not stand still any more."""
        while self.condition.is_stalled:
            self.host.coverage.reach("disk hung at a start")
            await self._moving.park()

    def mend(self) -> None:
        """Let it be as fast as others, whatever life it is in."""
        self.unfill()
        self.end_unreadable()
        self.files.clear_faults()
        self.condition.factor = self.condition.job_factor = 1.0
        self.unstall()
        super().mend()


class SimulatedDisk:
    """The disk of one life of a node: a `cluster.disks.Disk` without threads."""

    def __init__(self, drive: WholeDrive, opened: Opened, post: Callable[[Completion], object]) -> None:
        """Begin to work; `post` takes completions."""
        self._drive = drive
        self._post = post
        self.wal = opened.wal
        self.timed = drive.begin_life(opened, self._completed, self._failed)
        self.hard_state: HardState = opened.recovered.hard_state
        """What this life began with."""

    def submit(self, item: Write | Job) -> None:
        """Take a write or a job."""
        self.timed.submit(item)

    async def stop(self, *, drop_queued: bool = True) -> None:
        """End: what waits is dropped."""
        assert drop_queued
        self.timed.close()
        if self._drive.timed is self.timed:
            self._drive.timed = None
        await trio.lowlevel.checkpoint()

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
        """Have space."""
        self._drive.unfill()

    # What the twin tells

    def _completed(self, completion: Completion) -> None:
        self._drive.host.completions += 1
        self._post(completion)

    def _failed(self, error: OSError) -> None:
        self._drive.failed(error)
        self._post(DiskFailed(OSError(5, "a fault that was planned")))
