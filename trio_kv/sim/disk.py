"""The disk of one life of a simulated node: the twin of the disk thread, and how long everything takes.

As in `storage.disk` there are two hands: one writes the log, batch after batch, the other one carries out the jobs
of the snapshots. Neither waits for the other, so a snapshot may be durable before a write that was given earlier; only
the log is never compacted before that.
"""

from collections.abc import Callable
from random import Random

import attrs

from trio_kv.check.admission import require_none_of_clients
from trio_kv.raft.entry import LogPosition
from trio_kv.raft.ready import Ticket, Write
from trio_kv.replica.jobs import (
    CompactLog,
    Completion,
    FinishSnapshot,
    Job,
    LogSpaceChanged,
    SnapshotStored,
    Stored,
)
from trio_kv.sim.host import Host
from trio_kv.storage.batches import encode, merge, size_bytes
from trio_kv.storage.memory import MemoryFiles, PowerLossError
from trio_kv.storage.memory_disk import MemoryDisk
from trio_kv.storage.opening import Opened

LOOK_FOR_SPACE_S = 0.1
"""A full disk is tried again so often."""
JOB_STEPS_MAX = 10
"""Power fails at one of so many steps of the jobs that wait."""


@attrs.define
class Condition:
    """What is wrong with a disk, whichever life its node is in."""

    factor: float = 1.0
    job_factor: float = 1.0
    is_stalled: bool = False
    in_next_batch: Callable[[], None] | None = None
    """What is to happen in the middle of the next batch of writes."""
    in_next_job: Callable[[], None] | None = None
    """What is to happen in the middle of the next job that ends a snapshot or drops a part of the log."""

    def end_slowness(self) -> None:
        """Be as fast as others from the next batch on."""
        self.factor = 1.0

    def end_slow_jobs(self) -> None:
        """Be as fast as others with snapshots, from the next job on."""
        self.job_factor = 1.0

    def mend(self) -> None:
        """Be as fast as others, and let nothing happen."""
        self.factor = self.job_factor = 1.0
        self.is_stalled = False
        self.in_next_batch = self.in_next_job = None


