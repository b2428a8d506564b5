"""Shrinking: of a plan that fails only what it takes is left, and told in words."""

from collections.abc import Sequence

import attrs
import pytest

from trio_kv.check.violation import Violation
from trio_kv.sim import faults
from trio_kv.sim.attempt import Failure, Task, attempt, run_task
from trio_kv.sim.core_kind import KIND
from trio_kv.sim.plan import Plan, draw_plan
from trio_kv.sim.result import Result
from trio_kv.sim.shrink import NotRepeatableError, minimize, shrink
from trio_kv.sim.words import describe_fault, describe_schedule
from trio_kv.sim.world import World
from trio_kv.sim.worlds import world_kind


@pytest.mark.parametrize("culprits", [(), (0,), (63,), (5, 6), (3, 40), (0, 31, 63), tuple(range(0, 64, 7))])
def test_minimize_finds_what_matters(culprits: tuple[int, ...]) -> None:
    """Of many items those that are needed for the failure are left, in their order, and no others."""
    left = minimize(range(64), lambda part: {*culprits} <= {*part})
    assert tuple(left) == culprits


def test_minimize_gives_a_part_that_none_can_leave() -> None:
    """Also where several parts fail, no item of the result can be left out."""

    def fails(part: Sequence[int]) -> bool:
        return sum(part) >= 100 and len(part) % 3 != 1

    left = minimize(range(40), fails)
    assert fails(left)
    assert not any(fails([*left[:at], *left[at + 1 :]]) for at in range(len(left)))


def kind_of(plan: Plan) -> str | None:
    result = attempt(world_kind("core"), plan)
    return result.kind if isinstance(result, Failure) else None


def first_failure(seeds: Sequence[int]) -> tuple[Plan, Failure]:
    for seed in seeds:
        result = run_task(Task(world="core", seed=seed))
        if result.failure is not None and draw_plan(seed).faults:
            return draw_plan(seed), result.failure
    raise AssertionError("the planted bug was not found")


def core_attempt(plan: Plan) -> Failure | None:
    result = attempt(world_kind("core"), plan)
    return result if isinstance(result, Failure) else None


@pytest.mark.usefixtures("planted")
def test_a_failing_plan_shrinks_to_what_it_takes() -> None:
    """Of a planted bug the smallest schedule fails in the same way, and none of its faults can be left out."""
    plan, failure = first_failure(range(2, 30))
    shrunk = shrink(plan, failure.kind, core_attempt)
    assert shrunk.is_minimal
    assert len(shrunk.plan.faults) < len(plan.faults)
    assert {*shrunk.plan.faults} <= {*plan.faults}
    assert kind_of(shrunk.plan) == failure.kind
    for left_out in range(len(shrunk.plan.faults)):
        faults_left = tuple(each for at, each in enumerate(shrunk.plan.faults) if at != left_out)
        assert kind_of(attrs.evolve(shrunk.plan, faults=faults_left)) != failure.kind
    assert shrink(plan, failure.kind, core_attempt) == shrunk


def test_shrinking_keeps_to_its_runs() -> None:
    """With few runs it gives the smallest plan found until then, and says that more might be left out."""
    replays = tuple(faults.Replay(float(at), at) for at in range(32))
    plan = attrs.evolve(draw_plan(3), faults=replays, fault_phase_s=40.0)
    needed = {plan.faults[3], plan.faults[20]}
    failure = Failure(kind="k", text="t", frames="")
    calls: list[Plan] = []

    def fails(tried: Plan) -> Failure | None:
        calls.append(tried)
        return failure if needed <= {*tried.faults} else None

    shrunk = shrink(plan, "k", fails, runs_max=12)
    assert (shrunk.runs, len(calls), shrunk.is_minimal) == (12, 12, False)
    assert needed <= {*shrunk.plan.faults}
    whole = shrink(plan, "k", fails)
    assert ({*whole.plan.faults}, whole.is_minimal) == (needed, True)
    assert (whole.plan.clients, whole.plan.lanes, whole.plan.keys, whole.plan.answer_loss) == (1, 1, 1, 0.0)
    assert 20.0 < whole.plan.fault_phase_s < 22.0


def test_shrinking_does_not_follow_another_failure() -> None:
    """A smaller plan that fails in another way is not taken for the same failure."""
    plan = attrs.evolve(draw_plan(3), faults=tuple(faults.Replay(float(at), at) for at in range(4)))

    def fails(tried: Plan) -> Failure | None:
        return Failure(kind="same" if len(tried.faults) >= 3 else "another", text="", frames="")

    assert len(shrink(plan, "same", fails).plan.faults) == 3


def test_a_plan_that_does_not_fail_again_is_told() -> None:
    """A failure that its plan does not repeat is no matter of the schedule."""
    with pytest.raises(NotRepeatableError, match="seed 3"):
        shrink(draw_plan(3), "k", lambda _plan: None)


def test_failures_for_one_reason_have_one_kind() -> None:
    """The kind tells what was raised and where; neither numbers nor what reports it are part of it."""

    def fail(number: int) -> None:
        raise Violation(f"entry {number}")

    class Failing(World):
        def run(self) -> Result:
            try:
                fail(self.plan.seed)
            except Violation as error:
                raise ExceptionGroup("tasks", [OSError("gone"), error]) from None
            raise AssertionError

    first, second = (attempt(attrs.evolve(KIND, make=Failing), draw_plan(seed)) for seed in (1, 2))
    assert isinstance(first, Failure)
    assert isinstance(second, Failure)
    assert first.kind == second.kind == "Violation in test_shrinking.fail"
    assert (first.text, second.text) == ("Violation: entry 1", "Violation: entry 2")


def test_a_schedule_is_told_in_words() -> None:
    """A fault is told by when, what, where and how long; node 0 is whoever leads."""
    told = describe_fault(faults.Crash(1.5, 0, 0.25, True, False))
    assert (
        told
        == "    1.500 s  crash (the leader, for 0.250 s, answered): Power fails at one node; it comes back later."
    )
    assert "n1 n2 | n3" in describe_fault(faults.Partition(1.0, ((1, 2), (3,)), 1.0))
    assert "no faults" in describe_schedule(attrs.evolve(draw_plan(1), faults=()))
    for plan in map(draw_plan, range(1, 40)):
        for fault in plan.faults:
            assert "object at" not in describe_fault(fault)
