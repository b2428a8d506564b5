"""Trace files: one JSON object a line, appended in batches by a thread. They are read by `reading`.

A file holds one run of the store after another: the trace of a run that crashed is what its reader wants to see after
the restart. Each run begins with `trace.started`, which has the version of the schema, and ends with `trace.ended`; one
without the latter was killed, or goes on. Between the event loop and the thread stands a bounded buffer (`LineWriter`):
what finds no room is dropped, and a `trace.lost` line says so in its place. A trace must never hold up the store that
it tells of, also when it goes into a named pipe that nobody reads.
"""

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import attrs

from trio_kv.raft.events import DEBUG
from trio_kv.trace.lines import BUFFER_LINES_MAX, LineSink, LineWriter, lost_record
from trio_kv.trace.marks import TraceEnded, TraceStarted
from trio_kv.trace.reading import TraceFormatError, check_start, decode_record
from trio_kv.trace.schema import SCHEMA_VERSION
from trio_kv.trace.text import encode_json
from trio_kv.trace.trace import Record

GATHER_S = 0.05
"""How long the thread lets records gather before it writes them."""

FIRST_LINE_BYTES_MAX = 4096
"""A first line that is longer is no `trace.started`."""

TAIL_BYTES = 1 << 16
"""How much is read at once to find the end of the last whole line."""


def trace_file(
    path: Path,
    first: Record,
    *,
    lines_max: int = BUFFER_LINES_MAX,
    on_failed: Callable[[OSError], object] | None = None,
    gather: Callable[[threading.Event], object] | None = None,
) -> LineSink:
    """Return a sink that appends every event to a file, `trace.ended` when its writer is closed.

    What a run that was killed left of its last line is cut off. A named pipe that nobody reads yet is waited for in the
    thread.

    Args:
        path: of the file; it is made if it is not there.
        first: the record of `trace.started`, see `start_record`.
        lines_max: how many records may wait for the thread.
        on_failed: called in the thread when the file can't be written any more, once until it can be again.
        gather: called in the thread before each batch; waits `GATHER_S`, or for the end, if None.

    Raises:
        OSError: the file can't be written, or another process writes a trace into it.
        TraceFormatError: the file holds something else, which is left as it is.

    """
    writer: LineWriter[Record] = LineWriter(
        _open_file(path),
        encode_line,
        lost_record,
        name="trace",
        lines_max=lines_max,
        gather=gather or _wait_a_little,
        on_failed=on_failed,
        make_end=_make_end,
        is_owner=True,
    )
    writer.put(first)
    return _OwnSink(writer, DEBUG)


class _OwnSink(LineSink):
    """Writes what this process tells, and not what others told it: each of them has a file of its own.

    One file is judged in its order, and what comes over links is not in the order in which it happened.
    """

    def write(self, record: Record) -> None:
        """Take a record, or count it as lost."""
        if record.process is None:
            super().write(record)


def _wait_a_little(is_closing: threading.Event) -> None:
    is_closing.wait(GATHER_S)


def _make_end(latest: Record, lost: int) -> Record:
    return attrs.evolve(latest, event=TraceEnded(lost), node=None, term=None, role=None)


def _open_file(path: Path) -> Callable[[], int]:
    """Open the file, and return a function that returns its descriptor; for a pipe without a reader, one that waits."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno != errno.ENXIO or not stat.S_ISFIFO(path.stat().st_mode):
            raise
        return lambda: os.open(path, flags)
    try:
        os.set_blocking(descriptor, True)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            _continue_file(path, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return lambda: descriptor


def _continue_file(path: Path, descriptor: int) -> None:
    """Make sure that the file is a trace of ours and of nobody else, and ends with a whole line."""
    _lock(descriptor)
    with path.open("rb") as file:
        first = file.readline(FIRST_LINE_BYTES_MAX)
        # Without its end it is what a kill or a power failure left of our first write.
        is_torn = not first.endswith(b"\n") and (first.startswith(_LINE_START) or not first.strip(b"\0"))
        if not is_torn:
            _check_first(first, path)
        os.ftruncate(descriptor, _whole_bytes(file))


def _check_first(line: bytes, path: Path) -> None:
    try:
        record = decode_record(line)
    except ValueError as error:
        raise TraceFormatError(f"{path} holds something else than a trace") from error
    check_start(record, f"{path}:1")


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BlockingIOError(errno.EAGAIN, "Another process writes a trace into it") from error
    except OSError:
        pass  # some network file systems have no locks


def _whole_bytes(file: BinaryIO) -> int:
    """Return how many bytes of a file are whole lines."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - TAIL_BYTES)
        file.seek(begin)
        newline = file.read(end - begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def start_record(version: str, *, time_s: float, mono_s: float) -> Record:
    """Return the record that opens a trace file."""
    return Record(time_s, mono_s, 0, TraceStarted(SCHEMA_VERSION, version))


def encode_line(record: Record) -> bytes:
    r"""Return a record as one line of JSON with its \n."""
    return encode_json(record.members()) + b"\n"


_LINE_START = b'{"time":"'
