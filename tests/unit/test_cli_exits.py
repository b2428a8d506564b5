"""Exit codes tell of what was done: not of whether it could be printed, nor of who was surprised."""

import contextlib
import errno
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from trio_kv.cli import simulate as simulate_module
from trio_kv.cli.main import main
from trio_kv.cli.streams import Sink
from trio_kv.client.client import Client
from trio_kv.sim.attempt import TraceText
from trio_kv.storage import inspect

FULL_DEVICE = Path("/dev/full")
needs_full_device = pytest.mark.skipif(not FULL_DEVICE.exists(), reason="there is no /dev/full here")


class OneAnswer(socketserver.ThreadingTCPServer):
    """A store that says the same to each line."""

    daemon_threads = True
    answer = b""


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for _ in self.rfile:
            assert isinstance(self.server, OneAnswer)
            self.wfile.write(self.server.answer)


OK = b'{"key": "k", "value": "old", "status": "ok"}\n'
CONFLICT = b'{"key": "k", "value": "old", "status": "error", "error": "conflict", "message": "so it is"}\n'
UNKNOWN = b'{"key": "k", "value": null, "status": "error", "error": "timeout", "message": "so it is"}\n'


@pytest.fixture
def store() -> Iterator[OneAnswer]:
    with OneAnswer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        server.answer = OK
        yield server
        server.shutdown()
        thread.join(10)


def carry_out(store: OneAnswer, words: str, redirection: str) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m trio_kv {words} --port {store.server_address[1]} {redirection}"
    environment = {name: text for name, text in os.environ.items() if not name.startswith("TRIO_KV_")}
    return subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )


@pytest.mark.parametrize(
    ("answer", "words", "redirection", "code"),
    [
        (OK, "set k v", ">/dev/full", 74),
        (OK, "get k", ">/dev/full 2>/dev/full", 74),
        (CONFLICT, "cas k v -o json", ">/dev/full", 1),
        (UNKNOWN, "delete k -o json", ">/dev/full", 4),
        (OK, "set k v", "<&- >&- 2>&-", 0),
    ],
)
@needs_full_device
def test_what_can_not_be_printed_does_not_change_what_was_done(
    store: OneAnswer, answer: bytes, words: str, redirection: str, code: int
) -> None:
    """Done and not told is 74, a reader that left or was never there is 0, and any other code stands."""
    store.answer = answer
    finished = carry_out(store, words, redirection)
    assert finished.returncode == code
    assert "Traceback" not in finished.stderr
    assert ("could not be written" in finished.stderr) == (code == 74 and "2>" not in redirection)


def test_a_reader_that_left_is_no_failure(store: OneAnswer) -> None:
    """`get k | true` under pipefail."""
    finished = carry_out(store, "get k", "| true; exit ${PIPESTATUS[0]}")
    assert finished.returncode == 0
    assert finished.stderr == ""


def test_a_closed_stderr_sends_no_message_to_stdout(store: OneAnswer) -> None:
    """What is said to a person is not taken for data by the program that reads them."""
    store.answer = CONFLICT
    finished = carry_out(store, "cas k v", "2>&-")
    assert (finished.returncode, finished.stdout) == (1, "")


