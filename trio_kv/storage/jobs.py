"""What a disk does besides writing the log: snapshots are written, read back and sent.

Jobs are carried out in the order in which they were asked for, but the log's writes go before them. A job is a call
that returns its steps, each of them short, so that whoever carries it out can look after something else between.

A disk that is full ends the snapshot under way, cleanly, and never the node: the log's own space is taken already.
Any other error is a failed disk.
"""

import errno
from collections.abc import Callable, Iterable, Iterator

import attrs

from trio_kv.storage.errors import FULL
from trio_kv.storage.snapshot_reading import SnapshotInfo
from trio_kv.storage.snapshots import SnapshotStore, SnapshotWriter

JOBS_WAITING_MAX = 4096
"""Jobs that may wait. Who gives chunks waits for each to be added; a disk that lets more wait has failed."""
MOVED_STEPS = 16
"""While a snapshot is made durable and read back, it is told that it gets on after so many steps, which are chunks."""
Job = Callable[[], Iterable[None]]


def ignore(*_: object) -> None:
    """Take a completion that nobody waits for."""


@attrs.frozen
class SnapshotListener:
    """Who is told when a job is done."""

    on_snapshot_added: Callable[[int, int, int], object] = ignore
    """(index, term, number): the chunk was taken, and the next one may come."""
    on_snapshot_moved: Callable[[int, int], object] = ignore
    """(index, term): the last chunk was taken, and the snapshot gets on on its way to be stored."""
    on_snapshot_stored: Callable[[SnapshotInfo], object] = ignore
    """The snapshot is durable and proved readable."""
    on_snapshot_failed: Callable[[int, int, str], object] = ignore
    """(index, term, reason): the disk is full; what was written is removed, and what still comes is ignored."""
    on_chunk_read: Callable[[int, int, int, bytes | None, bool], object] = ignore
    """(index, term, number, data, is_last): data is None if that snapshot is gone, or there is none yet (0, 0)."""


class SnapshotJobs:
    """Carries out the jobs of one node's snapshots.

    Args:
        store: the snapshots.
        listener: who is told.
        tell: calls a callback with arguments, where the listener lives.

    Raises of all jobs:
        DamagedError: a snapshot is not what was written.
        OSError: the disk refused, and not only because it is full.

    """

    def __init__(self, store: SnapshotStore, listener: SnapshotListener, tell: Callable[..., object]) -> None:
        """Have nothing under way."""
        self.is_filled = False
        """Fault: no snapshot can be written, as on a full disk."""
        self._store = store
        self._listener = listener
        self._tell = tell
        self._writer: SnapshotWriter | None = None

    def begin(self, index: int, term: int) -> Iterable[None]:
        """Begin a snapshot, in place of one that was begun and not finished."""
        yield from self.abort()
        try:
            self._check_space()
            self._writer = self._store.begin(index, term)
        except OSError as error:
            self._fail((index, term), error)

    def add(self, number: int, chunk: bytes) -> Iterable[None]:
        """Write the next chunk."""
        writer = self._writer
        if writer is None:
            return
        try:
            self._check_space()
            writer.add(number, chunk)
        except OSError as error:
            self._fail(writer.place, error)
        else:
            self._tell(self._listener.on_snapshot_added, *writer.place, number)
        yield

    def finish(self) -> Iterator[None]:
        """Make the snapshot durable, prove it readable, and let it be the newest."""
        writer = self._writer
        if writer is None:
            return
        try:
            self._check_space()
            for step, _ in enumerate(writer.finish_steps()):
                if step % MOVED_STEPS == 0:
                    self._tell(self._listener.on_snapshot_moved, *writer.place)
                yield
        except OSError as error:
            self._fail(writer.place, error)
        else:
            self._writer = None
            self._tell(self._listener.on_snapshot_stored, writer.info)

    def abort(self) -> Iterable[None]:
        """Remove the snapshot under way, if there is one."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()
        return ()

    def read(self, place: tuple[int, int] | None, number: int) -> Iterable[None]:
        """Read a chunk; without a place, of the newest snapshot."""
        newest = self._store.newest()
        if place is None:
            place = (0, 0) if newest is None else newest.place
        data = self._store.read_chunk(place, number)
        info = self._store.find(place)
        is_last = data is not None and info is not None and number == info.chunks - 1
        self._tell(self._listener.on_chunk_read, *place, number, data, is_last)
        return ()

    def release(self, place: tuple[int, int]) -> Iterable[None]:
        """Take note that a reader is done."""
        self._store.release(place)
        return ()

    def close(self) -> None:
        """Let go of the files. What is left of a snapshot under way is removed at the next start."""
        self._store.close()

    def _check_space(self) -> None:
        if self.is_filled:
            raise OSError(errno.ENOSPC, "a full disk that was asked for")

    def _fail(self, place: tuple[int, int], error: OSError) -> None:
        if error.errno not in FULL:
            raise error
        self.abort()
        self._tell(self._listener.on_snapshot_failed, *place, str(error))
