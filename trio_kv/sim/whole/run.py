"""Running seeds of the whole world, and saying how to repeat what went wrong."""

from collections.abc import Callable

from trio_kv.sim.plan import Plan
from trio_kv.sim.result import Result
from trio_kv.sim.run import SimulationFailedError
from trio_kv.sim.whole.plan import draw_whole_plan
from trio_kv.sim.whole.world import WholeWorld


def run_whole_seed(seed: int, tell: Callable[[str], None] | None = None) -> Result:
    """Run one seed of the whole world.

    Args:
        seed: which run.
        tell: takes a line for each thing that happens.

    Raises:
        SimulationFailedError: a judge found a violation, or the code under test failed.

    """
    return run(draw_whole_plan(seed), tell)


def run(plan: Plan, tell: Callable[[str], None] | None = None) -> Result:
    """Run one plan in the whole world; arguments and errors as for `run_whole_seed`."""
    world = WholeWorld(plan, tell)
    try:
        return world.run()
    except Exception as error:
        raise SimulationFailedError.of(plan, world.now_s, error, "--world whole ") from error
