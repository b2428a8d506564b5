"""Lines on their way out: a thread writes them, so that whoever does not read them holds up nobody.

Between the event loop and the thread stands a bounded buffer. What finds no room in it is dropped and counted, and so
is what can't be written (a full disk, a reader that is gone); as soon as lines go out again, one of them says in that
place how many are missing. The thread may stand still in a write for ever: it is a daemon, and at the end it is waited
for with a limit and then left behind.
"""

import itertools
import os
import select
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

import attrs

from trio_kv.trace.marks import TraceLost
from trio_kv.trace.trace import Record

T = TypeVar("T")

BUFFER_LINES_MAX = 65_536
"""Lines that wait for the thread; further ones are dropped and counted."""

BATCH_LINES_MAX = 1024
"""Lines that are encoded and written at once: they don't count as waiting any more."""

CLOSE_WAIT_S = 1.0
"""How long the end of a process waits for lines that are still to be written; then they are dropped."""


@attrs.define
class Gap(Generic[T]):
    """What is missing in one place."""

    count: int
    first: T
    last: T


@attrs.frozen
class LineStatistics:
    """How a writer fares. Once it is closed: written + lost = all that came."""

    written: int
    lost: int
    failure: OSError | None
    """Why nothing can be written at present, if so."""


class LineWriter(Generic[T]):
    r"""Writes lines to a descriptor, in a thread of its own.

    Invariant: lines go out in the order in which they came, and each place where some are missing is told.

    Args:
        open_descriptor: returns where to write. Called in the thread, and may block; tried again after an OSError.
        encode: the bytes of a line, with its \n. Called in the thread.
        make_gap: a line that says what is missing.
        name: of the thread.
        lines_max: how many lines may wait.
        gather: called in the thread before each batch, to let more of it come; None: at once.
        on_failed: called in the thread when writing begins to fail, once until it succeeds again.
        make_end: the last line, from the latest one that came and how many were lost in all; None: there is none.
        is_owner: close the descriptor at the end.

    """

    def __init__(
        self,
        open_descriptor: Callable[[], int],
        encode: Callable[[T], bytes],
        make_gap: Callable[[Gap[T]], T],
        *,
        name: str,
        lines_max: int = BUFFER_LINES_MAX,
        gather: Callable[[threading.Event], object] | None = None,
        on_failed: Callable[[OSError], object] | None = None,
        make_end: Callable[[T, int], T] | None = None,
        is_owner: bool = False,
    ) -> None:
        """Start the thread."""
        self._open_descriptor = open_descriptor
        self._encode = encode
        self._make_gap = make_gap
        self._lines_max = lines_max
        self._gather = gather
        self._on_failed = on_failed
        self._make_end = make_end
        self._is_owner = is_owner
        self.name = name
        """Of what it writes."""
        self._lock = threading.Lock()
        self._waiting: deque[T | Gap[T]] = deque()
        self._latest: T | None = None
        self._written = 0
        self._lost = 0
        self._failure: OSError | None = None
        self._has_work = threading.Event()
        self._is_closing = threading.Event()
        # The thread's own:
        self._descriptor: int | None = None
        self._torn = b""  # what is still to be written of a line that was begun
        self._gap: Gap[T] | None = None  # what could not be written, and was not told yet
        self._stuck_since_s: float | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, line: T) -> None:
        """Take a line, or count it as lost. Never blocks; may be called in any thread."""
        with self._lock:
            self._latest = line
            if len(self._waiting) < self._lines_max:
                self._waiting.append(line)
            else:
                self._lost += 1
                last = self._waiting[-1]
                if isinstance(last, Gap):
                    last.count += 1
                    last.last = line
                else:
                    self._waiting.append(Gap(1, line, line))
        if not self._has_work.is_set():
            self._has_work.set()

    def statistics(self) -> LineStatistics:
        """Return how it fares."""
        with self._lock:
            return LineStatistics(self._written, self._lost, self._failure)

    def begin_close(self) -> None:
        """Let the thread end when what waits is written. A second call does nothing."""
        self._is_closing.set()
        self._has_work.set()

    def stuck_s(self) -> float:
        """Return for how long the thread has been at its present write, or waits to open what it is to write to."""
        since_s = self._stuck_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait until the thread has ended, as `begin_close` asked it to, and return whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        is_closing = False
        while not is_closing:
            self._has_work.wait()
            if self._gather is not None:
                self._gather(self._is_closing)
            self._has_work.clear()
            # Asked before the buffer is emptied: what came before the end is in it.
            is_closing = self._is_closing.is_set()
            while batch := self._take():
                self._write(batch)
        if self._make_end is not None and self._latest is not None:
            self._write([self._make_end(self._latest, self._lost)])
        if self._is_owner and self._descriptor is not None:
            os.close(self._descriptor)

    def _take(self) -> list[T | Gap[T]]:
        with self._lock:
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_LINES_MAX))]

    def _write(self, batch: list[T | Gap[T]]) -> None:
        if self._gap is not None:
            batch, self._gap = [self._gap, *batch], None
        lines = [self._encode(self._make_gap(item) if isinstance(item, Gap) else item) for item in batch]
        data = memoryview(self._torn + b"".join(lines))
        done = 0
        self._stuck_since_s = time.monotonic()
        try:
            if self._descriptor is None:
                self._descriptor = self._open_descriptor()
            while done < len(data):
                done += _write_some(self._descriptor, data[done:])
                self._stuck_since_s = time.monotonic()
        except OSError as error:
            ends = list(itertools.accumulate(map(len, lines), initial=len(self._torn)))
            begun = bisect_left(ends, done)
            # When writing goes on, the rest of a line that was begun comes first, or it would spoil the next line. But
            # the next reader of a pipe has not seen the beginning of that line.
            self._torn = b"" if isinstance(error, BrokenPipeError) else bytes(data[done : ends[begun]])
            self._fail(error, batch[:begun], batch[begun:])
        else:
            self._torn = b""
            with self._lock:
                self._failure = None
                self._written += sum(not isinstance(item, Gap) for item in batch)
        finally:
            self._stuck_since_s = None

    def _fail(self, error: OSError, written: list[T | Gap[T]], missing: list[T | Gap[T]]) -> None:
        gaps = [item if isinstance(item, Gap) else Gap(1, item, item) for item in missing]
        if gaps:
            self._gap = Gap(sum(gap.count for gap in gaps), gaps[0].first, gaps[-1].last)
        with self._lock:
            is_new = self._failure is None
            self._failure = error
            self._written += sum(not isinstance(item, Gap) for item in written)
            self._lost += sum(not isinstance(item, Gap) for item in missing)
        if is_new and self._on_failed is not None:
            self._on_failed(error)