def test_text_that_the_terminal_can_not_show_is_no_failure(store: OneAnswer) -> None:
    """The key is removed, whatever the character set of the output."""
    store.answer = '{"key": "k", "value": "ключ", "status": "ok"}\n'.encode()
    command = [sys.executable, "-m", "trio_kv", "delete", "k", "--port", str(store.server_address[1])]
    finished = subprocess.run(
        command,
        capture_output=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert finished.returncode == 0
    assert finished.stdout == b"\\u043a\\u043b\\u044e\\u0447\n"


def test_a_sink_waits_for_a_pipe_that_does_not_block() -> None:
    """Somebody who shares it may have made it so; nothing is lost by that."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = b"x" * (1 << 20)
    received = bytearray()

    def read() -> None:
        while len(received) < len(data):
            received.extend(os.read(reader, 65536))

    thread = threading.Thread(target=read, daemon=True)
    sink = Sink(writer)
    thread.start()
    written = 0
    while written < len(data):
        written += sink.write(data[written:])
    thread.join(10)
    assert bytes(received) == data
    assert [sink.loss] == [None]
    os.close(reader)
    assert sink.write(b"more") == 4
    assert isinstance(sink.loss, BrokenPipeError)
    os.close(writer)


# --- the net ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "told", "has_traceback"),
    [
        (RuntimeError("so it is"), 70, "a bug of trio_kv", True),
        (AssertionError(), 70, "a bug of trio_kv", True),
        (BaseExceptionGroup("", [ValueError("inner"), KeyboardInterrupt()]), 70, "a bug of trio_kv", True),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 70, "/data/x: no space left", False),
        (ExceptionGroup("", [PermissionError(errno.EACCES, "Denied", "/y")]), 70, "/y: denied", False),
        (OSError(errno.EMFILE, "Too many open files"), 70, "ulimit -n", False),
        (MemoryError(), 70, "out of memory", False),
        (KeyboardInterrupt(), 130, "", False),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), 130, "", False),
    ],
    ids=lambda value: repr(value) if isinstance(value, BaseException) else "",
)
def test_what_nobody_foresaw_has_a_code_of_its_own(  # noqa: PLR0917 - a table
    error: BaseException,
    code: int,
    told: str,
    has_traceback: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A bug shows its traceback, the system's refusal a line; neither takes the code of a finding."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.delenv("TRIO_KV_DEBUG", raising=False)
    monkeypatch.setattr(Client, "ask", fail)
    assert main(["get", "k"]) == code
    shown = capsys.readouterr().err
    assert told in shown
    assert ("Traceback" in shown) == has_traceback
    if code == 70 and not has_traceback:
        monkeypatch.setenv("TRIO_KV_DEBUG", "1")
        assert main(["get", "k"]) == code
        assert "Traceback" in capsys.readouterr().err


def test_an_exit_is_not_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who calls sys.exit means it."""

    def leave(*_: object, **__: object) -> None:
        raise SystemExit(17)

    monkeypatch.setattr(Client, "ask", leave)
    with pytest.raises(SystemExit, match="17"):
        main(["get", "k"])


# --- findings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["chaos", "--seconds", "1"], ["sim", "--seeds", "1..2"]], ids=lambda words: words[0]
)
def test_a_folder_that_can_not_be_made_is_no_violation(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is found out before anything is run, and is a matter of usage: 2."""
    (tmp_path / "file").touch()
    assert main([*words, "--out", str(tmp_path / "file" / "folder")]) == 2
    shown = capsys.readouterr().err
    assert str(tmp_path / "file") in shown
    assert "not a directory" in shown


def test_a_plan_that_is_no_text_is_told_without_a_decoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture in the place of a plan, say: usage."""
    path = tmp_path / "plan.json"
    path.write_bytes(b"\xff\xfe")
    assert main(["sim", "--plan", str(path)]) == 2
    assert capsys.readouterr().err == f"trio-kv: {path} is no plan that can be run: it is not text\n"


@needs_full_device
def test_a_trace_that_can_not_be_written_is_no_violation(capsys: pytest.CaptureFixture[str]) -> None:
    """The seed is run to its end, and found valid; that its trace is not whole is another matter."""
    assert main(["sim", "--seed", "1", "--trace", str(FULL_DEVICE)]) == 74
    shown = capsys.readouterr()
    assert "the trace is not whole: /dev/full: no space left" in shown.err
    assert "valid" in shown.out


def test_figures_that_can_not_be_written_do_not_hide_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder was there when the campaign began, and the disk is full when it ends."""
    monkeypatch.setattr(simulate_module, "SUMMARY_NAME", "no-such-folder/summary.json")
    assert main(["sim", "--seed", "1", "--out", str(tmp_path)]) == 74
    shown = capsys.readouterr()
    assert "no such file" in shown.err
    assert "valid" in shown.out


def test_the_text_of_a_trace_is_hashed_though_its_file_is_full() -> None:
    """What is run hears nothing of it."""

    def refuse(_: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    whole, torn = TraceText(), TraceText(SimpleNamespace(write=refuse))  # type: ignore[arg-type]
    for text in (whole, torn):
        text.tell("first")
        text.tell("second")
    assert torn.loss is not None
    assert torn.digest() == whole.digest()


@pytest.mark.parametrize("command", ["verify", "dump"])
def test_a_directory_that_may_not_be_read_is_neither_torn_nor_sound(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It can't be told: 4, with the place and the reason."""
    place = str(tmp_path / "manifest.json")

    def refuse(*_: object, **__: object) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", place)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", refuse)
        assert main(["wal", command, str(tmp_path)]) == 4
    assert f"{place}: permission denied" in capsys.readouterr().err
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode({}))
    with monkeypatch.context() as patch:
        patch.setattr(inspect, command, refuse)
        assert main(["wal", command, str(tmp_path)]) == 4


def test_a_rebuild_where_nothing_may_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was done: 1, with the place and the reason."""

    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(monkeypatch.context())
        patch.setattr(Path, "exists", refuse)
        assert main(["rebuild", "1", "--data-dir", str(tmp_path)]) == 1
    assert "permission denied" in capsys.readouterr().err
