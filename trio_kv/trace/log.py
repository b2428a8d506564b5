"""The log for people and for log collectors: events of level INFO and up, through structlog, to stderr.

The trace formats its own lines and structlog carries them: a logger of our own, wrapped here and typed once,
so that nothing of an embedding program's structlog configuration is touched. An event that is not wanted is
dropped before structlog sees it.
"""

import sys
from collections.abc import MutableMapping
from datetime import datetime
from typing import Any, BinaryIO, Protocol, TextIO, cast

import msgspec
import structlog

from trio_kv.raft.events import INFO, WARNING, Event
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import ERROR, member_names

FIELD_CHARS_MAX = 200
"""A longer text is cut on the console; JSON lines have it whole."""

_DIM, _YELLOW, _RED, _RESET = "\x1b[2m", "\x1b[33m", "\x1b[31m", "\x1b[0m"


class _Logger(Protocol):
    """What we use of a structlog logger, which `structlog.wrap_logger` returns as Any."""

    def log(self, level: int, event: str, *, record: Record) -> None: ...


class StructlogSink:
    """Writes events as lines.

    If the stream can't be written any more (its reader is gone), the sink falls silent and counts: a store
    does not die with the terminal that watched it.
    """

    def __init__(self, logger: _Logger, level: int) -> None:
        self.level = level
        self.lost = 0
        """Lines that could not be written."""
        self._logger = logger

    def write(self, record: Record) -> None:
        """Write a line, or count it as lost."""
        event_class = type(record.event)
        try:
            self._logger.log(event_class.level, event_class.name, record=record)
        except (OSError, ValueError):  # ValueError: the stream was closed
            self.lost += 1


def json_log(stream: BinaryIO | None = None, level: int = INFO) -> StructlogSink:
    """Return a sink that writes one JSON object a line.

    Args:
        stream: where to; stderr if None.
        level: the lowest level to write.

    """
    factory = structlog.BytesLoggerFactory(stream or sys.stderr.buffer)
    return StructlogSink(_wrap(factory(), level, _render_json), level)


def console_log(
    stream: TextIO | None = None, level: int = INFO, *, has_color: bool | None = None
) -> StructlogSink:
    """Return a sink that writes short aligned lines for people.

    Args:
        stream: where to; stderr if None.
        level: the lowest level to write.
        has_color: mark warnings and errors by colour; None: if the stream is a terminal.

    """
    stream = stream or sys.stderr
    is_colored = stream.isatty() if has_color is None else has_color

    def render(_: object, __: str, members: MutableMapping[str, Any]) -> str:
        return render_console(members["record"], has_color=is_colored)

    return StructlogSink(_wrap(structlog.WriteLogger(stream), level, render), level)


def _wrap(logger: object, level: int, renderer: structlog.typing.Processor) -> _Logger:
    wrapper = structlog.make_filtering_bound_logger(level)
    return cast("_Logger", structlog.wrap_logger(logger, processors=[renderer], wrapper_class=wrapper))


def _render_json(_: object, __: str, members: MutableMapping[str, Any]) -> bytes:
    return msgspec.json.encode(members["record"].members())


def render_console(record: Record, *, has_color: bool = False) -> str:
    """Return a record as a line for people: local time, node@term, role, event, its members.

    >>> 06:31:02.114 n2@5   leader        leader.elected votes=1,2,4 first_index=17
    """
    event_class = type(record.event)
    local = datetime.fromtimestamp(record.time_s).astimezone()
    clock = f"{local:%H:%M:%S}.{local.microsecond // 1000:03d}"
    node = "" if record.node is None else f"n{record.node}"
    who = node if record.term is None else f"{node}@{record.term}"
    name = event_class.name
    if has_color:
        clock = f"{_DIM}{clock}{_RESET}"
        color = _RED if event_class.level >= ERROR else _YELLOW if event_class.level >= WARNING else ""
        name = f"{color}{name}{_RESET}" if color else name
    fields = "".join(f" {key}={text}" for key, text in _fields(record.event))
    traceback = getattr(record.event, "traceback", "")
    tail = "".join(f"\n    {line}" for line in traceback.splitlines())
    return f"{clock} {who:<6} {record.role or '':<13} {name}{fields}{tail}"


def _fields(event: Event) -> list[tuple[str, str]]:
    return [
        (name, _show(name, getattr(event, name)))
        for name in member_names(type(event))
        if name != "traceback" and getattr(event, name) is not None
    ]


def _show(name: str, value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() if name.endswith(("crc", "digest")):
            return f"{value:08x}"
        case float():
            return f"{value:.3g}"
        case tuple() | list():
            separator = "/" if any(isinstance(item, tuple) for item in value) else ","
            return separator.join(_show(name, item) for item in value) or "-"
        case str():
            return _show_text(value)
        case _:
            return str(value)


def _show_text(text: str) -> str:
    if len(text) > FIELD_CHARS_MAX:
        text = text[: FIELD_CHARS_MAX - 1] + "…"
    # Quoted, a text of another's making can neither end its field nor speak to the terminal.
    is_plain = bool(text) and text.isprintable() and " " not in text and '"' not in text
    return text if is_plain else msgspec.json.encode(text).decode()
