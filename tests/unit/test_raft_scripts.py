"""The golden scripts of the consensus core: each is a scenario, and its page says what it shows.

With the environment variable TRIO_KV_REWRITE=1 the outputs are written anew; read the difference then.
"""

import os
from itertools import zip_longest
from pathlib import Path

import pytest

from trio_kv.sim.script import run_script

SCRIPTS = Path(__file__).parents[1] / "scripts" / "raft"


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.txt")), ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    """The core does what the script says, and no safety rule breaks on the way."""
    text = path.read_text()
    now = run_script(text)
    if os.environ.get("TRIO_KV_REWRITE"):
        path.write_text(now)
        return
    lines = zip_longest(now.splitlines(), text.splitlines())
    assert now == text, next(f"{is_now!r} where {was!r} was" for is_now, was in lines if is_now != was)