class TimedDisk:
    """A twin that is stepped by the world's clock, from a start of its node to its death."""

    def __init__(
        self,
        world: Host,
        node: int,
        files: MemoryFiles,
        opened: Opened,
        condition: Condition,
        *,
        post: Callable[[Completion], object],
        failed: Callable[[OSError], None],
    ) -> None:
        """Take over what was opened; `post` takes completions, `failed` is called when the disk failed."""
        self.wal = opened.wal
        self._world = world
        self._node = node
        self._files = files
        self._condition = condition
        self._post = post
        self._failed = failed
        self._is_open = True
        self._is_writing = False
        self._working: Job | None = None
        """The job that is under way."""
        self._is_batch_held = False
        self._is_job_held = False
        self._is_full = False
        self.has_failed = False
        self._writes: list[tuple[Write, bool]] = []
        """The writes that wait, and whether their node knew that the disk was full when it took their entries."""
        self._taken_blindly: int | None = None
        """The last index that the node took before it knew that the disk is full; None: it does not know."""
        self._batch = 0
        """How many writes are carried out just now."""
        self._number = 0
        self._told: list[Completion] = []
        """What the twin told and the node does not know yet."""
        self._twin = MemoryDisk(opened.wal, files, opened.snapshots, self._take)

    def log_space_heard(self, free_log_bytes: int | None, last_index: int) -> None:
        """Note that the node just heard what space there is.

        What it took before that, even in the same pass, it could not measure by it. That is given at the end of the
        pass, when the node does know, and yet is no fault of the node's if it does not fit: it waits.

        Args:
            free_log_bytes: what it heard; None: the disk is not full.
            last_index: up to where it had taken entries by then.

        """
        if free_log_bytes is None:
            self._taken_blindly = None
        elif self._taken_blindly is None:
            self._taken_blindly = last_index

    def submit(self, item: Write | Job) -> None:
        """Take a write or a job."""
        self._twin.submit(item)
        if not isinstance(item, Write):
            self._maybe_begin_job()
            return
        blindly = self._taken_blindly
        is_full_known = blindly is not None and not (item.entries and item.entries[0].index <= blindly)
        self._writes.append((item, is_full_known))
        if blindly is not None:
            # All that was taken blindly is given now. The same indices may come again, after a truncation.
            self._taken_blindly = 0
        self._maybe_begin_batch()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to do."""
        return not len(self._twin)

    def close(self) -> None:
        """Finish nothing any more: the node is dead."""
        self._is_open = False

    def fail(self, error: OSError) -> None:
        """Do nothing any more, for the disk failed."""
        self.has_failed = True
        self.close()
        self._failed(error)

    def crash(self, random: Random) -> None:
        """Cut the power, perhaps in the middle of what is under way."""
        assert not self._is_open
        if self.has_failed:
            # Nothing is under way any more, though the node may not have taken note of that.
            self._files.crash(random)
            return
        if self._twin.ready_job is not None and random.random() < 0.6:
            self._files.fail_after(random.randrange(JOB_STEPS_MAX), PowerLossError())
            try:
                while (job := self._twin.ready_job) is not None:
                    self._twin.step_job(job)
            except OSError:
                self._world.coverage.reach("crash while a snapshot was written")
        self._twin.crash(random)

    def mend(self) -> None:
        """Finish at once what is done slowly just now."""
        if self._is_writing:
            self._number += 1
            self._finish_batch()
        if self._is_open:
            self._finish_job()

    def unstall(self) -> None:
        """Finish what was held back."""
        if self._is_batch_held:
            self._finish_batch()
        if self._is_job_held:
            self._finish_job()

    def look_for_space(self) -> None:
        """Try whether the disk is full still, and go on with what waits for that."""
        self._look()
        if self._is_batch_held and not self._condition.is_stalled:
            self._finish_batch()

    def _look(self) -> None:
        if not self._is_open:
            return
        try:
            self._twin.look_for_space()
        except OSError as error:
            self.fail(error)
        self._tell()

    # The log

    def _maybe_begin_batch(self) -> None:
        if self._is_writing or not self._is_open or not self._twin.writes_waiting:
            return
        self._is_writing = True
        self._batch = self._twin.writes_waiting
        self._number += 1
        took_s = self._draw_s() * self._condition.factor
        if self._condition.in_next_batch is not None:
            self._world.after(took_s / 2, self._condition.in_next_batch)
            self._condition.in_next_batch = None
        self._world.after(took_s, self._batch_is_due, self._number)

    def _draw_s(self) -> float:
        return self._world.plan.disk_s * (0.5 + 1.5 * self._world.random.random())

    def _batch_is_due(self, number: int) -> None:
        if number != self._number or not self._is_open:
            return
        if self._condition.is_stalled:
            self._is_batch_held = True
        else:
            self._finish_batch()

    def _finish_batch(self) -> None:
        if not self._is_open or not self._is_writing:
            return
        self._number += 1
        self._is_batch_held = not self._twin.is_waiting and self._waits_for_space()
        if self._is_batch_held or self.has_failed:
            return
        try:
            ticket = self._twin.step(self._batch)
        except OSError as error:
            self.fail(error)
            return
        if self.wal.is_short:
            self._world.coverage.reach("write found no room")
        if self._twin.is_waiting:
            self._is_batch_held = True
            self._tell()
            return
        assert isinstance(ticket, Ticket)
        del self._writes[: self._batch]
        self._is_writing = False
        self._world.watch.stored(self._node, ticket)
        self._maybe_begin_batch()
        self._maybe_begin_job()  # It may have waited for this write.
        self._told.append(Stored(ticket))
        self._tell()

    def _waits_for_space(self) -> bool:
        """Return whether the batch does not fit on the full disk. What a node admits as it knows of it must fit."""
        batch = self._writes[: self._batch]
        writes = [write for write, _ in batch]
        if self._files.capacity_bytes is None or self.wal.fits(size_bytes(encode(merge(writes)))):
            return False
        if not self._is_full:
            self._look()
        if self._is_full and all(is_known for _, is_known in batch):
            require_none_of_clients(self._node, writes, self.wal.free_log_bytes)
        return self._is_full

    # The jobs

    def _maybe_begin_job(self) -> None:
        if self._working is not None or not self._is_open or (job := self._twin.ready_job) is None:
            return
        self._working = job
        took_s = self._draw_s() * self._condition.factor * self._condition.job_factor
        if isinstance(job, FinishSnapshot | CompactLog) and self._condition.in_next_job is not None:
            self._world.after(took_s / 2, self._condition.in_next_job)
            self._condition.in_next_job = None
        self._world.after(took_s, self._job_is_due, job)

    def _job_is_due(self, job: Job) -> None:
        if not self._is_open or self._working is not job:
            return
        if self._condition.is_stalled:
            self._is_job_held = True
        else:
            self._finish_job()

    def _finish_job(self) -> None:
        job, self._working = self._working, None
        if not self._is_open or job is None:
            return
        self._is_job_held = False
        if isinstance(job, CompactLog):
            self._world.watch.dropping(self._node, job.index)
        try:
            self._twin.step_job(job)
        except OSError as error:
            self.fail(error)
            return
        self._maybe_begin_job()
        self._tell()

    # What the twin tells

    def _tell(self) -> None:
        """Tell the node, now that the twin takes orders again."""
        told = self._told.copy()
        self._told.clear()
        for item in told:
            self._post(item)

    def _take(self, completion: Completion) -> None:
        if isinstance(completion, SnapshotStored):
            if not self._is_open:
                return
            self._world.watch.snapshot_stored(self._node, LogPosition(completion.index, completion.term))
        elif isinstance(completion, LogSpaceChanged):
            self._log_space_changed(completion.free_log_bytes)
        self._told.append(completion)

    def _log_space_changed(self, free_log_bytes: int | None) -> None:
        if free_log_bytes is None and self._is_full:
            self._world.coverage.reach("full disk recovered")
        if free_log_bytes is not None and not self._is_full:
            self._world.after(LOOK_FOR_SPACE_S, self._look_again)
        self._is_full = free_log_bytes is not None

    def _look_again(self) -> None:
        self.look_for_space()
        if self._is_full and self._is_open:
            self._world.after(LOOK_FOR_SPACE_S, self._look_again)
