"""Claims of the README: what it shows is what a reader sees."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trustme

from tests.page_examples import examples, open_commands, open_reader
from tests.real_store import open_store
from trio_kv.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "tutorial.md"]
CONSOLES = [
    page
    for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
    if any(example.is_run and not example.is_python for example in examples(page))
]
"""Pages with commands."""


def python_examples(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


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


async def test_the_python_example_works_and_fails_aloud(tmp_path: Path) -> None:
    """It prints what it stored; when a write is not done it ends with an exception that says so."""
    async with open_store(tmp_path) as (local, port):
        done = await run_example(ROOT / "README.md", port)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[0] == "{'name': 'chips'}"
        local.cluster.faults.partition([[1], [2], [3]])
        with trio.fail_after(20):
            while local.cluster.registry.leader() is not None:  # noqa: ASYNC110 - it steps down in its own time
                await trio.sleep(0.05)
        done = await run_example(ROOT / "README.md", port)
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


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with open_commands(tmp_path_factory.mktemp("commands")) as folder:
        yield folder


@pytest.mark.skipif(sys.platform != "linux", reason="streams of another process are found in /proc")
@pytest.mark.parametrize("page", CONSOLES, ids=lambda page: page.name)
async def test_commands_do_what_a_page_shows(
    page: Path, commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, in one directory, beside the server that the page starts."""
    async with open_reader(tmp_path, commands) as reader:
        monkeypatch.chdir(reader.directory)
        prepare(reader.directory)
        for example in examples(page):
            await reader.carry_out(example)


def test_files_of_options_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each that a page shows has options that there are, and that go together."""
    pages = "".join(page.read_text() for page in ROOT.glob("docs/*.md"))
    files = re.findall(r"```toml\n(.*?)```", pages, re.DOTALL)
    assert len(files) > 1
    for content in files:
        (tmp_path / "store.toml").write_text(content)
        assert main(["config", "--config", str(tmp_path / "store.toml")]) == 0, capsys.readouterr().err


def prepare(directory: Path) -> None:
    """Put the files there that pages take for given."""
    (directory / "notes.txt").write_text("two\nlines\n")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(directory / "ca.pem")
    for name, identity in (("server", "store.example.org"), ("me", "me")):
        issued = ca.issue_cert(identity)
        issued.private_key_pem.write_to_path(directory / f"{name}.key")
        (directory / f"{name}.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_needs_a_tool_that_it_does_not_name(page: Path) -> None:
    """`nc` differs from system to system, and `jq` is not everywhere: where it is used, that is said."""
    for line in page.read_text().splitlines():
        assert not re.search(r"\bnc\b", line), line
        assert not re.search(r"\bjq\b", line) or "with jq" in line, line
