r"""`client`: a shell. A line is a command, or, if it begins with a brace, a request of the protocol.

On a terminal lines are edited, completed and remembered (`shell_prompt`). Words that begin with a backslash speak to
the shell itself. It also works in a pipe: no prompt then, and the exit code is that of the last command. A background
thread pings all the while, so that the server does not end the connection for being idle; when a connection is lost
all the same, the next command opens another and says so.
"""

import contextlib
import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from trio_kv.cli.errors import UsageError
from trio_kv.cli.failures import explain_failure
from trio_kv.cli.output import ExitCode, exit_code, say, show, show_answer, show_key, show_rows
from trio_kv.cli.ranges import item_row, show_changes, show_item, show_txn
from trio_kv.cli.shell_words import (
    COMMANDS,
    HELP,
    LEAVING,
    OUTPUTS,
    OWN_WORDS,
    WATCH,
    Arguments,
    CommandError,
    read_members,
    read_txn_words,
    split_commands,
)
from trio_kv.cli.status import show_status
from trio_kv.cli.target import Target
from trio_kv.cli.terminal import is_terminal
from trio_kv.client.answers import read_page
from trio_kv.client.client import Client
from trio_kv.client.errors import StoreError
from trio_kv.client.numbering import read_session
from trio_kv.client.values import BLANKS
from trio_kv.wire.client_sessions import OpenOrRenew
from trio_kv.wire.operations import Ping, Request, Scan, Status, Txn, Watch
from trio_kv.wire.replies import ReplyLine

PING_INTERVAL_S: Final = 3.0
"""A third of the server's default idle time-out: the longest silence of a connection."""

JOIN_S: Final = 0.1
"""How long the end waits for a ping that is under way."""


class Shell:
    """Carries out lines, one at a time; its pings come from another thread.

    Args:
        client: the way to the store.
        connect: makes a client for another server, of its host and port.
        output: how answers look; see `OUTPUTS`.

    """

    def __init__(
        self, client: Client, connect: Callable[[str, str], Client] | None = None, output: str = "text"
    ) -> None:
        self._client = client
        self._connect = connect
        self._output = output
        self._is_timing = False

    @property
    def address(self) -> str:
        """Of the server that is asked."""
        return self._client.address

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def run_text(self, text: str) -> ExitCode:
        """Carry out the commands of a text of several lines; return the code of the last one."""
        code = ExitCode.OK
        for line in split_commands(text):
            if line.strip(BLANKS):
                code = self.run_line(line)
        return code

    def run_line(self, line: str) -> ExitCode:
        """Carry out a line and print what came of it. In JSON it may go on over several."""
        line = line.strip(BLANKS)
        try:
            with self._timed():
                if line.startswith("{"):
                    return self._run_raw(line)
                return self._run_command(line)
        except (UsageError, StoreError, UnicodeEncodeError) as error:
            return explain_failure(error)

    def keep_alive(self) -> None:
        """Send a ping, if there is a connection.

        A connection that is lost meanwhile is no matter: the next command opens another.
        """
        if self._client.is_connected:
            with contextlib.suppress(StoreError):
                self._client.ask(Request(Ping()))

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        """Tell how long it took, if that is wanted."""
        is_timing, began = self._is_timing, time.perf_counter()
        yield
        if is_timing and self._is_timing:
            say(f"{(time.perf_counter() - began) * 1000:.1f} ms")

    def _run_raw(self, line: str) -> ExitCode:
        # Inside of a JSON string there is no line break.
        answer = self._client.send_line(line.replace("\n", " ").encode(errors="surrogateescape"))
        show(answer.line.decode().rstrip())
        return exit_code(answer)

    def _run_command(self, line: str) -> ExitCode:
        word, arguments = Arguments(line).take("a command")
        if word == "help":
            show(HELP)
            return ExitCode.OK
        if word in OWN_WORDS:
            return self._run_own(word, arguments.rest.strip(BLANKS))
        if word == WATCH:
            return self._watch(arguments)
        if word not in COMMANDS:
            raise CommandError(f"there is no command '{word}'; see help")
        kind = COMMANDS[word]
        operation: Any = read_txn_words(arguments) if kind is Txn else kind(**read_members(kind, arguments))
        answer = self._client.ask(Request(operation, meta=self._has_meta(operation)))
        return _show(operation, answer, self._output)

    def _has_meta(self, operation: object) -> bool:
        return self._output in ("table", "json") and not isinstance(operation, Ping | Status | OpenOrRenew)

    def _run_own(self, word: str, argument: str) -> ExitCode:
        """Carry out a word that speaks to the shell itself."""
        match word:
            case "\\timing":
                self._is_timing = _choose(argument, ("on", "off"), "off" if self._is_timing else "on") == "on"
                say(f"timing is {'on' if self._is_timing else 'off'}")
            case "\\output":
                self._output = _choose(argument, OUTPUTS, self._output)
                say(f"output is {self._output}")
            case "\\connect":
                self._change_server(argument)
            case _:
                show(_explain_command(argument) if argument else HELP)
        return ExitCode.OK

    def _change_server(self, argument: str) -> None:
        """Go on with another server, if it answers; else with the one that there is."""
        host, port = _read_address(argument)
        if self._connect is None:
            raise CommandError("there is no way to another server from here")
        client = self._connect(host or self.address.rpartition(":")[0].strip("[]"), port)
        try:
            client.ping()
        except BaseException:
            client.close()
            raise
        self._client.close()
        self._client = client
        say(f"this is {client.address}")

    def _watch(self, arguments: Arguments) -> ExitCode:
        """Show what changes, until interrupted."""
        prefix = ""
        if not arguments.is_empty:
            prefix, arguments = arguments.take_text("PREFIX")
        first: int | None = None
        if not arguments.is_empty:
            word, arguments = arguments.take("FROM")
            if not word.isdecimal():
                raise CommandError(f"FROM is a revision, a whole number, and not {word!r}")
            first = int(word)
        arguments.end()
        show_changes(self._client.watch(prefix, first=first), "json" if self._output == "json" else "text")
        return ExitCode.NOT_DONE


