"""Hostile input at the client door: errors or a closed connection, bounded memory, and others served on."""

import time
import tracemalloc
from collections.abc import AsyncGenerator, Callable

import attrs
import pytest
import trio

from tests.doubles import MemorySink, MemoryStore
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.server import Proxy
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import ClientDisconnected, ClientFailed, ClientRefused

MEBIBYTE = 1 << 20


@attrs.define
class Door:
    """A door with another client, who asks all the time and must be answered in time."""

    proxy: Proxy
    store: MemoryStore
    sink: MemorySink
    asked: int = 0
    slowest_s: float = 0
    """The longest that the bystander waited for an answer: in the process' own time, whatever else the machine does."""

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.proxy.port)

    async def talk(self, data: bytes) -> bytes:
        """Send all, end the input, return all that comes back."""
        async with await self.connect() as stream:
            await stream.send_all(data)
            await stream.send_eof()
            return await read_all(stream)

    async def bystand(self) -> None:
        async with await self.connect() as stream:
            while True:
                start_s = time.process_time()
                await stream.send_all(b'{"key":"bystander","value":1}\n')
                reply = await stream.receive_some(65536)
                assert reply == b'{"key": "bystander", "value": 1, "status": "ok"}\n'
                self.asked += 1
                self.slowest_s = max(self.slowest_s, time.process_time() - start_s)
                await trio.sleep(0.002)


async def read_all(stream: trio.SocketStream) -> bytes:
    chunks = []
    with trio.fail_after(100):
        while chunk := await stream.receive_some(65536):
            chunks.append(chunk)
    return b"".join(chunks)


async def wait_until(is_so: Callable[[], object]) -> None:
    """Let the other tasks run until a condition holds."""
    with trio.fail_after(30):
        await trio.lowlevel.checkpoint()
        while not is_so():  # noqa: ASYNC110 -- the door has no event for what only a test waits for
            await trio.sleep(0.002)


async def wait_for_connections(door: Door, count: int) -> None:
    await wait_until(lambda: door.proxy.connection_count == count)


@pytest.fixture
def limits() -> dict[str, float]:
    """Return the door's limits; a test overrides this by its parameters."""
    return {}


@pytest.fixture
async def door(nursery: trio.Nursery, limits: dict[str, float]) -> AsyncGenerator[Door]:
    """Return an open door; after the test nothing has failed and the bystander was served all the time."""
    store, sink = MemoryStore(), MemorySink()
    proxy = Proxy(store, ProxyConfig(port=0, **limits), Trace([sink]))  # type: ignore[arg-type]
    await nursery.start(proxy.serve)
    door = Door(proxy, store, sink)
    nursery.start_soon(door.bystand)
    await wait_until(lambda: door.asked)
    yield door
    assert not sink.events(ClientFailed), sink.events(ClientFailed)[0].traceback
    asked = door.asked
    await wait_until(lambda: door.asked >= asked + 2)
    assert door.slowest_s < 1, f"another client waited {door.slowest_s:.2f} s for an answer"


async def test_binary_noise(door: Door) -> None:
    """Lines of noise get one error each, and a good line after them its reply."""
    noise = b"".join(
        bytes((index * step) % 245 + 11 for index in range(200)) + b"\n" for step in range(1, 50)
    )
    replies = (await door.talk(noise + b'{"key":"a","value":1}\n')).splitlines(keepends=True)
    assert len(replies) == noise.count(b"\n") + 1
    assert all(b'"error": "bad_request"' in reply for reply in replies[:-1])
    assert replies[-1] == b'{"key": "a", "value": 1, "status": "ok"}\n'


async def test_a_line_of_100_mebibytes(door: Door) -> None:
    """It is told too large while it comes, costs no memory, and the next line is served."""
    chunk = b"x" * MEBIBYTE
    tracemalloc.start()
    async with await door.connect() as stream:
        await stream.send_all(b'{"key":"a","value":"')
        for _ in range(3):
            await stream.send_all(chunk)
        first = await stream.receive_some(65536)
        assert b'"error": "too_large"' in first
        assert first.count(b"\n") == 1
        for _ in range(97):
            await stream.send_all(chunk)
        await stream.send_all(b'"}\n{"key":"a"}\n')
        assert await stream.receive_some(65536) == b'{"key": "a", "value": null, "status": "error"}\n'
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 * MEBIBYTE, peak_bytes


@pytest.mark.parametrize(
    "bomb", [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000]
)
async def test_a_json_bomb(door: Door, bomb: bytes) -> None:
    """JSON nested 100,000 deep is a bad request, as a value and as the line itself."""
    replies = await door.talk(b'{"key":"a","value":' + bomb + b"}\n" + bomb + b'\n{"op":"ping"}\n')
    first, second, third = replies.splitlines()
    assert b'"error": "bad_request"' in first
    assert b'"error": "bad_request"' in second
    assert third == b'{"status": "ok"}'
    assert "a" not in door.store.items


