"""The core world as campaigns know it."""

from typing import Final

from trio_kv.sim.bare import BareWorld
from trio_kv.sim.coverage import SITUATIONS
from trio_kv.sim.plan import KINDS, draw_plan
from trio_kv.sim.world import World
from trio_kv.sim.worlds import WorldKind

KIND: Final = WorldKind(
    name="core",
    kinds=KINDS,
    situations=SITUATIONS,
    seeds_for_coverage=1000,
    draw=draw_plan,
    make=World,
    make_bare=BareWorld,
)
