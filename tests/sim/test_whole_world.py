"""The whole world over some seeds: the real supervisor, nodes, gateway and door, in virtual time, judged throughout."""

import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from trio._core import _run as trio_run

import trio_kv
from tests.samples import first_of
from trio_kv.check.violation import Violation
from trio_kv.gateway.reads import Reads
from trio_kv.proxy.connection import Connection
from trio_kv.sim.coverage import WHOLE_SITUATIONS, Coverage
from trio_kv.sim.whole.door import judge_stranger
from trio_kv.sim.whole.kind import KIND
from trio_kv.sim.whole.plan import KINDS, draw_whole_plan
from trio_kv.sim.whole.scheduling import StormError, run_seeded
from trio_kv.sim.worlds import SimulationFailedError

run_whole_seed = KIND.run_seed
BATCHES = [range(first, first + 10) for first in range(1, 41, 10)]


@attrs.frozen
class Runs:
    """What was run, and what that reached."""

    batches: set[range] = attrs.field(factory=set)
    coverage: Coverage = attrs.field(factory=Coverage)

    def run(self, seeds: range) -> None:
        self.batches.add(seeds)
        for seed in seeds:
            self.coverage.update(run_whole_seed(seed).coverage)

    def missing(self) -> list[str]:
        return [situation for situation in WHOLE_SITUATIONS if not self.coverage[situation]]


@pytest.fixture(scope="module")
def runs() -> Runs:
    """All runs of this module together."""
    return Runs()


@pytest.mark.parametrize("seeds", first_of(BATCHES, 2), ids=lambda seeds: f"{seeds[0]}..{seeds[-1]}")
def test_no_run_violates_anything(seeds: range, runs: Runs) -> None:
    """Whatever happens, all properties hold at each pass, the history is linearizable, and in the end all is served."""
    runs.run(seeds)


def test_the_runs_reached_every_situation(runs: Runs) -> None:
    """The runs above were dangerous: each situation of the list occurred."""
    for seeds in BATCHES:
        # As many more as it takes: plans change, and then another seed is the first to reach something.
        if seeds not in runs.batches and runs.missing():
            runs.run(seeds)
    assert runs.missing() == []


@pytest.mark.parametrize("seed", [196, 280, 2703, 2712])
def test_seeds_of_long_runs_that_failed_once(seed: int) -> None:
    """What went wrong in a long run goes wrong no more: see "What was found" in docs/testing.md."""
    run_whole_seed(seed)


ERROR, RESULT = (
    b'{"key": "k0", "value": null, "status": "error"}\n',
    b'{"key": "k0", "value": 1, "status": "ok"}\n',
)


@pytest.mark.parametrize(
    ("received", "is_cut"),
    [(ERROR * 2, False), (ERROR * 2, True), (ERROR, True), (ERROR + b'{"key', True), (b"", True)],
)
def test_a_stranger_gets_an_error_a_line_until_the_door_is_cut_down(received: bytes, is_cut: bool) -> None:
    """Each line has its error; only a door that is cut down owes what it had not sent by then."""
    judge_stranger((b"[]", b" ", b'"text"'), received, Coverage(), is_cut=is_cut)


@pytest.mark.parametrize(
    ("received", "is_cut"),
    [
        (b"", False),
        (ERROR, False),
        (ERROR * 3, False),
        (ERROR * 3, True),
        (ERROR + RESULT, False),
        (ERROR + RESULT, True),
    ],
)
def test_a_wrong_word_to_a_stranger_is_found(received: bytes, is_cut: bool) -> None:
    """A missing error is wrong while the door stands; a result, or an error too many, is wrong at any door."""
    with pytest.raises(Violation, match="a stranger sent"):
        judge_stranger((b"[]", b" ", b'"text"'), received, Coverage(), is_cut=is_cut)


