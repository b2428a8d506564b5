"""Running seeds of the whole world, and saying how to repeat what went wrong."""

from collections.abc import Callable

import trio

from trio_kv.sim.plan import Plan
from trio_kv.sim.result import Result
from trio_kv.sim.run import SimulationFailedError
from trio_kv.sim.whole.ending import heal, judge_end, require_service, run_aftermath
from trio_kv.sim.whole.injector import Injector
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
        return world.run(both_phases)
    except Exception as error:
        raise SimulationFailedError.of(plan, world.now_s, error, "--world whole ") from error


async def both_phases(world: WholeWorld) -> Result:
    """Let the faults of the plan happen, then mend everything and judge what comes of it.

    Raises:
        Violation: a judge found something.

    """
    plan, injector, recovered_after_s = world.plan, Injector(world), 0.0
    for fault in plan.faults:
        world.after(fault.at_s, injector.happen, fault)
    await trio.sleep(plan.fault_phase_s)
    heal(world, injector)
    if plan.is_beyond_budget:
        await run_aftermath(world)
    else:
        recovered_after_s = await require_service(world)
    judge_end(world)
    return world.result(recovered_after_s)
