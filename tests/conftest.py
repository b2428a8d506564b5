"""What all tests share: options, and failures inside a nursery are shown as if there were none."""

from collections.abc import Generator

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

TOGETHER = frozenset(
    {
        "tests/browser/test_load.py",
        "tests/browser/test_page.py",
        "tests/sim/test_core_world.py",
        "tests/sim/test_mutants_by_tests.py",
        "tests/sim/test_whole_world.py",
    }
)
"""Files whose tests look at what those before them have reached, or share what is dear: one process runs them all."""


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
    """Gives tests one by one to whichever process is free; of some files all tests together, and these first."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if path in TOGETHER else nodeid


# A run of the tests says something about the code, and nothing about the machine: what is drawn is the same each time,
# and neither a slow processor nor what was found on it before counts. `nox -s thorough` draws anew.
# One failure says what is wrong. Several come as a group, in which the line that tests of mutants read is not seen.
hypothesis.settings.register_profile(
    "repeatable",
    report_multiple_bugs=False,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "thorough",
    hypothesis.settings.get_profile("repeatable"),
    derandomize=False,
    max_examples=1000,
    print_blob=True,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what makes a test run for longer."""
    parser.addoption(
        "--thorough", action="store_true", help="try all that is else tried in samples, and draw anew"
    )
    parser.addoption("--kills", type=int, default=5, help="how often the real process is killed under load")
    parser.addoption(
        "--page-minutes", type=float, default=0.1, help="how long the dashboard's memory is looked at"
    )
    parser.addoption(
        "--trouble-seconds", type=float, default=15, help="how long hosts in namespaces are given trouble"
    )
    parser.addoption("--pictures", action="store_true", help="make the pictures of the documentation anew")
    parser.addoption("--kills-seed", type=int, default=1, help="draws the moments of the kills")


def pytest_configure(config: pytest.Config) -> None:
    """Draw examples as was asked for."""
    config.addinivalue_line("markers", "thorough: one of many like cases, which `--thorough` alone runs")
    hypothesis.settings.load_profile("thorough" if config.getoption("--thorough") else "repeatable")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out of a default run what is marked so."""
    if config.getoption("--thorough"):
        return
    left_out = [item for item in items if item.get_closest_marker("thorough")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("thorough")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell of mutants whose noted seeds find them no more: to search for others is what costs most of all."""
    reports = [report for each in terminalreporter.stats.values() for report in each]
    searched = [
        value
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "searched anew"
    ]
    if searched:
        terminalreporter.section("noted seeds that find their mutants no more")
        for name in sorted(map(str, searched)):
            terminalreporter.line(name)
        terminalreporter.line("note others: python -m tests.mutants --record --only NAME")


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduler:
    """Say how tests are shared out to several processes."""
    return Scheduler(config, log)


@pytest.fixture
def is_thorough(pytestconfig: pytest.Config) -> bool:
    """Return whether all is tried that is else tried in samples."""
    return bool(pytestconfig.getoption("--thorough"))


@pytest.fixture
def stride(is_thorough: bool) -> int:
    """Return which part of very many cases is tried: one of so many; it has no factor in common with any structure."""
    return 1 if is_thorough else 7


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Unwrap exception groups that hold a single exception.

    pytest-trio runs a test inside a nursery, so that a failed assert arrives in a group, and pytest shows a
    group without the values of the assert.
    """
    try:
        return (yield)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is group:
            raise
        raise error from None  # noqa: ASYNC123 - the group says nothing more
