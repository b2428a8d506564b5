"""The house is as it says: functions of a screenful, files of an evening, contracts whose lists are whole."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import trio_kv

FUNCTION_LINES_MAX = 50
"""Docstrings don't count: what is said to who calls a function may be long."""
FILE_LINES_MAX = 400

ROOT = Path(trio_kv.__file__).parent
SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(ROOT.rglob("*.py"))}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Yield each function's name and how many lines it has."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            head = node.body[0]
            is_docstring = ast.get_docstring(node, clean=False) is not None
            docstring_lines = (head.end_lineno or 0) - head.lineno + 1 if is_docstring else 0
            yield node.name, (node.end_lineno or 0) - node.lineno + 1 - docstring_lines


def test_a_function_is_a_screenful() -> None:
    """Whoever reads a function sees all of it at once."""
    long = {
        f"{name}:{function}"
        for name, source in SOURCES.items()
        for function, lines in functions(source)
        if lines > FUNCTION_LINES_MAX
    }
    assert not long


def test_a_file_is_an_evening() -> None:
    """A file has one subject, and ends before its reader tires."""
    assert not {name for name, source in SOURCES.items() if source.count("\n") > FILE_LINES_MAX}


@pytest.mark.parametrize("lines", [1, 50, 51])
def test_lines_of_code_count_and_docstrings_do_not(lines: int) -> None:
    """The measure itself: 51 lines of code are 51, however much stands in the docstring."""
    body = "    pass\n" * (lines - 1)
    [(_, counted)] = functions(f'def f():\n    """Say\n\n    much.\n    """\n{body}')
    assert counted == lines


def test_the_clients_need_little() -> None:
    """Who installs nothing else has both clients and the recipes all the same; see decision 0045."""
    code = (
        "import sys; before = set(sys.modules); from trio_kv import Client, open_client, recipes;"
        "print(*{name.partition('.')[0] for name in {*sys.modules} - before} - set(sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    of_trio = {"trio", "outcome", "sniffio", "idna", "typing_extensions"}
    assert set(done.stdout.split()) <= {"trio_kv", "attr", "attrs", "msgspec", "sortedcontainers", *of_trio}


def test_each_module_of_the_core_world_is_kept_from_trio() -> None:
    """The contract's list of modules that meet neither Trio nor the cluster's tasks names all that there are."""
    pyproject = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())
    (contract,) = [
        each
        for each in pyproject["tool"]["importlinter"]["contracts"]
        if each["name"].startswith("The core world")
    ]
    modules = {path.stem for path in (ROOT / "sim").glob("*.py")} - {"__init__"}
    assert set(contract["source_modules"]) == {f"trio_kv.sim.{module}" for module in modules}
