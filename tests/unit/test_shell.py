"""The shell on a terminal: what Enter does, what is completed and remembered, what speaks to the shell itself."""

import io
import json
import re
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from tests.real_store import open_store
from tests.real_terminal import WAIT_S, Terminal
from trio_kv.cli import pretty, shell_prompt
from trio_kv.cli.shell import Shell, converse
from trio_kv.cli.shell_prompt import History, ShellCompleter, history_path, open_prompt
from trio_kv.cli.shell_words import HELP, HELP_COLUMNS, PROMPT, is_whole, split_commands
from trio_kv.cli.target import Target
from trio_kv.client.client import Client
from trio_kv.client.following import Event, Revision


def open_shell(target: Target, output: str = "pretty") -> Shell:
    return Shell(target.connect(), lambda host, port: target.at(host, port).connect(), output)


def type_in(shell: Shell, target: Target, keys: str, environ: dict[str, str]) -> None:
    """Have a person type these keys, and leave by Ctrl-D at the end."""
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_text(f"{keys}\x04")
        with open_prompt(target, environ) as read:
            converse(shell, read)
    shell.close()


async def test_what_is_typed_is_carried_out_and_remembered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON may go on over lines, a paste may hold several commands, Ctrl-C drops a line, secrets are forgotten."""
    history = tmp_path / "state" / "history"
    keys = [
        'set doc {"a":\r1.10}\r',
        "\x1b[200~set b 2\nincr b 5\x1b[201~\r",
        "never done\x03",
        "\\timing on\rget b\r\\timing\r",
        "\\output json\rget b\r\\output text\r",
        '{"op":\r"ping"}\r',
        "auth secret\r delete doc\r",
        "get doc\rcas doc 1 2\r\\help incr\r\\output none\r\\frob\rset k {oops\r\r",
    ]
    async with open_store(tmp_path / "data", nodes=1) as (_, port):
        target = Target(port=port)
        environ = {"TRIO_KV_HISTFILE": str(history)}
        await trio.to_thread.run_sync(type_in, open_shell(target), target, "".join(keys), environ)
        with Client(port=port) as store:
            oops = await trio.to_thread.run_sync(store.get, "k")
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[:3] == ["ok", "ok", "7"]
    assert lines[3:5] == ["", "7"]
    assert json.loads(lines[5])["revision"] > 0
    assert lines[6:] == [
        '{"status": "ok"}',
        "ok",
        '{"a": 1.10}',
        "incr [--ttl=TTL] KEY [BY]",
        "  add BY, or 1, to a whole number, print the sum",
        "ok",
    ]
    assert oops.data == "{oops"
    assert "timing is on" in err
    assert " ms\n" in err
    assert "'none' is none of pretty, text, table, json" in err
    assert "there is no command '\\frob'; see help" in err
    assert "there is no such key" in err
    assert "conflict: the key does not exist, but a value of it was expected\n" in err
    remembered = list(History(history).load_history_strings())
    assert remembered[-2:] == ["set b 2\nincr b 5", 'set doc {"a":\n1.10}']
    assert not [line for line in remembered if "secret" in line or "delete" in line or "never" in line]
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


async def test_a_transaction_looks_as_that_of_the_one_shot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line an operation, or a row; only as JSON it is the reply itself. An `else` is told, and is the exit code."""

    def talk(port: int) -> list[int]:
        lines = [
            'txn [] [{"key":"a","value":2},{"op":"incr","key":"n"}]',
            "\\output table",
            'txn [{"key":"a","equals":1}] [] [{"op":"get","key":"a"}]',
        ]
        shell = open_shell(Target(port=port))
        codes: list[int] = [shell.run_line(line) for line in lines]
        shell.close()
        return codes

    async with open_store(tmp_path / "data", nodes=1) as (_, port):
        assert await trio.to_thread.run_sync(talk, port) == [0, 0, 1]
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[:2] == ["set  a  ok", "incr  n  1"]
    assert [line.split() for line in (lines[2], lines[4])] == [["op", "key", "result"], ["get", "a", "2"]]
    assert "a condition did not hold: else was carried out" in err


