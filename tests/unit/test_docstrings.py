"""Examples in docstrings say what is true, and what the page on Raft names is there."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

import trio_kv

ROOT = Path(trio_kv.__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "trio_kv").rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_hold(name: str) -> None:
    """Each is carried out, and comes to what stands below it."""
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried
    assert not failed


def test_what_the_page_on_raft_names_is_there() -> None:
    """Files, scripts of messages, classes and methods. The code that it shows is looked for by Sphinx."""
    page = (ROOT / "docs" / "raft-in-this-house.md").read_text()
    sources = {path: path.read_text() for path in (ROOT / "trio_kv").rglob("*.py")}
    files = {path.relative_to(ROOT / "trio_kv").as_posix() for path in sources}
    named = set(re.findall(r"`((?:raft|kv|gateway|replica)/\w+\.py)`", page))
    assert len(named) > 10
    assert named <= files
    scripts = {path.name for path in (ROOT / "tests" / "scripts" / "raft").iterdir()}
    assert set(re.findall(r"`(?:tests/scripts/raft/)?(\w+\.txt)`", page)) <= scripts
    text = "\n".join(sources.values())
    for owner, method in re.findall(r"`([A-Z]\w+)\.(\w+)`", page):
        assert f"class {owner}" in text, owner
        assert f"def {method}(" in text, method
    assert {f"{name}.py" for name in re.findall(r"`(\w+)\.py`", page)} <= {path.name for path in sources}
