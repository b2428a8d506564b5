"""Claims about disks that hang on a live cluster: neither an answer nor an error, and a thread that nobody can end."""

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from tests.doubles import MemorySink
from trio_kv.cluster import backup, hangs, loading, supervisor
from trio_kv.cluster import cluster as cluster_module
from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.members import FaultError
from trio_kv.gateway.local import LocalCluster, open_cluster
from trio_kv.gateway.store import View
from trio_kv.kv.operations import Get, Set
from trio_kv.storage.errors import LockedError
from trio_kv.storage.files import RealFiles
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import DiskHung, DiskMoved, NodeStarted, RebuildStarted
from trio_kv.wire.node_status import State

WAIT_S = 30.0
ENDED_S = 5.0
CONFIG = ClusterConfig(restart_delay_min_s=0.1)
HANGING = ("read", "write", "create", "sync")
"""What of a disk hangs: all that goes to it but names."""


class Disk:
    """Stands before all disks of a process, and lets that of one node hang."""

    def __init__(self) -> None:
        self.node = 0
        self.waiting = 0
        """Threads that wait for the disk that hangs."""
        self._moving = threading.Event()

    def hang(self, node: int) -> None:
        """From now on whoever goes to this node's disk waits."""
        self._moving.clear()
        self.node = node

    def move(self) -> None:
        """Let everybody go on who waits."""
        self.node = 0
        self._moving.set()

    def pass_by(self, files: RealFiles) -> None:
        """Called before each step."""
        if self.node and f"node-{self.node}" in files.location(""):
            self.waiting += 1
            self._moving.wait()
            self.waiting -= 1


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Disks that may hang; those who wait for them lose their patience soon."""
    disk = Disk()

    def patch(name: str) -> None:
        real = getattr(RealFiles, name)

        def step(self: RealFiles, *arguments: Any) -> Any:
            disk.pass_by(self)
            return real(self, *arguments)

        monkeypatch.setattr(RealFiles, name, step)

    for name in HANGING:
        patch(name)
    monkeypatch.setattr(loading, "LOAD_LEASE_S", 0.3)
    monkeypatch.setattr(supervisor, "WATCHED_S", 0.05)
    for module in (hangs, supervisor):
        monkeypatch.setattr(module, "HUNG_S", 0.3)
    yield disk
    disk.move()


async def eventually(condition: Any) -> None:
    with trio.move_on_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what a person would watch is polled, not signalled
            await trio.sleep(0.01)
    assert condition()


async def serve(local: LocalCluster, number: int) -> None:
    """Write, and read what was written."""
    write = Set(key="key", value=msgspec.Raw(b"%d" % number))
    (reply,) = (await local.store.write([write], timeout_s=WAIT_S)).replies
    assert reply.code == "ok"
    answer = await local.store.read([Get("key")], timeout_s=WAIT_S, is_stale=False, view=View())
    assert bytes(answer.replies[0].value) == b"%d" % number  # type: ignore[arg-type]


def state(local: LocalCluster, node: int) -> tuple[str, str]:
    """Return a node's state and what is told of it."""
    rows: Any = local.cluster.status()["nodes"]
    row = next(row for row in rows if row["node"] == node)
    return row["state"], row.get("reason", "")


@contextlib.asynccontextmanager
async def running(path: Path, down: int = 0) -> AsyncIterator[tuple[LocalCluster, MemorySink]]:
    """Run three nodes, all of which are up but one."""
    sink = MemorySink()
    async with open_cluster(path, nodes=3, config=CONFIG, trace=Trace([sink])) as local:
        with trio.fail_after(WAIT_S):
            await local.cluster.wait_leader()
        nodes = [node for node in (1, 2, 3) if node != down]
        await eventually(lambda: all(state(local, node)[0] == "up" for node in nodes))
        yield local, sink


@pytest.mark.parametrize("node", [1, 2, 3])
async def test_a_disk_that_hangs_at_the_start_keeps_no_other_node_from_starting(
    node: int, tmp_path: Path, disk: Disk
) -> None:
    """The others are read, elect and serve; what is the matter is told; when the disk moves its node starts."""
    async with running(tmp_path) as (local, _):
        await serve(local, 1)
    disk.hang(node)
    async with running(tmp_path, down=node) as (local, sink):
        await serve(local, 2)
        await eventually(lambda: "hangs" in state(local, node)[1])
        assert not local.cluster.is_loading, "nobody has to wait for it"
        for command in (local.cluster.restart, local.cluster.faults.crash):
            with pytest.raises(FaultError, match="its disk hangs"):
                command(node)
        with pytest.raises(FaultError, match="its disk hangs"):
            await local.cluster.rebuild(node)
        disk.move()
        await eventually(lambda: state(local, node) == ("up", ""))
        assert {event.for_s >= 0.3 for event in sink.events(DiskHung)} == {True}
        await eventually(lambda: sink.events(DiskMoved))