def _choose(word: str, choices: tuple[str, ...], default: str) -> str:
    if word and word not in choices:
        raise CommandError(f"{word!r} is none of {', '.join(choices)}")
    return word or default


def _read_address(text: str) -> tuple[str, str]:
    """Return the host, empty for the same one, and the port, empty for the same one."""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = text, ""  # no port, or an IPv6 address without brackets
    if not (host or port) or any(blank in text for blank in BLANKS):
        raise CommandError("\\connect HOST, \\connect HOST:PORT or \\connect :PORT")
    return host.strip("[]"), port


def _explain_command(word: str) -> str:
    if word in OWN_WORDS or f"\\{word}" in OWN_WORDS:
        name = word if word in OWN_WORDS else f"\\{word}"
        words, purpose = OWN_WORDS[name]
    elif word == WATCH or word in COMMANDS:
        kind = Watch if word == WATCH else COMMANDS[word]
        name, words, purpose = word, kind.words, kind.purpose
    else:
        raise CommandError(f"there is no command '{word}'; see help")
    return f"{name} {words}".rstrip() + f"\n  {purpose}"


def _show(operation: Any, answer: ReplyLine, output: str) -> ExitCode:
    """Show what came of a command."""
    if answer.code == "ok" and output != "json":
        if isinstance(operation, Status):
            return show_status(msgspec.json.decode(answer.line), "text")
        if isinstance(operation, Scan):
            return _show_page(answer, output)
        if isinstance(operation, Txn):
            return show_txn(operation, answer, "table" if output == "table" else "text")
        if isinstance(operation, OpenOrRenew):
            show(read_session(answer).session)
            return ExitCode.OK
        if output == "pretty" and operation.has_result and answer.value is not None:
            from trio_kv.cli.pretty import show_pretty

            show_pretty(answer.value)
            return ExitCode.OK
    plain: Any = "text" if output == "pretty" else output
    return show_answer(answer, plain, has_value=operation.has_result)


def _show_page(answer: ReplyLine, output: str) -> ExitCode:
    page = read_page(answer)
    if output == "table" and page.items:
        show_rows([item_row(item) for item in page.items])
    else:
        for item in page.items:
            show(show_item(item))
    if page.is_more:
        say(f"there are more: name {show_key(page.items[-1].key)} as AFTER")
    return ExitCode.OK


def run_shell(target: Target) -> ExitCode:
    """Read lines until the input ends; return the last command's exit code, or OK from a terminal."""

    def connect(host: str, port: str) -> Client:
        return target.at(host, port).connect(on_reconnected=say)

    client = target.connect(on_reconnected=say)
    is_conversation = is_terminal(sys.stdin) and is_terminal(sys.stdout)
    shell = Shell(client, connect, "pretty" if is_conversation else "text")
    is_over = threading.Event()
    pinger = threading.Thread(target=_keep_alive, args=(shell, is_over), name="ping", daemon=True)
    pinger.start()
    try:
        if is_conversation:
            from trio_kv.cli.shell_prompt import open_prompt

            print(f"trio_kv at {client.address}; \\help tells the commands, Ctrl-D leaves", file=sys.stderr)
            with open_prompt(target) as read:
                converse(shell, read)
            return ExitCode.OK
        return _read_lines(shell)
    finally:
        is_over.set()
        pinger.join(JOIN_S)
        if not pinger.is_alive():  # else it waits for a server that is silent, and ends with the process
            shell.close()


def _keep_alive(shell: Shell, is_over: threading.Event) -> None:
    while not is_over.wait(PING_INTERVAL_S):
        shell.keep_alive()


def converse(shell: Shell, read: Callable[[], str]) -> None:
    """Carry out what a person types, until they leave.

    Args:
        shell: carries it out.
        read: returns what was typed. Raises EOFError for Ctrl-D, and KeyboardInterrupt for Ctrl-C.

    """
    while True:
        # Ctrl-C drops what was typed, ends a watch, or stops waiting for an answer.
        try:
            text = read()
            if text.strip(BLANKS) in LEAVING:
                return
            shell.run_text(text)
            sys.stdout.flush()
        except EOFError:
            return
        except KeyboardInterrupt:
            print()


def _read_lines(shell: Shell) -> ExitCode:
    """Carry out the lines of a pipe; return the code of the last one."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        # A line ends where the protocol's lines end, and a byte that is no UTF-8 is for the line alone to answer for.
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
    code = ExitCode.OK
    while True:
        try:
            line = input().strip(BLANKS)
        except EOFError:
            return code
        if line in LEAVING:
            return code
        if line:
            code = shell.run_line(line)
            sys.stdout.flush()
