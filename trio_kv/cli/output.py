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

from trio_kv.cli.terminal import is_terminal, open_console
from trio_kv.trace.text import encode_json, printable_json, printable_lines
from trio_kv.wire.requests import ReplyLine

Output = Literal["table", "json"]

NULL = msgspec.Raw(b"null")


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
    """
    data = text.encode(errors="surrogateescape")
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        data = msgspec.json.encode(text)
    return msgspec.Raw(data.strip())


def show_value(value_text: msgspec.Raw) -> str:
    """Return a value as one would type it; what a terminal would obey instead of show stands in it as an escape."""
    json_text = printable_json(bytes(value_text).decode())
    if not json_text.startswith('"'):
        return json_text
    text = msgspec.json.decode(value_text, type=str)
    is_bare = bool(text) and text.isprintable() and text == text.strip() and not text.startswith("-")
    return text if is_bare and bytes(parse_value(text)) == msgspec.json.encode(text) else json_text


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


def show_answer(answer: ReplyLine, output: Output, *, has_value: bool) -> ExitCode:
    """Print an answer and return its exit code.

    Args:
        answer: what the store said.
        output: as a table, or as it came.
        has_value: whether the value is what was asked for; else `ok` is printed.

    """
    if output == "json":
        show(answer.line.decode().rstrip())
    elif answer.code == "ok":
        show(show_value(answer.value or NULL) if has_value else "ok")
    elif answer.code == "conflict":
        say(f"conflict: {answer.message} (the value is {show_value(answer.value or NULL)})")
    elif answer.code == "missing":
        say("there is no such key")
    else:
        say(f"{answer.code}: {answer.message}")
    return exit_code(answer)


STATUS_COLUMNS = ("node", "role", "state", "term", "commit", "applied", "log_first", "log_last", "digest")


def show_status(members: Mapping[str, Any], output: Output) -> ExitCode:
    """Print the cluster's status and return the exit code: NOT_CONNECTED without a leader.

    Args:
        members: of the status reply.
        output: as a table with the leader marked by a star, or as JSON.

    """
    if output == "json":
        show_json(members)
    else:
        _show_status_table(members)
    return ExitCode.NOT_CONNECTED if members.get("leader") is None else ExitCode.OK


def _show_status_table(members: Mapping[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    leader = members.get("leader")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in STATUS_COLUMNS:
        is_number = column in {"term", "commit", "applied", "log_first", "log_last"}
        table.add_column(column, justify="right" if is_number else "left", no_wrap=True)
    nodes = members.get("nodes", [])
    for node in nodes:
        is_leader = node.get("node") == leader
        cells = ["" if node.get(column) is None else str(node[column]) for column in STATUS_COLUMNS]
        cells[0] += "*" if is_leader else ""
        table.add_row(*cells, style="bold" if is_leader else "dim" if node.get("state") != "up" else "")
    console = open_console(sys.stdout)
    console.print(table)
    for node in nodes:
        if node.get("reason"):
            console.print(f"n{node['node']}: {printable_lines(node['reason'])}", markup=False)
    elected = "no leader" if leader is None else f"n{leader} leads"
    console.print(f"{elected} in term {members.get('term')}")