async def test_a_node_is_started_again_only_when_its_disk_has_ended(tmp_path: Path, disk: Disk) -> None:
    """Its thread may write when the disk moves: a new life beside it would find its files changed. The others serve."""
    async with running(tmp_path) as (local, sink):
        node = local.cluster.registry.readable()[0].status.node
        disk.hang(node)
        await serve(local, 1)
        await eventually(lambda: disk.waiting)
        await eventually(lambda: "its disk hangs: it stores nothing" in state(local, node)[1])
        started = len(sink.events(NodeStarted))
        local.cluster.faults.crash(node)
        await eventually(lambda: "starts again when what was begun is done" in state(local, node)[1])
        assert state(local, node)[0] == State.STOPPED
        with pytest.raises(FaultError, match="starts by itself as soon as it can: its disk hangs"):
            local.cluster.restart(node)
        await serve(local, 2)
        assert len(sink.events(NodeStarted)) == started
        disk.move()
        await eventually(lambda: state(local, node) == ("up", ""))
        assert len(sink.events(NodeStarted)) == started + 1


async def test_a_node_whose_disk_hangs_can_be_stopped(tmp_path: Path, disk: Disk) -> None:
    """It stays down when its disk moves again, also when it was only being read."""
    async with running(tmp_path) as (local, _):
        pass
    disk.hang(2)
    async with running(tmp_path, down=2) as (local, _):
        local.cluster.stop(2)
        await eventually(lambda: "the node is stopped when" in state(local, 2)[1])
        disk.move()
        await eventually(lambda: state(local, 2) == (State.STOPPED, "asked to stop"))
        local.cluster.restart(2)
        await eventually(lambda: state(local, 2) == ("up", ""))


async def test_the_end_does_not_wait_for_a_disk_that_hangs(tmp_path: Path, disk: Disk) -> None:
    """It ends in time, and keeps the lock: the thread that was left behind may write as long as the process lives."""
    async with running(tmp_path) as (local, _):
        node = local.cluster.registry.readable()[0].status.node
        disk.hang(node)
        await serve(local, 1)
        await eventually(lambda: disk.waiting)
        ends_at = trio.current_time()
    assert trio.current_time() - ends_at < ENDED_S
    assert local.cluster.is_disk_abandoned
    with pytest.raises(LockedError):
        async with open_cluster(tmp_path):
            pass
    disk.move()


async def test_the_end_waits_for_a_disk_that_works(tmp_path: Path, disk: Disk) -> None:
    """What was begun is done, and the directory can be used at once."""
    for number in range(3):
        async with running(tmp_path) as (local, _):
            await serve(local, number)
        assert not local.cluster.is_disk_abandoned


async def test_a_rebuild_that_meets_a_disk_that_hangs_answers_and_goes_on(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ends with a word; what it began is ended when the disk moves, and not left half done."""
    monkeypatch.setattr(cluster_module, "REBUILD_S", 0.2)
    async with running(tmp_path) as (local, sink):
        await serve(local, 1)
        local.cluster.stop(2)
        await eventually(
            lambda: state(local, 2)[0] == State.STOPPED and state(local, 2)[1] == "asked to stop"
        )
        disk.hang(2)
        with pytest.raises(FaultError, match="goes on by itself"):
            await local.cluster.rebuild(2)
        with pytest.raises(FaultError, match="being rebuilt already"):
            await local.cluster.rebuild(2)
        assert not sink.events(RebuildStarted)
        disk.move()
        await eventually(lambda: state(local, 2) == ("up", ""))
        assert len(sink.events(RebuildStarted)) == 1


async def test_a_backup_is_taken_from_a_node_whose_disk_works(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that takes the order for a snapshot and gets nowhere is not the only one that is asked."""
    monkeypatch.setattr(backup, "SNAPSHOT_PATIENCE_S", 0.3)
    async with running(tmp_path) as (local, _):
        await serve(local, 1)
        disk.hang(local.cluster.registry.readable()[0].status.node)
        made = await local.cluster.backup()
        assert f"node-{disk.node}" not in str(made["path"])
        assert await trio.Path(str(made["path"])).exists()
        disk.move()
