"""One client's connection over a socket that is a fake: what it keeps, and when others have their turn."""

from collections.abc import Sequence

import msgspec
import pytest
import trio
import trio.testing

from trio_kv.gateway.store import Answer, View
from trio_kv.kv.operations import AnyQuery, AnyWrite
from trio_kv.kv.reply import Reply
from trio_kv.proxy.books import HalfLines, UnsentReplies
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.connection import CHUNK_BYTES_MAX, REPLY_BYTES_MAX, Connection
from trio_kv.proxy.sockets import Listener
from trio_kv.wire.requests import CLOSE_SHUTDOWN, Request, parse_line


class Socket:
    """A socket that has some bytes to give, and takes as many as it is told to."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.room_bytes: float = 0
        self.taken = bytearray()
        self.largest_send_bytes = 0
        self.changed = trio.Event()

    def fileno(self) -> int:
        return 3

    def recv(self, bufsize: int, /) -> bytes:
        data, self.data = self.data[:bufsize], self.data[bufsize:]
        return data

    def send(self, data: bytes | memoryview, /) -> int:
        self.largest_send_bytes = max(self.largest_send_bytes, len(data))
        if not self.room_bytes and len(data):
            raise BlockingIOError
        size = int(min(len(data), self.room_bytes))
        self.room_bytes -= size
        self.taken += data[:size]
        return size

    def take(self, room_bytes: float) -> None:
        """Let it take more."""
        self.room_bytes += room_bytes
        self.changed.set()
        self.changed = trio.Event()

    def shutdown(self, how: int, /) -> None:
        """Do nothing: the peer hears it from the test."""

    def setblocking(self, flag: bool, /) -> None:
        """Do nothing: it never blocks."""

    def setsockopt(self, level: int, optname: int, value: int, /) -> None:
        """Do nothing: it has no options."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class Sockets:
    """Waits for that one socket."""

    def __init__(self, sock: Socket) -> None:
        self.sock = sock

    async def open_listeners(self, host: str, port: int) -> list[Listener]:
        raise NotImplementedError

    async def wait_readable(self, descriptor: int, /) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_writable(self, descriptor: int, /) -> None:
        if not self.sock.room_bytes:
            await self.sock.changed.wait()
        else:
            await trio.lowlevel.checkpoint()

    def notify_closing(self, descriptor: int, /) -> None:
        """Do nothing: nobody waits for it then."""


class Store:
    """Gives every key the same large value, at once."""

    value = msgspec.Raw(b'"' + b"v" * 100_000 + b'"')

    async def write(self, operations: Sequence[AnyWrite], *, timeout_s: float) -> Answer:
        return Answer([Reply("ok")] * len(operations))

    async def read(
        self, queries: Sequence[AnyQuery], *, timeout_s: float, is_stale: bool, view: View
    ) -> Answer:
        return Answer([Reply("ok", self.value, 1)] * len(queries))

    def status(self) -> dict[str, object]:
        return {"leader": 1}


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


def connect(sock: Socket, unsent: UnsentReplies | None = None) -> Connection:
    return Connection(
        sock,
        sockets=Sockets(sock),
        store=Store(),
        config=ProxyConfig(),
        halves=HalfLines(1 << 20),
        unsent=unsent or UnsentReplies(1 << 30),
        now=trio.current_time,
    )


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Lines that were decoded so far."""
    lines: list[bytes] = []

    def parse(line: bytes) -> Request:
        lines.append(line)
        return parse_line(line)

    monkeypatch.setattr("trio_kv.proxy.connection.parse_line", parse)
    return lines


async def test_error_replies_wait_for_the_client(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, decoded: list[bytes]
) -> None:
    """64 KiB of two-byte lines are worth 6 MB of replies: the client has to take some before there are more of them."""
    sock = Socket(b"x\n" * (CHUNK_BYTES_MAX // 2))
    connection = connect(sock)
    nursery.start_soon(connection.serve)
    await trio.testing.wait_all_tasks_blocked()
    reply_bytes = sock.largest_send_bytes // len(decoded)
    assert reply_bytes > 100
    seen = []
    while len(decoded) < CHUNK_BYTES_MAX // 2:
        waiting_bytes = len(decoded) * reply_bytes - len(sock.taken)
        assert waiting_bytes < 2 * REPLY_BYTES_MAX
        seen.append(waiting_bytes)
        sock.take(REPLY_BYTES_MAX / 2)
        await trio.testing.wait_all_tasks_blocked()
    assert len(seen) > 20
    sock.take(float("inf"))
    await trio.testing.wait_all_tasks_blocked()
    assert sock.taken.count(b"\n") == CHUNK_BYTES_MAX // 2


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
    sock = Socket((line + b"\n") * count)
    sock.take(float("inf"))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    nursery.start_soon(other)
    connection = connect(sock)
    await connection.serve()
    assert sock.taken.count(b"\n") == count
    assert turns >= turns_min
    nursery.cancel_scope.cancel()


async def test_a_stop_answers_what_was_not_even_decoded(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, decoded: list[bytes]
) -> None:
    """A connection that is stopped amid a chunk owes a reply to each of its lines, and gives them in order."""
    lines = [b"x"] * 4_000 + [b'{"key":"a"}', b'{"key":"b","value":1}', b'{"op":"ping"}', b"y"]
    sock = Socket(b"\n".join(lines) + b"\n")
    connection = connect(sock)
    nursery.start_soon(connection.serve)
    await trio.testing.wait_all_tasks_blocked()
    assert 0 < len(decoded) < 3_000
    connection.stop(trio.current_time() + 1.0)
    await trio.sleep(1.1)
    sock.take(float("inf"))
    await trio.testing.wait_all_tasks_blocked()
    replies = sock.taken.splitlines(keepends=True)
    assert len(replies) == len(lines) + 1
    codes = [msgspec.json.decode(reply).get("error") for reply in replies[-5:-1]]
    assert codes == ["unavailable", "unavailable", None, "bad_request"]
    assert replies[-1] == CLOSE_SHUTDOWN


async def test_replies_that_nobody_takes_are_limited_over_all_connections(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Of clients that ask for large values and leave them where they are, those that began first are dropped."""
    unsent = UnsentReplies(350_000)
    socks = [Socket(b'{"key":"k"}\n') for _ in range(5)]
    connections = [connect(sock, unsent) for sock in socks]
    for connection in connections:
        nursery.start_soon(connection.serve)
        await trio.testing.wait_all_tasks_blocked()
        assert unsent.total_bytes <= 350_000
    assert ["too many others" in each.reason for each in connections] == [True, True, False, False, False]
    for sock in socks:
        sock.take(float("inf"))
    await trio.testing.wait_all_tasks_blocked()
    assert [sock.taken.count(b"\n") for sock in socks] == [0, 0, 1, 1, 1]
    assert unsent.total_bytes == 0


async def test_a_reply_that_is_larger_than_all_may_be_drops_its_client(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A client that is dropped before it waited is dropped all the same."""
    unsent = UnsentReplies(1_000)
    connection = connect(Socket(b'{"key":"k"}\n'), unsent)
    await connection.serve()
    assert "too many others" in connection.reason
    connection.close()
    assert unsent.total_bytes == 0
