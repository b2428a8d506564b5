"""The twin of a node's disk thread: the same port, no thread. It works when the simulator says so.

The simulator thereby decides how long a write takes, or that it never ends.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from random import Random

from trio_kv.raft.ready import Ticket, Write
from trio_kv.replica.jobs import CompactLog, Completion, Job, LogSpaceChanged
from trio_kv.storage.jobs import WRITES_WAITING_MAX, SnapshotJobs
from trio_kv.storage.memory import MemoryFiles, PowerLossError
from trio_kv.storage.snapshots import SnapshotStore
from trio_kv.storage.wal import Wal


class MemoryDisk:
    """A node's disk in the simulator: takes writes and jobs like `DiskThread`, carries them out when told to.

    The simulator's duties: `step` whenever the disk should have finished something, report the ticket to the
    node, and on an OSError report the failure and never step again. A disk that stalls is one that isn't
    stepped. All but the tickets and the failure is posted here.

    A batch that finds no space waits (`is_waiting`): each further step tries it again, and all behind it waits as well.

    Args:
        wal: the log.
        files: what `wal` and `snapshots` stand on.
        snapshots: the snapshots.
        post: takes completions.

    """

    def __init__(
        self, wal: Wal, files: MemoryFiles, snapshots: SnapshotStore, post: Callable[[Completion], object]
    ) -> None:
        """Have nothing to do yet; see the class."""
        self.wal = wal
        self.files = files
        self._post = post
        self._snapshot_jobs = SnapshotJobs(snapshots, post)
        self._waiting: deque[Write] = deque()
        self._jobs: list[tuple[int, Job]] = []
        """The jobs that wait, each with the number of writes that must be done before it."""
        self._given = self._done = 0
        """How many writes there were, and how many of them are done."""
        self._is_failed = False
        self._is_full = False
        self._told_bytes: int | None = None
        self._batch: list[Write] = []
        """The batch under way, if it waits for space."""
        self._appending: Iterator[OSError] = iter(())

    def __len__(self) -> int:
        """Return how many writes and jobs wait."""
        return len(self._batch) + len(self._waiting) + len(self._jobs)

    @property
    def is_waiting(self) -> bool:
        """Whether a batch waits for space on a full disk."""
        return bool(self._batch)

    @property
    def writes_waiting(self) -> int:
        """How many writes wait."""
        return len(self._waiting)

    @property
    def ready_job(self) -> Job | None:
        """The job that may be done now: the first one that waits, but the log is compacted behind its writes."""
        return next((job for writes, job in self._jobs if writes <= self._done), None)

    def submit(self, item: Write | Job) -> None:
        """Let a write or a job wait for its turn. After a failure it is dropped: the failure was told."""
        if self._is_failed:
            return
        if isinstance(item, Write):
            assert len(self._waiting) < WRITES_WAITING_MAX, "the simulator does not step this disk"
            self._given += 1
            self._waiting.append(item)
        else:
            self._jobs.append((self._given if isinstance(item, CompactLog) else 0, item))

    def step(self, writes_max: int | None = None) -> Ticket | None:
        """Make what waits durable, as one batch, and return its last ticket; without writes do one job: None.

        While the disk is full, each step tries whether it still is.

        Args:
            writes_max: take only so many of them, as if the others had come while this batch was under way.

        Returns:
            None also if the batch waits for space.

        Raises:
            OSError: the disk failed.

        """
        if not self._batch and self._waiting:
            count = min(len(self._waiting), writes_max or WRITES_WAITING_MAX)
            self._batch = [self._waiting.popleft() for _ in range(count)]
            self._appending = self.wal.appending(self._batch)
        # Until it is done: whatever ends it early leaves a failed disk.
        self._is_failed = True
        ticket = self._append() if self._batch else None
        if ticket is None and not self._batch and self._jobs:
            self._do_job(0)
        self._look_for_space()
        self._is_failed = False
        return ticket

    def _append(self) -> Ticket | None:
        """Go on with the batch under way; return its last ticket if it is done."""
        batch, self._batch = self._batch, []
        if next(self._appending, None) is not None:
            self._batch = batch
            return None
        self._done += len(batch)
        return batch[-1].ticket

    def step_job(self, job: Job) -> None:
        """Do a job that is ready, although writes may wait that came after it, or that don't concern it.

        In `DiskThread` a second thread does the jobs, and the log's own thread its compactions.

        Args:
            job: one that `ready_job` gave; a compaction that came since may be ready as well.

        Raises:
            OSError: the disk failed.

        """
        place = next(place for place, (_, waiting) in enumerate(self._jobs) if waiting is job)
        assert self._jobs[place][0] <= self._done
        self._is_failed = True
        self._do_job(place)
        self._is_failed = False

    def look_for_space(self) -> None:
        """Try whether the disk is still full, as `DiskThread` does now and then.

        Raises:
            OSError: the disk failed.

        """
        if not self._is_failed:
            self._look_for_space()

    def crash(self, random: Random) -> None:
        """Cut the power. What waited is lost, or in part on the disk: the batch may have been under way."""
        if len(self) and not self._is_failed and random.random() < 0.75:
            self.files.fail_after(random.randrange(3), PowerLossError())
            # Or the disk fails just then: nobody is left to be told.
            with contextlib.suppress(OSError):
                self.step(random.randint(1, max(1, len(self._waiting))))
        self._forget()
        self.files.crash(random)

    def _do_job(self, place: int) -> None:
        _, job = self._jobs.pop(place)
        if isinstance(job, CompactLog):
            self.wal.compact(job.index)
        else:
            for _ in self._snapshot_jobs.steps(job):
                pass

    def _forget(self) -> None:
        self._batch.clear()
        self._waiting.clear()
        self._jobs.clear()

    def _look_for_space(self) -> None:
        """Make the ballast and the next segment if it is time for it, and tell how full the disk is."""
        wal = self.wal
        if not (wal.wants_spare or wal.wants_ballast or self._is_full):
            return
        self._is_full = not wal.make_ahead(is_full=self._is_full)
        free_log_bytes = wal.free_log_bytes if self._is_full else None
        if free_log_bytes != self._told_bytes:
            self._told_bytes = free_log_bytes
            self._post(LogSpaceChanged(free_log_bytes))
