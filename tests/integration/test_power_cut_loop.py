"""Claims about the loop that cuts the power on real file systems (`bench/power_cuts.py`)."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
NAMED = "rename data/manifest.json #1"
"""The step that lets a cluster be there."""


def run(script: str, *arguments: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script of the bench to its end."""
    words = [sys.executable, str(BENCH / script), *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=100)


def test_a_power_cut_shows_what_was_not_synced() -> None:
    """A server without syncs acknowledges writes; the loop says that they are gone, and how to repeat it."""
    is_able = sys.platform.startswith("linux") and os.geteuid() == 0 and Path("/dev/loop-control").exists()
    if not is_able or None in map(shutil.which, ("mkfs.xfs", "unshare")):
        pytest.skip("a file system in a file takes Linux, root, unshare and mkfs.xfs")
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], check=False).returncode:
        pytest.skip("there may be no namespace of our own here")
    arguments = ("--fs", "xfs", "--phase", "first-start", "--at", f"after {NAMED}", "--restarted")
    done = run("power_cuts.py", *arguments, variables={"TRIO_KV_NO_FSYNC": "1"})
    assert done.returncode == 1, done.stdout + done.stderr
    assert "LOST: 5 of 5 acknowledged writes" in done.stdout
    assert f"--fs xfs --phase first-start --at 'after {NAMED}' --restarted" in done.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the names of open files are those of Linux")
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_process_is_killed_right_at_the_step_that_is_named(side: str, tmp_path: Path) -> None:
    """It dies with the steps before that one done, and listed by their names, and none behind it."""
    listed, data = tmp_path / "steps", tmp_path / "data"
    variables = {"STEPS_UNDER": str(tmp_path), "STEPS_LIST": str(listed), "KILL_AT": f"{side} {NAMED}"}
    done = run("kill_at_step.py", "serve", "--data-dir", str(data), "--nodes", "1", variables=variables)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (data / "manifest.json").exists() == (side == "after")
    steps = listed.read_text().splitlines()
    assert steps[0] == "mkdir data #1"
    assert steps[-1] == NAMED
    assert {"fsync data #1", "mkdir data/node-1 #1", "rename data/node-1/wal-*.log #1"} <= set(steps)
