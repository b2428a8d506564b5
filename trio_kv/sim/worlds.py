"""The worlds in which a plan can be run, behind one port: campaigns, shrinking and plans on file know no other.

A world is loaded when it is first asked for: the core world needs no Trio, and must not pay for it.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final

import attrs

from trio_kv.sim.ending import PlannedWorld
from trio_kv.sim.plan import Plan
from trio_kv.sim.result import Result

Tell = Callable[[str], None]
Make = Callable[[Plan, Tell | None], PlannedWorld]

WORLDS = {"core": "trio_kv.sim.core_kind", "whole": "trio_kv.sim.whole.kind"}
"""Where each world is: a module whose `KIND` is its `WorldKind`."""


@attrs.frozen(kw_only=True)
class Draw:
    """What plans may be drawn, besides the seed."""

    kinds: tuple[str, ...] | None = None
    """Faults of these kinds alone, all of them in each plan; None: each seed draws the kinds."""
    is_beyond_budget: bool = False
    """Faults may take more than a recoverable majority: only safety is judged."""


ANY: Final = Draw()
"""Plans as they come."""


class SimulationFailedError(AssertionError):
    """A run went wrong; the message holds all that is needed to see it again, `__cause__` what went wrong."""


@attrs.frozen(kw_only=True)
class WorldKind:
    """How to draw and run plans in one kind of world."""

    name: str
    """What it is called: a key of `WORLDS`."""
    kinds: Sequence[str]
    """The kinds of faults that may be asked for."""
    situations: Sequence[str]
    """The situations that many runs together must have reached."""
    seeds_for_coverage: int
    """How many seeds of all kinds reach every situation, with a wide margin; fewer need not."""
    draw: Callable[..., Plan]
    """Draws plans, see `sim.plan.draw_plan`."""
    make: Make
    """Makes a world for one run of a plan."""
    make_bare: Make | None = None
    """The same without the judges that look after each step, to see what the world costs by itself."""

    @property
    def modes(self) -> tuple[str, ...]:
        """Other ways to run seeds that it knows."""
        return ("beyond-budget",) if self.make_bare is None else ("beyond-budget", "bare")

    def draw_plan(self, seed: int, draw: Draw = ANY) -> Plan:
        """Return the plan of a seed: always the same."""
        return self.draw(seed, draw.kinds, is_beyond_budget=draw.is_beyond_budget)

    def run(self, plan: Plan, tell: Tell | None = None, *, is_bare: bool = False) -> Result:
        """Run a plan.

        Args:
            plan: what is to happen.
            tell: takes a line for each thing that happens; it must not change the run.
            is_bare: without the judges that look after each step.

        Raises:
            SimulationFailedError: a judge found a violation, or the code under test failed; it says how to repeat it.

        """
        make = self.make_bare if is_bare else self.make
        assert make is not None, f"the {self.name} world has its judges always"
        world = make(plan, tell)
        try:
            return world.run()
        except Exception as error:
            raise SimulationFailedError(
                f"seed {plan.seed} failed at {world.reached_s:.6f} s: {type(error).__name__}: {error}\n"
                f"replay it: python -m trio_kv sim --world {self.name} --seed {plan.seed} --verbose\n{plan}"
            ) from error

    def run_seed(self, seed: int, tell: Tell | None = None) -> Result:
        """Run the plan of a seed, as `run` does."""
        return self.run(self.draw_plan(seed), tell)


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
