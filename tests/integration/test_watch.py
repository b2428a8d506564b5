"""Watches of a real cluster over real sockets: what is told while nodes die, and what a client makes of it."""

import json
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from trio_kv.client.client import Client
from trio_kv.client.errors import CompactedError
from trio_kv.client.following import Revision
from trio_kv.gateway.local import LocalCluster, open_cluster
from trio_kv.kv.operations import Set
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.server import Proxy
from trio_kv.trace.trace import Trace


@asynccontextmanager
async def serving(path: Path, port: int = 0) -> AsyncGenerator[tuple[LocalCluster, int]]:
    """Run a cluster and its door."""
    async with open_cluster(path, nodes=3, is_synced=False) as local, trio.open_nursery() as nursery:
        await local.cluster.wait_leader()
        proxy = Proxy(local.store, ProxyConfig(port=port, idle_timeout_s=0.3), Trace())
        port = await nursery.start(proxy.serve)
        yield local, port
        await proxy.stop()
        nursery.cancel_scope.cancel()


class Peer:
    """A client of the protocol."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = b""

    async def say(self, line: str) -> None:
        await self._stream.send_all(line.encode() + b"\n")

    async def line(self) -> dict[str, Any]:
        with trio.fail_after(20):
            while b"\n" not in self._received:
                self._received += await self._stream.receive_some()
        line, _, self._received = self._received.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


async def put(local: LocalCluster, key: str, number: int) -> None:
    while True:
        answer = await local.store.write([Set(key, msgspec.Raw(b"%d" % number))], timeout_s=5.0)
        if answer.replies[0].code == "ok":
            return


async def test_C2_a_watch_over_crashes_of_all_nodes(tmp_path: Path) -> None:
    """Each node dies once while others write: the watch tells every write, in order, and its connection stays."""
    async with serving(tmp_path) as (local, port), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        peer = Peer(stream)
        await peer.say('{"op":"watch","prefix":"k","id":"w","progress":0.5}')
        assert (await peer.line())["status"] == "ok"

        async def write() -> None:
            for number in range(60):
                await put(local, f"k{number % 7}", number)
                if number in (10, 25, 40):
                    local.cluster.faults.crash(1 + number // 15 % 3)

        told: list[int] = []
        revision = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            while len(told) < 60:
                line = await peer.line()
                assert line["watch"] == "w"
                assert line["revision"] >= revision + bool(line["events"])
                revision = line["revision"]
                told += [event["value"] for event in line["events"]]
        assert told == list(range(60))
        # It is silent for longer than the time-out for idle connections, and has a watch: progress is told twice.
        for _ in range(2):
            assert (await peer.line())["events"] == []
        await peer.say('{"op":"unwatch","id":"w"}')
        while (line := await peer.line()).get("id") != "w":
            assert line["events"] == []


async def test_the_client_goes_on_over_a_restart(tmp_path: Path) -> None:
    """Its iterator outlives the server: what was written before and after comes in one row."""
    found: list[Revision] = []
    async with serving(tmp_path) as (local, port):
        await put(local, "a", 0)
        client = Client(port=port)
        changes: Iterator[Revision] = client.watch("a", first=1)
        found.append(await trio.to_thread.run_sync(next, changes))
    is_over = threading.Event()

    def follow() -> None:
        while len(found) < 4:
            found.append(next(changes))
        is_over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, follow)
        async with serving(tmp_path, port) as (local, _):
            for number in range(1, 4):
                await put(local, "a", number)
            with trio.fail_after(20):
                await trio.to_thread.run_sync(is_over.wait, 15.0)
    assert [event.data for revision in found for event in revision.events] == [0, 1, 2, 3]
    assert all(revision.events[0].event == "set" for revision in found)


async def test_the_client_hears_that_history_is_gone(tmp_path: Path) -> None:
    """With the oldest revision to begin with: a snapshot has taken the place of what was before it."""
    async with serving(tmp_path) as (local, _):
        await put(local, "a", 0)
        for node in (1, 2, 3):
            local.cluster.snapshot(node)
            with trio.fail_after(20):
                while not list(tmp_path.glob(f"node-{node}/*.snap")):  # noqa: ASYNC110, ASYNC240 - a thread makes it
                    await trio.sleep(0.05)
    async with serving(tmp_path) as (local, port):
        with pytest.raises(CompactedError) as caught:
            await trio.to_thread.run_sync(next, Client(port=port).watch("a", first=1))
        assert caught.value.reply is not None
        assert (caught.value.reply.revision or 0) > 2
