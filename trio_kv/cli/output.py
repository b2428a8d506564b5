"""How results look: data to stdout, messages to stderr, an exit code that a script can act on.

`text`, the default, is for people and simple scripts, and the same on a terminal and in a pipe; `table` has columns
with names; `json` prints what the server said, a line each. A value is printed as one would type it: a string that is
no JSON by itself as bare text, all else as JSON. So the output of `get`, given to `set`, writes the same value again,
and no stored text can speak to the terminal.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import msgspec

from trio_kv.cli.errors import UsageError
from trio_kv.cli.terminal import is_terminal
from trio_kv.client.values import NotStorableError, read_json
from trio_kv.trace.text import encode_json, printable_json, printable_lines
from trio_kv.wire.replies import ReplyLine

Output = Literal["text", "table", "json"]

NULL = msgspec.Raw(b"null")

STREAM = "-"
"""Stands for stdin."""
VALUE_BYTES_MAX = 1 << 30
"""A longer value is not even read: no server can be told to take such a line."""


class ExitCode(IntEnum):
    """What became of a command."""

    OK = 0
    NOT_DONE = 1
    """Not found, or a condition did not hold, or the store refused: nothing was changed."""
    USAGE = 2
    NOT_CONNECTED = 3
    """No connection, or no leader: nothing was changed."""
    OUTCOME_UNKNOWN = 4
    """A write went out, and what became of it is not known."""
    FAILED = 70
    """An error that nobody foresaw: nothing is said about what was done. Above what any command uses for a finding."""
    NOT_TOLD = 74
    """It is done, but what it came to could not be written: a full disk behind stdout, say."""
    INTERRUPTED = 130


UNKNOWN_CODES = frozenset({"timeout", "session_expired"})


def say(message: str) -> None:
    """Tell a person something, on stderr; if that can't be written, nobody is told, and nothing else happens."""
    with suppress(OSError, ValueError):  # ValueError: it was closed
        if sys.stdout is not None:
            sys.stdout.flush()  # what was printed before stands before it, where both go to the same place
        print(printable_lines(f"trio-kv: {message}"), file=sys.stderr)


def show(text: str, end: str = "\n") -> None:
    """Print data on stdout: into a pipe to the byte, on a terminal with escapes for what it would obey."""
    print(printable_lines(text) if is_terminal(sys.stdout) else text, end=end)


def show_json(members: Mapping[str, Any]) -> None:
    """Print members as a line of JSON on stdout, whatever the names of files in it are made of."""
    print(encode_json(members).decode())


def parse_value(text: str) -> msgspec.Raw:
    """Return the JSON text that a typed value means: itself if it is JSON, else a string.

    >>> bytes(parse_value("7")), bytes(parse_value("chips"))
    (b'7', b'"chips"')

    Raises:
        UsageError: it is JSON that the store does not take.
        UnicodeEncodeError: it is no text.

    """
    try:
        value = read_json(text)
    except NotStorableError as error:
        raise UsageError(
            f"{error}. As a string it is written as JSON: in double quotes, with \\ and \\u"
        ) from error
    return msgspec.Raw(msgspec.json.encode(text)) if value is None else value


def read_value(word: str | None, file: Path | None = None) -> msgspec.Raw:
    """Return the value that an argument means; see `read_text` for where it may come from.

    Raises:
        UsageError: there is none, or it is JSON that the store does not take.

    """
    return parse_value(read_text(word, file, "VALUE"))


