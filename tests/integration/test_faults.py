"""Claims about what people do to a cluster that runs: they see it in the status, and each node can be had back."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.doubles import MemorySink
from trio_kv.cluster import backup
from trio_kv.cluster.cluster import Cluster
from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.members import FaultError
from trio_kv.control.commands import parse_command
from trio_kv.control.operation import carry_out
from trio_kv.gateway.local import LocalCluster, open_cluster
from trio_kv.replica.replica import Replica
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import NodeCrashed

WAIT_S = 20.0
"""A condition that does not come true within this time fails the test."""


async def eventually(condition: Callable[[], bool]) -> None:
    with trio.fail_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what a person would watch is polled, not signalled
            await trio.sleep(0.01)


def faults(cluster: Cluster) -> list[dict[str, Any]]:
    status: Any = cluster.status()
    found: list[dict[str, Any]] = status["faults"]
    return found


def is_up(cluster: Cluster, node: int) -> bool:
    return cluster.registry.handle(node) is not None


def has_come_back(cluster: Cluster, node: int, before: object) -> bool:
    return cluster.registry.handle(node) not in (None, before)


async def test_the_status_names_what_is_wrong_until_it_is_healed(tmp_path: Path) -> None:
    """Each fault stands there with its numbers, as long as it lasts and no longer; nodes in no group are alone."""
    async with open_cluster(tmp_path, nodes=5, is_synced=False) as local:
        cluster = local.cluster
        await eventually(lambda: all(is_up(cluster, node) for node in range(1, 6)))
        assert faults(cluster) == []
        cluster.faults.partition([[1, 2], [3]])
        cluster.faults.cut(5, 4)
        cluster.faults.delay(0.02)
        cluster.faults.drop(0.07)
        cluster.faults.duplicate(0.5)
        cluster.faults.reorder(0.001)
        cluster.faults.slow_disk(2, 0.05)
        cluster.faults.stall_disk(3)
        cluster.faults.skew_clock(4, 1.5)
        assert faults(cluster) == [
            {"fault": "partition", "groups": [[1, 2], [3], [4], [5]]},
            {"fault": "cut", "link": (4, 5)},
            {"fault": "delay", "ms": 20.0},
            {"fault": "reorder", "ms": 1.0},
            {"fault": "drop", "percent": 7.0},
            {"fault": "duplicate", "percent": 50.0},
            {"fault": "slow-disk", "node": 2, "ms": 50.0},
            {"fault": "stall-disk", "node": 3},
            {"fault": "clock", "node": 4, "rate": 1.5},
        ]
        cluster.faults.heal()
        assert faults(cluster) == [{"fault": "clock", "node": 4, "rate": 1.5}]
        cluster.faults.skew_clock(4, 1.0)
        cluster.faults.delay(0.02)
        cluster.faults.delay(0.05, (2, 1))
        cluster.faults.drop(0.5, (1, 2))
        assert faults(cluster) == [
            {"fault": "delay", "ms": 20.0},
            {"fault": "delay", "ms": 50.0, "link": (1, 2)},
            {"fault": "drop", "percent": 50.0, "link": (1, 2)},
        ]
        cluster.faults.heal((2, 1))
        assert faults(cluster) == [{"fault": "delay", "ms": 20.0}]
        cluster.faults.heal()
        cluster.faults.slow_disk(1, 0.05)
        cluster.faults.slow_disk(2, 0.05)
        cluster.faults.stall_disk(1)
        cluster.faults.heal_disk(1)
        assert faults(cluster) == [{"fault": "slow-disk", "node": 2, "ms": 50.0}]
        cluster.faults.heal()
        cluster.faults.fill_disk(1)
        assert faults(cluster) == [{"fault": "fill-disk", "node": 1}]
        cluster.faults.heal()
        assert [fault for fault in faults(cluster) if fault["fault"] == "fill-disk"] == []
        cluster.stop(2)
        await eventually(lambda: not is_up(cluster, 2))
        cluster.faults.cut(1, 2)
        cluster.faults.delay(0.02)
        cluster.faults.delay(0)
        assert {"fault": "cut", "link": (1, 2)} in faults(cluster)
        assert {"fault": "delay", "ms": 0.0} not in faults(cluster)


async def test_a_disk_that_is_to_fail_is_told_until_its_node_starts_again(tmp_path: Path) -> None:
    """With no writes the fault may lie in wait for hours: it is named, and a restart ends it."""
    async with open_cluster(tmp_path, nodes=1, is_synced=False) as local:
        cluster = local.cluster
        await cluster.wait_leader()
        cluster.faults.fail_disk(1)
        assert faults(cluster) == [{"fault": "fail-disk", "node": 1}]
        before = cluster.registry.handle(1)
        cluster.restart(1)
        await eventually(partial(has_come_back, cluster, 1, before))
        assert faults(cluster) == []


async def test_a_restarted_node_comes_back_at_once(tmp_path: Path) -> None:
    """A restart is no crash: there is no back-off, nor does it make the next one longer, also after crashes."""
    config = ClusterConfig(restart_delay_min_s=3600.0, restart_delay_max_s=3600.0)
    sink = MemorySink()
    async with open_cluster(tmp_path, nodes=3, is_synced=False, config=config, trace=Trace([sink])) as local:
        cluster = local.cluster
        await eventually(lambda: all(is_up(cluster, node) for node in (1, 2, 3)))
        for _ in range(3):
            before = cluster.registry.handle(2)
            cluster.restart(2)
            await eventually(partial(has_come_back, cluster, 2, before))
        cluster.faults.crash(2)
        await eventually(lambda: not is_up(cluster, 2))
        cluster.restart(2)  # one that waits for its back-off
        await eventually(lambda: is_up(cluster, 2))
        cluster.restart(2)
        cluster.stop(2)  # the last word counts
        await eventually(lambda: cluster.registry.nodes[2].reason == "asked to stop")
    told = [record.event.restart_in_s for record in sink.records if isinstance(record.event, NodeCrashed)]
    assert told[:4] == [0.0, 0.0, 0.0, 3600.0]


async def test_the_leader_is_a_node_that_can_be_named(tmp_path: Path) -> None:
    """`leader` stands for whichever leads at the moment; the reply tells which it was; without one that is said."""
    async with open_cluster(tmp_path, nodes=3, is_synced=False) as local:
        leader = await local.cluster.wait_leader()
        reply = await carry_out(parse_command('{"command":"pause","node":"leader"}'), local.cluster)
        assert reply == {"node": leader}
        assert local.cluster.registry.nodes[leader].state == "paused"
        local.cluster.faults.resume(leader)
    async with open_cluster(tmp_path / "other", nodes=3, is_synced=False) as local:
        with pytest.raises(FaultError, match="no node leads"):
            local.cluster.leader()


def first_follower(local: LocalCluster) -> int:
    return local.cluster.registry.readable()[0].status.node


@pytest.mark.parametrize("trouble", ["deaf", "slow", "left out"])
async def test_a_backup_does_not_depend_on_one_node(
    tmp_path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node that would be asked first hears no leader, does not get its snapshot done, or is not wanted."""
    monkeypatch.setattr(backup, "READ_PATIENCE_S", 0.3)
    monkeypatch.setattr(backup, "SNAPSHOT_PATIENCE_S", 0.3)
    async with open_cluster(tmp_path, nodes=3, is_synced=False) as local:
        cluster = local.cluster
        await eventually(lambda: all(is_up(cluster, node) for node in (1, 2, 3)))
        await cluster.wait_leader()
        node = first_follower(local)
        if trouble == "deaf":
            cluster.faults.partition([[node], [other for other in (1, 2, 3) if other != node]])
        elif trouble == "slow":
            slow = cluster._members.all[node].node
            assert slow is not None
            monkeypatch.setattr(slow.replica, "take_turn", lambda *_: None)
        with trio.fail_after(WAIT_S):
            made = await cluster.backup({node} if trouble == "left out" else ())
        assert made["node"] != node
        assert await trio.Path(str(made["path"])).exists()
        cluster.faults.heal()


async def test_a_backup_that_can_not_be_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a majority nobody knows what was acknowledged; without an end to a snapshot there is no file."""
    monkeypatch.setattr(backup, "BACKUP_S", 0.5)
    monkeypatch.setattr(backup, "READ_PATIENCE_S", 0.1)
    async with open_cluster(tmp_path, nodes=3, is_synced=False) as local:
        cluster = local.cluster
        await eventually(lambda: all(is_up(cluster, node) for node in (1, 2, 3)))
        await cluster.wait_leader()
        cluster.faults.partition([[1], [2], [3]])
        with pytest.raises(FaultError, match="no node heard a leader"):
            await cluster.backup()
        cluster.faults.heal()
        await eventually(lambda: cluster.registry.leader() is not None)
        monkeypatch.setattr(Replica, "take_turn", lambda *_: None)
        monkeypatch.setattr(backup, "BACKUP_S", 3.0)
        with pytest.raises(FaultError, match="no node got a snapshot done"):
            await cluster.backup()
