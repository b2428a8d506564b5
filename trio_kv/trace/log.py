"""The log for people and for log collectors: events of level INFO and up, one line each, to stderr.

structlog formats the lines, with a logger of our own that is wrapped here and typed once, so that nothing of an
embedding program's structlog configuration is touched. A `LineWriter` carries them, so that a terminal that stands
still, or a pipe that nobody reads, holds up nobody; a store does not die with the terminal that watched it, either.
"""

from collections.abc import MutableMapping
from datetime import datetime
from typing import Any, Protocol, cast

import structlog

from trio_kv.raft.events import DEBUG, ERROR, INFO, WARNING, Event
from trio_kv.trace.file import encode_line
from trio_kv.trace.lines import LineSink, LineWriter, lost_record
from trio_kv.trace.schema import member_names
from trio_kv.trace.text import ESCAPED, encode_json, printable
from trio_kv.trace.trace import Record

FIELD_CHARS_MAX = 200
"""A longer text is cut on the console; JSON lines have it whole."""

STDERR = 2

_DIM, _YELLOW, _RED, _RESET = "\x1b[2m", "\x1b[33m", "\x1b[31m", "\x1b[0m"


class _Logger(Protocol):
    """What we use of a structlog logger, which `structlog.wrap_logger` returns as Any."""

    def info(self, event: str, *, record: Record) -> bytes: ...


def json_log(descriptor: int = STDERR, level: int = INFO) -> LineSink:
    """Return a sink that writes one JSON object a line.

    Args:
        descriptor: where to.
        level: the lowest level to write.

    """

    def render(_: object, __: str, members: MutableMapping[str, Any]) -> bytes:
        return encode_line(members["record"])

    return LineSink(_open_log(descriptor, render), level)


def console_log(
    descriptor: int = STDERR, level: int = INFO, *, has_color: bool = False, encoding: str = "utf-8"
) -> LineSink:
    """Return a sink that writes short aligned lines for people.

    Args:
        descriptor: where to.
        level: the lowest level to write.
        has_color: mark warnings and errors by colour.
        encoding: of the terminal; what it lacks is shown escaped.

    """

    def render(_: object, __: str, members: MutableMapping[str, Any]) -> bytes:
        return f"{render_console(members['record'], has_color=has_color)}\n".encode(encoding, ESCAPED)

    return LineSink(_open_log(descriptor, render), level)


def _open_log(descriptor: int, renderer: structlog.typing.Processor) -> LineWriter[Record]:
    # The trace has looked at the level already; what comes is written, whatever its level.
    wrapper = structlog.make_filtering_bound_logger(DEBUG)
    logger = cast(
        "_Logger",
        structlog.wrap_logger(structlog.ReturnLogger(), processors=[renderer], wrapper_class=wrapper).bind(),
    )
    return LineWriter(
        lambda: descriptor,
        lambda record: logger.info(type(record.event).name, record=record),
        lost_record,
        name="log",
    )


def render_console(record: Record, *, has_color: bool = False) -> str:
    """Return a record as a line for people: local time, node@term, role, event, its members.

    06:31:02.114 n2@5   leader        leader.elected votes=1,2,4 first_index=17
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
    tail = "".join(f"\n    {printable(line)}" for line in traceback.splitlines())
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
    return text if is_plain else encode_json(text).decode()
