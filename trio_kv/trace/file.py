"""Trace files: one JSON object a line, written in batches by a thread, read back as records.

The first line is `trace.started` with the version of the schema, the last `trace.ended`; a file without the
latter belongs to a process that was killed or still runs. Between the event loop and the thread stands a
bounded buffer. When it is full, new events are dropped and counted, and a `trace.lost` line says so in their
place: a trace must never hold up the store that it tells of.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs
import msgspec

from trio_kv.raft.events import DEBUG, Event
from trio_kv.trace.trace import Record, parse_time
from trio_kv.trace.vocabulary import (
    COMMON_MEMBERS,
    SCHEMA_VERSION,
    TraceEnded,
    TraceLost,
    TraceStarted,
    UnknownEvent,
    event_classes,
)

BUFFER_RECORDS_MAX = 65_536
"""Records that wait for the thread; further ones are dropped and counted."""

FLUSH_INTERVAL_S = 0.05
"""How long the thread lets records gather before it writes them."""


@attrs.frozen
class FileSinkStatistics:
    """How a trace file fares."""

    written: int
    lost: int
    failure: OSError | None
    """Why nothing is written any more, if so."""


class FileSink:
    """Writes every event into a file. Opened by `open`, and closed, from the event loop's thread.

    Invariants: what is written is in the order of `seq`; written + lost + buffered = all that came.
    """

    level = DEBUG

    def __init__(
        self,
        path: Path,
        first: Record,
        *,
        buffer_records_max: int = BUFFER_RECORDS_MAX,
        on_failed: Callable[[OSError], None] | None = None,
        gather: Callable[[], object] | None = None,
    ) -> None:
        """Create the file, or empty it, and start the thread.

        Args:
            path: of the file.
            first: the record of `trace.started`, see `start_record`.
            buffer_records_max: records that may wait for the thread.
            on_failed: called once, in the writer's thread, when the file can't be written.
            gather: called in the writer's thread before each batch; waits `FLUSH_INTERVAL_S` if None.

        Raises:
            OSError: the file can't be created.

        """
        self._file = path.open("wb", buffering=0)
        self._buffer_records_max = buffer_records_max
        self._on_failed = on_failed
        self._lock = threading.Lock()
        self._buffer: list[Record] = [first]
        self._dropped: list[int] = []  # count, first seq, last seq; empty if none
        self._lost = 0
        self._written = 0
        self._failure: OSError | None = None
        self._latest = first
        self._has_work = threading.Event()
        self._is_closing = threading.Event()
        self._gather = gather or self._wait_interval
        self._has_work.set()
        self._thread = threading.Thread(target=self._run, name=f"trace {path.name}", daemon=True)
        self._thread.start()

    def write(self, record: Record) -> None:
        """Take a record, or count it as lost."""
        with self._lock:
            self._latest = record
            if self._failure is None and len(self._buffer) < self._buffer_records_max:
                self._buffer.append(record)
            else:
                self._lost += 1
                self._dropped = (
                    [self._dropped[0] + 1, self._dropped[1], record.seq]
                    if self._dropped
                    else [1, record.seq, record.seq]
                )
        if not self._has_work.is_set():
            self._has_work.set()

    def statistics(self) -> FileSinkStatistics:
        """Return how the file fares."""
        with self._lock:
            return FileSinkStatistics(self._written, self._lost, self._failure)

    def close(self) -> None:
        """Write what is left, then `trace.ended`. Blocks until it is done; a second call does nothing."""
        if self._is_closing.is_set():
            return
        self._is_closing.set()
        self._has_work.set()
        self._thread.join()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        while not self._is_closing.is_set():
            self._has_work.wait()
            self._gather()
            self._has_work.clear()
            self._flush()
        self._flush()
        end = attrs.evolve(self._latest, event=TraceEnded(self._lost), node=None, term=None, role=None)
        self._write_out([end])

    def _wait_interval(self) -> None:
        self._is_closing.wait(FLUSH_INTERVAL_S)

    def _flush(self) -> None:
        with self._lock:
            records, self._buffer = self._buffer, []
            dropped, self._dropped = self._dropped, []
            latest = self._latest
        if dropped:
            # Only what came while the buffer was full was dropped, so the gap lies behind the whole batch.
            lost = TraceLost(*dropped)
            records.append(attrs.evolve(latest, event=lost, node=None, term=None, role=None))
        if records:
            self._write_out(records)

    def _write_out(self, records: list[Record]) -> None:
        if self._failure is not None:
            return
        data = memoryview(b"".join(encode_line(record) for record in records))
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            self._fail(error, len(records))
        else:
            with self._lock:
                self._written += len(records)

    def _fail(self, error: OSError, records: int) -> None:
        with self._lock:
            self._failure = error
            self._lost += records + len(self._buffer)
            self._buffer = []
        if self._on_failed is not None:
            self._on_failed(error)


class TraceFormatError(ValueError):
    """A file is not a trace, or not one that this version can read."""


def start_record(version: str, *, time_s: float, mono_s: float) -> Record:
    """Return the record that opens a trace file."""
    return Record(time_s, mono_s, 0, TraceStarted(SCHEMA_VERSION, version))


def encode_line(record: Record) -> bytes:
    r"""Return a record as one line of JSON with its \n."""
    return _encode(record.members()) + b"\n"


def read_trace(path: Path) -> Iterator[Record]:
    r"""Yield the records of a trace file, `trace.started` first.

    Events that this version doesn't know come as `UnknownEvent`. A last line without \n is what a killed
    process left of a batch, and is passed over.

    Raises:
        OSError: the file can't be read.
        TraceFormatError: a line is not a record, or the schema is another one; says which line.

    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            record = _parse_line(line, f"{path}:{number}")
            if number == 1:
                _check_start(record, path)
            yield record


def _check_start(record: Record, path: Path) -> None:
    start = record.event
    if not isinstance(start, TraceStarted):
        raise TraceFormatError(f"{path}: the first line is {type(start).name}, not trace.started")
    if start.schema != SCHEMA_VERSION:
        raise TraceFormatError(f"{path}: has schema {start.schema}, this version reads {SCHEMA_VERSION}")


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


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
