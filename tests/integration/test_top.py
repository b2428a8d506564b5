"""`top` against a real server: into a pipe, on a terminal, and when the server ends."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real_terminal import WAIT_S, Terminal, command
from trio_kv.cli.main import main


@contextmanager
def serving(data: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a server of one node, the terminal's size of which nobody knows."""
    options = ("--nodes", "1", "--port", "0", "--control-port", "0", "--data-dir", str(data), "--no-fsync")
    with subprocess.Popen(
        command("serve", *options), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            banner = [process.stdout.readline() for _ in range(6)]
            assert "page     http://127.0.0.1:" in banner[3]
            assert "token" not in banner[3], "a pipe is no terminal"
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(WAIT_S)


def check_lines(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Into a pipe go lines for people or JSON, as many as were asked for; it ends when its reader is gone."""
    words = ("--data-dir", str(data), "--interval", "0.1", "--count")
    assert main(["top", *words, "2"]) == 0
    assert capsys.readouterr().out.count("n1 leads in term") == 2
    assert main(["top", *words, "3", "--output", "json"]) == 0
    frames = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [frame["leader"] for frame in frames] == [1, 1, 1]
    assert frames[0]["number"] < frames[1]["number"] < frames[2]["number"]
    with subprocess.Popen(command("top", *words, "0"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        shown = process.stdout.readline()
        assert b"n1 leads in term" in shown
        assert b"\x1b" not in shown
        process.stdout.close()
        assert process.wait(WAIT_S) == 0


def test_without_a_server_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As every command does, and with the same exit code."""
    assert main(["top", "--data-dir", str(tmp_path)]) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert "does a server run" in told.err


def test_it_shows_the_cluster_in_a_pipe_and_on_a_terminal_and_outlives_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal it is drawn anew, says when the server is gone, goes on with the next one, and gives it back at q.

    That next one, on a terminal too, tells the dashboard's address with the token of the file beside its data.
    """
    data = tmp_path / "data"
    top = server = None
    try:
        with serving(data):
            top = Terminal("top", "--data-dir", str(data))
            # The doors are open before there is a leader.
            top.wait_until(lambda shown: "n1 leads in term" in shown)
            check_lines(data, capsys)
            top.wait_until(lambda shown: shown.count("n1 leads in term") >= 2)
            assert "\x1b[?1049h" in top.shown
        top.wait_until(lambda shown: "start it again" in shown or "does a server run" in shown)
        before = len(top.shown)
        server = Terminal("serve", "--port", "0", "--control-port", "0", "--data-dir", str(data))
        server.wait_until(lambda shown: "Ctrl-C" in shown)
        door = json.loads((data / "control.json").read_text())
        assert f"page     http://{door['address']}/#token={door['token']}" in server.shown
        top.wait_until(lambda shown: "n1 leads in term" in shown[before:])
        top.type("q")
        top.wait_until(lambda shown: "\x1b[?1049l" in shown)
        assert top.process.wait(WAIT_S) == 0
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(WAIT_S) == 0
    finally:
        for terminal in (top, server):
            if terminal is not None:
                terminal.close()
