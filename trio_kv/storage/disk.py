"""One thread per node that makes its writes durable, and the port that a node sees.

A sync takes 0.1 ms or more, so it happens beside the event loop, in a thread that lives as long as the node
and not in a new one each time (a hop through a thread pool costs as much as the sync). Writes go in through a
queue; what waited while one batch was under way becomes the next batch: **one frame, one sync**
(`storage.wal`), however many writes came. The more there is to do, the larger the batches: that is the whole
of group commit. Completions come back by `TrioToken.run_sync_soon`, one call a batch: tickets complete in
order, so the last one speaks for all.

Snapshots are written, read back and sent by a second thread (`storage.helper`), so that no write of the log waits for
them. Their jobs keep their own order; a snapshot may become durable before a write that was taken earlier.

An idle thread sleeps in `SimpleQueue.get`; nothing polls, but for a disk that is full. **A disk that failed once
has failed** (scenario D11): nothing is tried again, the failure is told once, and the threads end. **A disk that is
full has not failed** (D12): it is told how much space is left, and when there is space again. What does not fit
waits, and all behind it: whoever heeds the space sees that only where the file system gave reserved space to others.

For `--ephemeral` there is no other disk: the same thread works on a temporary directory that isn't synced, so
a crashed node finds its log again as long as the process lives.
"""

import contextlib
import errno
import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

import trio

from trio_kv.raft.ready import Write
from trio_kv.replica.jobs import CompactLog, Completion, DiskFailed, Job, Stored
from trio_kv.storage.helper import FULL_RETRY_S, Helper
from trio_kv.storage.jobs import JOBS_WAITING_MAX, WRITES_WAITING_MAX, SnapshotJobs
from trio_kv.storage.snapshots import SnapshotStore
from trio_kv.storage.wal import Wal

DELAY_STEP_S = 0.1
"""How soon a delay that was asked for is noticed to be taken back."""


class Storage(Protocol):
    """Where a node's writes and jobs go. Nothing blocks; completions come back by a call, in order."""

    def submit(self, item: Write | Job) -> None:
        """Take a write, or a job (`replica.jobs`)."""

    async def stop(self, *, drop_queued: bool = True) -> None:
        """End: drop what waits, or carry it out first. The write under way is waited for in either case."""


class _DroppedError(Exception):
    """The disk was stopped while it waited for space."""


