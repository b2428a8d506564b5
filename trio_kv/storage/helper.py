"""The second thread of a disk: what must not hold up the log, but takes its time.

It makes the ballast and, ahead, the next segment, carries out the jobs of snapshots, and while the disk is full tries
again each second. A segment goes before jobs, also between the steps of one: the log may be waiting for it.
"""

import queue
import threading
import time
from collections.abc import Callable
from enum import Enum

from trio_kv.replica.jobs import Completion, LogSpaceChanged, SnapshotJob
from trio_kv.storage.jobs import SnapshotJobs
from trio_kv.storage.wal import Wal

FULL_RETRY_S = 1.0
"""How long a full disk is left alone before it is tried again."""


class _Signal(Enum):
    LOOK = 1
    """Look after the log."""
    END = 2
    """End when all before it is done."""


class Helper:
    """Runs beside the thread of a log.

    Args:
        wal: the log.
        jobs: carries out the jobs that it is given.
        pass_gate: called before a job, with whether a delay that was asked for applies; False ends the thread.
        post: takes completions: how much space is left, as soon as that changes.
        on_failed: called with what ended the thread, if it didn't end by itself.
        name: the thread's name.
        retry_s: how long to wait before a full disk is tried again.

    """

    def __init__(
        self,
        wal: Wal,
        jobs: SnapshotJobs,
        pass_gate: Callable[[bool], bool],
        *,
        post: Callable[[Completion], object],
        on_failed: Callable[[Exception], object],
        name: str,
        retry_s: float,
    ) -> None:
        """Start the thread."""
        self.retry_s = retry_s
        self._wal = wal
        self._jobs = jobs
        self._pass_gate = pass_gate
        self._post = post
        self._on_failed = on_failed
        self._queue: queue.SimpleQueue[SnapshotJob | _Signal] = queue.SimpleQueue()
        self._lock = threading.Lock()
        """Held to change and to tell how full the disk is: two threads tell, in one order."""
        self._is_full = False
        self._told_bytes: int | None = None
        self._is_woken = threading.Event()
        self._has_looked = threading.Event()
        self._retry_at_s = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Return how many jobs wait."""
        return self._queue.qsize()

    def submit(self, job: SnapshotJob) -> None:
        """Take a job."""
        self._queue.put(job)

    def stop(self) -> None:
        """Wait for the thread's end: when what waits is done, or as soon as the gate says so."""
        self._queue.put(_Signal.END)
        self._thread.join()

    def appended(self) -> None:
        """Look after the log: a batch was written."""
        if self._is_full or self._wal.is_short:
            self.found_full()
        elif self._wal.wants_spare:
            self._wake()

    def wait_for_first_look(self) -> None:
        """Wait until it is known, and told, whether the log has a ballast.

        No write may be done before: a node that has stored its vote may lead, and admits what its disk, full since
        before the start, has no space for.
        """
        self._has_looked.wait()

    def found_full(self) -> None:
        """Take note that the disk is full, or of how much space is left on it."""
        if self._set_full(is_full=True):
            self._wake()

    def _wake(self) -> None:
        if not self._is_woken.is_set():
            self._is_woken.set()
            self._queue.put(_Signal.LOOK)

    def _set_full(self, *, is_full: bool) -> bool:
        """Tell how full the disk is, if that is news; return whether it was not full before."""
        with self._lock:
            was_full, self._is_full = self._is_full, is_full
            free_log_bytes = self._wal.free_log_bytes if is_full else None
            if free_log_bytes != self._told_bytes:
                self._told_bytes = free_log_bytes
                self._post(LogSpaceChanged(free_log_bytes))
            return not was_full

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - told: it ends the disk
            self._on_failed(error)
        finally:
            self._has_looked.set()

    def _work(self) -> None:
        while True:
            self._maybe_prepare()
            self._has_looked.set()
            item = self._next_item()
            if item is _Signal.END or not self._pass_gate(item is not _Signal.LOOK):
                return
            if isinstance(item, _Signal):
                continue
            for _ in self._jobs.steps(item):
                self._maybe_prepare()
                if not self._pass_gate(False):
                    return

    def _next_item(self) -> SnapshotJob | _Signal:
        try:
            return self._queue.get(timeout=self.retry_s if self._is_full else None)
        except queue.Empty:
            return _Signal.LOOK

    def _maybe_prepare(self) -> None:
        """Make the next segment, if it is time for it."""
        self._is_woken.clear()
        wal = self._wal
        if not (wal.wants_spare or wal.wants_ballast or self._is_full):
            return
        if self._is_full and time.monotonic() < self._retry_at_s:
            return
        is_full = not wal.make_ahead(is_full=self._is_full)
        if is_full:
            self._retry_at_s = time.monotonic() + self.retry_s
        self._set_full(is_full=is_full)
