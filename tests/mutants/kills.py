"""Putting a mutant in and seeing who finds it: seeds of a simulated world, or tests.

A mutant is killed by what judges the run: a violation, an assertion of the code, a store that can't be opened, a run
that goes round in circles. One that makes the code fail in another way, as with a wrong name, is broken: it would be
found whatever the judges are worth.
"""

import re
import traceback
from collections.abc import Callable, Iterable

import attrs
import pytest
from _pytest.runner import runtestprotocol

from tests.mutants.registry import ROOT, Mutant
from trio_kv.sim.core_kind import KIND as CORE
from trio_kv.sim.whole.kind import KIND as WHOLE
from trio_kv.sim.whole.scheduling import StormError
from trio_kv.storage.errors import StorageError

WORLDS: dict[str, Callable[[int], object]] = {kind.name: kind.run_seed for kind in (CORE, WHOLE)}
"""What runs a seed of a simulated world: it raises AssertionError, from the cause, if a judge finds something."""
_FOUND = (AssertionError, StorageError, StormError)
_SURVIVED = "it raised: "
"""How a judge begins to tell of an error that ended one node or one client alone: with its traceback."""
_FOUND_IN_TRACEBACK = re.compile(
    r"^[ |]*[\w.]*\b((?:AssertionError|Violation|DamagedError)\b.*)$", re.MULTILINE
)
_FOUND_BY_TEST = re.compile(r"assert |AssertionError|Failed: |OSError|trio_kv\.(check|storage)\.")


class BrokenMutantError(Exception):
    """A mutant does not do what it says: the code that it changes has changed."""


@attrs.frozen
class Kill:
    """How a mutant was found."""

    mutant: str
    area: str
    killer: str
    """The judge, the assertion or the test."""
    violation: str
    """Its first line."""
    seed: int | None = None
    seeds: int | None = None
    """How many seeds it took, counted from the first."""


def kill_by_seeds(mutant: Mutant, seeds: Iterable[int]) -> Kill | None:
    """Return how the first of these seeds that finds the mutant does it; None if none does.

    Raises:
        BrokenMutantError: the code failed, but not under a judge.

    """
    assert mutant.world is not None
    run = WORLDS[mutant.world]
    for count, seed in enumerate(seeds, 1):
        with pytest.MonkeyPatch.context() as patch:
            mutant.put_in(patch)
            try:
                run(seed)
            except AssertionError as error:
                cause = error.__cause__ or error
                line = _finding(cause)
                if line is None:
                    raise BrokenMutantError(f"{mutant.name}: {type(cause).__name__}: {cause}") from error
                return Kill(mutant.name, mutant.area, _judge(cause), line, seed, count)
    return None


def _finding(error: BaseException) -> str | None:
    """Return the line that tells what a judge found; None if the code failed in another way."""
    text = str(error)
    if text.startswith(_SURVIVED):
        found = _FOUND_IN_TRACEBACK.search(text)
        return found and found[1]
    if not isinstance(error, _FOUND):
        return None
    line = text.partition("\n")[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _judge(error: BaseException) -> str:
    """Return the file that raised, within the package."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return next(file.rpartition("/trio_kv/")[2] for file in reversed(files) if "/trio_kv/" in file)


class _TestKiller:
    """A pytest plugin that runs each of its mutants' tests with the mutant put in, instead of the tests themselves."""

    def __init__(self, mutants: Iterable[Mutant]) -> None:
        self.mutants = [mutant for mutant in mutants if mutant.tests]
        self.kills: dict[tuple[str, str], Kill | None] = {}
        self.broken: list[str] = []

    def pytest_sessionstart(self) -> None:
        """Let Hypothesis be content with any example that fails: nobody reads the smallest one."""
        from hypothesis import Phase, settings  # noqa: PLC0415 - pytest has to come before it, and rewrites it

        settings.register_profile("any failure", settings(), phases=[Phase.explicit, Phase.generate])
        settings.load_profile("any failure")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for mutant in self.mutants:
            for test in mutant.tests:
                items = [
                    item
                    for item in session.items
                    if item.nodeid.partition("[")[0] == test or item.nodeid == test
                ]
                assert items, f"{mutant.name}: there is no test {test}"
                self.kills[mutant.name, test] = self._run(mutant, test, items)
        return True

    def _run(self, mutant: Mutant, test: str, items: list[pytest.Item]) -> Kill | None:
        for item in items:
            with pytest.MonkeyPatch.context() as patch:
                mutant.put_in(patch)
                reports = runtestprotocol(item, log=False, nextitem=None)
            failed = next((report for report in reports if report.failed), None)
            if failed is None:
                continue
            crash = getattr(failed.longrepr, "reprcrash", None)
            line = (str(failed.longrepr) if crash is None else crash.message).partition("\n")[0]
            if not _FOUND_BY_TEST.match(line):
                self.broken.append(f"{mutant.name}: {item.nodeid}: {line}")
            return Kill(mutant.name, mutant.area, test.rpartition("::")[2], line)
        return None


def kill_by_tests(mutants: Iterable[Mutant]) -> dict[tuple[str, str], Kill | None]:
    """Return, by name of the mutant and test, how the tests find the mutants; None where a test does not.

    Raises:
        BrokenMutantError: a test failed, but for another reason than that it was disappointed.

    """
    killer = _TestKiller(mutants)
    tests = sorted({test for mutant in killer.mutants for test in mutant.tests})
    if not tests:
        return {}
    options = ["-q", "--no-header", "--no-summary", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
    status = pytest.main([*options, *(str(ROOT / test) for test in tests)], plugins=[killer])
    if killer.broken or status != pytest.ExitCode.OK:
        raise BrokenMutantError("\n".join(killer.broken) or f"pytest ended with {status!r}")
    return killer.kills
