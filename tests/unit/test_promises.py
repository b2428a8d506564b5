"""The tests that docs/promises.md names are there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
PAGE = TESTS.parent / "docs/promises.md"
NAMED = re.findall(r"`(\w+/test_\w+\.py)::(test_\w+)`", PAGE.read_text())


def test_the_page_names_tests() -> None:
    """The pattern above finds what stands there: every promise has at least one test."""
    promises = PAGE.read_text().split("\n## ")[1:]
    assert promises
    assert all("::test_" in promise for promise in promises)
    assert len(NAMED) == PAGE.read_text().count("::test_")


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_a_test_that_is_named_is_there(file: str, name: str) -> None:
    """Who renames a test renames it on the page."""
    assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE)
