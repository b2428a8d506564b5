"""The core world over many seeds: the real replica, log and recovery under faults, judged after every step."""

import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

import trio_kv
from tests.samples import first_of
from trio_kv.raft.leader import Leader
from trio_kv.sim.core_kind import KIND
from trio_kv.sim.coverage import SITUATIONS, Coverage
from trio_kv.sim.plan import KINDS, draw_plan
from trio_kv.sim.worlds import SimulationFailedError

run_seed = KIND.run_seed
BATCHES = [range(first, first + 10) for first in range(1, 301, 10)]


@attrs.frozen
class Runs:
    """What was run, and what that reached."""

    batches: set[range] = attrs.field(factory=set)
    coverage: Coverage = attrs.field(factory=Coverage)

    def run(self, seeds: range) -> None:
        self.batches.add(seeds)
        for seed in seeds:
            self.coverage.update(run_seed(seed).coverage)

    def missing(self) -> list[str]:
        return [situation for situation in SITUATIONS if not self.coverage[situation]]


@pytest.fixture(scope="module")
def runs() -> Runs:
    """All runs of this module together."""
    return Runs()


@pytest.mark.parametrize("seeds", first_of(BATCHES, 10), ids=lambda seeds: f"{seeds[0]}..{seeds[-1]}")
def test_no_run_violates_anything(seeds: range, runs: Runs) -> None:
    """Whatever happens, all of check's properties hold after each step, and once it ends the cluster serves again."""
    runs.run(seeds)


def test_the_runs_reached_every_situation(runs: Runs) -> None:
    """The runs above were dangerous: each situation of the list occurred, so that the judges had something to judge."""
    for seeds in BATCHES:
        # As many more as it takes: plans change, and then another seed is the first to reach something.
        if seeds not in runs.batches and runs.missing():
            runs.run(seeds)
    assert runs.missing() == []


def test_a_seed_always_gives_the_same_run() -> None:
    """Two runs of a seed in one process are the same event for event, and another seed's run is another one."""
    first, second = run_seed(7), run_seed(7)
    assert first == second
    assert run_seed(8).trace_hash != first.trace_hash


def test_being_watched_by_a_person_changes_nothing() -> None:
    """A run whose events are told is the same run."""
    lines: list[str] = []
    told = run_seed(11, lines.append)
    assert told == run_seed(11)
    assert any("leader.elected" in line for line in lines)


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_a_run_does_not_depend_on_the_order_of_sets(hash_seed: str) -> None:
    """Other processes with other PYTHONHASHSEEDs run the seed in the same way."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    root = Path(trio_kv.__file__).parents[1]
    for seed in (3, 14):
        command = [sys.executable, "-m", "trio_kv", "sim", "--seed", str(seed)]
        done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
        assert run_seed(seed).trace_hash in done.stdout


def test_a_failure_tells_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed run names its seed, the command that replays it, its whole plan, and when it happened."""

    def fail(self: Leader) -> None:
        raise AssertionError("broken on purpose")

    monkeypatch.setattr(Leader, "_maybe_commit", fail)
    with pytest.raises(SimulationFailedError) as caught:
        run_seed(5)
    message = str(caught.value)
    assert "seed 5 failed at " in message
    assert "python -m trio_kv sim --world core --seed 5" in message
    assert str(draw_plan(5)) in message
    assert "broken on purpose" in message


def test_plans_cover_all_sizes_and_kinds() -> None:
    """Even sizes and one node are among the drawn plans, and each kind of fault is both on and off in some."""
    plans = [draw_plan(seed) for seed in range(1, 301)]
    assert {plan.nodes for plan in plans} == {1, 2, 3, 4, 5}
    kinds = [set(plan.kinds) for plan in plans]
    for kind in KINDS:
        assert 0 < sum(kind in each for each in kinds) < len(plans)
