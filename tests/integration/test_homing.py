"""Leadership goes to the process with the doors, in virtual time."""

import pytest
import trio
import trio.testing

from tests.linked import Linked, linked
from trio_kv.cluster.homing import CALM_S, REASON
from trio_kv.raft.events import TransferStarted

PAIR: dict[int, tuple[int, ...]] = {0: (1, 3, 5), 1: (2, 4)}
LONE: dict[int, tuple[int, ...]] = {0: (1,), 1: (2, 3), 2: (4, 5)}
HOSTS: dict[int, tuple[int, ...]] = {1: (1,), 2: (2,), 3: (3,)}


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


def transfers(cluster: Linked) -> list[tuple[int, str]]:
    """Return to whom leadership was to be handed over, and why."""
    found = [event for one in cluster.all.values() for event in one.heard.events(TransferStarted)]
    return [(event.target, event.reason) for event in found if isinstance(event, TransferStarted)]


async def hand_over(cluster: Linked, target: int) -> None:
    leader = await cluster.wait_leader()
    if leader != target:
        for one in cluster.all.values():
            if leader in one.process.others.layout.here:
                one.process.cluster.transfer(target)
        await cluster.wait_leader(target)


async def test_a_leader_that_chance_made_elsewhere_hands_over(autojump_clock: trio.testing.MockClock) -> None:
    """Once; and one at home, or on a host of its own, leads on."""
    firsts = set()
    for seed in range(8):
        async with linked(PAIR, seed) as cluster:
            first = await cluster.wait_leader()
            firsts.add(first in PAIR[0])
            await trio.sleep(5 * CALM_S)
            leader = await cluster.wait_leader()
            if first in PAIR[0]:
                assert (leader, transfers(cluster)) == (first, [])
            else:
                assert leader in PAIR[0]
                assert transfers(cluster) == [(leader, REASON)]
    assert firsts == {False, True}, "no seed of those led there: take others"
    async with linked(HOSTS) as cluster:
        first = await cluster.wait_leader()
        await trio.sleep(5 * CALM_S)
        assert (await cluster.wait_leader(), transfers(cluster)) == (first, [])


async def test_a_leader_that_was_handed_over_to_leads_on(autojump_clock: trio.testing.MockClock) -> None:
    """Somebody wanted it so; when that one dies, the next one is at home again."""
    async with linked(PAIR) as cluster:
        await hand_over(cluster, 3)
        await hand_over(cluster, 4)
        count = len(transfers(cluster))
        await trio.sleep(5 * CALM_S)
        assert await cluster.wait_leader() == 4
        assert len(transfers(cluster)) == count
        cluster.all[1].process.cluster.faults.crash(4)
        await trio.sleep(5 * CALM_S)
        assert await cluster.wait_leader() in PAIR[0]


async def test_nobody_at_home_is_no_reason_to_stop_leading(autojump_clock: trio.testing.MockClock) -> None:
    """As soon as the node there is back, and has the log, it leads."""
    async with linked(LONE) as cluster:
        await cluster.wait_leader()
        home = cluster.all[0].process.cluster
        home.stop(1)
        await trio.sleep(5 * CALM_S)
        leader, count = await cluster.wait_leader(), len(transfers(cluster))
        assert leader != 1
        await trio.sleep(5 * CALM_S)
        assert (await cluster.wait_leader(), len(transfers(cluster))) == (leader, count)
        home.restart(1)
        await trio.sleep(5 * CALM_S)
        assert await cluster.wait_leader() == 1
        assert transfers(cluster)[count:] == [(1, REASON)]


async def test_tries_that_fail_become_rare(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing that home says arrives, so it can't take over; each try costs writes a moment."""
    async with linked(LONE) as cluster:
        await hand_over(cluster, 1)
        await trio.sleep(5 * CALM_S)
        for each in (2, 3, 4, 5):
            cluster.all[0].process.cluster.faults.cut(1, each)
        count, began_at = len(transfers(cluster)), trio.current_time()
        await trio.sleep(200 * CALM_S)
        tries = len(transfers(cluster)) - count
        assert trio.current_time() - began_at == 200 * CALM_S
        assert 3 <= tries <= 10
