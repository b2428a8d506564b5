"""Running seeds, and saying how to repeat what went wrong."""

from collections.abc import Callable

from trio_kv.sim.plan import draw_plan
from trio_kv.sim.result import Result
from trio_kv.sim.world import World


class SimulationFailedError(AssertionError):
    """A run went wrong; the message holds all that is needed to see it again."""


def run_seed(seed: int, tell: Callable[[str], None] | None = None) -> Result:
    """Run one seed.

    Args:
        seed: which run.
        tell: takes a line for each thing that happens.

    Raises:
        SimulationFailedError: a judge found a violation, or the code under test failed.

    """
    plan = draw_plan(seed)
    world = World(plan, tell)
    try:
        return world.run()
    except Exception as error:
        raise SimulationFailedError(
            f"seed {seed} failed at {world.now:.6f} s: {type(error).__name__}: {error}\n"
            f"replay it: python -m trio_kv.sim --seed {seed} --verbose\n{plan}"
        ) from error
