"""Claims about bad disks on a live cluster: full, stalled, damaged, replaced; and snapshots while clients write."""

import contextlib
import errno
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from tests.doubles import MemorySink
from trio_kv.cluster import disks
from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.members import FaultError
from trio_kv.gateway.local import LocalCluster, open_cluster
from trio_kv.gateway.store import View
from trio_kv.kv.operations import Get, Set
from trio_kv.kv.reply import Reply
from trio_kv.raft.events import LeaderSteppedDown, RebuildEnded, SnapshotInstalled
from trio_kv.storage import data_directory
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import NodeStarted
from trio_kv.wire.node_status import State

WAIT_S = 30.0
SEGMENT_BYTES = 128 << 10
CONFIG = ClusterConfig(restart_delay_min_s=0.1)


async def eventually(condition: Callable[[], bool]) -> None:
    with trio.fail_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what a person would watch is polled, not signalled
            await trio.sleep(0.01)


async def put(local: LocalCluster, first: int, count: int, size_bytes: int = 200) -> list[Reply]:
    text = "x" * size_bytes
    requests = [
        Set(key=f"key{number}", value=msgspec.Raw(b'"%d %s"' % (number, text.encode())))
        for number in range(first, first + count)
    ]
    return list((await local.store.write(requests, timeout_s=WAIT_S)).replies)


async def get(local: LocalCluster, number: int) -> int | None:
    answer = await local.store.read([Get(f"key{number}")], timeout_s=WAIT_S, is_stale=False, view=View())
    value = answer.replies[0].value
    return None if value is None else int(msgspec.json.decode(value).split()[0])


def rows(local: LocalCluster) -> list[dict[str, Any]]:
    status: Any = local.cluster.status()
    nodes: list[dict[str, Any]] = status["nodes"]
    return nodes


def is_converged(local: LocalCluster) -> bool:
    return len({(row["applied"], row["digest"], row["state"]) for row in rows(local)}) == 1


@contextlib.asynccontextmanager
async def running(path: Path, nodes: int = 3) -> AsyncIterator[tuple[LocalCluster, MemorySink]]:
    sink = MemorySink()
    async with open_cluster(
        path, nodes=nodes, config=CONFIG, segment_bytes=SEGMENT_BYTES, trace=Trace([sink])
    ) as local:
        await local.cluster.wait_leader()
        await eventually(lambda: all(row["state"] == "up" for row in rows(local)))
        yield local, sink


async def leader(local: LocalCluster) -> int:
    """Return who leads, as soon as somebody does: on a busy machine the lead may be lost at any time."""
    with trio.fail_after(WAIT_S):
        return await local.cluster.wait_leader()


async def test_one_full_disk_disturbs_nobody(tmp_path: Path) -> None:
    """A leader whose disk alone is full hands over, and writes go on without an error; healed, it catches up."""
    async with running(tmp_path) as (local, _):
        full = await leader(local)
        local.cluster.faults.fill_disk(full)
        for first in range(0, 3000, 100):
            assert all(reply.code == "ok" for reply in await put(local, first, 100))
        assert await leader(local) != full
        local.cluster.faults.heal()
        await eventually(lambda: is_converged(local))


async def test_E1_a_stalled_disk_costs_the_lead(tmp_path: Path) -> None:
    """E1, E2: the leader's disk stands still: another leads soon, writes go on, and what was late is fenced."""
    async with running(tmp_path) as (local, sink):
        stalled = await leader(local)
        await put(local, 0, 10)
        local.cluster.faults.stall_disk(stalled)
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, local, 100, 10)
            await eventually(lambda: bool(sink.events(LeaderSteppedDown)))
        assert trio.current_time() - begin < WAIT_S / 2
        assert all(reply.code == "ok" for reply in await put(local, 200, 10))
        assert await leader(local) != stalled
        local.cluster.faults.heal()
        await eventually(lambda: is_converged(local))
        assert [await get(local, number) for number in (0, 100, 200)] == [0, 100, 200]


async def test_N7_a_node_far_behind_gets_a_snapshot_while_writes_go_on(tmp_path: Path) -> None:
    """A node that missed more than the log keeps is brought back by a snapshot, under load, and counts again."""
    async with running(tmp_path) as (local, sink):
        absent = await leader(local) % 3 + 1
        local.cluster.stop(absent)
        for first in range(0, 9000, 100):
            await put(local, first, 100)
        assert min(row["log_first"] for row in rows(local) if row["state"] == "up") > 1
        local.cluster.restart(absent)
        for first in range(9000, 10000, 100):
            assert all(reply.code == "ok" for reply in await put(local, first, 100))
        await eventually(lambda: bool(sink.events(SnapshotInstalled)))
        await eventually(lambda: is_converged(local))
        assert [await get(local, number) for number in range(0, 10000, 999)] == list(range(0, 10000, 999))


