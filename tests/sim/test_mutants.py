"""Judges that can fail: known bugs, put into the real code on purpose, are found by seeds of a world and by tests.

The bugs stand in `tests/mutants`, beside what finds each of them. Here each world is first given the seed that is known
to find the bug; `python -m tests.mutants` searches them all anew, and counts how many seeds it takes.
"""

import faulthandler
from collections.abc import Callable

import pytest

from tests.mutants.all_mutants import MUTANTS
from tests.mutants.killing_seeds import known_seeds
from tests.mutants.kills import BrokenMutantError, kill_by_seeds
from tests.mutants.registry import Mutant
from tests.mutants.search import SEEDS_MAX, search
from trio_kv.proxy.connection import Connection

IN_WORLDS = [mutant for mutant in MUTANTS.values() if mutant.world is not None]


@pytest.mark.parametrize("name", [mutant.name for mutant in IN_WORLDS])
def test_a_judge_finds_the_bug(name: str, record_property: Callable[[str, object], None]) -> None:
    """A run of the world in which the bug has to show ends with a violation."""
    known = known_seeds().get(name)
    if known is not None and kill_by_seeds(MUTANTS[name], [known]) is not None:
        return
    # Plans have changed since the seed was noted. The search takes longer than a test that hangs may take, and the end
    # of the run tells that it was needed (tests/conftest.py).
    faulthandler.cancel_dump_traceback_later()
    record_property("searched anew", name)
    found = search(SEEDS_MAX, name)
    assert found is not None, f"survived {SEEDS_MAX} seeds"
    assert not isinstance(found, str), found


def test_an_error_that_no_judge_raised_finds_nothing() -> None:
    """A bug that merely breaks the code says nothing about the judges, even if the house survives it: it is told."""

    async def fail(self: Connection) -> None:
        raise RuntimeError("no judge")

    broken = Mutant("broken", lambda patch: patch.setattr(Connection, "_work", fail), "whole", "whole", ())
    with pytest.raises(BrokenMutantError, match="no judge"):
        kill_by_seeds(broken, [1])