class DiskThread:
    """Carries out one node's writes and snapshots, and closes both at its end. Make it inside Trio; it works at once.

    Args:
        wal: the node's log, which belongs to the thread from now on.
        snapshots: its snapshots, likewise.
        post: called in Trio with each completion (`replica.jobs`), the last of which may be `DiskFailed`. It may not
            raise.
        name: the threads' name.
        retry_s: how long to wait before a full disk is tried again.

    Invariants: `Stored` tells of durable writes only, in the order of their tickets; nothing is told after
    a failure.
    """

    def __init__(
        self,
        wal: Wal,
        snapshots: SnapshotStore,
        post: Callable[[Completion], object],
        *,
        name: str = "disk",
        retry_s: float = FULL_RETRY_S,
    ) -> None:
        """Start the threads."""
        self.delay_s = 0.0
        """Fault: each batch, and each job, waits this long first."""
        self.wal = wal
        """The log. It belongs to the thread; what it has counted may be read by others."""
        self._post = post
        self._token = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        self._queue: queue.SimpleQueue[Write | CompactLog | Exception | None] = queue.SimpleQueue()
        """None asks the thread to end; an error ends it as a failed disk."""
        self._is_closed = False
        """Whether nothing more is taken: the queue was full once, or the thread has ended."""
        self._is_ending = False
        self._is_dropping = threading.Event()
        self._gate = threading.Event()
        self._gate.set()
        self._fault: OSError | None = None
        self.batches = 0
        """How many were made durable so far."""
        self.writes = 0
        """How many writes these held."""
        self._compact_index: int | None = None
        self._jobs = SnapshotJobs(snapshots, self._report)
        self._helper = Helper(
            wal,
            self._jobs,
            self._pass_gate,
            post=self._report,
            on_failed=self._queue.put,
            name=f"{name}-helper",
            retry_s=retry_s,
        )
        # A daemon: a disk that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Write | Job) -> None:
        """Take a write or a job. After the end of the threads it is dropped: the end was told."""
        if self._is_closed:
            return
        if isinstance(item, Write | CompactLog):
            if self._queue.qsize() < WRITES_WAITING_MAX:
                self._queue.put(item)
                return
        elif len(self._helper) < JOBS_WAITING_MAX:
            self._helper.submit(item)
            return
        self._is_closed = True
        self._queue.put(OSError(errno.ENOBUFS, f"too much waits for the disk: {type(item).__name__}"))

    async def stop(self, *, drop_queued: bool = True) -> None:
        """End the threads and wait for them. May be called again.

        Args:
            drop_queued: forget what waits, also behind a stall that was asked for. False carries it out
                first.

        """
        if drop_queued:
            self._is_dropping.set()
            self._gate.set()
        self._queue.put(None)
        await self._ended.wait()

    def fail_next(self) -> None:
        """Fault: the next batch fails with an input/output error."""
        self._fault = OSError(errno.EIO, "a fault that was asked for")

    def stall(self) -> None:
        """Fault: the disk stands still, from the next batch or job on."""
        self._gate.clear()

    def unstall(self) -> None:
        """End a stall."""
        self._gate.set()

    def fill(self) -> None:
        """Fault: the disk is full. No segment and no snapshot can be made."""
        self._set_filled(is_filled=True)

    def unfill(self) -> None:
        """End it: within a second the disk finds its space."""
        self._set_filled(is_filled=False)

    def _set_filled(self, *, is_filled: bool) -> None:
        self.wal.is_filled = self._jobs.is_filled = is_filled

    # What follows runs in the threads.

    def _run(self) -> None:
        try:
            self._work()
        except _DroppedError:
            pass
        except Exception as error:  # noqa: BLE001 - told, for nobody must wait for a thread that died
            self._is_dropping.set()
            self._gate.set()
            self._report(DiskFailed(error))
        finally:
            self._is_closed = True
            self._helper.stop()
            # Whatever was acknowledged was synced, so closing can't lose anything.
            with contextlib.suppress(OSError):
                self.wal.close()
            with contextlib.suppress(OSError):
                self._jobs.close()
            self._call(_set, self._ended)

    def _work(self) -> None:
        self._helper.wait_for_first_look()
        while True:
            batch = self._next_batch()
            if (not batch and self._compact_index is None) or not self._pass_gate():
                return
            if self._fault is not None:
                raise self._fault
            if batch:
                for _ in self.wal.appending(batch):
                    self._wait_for_space()
                self.batches += 1
                self.writes += len(batch)
                # First, for whoever hears that this is done gives more.
                self._helper.appended()
                self._report(Stored(batch[-1].ticket))
            if self._compact_index is not None:
                self.wal.compact(self._compact_index)
                self._compact_index = None

    def _next_batch(self) -> list[Write]:
        """Wait for a write or a compaction, and return the writes with all that came since; else it is the end.

        Raises:
            Exception: the disk failed elsewhere.

        """
        batch: list[Write] = []
        while not self._is_ending:
            try:
                item = self._queue.get(block=not batch and self._compact_index is None)
            except queue.Empty:
                break
            match item:
                case Write():
                    batch.append(item)
                case CompactLog():
                    self._compact_index = item.index
                case Exception():
                    raise item
                case None:
                    self._is_ending = True
        return batch

    def _pass_gate(self, is_delayed: bool = True) -> bool:
        """Wait as long as a fault says; return whether to go on."""
        self._gate.wait()
        if is_delayed and self.delay_s > 0:
            # Looked at again meanwhile: a delay may be taken back.
            began_s = time.monotonic()
            while (left_s := began_s + self.delay_s - time.monotonic()) > 0:
                if self._is_dropping.wait(min(left_s, DELAY_STEP_S)):
                    break
        return not self._is_dropping.is_set()

    def _wait_for_space(self) -> None:
        self._helper.found_full()
        if self._is_dropping.wait(self._helper.retry_s):
            raise _DroppedError

    def _report(self, completion: Completion) -> None:
        self._call(self._post, completion)

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        try:
            self._token.run_sync_soon(callback, *args)
        except trio.RunFinishedError:
            # Nobody is left to listen, so nothing that follows would be acknowledged either.
            self._is_dropping.set()


def _set(event: trio.Event) -> None:
    event.set()
