"""`client`: a plain shell. A line is a command, or, if it begins with a brace, a request of the protocol.

It also works in a pipe: no prompt then, and the exit code is that of the last command. A background thread
pings all the while, so that the server does not end the connection for being idle; when a connection
is lost all the same, the next command opens another and says so.
"""

import contextlib
import io
import sys
import threading
from typing import Final

import attrs
import msgspec

from trio_kv.cli.errors import UsageError
from trio_kv.cli.output import ExitCode, exit_code, parse_value, say, show, show_answer
from trio_kv.cli.status import show_status
from trio_kv.client.client import Client
from trio_kv.client.errors import NotConnectedError, OutcomeUnknownError
from trio_kv.client.values import BLANKS
from trio_kv.wire.requests import (
    CasRequest,
    DeleteRequest,
    GetRequest,
    PingRequest,
    Request,
    SetRequest,
    StatusRequest,
)

PROMPT = "trio-kv> "

PING_INTERVAL_S = 3.0
"""A third of the server's default idle time-out: the longest silence of a connection."""

JOIN_S = 0.1
"""How long the end waits for a ping that is under way."""

HELP: Final = """\
  get KEY                      the value of a key
  set KEY VALUE                VALUE is JSON; what is no JSON is taken as a string, spaces included
  delete KEY                   remove a key, print what it held
  cas KEY VALUE [EXPECTED]     set, if the key now has EXPECTED, or does not exist
  status                       the nodes
  ping                         a sign of life of the server
  {"key": ...}                 a line of the protocol, answered as it comes
  help, exit                   (Ctrl-D leaves, too)
A KEY or EXPECTED with spaces is written as a JSON string: get "my key"."""


class CommandError(UsageError):
    """A line that is no command, in words for a person."""


@attrs.frozen
class Arguments:
    """What stands behind the command's word, taken off from the left."""

    rest: str

    def take(self, name: str) -> tuple[str, "Arguments"]:
        """Return the next word, or the next JSON value as it stands, and what is behind it.

        Raises:
            CommandError: there is none.

        """
        rest = self.rest.lstrip(BLANKS)
        if not rest:
            raise CommandError(f"{name} is missing")
        end = _json_end(rest) if rest[0] in '"{[' else None
        if end is None:
            end = next((place for place, character in enumerate(rest) if character in BLANKS), len(rest))
        return rest[:end], Arguments(rest[end:])

    def take_key(self) -> tuple[str, "Arguments"]:
        """Return the next word as a key: itself, or what a JSON string says.

        Raises:
            CommandError: there is none.

        """
        word, rest = self.take("KEY")
        return (_decode_string(word) if word.startswith('"') else word), rest

    def end(self) -> None:
        """Make sure that nothing is left.

        Raises:
            CommandError: something is.

        """
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
        except UsageError as error:
            say(str(error))
            return ExitCode.USAGE
        except NotConnectedError as error:
            say(str(error))
            return ExitCode.NOT_CONNECTED
        except OutcomeUnknownError as error:
            say(str(error))
            return ExitCode.OUTCOME_UNKNOWN
        except UnicodeEncodeError:
            say("keys and values are UTF-8")
            return ExitCode.USAGE

    def keep_alive(self) -> None:
        """Send a ping, if there is a connection.

        A connection that is lost meanwhile is no matter: the next command opens another.
        """
        if self._client.is_connected:
            with contextlib.suppress(NotConnectedError):
                self._client.ask(PingRequest())

    def _run_raw(self, line: str) -> ExitCode:
        answer = self._client.send_line(line.encode(errors="surrogateescape"))
        show(answer.line.decode().rstrip())
        return exit_code(answer)

    def _run_command(self, line: str) -> ExitCode:
        word, arguments = Arguments(line).take("a command")
        match word:
            case "get" | "delete":
                return self._run_get_or_delete(word, arguments)
            case "set":
                return self._run_set(arguments)
            case "cas":
                return self._run_cas(arguments)
            case "status":
                arguments.end()
                return self._run_status()
            case "ping":
                arguments.end()
                return self._run_request(PingRequest(), has_value=False)
            case "help":
                show(HELP)
                return ExitCode.OK
            case _:
                raise CommandError(f"there is no command {word!r}; see help")

    def _run_get_or_delete(self, word: str, arguments: Arguments) -> ExitCode:
        key, rest = arguments.take_key()
        rest.end()
        return self._run_request(GetRequest(key) if word == "get" else DeleteRequest(key), has_value=True)

    def _run_set(self, arguments: Arguments) -> ExitCode:
        key, rest = arguments.take_key()
        text = rest.rest.strip(BLANKS)
        if not text:
            raise CommandError("VALUE is missing")
        return self._run_request(SetRequest(key, parse_value(text)), has_value=False)

    def _run_cas(self, arguments: Arguments) -> ExitCode:
        key, rest = arguments.take_key()
        value_text, rest = rest.take("VALUE")
        value = parse_value(value_text)
        expected: tuple[msgspec.Raw, ...] = ()
        if rest.rest.strip(BLANKS):
            expected_text, rest = rest.take("EXPECTED")
            rest.end()
            expected = (parse_value(expected_text),)
        return self._run_request(CasRequest(key, value, expected), has_value=False)

    def _run_request(self, request: Request, *, has_value: bool) -> ExitCode:
        return show_answer(self._client.ask(request), "table", has_value=has_value)

    def _run_status(self) -> ExitCode:
        answer = self._client.ask(StatusRequest())
        if answer.code != "ok":
            return show_answer(answer, "table", has_value=False)
        return show_status(msgspec.json.decode(answer.line), "table")


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