@pytest.mark.parametrize("limits", [{"idle_timeout_s": 0.1}])
async def test_half_a_line_and_silence(door: Door) -> None:
    """A connection that leaves its line open idles out like any other, and its bytes are forgotten."""
    async with await door.connect() as stream:
        await stream.send_all(b'{"key":"a","val')
        assert await read_all(stream) == b'{"close": "ok"}\n'
    await wait_for_connections(door, 1)
    assert door.proxy.half_bytes == 0


@pytest.mark.parametrize("limits", [{"idle_timeout_s": 0.5}])
async def test_many_connections_opened_and_left(door: Door) -> None:
    """Hundreds of silent connections are held, idle out, and are gone."""
    streams = [await door.connect() for _ in range(300)]
    # Those that were first may be idle by now, which is as well; the last ones are there in any case.
    assert await read_all(streams[-1]) == b'{"close": "ok"}\n'
    for stream in streams:
        await stream.aclose()
    await wait_for_connections(door, 1)


async def test_connections_cut_in_the_middle(door: Door) -> None:
    """Clients that reset their connection with requests and replies on the way hurt nobody."""
    for size in (1, 10, 100, 1000) * 10:
        stream = await door.connect()
        await stream.send_all((b'{"key":"a","value":1}\n{"key":"a"}\n' * size)[:-5])
        # To linger for no time makes a close a reset.
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()
    await wait_for_connections(door, 1)


@pytest.mark.parametrize("limits", [{"send_stall_s": 0.2}])
async def test_a_client_that_never_reads(door: Door) -> None:
    """Its replies are not piled up: it is held back, and dropped when it takes nothing."""
    value = b'"%b"' % (b"v" * (MEBIBYTE - 100))
    assert (await door.talk(b'{"key":"big","value":%b}\n' % value)).endswith(b'"status": "ok"}\n')
    tracemalloc.start()
    async with await door.connect() as stream:
        # The replies to this one chunk are 3 GiB long.
        await stream.send_all(b'{"key":"big"}\n' * 3000)
        await wait_for_connections(door, 1)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 16 * MEBIBYTE, peak_bytes
    reasons = [event.reason for event in door.sink.events(ClientDisconnected)]
    assert "the client took nothing for 0.2 s" in reasons


@pytest.mark.parametrize("limits", [{"send_stall_s": 1.0}])
async def test_a_client_that_reads_slowly_is_kept(door: Door) -> None:
    """As long as it takes something now and then, a slow client gets all its replies."""
    value = b'"%b"' % (b"v" * 100_000)
    await door.talk(b'{"key":"big","value":%b}\n' % value)
    reply = b'{"key": "big", "value": %b, "status": "ok"}\n' % value
    async with await door.connect() as stream:
        await stream.send_all(b'{"key":"big"}\n' * 200)
        await stream.send_eof()
        received = b""
        while chunk := await stream.receive_some(300_000):
            received += chunk
            await trio.sleep(0.02)
    assert received == reply * 200


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1:3001\r\nContent-Type: text/plain\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\n\r\n",
        b"DELETE /key HTTP/1.1\r\n\r\n",
    ],
)
async def test_a_browser(door: Door, head: bytes) -> None:
    """A page in a browser gets one error and a closed connection; what it posts is not executed."""
    reply = await door.talk(head + b'{"key":"evil","value":1}\n' * 10_000)
    assert reply.count(b"\n") == 1
    assert b'"error": "bad_request"' in reply
    assert "evil" not in door.store.items
    await wait_for_connections(door, 1)
    assert len(door.sink.events(ClientRefused)) == 1


async def test_a_method_later_is_only_a_bad_line(door: Door) -> None:
    """Only the first line can make a connection HTTP."""
    ping = b'{"op":"ping"}\n'
    replies = (await door.talk(ping + b"GET / HTTP/1.1\n" + ping)).splitlines()
    assert len(replies) == 3
    assert b'"error": "bad_request"' in replies[1]
    assert replies[2] == b'{"status": "ok"}'


@pytest.mark.parametrize("limits", [{"pending_bytes_max": 1000, "idle_timeout_s": 5}])
async def test_too_many_half_lines(door: Door) -> None:
    """When all half lines together are too many, the oldest is told `overloaded` and closed; others go on."""
    old, young = await door.connect(), await door.connect()
    async with old, young:
        await old.send_all(b'{"key":"old","value":"')
        await wait_for_half_bytes(door, 22)
        await young.send_all(b'{"key":"young","value":"' + b"x" * 900)
        await wait_for_half_bytes(door, 22 + 924)
        await young.send_all(b"x" * 70)
        assert b'"error": "overloaded"' in await read_all(old)
        await young.send_all(b'"}\n')
        assert (await young.receive_some(65536)).startswith(b'{"key": "young"')
    assert "old" not in door.store.items
    assert door.proxy.half_bytes == 0


async def wait_for_half_bytes(door: Door, count: int) -> None:
    await wait_until(lambda: door.proxy.half_bytes == count)


async def test_a_flood_of_tiny_bad_lines(door: Door) -> None:
    """A chunk with thousands of lines that are slow to explain does not keep the others waiting."""
    replies = await door.talk(b"x\n" * 100_000)
    assert replies.count(b"\n") == 100_000
    assert door.slowest_s < 0.5, f"another client waited {door.slowest_s:.2f} s"
