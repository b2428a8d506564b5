"""The whole world as campaigns know it."""

from typing import Final

from trio_kv.sim.coverage import WHOLE_SITUATIONS
from trio_kv.sim.whole.plan import KINDS, draw_whole_plan
from trio_kv.sim.whole.world import make_world
from trio_kv.sim.worlds import WorldKind

KIND: Final = WorldKind(
    name="whole",
    kinds=KINDS,
    situations=WHOLE_SITUATIONS,
    seeds_for_coverage=200,
    draw=draw_whole_plan,
    make=make_world,
)
