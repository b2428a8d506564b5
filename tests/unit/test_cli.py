"""The command line: help, options, what is printed where, and the exit codes."""

import contextlib
import errno
import io
import json
import os
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import attrs
import msgspec
import pytest
import trio

from trio_kv import __version__
from trio_kv.cli import cluster as cluster_commands
from trio_kv.cli import control as control_commands
from trio_kv.cli import serve as serve_module
from trio_kv.cli import wal as wal_commands
from trio_kv.cli.errors import UsageError
from trio_kv.cli.house import StartError
from trio_kv.cli.main import app, main
from trio_kv.cli.options import ServeOptions, is_loopback
from trio_kv.cli.output import parse_value, show_value
from trio_kv.cli.shell import Shell
from trio_kv.cli.status import show_links, show_status
from trio_kv.cli.trace import command as trace_commands
from trio_kv.client import control
from trio_kv.client.client import Client
from trio_kv.client.control import Door, NoDoorError
from trio_kv.trace.reading import read_trace
from trio_kv.trace.trace import Trace

Answer = Callable[[dict[str, object]], dict[str, object] | None]


class StoreServer(socketserver.ThreadingTCPServer):
    """Answers each line by a function of its members; None closes the connection instead."""

    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[dict[str, object]] = []
        self.decode: Callable[[str], dict[str, object]] = json.loads
        super().__init__(("127.0.0.1", 0), StoreHandler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class StoreHandler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, StoreServer)
        for line in self.rfile:
            request = server.decode(line.decode())
            server.requests.append(request)
            reply = server.answer(request)
            if reply is None:
                return
            self.wfile.write(json.dumps(reply).encode() + b"\n")


@pytest.fixture
def serve_store() -> Iterator[Callable[[Answer], StoreServer]]:
    with contextlib.ExitStack() as stack:

        def start(answer: Answer) -> StoreServer:
            server = stack.enter_context(StoreServer(answer))
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            stack.callback(thread.join, 10)
            stack.callback(server.shutdown)
            return server

        yield start


def reply_ok(value: object) -> Answer:
    return lambda request: {"key": request.get("key"), "value": value, "status": "ok"}


def reply_error(code: str, value: object = None) -> Answer:
    return lambda request: {
        "key": request.get("key"),
        "value": value,
        "status": "error",
        "error": code,
        "message": "so it is",
    }


def reply_missing(request: dict[str, object]) -> dict[str, object]:
    return {"key": request["key"], "value": None, "status": "error"}


def hang_up(request: dict[str, object]) -> None:
    return None


