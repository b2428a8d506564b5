"""Claims about the measuring of stores beside each other (`bench/run.py`), and the tables made of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import trio_kv

BENCH = Path(trio_kv.__file__).parent.parent / "bench"
PAGE = BENCH.parent / "docs/performance.md"
RUN_S = 110


def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / script), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_S)


def test_a_run_measures_in_turn_and_fills_the_page(tmp_path: Path) -> None:
    """Two stores, two turns: ratios are those of each turn; the page gets table and plot, which may be made again."""
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    figures = tmp_path / "figures.json"
    places = [f"--dir={tmp_path / 'run'}", f"--json={figures}", f"--page={page}"]
    done = run("run.py", *places, "--rows=set", "--systems=trio_kv-3,floor-3", "--pairs=2", "--seconds=0.3")
    assert done.returncode == 0, done.stderr
    [row] = json.loads(figures.read_text())["rows"]
    ours, floor = (row["subjects"][label]["slices"] for label in ("trio_kv-3", "floor-3"))
    [ratio] = row["ratios"]
    assert ratio["values"] == [
        pytest.approx(us["per_second"] / it["per_second"], abs=0.001)
        for us, it in zip(ours, floor, strict=True)
    ]
    assert row["subjects"]["trio_kv-3"]["durability"].startswith("fdatasync")
    text = page.read_text()
    assert f"trio_kv-3 / floor-3 **{ratio['median']:.2f}**" in text
    assert "SET, 64 x 1" in (tmp_path / "speed.svg").read_text()
    again = run("tables.py", f"--json={figures}", f"--page={page}")
    assert again.returncode == 0, again.stderr
    assert page.read_text() == text


def test_a_row_that_there_is_not_is_refused() -> None:
    """With the names of those that there are, before anything is started or emptied."""
    done = run("run.py", "--rows=set,sett")
    assert done.returncode == 2
    assert "no row sett; there are mix, tenth" in done.stderr


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    """It is left as it was."""
    (tmp_path / "page.md").write_text("# Figures\n")
    machine = dict.fromkeys(("processor", "processors", "system", "python", "file_system", "etcd"), "")
    row = {
        "load_average": 1.0,
        "at": "today",
        "group": "growth",
        "subjects": {},
        "title": "t",
        "ratios": [],
        "seconds": 1.0,
    }
    report = {"machine": machine, "rows": [row], "missing": {}}
    (tmp_path / "figures.json").write_text(json.dumps(report))
    done = run("tables.py", f"--json={tmp_path / 'figures.json'}", f"--page={tmp_path / 'page.md'}")
    assert done.returncode == 1
    assert "has no place for growth" in done.stderr
    assert (tmp_path / "page.md").read_text() == "# Figures\n"
