"""Claims about `trio-kv bench` as a command, on real sockets: servers that lie, refuse and leave, and Ctrl-C."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest

from trio_kv.cli import terminal
from trio_kv.cli.main import main

Answer = Callable[[bytes], bytes | None]
STORE: dict[str, object] = {}


def honest(line: bytes) -> bytes:
    """Answer as the store does."""
    request = msgspec.json.decode(line)
    if "value" in request:
        STORE[request["key"]] = request["value"]
    value = STORE.get(request["key"])
    return (
        json.dumps({"key": request["key"], "value": value, "status": "ok" if value else "error"}).encode()
        + b"\n"
    )


@contextmanager
def serve(answer: Answer) -> Iterator[int]:
    """Serve lines on a port of this machine; an answer that is None closes the connection."""
    STORE.clear()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener, answer), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def accept(listener: socket.socket, answer: Answer) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=talk, args=(connection, answer), daemon=True).start()


def talk(connection: socket.socket, answer: Answer) -> None:
    with connection, connection.makefile("rb") as lines:
        try:
            for line in lines:
                text = answer(line)
                if text is None:
                    return
                connection.sendall(text)
        except ConnectionError:
            return


def bench(port: int, *options: str) -> int:
    fast = ["--warm-up", "0", "--duration", "0.2", "--connections", "4", "--keys", "50"]
    return main(["bench", "--port", str(port), *fast, *options])


def test_an_honest_server_gets_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each operation, with percentiles; the conditions stand below, and on demand a histogram."""
    with serve(honest) as port:
        assert bench(port, "--fill", "--histogram") == 0
    out, err = capsys.readouterr()
    head, *rows = out.splitlines()
    assert head.split() == [
        *("operation", "count", "per", "second"),
        *("p50", "p90", "p99", "p99.9", "max", "ms", "errors"),
    ]
    assert [row.split()[0] for row in rows[:2]] == ["set", "get"]
    assert all(row.split()[-1] == "none" for row in rows[:2])
    assert rows[2].startswith("4 connections x 1, closed loop, 50 keys (uniform)")
    assert "set, latency in ms" in out
    assert not err


@pytest.mark.parametrize("columns", [50, 60, 80, 100])
def test_a_narrow_terminal_shows_whole_figures(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Columns are left out, and no figure is cut."""
    monkeypatch.setattr(terminal, "PIPE_COLUMNS", columns)
    with serve(honest) as port:
        assert bench(port, "--fill") == 0
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert "…" not in head + first
    assert len(head) <= columns
    assert ("p99.9" in head) == (columns >= 80)
    assert first.split()[0] == "set"


@pytest.mark.parametrize("option", ["--json", "--output=json"])
def test_json_is_one_object_with_all_figures(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """For programs: what was asked for, and what it came to."""
    with serve(honest) as port:
        assert bench(port, "--fill", "--pipeline", "8", "--mix", "25", option) == 0
    members = json.loads(capsys.readouterr().out)
    assert (members["pipeline"], members["mix"], members["wrong"], members["errors"]) == (8, 25, 0, {})
    assert set(members["operations"]) == {"set", "get"}
    counts = [each["count"] for each in members["operations"].values()]
    assert members["per_second"] == pytest.approx(sum(counts) / members["seconds"], rel=0.01)
    assert 0.15 < counts[0] / sum(counts) < 0.35
    assert 0 < members["p50_ms"] <= members["p99_ms"] <= members["max_ms"]


def test_a_lying_server_is_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    """It is fast, and answers GETs with the value of another key: the exit code is 1, and a word says what it said."""

    def lie(line: bytes) -> bytes:
        return honest(line).replace(b'"value": "bench:00', b'"value": "bench:11')

    with serve(lie) as port:
        assert bench(port, "--mix", "0", "--fill") == 1
    assert "the keys could not be written: wrong" in capsys.readouterr().err
    with serve(lie) as port:
        assert bench(port) == 1
    assert "WRONG ANSWERS" in capsys.readouterr().err


def test_a_set_that_is_dropped_is_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that says ok and keeps nothing: after filling, each key must be found."""

    def forget(line: bytes) -> bytes:
        text = honest(line)
        STORE.clear()
        return text

    with serve(forget) as port:
        assert bench(port, "--fill", "--mix", "0") == 1
    assert "was written, and is not found" in capsys.readouterr().err


def test_nobody_there_is_3(capsys: pytest.CaptureFixture[str]) -> None:
    """With the address, and why."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert bench(port) == 3
    assert f"no server at 127.0.0.1:{port}: connection refused" in capsys.readouterr().err


def test_a_server_that_leaves_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Every connection is closed after some answers: the figures are there, and how many were lost."""
    left = iter(range(30))

    def leave(line: bytes) -> bytes | None:
        return honest(line) if next(left, None) is not None else None

    with serve(leave) as port:
        assert bench(port) == 0
    out, err = capsys.readouterr()
    assert "closed" in out
    assert "connections were lost or refused: closed" in err


def test_overloaded_is_counted_by_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that refuses all has no speed, and the exit code is 1: nothing was answered."""
    refusal = b'{"key": null, "value": null, "status": "error", "error": "overloaded", "message": "full"}\n'
    with serve(lambda _line: refusal) as port:
        assert bench(port, "--json") == 1
    out, err = capsys.readouterr()
    members = json.loads(out)
    assert members["per_second"] == 0
    assert members["errors"]["overloaded"] > 0
    assert "nothing was answered" in err


def test_gets_that_find_nothing_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """They are answers, and less work than others."""
    with serve(honest) as port:
        assert bench(port, "--mix", "0") == 0
    assert "--fill writes each key first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--nodes", "3"], "--nodes starts a server"),
        (["--mix", "101"], "--mix 101"),
        (["--pipeline", "0"], "--pipeline 0"),
        (["--distribution", "zpif"], "did you mean zipf?"),
        (["--duration", "0"], "--duration 0"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As usage, before anything is connected."""
    assert main(["bench", "--port", "1", *options]) == 2
    assert word in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_figures_so_far(number: signal.Signals) -> None:
    """A run of an hour: as soon as something was answered, Ctrl-C prints the table and ends with 130."""
    seen = threading.Event()

    def answer(line: bytes) -> bytes:
        seen.set()
        return honest(line)

    with serve(answer) as port:
        command = [
            sys.executable,
            "-m",
            "trio_kv",
            "bench",
            "--port",
            str(port),
            "--duration",
            "3600",
            "--warm-up",
            "0",
        ]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        ) as process:
            assert seen.wait(30)
            process.send_signal(number)
            out, _ = process.communicate(timeout=10)
    assert process.returncode == 130
    assert out.startswith("operation")
