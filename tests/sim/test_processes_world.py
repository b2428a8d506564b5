"""The whole world in several processes: the real links over twins of their connections, in virtual time, judged."""

import attrs
import pytest
import trio
import trio.testing

from tests.samples import first_of
from trio_kv.check.violation import Violation
from trio_kv.raft.messages import HeartbeatReply
from trio_kv.sim.coverage import PROCESS_SITUATIONS, Coverage
from trio_kv.sim.whole import plan as plans
from trio_kv.sim.whole.kind import KIND
from trio_kv.sim.whole.plan import draw_whole_plan
from trio_kv.sim.whole.processes import ProcessNetwork
from trio_kv.sim.whole.wire_faults import PROCESS_KINDS, WireFault
from trio_kv.sim.whole.world import ProcessesWorld
from trio_kv.trace.processes import LinkFailed, LinkLost, LinkRefused

SEEDS = [seed for seed in range(1, 130) if draw_whole_plan(seed).processes > 1]


@pytest.fixture(scope="module")
def coverage() -> Coverage:
    """What the runs of this module reached together."""
    return Coverage()


@pytest.mark.parametrize("seed", first_of(SEEDS, 5))
def test_no_run_violates_anything(seed: int, coverage: Coverage) -> None:
    """Whatever happens to processes and between them, all properties hold, and in the end all is served."""
    coverage.update(KIND.run_seed(seed).coverage)


def test_the_runs_reached_every_situation(coverage: Coverage) -> None:
    """The runs above were dangerous; a few of all kinds at once are more so."""
    for seed in range(1, 4):
        coverage.update(KIND.run(draw_whole_plan(seed, (*PROCESS_KINDS, "wipe", "replay"))).coverage)
    assert [each for each in PROCESS_SITUATIONS if not coverage[each]] == []


@pytest.mark.parametrize("seed", [145, 1348])
def test_seeds_that_failed_once(seed: int) -> None:
    """What went wrong in a long run goes wrong no more: see "What was found" in docs/testing.md."""
    assert draw_whole_plan(seed).processes > 1
    KIND.run_seed(seed)


def test_a_seed_always_gives_the_same_run() -> None:
    """Event for event, also when a person is told."""
    first = KIND.run_seed(SEEDS[0])
    assert KIND.run_seed(SEEDS[0]) == first
    assert KIND.run_seed(SEEDS[0], lambda line: None) == first


def test_seeds_of_one_process_are_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a seed has several processes changes nothing else that is drawn."""
    drawn = [draw_whole_plan(seed) for seed in range(1, 60)]
    monkeypatch.setattr(plans, "PROCESSES_SHARE", 0.0)
    for plan in drawn:
        alone = attrs.evolve(
            plan,
            processes=1,
            kinds=tuple(kind for kind in plan.kinds if kind not in PROCESS_KINDS),
            faults=tuple(fault for fault in plan.faults if not isinstance(fault, WireFault)),
        )
        assert draw_whole_plan(plan.seed) == alone


def test_what_nobody_brought_about_ends_the_run() -> None:
    """A link that is lost by what was said over it, or refused, or that raises, while nobody says anything wrong."""
    world = ProcessesWorld(draw_whole_plan(SEEDS[0]))

    async def tell() -> None:
        await trio.sleep(1.0)
        world.tell_event(LinkLost(1, "nothing came for 1 s"))
        world.tell_event(LinkRefused("it did not say within 2 s who it is"))
        for event in (
            LinkLost(1, "malformed: no"),
            LinkRefused("no cluster of ours"),
            LinkFailed("Traceback"),
        ):
            with pytest.raises(Violation):
                world.tell_event(event)
        world.expect_refusals(1.0)
        world.tell_event(LinkRefused("no cluster of ours"))

    trio.run(tell, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_message_of_a_former_self_ends_the_run() -> None:
    """Once a process has taken one of the later self; what its own nodes say is not its business."""
    world = ProcessesWorld(draw_whole_plan(SEEDS[0]))
    run = world.run

    def deliver_late() -> None:
        life = world.lives[0]
        network, source = life.network, world.nodes_of[1][0]
        assert isinstance(network, ProcessNetwork)
        message = HeartbeatReply(source, life.layout.here[0], 0, 2**60, False, 0)
        network.deliver(message)
        assert world.error is None
        network.deliver(attrs.evolve(message, incarnation=2**60 - 1))

    begin = world.begin

    def begin_and_plan() -> None:
        begin()
        world.after(0.5, deliver_late)

    world.begin = begin_and_plan  # type: ignore[method-assign]
    with pytest.raises(Violation, match="of a former self"):
        run()
