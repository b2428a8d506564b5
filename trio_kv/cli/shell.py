"""`client`: a plain shell. A line is a command, or, if it begins with a brace, a request of the protocol.

It also works in a pipe: no prompt then, and the exit code is that of the last command. A background thread
pings all the while, so that the server does not end the connection for being idle; when a connection
is lost all the same, the next command opens another and says so.
"""

import contextlib
import io
import sys
import threading
from typing import Any, Final

import attrs
import msgspec
from msgspec.structs import fields

from trio_kv.cli.errors import UsageError
from trio_kv.cli.failures import explain_failure
from trio_kv.cli.output import (
    ExitCode,
    exit_code,
    parse_value,
    say,
    show,
    show_answer,
    show_key,
    show_value,
)
from trio_kv.cli.status import show_status
from trio_kv.client.answers import read_page
from trio_kv.client.client import Client
from trio_kv.client.errors import NotConnectedError, OutcomeUnknownError, RefusedError
from trio_kv.client.numbering import read_session
from trio_kv.client.txns import parse_txn
from trio_kv.client.values import BLANKS
from trio_kv.wire.client_sessions import OpenOrRenew
from trio_kv.wire.operations import OPERATIONS, Operation, Ping, Request, Scan, Status, Txn, Watch
from trio_kv.wire.replies import ReplyLine

PROMPT = "trio-kv> "

PING_INTERVAL_S = 3.0
"""A third of the server's default idle time-out: the longest silence of a connection."""

JOIN_S = 0.1
"""How long the end waits for a ping that is under way."""

COMMANDS: Final = {name: kind for name, kind in OPERATIONS.items() if not kind.needs_id}
"""The operations that are one request and one answer."""

HELP: Final = "\n".join(
    [
        *(f"  {f'{name} {kind.words}':<28} {kind.purpose}" for name, kind in COMMANDS.items()),
        f"  {f'watch {Watch.words}':<28} {Watch.purpose}; Ctrl-C ends it",
        '  {"key": ...}                 a line of the protocol, answered as it comes',
        "  help, exit                   (Ctrl-D leaves, too)",
        'What has spaces and is not the last word is written as a JSON string: get "my key".',
    ]
)


TEXTS: Final = ("KEY", "PREFIX", "AFTER")
"""Words that are taken as they stand."""


class CommandError(UsageError):
    """A line that is no command, in words for a person."""


@attrs.frozen
class Arguments:
    """What stands behind the command's word, taken off from the left; a CommandError tells what is wrong with it."""

    rest: str

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing but white space."""
        return not self.rest.strip(BLANKS)

    def take(self, name: str) -> tuple[str, "Arguments"]:
        """Return the next word, or the next JSON value as it stands, and what is behind it."""
        rest = self.rest.lstrip(BLANKS)
        if not rest:
            raise CommandError(f"{name} is missing")
        end = _json_end(rest) if rest[0] in '"{[' else None
        if end is None:
            end = next((place for place, character in enumerate(rest) if character in BLANKS), len(rest))
        return rest[:end], Arguments(rest[end:])

    def take_text(self, name: str) -> tuple[str, "Arguments"]:
        """Return the next word as a text: itself, or what a JSON string says."""
        word, rest = self.take(name)
        return (_decode_string(word) if word.startswith('"') else word), rest

    def end(self) -> None:
        """Make sure that nothing is left."""
        if rest := self.rest.strip(BLANKS):
            raise CommandError(f"{rest!r} is too much; see help")


class Shell:
    """Carries out lines, one at a time; its pings come from another thread.

    Args:
        client: the way to the store.

    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def run_line(self, line: str) -> ExitCode:
        """Carry out a line and print what came of it."""
        line = line.strip(BLANKS)
        try:
            if line.startswith("{"):
                return self._run_raw(line)
            return self._run_command(line)
        except (UsageError, NotConnectedError, OutcomeUnknownError, UnicodeEncodeError) as error:
            return explain_failure(error)

    def keep_alive(self) -> None:
        """Send a ping, if there is a connection.

        A connection that is lost meanwhile is no matter: the next command opens another.
        """
        if self._client.is_connected:
            with contextlib.suppress(NotConnectedError):
                self._client.ask(Request(Ping()))

    def _run_raw(self, line: str) -> ExitCode:
        answer = self._client.send_line(line.encode(errors="surrogateescape"))
        show(answer.line.decode().rstrip())
        return exit_code(answer)

    def _run_command(self, line: str) -> ExitCode:
        word, arguments = Arguments(line).take("a command")
        if word == "help":
            show(HELP)
            return ExitCode.OK
        if word == Watch.__struct_config__.tag:
            return self._watch(arguments)
        if word not in COMMANDS:
            raise CommandError(f"there is no command {word!r}; see help")
        kind = COMMANDS[word]
        operation: Any = _read_txn(arguments) if kind is Txn else kind(**_read_members(kind, arguments))
        return _show(operation, self._client.ask(Request(operation)))

    def _watch(self, arguments: Arguments) -> ExitCode:
        """Show what changes, until interrupted."""
        prefix, arguments = arguments.take_text("PREFIX")
        first: int | None = None
        if not arguments.is_empty:
            word, arguments = arguments.take("FROM")
            if not word.isdecimal():
                raise CommandError(f"FROM is a revision, a whole number, and not {word!r}")
            first = int(word)
        arguments.end()
        try:
            for revision in self._client.watch(prefix, first=first):
                for event in revision.events:
                    value = f"  {show_value(event.value)}" if len(event.value) else ""
                    show(f"{revision.revision}  {event.event}  {show_key(event.key)}{value}")
                sys.stdout.flush()
        except RefusedError as error:
            say(str(error))
        return ExitCode.NOT_DONE


