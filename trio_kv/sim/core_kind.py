"""The core world as campaigns know it."""

from typing import Final

import attrs

from trio_kv.sim.coverage import SITUATIONS
from trio_kv.sim.plan import KINDS, Plan, draw_plan
from trio_kv.sim.result import Result
from trio_kv.sim.run import run_plan
from trio_kv.sim.worlds import MODES, Draw, Tell


@attrs.frozen
class CoreKind:
    """Draws and runs plans of the core world."""

    name: str = "core"
    kinds: tuple[str, ...] = KINDS
    modes: tuple[str, ...] = MODES
    situations: tuple[str, ...] = SITUATIONS
    seeds_for_coverage: int = 1000

    def draw_plan(self, seed: int, draw: Draw) -> Plan:
        """Return the plan of a seed: always the same."""
        return draw_plan(seed, draw.kinds, is_beyond_budget=draw.is_beyond_budget)

    def run(self, plan: Plan, tell: Tell | None = None, *, is_bare: bool = False) -> Result:
        """Run a plan."""
        return run_plan(plan, tell, is_bare=is_bare)


KIND: Final = CoreKind()
