"""Which seed is known to find a mutant: what the default test run tries first.

Plans change with the simulator, so a known seed may stop to find its mutant. It is searched anew then, which takes
longer; `python -m tests.mutants --record` writes the list anew.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tests.mutants.kills import Kill

PATH = Path(__file__).with_suffix(".json")


def known_seeds() -> dict[str, int]:
    """Return a killing seed by mutant."""
    known: dict[str, int] = json.loads(PATH.read_text())
    return known


def record(kills: Iterable[Kill]) -> None:
    """Keep the seeds of these kills, beside those of other mutants."""
    known = known_seeds() if PATH.exists() else {}
    known.update({kill.mutant: kill.seed for kill in kills if kill.seed is not None})
    PATH.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
