"""The client on Trio in the whole world: every call ends in what is true of it, and nothing is done twice."""

from random import Random

import attrs
import pytest
import trio

from tests.samples import first_of
from tests.world_client import TrioWorldClient, run_with
from trio_kv import OutcomeUnknownError, StoreError, TrioClient
from trio_kv.check.violation import Violation
from trio_kv.sim.faults import CrashAll, Fault
from trio_kv.sim.plan import Plan
from trio_kv.sim.whole.faults import RestartDoor
from trio_kv.sim.whole.plan import draw_whole_plan
from trio_kv.sim.worlds import SimulationFailedError

TASKS = 5
KILLS = 100
KILL_EVERY_S = 0.4


class Counting:
    """Tasks that add to counters, each to one of its own, and know between which bounds it must be."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self.low = [0] * TASKS
        """So often it was counted for sure."""
        self.high = [0] * TASKS
        """So often it was asked to, and may have been counted."""
        self.ends = {"counted": 0, "refused": 0, "unknown": 0, "cancelled": 0}
        self.repetitions = self.connections = 0

    async def use(self, kv: TrioClient, client: TrioWorldClient) -> None:
        """Count for a while, with all tasks over one connection."""
        async with trio.open_nursery() as nursery:
            for place in range(TASKS):
                nursery.start_soon(self._count_on, kv, client, place)
        told = kv.statistics()
        self.repetitions, self.connections = told.repetitions, told.connections

    async def _count_on(self, kv: TrioClient, client: TrioWorldClient, place: int) -> None:
        while not client.is_stopping:
            # Of who cancels nothing it is known more exactly how often it was counted.
            patience_s = client.random.choice((0.01, 0.5, 20.0)) if place % 2 else 20.0
            with trio.move_on_after(patience_s) as patience:
                await self._count(kv, client, place)
            self.ends["cancelled"] += patience.cancelled_caught
            await trio.sleep(client.random.expovariate(self._rate))

    async def _count(self, kv: TrioClient, client: TrioWorldClient, place: int) -> None:
        key = f"counter {client.number}/{place}"
        self.high[place] += 1
        try:
            reply = await kv.incr(key)
        except OutcomeUnknownError:
            self.ends["unknown"] += 1
        except StoreError:
            # It says that nothing was changed.
            self.high[place] -= 1
            self.ends["refused"] += 1
        else:
            if not self.low[place] < reply.data <= self.high[place]:
                bounds = f"{self.low[place]} were counted for sure, and {self.high[place]} asked for"
                raise Violation(f"{key} is {reply.data}: {bounds}")
            self.low[place] = reply.data
            self.ends["counted"] += 1


def run(plan: Plan, monkeypatch: pytest.MonkeyPatch, others: int = 1, rate: float = 20.0) -> Counting:
    """Run a plan, in which one client counts by way of `open_client`."""
    counting = Counting(rate)
    run_with(plan, [counting.use], monkeypatch, others)
    return counting


@pytest.mark.parametrize("seed", first_of([303, 301, *range(310, 330)], 2))
def test_C1_each_call_ends_in_what_is_true_whatever_happens(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over crashes, partitions, full disks, doors that are restarted and calls that are cancelled (scenario C1)."""
    counting = run(draw_whole_plan(seed), monkeypatch)
    assert counting.ends["counted"]
    assert counting.ends["cancelled"]


def test_a_client_that_repeats_writes_without_numbers_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge above is no formality: what is sent twice there counts twice, and that is seen."""
    monkeypatch.setattr("trio_kv.client.trio_client.may_write_of", lambda _: False)
    with pytest.raises(SimulationFailedError):
        run(draw_whole_plan(303), monkeypatch)


def test_C1_a_server_that_is_killed_a_hundred_times_counts_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All nodes lose their power at once, and the door ends without a word, whatever is under way (scenario C1)."""
    plan = draw_whole_plan(1, ())
    random = Random(1)
    faults: list[Fault] = []
    for number in range(KILLS):
        at_s = 1.0 + number * KILL_EVERY_S + random.uniform(0, KILL_EVERY_S / 2)
        faults.append(CrashAll(at_s, (0.05,) * plan.nodes))
        faults.append(RestartDoor(at_s, 0.05, is_graceful=False))
    plan = attrs.evolve(
        plan,
        raft=attrs.evolve(
            plan.raft,
            heartbeat_interval_s=0.04,
            election_timeout_min_s=0.1,
            election_timeout_max_s=0.2,
        ),
        faults=tuple(faults),
        fault_phase_s=1.0 + KILLS * KILL_EVERY_S,
        session_timeout_us=60_000_000,
    )
    counting = run(plan, monkeypatch, others=0, rate=5.0)
    assert counting.connections > 0.9 * KILLS
    assert counting.repetitions > KILLS
    assert counting.ends["counted"] > 2 * KILLS
