"""Running plans of the core world, and saying how to repeat what went wrong."""

from collections.abc import Callable
from typing import Self

from trio_kv.sim.bare import BareWorld
from trio_kv.sim.plan import Plan, draw_plan
from trio_kv.sim.result import Result
from trio_kv.sim.world import World


class SimulationFailedError(AssertionError):
    """A run went wrong; the message holds all that is needed to see it again, `__cause__` what went wrong."""

    @classmethod
    def of(cls, plan: Plan, at_s: float, error: Exception, options: str = "") -> Self:
        """Return what to raise: it says what went wrong, and how to repeat it.

        Args:
            plan: what was to happen.
            at_s: how far the run came, in simulated seconds.
            error: what went wrong.
            options: what else it takes on the command line to run the plan's seed.

        """
        return cls(
            f"seed {plan.seed} failed at {at_s:.6f} s: {type(error).__name__}: {error}\n"
            f"replay it: python -m trio_kv sim {options}--seed {plan.seed} --verbose\n{plan}"
        )


def run_plan(plan: Plan, tell: Callable[[str], None] | None = None, *, is_bare: bool = False) -> Result:
    """Run a plan.

    Args:
        plan: what is to happen.
        tell: takes a line for each thing that happens.
        is_bare: without judges.

    Raises:
        SimulationFailedError: a judge found a violation, or the code under test failed.

    """
    world = BareWorld(plan, tell) if is_bare else World(plan, tell)
    try:
        return world.run()
    except Exception as error:
        raise SimulationFailedError.of(plan, world.now, error) from error


def run_seed(seed: int, tell: Callable[[str], None] | None = None) -> Result:
    """Run the plan of a seed, as `run_plan` does."""
    return run_plan(draw_plan(seed), tell)
