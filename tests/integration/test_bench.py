"""Claims about `trio-kv bench` on a cluster of its own."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from trio_kv.cli.main import main


@pytest.mark.parametrize(
    "options", [["--pipeline", "16"], ["--rate", "500", "--stale"]], ids=["closed", "open"]
)
def test_a_cluster_of_its_own_answers_right(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three real nodes: all keys are found after filling, no answer is wrong, and the directory is gone at the end."""
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path))
    fast = [
        "--nodes",
        "3",
        "--keys",
        "300",
        "--connections",
        "8",
        "--warm-up",
        "0.2",
        "--duration",
        "1",
        "--json",
    ]
    assert main(["bench", *fast, *options]) == 0
    members = json.loads(capsys.readouterr().out)
    assert members["wrong"] == 0
    assert members["errors"] == {}
    assert {name: each["missing"] for name, each in members["operations"].items()} == {"set": 0, "get": 0}
    assert all(each["count"] > 0 for each in members["operations"].values())
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it said is told: here a variable that makes no sense."""
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path))
    monkeypatch.setenv("TRIO_KV_SEGMENT_BYTES", "7")
    assert main(["bench", "--nodes", "3"]) == 3
    assert "the server did not start" in capsys.readouterr().err


def test_its_server_ends_with_it(tmp_path: Path) -> None:
    """SIGTERM at any time, here while its server starts: no process and no directory is left behind."""
    command = [sys.executable, "-m", "trio_kv", "bench", "--nodes", "3", "--duration", "3600"]
    environment = {**os.environ, "TMPDIR": os.fspath(tmp_path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while not list(tmp_path.glob("trio_kv-bench-*/data/*")):
            assert process.poll() is None
        process.terminate()
        assert process.wait(30) == 130, "it must not wait for as long as the server may take to start"
    assert list(tmp_path.iterdir()) == []
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if os.fsencode(tmp_path) in read(path)]
    assert left == []


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""
