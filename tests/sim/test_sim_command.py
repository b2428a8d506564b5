"""`sim` from the command line: seeds, traces, failures and how they are repeated, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import trio_kv
from trio_kv.cli.main import main
from trio_kv.sim import faults
from trio_kv.sim.attempt import Failure, Task, attempt, run_task
from trio_kv.sim.plan import Plan, draw_plan
from trio_kv.sim.plan_file import read_plan
from trio_kv.sim.worlds import Draw, world_kind

Patch = pytest.MonkeyPatch
ROOT = Path(trio_kv.__file__).parents[1]

PLANT = """
from trio_kv.raft.role import Role
real = Role.on_request_vote
def on_request_vote(self, now, message):
    if self.raft.vote not in {None, self.raft.id}:
        self.raft.vote = None
    real(self, now, message)
Role.on_request_vote = on_request_vote
"""
"""A bug: a node votes twice in a term."""


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: Patch, tmp_path: Path) -> None:
    """Let results go into a directory of the test, and no variable change what is run."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TRIO_KV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def first_failure(seeds: Sequence[int]) -> tuple[Plan, Failure]:
    for seed in seeds:
        result = run_task(Task(world="core", seed=seed))
        if result.failure is not None and draw_plan(seed).faults:
            return draw_plan(seed), result.failure
    raise AssertionError("the planted bug was not found")


def test_a_campaign_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A few seeds in processes: totals, a verdict, exit code 0, and a summary where it was asked for."""
    assert main(["sim", "--seeds", "1..6", "--jobs", "2", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "valid: no violation in 6 seeds" in shown
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["verdict"], summary["worlds"]["core"]["seeds"]) == ("valid", 6)
    assert summary["worlds"]["core"]["events"] > 1000


def test_a_campaign_as_json_and_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    """`--output json` prints one object and nothing else; `--verbose` prints a line for each of many seeds."""
    assert main(["sim", "--seeds", "3..4", "-o", "json", "-v"]) == 0
    assert json.loads(capsys.readouterr().out)["worlds"]["core"]["seeds"] == 2
    assert main(["sim", "--seed", "3", "--trace", "trace.txt", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"]["operations"] > 0
    assert main(["sim", "--seeds", "3..4", "-v", "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == [
        "seed 3 of the core world",
        "seed 4 of the core world",
    ]


def test_a_trace_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    """Two processes with different PYTHONHASHSEEDs write the same file, and print the SHA-256 of it."""
    shown = []
    for hash_seed in ("1", "2"):
        command = [
            sys.executable,
            "-m",
            "trio_kv",
            "sim",
            "--seed",
            "6",
            "--trace",
            f"{tmp_path}/{hash_seed}",
        ]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        shown.append(
            subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        )
    first, second = ((tmp_path / name).read_bytes() for name in ("1", "2"))
    assert first == second
    assert first.count(b"\n") > 500
    assert shown[0].split()[0] == shown[1].split()[0]
    figures = run_task(Task(world="core", seed=6, is_traced=True)).figures
    assert figures is not None
    assert (figures.text_hash, f"trace {figures.trace_hash}" in shown[0]) == (shown[0].split()[0], True)


def test_kinds_confine_the_faults() -> None:
    """With `--kinds` the faults of a plan are of these kinds alone."""
    plan = world_kind("core").draw_plan(5, Draw(kinds=("crash", "partition")))
    assert {type(fault) for fault in plan.faults} == {faults.Crash, faults.Partition}


def test_without_judges_it_is_the_same_run() -> None:
    """A bare run is the run that is judged, step for step."""
    for seed in (4, 7):
        bare, judged = (
            run_task(Task(world="core", seed=seed, is_bare=is_bare)).figures for is_bare in (True, False)
        )
        assert bare is not None
        assert judged is not None
        assert bare.trace_hash == judged.trace_hash


@pytest.mark.usefixtures("planted")
def test_a_failure_tells_how_to_repeat_it_and_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed seed: exit code 1, the command that replays it, the smallest schedule, and a folder that replays."""
    plan, failure = first_failure(range(1, 30))
    seed, out = plan.seed, tmp_path / "out"
    assert main(["sim", "--seed", str(seed), "--out", str(out)]) == 1
    shown = capsys.readouterr()
    assert f"python -m trio_kv sim --seed {seed} --world core --verbose" in shown.err
    assert failure.text in shown.err
    assert f"violation: 1 of 1 seed failed: {seed} (core)" in shown.out
    folder = out / f"core-{seed}"
    assert {path.name for path in folder.iterdir()} == {"plan.json", "trace.txt", "violation.txt"}
    assert f"python -m trio_kv sim --plan {folder / 'plan.json'}" in shown.out
    kept = read_plan((folder / "plan.json").read_text())
    assert len(kept.plan.faults) <= len(plan.faults)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["verdict"], summary["evidence"]) == ("violation", [str(folder)])
    # Replayed, the file gives the trace that was kept, and the violation.
    again = tmp_path / "again.txt"
    assert main(["sim", "--plan", str(folder / "plan.json"), "--trace", str(again)]) == 1
    assert again.read_bytes() == (folder / "trace.txt").read_bytes()
    text = (folder / "violation.txt").read_text()
    replayed = attempt(world_kind("core"), kept.plan)
    assert isinstance(replayed, Failure)
    assert replayed.kind == failure.kind
    assert replayed.text in text
    assert replayed.text in capsys.readouterr().out
    # And so does a verbose replay of the seed.
    assert main(["sim", "--seed", str(seed), "--verbose"]) == 1
    assert "RequestVote" in capsys.readouterr().out


def test_a_violation_in_a_worker_ends_the_command_with_1(tmp_path: Path) -> None:
    """What a worker finds comes out of the command that started it: as a process of its own, with a planted bug."""
    plant = f"{PLANT}\nfrom trio_kv.sim.worker import main\nmain()"
    program = (
        f"{PLANT}\nimport functools, sys, trio_kv.cli.simulate as simulate\n"
        f"simulate.run_in_processes = functools.partial("
        f"simulate.run_in_processes, command=(sys.executable, '-c', {plant!r}))\n"
        "from trio_kv.cli.main import run\nrun()"
    )
    command = [sys.executable, "-c", program, "sim", "--seeds", "1..40", "--jobs", "2", "--shrink-runs", "60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "violation: " in done.stdout
    assert "faults are left after" in done.stdout
    assert "Traceback" not in done.stderr
    assert any((tmp_path / "trio_kv-sim").iterdir())


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Let child processes take SIGINT, also where tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_command_ends_it_in_order(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM: the verdict so far, exit code 130, no traceback, and no process left behind."""
    command = [sys.executable, "-m", "trio_kv", "sim", "--seeds", "1..", "--jobs", "2", "--verbose"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"}, process_group=0,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().startswith("seed ")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted: no violation until then" in out
    assert "Traceback" not in errors
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_worker_ends_when_its_campaign_is_gone() -> None:
    """A worker whose stdin ends has nobody to work for: it ends by itself, with code 0."""
    worker = subprocess.run(
        [sys.executable, "-m", "trio_kv.sim.worker"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert (worker.returncode, worker.stdout) == (0, b"")
