"""One client's connection over a byte stream that is a fake: what it keeps, and when others have their turn."""

from collections.abc import Callable, Sequence

import msgspec
import pytest
import trio
import trio.testing

from trio_kv.gateway.calls import AwaitedCalls
from trio_kv.gateway.store import Answer, OnAnswer, View
from trio_kv.kv.operations import AnyQuery
from trio_kv.kv.reply import Reply
from trio_kv.proxy.books import HalfLines, UnsentReplies
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.connection import Connection
from trio_kv.proxy.meter import RequestMeter
from trio_kv.proxy.session import REPLY_BYTES_MAX
from trio_kv.proxy.stream import CHUNK_BYTES_MAX, ByteStream
from trio_kv.wire.client_sessions import AnyAsked
from trio_kv.wire.operations import Request
from trio_kv.wire.replies import CLOSE_SHUTDOWN
from trio_kv.wire.requests import parse_line


class Stream:
    """A byte stream that has some bytes to give, and takes as many as it is told to."""

    peer = "test"

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.is_silent = False
        """Whether it has nothing to give, but no end either."""
        self.room_bytes: float = 0
        self.taken = bytearray()
        self.largest_send_bytes = 0
        self.changed = trio.Event()

    async def wait_readable(self) -> None:
        while self.is_silent and not self.data:
            await self.changed.wait()
        await trio.lowlevel.checkpoint()

    def watch(self, on_readable: Callable[[], object]) -> bool:
        return False

    def unwatch(self) -> None:
        raise AssertionError("it was not watched")

    def receive_nowait(self) -> bytes | None:
        if self.is_silent and not self.data:
            return None
        data, self.data = self.data[:CHUNK_BYTES_MAX], self.data[CHUNK_BYTES_MAX:]
        return data

    def send_nowait(self, data: bytes | memoryview) -> int:
        self.largest_send_bytes = max(self.largest_send_bytes, len(data))
        size = int(min(len(data), self.room_bytes))
        self.room_bytes -= size
        self.taken += data[:size]
        return size

    async def send_some(self, data: memoryview) -> int:
        if not self.room_bytes:
            await self.changed.wait()
        else:
            await trio.lowlevel.checkpoint()
        return self.send_nowait(data)

    def take(self, room_bytes: float) -> None:
        """Let it take more."""
        self.room_bytes += room_bytes
        self._change()

    def give(self, data: bytes) -> None:
        """Let it have more."""
        self.data += data
        self._change()

    def end(self) -> None:
        """Let it have an end."""
        self.is_silent = False
        self._change()

    def _change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def send_eof(self) -> None:
        """Do nothing: the peer hears it from the test."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""


class Store(AwaitedCalls):
    """Gives every key the same large value, at once."""

    value = msgspec.Raw(b'"' + b"v" * 100_000 + b'"')

    def start_write(self, operations: Sequence[AnyAsked], *, timeout_s: float, done: OnAnswer) -> Answer:
        return Answer([Reply("ok")] * len(operations))

    def start_read(
        self, queries: Sequence[AnyQuery], *, timeout_s: float, is_stale: bool, view: View, done: OnAnswer
    ) -> Answer:
        return Answer([Reply("ok", self.value, 1)] * len(queries))

    def status(self) -> dict[str, object]:
        return {"leader": 1}


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


def connect(
    stream: ByteStream, *, unsent: UnsentReplies | None = None, halves: HalfLines | None = None
) -> Connection:
    return Connection(
        stream,
        store=Store(),
        config=ProxyConfig(),
        halves=halves or HalfLines(1 << 20),
        unsent=unsent or UnsentReplies(1 << 30),
        meter=RequestMeter(),
        now=trio.current_time,
    )


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Lines that were decoded so far."""
    lines: list[bytes] = []

    def parse(line: bytes) -> Request:
        lines.append(line)
        return parse_line(line)

    monkeypatch.setattr("trio_kv.proxy.decoding.parse_line", parse)
    return lines