def test_help_has_two_columns() -> None:
    """Words that are too long for theirs stand alone, and what they are for below."""
    *lines, last = HELP.splitlines()
    assert last.startswith("What has spaces")
    for line in lines:
        words, purpose = line[: HELP_COLUMNS + 2], line[HELP_COLUMNS + 2 :]
        assert words.endswith(" ") != line.endswith("]"), line
        assert not purpose.startswith(" "), line


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("get a", ["get a"]),
        ('set a {"b":', None),
        ('set a {"b": [1,', None),
        ('set a {"b": "c', None),
        ('set a {"b":\n1}', ['set a {"b":\n1}']),
        ('set a {"b":\n', ['set a {"b":\n']),
        ("set a {b", ["set a {b"]),
        ('set a it"s', ['set a it"s']),
        ('{"key":\n"a"}\nget b', ['{"key":\n"a"}', "get b"]),
        ("get a\n\nget b", ["get a", "", "get b"]),
        ("txn [] [", None),
        ("", [""]),
    ],
)
def test_a_command_ends_with_its_line_or_its_json(text: str, commands: list[str] | None) -> None:
    """An empty line ends it in any case; a brace that begins no JSON is a letter as any other."""
    assert is_whole(text.rpartition("\n")[2] if commands and len(commands) > 1 else text) is (
        commands is not None
    )
    assert commands is None or split_commands(text) == commands


async def test_keys_commands_and_choices_are_completed(tmp_path: Path) -> None:
    """Keys come from the store, as one would type them; where it does not answer there is just no completion."""

    def complete(text: str, port: int) -> list[str]:
        with Client(port=port, timeout_s=1) as client:
            found = ShellCompleter(client).get_completions(Document(text), CompleteEvent())
            return [text[: len(text) + each.start_position] + each.text for each in found]

    async with open_store(tmp_path / "data", nodes=1) as (_, port):

        def fill() -> None:
            with Client(port=port) as store:
                for key in ("user/1", "user/2", "us er", "other"):
                    store.set(key, 1)

        await trio.to_thread.run_sync(fill)

        async def completed(text: str) -> list[str]:
            return await trio.to_thread.run_sync(complete, text, port)

        assert await completed("get user/") == ["get user/1", "get user/2"]
        assert await completed("set --ttl=5 o") == ["set --ttl=5 other"]
        assert await completed('delete "us') == ['delete "us er"', "delete user/1", "delete user/2"]
        assert await completed("scan user user/1 ") == []
        assert await completed("set other o") == []
        assert await completed("watch other") == ["watch other"]
        assert await completed("s") == ["scan", "session", "set", "status"]
        assert await completed("\\t") == ["\\timing"]
        assert await completed("\\output j") == ["\\output json"]
        assert await completed("\\help in") == ["\\help incr"]
        assert await completed("\\timing o") == ["\\timing on", "\\timing off"]
        assert await completed('{"key": "o') == []
    assert complete("get o", 1) == []


async def test_the_shell_goes_on_with_another_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it answers; else it stays where it is. A token goes to another host by TLS alone."""
    async with (
        open_store(tmp_path / "a", nodes=1) as (_, one),
        open_store(tmp_path / "b", nodes=1) as (_, two),
    ):

        def talk() -> None:
            shell = open_shell(Target(port=one), "text")
            lines = (f"set k {one}", f"\\connect :{two}", "get k", f"\\connect localhost:{one}", "get k")
            codes = [shell.run_line(line) for line in (*lines, "\\connect 127.0.0.1:1", "get k", "\\connect")]
            shell.close()
            assert codes == [0, 0, 1, 0, 0, 3, 0, 2]

        await trio.to_thread.run_sync(talk)
    out, err = capsys.readouterr()
    assert out.splitlines() == ["ok", str(one), str(one)]
    assert f"this is 127.0.0.1:{two}" in err
    assert "\\connect HOST, \\connect HOST:PORT or \\connect :PORT" in err


def test_a_token_is_shown_to_no_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TLS whoever is on the way could read it."""
    monkeypatch.setenv("TRIO_KV_TOKEN", "secret")
    target = Target(host="one")
    assert target.at("one", "4001").token() == "secret"
    assert target.at("two", "").token() is None
    assert Target(host="one", ca=Path("ca.pem")).at("two", "").token() == "secret"
    assert (target.at("::1", "7").host, target.at("::1", "7").port) == ("::1", 7)