def read_text(word: str | None, file: Path | None, name: str) -> str:
    """Return what was typed, or what is to be read in its place, to the last byte.

    Args:
        word: what was typed: itself, or `-` for stdin.
        file: a file to read instead, or `-` for stdin.
        name: what the word is called.

    Raises:
        UsageError: neither is there, or both are; or what is to be read can't be, or is no UTF-8.

    """
    if word is not None and file is not None:
        raise UsageError(f"{name} stands there, and --file, too: leave out one of them")
    if word is None and file is None:
        raise UsageError(f"{name} is missing: type it, or name a --file; - is stdin")
    if word is not None and word != STREAM:
        return word
    source = "stdin" if file is None or str(file) == STREAM else str(file)
    data = _read_stdin() if source == "stdin" else _read_file(Path(source))
    if len(data) > VALUE_BYTES_MAX:
        raise UsageError(f"{source}: no server takes a value of more than {VALUE_BYTES_MAX} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"what comes from {source} is no UTF-8: byte {error.start + 1}") from error


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise UsageError("the value is to come from stdin, which is closed")
    return sys.stdin.buffer.read(VALUE_BYTES_MAX + 1)


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as opened:
            return opened.read(VALUE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from error


def show_value(value_text: msgspec.Raw) -> str:
    """Return a value as one would type it; what a terminal would obey instead of show stands in it as an escape."""
    json_text = printable_json(bytes(value_text).decode())
    if not json_text.startswith('"'):
        return json_text
    text = msgspec.json.decode(value_text, type=str)
    return text if _is_typed_bare(text) else json_text


def _is_typed_bare(text: str) -> bool:
    """Tell whether a string, typed as it is, means itself."""
    if not text or not text.isprintable() or text != text.strip() or text.startswith("-"):
        return False
    try:
        return read_json(text) is None
    except NotStorableError:
        return False


def show_key(key: str) -> str:
    """Return a key as the shell takes it: bare where that is not ambiguous, else as a JSON string."""
    is_bare = key.isprintable() and " " not in key and not key.startswith(('"', "{", "[", "-"))
    return key if is_bare else msgspec.json.encode(key).decode()


def show_raw(value_text: msgspec.Raw) -> None:
    """Print a value to the byte, with no line end of ours: a string as the text that it is, all else as JSON."""
    if sys.stdout is None:
        return  # closed before we came: as `print` does
    text = bytes(value_text)
    data = msgspec.json.decode(text, type=str).encode() if text.startswith(b'"') else text
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def exit_code(answer: ReplyLine) -> ExitCode:
    """Return the exit code that an answer deserves."""
    match answer.code:
        case "ok":
            return ExitCode.OK
        case "unavailable":
            return ExitCode.NOT_CONNECTED
        case code if code in UNKNOWN_CODES:
            return ExitCode.OUTCOME_UNKNOWN
        case _:
            return ExitCode.NOT_DONE


def show_answer(
    answer: ReplyLine, output: Output, *, has_value: bool, is_raw: bool = False, is_quiet: bool = False
) -> ExitCode:
    """Print an answer and return its exit code.

    Args:
        answer: what the store said.
        output: as text, as a table, or as it came.
        has_value: whether the value is what was asked for; else `ok` is printed.
        is_raw: print the value to the byte.
        is_quiet: print no `ok`, and nothing of a key that is missing or a condition that did not hold.

    """
    value = answer.value or NULL
    if output == "json":
        show(answer.line.decode().rstrip())
    elif answer.code == "ok" and output == "table":
        show_rows([_members(answer)])
    elif answer.code == "ok" and is_raw:
        show_raw(value)
    elif answer.code == "ok" and has_value:
        show(show_value(value))
    elif answer.code == "ok":
        if not is_quiet:
            show("ok")
    elif not (is_quiet and answer.code in ("conflict", "missing")):
        say(explain_answer(answer))
    return exit_code(answer)


def explain_answer(answer: ReplyLine) -> str:
    """Return in words why an answer is not what was asked for."""
    if answer.code == "conflict":
        # Null also stands for no value, which the message tells.
        value = answer.value or NULL
        return f"conflict: {answer.message}" + (
            f" (the value is {show_value(value)})" if value != NULL else ""
        )
    return "there is no such key" if answer.code == "missing" else f"{answer.code}: {answer.message}"


def _members(answer: ReplyLine) -> dict[str, object]:
    """Return the members of an answer that a table has columns for."""
    members: dict[str, object] = {"key": answer.key and show_key(answer.key)}
    members |= {
        "value": None if answer.value is None else show_value(answer.value),
        "revision": answer.revision,
    }
    members |= {"ttl": answer.ttl, "node": answer.node, "term": answer.term}
    return {name: value for name, value in members.items() if value is not None} or {"status": "ok"}


def show_rows(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows as a table: a column for each member, numbers to the right; on a terminal it is as wide as that."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from trio_kv.cli.terminal import open_console

    console = open_console(sys.stdout)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    names = dict.fromkeys(name for row in rows for name in row)
    for name in names:
        is_number = all(isinstance(row.get(name, 0), int | float) for row in rows)
        table.add_column(name, justify="right" if is_number else "left", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(printable_lines(str(row.get(name, ""))).replace("\n", " ")) for name in names))
    if not is_terminal(sys.stdout):
        console.width = max(console.measure(table).maximum, 1)  # in a pipe nothing is cut off
    console.print(table)
