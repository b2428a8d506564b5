"""Tests that can fail: each known bug, put into the real code, is found by the tests that guard against it."""

import faulthandler
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.all_mutants import MUTANTS
from tests.mutants.registry import ROOT

BY_TESTS = [(mutant.name, test) for mutant in MUTANTS.values() for test in mutant.tests]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What the tests said to each bug, by "name: test". One process runs them all, with one bug after the other."""
    path: Path = tmp_path_factory.mktemp("mutants") / "results.json"
    command = [sys.executable, "-m", "tests.mutants.by_tests", str(path)]
    faulthandler.cancel_dump_traceback_later()  # These are many tests, and have a time-out of their own.
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    results: dict[str, str | None] = json.loads(path.read_text())
    return results


@pytest.mark.parametrize(("name", "test"), BY_TESTS)
def test_a_test_finds_the_bug(name: str, test: str, results: dict[str, str | None]) -> None:
    """The test that guards against the bug fails with it."""
    assert results[f"{name}: {test}"] is not None