def close_writers(*writers: "LineWriter[T]", wait_s: float = CLOSE_WAIT_S) -> bool:
    """Let writers write what they still have, for this long in all; return whether all could.

    A write that stands still for so long already is not waited for. What is not written by then is lost: the thread is
    left to the end of the process.
    """
    deadline_s = time.monotonic() + wait_s
    for writer in writers:
        writer.begin_close()
    are_closed = True
    for writer in writers:
        timeout_s = min(deadline_s - time.monotonic(), wait_s - writer.stuck_s())
        are_closed &= writer.wait_closed(max(0.0, timeout_s))
    return are_closed


@attrs.frozen
class LineSink:
    """Gives a trace's records to a writer."""

    writer: LineWriter[Record]
    level: int
    """The lowest level to write."""

    def write(self, record: Record) -> None:
        """Take a record, or count it as lost."""
        self.writer.put(record)


def lost_record(gap: Gap[Record]) -> Record:
    """Return the record that says which records are missing."""
    lost = TraceLost(gap.count, gap.first.seq, gap.last.seq)
    return attrs.evolve(gap.last, event=lost, node=None, term=None, role=None)


def _write_some(descriptor: int, data: memoryview) -> int:
    """Write some bytes and return how many, also where whoever shares the descriptor made it non-blocking."""
    with suppress(BlockingIOError):
        return os.write(descriptor, data)
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
    return 0
