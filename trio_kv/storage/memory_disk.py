"""The twin of a node's disk thread: the same port, no thread. It works when the simulator says so.

The simulator thereby decides how long a write takes, or that it never ends.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from random import Random

import trio

from trio_kv.raft.ready import Ticket, Write
from trio_kv.storage.disk import WRITES_WAITING_MAX
from trio_kv.storage.errors import FULL
from trio_kv.storage.jobs import Job, SnapshotJobs, SnapshotListener, ignore
from trio_kv.storage.memory import MemoryFiles, PowerLossError
from trio_kv.storage.snapshot_reading import SnapshotInfo
from trio_kv.storage.snapshots import SnapshotStore
from trio_kv.storage.wal import Wal


class MemoryDisk:
    """A node's disk in the simulator: takes writes like `DiskThread`, carries them out when told to.

    The simulator's duties: `step` whenever the disk should have finished something, report the ticket to the
    node, and on an OSError report the failure and never step again. A disk that stalls is one that isn't
    stepped. All but the tickets and the failure is told by the callbacks, which are those of `DiskThread`.

    A batch that finds no room waits (`is_waiting`): each further step tries it again, and all behind it waits as well.
    """

    def __init__(
        self,
        wal: Wal,
        files: MemoryFiles,
        snapshots: SnapshotStore | None = None,
        *,
        on_room: Callable[[int | None], object] = ignore,
        on_snapshot_added: Callable[[int, int, int], object] = ignore,
        on_snapshot_moved: Callable[[int, int], object] = ignore,
        on_snapshot_stored: Callable[[SnapshotInfo], object] = ignore,
        on_snapshot_failed: Callable[[int, int, str], object] = ignore,
        on_chunk_read: Callable[[int, int, int, bytes | None, bool], object] = ignore,
    ) -> None:
        """Drive `wal` and `snapshots`, which stand on `files`."""
        self.wal = wal
        self.files = files
        self._on_room = on_room
        listener = SnapshotListener(
            on_snapshot_added, on_snapshot_moved, on_snapshot_stored, on_snapshot_failed, on_chunk_read
        )
        self._snapshots = None if snapshots is None else SnapshotJobs(snapshots, listener, _call)
        self._waiting: deque[Write] = deque()
        self._jobs: list[tuple[int, Job]] = []
        """The jobs that wait, each with the number of writes that must be done before it."""
        self._given = self._done = 0
        """How many writes there were, and how many of them are done."""
        self._is_failed = False
        self._is_full = False
        self._told_bytes: int | None = None
        self._batch: list[Write] = []
        """The batch under way, if it waits for room."""
        self._appending: Iterator[OSError] = iter(())

    def __len__(self) -> int:
        """Return how many writes and jobs wait."""
        return len(self._batch) + len(self._waiting) + len(self._jobs)

    @property
    def is_waiting(self) -> bool:
        """Whether a batch waits for room on a full disk."""
        return bool(self._batch)

    @property
    def writes_waiting(self) -> int:
        """How many writes wait."""
        return len(self._waiting)

    @property
    def ready_job(self) -> int | None:
        """Which of the jobs that wait may be done now: the first one, but the log is compacted behind its writes."""
        return next((place for place, (writes, _) in enumerate(self._jobs) if writes <= self._done), None)

    def submit(self, write: Write) -> None:
        """Let a write wait for its turn. After a failure it is dropped: the failure was told."""
        assert len(self._waiting) < WRITES_WAITING_MAX, "the simulator does not step this disk"
        if not self._is_failed:
            self._given += 1
            self._waiting.append(write)

    def compact(self, index: int) -> None:
        """Delete what the log holds up to an entry, as far as that fills whole segments; behind all writes."""
        self._do(partial(self._compact, index), self._given)

    def snapshot_begin(self, index: int, term: int) -> None:
        """Begin a snapshot, in place of one that was begun and not finished."""
        self._do(partial(self._snapshot_jobs.begin, index, term))

    def snapshot_add(self, number: int, chunk: bytes) -> None:
        """Write its next chunk."""
        self._do(partial(self._snapshot_jobs.add, number, chunk))

    def snapshot_finish(self) -> None:
        """Make it durable and the newest one."""
        self._do(self._snapshot_jobs.finish)

    def snapshot_abort(self) -> None:
        """Remove what was written of it."""
        self._do(self._snapshot_jobs.abort)

    def read_chunk(self, snapshot: tuple[int, int] | None, number: int) -> None:
        """Read a chunk of the snapshot up to (index, term), or of the newest."""
        self._do(partial(self._snapshot_jobs.read, snapshot, number))

    def snapshot_release(self, index: int, term: int) -> None:
        """Tell that no more chunks of a snapshot will be read: it need not outlive the next one."""
        self._do(partial(self._snapshot_jobs.release, (index, term)))

    def step(self, writes_max: int | None = None) -> Ticket | None:
        """Make what waits durable, as one batch, and return its last ticket; without writes do one job: None.

        While the disk is full, each step tries whether it still is.

        Args:
            writes_max: take only so many of them, as if the others had come while this batch was under way.

        Returns:
            None also if the batch waits for room.

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
        self._look_for_room()
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

    def step_job(self, place: int) -> None:
        """Do a job that is ready, although writes may wait that came after it, or that don't concern it.

        In `DiskThread` a second thread does the jobs, and the log's own thread its compactions.

        Args:
            place: which one, as `ready_job` says.

        Raises:
            OSError: the disk failed.

        """
        assert self._jobs[place][0] <= self._done
        self._is_failed = True
        self._do_job(place)
        self._is_failed = False

    def look_for_room(self) -> None:
        """Try whether the disk is still full, as `DiskThread` does now and then.

        Raises:
            OSError: the disk failed.

        """
        if not self._is_failed:
            self._look_for_room()

    def crash(self, random: Random) -> None:
        """Cut the power. What waited is lost, or in part on the disk: the batch may have been under way."""
        if len(self) and not self._is_failed and random.random() < 0.75:
            self.files.fail_after(random.randrange(3), PowerLossError())
            # Or the disk fails just then: nobody is left to be told.
            with contextlib.suppress(OSError):
                self.step(random.randint(1, max(1, len(self._waiting))))
        self._forget()
        self.files.crash(random)

    async def stop(self, *, drop_queued: bool = True) -> None:
        """Forget what waits, as when only the process dies. With False, carry it out first."""
        while len(self) and not drop_queued and not self._is_failed:
            self.step()
        self._forget()
        await trio.lowlevel.checkpoint()

    @property
    def _snapshot_jobs(self) -> SnapshotJobs:
        assert self._snapshots is not None, "this disk has no snapshots"
        return self._snapshots

    def _do(self, job: Job, writes_before: int = 0) -> None:
        if not self._is_failed:
            self._jobs.append((writes_before, job))

    def _do_job(self, place: int) -> None:
        _, job = self._jobs.pop(place)
        for _ in job():
            pass

    def _forget(self) -> None:
        self._batch.clear()
        self._waiting.clear()
        self._jobs.clear()

    def _compact(self, index: int) -> tuple[()]:
        self.wal.compact(index)
        return ()

    def _look_for_room(self) -> None:
        """Make the ballast and the next segment if it is time for it, and tell how full the disk is."""
        wal = self.wal
        if not (wal.wants_spare or wal.wants_ballast or self._is_full):
            return
        try:
            wal.make_ballast()
            if wal.wants_spare or self._is_full:
                wal.prepare()
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._is_full = True
        else:
            self._is_full = False
        room_bytes = wal.room_bytes if self._is_full else None
        if room_bytes != self._told_bytes:
            self._told_bytes = room_bytes
            self._on_room(room_bytes)


def _call(callback: Callable[..., object], *args: object) -> None:
    callback(*args)
