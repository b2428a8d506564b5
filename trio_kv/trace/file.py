"""Trace files: one JSON object a line, appended in batches by a thread, read back as records.

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import msgspec

from trio_kv.raft.events import DEBUG, Event
from trio_kv.trace.lines import BUFFER_LINES_MAX, LineSink, LineWriter, lost_record
from trio_kv.trace.schema import COMMON_MEMBERS, SCHEMA_VERSION, event_classes
from trio_kv.trace.text import encode_json
from trio_kv.trace.trace import Record, parse_time
from trio_kv.trace.vocabulary import TraceEnded, TraceStarted, UnknownEvent

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
    return LineSink(writer, DEBUG)


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
        record = _parse_line(line, f"{path}:1")
    except TraceFormatError as error:
        raise TraceFormatError(f"{path} holds something else than a trace") from error
    _check_start(record, f"{path}:1")


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


class TraceFormatError(ValueError):
    """A file is not a trace, or not one that this version can read."""


def start_record(version: str, *, time_s: float, mono_s: float) -> Record:
    """Return the record that opens a trace file."""
    return Record(time_s, mono_s, 0, TraceStarted(SCHEMA_VERSION, version))


def encode_line(record: Record) -> bytes:
    r"""Return a record as one line of JSON with its \n."""
    return encode_json(record.members()) + b"\n"


def read_trace(path: Path) -> Iterator[Record]:
    r"""Yield the records of a trace file, run after run: each begins with `trace.started`.

    With each run `seq` begins anew, and `mono` may be that of another boot. Events that this version doesn't know come
    as `UnknownEvent`. A last line without \n is what a killed process left of a batch, and is passed over.

    Raises:
        OSError: the file can't be read.
        TraceFormatError: a line is not a record, or the schema is another one; says which line.

    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            where = f"{path}:{number}"
            record = _parse_line(line, where)
            if number == 1 or isinstance(record.event, TraceStarted):
                _check_start(record, where)
            yield record


def _check_start(record: Record, where: str) -> None:
    start = record.event
    if not isinstance(start, TraceStarted):
        raise TraceFormatError(f"{where}: the first line is {type(start).name}, not trace.started")
    if start.schema != SCHEMA_VERSION:
        raise TraceFormatError(f"{where}: has schema {start.schema}, this version reads {SCHEMA_VERSION}")


def _parse_line(line: bytes, where: str) -> Record:
    try:
        members = _decode(line)
        event_name = members["event"]
        own = {name: value for name, value in members.items() if name not in COMMON_MEMBERS}
        event_class = event_classes().get(event_name)
        event: Event = (
            UnknownEvent(event_name, own) if event_class is None else msgspec.convert(own, event_class)
        )
        return Record(
            parse_time(members["time"]),
            float(members["mono"]),
            members["seq"],
            event,
            members.get("node"),
            members.get("term"),
            members.get("role"),
        )
    except KeyError as error:
        raise TraceFormatError(f"{where}: no member {error}") from error
    except (ValueError, TypeError) as error:
        raise TraceFormatError(f"{where}: {error}") from error


_LINE_START = b'{"time":"'
_decode = msgspec.json.Decoder(dict[str, Any]).decode
