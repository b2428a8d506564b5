"""Watches of one connection: lines between replies, in what order, and at whose pace."""

import json
from typing import Any

import msgspec
import trio
import trio.testing

from tests.doubles import MemoryStore
from trio_kv.kv.operations.operation import Change
from trio_kv.proxy.books import HalfLines, UnsentReplies
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.connection import Connection
from trio_kv.proxy.meter import RequestMeter
from trio_kv.wire.replies import CLOSE_OK

WATCH = b'{"op":"watch","prefix":"a","id":1}\n'
BEGUN = {"id": 1, "status": "ok", "revision": 0}


class Stream:
    """A client that says what it is told to, and takes as many bytes as it is told to."""

    peer = "test"

    def __init__(self) -> None:
        self.data = b""
        self.room_bytes: float = float("inf")
        self.taken = bytearray()
        self._changed = trio.Event()
        self._is_ended = False

    async def wait_readable(self) -> None:
        while not self.data and not self._is_ended:
            await self._changed.wait()
        await trio.lowlevel.checkpoint()

    def watch(self, on_readable: object) -> bool:
        return False

    def unwatch(self) -> None:
        raise AssertionError("it was not watched")

    def receive_nowait(self) -> bytes | None:
        data, self.data = self.data, b""
        return data or (b"" if self._is_ended else None)

    def send_nowait(self, data: bytes | memoryview) -> int:
        size = int(min(len(data), self.room_bytes))
        self.room_bytes -= size
        self.taken += data[:size]
        return size

    async def send_some(self, data: memoryview) -> int:
        while not self.room_bytes:
            await self._changed.wait()
        await trio.lowlevel.checkpoint()
        return self.send_nowait(data)

    def change(self, *, data: bytes = b"", room_bytes: float = 0, is_ended: bool = False) -> None:
        self.data += data
        self.room_bytes += room_bytes
        self._is_ended |= is_ended
        self._changed.set()
        self._changed = trio.Event()

    async def send_eof(self) -> None:
        """Do nothing: the peer hears it from the test."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""


class Door:
    """One connection to a store in memory."""

    def __init__(self, nursery: trio.Nursery, *, watches_max: int = 1024) -> None:
        self.stream = Stream()
        self.store = MemoryStore()
        self.unsent = UnsentReplies(1 << 30)
        self.connection = Connection(
            self.stream,
            store=self.store,
            config=ProxyConfig(watches_max=watches_max),
            halves=HalfLines(1 << 20),
            unsent=self.unsent,
            meter=RequestMeter(),
            now=trio.current_time,
        )
        nursery.start_soon(self._serve)

    async def _serve(self) -> None:
        await self.connection.serve()
        await self.connection.aclose()

    async def say(self, *lines: bytes) -> list[dict[str, Any]]:
        """Send lines, and return what came."""
        self.stream.change(data=b"".join(lines))
        return await self.take()

    async def take(self) -> list[dict[str, Any]]:
        """Return the lines that came since the last call."""
        await trio.testing.wait_all_tasks_blocked(0.01)
        lines = bytes(self.stream.taken).splitlines()
        self.stream.taken.clear()
        return [json.loads(line) for line in lines]

    def set(self, *keys: str, size: int = 1) -> None:
        """Let keys be set in one revision."""
        value = msgspec.Raw(b'"' + b"1" * size + b'"')
        self.store.change(*[Change("set", key, value, self.store.applied + 1, 0) for key in keys])

    def end(self) -> None:
        self.stream.change(is_ended=True, room_bytes=float("inf"))


def told(line: dict[str, Any]) -> tuple[int, list[str]]:
    return line["revision"], [event["key"] for event in line["events"]]


async def test_a_watch_tells_one_line_a_revision(nursery: trio.Nursery) -> None:
    """Its keys in their order, and nothing of others."""
    door = Door(nursery)
    assert await door.say(WATCH) == [BEGUN]
    door.set("a1")
    door.set("b1")
    door.set("a3", "b2", "a2")
    door.store.change(Change("delete", "a1", None, 4, 1))
    door.store.change(Change("expire", "a2", None, 5, 3))
    lines = await door.take()
    assert [told(line) for line in lines] == [(1, ["a1"]), (3, ["a2", "a3"]), (4, ["a1"]), (5, ["a2"])]
    assert lines[0]["events"] == [{"event": "set", "key": "a1", "value": "1"}]
    assert lines[2]["events"] == [{"event": "delete", "key": "a1"}]
    assert lines[3]["events"] == [{"event": "expire", "key": "a2"}]
    door.end()


async def test_the_ok_comes_first(nursery: trio.Nursery) -> None:
    """Also in the midst of a pipeline, and also when all of the history is to be told at once."""
    door = Door(nursery)
    door.set("a")
    lines = await door.say(
        b'{"key":"b"}\n', b'{"op":"watch","prefix":"a","id":1,"from":1}\n', b'{"key":"a","value":2}\n'
    )
    assert [line.get("watch", line.get("id", line.get("key"))) for line in lines] == ["b", 1, "a", 1, 1]
    assert [line["revision"] for line in lines[3:]] == [1, 2]
    door.end()


async def test_nothing_comes_after_unwatch(nursery: trio.Nursery) -> None:
    """The id is free again then; and a watch that is ended in the breath in which it begins tells nothing."""
    door = Door(nursery)
    await door.say(WATCH)
    assert await door.say(b'{"op":"unwatch","id":1}\n') == [{"id": 1, "status": "ok"}]
    door.set("a")
    assert await door.take() == []
    both = await door.say(WATCH, b'{"op":"unwatch","id":1}\n', WATCH)
    assert both == [BEGUN | {"revision": 1}, {"id": 1, "status": "ok"}, BEGUN | {"revision": 1}]
    door.set("a")
    assert [told(line) for line in await door.take()] == [(2, ["a"])]
    assert len(door.store.watches) == 1
    door.end()


async def test_an_id_names_one_watch(nursery: trio.Nursery) -> None:
    """A second one of that name is refused, and so is the end of one that is not there."""
    door = Door(nursery, watches_max=2)
    lines = await door.say(WATCH, WATCH, b'{"op":"unwatch","id":2}\n')
    assert [line.get("error") for line in lines] == [None, "bad_request", "bad_request"]
    more = await door.say(WATCH.replace(b"1", b"2"), WATCH.replace(b"1", b"3"))
    assert [line.get("error") for line in more] == [None, "overloaded"]
    door.end()


async def test_two_watches_tell_a_revision_each(nursery: trio.Nursery) -> None:
    """Under their ids, which may be any JSON value."""
    door = Door(nursery)
    await door.say(WATCH, b'{"op":"watch","key":"ab","id":{"n": [2]}}\n')
    door.set("ab")
    assert [line["watch"] for line in await door.take()] == [1, {"n": [2]}]
    door.end()


async def test_a_slow_client_waits_at_its_place(nursery: trio.Nursery) -> None:
    """What it does not take is not even made; its requests are heard all the same."""
    door = Door(nursery)
    await door.say(WATCH)
    door.stream.room_bytes = 10
    for _ in range(20):
        door.set("a", size=50_000)
    (watch,) = door.store.watches
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert watch.drawn == 1
    assert door.unsent.total_bytes < 150_000
    door.stream.change(data=b'{"op":"ping"}\n')
    for _ in range(30):
        door.stream.change(room_bytes=50_000)
        await trio.testing.wait_all_tasks_blocked(0.001)
    lines = await door.take()
    assert [line["revision"] for line in lines if "watch" in line] == list(range(1, 21))
    assert {"status": "ok"} in lines[:10]
    door.end()


async def test_a_watch_that_is_lost_says_where_to_go_on(nursery: trio.Nursery) -> None:
    """It ends; the connection and its other watches go on, and the id is free."""
    door = Door(nursery)
    await door.say(WATCH, b'{"op":"watch","key":"a","id":2}\n')
    door.set("a")
    await door.take()
    door.store.watches[0].is_lost = True
    door.set("a")
    lines = await door.take()
    assert {"watch": 1, "event": "lost", "revision": 2} in lines
    assert [line["watch"] for line in lines if "events" in line] == [2]
    again = await door.say(WATCH.replace(b'"id"', b'"from":2,"id"'))
    assert [line["revision"] for line in again] == [2, 2]
    door.end()


async def test_a_connection_with_a_watch_is_not_idle(nursery: trio.Nursery) -> None:
    """As long as it has one."""
    door = Door(nursery)
    await door.say(b'{"op":"ping"}\n')
    idle = [door.connection.is_idle]
    await door.say(WATCH)
    idle.append(door.connection.is_idle)
    await door.say(b'{"op":"unwatch","id":1}\n')
    assert [*idle, door.connection.is_idle] == [True, False, True]
    door.end()


async def test_watches_end_with_their_connection(nursery: trio.Nursery) -> None:
    """However it ends; and nothing follows the last words."""
    door = Door(nursery)
    await door.say(WATCH)
    door.connection.retire(CLOSE_OK, "idle")
    door.set("a")
    door.end()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert bytes(door.stream.taken) == CLOSE_OK
    assert door.store.watches == []
