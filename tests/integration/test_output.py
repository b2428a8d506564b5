"""Claims about the real process and its output: nobody who reads it, or does not, holds up the store."""

import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from trio_kv.trace.reading import read_trace

READY_S = 30.0
STOP_S = READY_S
"""A server that is told to stop ends, whoever stands still: how fast is measured by `bench/blocked.py`."""


@attrs.define
class Server:
    process: subprocess.Popen[bytes]
    ready: dict[str, Any]

    def ask(self, *lines: bytes) -> list[dict[str, Any]]:
        with socket.create_connection(("127.0.0.1", self.ready["port"]), READY_S) as sock:
            sock.sendall(b"".join(line + b"\n" for line in lines))
            with sock.makefile("rb") as replies:
                return [json.loads(replies.readline()) for _ in lines]

    def write_many(self, count: int) -> None:
        """Write more than any pipe takes, if each write is told in lines at level debug."""
        for start in range(0, count, 10):
            lines = [b'{"key":"%d","value":1}' % number for number in range(start, start + 10)]
            assert all(reply["status"] == "ok" for reply in self.ask(*lines))

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_S)


def command_line(*options: str) -> list[str]:
    ports = ("--port", "0", "--control-port", "0", "--nodes", "1")
    return [sys.executable, "-m", "trio_kv", "serve", *ports, *options]


@contextlib.contextmanager
def serving(*options: str, **streams: Any) -> Iterator[Server]:
    """Run the store with --log-json; its log is read until it is ready, and not any more."""
    streams.setdefault("stderr", subprocess.PIPE)
    with subprocess.Popen(command_line("--log-json", *options), **streams) as process:
        try:
            ready = None
            assert process.stderr is not None
            for line in process.stderr:
                event = json.loads(line)
                if event["event"] == "server.started":
                    ready = event
                    break
            assert ready is not None
            yield Server(process, ready)
        finally:
            process.kill()


def test_log_and_trace_that_nobody_reads_hold_up_nothing(tmp_path: Path) -> None:
    """stdout, stderr and a trace full to the brim: clients are answered, and SIGTERM ends it in order."""
    trace = tmp_path / "trace"
    os.mkfifo(trace)
    reader = os.open(trace, os.O_RDONLY | os.O_NONBLOCK)
    options = ("--ephemeral", "--log-level", "debug", "--trace", str(trace))
    with serving(*options, stdout=subprocess.PIPE) as server:
        assert server.process.stderr is not None
        server.write_many(1000)
        for descriptor in (server.process.stderr.fileno(), reader):
            assert len(os.read(descriptor, 1 << 20)) >= 1 << 12
        server.write_many(1000)
        assert server.stop() == 0
    os.close(reader)


def test_a_trace_without_a_reader_holds_up_neither_start_nor_end(tmp_path: Path) -> None:
    """A named pipe that nobody has opened is waited for by nobody."""
    os.mkfifo(tmp_path / "trace")
    with serving("--ephemeral", "--trace", str(tmp_path / "trace")) as server:
        assert server.ask(b'{"key":"a","value":1}')[0]["status"] == "ok"
        assert server.stop() == 0


