"""The floors of the house, as far as import-linter can't see whether its own list is whole."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_module_of_the_core_world_is_kept_from_trio() -> None:
    """The list of modules that meet neither Trio nor the cluster's tasks names all that there are."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each["name"].startswith("The core world")]
    modules = {path.stem for path in (ROOT / "trio_kv" / "sim").glob("*.py")} - {"__init__"}
    assert set(contract["source_modules"]) == {f"trio_kv.sim.{module}" for module in modules}
