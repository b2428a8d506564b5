"""Claims of the README: what it shows is what a reader sees."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.real_store import open_store

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "quickstart.md"]


def python_examples(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def protocol_example(page: Path) -> tuple[str, str, str]:
    """Return the lines that the page sends, the command they go to, and what is shown."""
    found = re.search(r"\$ printf '(\{.*)' \| (.*)\n((?:\{.*\n)+)", page.read_text())
    assert found is not None
    return found[1].replace("\\n", "\n"), found[2], found[3]


async def run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    with trio.fail_after(60):
        done = await trio.run_process(
            command, stdin=text.encode(), capture_stdout=True, capture_stderr=True, check=False
        )
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


async def run_example(page: Path, port: int) -> subprocess.CompletedProcess[str]:
    """Run the page's Python example against a server on this port."""
    code = python_examples(page)[0]
    assert "with Client() as store:" in code
    return await run([sys.executable, "-c", code.replace("Client()", f"Client(port={port}, timeout_s=1)")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
async def test_the_python_example_works_and_fails_aloud(page: Path, tmp_path: Path) -> None:
    """It prints what it stored; when a write is not done it ends with an exception that says so."""
    async with open_store(tmp_path) as (local, port):
        done = await run_example(page, port)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[0] == "{'name': 'chips'}"
        local.cluster.faults.partition([[1], [2], [3]])
        with trio.fail_after(20):
            while local.cluster.registry.leader() is not None:  # noqa: ASYNC110 - it steps down in its own time
                await trio.sleep(0.05)
        done = await run_example(page, port)
        assert done.returncode == 1
        assert "UnavailableError" in done.stderr
        assert done.stdout == ""
        local.cluster.faults.heal()


async def test_the_examples_of_both_clients_and_of_the_recipes_run(tmp_path: Path) -> None:
    """Each as it stands there, but for the port, in a module of its own; and they print what they say."""
    pages = [ROOT / "README.md", ROOT / "docs" / "clients.md", ROOT / "docs" / "recipes.md"]
    examples = [example for page in pages for example in python_examples(page)]
    assert sum("import Client" in example for example in examples) == 3
    assert sum("import open_client" in example for example in examples) == 3
    async with open_store(tmp_path) as (_, port):
        moved = [re.sub(r"\b(Client|open_client)\([^)]*\)", rf"\1(port={port})", each) for each in examples]
        run_all = f"for example in {moved!r}: exec(example, {{'__name__': 'example'}})"
        done = await run([sys.executable, "-c", run_all])
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["{'name': 'chips'}", "100"]
    assert {"Point(x=3, y=4)", "{'x': 3, 'y': 4}", "host-1", "{'print': 'report'}"} <= {*lines}
    assert lines[-1] == "1"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
async def test_the_first_lines_of_the_protocol_are_answered_as_shown(page: Path, tmp_path: Path) -> None:
    """With nothing but a shell's `printf` and what was installed."""
    lines, command, shown = protocol_example(page)
    assert command in ("python -m trio_kv client", "trio-kv client")
    async with open_store(tmp_path) as (_, port):
        words = [sys.executable, "-m", "trio_kv", "client", "--port", str(port)]
        done = await run(words, lines)
    assert done.stdout == shown
    assert done.stderr == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_needs_a_tool_that_it_does_not_name(page: Path) -> None:
    """`nc` differs from system to system, and `jq` is not everywhere: where it is used, that is said."""
    for line in page.read_text().splitlines():
        assert not re.search(r"\bnc\b", line), line
        assert not re.search(r"\bjq\b", line) or "with jq" in line, line