def test_ctrl_s_in_the_terminal_holds_up_nothing() -> None:
    """A terminal that stands still costs lines of the log, and no client an answer."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command_line("--log-json", "--ephemeral", "--log-level", "debug"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            with os.fdopen(ours, "r+b", buffering=0) as terminal:
                events = (json.loads(line) for line in iter(terminal.readline, b""))
                ready = next(event for event in events if event["event"] == "server.started")
                terminal.write(b"\x13")
                server = Server(process, ready)
                server.write_many(500)
                assert server.stop() == 0
        finally:
            process.kill()


def test_a_restart_keeps_the_trace_of_the_run_that_was_killed(tmp_path: Path) -> None:
    """After kill -9 the trace has what led to it, and then the next run."""
    trace = tmp_path / "trace.jsonl"
    options = ("--data-dir", str(tmp_path / "data"), "--trace", str(trace))
    with serving(*options) as server:
        wait_for(lambda: b"server.started" in trace.read_bytes())
        server.process.kill()
    with serving(*options) as server:
        assert server.stop() == 0
    names = [type(record.event).name for record in read_trace(trace)]
    assert names.count("trace.started") == names.count("server.started") == 2
    assert names[-1] == "trace.ended"


def test_a_directory_whose_name_is_no_utf_8_is_served(tmp_path: Path) -> None:
    """The ready line comes, and status, events and the command line work with such a name."""
    data_dir = tmp_path / "caf\udce9"
    with serving("--data-dir", str(data_dir)) as server:
        assert server.ready["data_dir"].endswith(r"caf\udce9")
        told = subprocess.run(
            [sys.executable, "-m", "trio_kv", "ctl", "status", "--data-dir", str(data_dir)],
            capture_output=True,
            timeout=READY_S,
            check=False,
        )
        assert (told.returncode, told.stderr) == (0, b"")
        assert server.stop() == 0


def test_without_any_stream_and_any_locale_it_runs(tmp_path: Path) -> None:
    """With descriptors 0 to 2 closed and an ASCII locale, the store is served, and its files hold no log."""
    data_dir = tmp_path / "žluť"
    words = command_line("--data-dir", str(data_dir))
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    with subprocess.Popen(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words], env={**os.environ, **variables}
    ) as process:
        try:
            door = data_dir / "control.json"
            wait_for(door.exists)
            wait_for(lambda: b"0" in ctl_status(data_dir))
            process.terminate()
            assert process.wait(STOP_S) == 0
        finally:
            process.kill()
    for file in data_dir.rglob("*"):
        assert file.is_dir() or b"leader.elected" not in file.read_bytes()


def ctl_status(data_dir: Path) -> bytes:
    words = [sys.executable, "-m", "trio_kv", "ctl", "status", "--data-dir", str(data_dir)]
    told = subprocess.run(words, capture_output=True, timeout=READY_S, check=False)
    return str(told.returncode).encode()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition is met."""
    deadline_s = time.monotonic() + READY_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.mark.parametrize(("prefix", "number"), [((), signal.SIGHUP), (("nohup",), signal.SIGTERM)])
def test_a_terminal_that_closes_stops_it_in_order_unless_it_runs_under_nohup(
    prefix: tuple[str, ...], number: int
) -> None:
    """SIGHUP is an orderly stop with exit code 0; under nohup it is nothing."""
    words = [*prefix, *command_line("--log-json", "--ephemeral")]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            ready = next(json.loads(line) for line in process.stderr if b"server.started" in line)
            server = Server(process, ready)
            process.send_signal(signal.SIGHUP)
            if prefix:
                assert server.ask(b'{"key":"a","value":1}')[0]["status"] == "ok"
                process.send_signal(number)
            assert process.wait(STOP_S) == 0
        finally:
            process.kill()


def test_colours_are_for_terminals_that_want_them() -> None:
    """The server's log follows NO_COLOR, as all commands do."""
    shown = {}
    for name, value in (("NO_COLOR", "1"), ("TERM", "xterm")):
        ours, theirs = pty.openpty()
        environ = {key: text for key, text in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
        environ = {**environ, "TERM": "xterm", name: value}
        with subprocess.Popen(
            command_line("--ephemeral", "-v"), stdin=theirs, stdout=theirs, stderr=theirs, env=environ
        ) as process:
            os.close(theirs)
            data = b""
            while b"Ctrl-C" not in data or b"server.started" not in data:
                assert select.select([ours], [], [], READY_S)[0]
                data += os.read(ours, 1 << 16)
            process.terminate()
            process.wait(STOP_S)
        os.close(ours)
        shown[name] = data
    assert b"\x1b" in shown["TERM"]
    assert b"\x1b" not in shown["NO_COLOR"]
