"""Scenario D12 on real file systems, each of which keeps reserved room in another way: full, copied, started anew.

They are made in files and mounted, which takes root; elsewhere these tests are skipped.
"""

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from trio_kv.cluster.config import ClusterConfig
from trio_kv.control.config import ControlConfig
from trio_kv.control.server import ControlDoor
from trio_kv.gateway.local import LocalCluster, open_cluster
from trio_kv.gateway.store import View
from trio_kv.kv.operations import Get, Set
from trio_kv.kv.reply import Reply
from trio_kv.raft.config import RaftConfig
from trio_kv.trace.trace import Trace

SIZES_MIB = {"ext4": 48, "xfs": 300, "btrfs": 220, "tmpfs": 24}
"""About as small as each can be."""
NODES = 3
SEGMENT_BYTES = 1 << 17
WAIT_S = 60.0
BACK_S = 15.0
"""With room again, writes go on within this time."""
CONFIG = ClusterConfig(
    raft=RaftConfig(heartbeat_interval_s=0.1, election_timeout_min_s=0.6, election_timeout_max_s=1.2)
)


@pytest.fixture(params=[*SIZES_MIB])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small file system of each kind."""
    kind: str = request.param
    image, path = tmp_path / "image", tmp_path / "disk"
    path.mkdir()
    source = ["-t", "tmpfs", "-o", f"size={SIZES_MIB[kind]}m", "none"]
    try:
        if kind != "tmpfs":
            with image.open("wb") as file:
                file.truncate(SIZES_MIB[kind] << 20)
            subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True)
            source = ["-o", "loop", str(image)]
        subprocess.run(["mount", *source, str(path)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no {kind} can be mounted here: {error}")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def fill(disk: Path) -> None:
    """Take all the room that there is, to the last block."""
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1 << 9):
            try:
                while True:
                    file.write(b"x" * size)
                    os.fsync(file.fileno())
            except OSError:
                pass


@asynccontextmanager
async def open_door(local: LocalCluster, data: Path) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        door = ControlDoor(local.cluster, ControlConfig(port=0, data_dir=data), Trace())
        await nursery.start(door.serve)
        yield
        door.stop()


async def put(local: LocalCluster, key: str, timeout_s: float) -> Reply:
    request = Set(key=key, value=msgspec.Raw(b'"' + b"v" * 1000 + b'"'))
    return (await local.store.write([request], timeout_s=timeout_s)).replies[0]


async def get(local: LocalCluster, *keys: str) -> set[str]:
    answer = await local.store.read([Get(key) for key in keys], timeout_s=WAIT_S, is_stale=False, view=View())
    return {reply.code for reply in answer.replies}


def states(local: LocalCluster) -> set[str]:
    status: Any = local.cluster.status()
    return {row["state"] for row in status["nodes"]}


async def write_until_refused(local: LocalCluster) -> tuple[str, int]:
    """Write as long as that is possible; return how it was refused, and how much was written before."""
    for number in range(SEGMENT_BYTES // 250):
        reply = await put(local, f"full{number}", WAIT_S)
        if reply.code != "ok":
            return reply.code, number
    return "never", 0


async def test_D12_a_full_file_system_is_read_only_whatever_it_does_with_reserved_room(disk: Path) -> None:
    """Somebody copies the data, which on some file systems takes the room that the log holds; then the disk fills up.

    No write is lost or left in doubt, reads go on, all nodes stay up. So they do when the server is started on the full
    disk, where the place of its control door can't be noted yet. With room again all goes on.
    """
    data = disk / "data"
    options: dict[str, Any] = {"nodes": NODES, "segment_bytes": SEGMENT_BYTES, "config": CONFIG}
    async with open_cluster(data, **options) as local:
        assert (await put(local, "before", WAIT_S)).code == "ok"
        await trio.run_process(["cp", "-r", str(data), str(disk / "copy")])
        fill(disk)
        refused, written = await write_until_refused(local)
        assert (refused, await get(local, "before"), states(local)) == ("read_only", {"ok"}, {"up"})
    fill(disk)
    async with open_cluster(data, **options) as local, open_door(local, data):
        assert await get(local, "before", *(f"full{number}" for number in range(written))) == {"ok"}
        # Some file systems give back a little room in the background.
        refused, _ = await write_until_refused(local)
        assert (refused, await get(local, "before"), states(local)) == ("read_only", {"ok"}, {"up"})
        (disk / "filler").unlink()
        with trio.fail_after(BACK_S):
            while (await put(local, "after", BACK_S)).code != "ok":  # noqa: ASYNC110 - as a client would try
                await trio.sleep(0.05)
            while not (data / "control.json").exists():  # noqa: ASYNC110 - as a client would find it
                await trio.sleep(0.05)
        assert states(local) == {"up"}