def test_a_seed_always_gives_the_same_run() -> None:
    """Two runs of a seed in one process are the same event for event, and another seed's run is another one."""
    first, second = run_whole_seed(3), run_whole_seed(3)
    assert first == second
    assert run_whole_seed(4).trace_hash != first.trace_hash


def test_being_watched_by_a_person_changes_nothing() -> None:
    """A run whose events are told is the same run."""
    lines: list[str] = []
    assert run_whole_seed(3, lines.append) == run_whole_seed(3)
    assert any("leader.elected" in line for line in lines)
    assert any(" c1 > " in line for line in lines)


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_a_run_does_not_depend_on_the_order_of_sets(hash_seed: str) -> None:
    """Other processes with other PYTHONHASHSEEDs run the seed in the same way."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    root = Path(trio_kv.__file__).parents[1]
    code = "from trio_kv.sim.whole.kind import KIND; run = KIND.run_seed; print(run(3).trace_hash, run(5).trace_hash)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [run_whole_seed(seed).trace_hash for seed in (3, 5)]


def test_trio_schedules_by_the_seed_through_its_two_private_names() -> None:
    """With both names tasks run in an order that the seed alone decides, whatever order they are woken in."""
    names = vars(trio_run)
    flag, state = names["_ALLOW_DETERMINISTIC_SCHEDULING"], names["_r"].getstate()
    assert isinstance(flag, bool)

    def order_of(seed: int) -> list[int]:
        order: list[int] = []

        async def main() -> None:
            async def task(number: int) -> None:
                for _ in range(5):
                    # Equal deadlines, and events with several waiters: their orders are those of ids and sets.
                    await trio.sleep(1)
                    await trio.lowlevel.checkpoint()
                    order.append(number)

            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(task, number)

        run_seeded(main, seed, steps_max=10_000)
        return order

    assert order_of(1) == order_of(1)
    assert order_of(1) != order_of(2)
    assert (names["_ALLOW_DETERMINISTIC_SCHEDULING"], names["_r"].getstate()) == (flag, state)


def test_time_passes_only_when_all_tasks_wait() -> None:
    """A minute of sleep takes no time, and ends at the very moment that was asked for."""

    async def main() -> float:
        began_s = trio.current_time()
        await trio.sleep(60)
        return trio.current_time() - began_s

    assert run_seeded(main, 1, steps_max=1000) == 60


def test_a_run_that_goes_round_in_circles_is_ended() -> None:
    """Tasks that stop virtual time for ever are told as a storm, although Trio swallows what instruments raise."""

    async def main() -> None:
        while True:
            await trio.lowlevel.checkpoint()

    with pytest.raises(StormError, match="1000 steps"):
        run_seeded(main, 1, steps_max=1000)


def test_a_failure_tells_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed run names its seed, the command that replays it, its whole plan, and when it happened."""

    def fail(self: Reads, now: float, read: object, kept: int = 0) -> None:
        raise AssertionError("broken on purpose")

    monkeypatch.setattr(Reads, "_ask", fail)
    with pytest.raises(SimulationFailedError) as caught:
        run_whole_seed(5)
    message = str(caught.value)
    assert "seed 5 failed at " in message
    assert "python -m trio_kv sim --world whole --seed 5" in message
    assert str(draw_whole_plan(5)) in message
    assert "broken on purpose" in message


def test_what_the_house_survives_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that the door keeps to one client, and a supervisor to one node, is found all the same."""

    async def fail(self: Connection) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(Connection, "_work", fail)
    with pytest.raises(SimulationFailedError, match="broken on purpose") as caught:
        run_whole_seed(1)
    assert isinstance(caught.value.__cause__, Violation)


def test_plans_cover_all_kinds() -> None:
    """Each kind is both on and off in some plans."""
    plans = [draw_whole_plan(seed) for seed in range(1, 101)]
    for kind in KINDS:
        assert 0 < sum(kind in plan.kinds for plan in plans) < len(plans)