def test_ctrl_c_ends_a_watch_and_not_the_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What comes next is the next command."""

    def changes(*_: object, **__: object) -> Iterator[Revision]:
        yield Revision(7, (Event("set", "k", msgspec.Raw(b"1")),))
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "watch", changes)
    typed = iter(["watch k", "\\help ping", "exit", "never read"])
    converse(Shell(Client(port=1)), lambda: next(typed))
    assert capsys.readouterr().out.splitlines() == [
        "7  set  k  1",
        "",
        "ping",
        "  a sign of life of the server",
    ]
    assert list(typed) == ["never read"]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (b'"chips"', "chips\n"),
        (b"1.10", "1.10\n"),
        (b'{"a": [1, null], "b": "x"}', '{"a": [1, null], "b": "x"}\n'),
        (b'{"key":"%b","n":12345678901234567890.10}' % (b"x" * 40), None),
    ],
)
def test_a_value_is_shown_with_all_its_digits_and_in_colours_that_can_be_read(
    value: bytes, plain: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object that is wider than the terminal has lines; NO_COLOR is respected; no colour is for one background."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    shown = {}
    for variable in ("NO_COLOR", "FORCE_COLOR"):
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("NO_COLOR", raising=False)
            patch.setenv(variable, "1")
            patch.setattr("sys.stdout", Screen())
            pretty.show_pretty(msgspec.Raw(value))
            assert isinstance(sys.stdout, Screen)
            shown[variable] = sys.stdout.getvalue()
    expected = plain or f'{{\n  "key": "{"x" * 40}",\n  "n": 12345678901234567890.10\n}}\n'
    assert shown["NO_COLOR"] == expected
    assert ("\x1b[" in shown["FORCE_COLOR"]) is (value != b'"chips"')
    for unreadable in ("\x1b[30", "\x1b[33", "\x1b[37", "\x1b[9", "\x1b[4"):
        assert unreadable not in shown["FORCE_COLOR"]


def test_a_history_stays_short_and_is_no_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The older half goes; where no file can be, the shell says so once and works."""
    monkeypatch.setattr(shell_prompt, "HISTORY_BYTES_MAX", 1000)
    history = History(tmp_path / "history")
    for number in range(100):
        history.append_string(f"get {number}")
    assert next(iter(History(tmp_path / "history").load_history_strings())) == "get 99"
    assert len(list(History(tmp_path / "history").load_history_strings())) < 60
    assert [path.name for path in tmp_path.iterdir()] == ["history"]
    (tmp_path / "file").touch()
    nowhere = History(tmp_path / "file" / "history")
    nowhere.append_string("get a")
    assert nowhere.get_strings() == ["get a"]
    assert capsys.readouterr().err.count("is not remembered") == 1
    assert history_path({"XDG_STATE_HOME": "/s"}) == Path("/s/trio_kv/history")
    assert history_path({"HOME": "/h"}) == Path("/h/.local/state/trio_kv/history")


async def test_a_watch_on_a_real_terminal_ends_with_ctrl_c(tmp_path: Path) -> None:
    """The shell goes on behind it, completes a key by Tab, and ends with exit code 0."""

    def talk(port: int) -> int:
        variables = {
            "NO_COLOR": "1",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            "TRIO_KV_HISTFILE": str(tmp_path / "history"),
        }
        terminal = Terminal("client", "--port", str(port), **variables)
        try:
            terminal.wait_until(lambda shown: PROMPT.strip() in shown)
            terminal.type('watch "" 1\r')
            terminal.wait_until(lambda shown: "set  user/1  here" in shown)
            before = len(terminal.shown)
            terminal.process.send_signal(signal.SIGINT)
            # What is typed before the next line begins is echoed by the terminal, and completes nothing.
            terminal.wait_until(lambda shown: PROMPT.strip() in shown[before:])
            before = len(terminal.shown)
            terminal.type("delete us\t")
            # The menu has the whole key; what is put into the line is the rest of it, or the line is drawn anew.
            terminal.wait_until(
                lambda shown: re.search("(?<!us)er/1|delete user/1", shown[before:]) is not None
            )
            terminal.type("\rexit\r")
            code = terminal.process.wait(WAIT_S)
            assert "\x1b[3" not in terminal.shown, "a colour"
            return code
        finally:
            terminal.close()

    async with open_store(tmp_path / "data", nodes=1) as (_, port):
        with Client(port=port) as store:
            await trio.to_thread.run_sync(store.set, "user/1", "here")
            assert await trio.to_thread.run_sync(talk, port) == 0
            assert (await trio.to_thread.run_sync(store.get, "user/1")).code == "missing"