async def test_D8_a_lost_directory_is_rebuilt_from_the_others(tmp_path: Path) -> None:
    """D8: a node without its directory stays down until it is rebuilt; then it has everything, and counts."""
    async with running(tmp_path) as (local, _):
        for first in range(0, 3000, 100):
            await put(local, first, 100)
    shutil.rmtree(tmp_path / "node-2")
    sink = MemorySink()
    async with open_cluster(
        tmp_path, config=CONFIG, segment_bytes=SEGMENT_BYTES, trace=Trace([sink])
    ) as local:
        nodes = local.cluster.registry.nodes
        await eventually(lambda: nodes[2].state is State.NEEDS_REBUILD)
        await local.cluster.wait_leader()
        await local.cluster.rebuild(2)
        await eventually(lambda: bool(sink.events(RebuildEnded)))
        await eventually(lambda: not (tmp_path / "node-2" / "rebuilding").exists())
        await eventually(lambda: is_converged(local))
        # Now it takes the rebuilt node to make a majority.
        lead = await leader(local)
        other = next(node for node in (1, 3) if node != lead)
        local.cluster.stop(other)
        assert all(reply.code == "ok" for reply in await put(local, 3000, 10))
        assert await get(local, 3005) == 3005


async def test_the_shortest_logs_are_read_first(tmp_path: Path) -> None:
    """At a start those nodes come first that have the least to read and to apply: a majority serves sooner."""
    async with running(tmp_path) as (local, _):
        behind = await leader(local) % 3 + 1
        local.cluster.stop(behind)
        await put(local, 0, 1500)
        lead = await leader(local)
        await eventually(lambda: len(list((tmp_path / f"node-{lead}").glob("*.log"))) > 2)
    async with running(tmp_path) as (_, sink):
        started = [record.node for record in sink.records if isinstance(record.event, NodeStarted)]
        assert started[0] == behind


async def test_a_snapshot_on_request_survives_a_restart(tmp_path: Path) -> None:
    """`snapshot N` takes one at once; a restart from it and the log behind it has every value."""
    async with running(tmp_path) as (local, _):
        await put(local, 0, 50)
        local.cluster.snapshot(2)
        await eventually(lambda: bool(list((tmp_path / "node-2").glob("*.snap"))))
        await put(local, 50, 50)
    async with running(tmp_path) as (local, _):
        assert [await get(local, number) for number in range(100)] == list(range(100))
        await eventually(lambda: is_converged(local))


async def test_a_data_directory_that_is_moved_away_stops_its_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within seconds the nodes stop and say why, and writes are refused at once; put back, they start again."""
    monkeypatch.setattr(disks, "PLACE_CHECKED_S", 0.05)
    path = tmp_path / "data"
    async with running(path) as (local, _):
        nodes = local.cluster.registry.nodes
        assert all(reply.code == "ok" for reply in await put(local, 0, 5))
        path.rename(tmp_path / "elsewhere")
        path.mkdir()
        await eventually(lambda: all(each.state is State.STOPPED for each in nodes.values()))
        assert all("was moved away" in each.reason for each in nodes.values())
        with trio.fail_after(WAIT_S / 2):
            replies = await put(local, 5, 5)
            answer = await local.store.read([Get("key1")], timeout_s=WAIT_S, is_stale=False, view=View())
        assert {reply.code for reply in (*replies, *answer.replies)} == {"unavailable"}
        assert "is not where it was" in replies[0].message
        assert not list(path.iterdir())
        path.rmdir()
        (tmp_path / "elsewhere").rename(path)
        for node in nodes:
            local.cluster.restart(node)
        await eventually(lambda: all(each.state is State.UP for each in nodes.values()))
        assert all(reply.code == "ok" for reply in await put(local, 5, 5))
        assert await get(local, 3) == 3


async def test_a_rebuild_that_the_disk_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the rebuild says that there is no room, and the node's directory is where it was."""
    path = tmp_path / "data"
    async with running(path) as (local, _):
        status = local.cluster.registry.nodes[2]
        await eventually(lambda: status.state is State.UP)
        local.cluster.stop(2)
        await eventually(lambda: status.state is State.STOPPED)
        before = sorted(file.name for file in path.iterdir())

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(data_directory, "make_node", full)
            with pytest.raises(FaultError, match="there is no room"):
                await local.cluster.rebuild(2)
        assert sorted(file.name for file in path.iterdir()) == before
        await local.cluster.rebuild(2)
        await eventually(lambda: status.state is State.UP and not (path / "node-2" / "rebuilding").exists())
