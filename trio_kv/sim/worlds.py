"""The worlds in which a plan can be run, behind one port: campaigns, shrinking and plans on file know no other.

A world is loaded when it is first asked for: the core world needs no Trio, and must not pay for it.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final, Protocol

import attrs

from trio_kv.sim.plan import Plan
from trio_kv.sim.result import Result

Tell = Callable[[str], None]

WORLDS = {"core": "trio_kv.sim.core_kind", "whole": "trio_kv.sim.whole.kind"}
"""Where each world is: a module whose `KIND` is its `WorldKind`."""

MODES = ("beyond-budget", "bare")
"""Other ways to run seeds: see `Draw.is_beyond_budget`, and `is_bare` of `WorldKind.run`."""


class WorldKind(Protocol):
    """How to draw and run plans in one kind of world."""

    @property
    def name(self) -> str:
        """What it is called: a key of `WORLDS`."""
        ...

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds of faults that may be asked for."""
        ...

    @property
    def modes(self) -> Sequence[str]:
        """Which of `MODES` it knows."""
        ...

    @property
    def situations(self) -> Sequence[str]:
        """The situations that many runs together must have reached."""
        ...

    @property
    def seeds_for_coverage(self) -> int:
        """How many seeds of all kinds reach every situation, with a wide margin; fewer need not."""
        ...

    def draw_plan(self, seed: int, draw: "Draw") -> Plan:
        """Return the plan of a seed: always the same."""
        ...

    def run(self, plan: Plan, tell: Tell | None = None, *, is_bare: bool = False) -> Result:
        """Run a plan.

        Args:
            plan: what is to happen.
            tell: takes a line for each thing that happens; it must not change the run.
            is_bare: without the judges that look after each step, to see what the world costs by itself.

        Raises:
            Exception: any, if a judge found a violation or the code under test failed. What is raised by way of a
                `SimulationFailedError` is its `__cause__`.

        """
        ...


@attrs.frozen(kw_only=True)
class Draw:
    """What plans may be drawn, besides the seed."""

    kinds: tuple[str, ...] | None = None
    """Faults of these kinds alone, all of them in each plan; None: each seed draws the kinds."""
    is_beyond_budget: bool = False
    """Faults may take more than a recoverable majority: only safety is judged."""


ANY: Final = Draw()
"""Plans as they come."""


def world_kind(name: str) -> WorldKind:
    """Return a world.

    Raises:
        LookupError: there is none of that name.

    """
    module = WORLDS.get(name, "")
    try:
        kind: WorldKind = import_module(module).KIND
    except (ValueError, ModuleNotFoundError) as error:
        # What is missing inside of a world is a fault of that world.
        if isinstance(error, ModuleNotFoundError) and not module.startswith(error.name or ""):
            raise
        raise LookupError(f"there is no world {name!r}") from error
    return kind
