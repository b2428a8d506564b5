"""One thread per node that makes its writes durable, and the port that a node sees.

A sync takes 0.1 ms or more, so it happens beside the event loop, in a thread that lives as long as the node
and not in a new one each time (a hop through a thread pool costs as much as the sync). Writes go in through a
queue; what waited while one batch was under way becomes the next batch: **one frame, one sync**
(`storage.wal`), however many writes came. The more there is to do, the larger the batches: that is the whole
of group commit. Completions come back by `TrioToken.run_sync_soon`, one call a batch: tickets complete in
order, so the last one speaks for all.

An idle thread sleeps in `SimpleQueue.get`; nothing polls. **A disk that failed once has failed** (scenario
D11): nothing is tried again, the failure is told once, and the thread ends.

For `--ephemeral` there is no other disk: the same thread works on a temporary directory that isn't synced, so
a crashed node finds its log again as long as the process lives.
"""

import contextlib
import errno
import queue
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

import attrs
import trio

from trio_kv.raft.ready import Ticket, Write
from trio_kv.storage.wal import Wal

WRITES_WAITING_MAX = 65_536
"""Writes that may wait. The node's own limits (inbox lanes, append window) keep far below it. A disk that
lets more wait is taken for a failed one: waiting longer would only use up memory."""
_T = TypeVar("_T")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Storage(Protocol):
    """Where a node's writes go. Completions come by callbacks, in the order of `submit`."""

    def submit(self, write: Write) -> None:
        """Take a write. Never blocks."""
        ...  # pragma: no cover

    async def stop(self, *, drop_queued: bool = True) -> None:
        """End: drop what waits, or carry it out first. The write under way is waited for in either case."""
        ...  # pragma: no cover


@attrs.frozen
class DiskStatistics:
    """What a disk thread did."""

    batches: int
    writes: int
    waiting: int
    """Writes that were taken and not begun."""


class DiskThread:
    """Carries out one node's writes, and closes the log at its end. Make it inside Trio; it works at once.

    Args:
        wal: the node's log, which belongs to the thread from now on.
        on_stored: called in Trio with the last ticket of each batch that is durable.
        on_failed: called in Trio, once, with what ended the thread: an OSError is a failed disk, anything
            else a bug. Neither may raise.
        name: the thread's name.

    Invariants: `on_stored` tells of durable writes only, in the order of their tickets; nothing is told after
    a failure.
    """

    def __init__(
        self,
        wal: Wal,
        *,
        on_stored: Callable[[Ticket], object],
        on_failed: Callable[[Exception], object],
        name: str = "disk",
    ) -> None:
        """Start the thread."""
        self.delay_s = 0.0
        """Fault: each batch waits this long first."""
        self._wal = wal
        self._on_stored = on_stored
        self._on_failed = on_failed
        self._token = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        self._queue: queue.SimpleQueue[Write | OSError | None] = queue.SimpleQueue()
        """None asks the thread to end; an error ends it as a failed disk."""
        self._is_closed = False
        """Whether nothing more is taken: the queue was full once, or the thread has ended."""
        self._is_ending = False
        self._is_dropping = threading.Event()
        self._gate = threading.Event()
        self._gate.set()
        self._fault: OSError | None = None
        self._batches = 0
        self._writes = 0
        self._helper: threading.Thread | None = None
        self._prepared_after = 0
        # A daemon: a disk that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, write: Write) -> None:
        """Take a write. After the end of the thread it is dropped: the end was told."""
        if self._is_closed:
            return
        if self._queue.qsize() < WRITES_WAITING_MAX:
            self._queue.put(write)
        else:
            self._is_closed = True
            self._queue.put(OSError(errno.ENOBUFS, f"{WRITES_WAITING_MAX} writes wait for the disk"))

    async def stop(self, *, drop_queued: bool = True) -> None:
        """End the thread and wait for it. May be called again.

        Args:
            drop_queued: forget what waits, also behind a stall that was asked for. False carries it out
                first.

        """
        if drop_queued:
            self._is_dropping.set()
            self._gate.set()
        self._queue.put(None)
        await self._ended.wait()

    async def aclose(self) -> None:
        """End the thread, dropping what waits."""
        await self.stop()

    def statistics(self) -> DiskStatistics:
        """Return what was done so far; `waiting` is a moment's guess."""
        return DiskStatistics(self._batches, self._writes, self._queue.qsize())

    def fail_next(self) -> None:
        """Fault: the next batch fails with an input/output error."""
        self._fault = OSError(errno.EIO, "a fault that was asked for")

    def stall(self) -> None:
        """Fault: the disk stands still, from the next batch on."""
        self._gate.clear()

    def unstall(self) -> None:
        """End a stall."""
        self._gate.set()

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - told, for nobody must wait for a thread that died
            self._tell(self._on_failed, error)
        finally:
            self._is_closed = True
            if self._helper is not None:
                self._helper.join()
            # Whatever was acknowledged was synced, so closing can't lose anything.
            with contextlib.suppress(OSError):
                self._wal.close()
            self._tell(_set, self._ended)

    def _work(self) -> None:
        while batch := self._next_batch():
            self._gate.wait()
            if self.delay_s > 0:
                self._is_dropping.wait(self.delay_s)
            if self._is_dropping.is_set():
                return
            if self._fault is not None:
                raise self._fault
            self._wal.append(batch)
            self._batches += 1
            self._writes += len(batch)
            self._tell(self._on_stored, batch[-1].ticket)
            self._maybe_prepare()

    def _next_batch(self) -> list[Write]:
        """Wait for a write and return it with all that came since; nothing means the end.

        Raises:
            OSError: the disk failed elsewhere.

        """
        batch: list[Write] = []
        while not self._is_ending:
            try:
                item = self._queue.get(block=not batch)
            except queue.Empty:
                break
            if isinstance(item, OSError):
                raise item
            if item is None:
                self._is_ending = True
            else:
                batch.append(item)
        return [] if self._is_dropping.is_set() else batch

    def _maybe_prepare(self) -> None:
        """Let the next segment be made beside the writes, once a segment."""
        if self._wal.wants_spare and self._prepared_after < self._wal.segment:
            self._prepared_after = self._wal.segment
            self._helper = threading.Thread(
                target=self._prepare, name=f"{self._thread.name}-spare", daemon=True
            )
            self._helper.start()

    def _prepare(self) -> None:
        try:
            self._wal.prepare()
        except OSError as error:
            # A full disk may have room again when the segment is needed; it is tried then, and fails the
            # batch.
            if error.errno not in _FULL:
                self._queue.put(error)

    def _tell(self, callback: Callable[[_T], object], value: _T) -> None:
        try:
            self._token.run_sync_soon(callback, value)
        except trio.RunFinishedError:
            # Nobody is left to listen, so nothing that follows would be acknowledged either.
            self._is_dropping.set()


def _set(event: trio.Event) -> None:
    event.set()
