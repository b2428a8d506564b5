"""A process that another one starts has the very same code."""

import subprocess
from pathlib import Path

import trio_kv
from trio_kv.same_code import same_code


def test_another_version_in_the_working_directory_is_not_run(tmp_path: Path) -> None:
    """A developer's checkout, say: `python -m` would prefer it."""
    other = tmp_path / "trio_kv"
    other.mkdir()
    (other / "__init__.py").write_text("raise SystemExit('another version')")
    (other / "__main__.py").touch()
    done = subprocess.run(
        same_code("trio_kv", "--version"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert trio_kv.__version__ in done.stdout


def test_a_module_finds_its_own_arguments(tmp_path: Path) -> None:
    """As if it had been run by `-m`."""
    done = subprocess.run(
        same_code("trio_kv", "config", "--nodes", "ten"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--nodes" in done.stderr
    assert "ten" in done.stderr
