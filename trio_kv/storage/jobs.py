"""What a disk does besides writing the log: snapshots are written, read back and sent.

Jobs are carried out in the order in which they were given, but the log's writes go before them. A job is done in steps,
each of them short, so that whoever carries it out can look after something else between.

A disk that is full ends the snapshot under way, cleanly, and never the node: the log's own space is taken already.
Any other error is a failed disk.
"""

import errno
from collections.abc import Callable, Iterable, Iterator

from trio_kv.raft.entry import LOG_START, LogPosition
from trio_kv.raft.ready import ChunkWasRead
from trio_kv.replica.jobs import (
    AddChunk,
    BeginSnapshot,
    ChunkAdded,
    Completion,
    FinishSnapshot,
    ReadChunk,
    ReleaseSnapshot,
    SnapshotFailed,
    SnapshotJob,
    SnapshotMoved,
    SnapshotStored,
)
from trio_kv.storage.errors import FULL
from trio_kv.storage.snapshots import SnapshotStore, SnapshotWriter

WRITES_WAITING_MAX = 65_536
"""Writes that may wait. The node's own limits (inbox lanes, append window) keep far below it. A disk that
lets more wait is taken for a failed one: waiting longer would only use up memory."""
JOBS_WAITING_MAX = 4096
"""Jobs that may wait. Who gives chunks waits for each to be added; a disk that lets more wait has failed."""
MOVED_STEPS = 16
"""While a snapshot is made durable and read back, it is told that it gets on after so many steps, which are chunks."""


class SnapshotJobs:
    """Carries out the jobs of one node's snapshots.

    Args:
        store: the snapshots.
        post: takes completions.

    """

    def __init__(self, store: SnapshotStore, post: Callable[[Completion], object]) -> None:
        """Have nothing under way; see the class."""
        self.is_filled = False
        """Fault: no snapshot can be written, as on a full disk."""
        self._store = store
        self._post = post
        self._writer: SnapshotWriter | None = None

    def steps(self, job: SnapshotJob) -> Iterable[None]:
        """Carry out a job, as far as what is returned is asked for its steps.

        Raises:
            DamagedError: a snapshot is not what was written.
            OSError: the disk refused, and not only because it is full.

        """
        match job:
            case BeginSnapshot():
                self._begin(job.index, job.term)
            case AddChunk():
                self._add(job.number, job.data)
            case FinishSnapshot():
                return self._finish()
            case ReadChunk():
                self._read(job.snapshot, job.number)
            case ReleaseSnapshot():
                self._store.release(LogPosition(job.index, job.term))
        return ()

    def close(self) -> None:
        """Let go of the files. What is left of a snapshot under way is removed at the next start."""
        self._store.close()

    def _begin(self, index: int, term: int) -> None:
        self._abort()
        try:
            self._check_space()
            self._writer = self._store.begin(index, term)
        except OSError as error:
            self._fail(LogPosition(index, term), error)

    def _add(self, number: int, chunk: bytes) -> None:
        writer = self._writer
        if writer is None:
            return
        try:
            self._check_space()
            writer.add(number, chunk)
        except OSError as error:
            self._fail(writer.position, error)
        else:
            self._post(ChunkAdded(*writer.position, number))

    def _finish(self) -> Iterator[None]:
        writer = self._writer
        if writer is None:
            return
        try:
            self._check_space()
            for step, _ in enumerate(writer.finish_steps()):
                if step % MOVED_STEPS == 0:
                    self._post(SnapshotMoved(*writer.position))
                yield
        except OSError as error:
            self._fail(writer.position, error)
        else:
            self._writer = None
            self._post(SnapshotStored(*writer.position, writer.info.total_bytes))

    def _read(self, position: LogPosition | None, number: int) -> None:
        newest = self._store.newest()
        if position is None:
            position = LOG_START if newest is None else newest.position
        data = self._store.read_chunk(position, number)
        info = self._store.find(position)
        is_last = data is not None and info is not None and number == info.chunks - 1
        self._post(ChunkWasRead(*position, data, is_last))

    def _abort(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()

    def _check_space(self) -> None:
        if self.is_filled:
            raise OSError(errno.ENOSPC, "a full disk that was asked for")

    def _fail(self, position: LogPosition, error: OSError) -> None:
        if error.errno not in FULL:
            raise error
        self._abort()
        self._post(SnapshotFailed(*position, str(error)))
