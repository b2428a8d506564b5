"""Claims about the tools on a cluster that runs: backup under load, restore, and rebuilding a node."""

import json
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from trio_kv.cli.main import main
from trio_kv.cluster.config import ClusterConfig
from trio_kv.control.config import ControlConfig
from trio_kv.control.server import ControlDoor
from trio_kv.gateway.drawn import Selector
from trio_kv.gateway.local import LocalCluster, open_cluster
from trio_kv.gateway.store import Answer, View, Watch
from trio_kv.kv.operations import Get, Set
from trio_kv.trace.trace import Trace

WAIT_S = 20.0
CONFIG = ClusterConfig(restart_delay_min_s=0.1)
SEGMENT_BYTES = 1 << 16


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DATA_DIR", "NODES", "OUTPUT", "TIMEOUT", "CONTROL_PORT"):
        monkeypatch.delenv(f"TRIO_KV_{name}", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@asynccontextmanager
async def serving(path: Path, nodes: int | None = None) -> AsyncGenerator[LocalCluster]:
    """Run a cluster and its control door."""
    trace = Trace()
    async with (
        open_cluster(
            path, nodes=nodes, config=CONFIG, segment_bytes=SEGMENT_BYTES, is_synced=False, trace=trace
        ) as local,
        trio.open_nursery() as nursery,
    ):
        door = ControlDoor(local.cluster, ControlConfig(port=0, data_dir=path), trace)
        await nursery.start(door.serve)
        with trio.fail_after(WAIT_S):
            await local.cluster.wait_leader()
        yield local
        door.stop()


async def run(*tokens: object) -> int:
    """Carry out a command line, as another process would."""
    return await trio.to_thread.run_sync(main, [str(token) for token in tokens])


async def put(local: LocalCluster, key: str, value: object) -> int:
    """Write a key; return its revision."""
    request = Set(key=key, value=msgspec.Raw(msgspec.json.encode(value)))
    reply = (await local.store.write([request], timeout_s=WAIT_S)).replies[0]
    assert reply.code == "ok", reply
    return reply.revision


async def get_all(local: LocalCluster, keys: list[str]) -> dict[str, Any]:
    answer = await local.store.read([Get(key) for key in keys], timeout_s=WAIT_S, is_stale=False, view=View())
    return {
        key: None if reply.value is None else msgspec.json.decode(reply.value)
        for key, reply in zip(keys, answer.replies, strict=True)
    }


def rows(local: LocalCluster) -> dict[int, dict[str, Any]]:
    status: Any = local.cluster.status()
    return {row["node"]: row for row in status["nodes"]}


async def eventually(condition: Callable[[], bool]) -> None:
    with trio.fail_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what a person would watch is polled, not signalled
            await trio.sleep(0.01)


def is_converged(local: LocalCluster) -> bool:
    """Return whether all nodes are up and have applied the same, to the same effect."""
    return len({(row["state"], row["applied"], row["digest"]) for row in rows(local).values()}) == 1


async def test_a_backup_under_load_holds_every_write_acknowledged_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Restored, each of some backups has what was acknowledged when it began, on all nodes, and goes on from there."""
    acknowledged: dict[str, int] = {}
    count, is_stopping = 0, False

    async def write(local: LocalCluster, client: int) -> None:
        nonlocal count
        while not is_stopping:
            count += 1
            key, value = f"key{client}-{count % 50}", count
            await put(local, key, value)
            acknowledged[key] = value

    promised: list[dict[str, int]] = []
    async with serving(tmp_path / "old", 3) as local, trio.open_nursery() as nursery:
        for client in range(8):
            nursery.start_soon(write, local, client)
        for number in range(4):
            target = count + 300
            await eventually(partial(lambda target: count >= target, target))
            promised.append(dict(acknowledged))
            backup = tmp_path / f"{number}.snap"
            assert await run("backup", backup, "--data-dir", tmp_path / "old", "-o", "json") == 0
        is_stopping = True
    indexes = [json.loads(line)["index"] for line in capsys.readouterr().out.splitlines()]
    assert sorted(set(indexes)) == indexes, "each backup goes further than the one before"
    for number in (0, 3):
        new, expected = tmp_path / f"new{number}", promised[number]
        assert await run("restore", tmp_path / f"{number}.snap", "--data-dir", new, "--nodes", 5) == 0
        async with serving(new) as restored:
            found = await get_all(restored, sorted(expected))
            # A client's values only grow, so a later one means that this one was there.
            assert all(found[key] >= value for key, value in expected.items())
            assert await put(restored, "more", 1) > indexes[number]
            await eventually(partial(is_converged, restored))
            assert len(rows(restored)) == 5


async def test_a_restored_cluster_is_like_any_other(tmp_path: Path) -> None:
    """It survives a restart, a crash of its leader, and can be backed up and restored again."""
    async with serving(tmp_path / "a", 1) as local:
        await put(local, "key", "value")
        assert await run("backup", tmp_path / "1.snap", "--data-dir", tmp_path / "a") == 0
    assert await run("restore", tmp_path / "1.snap", "--data-dir", tmp_path / "b", "--nodes", 3) == 0
    for number in range(2):
        async with serving(tmp_path / "b") as local:
            await put(local, f"more{number}", number)
            local.cluster.faults.crash(await local.cluster.wait_leader())
            await put(local, f"again{number}", number)
    async with serving(tmp_path / "b") as local:
        assert await run("backup", tmp_path / "2.snap", "--data-dir", tmp_path / "b") == 0
    assert await run("restore", tmp_path / "2.snap", "--data-dir", tmp_path / "c", "--nodes", 5) == 0
    async with serving(tmp_path / "c") as local:
        keys = ["again0", "again1", "key", "more0", "more1"]
        expected = {"again0": 0, "again1": 1, "key": "value", "more0": 0, "more1": 1}
        assert await get_all(local, keys) == expected


async def test_when_a_majority_is_lost_a_nodes_snapshot_is_the_way_out(tmp_path: Path) -> None:
    """Two of three directories gone: no rebuild is possible, but what the third one's snapshot holds is restored."""
    async with serving(tmp_path / "old", 3) as local:
        await put(local, "key", "value")
        assert await run("ctl", "snapshot", 3, "--data-dir", tmp_path / "old") == 0
        await eventually(lambda: any((tmp_path / "old" / "node-3").glob("*.snap")))
    for node in (1, 2):
        shutil.rmtree(tmp_path / "old" / f"node-{node}")
    assert await run("rebuild", 1, "--data-dir", tmp_path / "old") == 1
    (snapshot,) = (tmp_path / "old" / "node-3").glob("*.snap")
    assert await run("restore", snapshot, "--data-dir", tmp_path / "new", "--nodes", 3) == 0
    async with serving(tmp_path / "new") as local:
        assert await get_all(local, ["key"]) == {"key": "value"}


async def test_rebuild_of_a_node_through_the_door(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A node whose directory went is filled by the others while they serve; a node that runs is refused."""
    path = tmp_path / "data"
    async with serving(path, 3) as local:
        await put(local, "key", "value")
        assert await run("ctl", "rebuild", 2, "--data-dir", path) == 1
        assert "stop it first" in capsys.readouterr().err
        assert await run("ctl", "stop", 2, "--data-dir", path) == 0
        await eventually(lambda: rows(local)[2]["state"] == "stopped")
        await put(local, "more", "value")
        capsys.readouterr()
        assert await run("ctl", "rebuild", 2, "--data-dir", path) == 0
        (aside,) = path.glob("node-2.replaced-*")
        assert str(aside) in capsys.readouterr().out
        await eventually(partial(is_converged, local))
        await eventually(lambda: not (path / "node-2" / "rebuilding").exists())


async def test_rebuild_of_a_node_while_the_server_is_down(tmp_path: Path) -> None:
    """After `rebuild N` the next start fills the node, by a snapshot when the log is gone; then it counts again."""
    path = tmp_path / "data"
    async with serving(path, 3) as local:
        for number in range(20):
            await put(local, f"key{number}", "x" * 10_000)
        for node in (1, 2, 3):
            assert await run("ctl", "snapshot", node, "--data-dir", path) == 0
        await eventually(lambda: len(list(path.glob("node-*/*.snap"))) == 3)
        assert await run("rebuild", 2, "--data-dir", path) == 1, "the server runs"
    shutil.rmtree(path / "node-2")
    assert await run("rebuild", 2, "--data-dir", path) == 0
    assert (path / "node-2" / "rebuilding").exists()
    async with serving(path) as local:
        await eventually(partial(is_converged, local))
        await eventually(lambda: not (path / "node-2" / "rebuilding").exists())
        # It counts again: without another node it is part of the majority.
        local.cluster.stop(1)
        await put(local, "after", "value")


async def test_a_watch_from_before_a_restore_hears_compacted(tmp_path: Path) -> None:
    """Not silence, and not another history under the same revisions; nor does a condition on an old revision hold."""
    async with serving(tmp_path / "old", 3) as local:
        await put(local, "key", "value")
        assert await run("backup", tmp_path / "1.snap", "--data-dir", tmp_path / "old") == 0
        # Acknowledged, and in no backup.
        last = max([await put(local, "more", number) for number in range(5)])
    assert await run("restore", tmp_path / "1.snap", "--data-dir", tmp_path / "new", "--nodes", 3) == 0
    async with serving(tmp_path / "new") as local:
        answer, _ = await begin_watch(local, first=last + 1)
        assert answer.replies[0].code == "compacted"
        oldest = answer.replies[0].revision
        assert oldest > last + 900_000_000
        answer, watch = await begin_watch(local, first=oldest)
        assert (answer.replies[0].code, watch is not None) == ("ok", True)


async def begin_watch(local: LocalCluster, first: int) -> tuple[Answer, Watch | None]:
    """Begin to watch all keys; return the answer, and the watch if there is one."""
    answers: list[Answer] = []
    begun = trio.Event()

    def done(answer: Answer) -> None:
        answers.append(answer)
        begun.set()

    call = local.store.start_watch(
        Selector("", is_prefix=True),
        first=first,
        progress_s=float("inf"),
        timeout_s=5.0,
        on_more=lambda: None,
        done=done,
    )
    assert not isinstance(call, Answer)
    with trio.fail_after(30):
        await begun.wait()
    return answers[0], call.watch
