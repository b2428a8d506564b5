"""How results look: data to stdout, messages to stderr, an exit code that a script can act on.

`table`, the default, is for people and simple scripts; `json` prints what the server said. A value is
printed as one would type it: a string that is no JSON by itself as bare text, all else as JSON. So the output
of `get`, given to `set`, writes the same value again, and no stored text can speak to the terminal.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from enum import IntEnum
from typing import Any, Literal

import msgspec

from trio_kv.cli.errors import UsageError
from trio_kv.cli.terminal import is_terminal
from trio_kv.client.values import NotStorableError, read_json
from trio_kv.trace.text import encode_json, printable_json, printable_lines
from trio_kv.wire.replies import ReplyLine

Output = Literal["table", "json"]

NULL = msgspec.Raw(b"null")

STDIN_BYTES_MAX = 1 << 30
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
        print(printable_lines(f"trio-kv: {message}"), file=sys.stderr)


def show(text: str, end: str = "\n") -> None:
    """Print data on stdout: into a pipe to the byte, on a terminal with escapes for what it would obey."""
    print(printable_lines(text) if is_terminal(sys.stdout) else text, end=end)


def show_json(members: Mapping[str, Any]) -> None:
    """Print members as a line of JSON on stdout, whatever the names of files in it are made of."""
    print(encode_json(members).decode())


def parse_value(text: str) -> msgspec.Raw:
    """Return the JSON text that a typed value means: itself if it is JSON, else a string.

    >>> parse_value("7"), parse_value("chips")
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


def read_value(word: str) -> msgspec.Raw:
    """Return the value that an argument means: `-` stands for what comes from stdin, to the last byte.

    Raises:
        UsageError: stdin is closed or holds no UTF-8, or the value is JSON that the store does not take.

    """
    if word != "-":
        return parse_value(word)
    if sys.stdin is None:
        raise UsageError("the value is to come from stdin, which is closed")
    data = sys.stdin.buffer.read(STDIN_BYTES_MAX + 1)
    if len(data) > STDIN_BYTES_MAX:
        raise UsageError(f"no server takes a value of more than {STDIN_BYTES_MAX} bytes")
    try:
        return parse_value(data.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"what comes from stdin is no UTF-8: byte {error.start + 1}") from error


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


def show_answer(answer: ReplyLine, output: Output, *, has_value: bool, is_raw: bool = False) -> ExitCode:
    """Print an answer and return its exit code.

    Args:
        answer: what the store said.
        output: as a table, or as it came.
        has_value: whether the value is what was asked for; else `ok` is printed.
        is_raw: print the value to the byte.

    """
    value = answer.value or NULL
    if output == "json":
        show(answer.line.decode().rstrip())
    elif answer.code == "ok":
        if is_raw:
            show_raw(value)
        else:
            show(show_value(value) if has_value else "ok")
    elif answer.code == "conflict":
        say(f"conflict: {answer.message} (the value is {show_value(value)})")
    elif answer.code == "missing":
        say("there is no such key")
    else:
        say(f"{answer.code}: {answer.message}")
    return exit_code(answer)
