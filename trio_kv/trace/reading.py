"""Reading traces: from files and pipes, packed or not, line by line, as much as fits into no memory.

With each run (`trace.started`) `seq` begins anew, and `mono` may be that of another boot. Events that this version
doesn't know come as `UnknownEvent`. A last line without its end is what a killed process left, and is passed over.
"""

import gzip
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import msgspec

from trio_kv.raft.events import Event
from trio_kv.trace.marks import TraceStarted, UnknownEvent
from trio_kv.trace.schema import COMMON_MEMBERS, SCHEMA_VERSION, event_classes
from trio_kv.trace.trace import Record, parse_time

GZIP_MAGIC = b"\x1f\x8b"
LINE_BYTES_MAX = 1 << 24
"""A longer line is none of ours."""


class TraceFormatError(ValueError):
    """A file is not a trace, or not one that this version can read."""


class _Head(msgspec.Struct):
    """What all records have."""

    time: str
    mono: float
    seq: int
    event: str
    node: int | None = None
    term: int | None = None
    role: str | None = None
    process: int | None = None


class TraceReader:
    """Yields the records of a trace, once.

    Args:
        file: of lines.
        name: what it is called in errors.
        begins_anywhere: take also what does not begin with `trace.started`, such as the end of a file.

    Raises, when iterated:
        OSError: it can't be read.
        TraceFormatError: a line is not a record, or the schema is another one; says which line.

    """

    def __init__(self, file: IO[bytes], name: str, *, begins_anywhere: bool = True) -> None:
        """Read nothing yet; see the class."""
        self._file = file
        self._name = name
        self._begins_anywhere = begins_anywhere
        self.line = 0
        """Number of the line that the latest record came from."""
        self.is_torn = False
        """Whether it ends inside a line."""
        self.total_bytes: int | None = None
        """How many bytes there are, as they lie on the disk; None if nobody knows."""
        self._raw: BinaryIO | None = None

    @property
    def done_bytes(self) -> int:
        """How many of them were read."""
        return 0 if self._raw is None else self._raw.tell()

    def __iter__(self) -> Iterator[Record]:
        readline = self._file.readline
        while data := readline(LINE_BYTES_MAX):
            if not data.endswith(b"\n"):
                if len(data) == LINE_BYTES_MAX:
                    raise TraceFormatError(f"{self._name}:{self.line + 1}: the line is too long for a record")
                self.is_torn = True
                return
            self.line += 1
            try:
                record = decode_record(data)
            except (ValueError, TypeError) as error:
                raise TraceFormatError(f"{self._name}:{self.line}: {error}") from error
            is_start = isinstance(record.event, TraceStarted)
            if is_start or (self.line == 1 and not self._begins_anywhere):
                check_start(record, f"{self._name}:{self.line}")
            yield record


@contextmanager
def open_trace(path: Path) -> Iterator[TraceReader]:
    """Open a trace: a file, packed by gzip or not; `-` is the standard input.

    Raises:
        OSError: it can't be read.

    """
    if str(path) == "-":
        if sys.stdin is None:
            raise TraceFormatError("the trace is to come from stdin, which is closed")
        yield TraceReader(_unpacked(cast("BufferedReader", sys.stdin.buffer)), "stdin")
        return
    with path.open("rb") as file:
        reader = TraceReader(_unpacked(file), str(path))
        if path.is_file():
            reader._raw, reader.total_bytes = file, path.stat().st_size  # noqa: SLF001 - who opens it knows
        yield reader


def _unpacked(file: BufferedReader) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(file)) if file.peek(2).startswith(GZIP_MAGIC) else file


def read_trace(path: Path) -> Iterator[Record]:
    """Yield the records of a trace file, run after run: each begins with `trace.started`.

    Raises:
        OSError: the file can't be read.
        TraceFormatError: a line is not a record, or the schema is another one; says which line.

    """
    with path.open("rb") as file:
        yield from TraceReader(file, str(path), begins_anywhere=False)


def check_start(record: Record, where: str) -> None:
    """Require that a run begins with this record, in a schema that is read here.

    Raises:
        TraceFormatError: it does not.

    """
    start = record.event
    if not isinstance(start, TraceStarted):
        raise TraceFormatError(f"{where}: the first line is {type(start).name}, not trace.started")
    if start.schema != SCHEMA_VERSION:
        raise TraceFormatError(f"{where}: has schema {start.schema}, this version reads {SCHEMA_VERSION}")


def decode_record(line: bytes) -> Record:
    """Return what a line says.

    Raises:
        ValueError: it is no record.

    """
    head = _decode_head(line)
    decoder = _DECODERS.get(head.event)
    event: Event = _decode_unknown(line, head.event) if decoder is None else decoder.decode(line)
    return Record(
        parse_time(head.time),
        head.mono,
        head.seq,
        event,
        head.node,
        head.term,
        head.role,
        head.process,
    )


def _decode_unknown(line: bytes, name: str) -> UnknownEvent:
    members: dict[str, Any] = msgspec.json.decode(line)
    if name == UnknownEvent.name:
        return UnknownEvent(members["original"], members["members"])
    return UnknownEvent(name, {key: value for key, value in members.items() if key not in COMMON_MEMBERS})


_decode_head = msgspec.json.Decoder(_Head).decode
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    name: msgspec.json.Decoder(event_class)
    for name, event_class in event_classes().items()
    if event_class is not UnknownEvent
}
"""What reads the members of an event: those that all have are passed over."""