STATUS: dict[str, object] = {
    "status": "ok",
    "leader": 2,
    "term": 5,
    "nodes": [
        {
            "node": node,
            "role": {1: "follower", 2: "leader", 3: None}[node],
            "state": "damaged" if node == 3 else "up",
            "term": 5,
            "commit": 17,
            "applied": 17,
            "log_first": 1,
            "log_last": 18,
            "digest": "00c0ffee",
            **({"reason": "wal-1 is damaged at byte 512"} if node == 3 else {}),
        }
        for node in (1, 2, 3)
    ],
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TRIO_KV_"):
            monkeypatch.delenv(name)


# --- help ---------------------------------------------------------------------------------------------------

COMMANDS = [
    ["serve"],
    ["client"],
    ["get"],
    ["set"],
    ["delete"],
    ["cas"],
    ["incr"],
    ["scan"],
    ["watch"],
    ["txn"],
    ["export"],
    ["import"],
    ["completion"],
    ["status"],
    ["top"],
    ["backup"],
    ["chaos"],
    ["bench"],
    ["restore"],
    ["rebuild"],
    ["sim"],
    ["config"],
    ["ctl"],
    *[["ctl", name] for name in control_commands.app if not name.startswith("-")],
    ["cluster"],
    *[["cluster", name] for name in cluster_commands.app if not name.startswith("-")],
    ["wal"],
    *[["wal", name] for name in wal_commands.app if not name.startswith("-")],
    ["trace"],
    *[["trace", name] for name in trace_commands.app if not name.startswith("-")],
]


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_help_says_what_a_command_is_for_and_shows_an_example(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command's help has a line of purpose and an example that names the command."""
    assert main([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    purpose = shown.strip().splitlines()[2]
    assert purpose.endswith(".") or len(purpose) > 60
    _, _, examples = shown.partition("Examples:")
    assert " ".join(["$ trio-kv", *command]) in examples.replace("python -m trio_kv", "trio-kv")


def test_all_commands_of_the_protocol_are_there() -> None:
    """`ctl` knows each command of the control door, by the name it has there."""
    expected = {
        *("status", "crash", "stop", "restart", "pause", "resume", "partition", "cut", "heal", "delay"),
        *("drop", "slow-disk", "stall-disk", "fill-disk", "fail-disk", "heal-disk", "transfer", "snapshot"),
        "rebuild",
    }
    assert {name for name in control_commands.app if not name.startswith("-")} == expected
    assert {command[0] for command in COMMANDS} == {name for name in app if not name.startswith("-")}


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the version and nothing else."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("tokens", "hint"),
    [
        (["gett", "k"], "did you mean get?"),
        (["frobnicate"], "there are backup, bench, cas, chaos"),
        (["--prot", "3"], "--port"),
        (["get"], "KEY"),
        (["get", "k", "surplus"], "surplus"),
        (["get", "k", "--output", "xml"], "json"),
        (["get", "k", "--timeout", "61"], "limit of 60"),
        (["get", "k", "--timeout", "nan"], "--timeout"),
        (["client", "--timeout", "61"], "limit of 60"),
        (["get", "k", "--port", "0"], "--port 0"),
        (["--nodes", "10"], "<= 9"),
        (["--port", "70000"], "--port"),
        (["--heartbeat-ms", "150"], "at most half"),
        *[
            (["--session-timeout", text], "--session-timeout")
            for text in ("inf", "nan", "1e400", "2e13", "0.09", "0", "-1")
        ],
        *[(["--idle-timeout", text], "--idle-timeout") for text in ("inf", "nan", "-0.1")],
        (["--election-timeout-ms", "3600001"], "<= 3600000"),
        (["--election-timeout-ms", "1" + "0" * 400], "--election-timeout-ms"),
        (["--heartbeat-ms", "0"], ">= 1"),
        (["--pending-bytes-max", "1099511627777"], "<= 1099511627776"),
        (["--host", "0.0.0.0"], "--insecure"),
        (["--port", "3002"], "both 3002"),
        (["ctl", "cut", "1-1"], "write 1-2"),
        (["ctl", "crash", "1.5"], "'1.5' is no node: write its number, 1 to 9, or leader"),
        (["ctl", "crash", "10"], "is no node"),
        (["ctl", "crash", ""], "is no node"),
        (["ctl", "stop", "follower"], "is no node"),
        (["ctl", "partition", "1,2/x"], "write 1,2/3,4,5"),
        (["ctl", "partition", "1,2/2"], "twice"),
        (["ctl", "drop", "101"], "<= 100"),
        (["backup"], "FILE"),
        (["restore", "a.snap", "--nodes", "10"], "<= 9"),
        (["rebuild"], "NODE"),
        (["rebuild", "0"], ">= 1"),
        (["wal", "verify"], "DIRECTORY"),
        (["sim", "--seeds", "9..3"], "there are no seeds"),
        (["sim", "--seeds", "few"], "write one, as 7"),
        (["sim", "--kinds", "flood"], "it has crash"),
        (["sim", "--world", "flat"], "core"),
        (
            ["sim", "--world", "whole", "--kinds", "crash,lost_answers"],
            "the whole world has no 'lost_answers'",
        ),
        (["sim", "--world", "both", "--bare"], "the whole world can't do that"),
        (["sim", "--world", "both", "--seed", "1", "-v"], "name it"),
        (["sim", "--jobs", "0"], "--jobs"),
        (["sim", "--seeds", "1..2", "--trace", "t"], "for one seed"),
        (["sim", "--seed", "1", "--plan", "p"], "can't go together"),
        (["sim", "--plan", "no-such-file"], "no-such-file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_line_that_can_not_be_is_refused_with_a_hint(
    tokens: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Misuse exits with 2, says on stderr what would do, and prints nothing to stdout."""
    assert main(tokens) == 2
    shown = capsys.readouterr()
    assert hint in " ".join(shown.err.split())
    assert shown.out == ""


def test_running_without_asserts_is_refused() -> None:
    """`python -O` would remove the checks that guard the data, so it exits with 2."""
    command = [sys.executable, "-O", "-m", "trio_kv"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 2
    assert "python -O" in finished.stderr


def test_a_one_shot_does_not_pay_for_trio() -> None:
    """A command that asks one question leaves Trio unimported."""
    code = "import sys; from trio_kv.cli.main import main; main(['get', 'k', '--port', '1']); "
    code += "sys.exit('trio' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr


# --- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("chips", b'"chips"'),
        ("two words", b'"two words"'),
        ("7", b"7"),
        ("1.10", b"1.10"),
        ("null", b"null"),
        ('"7"', b'"7"'),
        (' {"a": [1]} ', b'{"a": [1]}'),
        ("{broken", b'"{broken"'),
        ("", b'""'),
        ("é", '"é"'.encode()),
    ],
)
def test_a_typed_value_is_json_or_else_a_string(typed: str, sent: bytes) -> None:
    """What parses as JSON is sent as it is, all else as a JSON string."""
    assert bytes(parse_value(typed)) == sent


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (b'"chips"', "chips"),
        (b'"two words"', "two words"),
        (b'"7"', '"7"'),
        (b'"null"', '"null"'),
        (b'""', '""'),
        (b'" x"', '" x"'),
        (b'"a\\nb"', '"a\\nb"'),
        (b'"\\u001b[2J"', '"\\u001b[2J"'),
        (b'"-x"', '"-x"'),
        (b"1.10", "1.10"),
        (b'{"b":1,"a":2}', '{"b":1,"a":2}'),
    ],
)
def test_a_shown_value_typed_again_is_the_same_value(stored: bytes, shown: str) -> None:
    """Output of `get` given to `set` writes an equal value; bare text only where that holds."""
    assert show_value(msgspec.Raw(stored)) == shown
    assert msgspec.json.decode(parse_value(shown)) == msgspec.json.decode(stored)


@pytest.mark.parametrize(
    "stored", [b'"[1]"', b'"1e999"', b'"\\u00a0x"', b'"-"', b'"%s"' % (b"[" * 5000), b"1e999", b"9" * 5000]
)
def test_every_value_that_is_shown_can_be_typed_again(stored: bytes) -> None:
    """Strings that look like JSON, numbers beyond a float, half of a deep text: all come back the same."""
    assert read_json_equal(parse_value(show_value(msgspec.Raw(stored))), stored)


def read_json_equal(value: msgspec.Raw, stored: bytes) -> bool:
    if not stored.startswith(b'"'):
        return bytes(value) == stored
    return bool(msgspec.json.decode(value) == msgspec.json.decode(stored))


@pytest.mark.parametrize(
    ("typed", "hint"), [("[" * 129 + "]" * 129, "at most 128 deep"), (r'"\ud800"', "surrogate")]
)
def test_json_that_the_store_does_not_take_is_refused_and_no_string(
    typed: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and nothing is sent, from the command line as from the shell."""
    assert main(["set", "k", typed, "--port", "1"]) == 2
    assert hint in capsys.readouterr().err
    with Client(port=1) as client:
        assert Shell(client).run_line(f"set k {typed}") == 2
    assert hint in capsys.readouterr().err


def feed(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"one\n  two\n", "one\n  two\n"),
        ("ž\r\n🎉".encode(), "ž\r\n🎉"),
        (b'{"a":\n [1]}\n', {"a": [1]}),
        (b"", ""),
        (b"-", "-"),
    ],
)
def test_a_dash_takes_the_value_from_stdin(
    data: bytes,
    value: object,
    serve_store: Callable[[Answer], StoreServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of stdin is the value, line ends included; it is JSON or else a string, as any value that is typed."""
    server = serve_store(reply_ok(1))
    for tokens in (["set", "k", "-"], ["cas", "k", "-"]):
        feed(data, monkeypatch)
        assert main([*tokens, "--port", str(server.port)]) == 0
    assert [request["value"] for request in server.requests] == [value, value]


def test_stdin_that_holds_no_value_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes that are no UTF-8 and a closed stdin are usage errors, said before a server is asked."""
    feed(b"ab\xff", monkeypatch)
    assert main(["set", "k", "-", "--port", "1"]) == 2
    assert "no UTF-8: byte 3" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["set", "k", "-", "--port", "1"]) == 2
    assert "stdin, which is closed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        ("one\n two\n", "one\n two\n"),
        ("chips", "chips"),
        ("", ""),
        ("\x9b\x00ž", "\x9b\x00ž"),
        ({"a": 1}, '{"a": 1}'),
    ],
)
def test_raw_prints_a_string_to_the_byte(
    value: object,
    raw: str,
    serve_store: Callable[[Answer], StoreServer],
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """No quotes, no escapes, and no line end that is not in the value; what is no string is JSON."""
    server = serve_store(reply_ok(value))
    assert main(["get", "k", "--raw", "--port", str(server.port)]) == 0
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == raw.encode()
    assert main(["get", "k", "--raw", "-o", "json", "--port", str(server.port)]) == 2


# --- one-shots ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code", "out", "err"),
    [
        (reply_ok("chips"), 0, "chips\n", ""),
        (reply_ok({"a": 1}), 0, '{"a": 1}\n', ""),
        (reply_missing, 1, "", "no such key"),
        (reply_error("bad_request"), 1, "", "bad_request: so it is"),
        (reply_error("unavailable"), 3, "", "unavailable: so it is"),
        (hang_up, 3, "", "no answer from"),
    ],
    ids=["text", "object", "missing", "bad_request", "unavailable", "hang_up"],
)
def test_get_prints_the_value_or_says_why_not(  # noqa: PLR0917 - a table
    answer: Answer,
    code: int,
    out: str,
    err: str,
    serve_store: Callable[[Answer], StoreServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Data goes to stdout, messages to stderr, and the exit code tells a script which it was."""
    server = serve_store(answer)
    assert main(["get", "snack", "--port", str(server.port)]) == code
    shown = capsys.readouterr()
    assert shown.out == out
    assert err in shown.err
    assert bool(shown.err) == bool(err)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (reply_ok("chips"), 0),
        (reply_error("conflict", "nuts"), 1),
        (reply_error("read_only"), 1),
        (reply_error("unavailable"), 3),
        (reply_error("timeout"), 4),
        (reply_error("session_expired"), 4),
        (hang_up, 4),
    ],
    ids=["ok", "conflict", "read_only", "unavailable", "timeout", "session_expired", "hang_up"],
)
@pytest.mark.parametrize("tokens", [["set", "k", "v"], ["delete", "k"], ["cas", "k", "v"]], ids=" ".join)
def test_the_exit_code_of_a_write_tells_whether_it_took_effect(
    tokens: list[str], answer: Answer, code: int, serve_store: Callable[[Answer], StoreServer]
) -> None:
    """0 done, 1 and 3 not done, 4 not known; a lost connection after sending is the latter."""
    server = serve_store(answer)
    assert main([*tokens, "--port", str(server.port)]) == code
    assert len(server.requests) == 1


def test_no_server_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody listens there: nothing was changed, and the address is named."""
    assert main(["set", "k", "v", "--port", "1"]) == 3
    assert "no server at 127.0.0.1:1" in capsys.readouterr().err


def test_options_reach_the_store(
    serve_store: Callable[[Answer], StoreServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """Conditions, time-outs and values arrive as typed; JSON output asks for the revision, too."""
    server = serve_store(reply_ok(1))
    port = ["--port", str(server.port)]
    assert main(["set", "k", "-5", "--if-revision", "0", "--timeout", "2", *port]) == 0
    assert main(["cas", "k", "new", "--expected", '"7"', *port]) == 0
    assert main(["cas", *port, "--", "-k", "null"]) == 0
    assert main(["delete", "k", "--if-revision", "9", *port]) == 0
    assert main(["get", "k", "--stale", "-o", "json", *port]) == 0
    assert server.requests == [
        {"key": "k", "value": -5, "if_revision": 0, "timeout": 2},
        {"op": "cas", "key": "k", "expected": "7", "value": "new"},
        {"op": "cas", "key": "-k", "value": None},
        {"op": "delete", "key": "k", "if_revision": 9},
        {"key": "k", "consistency": "stale", "meta": True},
    ]
    assert capsys.readouterr().out.splitlines() == [
        *("ok", "ok", "ok", "1"),
        '{"key": "k", "value": 1, "status": "ok"}',
    ]


def test_variables_stand_in_for_options(
    serve_store: Callable[[Answer], StoreServer],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """TRIO_KV_PORT and TRIO_KV_OUTPUT are used where no flag is given; a flag wins."""
    server = serve_store(reply_ok("chips"))
    monkeypatch.setenv("TRIO_KV_PORT", str(server.port))
    monkeypatch.setenv("TRIO_KV_OUTPUT", "json")
    assert main(["get", "k"]) == 0
    assert main(["get", "k", "--output", "text"]) == 0
    assert capsys.readouterr().out.splitlines() == ['{"key": "k", "value": "chips", "status": "ok"}', "chips"]
    assert main(["get", "k", "--port", "1"]) == 3


def test_status_is_a_table_with_the_leader_marked(
    serve_store: Callable[[Answer], StoreServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each node is one row, the leader has a star, and a node that is not up says why below."""
    server = serve_store(lambda _: STATUS)
    assert main(["status", "--port", str(server.port)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    columns = ["node", "role", "state", "term", "commit", "applied", "log_first", "log_last", "digest"]
    assert lines[0] == columns
    assert lines[2:] == [
        ["1", "follower", "up", "5", "17", "17", "1", "18", "00c0ffee"],
        ["2*", "leader", "up", "5", "17", "17", "1", "18", "00c0ffee"],
        ["3", "damaged", "5", "17", "17", "1", "18", "00c0ffee"],
        ["n3:", "wal-1", "is", "damaged", "at", "byte", "512"],
        ["n2", "leads", "in", "term", "5"],
    ]
    assert main(["status", "--port", str(server.port), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def shown_in(columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what `show_status` shows in a terminal so wide."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "dumb")
    show_status(STATUS, "text")
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
def test_status_fits_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is cut and no row is broken: what does not fit is left out, and the digests can be compared."""
    lines = [line.rstrip() for line in shown_in(columns, monkeypatch, capsys).splitlines()]
    assert max(map(len, lines)) <= columns
    assert "\u2026" not in "".join(lines)
    assert sum("00c0ffee" in line for line in lines) == 3
    assert any("leader" in line and "2*" in line for line in lines)
    assert any("damaged" in line and "3" in line for line in lines)


@pytest.mark.parametrize(
    ("fault", "words", "way_out"),
    [
        ({"fault": "partition", "groups": [[1, 2], [3]]}, "partitioned, 1,2/3:", "ctl heal"),
        ({"fault": "cut", "link": [1, 2]}, "cut, 1-2:", "ctl heal"),
        ({"fault": "delay", "ms": 20.0}, "takes 20 ms longer", "ctl delay 0"),
        ({"fault": "drop", "percent": 12.5}, "dropped: 12.5 %", "ctl drop 0"),
        (
            {"fault": "duplicate", "percent": 1.0},
            "duplicated: 1 %",
            "ctl heal",
        ),
        ({"fault": "reorder", "ms": 5.0}, "up to 5 ms late", "ctl heal"),
        (
            {"fault": "slow-disk", "node": 2, "ms": 50.0},
            "n2 has a slow disk: a sync takes 50 ms",
            "ctl slow-disk 2 0",
        ),
        ({"fault": "stall-disk", "node": 2}, "n2 has a disk that is made to stand", "ctl heal"),
        ({"fault": "fill-disk", "node": 2}, "n2 has a disk that is made full", "ctl heal"),
        ({"fault": "fail-disk", "node": 2}, "n2 has a disk that will fail", "ctl restart 2"),
        ({"fault": "full-disk", "node": 2}, "n2 has a full disk", "make room"),
        ({"fault": "clock", "node": 2, "rate": 1.5}, "runs 1.5 times", "started again"),
        ({"fault": "flood", "depth": 3}, '"flood"', ""),
        ({"fault": "drop", "share": 1}, '"drop"', ""),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_status_names_what_is_broken_and_what_ends_it(
    fault: dict[str, object], words: str, way_out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for each active fault, in plain words; one of a newer server is shown as it came."""
    show_status({**STATUS, "faults": [fault]}, "text")
    [line] = [line for line in capsys.readouterr().out.splitlines() if words in line]
    assert way_out in line


def test_status_says_how_a_node_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    """A node that was stopped or paused is easily forgotten; without a leader the nodes that are not up are named."""
    nodes = [
        {"node": 1, "role": "follower", "state": "up"},
        {"node": 2, "role": None, "state": "stopped", "reason": "asked to stop"},
        {"node": 3, "role": "follower", "state": "paused"},
    ]
    show_status({"leader": None, "term": 5, "nodes": nodes, "faults": []}, "text")
    shown = capsys.readouterr().out
    assert "n2: asked to stop; `trio-kv ctl restart 2` brings it back" in shown
    assert "n3: it is paused; `trio-kv ctl resume 3` brings it back" in shown
    assert "no leader in term 5: n2 and n3 are not up" in shown


def test_links_are_shown_with_the_reason_of_those_that_are_down(capsys: pytest.CaptureFixture[str]) -> None:
    """A row a way, and below it why there is none; one process has no links."""
    up = {"from": 1, "to": 2, "state": "up", "reason": "", "connects": 1, "messages_lost": 0}
    up |= {"bytes_sent": 12345, "bytes_received": 678, "round_trip_ms": 0.25}
    down = up | {"to": 3, "state": "down", "reason": "nobody answers", "round_trip_ms": None}
    show_links({"links": [up, down]}, "text")
    shown = capsys.readouterr().out
    assert "12,345" in shown
    assert "0.25" in shown
    assert "1 to 3: nobody answers" in shown
    show_links({"links": []}, "text")
    assert "all nodes run in one process" in capsys.readouterr().out


def test_status_without_a_leader_is_exit_code_3(
    serve_store: Callable[[Answer], StoreServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is still shown, but a script learns that nothing can be written."""
    server = serve_store(lambda _: {**STATUS, "leader": None})
    assert main(["status", "--port", str(server.port)]) == 3
    assert "no leader in term 5: n3 is not up" in capsys.readouterr().out


def test_an_interrupted_command_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is no error of anybody's: no traceback, exit code 130."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "ask", interrupt)
    assert main(["get", "k"]) == 130


# --- the shell ----------------------------------------------------------------------------------------------


def run_piped(text: str, port: int, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return main(["client", "--port", str(port)])


def test_the_shell_takes_commands_and_raw_lines(
    serve_store: Callable[[Answer], StoreServer],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a pipe there is no prompt, commands print as one-shots do, and a raw line's reply is printed."""
    server = serve_store(lambda request: STATUS if request.get("op") == "status" else reply_ok(7)(request))
    lines = [
        "get snack",
        'set snack {"two words": 1}',
        "set snack two words",
        'get "my key"',
        'cas k "a b" 2',
        "cas k new",
        "delete snack",
        "",
        '{"key":"raw"}',
        "status",
        "ping",
        "exit",
        "get never",
    ]
    assert run_piped("\n".join(lines), server.port, monkeypatch) == 0
    assert server.requests == [
        {"key": "snack"},
        {"key": "snack", "value": {"two words": 1}},
        {"key": "snack", "value": "two words"},
        {"key": "my key"},
        {"op": "cas", "key": "k", "value": "a b", "expected": 2},
        {"op": "cas", "key": "k", "value": "new"},
        {"op": "delete", "key": "snack"},
        {"key": "raw"},
        {"op": "status"},
        {"op": "ping"},
    ]
    shown = capsys.readouterr()
    out = shown.out.splitlines()
    assert out[:8] == ["7", "ok", "ok", "7", "ok", "ok", "7", '{"key": "raw", "value": 7, "status": "ok"}']
    assert out[-1] == "ok"
    assert "n2 leads in term 5" in out
    assert shown.err == ""


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        ("set k \u00a0x\u3000", {"key": "k", "value": "\u00a0x\u3000"}),
        ("set\tk\t a\rb ", {"key": "k", "value": "a\rb"}),
        ("set k a\x85b\u2028c\x0cd", {"key": "k", "value": "a\x85b\u2028c\x0cd"}),
        ("set a\u00a0b 1", {"key": "a\u00a0b", "value": 1}),
        ("cas k a\u00a0b c\u2003d", {"op": "cas", "key": "k", "value": "a\u00a0b", "expected": "c\u2003d"}),
        (f"cas k [{'9' * 5000}, 2] 1", {"op": "cas", "key": "k", "expected": 1}),
        ("get \u00a0\r", {"key": "\u00a0"}),
        ("incr k", {"op": "incr", "key": "k"}),
        ("incr k -7", {"op": "incr", "key": "k", "by": -7}),
        ("set --ttl=60 k a b", {"key": "k", "value": "a b", "ttl": 60}),
        ("cas  --ttl=0.5 lock alice", {"op": "cas", "key": "lock", "value": "alice", "ttl": 0.5}),
        ("incr --ttl=1e2 k 5", {"op": "incr", "key": "k", "by": 5, "ttl": 100}),
        ('set "--ttl" 1', {"key": "--ttl", "value": 1}),
        ('set "--ttl=60" 1', {"key": "--ttl=60", "value": 1}),
        (
            'txn [] [{"op":"get","key":"a"},{"key":"b","value":" "}]',
            {
                "op": "txn",
                "if": [],
                "then": [{"op": "get", "key": "a"}, {"op": "set", "key": "b", "value": " "}],
            },
        ),
        ("scan 7 8", {"op": "scan", "prefix": "7", "after": "8", "limit": 1000}),
        ('scan "a b" c 5', {"op": "scan", "prefix": "a b", "after": "c", "limit": 5}),
    ],
)
def test_the_shell_sends_what_stands_there(
    line: str,
    sent: dict[str, object],
    serve_store: Callable[[Answer], StoreServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only blanks part words, and only a line feed ends a line: other white space belongs to keys and values."""
    seen: list[dict[str, object]] = []

    def note(request: dict[str, object]) -> dict[str, object]:
        seen.append(request)
        done = {"key": "k", "value": 1, "revision": 1, "status": "ok"}
        then = request.get("then")
        results = [done for _ in then] if isinstance(then, list) else []
        return {**done, "items": [], "more": False, "succeeded": True, "results": results}

    server = serve_store(note)
    server.decode = json.JSONDecoder(parse_int=lambda text: int(text) if len(text) < 9 else text).decode
    feed(f"{line}\n".encode(), monkeypatch)
    assert main(["client", "--port", str(server.port)]) == 0
    assert [{name: request[name] for name in sent} for request in seen] == [sent]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("frobnicate", "there is no command 'frobnicate'"),
        ("get", "KEY is missing"),
        ("set k", "VALUE is missing"),
        ("get a b", "'b' is too much"),
        ("cas k a b c", "'c' is too much"),
        ("txn [] []  [] []", "'[]' is too much"),
        ("txn []", "THEN is missing"),
        ('txn [] [{"op":"cas","key":"a","value":1}]', '"then"[0] is a "cas"; in a txn there may be'),
        ("incr k many", "BY can't be many: Expected `int`, got `str`"),
        (
            "set --ttl 60 k 1",
            'write --ttl=TTL, without a space; a key of that name is "--ttl", with the quotes',
        ),
        ("set --ttl=soon k 1", "TTL can't be soon: Expected `float`, got `str`"),
        ("set --ttl=0 k 1", "TTL can't be 0: Expected `float` >= 0.1"),
        ("status now", "too much"),
    ],
)
def test_the_shell_explains_a_line_that_is_no_command(
    line: str, hint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake costs a message, sends nothing, and is the exit code if it came last."""
    assert run_piped(line, 1, monkeypatch) == 2
    assert hint in capsys.readouterr().err


def test_the_shell_shows_a_page(
    serve_store: Callable[[Answer], StoreServer],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A line a key, with what it holds; and a word on how to go on, if there is more."""
    items = [{"key": "a b", "value": {"n": 1}, "revision": 3}, {"key": "c", "value": "x y", "revision": 4}]
    server = serve_store(lambda _request: {"items": items, "more": True, "revision": 9, "status": "ok"})
    assert run_piped("scan", server.port, monkeypatch) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ['"a b"  {"n": 1}', "c  x y"]
    assert "there are more: name c as AFTER" in shown.err


def test_the_shell_goes_on_after_a_lost_connection(
    serve_store: Callable[[Answer], StoreServer],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A write that lost its answer is reported as unknown; the next command opens a new connection."""
    answers = iter([reply_ok(1), hang_up, reply_ok(2)])
    server = serve_store(lambda request: next(answers)(request))  # noqa: PLW0108 - another one each time
    assert run_piped("get k\nset k v\nget k\n", server.port, monkeypatch) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["1", "2"]
    assert "may or may not take effect" in shown.err
    assert "again" in shown.err


def test_a_connection_is_kept_alive_by_pings(serve_store: Callable[[Answer], StoreServer]) -> None:
    """A ping goes out each time, right after a command too, or the silence would be twice the interval."""
    server = serve_store(reply_ok(1))
    with Client(port=server.port) as client:
        shell = Shell(client)
        shell.keep_alive()  # not connected: nothing to keep
        shell.run_line("get k")
        shell.keep_alive()
    assert server.requests == [{"key": "k"}, {"op": "ping"}]


# --- ctl ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "name", "arguments"),
    [
        (["crash", "2"], "crash", {"node": 2}),
        (["crash", "leader"], "crash", {"node": "leader"}),
        (["slow-disk", "leader", "50"], "slow-disk", {"node": "leader", "ms": 50}),
        (["stop", "2"], "stop", {"node": 2}),
        (["restart", "2"], "restart", {"node": 2}),
        (["pause", "2"], "pause", {"node": 2}),
        (["resume", "2"], "resume", {"node": 2}),
        (["partition", "1,2/3,4,5"], "partition", {"groups": [[1, 2], [3, 4, 5]]}),
        (["cut", "1-2"], "cut", {"link": [1, 2]}),
        (["heal"], "heal", {}),
        (["delay", "20"], "delay", {"ms": 20}),
        (["drop", "12.5"], "drop", {"percent": 12.5}),
        (["slow-disk", "2", "50"], "slow-disk", {"node": 2, "ms": 50}),
        (["fail-disk", "2"], "fail-disk", {"node": 2}),
        (["transfer", "3"], "transfer", {"target": 3}),
        (["snapshot", "3"], "snapshot", {"node": 3}),
        (["rebuild", "3", "-o", "json"], "rebuild", {"node": 3}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_ctl_sends_what_was_typed(
    tokens: list[str],
    name: str,
    arguments: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each command goes through the door under its protocol name with its arguments; `ok` is printed."""
    sent: list[tuple[str, object]] = []
    door = Door("127.0.0.1:1", "secret", 1)
    monkeypatch.setattr(control, "find_door", lambda *_: door)

    def command(_: Door, name: str, arguments: object, *, timeout_s: float, tls: object) -> dict[str, object]:
        sent.append((name, arguments))
        return {"id": 1, "status": "ok", **({"node": 4} if "leader" in tokens else {})}

    monkeypatch.setattr(control, "command", command)
    assert main(["ctl", *tokens]) == 0
    assert sent == [(name, arguments)]
    printed = "ok: n4\n" if "leader" in tokens else "ok\n"
    printed = '{"id":1,"status":"ok"}\n' if "json" in tokens else printed
    assert capsys.readouterr().out == printed


def test_ctl_tells_where_a_rebuilt_nodes_old_files_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ctl rebuild` says where the old directory was moved, if there was one, and what happens next."""
    monkeypatch.setattr(control, "find_door", lambda *_: Door("127.0.0.1:1", "secret", 1))
    for moved_to in ("/data/node-3.replaced-1f", None):
        reply = {"id": 1, "status": "ok", "moved_to": moved_to}
        monkeypatch.setattr(control, "command", lambda *_, reply=reply, **__: reply)
        assert main(["ctl", "rebuild", "3"]) == 0
        shown = capsys.readouterr().out
        assert "counts\nfor no majority" in shown
        assert ("/data/node-3.replaced-1f" in shown) == (moved_to is not None)
        assert "None" not in shown


def test_ctl_tells_a_refusal_and_a_missing_door_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server's refusal exits with 1 and its message, no door with 3."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert main(["ctl", "crash", "9", "--data-dir", str(tmp_path)]) == 3
    assert "does a server run" in capsys.readouterr().err
    refusal = {"id": 1, "status": "error", "error": "bad_request", "message": "there is no node 9"}
    monkeypatch.setattr(control, "find_door", lambda *_: Door("127.0.0.1:1", "secret", 1))
    monkeypatch.setattr(control, "command", lambda *_, **__: refusal)
    assert main(["ctl", "crash", "9"]) == 1
    assert "there is no node 9" in capsys.readouterr().err
    assert main(["ctl", "crash", "9", "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == refusal


def test_ctl_status_shows_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ctl status` prints what `status` prints, also when the client door is closed."""
    monkeypatch.setattr(control, "find_door", lambda *_: Door("127.0.0.1:1", "secret", 1))
    monkeypatch.setattr(control, "command", lambda *_, **__: STATUS)
    assert main(["ctl", "status"]) == 0
    assert "n2 leads in term 5" in capsys.readouterr().out


def test_find_door_errors_are_connection_errors() -> None:
    """Library users can catch one class for all that is wrong with the way to a server."""
    assert issubclass(NoDoorError, ConnectionError)


# --- serve --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("127.attacker.example", False),
        ("", False),
    ],
)
def test_only_this_machine_is_served_without_insecure(host: str, expected: bool) -> None:
    """Loopback addresses are parsed, not matched by prefix; any other host needs --insecure."""
    assert is_loopback(host) is expected
    options = ServeOptions(host=host)
    if not expected:
        with pytest.raises(UsageError, match="--insecure"):
            options.check()
    attrs.evolve(options, is_insecure=True).check()


def test_every_serve_option_reaches_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags and variables fill the options, with and without the word `serve`."""
    seen: list[ServeOptions] = []

    def serve(options: ServeOptions) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr(serve_module, "serve", serve)
    tokens = "--port 0 --control-port 0 --nodes 3 --data-dir d --no-fsync --idle-timeout 0"
    tokens += " --session-timeout 60 --segment-bytes 65536 --log-json --log-level debug --trace t.jsonl"
    tokens += " --election-timeout-ms 100 --heartbeat-ms 20 --insecure --host 0.0.0.0"
    tokens += " --line-bytes-max 2048 --pending-bytes-max 4096"
    assert main(tokens.split()) == 0
    assert main(["serve", *tokens.split()]) == 0
    assert seen[0] == seen[1]
    assert seen[0] == ServeOptions(
        host="0.0.0.0",
        port=0,
        control_port=0,
        nodes=3,
        data_dir=Path("d"),
        has_no_fsync=True,
        idle_timeout_s=0,
        session_timeout_s=60,
        segment_bytes=65536,
        line_bytes_max=2048,
        pending_bytes_max=4096,
        election_timeout_ms=100,
        heartbeat_ms=20,
        log_level="debug",
        is_log_json=True,
        trace=Path("t.jsonl"),
        is_insecure=True,
    )
    monkeypatch.setenv("TRIO_KV_NODES", "1")
    monkeypatch.setenv("TRIO_KV_EPHEMERAL", "1")
    monkeypatch.setenv("TRIO_KV_LOG_JSON", "true")
    assert main([]) == 0
    assert seen[2] == ServeOptions(nodes=1, is_ephemeral=True, is_log_json=True)
    assert seen[0].raft_config().election_timeout_min_s == 0.1


@pytest.mark.parametrize(
    ("tokens", "level"),
    [
        ([], "warning"),
        (["-v"], "info"),
        (["--verbose"], "info"),
        (["--log-json"], "info"),
        (["--log-level", "error"], "error"),
        (["--log-json", "--log-level", "error"], "error"),
        (["-v", "--log-level", "debug"], "debug"),
    ],
    ids=" ".join,
)
def test_a_person_is_told_what_is_wrong_and_a_program_more(
    tokens: list[str], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word the console shows warnings, JSON lines all that matters; a level that is named is the level."""
    seen: list[ServeOptions] = []
    monkeypatch.setattr(serve_module, "serve", seen.append)
    assert main(tokens) == 0
    assert seen[0].level == level


@attrs.define
class FakeHouse:
    """An open store without one."""

    port: int = 4001
    control_port: int = 4002
    nodes: int = 5
    leader: int | None = 2
    has_stopped: trio.Event = attrs.field(factory=trio.Event)
    may_stop: trio.Event = attrs.field(factory=trio.Event)
    is_asked_to_stop: trio.Event = attrs.field(factory=trio.Event)

    @property
    def is_loading(self) -> bool:
        return False

    def page_address(self, *, has_token: bool) -> str:
        return "http://127.0.0.1:4002/" + ("#token=SECRET" if has_token else "")

    async def wait_leader(self) -> int:
        if self.leader is None:
            await trio.sleep_forever()
        assert self.leader is not None
        return self.leader

    async def stop(self) -> None:
        self.is_asked_to_stop.set()
        await self.may_stop.wait()
        self.has_stopped.set()


def opener(house: FakeHouse) -> serve_module.OpenHouse:
    @contextlib.asynccontextmanager
    async def open_house(options: ServeOptions, trace: Trace) -> AsyncIterator[FakeHouse]:
        yield house

    return open_house  # type: ignore[return-value]


async def wait_until(is_met: Callable[[], bool]) -> None:
    """Wait, in checkpoints and not in seconds, until a condition is met."""
    with trio.fail_after(30):
        while not is_met():
            await trio.lowlevel.checkpoint()


async def test_start_up_tells_a_person_where_and_who_and_a_signal_ends_it_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ports, data directory and leader are printed; SIGTERM stops the doors first, then the rest."""
    house = FakeHouse()
    house.may_stop.set()
    options = ServeOptions(port=4001, data_dir=tmp_path, trace=tmp_path / "trace.jsonl")
    shown = ""

    def has_banner() -> bool:
        nonlocal shown
        shown += capsys.readouterr().out
        return "Ctrl-C" in shown

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_module.run, options, opener(house))
        await wait_until(has_banner)
        os.kill(os.getpid(), signal.SIGTERM)
        await house.has_stopped.wait()
    assert "5 nodes, n2 leads" in shown
    assert "127.0.0.1:4001" in shown
    assert "127.0.0.1:4002" in shown
    assert "http://127.0.0.1:4002/\n" in shown
    assert "SECRET" not in shown, "it may go into a log that others read"
    assert str(tmp_path) in shown
    names = [type(record.event).name for record in read_trace(tmp_path / "trace.jsonl")]
    assert names == ["trace.started", "server.started", "server.stopping", "server.stopped", "trace.ended"]


async def test_a_directory_with_a_hostile_name_is_shown_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """The banner sends no control characters to the terminal, and has a word for bytes that are no text."""
    house = FakeHouse()
    house.may_stop.set()
    shown = ""

    def has_banner() -> bool:
        nonlocal shown
        shown += capsys.readouterr().out
        return "Ctrl-C" in shown

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_module.run, ServeOptions(data_dir=Path("a\x1b[2J\x9b\udce9")), opener(house))
        await wait_until(has_banner)
        os.kill(os.getpid(), signal.SIGTERM)
    assert r"a\u001b[2J\u009b\udce9" in shown
    assert all(line.isprintable() for line in shown.splitlines())


@pytest.mark.parametrize("is_closing", [False, True])
async def test_a_second_signal_ends_the_process_at_once(
    is_closing: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the first signal's order is being kept, the next one exits with 128 + its number.

    Also when the doors are closed, and what is behind them is: that may wait for a disk.
    """
    house = FakeHouse()
    closing, may_close = trio.Event(), trio.Event()

    @contextlib.asynccontextmanager
    async def open_house(options: ServeOptions, trace: Trace) -> AsyncIterator[FakeHouse]:
        yield house
        closing.set()
        await may_close.wait()

    codes: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_module.run, ServeOptions(), open_house, codes.append)  # type: ignore[arg-type]
        await wait_until(lambda: "Ctrl-C" in capsys.readouterr().out)
        os.kill(os.getpid(), signal.SIGINT)
        await house.is_asked_to_stop.wait()
        if is_closing:
            house.may_stop.set()
            await closing.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await wait_until(lambda: bool(codes))
        house.may_stop.set()
        may_close.set()
    assert codes == [128 + signal.SIGTERM]


async def test_a_terminal_that_closes_ends_it_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    """SIGHUP is an orderly stop, and one that comes twice (from the terminal and from its shell) hastens nothing."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # These tests may run under nohup.
    house = FakeHouse()
    codes: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_module.run, ServeOptions(), opener(house), codes.append)
        await wait_until(lambda: "Ctrl-C" in capsys.readouterr().out)
        os.kill(os.getpid(), signal.SIGHUP)
        await house.is_asked_to_stop.wait()
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGINT)
        await wait_until(lambda: bool(codes))
        house.may_stop.set()
    assert codes == [128 + signal.SIGINT]
    assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL, (
        "a late one must not kill what has stopped in order"
    )


def test_nohup_is_respected() -> None:
    """A SIGHUP that was to be ignored when the process began stays ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert signal.SIGHUP in serve_module.stop_signals()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in serve_module.stop_signals()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("log_level", ["info", "error"])
async def test_one_json_line_says_ready_at_any_level(
    log_level: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """With --log-json, stderr carries one server.started with the ports, and stdout stays empty."""
    house = FakeHouse()
    house.may_stop.set()
    options = ServeOptions(is_log_json=True, log_level=log_level, is_ephemeral=True)  # type: ignore[arg-type]
    shown = b""

    def has_ready_line() -> bool:
        nonlocal shown
        output = capfdbinary.readouterr()
        assert output.out == b""
        shown += output.err
        return b"server.started" in shown and shown.endswith(b"\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_module.run, options, opener(house))
        await wait_until(has_ready_line)
        os.kill(os.getpid(), signal.SIGTERM)
    [ready] = [json.loads(line) for line in shown.splitlines() if b"server.started" in line]
    assert ready["port"] == 4001
    assert ready["control_port"] == 4002
    assert ready["leader"] == 2
    assert ready["data_dir"] == ""
    assert ready["pid"] == os.getpid()


async def test_a_trace_that_can_not_be_written_any_more_is_told(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """A full disk under the trace is an event of the log, once, and the store goes on."""
    house = FakeHouse()
    house.may_stop.set()
    options = ServeOptions(is_log_json=True, is_ephemeral=True, trace=Path("/dev/full"))
    shown = b""

    def has_told() -> bool:
        nonlocal shown
        shown += capfdbinary.readouterr().err
        return b"server.started" in shown and b"trace.failed" in shown and shown.endswith(b"\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_module.run, options, opener(house))
        await wait_until(has_told)
        os.kill(os.getpid(), signal.SIGTERM)
    events = [json.loads(line) for line in shown.splitlines()]
    [failed] = [event for event in events if event["event"] == "trace.failed"]
    assert (failed["file"], failed["reason"]) == ("/dev/full", "No space left on device")


async def test_start_up_does_not_wait_for_a_leader_for_ever(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cluster that can't elect yet is open all the same, and says so."""
    house = FakeHouse(leader=None)
    house.may_stop.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_module.run, ServeOptions(), opener(house))
        await trio.sleep(serve_module.LEADER_WAIT_S + 1)
        os.kill(os.getpid(), signal.SIGINT)
        await house.has_stopped.wait()
    assert "no node leads yet" in capsys.readouterr().out


def test_a_store_that_can_not_open_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stands in the way of a start is one message and exit code 1, without a traceback."""

    async def run(options: ServeOptions) -> None:
        async with trio.open_nursery():
            raise StartError("the data directory is in use")

    monkeypatch.setattr(serve_module, "run", run)
    assert main(["--ephemeral"]) == 1
    assert capsys.readouterr().err == "trio-kv: the data directory is in use\n"


def test_a_segment_that_ends_inside_a_sector_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is opened, whether there is a data directory or not; the message names sizes that would do."""

    def serve(options: ServeOptions) -> None:
        raise AssertionError(f"started with {options}")

    monkeypatch.setattr(serve_module, "run", serve)
    monkeypatch.setenv("COLUMNS", "200")
    code = main(["--data-dir", str(tmp_path), "--segment-bytes", "1000000"])
    told = capsys.readouterr().err
    assert (code, "999936 and 1000448" in told) == (2, True), told


def test_an_ephemeral_store_needs_a_place_until_it_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no temporary file can be made that is said, with what would help."""

    def refuse(**_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert main(["--ephemeral", "--port", "0", "--control-port", "0"]) == 1
    assert "no usable temporary directory found. TMPDIR names another" in capsys.readouterr().err


def test_a_trace_that_can_not_be_made_is_no_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trace was asked for, so a run without one is refused."""
    assert main(["--ephemeral", "--trace", str(tmp_path / "missing" / "trace.jsonl")]) == 1
    assert "can't be written: No such file" in capsys.readouterr().err
