"""What all tests share: options, and failures inside a nursery are shown as if there were none."""

from collections.abc import Generator

import hypothesis
import pytest

# One failure says what is wrong. Several come as a group, in which the line that tests of mutants read is not seen.
hypothesis.settings.register_profile("one failure", report_multiple_bugs=False)
hypothesis.settings.load_profile("one failure")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what makes a test run for longer."""
    parser.addoption("--kills", type=int, default=5, help="how often the real process is killed under load")
    parser.addoption("--kills-seed", type=int, default=1, help="draws the moments of the kills")


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
