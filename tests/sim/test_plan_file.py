"""Plans on file: what is read is what was written, and all else is refused."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from trio_kv.sim.plan import draw_plan
from trio_kv.sim.plan_file import BadPlanError, PlanFile, fault_classes, read_plan, write_plan
from trio_kv.sim.worlds import ANY, world_kind


def test_plans_survive_a_file() -> None:
    """What is read is what was written, for hundreds of plans with every kind of fault."""
    seen: set[type] = set()
    for seed in range(1, 301):
        plan = draw_plan(seed, is_beyond_budget=seed % 5 == 0)
        text = write_plan("core", plan)
        assert read_plan(text) == PlanFile(world="core", plan=plan)
        seen.update(map(type, plan.faults))
    assert seen == {each for each in fault_classes() if "whole" not in each.__module__}


def test_plans_of_the_whole_world_survive_a_file() -> None:
    """Also faults of the door, with lines that are no UTF-8."""
    kind = world_kind("whole")
    seen: set[str] = set()
    for seed in range(1, 41):
        plan = kind.draw_plan(seed, ANY)
        assert read_plan(write_plan("whole", plan)) == PlanFile(world="whole", plan=plan)
        seen.update(type(fault).__name__ for fault in plan.faults)
    assert "Stranger" in seen


def edit(change: Callable[[dict[str, Any]], object]) -> str:
    members = json.loads(write_plan("core", draw_plan(3)))
    change(members)
    return json.dumps(members)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[1]", "no member `plan`"),
        (edit(lambda file: file.update(format=9)), "format is 9, and only 1 is known"),
        (edit(lambda file: file.update(world="flat")), "there is no world 'flat'"),
        (edit(lambda file: file.update(remark={})), "not known: remark"),
        (edit(lambda file: file["plan"].update(moons=2)), "not known: moons @ file.plan"),
        (edit(lambda file: file["plan"].pop("clients")), "missing @ file.plan.clients"),
        (edit(lambda file: file["plan"].update(nodes="3")), "'3' is no int @ file.plan.nodes"),
        (edit(lambda file: file["plan"].update(nodes=True)), "True is no int"),
        (edit(lambda file: file["plan"].update(faults=[{"fault": "Flood"}])), "there is no fault 'Flood'"),
        (edit(lambda file: file["plan"].update(faults=[7])), "there is no fault 7"),
        (edit(lambda file: file["plan"].update(faults=[{"fault": "Replay", "at_s": 1}])), "faults[0].count"),
        (
            edit(
                lambda file: file["plan"].update(
                    faults=[{"fault": "Transfer", "at_s": 1, "target": 1, "x": 1}]
                )
            ),
            "not known: x",
        ),
    ],
)
def test_a_file_that_is_no_plan_is_refused_with_a_clear_word(text: str, words: str) -> None:
    """Unknown, missing and mistyped members are named with their place."""
    with pytest.raises(BadPlanError) as caught:
        read_plan(text)
    assert words in str(caught.value)
