"""Claims about the fixtures for pytest: what docs/testing-your-service.md shows is what a reader gets."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/testing-your-service.md"
MODULE = "trio_kv.testing.plugin"

SHARED = """
import pytest, trio_kv

seen = []

@pytest.mark.parametrize("number", [1, 2])
def test_each_test_has_a_prefix_of_its_own(number, trio_kv_shared):
    server, prefix = trio_kv_shared
    assert server.client.count(prefix) == 0
    server.client.set(prefix + "k", number)
    assert (server.port, prefix) not in seen
    seen.append((server.port, prefix))
    assert len({port for port, _ in seen}) == 1

async def test_on_trio_too(trio_kv_shared):
    server, prefix = trio_kv_shared
    async with trio_kv.open_client(server.host, server.port) as kv:
        await kv.set(prefix + "k", 1)
        assert await kv.count(prefix) == 1

@pytest.mark.trio_kv(nodes=1)
def test_options_reach_the_server(trio_kv_server):
    assert trio_kv_server.cluster.nodes == (1,)
"""

MISTAKEN = """
def test_that_waits(trio_kv_cluster):
    pass
"""


def is_installed() -> bool:
    """Return whether pytest finds the plugin by itself: what was installed before there was one does not tell it."""
    return any(each.value == MODULE for each in importlib.metadata.entry_points(group="pytest11"))


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_examples_of_the_page_and_all_fixtures_work(tmp_path: Path) -> None:
    """As a reader copies them, with warnings for errors; the wrong fixture says which would be right."""
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(examples) == 2
    (tmp_path / "test_page.py").write_text("\n\n".join(examples))
    (tmp_path / "test_shared.py").write_text(SHARED)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\nfilterwarnings = error\n")
    (tmp_path / "test_mistaken.py").write_text(MISTAKEN)
    options = [] if is_installed() else ["-p", MODULE]
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", *options, folder=tmp_path)
    assert "9 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "A test that waits takes trio_kv_server." in done.stdout


def test_where_they_are_not_used_they_cost_nothing(tmp_path: Path) -> None:
    """What pytest loads of it imports nothing but pytest, and the names of two empty rooms."""
    code = (
        "import sys, pytest; before = set(sys.modules); import trio_kv.testing.plugin;"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - {'trio_kv'}),"
        " sorted(name for name in sys.modules if name.startswith('trio_kv')))"
    )
    done = run("-c", code, folder=tmp_path)
    assert done.stdout == "[] ['trio_kv', 'trio_kv.testing', 'trio_kv.testing.plugin']\n", done.stderr


def test_pytest_is_told_of_them() -> None:
    """The entry point names the module that has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"trio_kv": MODULE}
