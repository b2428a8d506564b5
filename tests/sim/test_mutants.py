"""Judges that can fail: known bugs, put into the real code on purpose, are found by seeds of a world and by tests.

The bugs stand in `tests/mutants`, beside what finds each of them. Here each world is first given the seed that is known
to find the bug; `python -m tests.mutants` searches them all anew, and counts how many seeds it takes.
"""

import faulthandler
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.all_mutants import MUTANTS
from tests.mutants.killing_seeds import known_seeds
from tests.mutants.kills import BrokenMutantError, kill_by_seeds
from tests.mutants.registry import ROOT, Mutant
from tests.mutants.search import SEEDS_MAX, search
from trio_kv.proxy.connection import Connection

IN_WORLDS = [mutant for mutant in MUTANTS.values() if mutant.world is not None]
BY_TESTS = [(mutant.name, test) for mutant in MUTANTS.values() for test in mutant.tests]


@pytest.mark.parametrize("name", [mutant.name for mutant in IN_WORLDS])
def test_a_judge_finds_the_bug(name: str) -> None:
    """A run of the world in which the bug has to show ends with a violation."""
    known = known_seeds().get(name)
    if known is not None and kill_by_seeds(MUTANTS[name], [known]) is not None:
        return
    # Plans have changed since the seed was noted. The search takes longer than a test that hangs may take.
    faulthandler.cancel_dump_traceback_later()
    found = search(SEEDS_MAX, name)
    assert found is not None, f"survived {SEEDS_MAX} seeds"
    assert not isinstance(found, str), found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What the tests said to each bug, by "name: test". One process runs them all, with one bug after the other."""
    path: Path = tmp_path_factory.mktemp("mutants") / "results.json"
    command = [sys.executable, "-m", "tests.mutants.by_tests", str(path)]
    faulthandler.cancel_dump_traceback_later()  # These are many tests, and have a time-out of their own.
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    results: dict[str, str | None] = json.loads(path.read_text())
    return results


@pytest.mark.parametrize(("name", "test"), BY_TESTS)
def test_a_test_finds_the_bug(name: str, test: str, results: dict[str, str | None]) -> None:
    """The test that guards against the bug fails with it."""
    assert results[f"{name}: {test}"] is not None


def test_an_error_that_no_judge_raised_finds_nothing() -> None:
    """A bug that merely breaks the code says nothing about the judges, even if the house survives it: it is told."""

    async def fail(self: Connection) -> None:
        raise RuntimeError("no judge")

    broken = Mutant("broken", lambda patch: patch.setattr(Connection, "_work", fail), "whole", "whole", ())
    with pytest.raises(BrokenMutantError, match="no judge"):
        kill_by_seeds(broken, [1])