def _show(operation: Any, answer: ReplyLine) -> ExitCode:
    """Show what came of a command."""
    if isinstance(operation, Status) and answer.code == "ok":
        return show_status(msgspec.json.decode(answer.line), "text")
    if isinstance(operation, Scan) and answer.code == "ok":
        return _show_page(answer)
    if isinstance(operation, Txn) and answer.code == "ok":
        show(answer.line.decode().rstrip())
        return ExitCode.OK
    if isinstance(operation, OpenOrRenew) and answer.code == "ok":
        show(read_session(answer).session)
        return ExitCode.OK
    return show_answer(answer, "text", has_value=operation.has_result)


def _show_page(answer: ReplyLine) -> ExitCode:
    page = read_page(answer)
    for item in page.items:
        show(f"{show_key(item.key)}  {show_value(item.value)}")
    if page.is_more:
        say(f"there are more: name {show_key(page.items[-1].key)} as AFTER")
    return ExitCode.OK


def _read_txn(arguments: Arguments) -> Txn:
    """Return a transaction out of the lists that stand on a line.

    Raises:
        CommandError: a list is missing or can't be, or something is too much.

    """
    texts: dict[str, bytes] = {}
    for name in ("if", "then", "else"):
        if name == "else" and arguments.is_empty:
            break
        text, arguments = arguments.take(name.upper())
        texts[name] = bytes(parse_value(text))
    arguments.end()
    try:
        return parse_txn(texts)
    except ValueError as error:
        raise CommandError(str(error)) from error


def _read_members(kind: type[Operation], arguments: Arguments) -> dict[str, Any]:
    """Return the members of an operation out of the words of a line; a value that stands last may hold spaces.

    Raises:
        CommandError: a word is missing, or too much.

    """
    members: dict[str, Any] = {}
    words, types = kind.words.split(), {each.name: each.type for each in fields(kind)}
    for place, word in enumerate(words, 1):
        name = word.strip("[]")
        if name.startswith("--"):
            flag, _, name = name.partition("=")
            rest = arguments.rest.lstrip(BLANKS)
            if rest.split(maxsplit=1)[:1] == [flag]:
                raise CommandError(
                    f'write {flag}={name}, without a space; a key of that name is "{flag}", with the quotes'
                )
            if rest.startswith(f"{flag}="):
                text, arguments = arguments.take(name)
                members[name.lower()] = _read_member(text.removeprefix(f"{flag}="), name, types[name.lower()])
            continue
        if name != word and arguments.is_empty:
            break
        if name in TEXTS:
            members[name.lower()], arguments = arguments.take_text(name)
        elif name == word and place == len(words) and not arguments.is_empty:
            members[name.lower()], arguments = parse_value(arguments.rest.strip(BLANKS)), Arguments("")
        else:
            text, arguments = arguments.take(name)
            members[name.lower()] = _read_member(text, name, types[name.lower()])
    arguments.end()
    return members


def _read_member(text: str, name: str, kind: Any) -> Any:
    """Return a word as a member of that type.

    Raises:
        CommandError: it is none.

    """
    try:
        return msgspec.json.decode(parse_value(text), type=kind)
    except msgspec.ValidationError as error:
        raise CommandError(f"{name} can't be {text}: {error}") from error


def run_shell(client: Client) -> ExitCode:
    """Read lines until the input ends; return the last command's exit code, or OK from a terminal."""
    is_terminal = sys.stdin.isatty()
    if not is_terminal and isinstance(sys.stdin, io.TextIOWrapper):
        # A line ends where the protocol's lines end, and a byte that is no UTF-8 is for the line alone to answer for.
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
    shell = Shell(client)
    is_over = threading.Event()
    pinger = threading.Thread(target=_keep_alive, args=(shell, is_over), name="ping", daemon=True)
    pinger.start()
    if is_terminal:
        _set_up_terminal()
        print(f"trio_kv at {client.address}; `help` tells the commands, Ctrl-D leaves", file=sys.stderr)
    try:
        code = _read_lines(shell, is_terminal=is_terminal)
    finally:
        is_over.set()
        pinger.join(JOIN_S)
        if not pinger.is_alive():  # else it waits for a server that is silent, and ends with the process
            client.close()
    return ExitCode.OK if is_terminal else code


def _keep_alive(shell: Shell, is_over: threading.Event) -> None:
    while not is_over.wait(PING_INTERVAL_S):
        shell.keep_alive()


def _read_lines(shell: Shell, *, is_terminal: bool) -> ExitCode:
    code = ExitCode.OK
    while True:
        try:
            line = input(PROMPT if is_terminal else "").strip(BLANKS)
            if line in {"exit", "quit"}:
                return code
            if line:
                code = shell.run_line(line)
                sys.stdout.flush()
        except EOFError:
            if is_terminal:
                print()
            return code
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            print()  # Ctrl-C drops the line, or stops waiting for an answer


def _set_up_terminal() -> None:
    try:
        import readline
    except ImportError:
        return  # line editing is a comfort that not every Python has
    readline.parse_and_bind("tab: self-insert")


def _json_end(text: str) -> int | None:
    """Return where the JSON value at the start of `text` ends, or None if there is none."""
    import json

    try:
        # As text a number may have any length.
        _, end = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return end


def _decode_string(text: str) -> str:
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.DecodeError as error:
        raise CommandError(f"{text} is no JSON string: {error}") from error
