"""The list of the bugs that are put into the real code on purpose, and what must find each of them.

Each mutant is the smallest form of a mistake that a real system made. It begins with the id of its scenario: D durable
state, L log and commit, R reads, N snapshots, E elections, C clients; or with the name of its room where no scenario of
the list fits. It is killed by seeds of a simulated world, by tests, or by both; whatever is named here must kill it.
"""

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

Patch = pytest.MonkeyPatch
ROOT = Path(__file__).parents[2]
"""The project's directory."""


@attrs.frozen
class Mutant:
    """A bug, how it is put in, and what must find it."""

    name: str
    put_in: Callable[[Patch], None]
    area: str
    world: str | None
    """The simulated world whose seeds must find it (see `worlds`); None: its runs can't, or are not asked to."""
    tests: tuple[str, ...]
    """Node ids of tests each of which must fail. One that stands for several cases fails if a case does."""


MUTANTS: dict[str, Mutant] = {}


def mutant(
    name: str, *, world: str | None = None, tests: tuple[str, ...] = ()
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register the function below as the one that puts in the bug `name`."""

    def register(put_in: Callable[[Patch], None]) -> Callable[[Patch], None]:
        assert name not in MUTANTS, f"two mutants are called {name!r}"
        assert world or tests, f"nothing is to find {name!r}"
        MUTANTS[name] = Mutant(name, put_in, put_in.__module__.rpartition(".")[2], world, tests)
        return put_in

    return register


def scripts(*names: str) -> tuple[str, ...]:
    """Return the tests that run these golden scripts."""
    return tuple(f"tests/unit/test_raft_scripts.py::test_script[{name}]" for name in names)


def door_scripts(*names: str) -> tuple[str, ...]:
    """Return the tests that run these golden scripts of the door."""
    return tuple(f"tests/sim/test_door_scripts.py::test_script[{name}]" for name in names)


def scenarios(*names: str, file: str = "storage") -> tuple[str, ...]:
    """Return the tests of the scenarios with these names in the core world."""
    return tuple(f"tests/sim/test_scenarios_{file}.py::{name}" for name in names)
