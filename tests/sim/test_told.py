"""The judges of `trace check` judge simulated runs too, where those are told: same code, same verdict."""

from contextlib import suppress

import pytest

from trio_kv.check.told.jury import Jury
from trio_kv.raft.events import ElectionStarted, LeaderElected, VoteGranted
from trio_kv.sim.bare import BareWorld
from trio_kv.sim.core_kind import KIND
from trio_kv.sim.world import World


@pytest.mark.parametrize("seed", [1, 4, 36, 81, 113])
def test_what_the_nodes_of_the_core_world_tell_is_right(seed: int) -> None:
    """Each event of a run through all kinds of faults is heard by the judges, and none is refused."""
    world = World(KIND.draw_plan(seed), lambda _line: None)
    world.run()
    assert world.jury is not None
    world.jury.end()
    assert world.jury.events > 200
    assert not world.jury.doubts


@pytest.mark.usefixtures("planted")
def test_a_bug_is_found_by_what_nodes_tell_alone() -> None:
    """Without any look into the nodes: a second vote in a term stands in what they tell."""
    found = []
    for seed in range(1, 9):
        world = BareWorld(KIND.draw_plan(seed), lambda _line: None)
        world.jury = Jury()
        # Two leaders of a term also trip over what nodes assert, if they meet first.
        with suppress(AssertionError):
            world.run()
        found += [type(record.event) for record in world.jury.broken_by]
    assert len(found) >= 2
    assert {*found} <= {VoteGranted, LeaderElected, ElectionStarted}