async def test_error_replies_wait_for_the_client(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, decoded: list[bytes]
) -> None:
    """64 KiB of two-byte lines are worth 6 MB of replies: the client has to take some before there are more of them."""
    stream = Stream(b"x\n" * (CHUNK_BYTES_MAX // 2))
    connection = connect(stream)
    nursery.start_soon(connection.serve)
    await trio.testing.wait_all_tasks_blocked()
    reply_bytes = stream.largest_send_bytes // len(decoded)
    assert reply_bytes > 100
    seen = []
    while len(decoded) < CHUNK_BYTES_MAX // 2:
        waiting_bytes = len(decoded) * reply_bytes - len(stream.taken)
        assert waiting_bytes < 2 * REPLY_BYTES_MAX
        seen.append(waiting_bytes)
        stream.take(REPLY_BYTES_MAX / 2)
        await trio.testing.wait_all_tasks_blocked()
    assert len(seen) > 20
    stream.take(float("inf"))
    await trio.testing.wait_all_tasks_blocked()
    assert stream.taken.count(b"\n") == CHUNK_BYTES_MAX // 2


@pytest.mark.parametrize(
    ("line", "count", "turns_min"),
    [
        (b'{"op":"status"}', 4_096, 500),
        (b'{"op":"ping"}', 4_096, 10),
        (b"x", 4_096, 200),
        (b'{"key":"k","vaule":[' + b"1," * 4_000 + b"1]}", 100, 100),
        (b'{"key":"k"}', 100, 30),
    ],
    ids=["status", "ping", "bad line", "long bad line", "get of 100 kB"],
)
async def test_others_have_their_turn(nursery: trio.Nursery, line: bytes, count: int, turns_min: int) -> None:
    """However much one chunk asks for, and however fast its client takes the replies, others go on meanwhile."""
    stream = Stream((line + b"\n") * count)
    stream.take(float("inf"))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    nursery.start_soon(other)
    connection = connect(stream)
    await connection.serve()
    assert stream.taken.count(b"\n") == count
    assert turns >= turns_min
    nursery.cancel_scope.cancel()


async def test_a_stop_answers_what_was_not_even_decoded(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, decoded: list[bytes]
) -> None:
    """A connection that is stopped amid a chunk owes a reply to each of its lines, and gives them in order."""
    lines = [b"x"] * 4_000 + [b'{"key":"a"}', b'{"key":"b","value":1}', b'{"op":"ping"}', b"y"]
    stream = Stream(b"\n".join(lines) + b"\n")
    connection = connect(stream)
    nursery.start_soon(connection.serve)
    await trio.testing.wait_all_tasks_blocked()
    assert 0 < len(decoded) < 3_000
    connection.stop(trio.current_time() + 1.0)
    await trio.sleep(1.1)
    stream.take(float("inf"))
    await trio.testing.wait_all_tasks_blocked()
    replies = stream.taken.splitlines(keepends=True)
    assert len(replies) == len(lines) + 1
    codes = [msgspec.json.decode(reply).get("error") for reply in replies[-5:-1]]
    assert codes == ["unavailable", "unavailable", None, "bad_request"]
    assert replies[-1] == CLOSE_SHUTDOWN


async def test_replies_that_nobody_takes_are_limited_over_all_connections(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Of clients that ask for large values and leave them where they are, those that began first are dropped."""
    unsent = UnsentReplies(350_000)
    streams = [Stream(b'{"key":"k"}\n') for _ in range(5)]
    connections = [connect(stream, unsent=unsent) for stream in streams]
    for connection in connections:
        nursery.start_soon(connection.serve)
        await trio.testing.wait_all_tasks_blocked()
        assert unsent.total_bytes <= 350_000
    assert ["too many others" in each.session.reason for each in connections] == [
        True,
        True,
        False,
        False,
        False,
    ]
    for stream in streams:
        stream.take(float("inf"))
    await trio.testing.wait_all_tasks_blocked()
    assert [stream.taken.count(b"\n") for stream in streams] == [0, 0, 1, 1, 1]
    assert unsent.total_bytes == 0


async def test_a_reply_that_is_larger_than_all_may_be_drops_its_client(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A client that is dropped before it waited is dropped all the same."""
    unsent = UnsentReplies(1_000)
    connection = connect(Stream(b'{"key":"k"}\n'), unsent=unsent)
    await connection.serve()
    assert "too many others" in connection.session.reason
    await connection.aclose()
    assert unsent.total_bytes == 0


async def test_who_is_evicted_gets_what_it_asked_for(nursery: trio.Nursery) -> None:
    """Whole lines before the half line that is one too many are answered; the half line is told `overloaded`."""
    stream = Stream(b'{"key":"a"}\n{"key":"b"' + b" " * 20)
    stream.is_silent = True
    stream.take(float("inf"))
    connection = connect(stream, halves=HalfLines(10))
    nursery.start_soon(connection.serve)
    await trio.testing.wait_all_tasks_blocked(0.01)
    first, second = stream.taken.splitlines()
    assert msgspec.json.decode(first)["status"] == "ok"
    assert msgspec.json.decode(second)["error"] == "overloaded"
    stream.end()
