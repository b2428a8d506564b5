"""The whole world as campaigns know it."""

from typing import Final

import attrs

from trio_kv.sim.plan import Plan
from trio_kv.sim.result import Result
from trio_kv.sim.whole.coverage import WHOLE_SITUATIONS
from trio_kv.sim.whole.plan import KINDS, draw_whole_plan
from trio_kv.sim.whole.run import run
from trio_kv.sim.worlds import Draw, Tell


@attrs.frozen
class WholeKind:
    """Draws and runs plans of the whole world, as each seed has them."""

    name: str = "whole"
    kinds: tuple[str, ...] = KINDS
    modes: tuple[str, ...] = ("beyond-budget",)
    situations: tuple[str, ...] = WHOLE_SITUATIONS
    seeds_for_coverage: int = 200

    def draw_plan(self, seed: int, draw: Draw) -> Plan:
        """Return the plan of a seed: always the same."""
        return draw_whole_plan(seed, draw.kinds, is_beyond_budget=draw.is_beyond_budget)

    def run(self, plan: Plan, tell: Tell | None = None, *, is_bare: bool = False) -> Result:
        """Run a plan."""
        assert not is_bare, "the whole world has its judges always"
        return run(plan, tell)


KIND: Final = WholeKind()
