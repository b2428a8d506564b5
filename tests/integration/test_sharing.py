"""The nodes of one process hold keys, items and old entries once: after a restart and a snapshot install, too."""

from pathlib import Path

import msgspec
import pytest

from tests.integration.test_cluster import CONFIG, converged, eventually, get, put
from trio_kv.gateway.local import LocalCluster, open_cluster
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Set
from trio_kv.raft.runs import Run
from trio_kv.replica import snapshots
from trio_kv.replica.replica import Replica

KEYS = [f"key{number}" for number in range(300)]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let entries be packed soon."""
    monkeypatch.setattr(snapshots, "UNPACKED_ENTRIES", 10)
    monkeypatch.setattr(snapshots, "PACKED_ENTRIES_MIN", 1)


def replicas(local: LocalCluster) -> list[Replica]:
    """Return the replicas of the nodes that run."""
    return [member.replica for member in local.cluster._members.running()]


async def fill(local: LocalCluster, text: str) -> None:
    """Give all keys a value."""
    value = msgspec.Raw(msgspec.json.encode(text))
    await local.store.write([Set(key, value) for key in KEYS], timeout_s=20)


def shared_items(machines: list[Machine]) -> int:
    """Return how many keys have one item and one text in all machines."""
    texts = [{key: id(key) for key in machine.items} for machine in machines]
    return sum(
        len({id(machine.get(key)) for machine in machines}) == 1 and len({each[key] for each in texts}) == 1
        for key in KEYS
    )


def require_shared(local: LocalCluster) -> None:
    """Require that nothing is there twice."""
    nodes = replicas(local)
    assert shared_items([replica.machine for replica in nodes]) == len(KEYS)
    runs: dict[int, set[Run]] = {}
    for replica in nodes:
        for run in replica.raft.log._entries._runs:
            runs.setdefault(run.first, set()).add(run)
    assert runs
    assert all(len(each) == 1 for each in runs.values())


async def test_nodes_share_after_a_restart_of_all_and_of_one(tmp_path: Path) -> None:
    """What five nodes read from their own disks is in memory once, whether or not a snapshot is among it."""
    async with open_cluster(tmp_path, config=CONFIG, is_synced=False) as local:
        await local.cluster.wait_leader()
        await fill(local, "first")
        await fill(local, "second")
        await converged(local)
        require_shared(local)
    async with open_cluster(tmp_path, config=CONFIG, is_synced=False) as local:
        lead = await local.cluster.wait_leader()
        await put(local, "more", 1)
        await converged(local)
        require_shared(local)
        node = lead % 5 + 1
        life = local.cluster.registry.handle(node)
        local.cluster.restart(node)
        await eventually(lambda: local.cluster.registry.handle(node) not in (None, life))
        await put(local, "more", 2)
        await converged(local)
        require_shared(local)
        assert await get(local, "key7") == "second"
