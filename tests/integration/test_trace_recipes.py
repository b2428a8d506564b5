"""The recipes of docs/traces.md, in the tools they are for; where a tool is not there, its test says so."""

import datetime as dt
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.told import run_core, write_trace
from trio_kv.cli.main import main
from trio_kv.raft.events import EntriesCommitted, LeaderElected, VoteGranted
from trio_kv.trace.vocabulary import EntriesApplied

ROOT = Path(__file__).parents[2]


def recipes(tool: str) -> list[str]:
    found = re.findall(
        rf"<!-- tested: {tool} -->\n```\w+\n(.*?)```", (ROOT / "docs" / "traces.md").read_text(), re.DOTALL
    )
    assert found
    return found


@pytest.fixture(scope="module")
def records() -> list[Any]:
    return run_core(8, "crash", "partition", "wipe")


@pytest.fixture
def folder(records: list[Any], tmp_path: Path) -> Path:
    path = write_trace(tmp_path / "run.jsonl", records)
    assert main(["trace", "export", str(path), "--format", "csv", "--to", str(tmp_path / "run.csv")]) == 0
    return tmp_path


def shell(command: str, folder: Path, **environ: str) -> str:
    done = subprocess.run(
        ["/bin/sh", "-ec", command],
        cwd=folder,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_recipes_of_jq(folder: Path, records: list[Any]) -> None:
    """Leaders and counts are those of the trace, and no state differs."""
    (recipe,) = recipes("jq")
    leaders, counts, differences = (each.partition("\n")[2] for each in recipe.split("# ")[1:])
    elected = [record for record in records if isinstance(record.event, LeaderElected)]
    rows = [line.split("\t") for line in shell(leaders, folder).splitlines()]
    assert [(row[1], row[2]) for row in rows] == [(str(each.node), str(each.term)) for each in elected]
    assert len(shell(counts, folder).splitlines()) == len({type(record.event) for record in records})
    assert shell(differences, folder) == ""


@pytest.mark.skipif(importlib.util.find_spec("duckdb") is None, reason="duckdb is not installed")
def test_recipes_of_duckdb(folder: Path, records: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are times, indexes whole numbers, digests texts."""
    duckdb = importlib.import_module("duckdb")
    monkeypatch.chdir(folder)
    first, second = recipes("duckdb")
    rows = duckdb.sql(first).fetchall()
    commits = [record for record in records if isinstance(record.event, EntriesCommitted)]
    assert sum(row[1] for row in rows) == len(commits)
    assert max(row[2] for row in rows) == max(record.event.last for record in commits)
    assert all(isinstance(row[3], dt.datetime) for row in rows)
    applied = [record for record in records if isinstance(record.event, EntriesApplied)][:-6:-1]
    assert duckdb.sql(second).fetchall() == [
        (each.node, f"{each.event.state_digest:08x}") for each in applied
    ]


@pytest.mark.skipif(shutil.which("lnav") is None, reason="lnav is not installed")
def test_recipes_of_lnav(folder: Path, records: list[Any]) -> None:
    """The format file is taken, and its table has our members."""
    (recipe,) = recipes("lnav")
    (folder / "docs").symlink_to(ROOT / "docs")
    told = shell(recipe, folder, HOME=str(folder), TERM="xterm")
    votes = [record for record in records if isinstance(record.event, VoteGranted)]
    rows = [line.split(",") for line in told[told.index("node,votes") :].splitlines()[1:]]
    assert sum(int(row[1]) for row in rows) == len(votes)
    assert {int(row[0]) for row in rows} == {record.node for record in votes}
