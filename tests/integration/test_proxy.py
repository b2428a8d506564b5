"""The client door over real sockets, before a store in a dictionary: framing, order, idling, stopping."""

import errno
import select
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import attrs
import pytest
import trio

from tests.doubles import MemorySink, MemoryStore
from trio_kv.gateway.store import Answer, OnAnswer, Store, View
from trio_kv.kv.operations import AnyQuery
from trio_kv.proxy import server
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.server import Proxy
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import (
    AcceptFailed,
    ClientConnected,
    ClientDisconnected,
    ClientFailed,
    ClientRefused,
)
from trio_kv.wire.client_sessions import AnyAsked

CLOSE_IDLE = b'{"close": "ok"}\n'
CLOSE_SHUTDOWN = b'{"close": "shutdown"}\n'


@attrs.frozen
class Door:
    proxy: Proxy
    sink: MemorySink
    clients: list["Client"]

    async def connect(self) -> "Client":
        client = Client(await trio.open_tcp_stream("127.0.0.1", self.proxy.port))
        self.clients.append(client)
        return client


class Client:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.received = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def line(self) -> bytes:
        """Return the next line; fail when none comes."""
        with trio.fail_after(30):
            await trio.lowlevel.checkpoint()
            while b"\n" not in self.received:
                chunk = await self.stream.receive_some(65536)
                assert chunk, f"closed after {self.received!r}"
                self.received += chunk
        line, _, self.received = self.received.partition(b"\n")
        return line + b"\n"

    async def rest(self) -> bytes:
        """Return all that comes before the door closes the connection."""
        with trio.fail_after(30):
            while chunk := await self.stream.receive_some(65536):
                self.received += chunk
        rest, self.received = self.received, b""
        return rest

    async def ask(self, data: bytes) -> bytes:
        await self.send(data)
        return await self.line()


OpenDoor = Callable[..., Awaitable[Door]]


@pytest.fixture
async def open_door(nursery: trio.Nursery) -> AsyncGenerator[OpenDoor]:
    """Return what opens a door, with a store and limits; its clients are closed after the test."""
    clients: list[Client] = []
    sinks: list[MemorySink] = []

    async def open_it(store: Store | None = None, **limits: float) -> Door:
        sink = MemorySink()
        sinks.append(sink)
        config = ProxyConfig(port=0, **limits)  # type: ignore[arg-type]
        proxy = Proxy(store or MemoryStore(), config, Trace([sink]))
        port = await nursery.start(proxy.serve)
        assert port == proxy.port > 0
        return Door(proxy, sink, clients)

    yield open_it
    for client in clients:
        await client.stream.aclose()
    failures = [failure for sink in sinks for failure in sink.events(ClientFailed)]
    assert not failures, failures[0].traceback


async def wait_until(is_so: Callable[[], object]) -> None:
    """Let the other tasks run until a condition holds."""
    with trio.fail_after(30):
        await trio.lowlevel.checkpoint()
        while not is_so():  # noqa: ASYNC110 -- the door has no event for what only a test waits for
            await trio.sleep(0.001)


async def test_base_replies_to_the_letter(open_door: OpenDoor) -> None:
    """The three lines that every client knows get the three replies of the protocol, byte by byte."""
    door = await open_door()
    client = await door.connect()
    await client.send(b'{"key":"snack","value":"chips"}\n{"key":"snack"}\n{"key":"nope"}\n')
    await client.stream.send_eof()
    assert await client.rest() == (
        b'{"key": "snack", "value": "chips", "status": "ok"}\n'
        b'{"key": "snack", "value": "chips", "status": "ok"}\n'
        b'{"key": "nope", "value": null, "status": "error"}\n'
    )


async def test_one_request_at_a_time(open_door: OpenDoor) -> None:
    """A client that waits for each answer gets the same replies as one that pipelines."""
    door = await open_door()
    client = await door.connect()
    assert await client.ask(b'{"key": "a", "value": {"b": 1.10}}\n') == (
        b'{"key": "a", "value": {"b": 1.10}, "status": "ok"}\n'
    )
    assert await client.ask(b'{"key": "a"}\n') == b'{"key": "a", "value": {"b": 1.10}, "status": "ok"}\n'
    assert await client.ask(b'{"key": "c"}\n') == b'{"key": "c", "value": null, "status": "error"}\n'
    assert b'"status"' in await client.ask(b'{"op": "ping"}\n')
    assert b'"leader"' in await client.ask(b'{"op": "status"}\n')
    assert b'"bad_request"' in await client.ask(b'{"op": "frobnicate"}\n')


async def test_runs_are_cut_in_program_order(open_door: OpenDoor) -> None:
    """A chunk becomes runs of reads and writes, each handed on once the one before is answered."""
    store = MemoryStore()
    door = await open_door(store)
    client = await door.connect()
    await client.send(
        b'{"key":"a","value":1}\n{"key":"b","value":2}\n{"key":"a"}\n{"op":"ping"}\n{"key":"b"}\n'
        b'{"key":"b","consistency":"stale"}\n{"op":"delete","key":"a"}\n{"key":"c","value":3,"timeout":1}\n'
        b'nonsense\n{"key":"a"}\n'
    )
    lines = [await client.line() for _ in range(10)]
    assert store.runs == [
        ("write", ("a", "b", "a")),
        ("read", ("b",)),
        ("stale read", ("b",)),
        ("write", ("a",)),
        ("write", ("c",)),
        ("read", ("a",)),
    ]
    assert store.timeouts_s == [5, 5, 5, 5, 1, 5]
    assert lines[2] == b'{"key": "a", "value": 1, "status": "ok"}\n'
    assert b'"key"' not in lines[3]
    assert lines[4] == lines[5] == b'{"key": "b", "value": 2, "status": "ok"}\n'
    assert b'"bad_request"' in lines[8]
    assert lines[9] == b'{"key": "a", "value": null, "status": "error"}\n'


class ViewedStore(MemoryStore):
    """Notes up to where a connection had seen the store at each of its stale reads."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def start_read(
        self, queries: Sequence[AnyQuery], *, timeout_s: float, is_stale: bool, view: View, done: OnAnswer
    ) -> Answer | object:
        self.seen.append(view.applied)
        return super().start_read(queries, timeout_s=timeout_s, is_stale=is_stale, view=view, done=done)


@pytest.mark.parametrize("writes", [1, 3])
async def test_a_stale_read_sees_the_writes_before_it(open_door: OpenDoor, writes: int) -> None:
    """Whether a write came alone or in a run: no stale read of its connection may be older."""
    store = ViewedStore()
    door = await open_door(store)
    client = await door.connect()
    await client.send(b'{"key":"a","value":1}\n' * writes)
    for _ in range(writes):
        await client.line()
    await client.ask(b'{"key":"a","consistency":"stale"}\n')
    assert store.seen == [writes]


async def test_a_long_run_is_cut(open_door: OpenDoor) -> None:
    """No run is longer than its limit, and none of its requests is lost or moved."""
    store = MemoryStore()
    door = await open_door(store, run_requests_max=100)
    client = await door.connect()
    await client.send(b"".join(b'{"key":"%d","value":%d}\n' % (number, number) for number in range(1000)))
    for number in range(1000):
        assert await client.line() == b'{"key": "%d", "value": %d, "status": "ok"}\n' % (number, number)
    assert max(len(keys) for _, keys in store.runs) <= 100
    assert [key for _, keys in store.runs for key in keys] == [str(number) for number in range(1000)]


async def test_bytes_one_by_one(open_door: OpenDoor) -> None:
    """Requests that come byte by byte, with CR LF, blank lines and no last end, are requests all the same."""
    door = await open_door()
    client = await door.connect()
    for byte in b'\r\n{"key":"\xc3\xa9","value":1}\r\n\n{"key":"\xc3\xa9"}':
        await client.send(bytes([byte]))
    await client.stream.send_eof()
    assert await client.rest() == '{"key": "é", "value": 1, "status": "ok"}\n'.encode() * 2


async def test_a_chunk_in_flight_holds_the_client_back(open_door: OpenDoor) -> None:
    """While a chunk is unanswered nothing more of its connection reaches the store, however much is sent."""
    store = MemoryStore(is_gated=True)
    door = await open_door(store)
    client, other = await door.connect(), await door.connect()
    await client.send(b'{"key":"first","value":1}\n')
    await wait_until(lambda: store.runs)
    with trio.move_on_after(0.1) as scope:
        for _ in range(1000):
            await client.send(b'{"key":"more","value":1}\n' * 10_000)
    assert scope.cancelled_caught, "250 MB were taken without a single answer"
    await other.send(b'{"key":"other"}\n')
    await wait_until(lambda: len(store.runs) == 2)
    assert store.runs == [("write", ("first",)), ("read", ("other",))]
    store.open_gate()
    assert b'"other"' in await other.line()
    assert b'"first"' in await client.line()
    assert b'"more"' in await client.line()
    await client.stream.aclose()


async def test_a_silent_connection_is_closed(open_door: OpenDoor) -> None:
    """After the idle time-out a connection gets its close line; one that asked later gets it later."""
    door = await open_door(idle_timeout_s=0.2)
    silent, asking = await door.connect(), await door.connect()
    start_s = trio.current_time()
    await trio.sleep(0.1)
    await asking.ask(b'{"op":"ping"}\n')
    asked_s = trio.current_time()
    assert await silent.rest() == CLOSE_IDLE
    assert trio.current_time() - start_s > 0.15
    assert await asking.rest() == CLOSE_IDLE
    assert trio.current_time() - asked_s > 0.19
    await wait_until(lambda: not door.proxy.connection_count)
    # The sweeper, which slept without connections, wakes up for the next one.
    assert await (await door.connect()).rest() == CLOSE_IDLE


async def test_a_trickle_does_not_keep_a_connection(open_door: OpenDoor, nursery: trio.Nursery) -> None:
    """Bytes without an end of line, and blank lines, are silence."""
    door = await open_door(idle_timeout_s=0.1)
    client = await door.connect()

    async def trickle() -> None:
        while True:
            try:
                await client.send(b"\n \n")
            except trio.BrokenResourceError:
                return
            await trio.sleep(0.01)

    nursery.start_soon(trickle)
    assert await client.rest() == CLOSE_IDLE


async def test_a_request_in_flight_is_not_idle(open_door: OpenDoor) -> None:
    """A connection waits for an answer longer than the idle time-out, and is idle only after it."""
    store = MemoryStore(is_gated=True)
    door = await open_door(store, idle_timeout_s=0.05)
    client, silent = await door.connect(), await door.connect()
    await client.send(b'{"key":"a","value":1}\n')
    assert await silent.rest() == CLOSE_IDLE
    await trio.sleep(0.1)
    store.open_gate()
    assert await client.line() == b'{"key": "a", "value": 1, "status": "ok"}\n'
    assert await client.rest() == CLOSE_IDLE


async def test_an_idle_timeout_of_zero_never_closes(open_door: OpenDoor) -> None:
    """With 0 no connection idles out."""
    door = await open_door(idle_timeout_s=0)
    client = await door.connect()
    await trio.sleep(0.1)
    assert b'"status"' in await client.ask(b'{"op":"ping"}\n')


async def test_stop_answers_what_is_in_flight(open_door: OpenDoor, nursery: trio.Nursery) -> None:
    """A stopping door answers what has come, says so on every connection, closes, and accepts no more."""
    store = MemoryStore(is_gated=True)
    door = await open_door(store)
    busy, idle = await door.connect(), await door.connect()
    await wait_until(lambda: door.proxy.connection_count == 2)
    await busy.send(b'{"key":"a","value":1}\n')
    await wait_until(lambda: store.runs)
    # This one has come, but was not read yet: the connection has a chunk in flight.
    await busy.send(b'{"key":"a"}\n')
    nursery.start_soon(door.proxy.stop)
    assert await idle.rest() == CLOSE_SHUTDOWN
    store.open_gate()
    line = b'{"key": "a", "value": 1, "status": "ok"}\n'
    assert await busy.rest() == line + line + CLOSE_SHUTDOWN
    await wait_until(lambda: not door.proxy.connection_count)
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", door.proxy.port)
    await door.proxy.stop()


async def test_stop_gives_up_what_takes_too_long(open_door: OpenDoor) -> None:
    """At the end of the grace a write that the store has gets `timeout`, all else `unavailable`."""
    door = await open_door(MemoryStore(is_gated=True), stop_grace_s=0.05)
    writer, reader = await door.connect(), await door.connect()
    await writer.send(b'{"key":"a","value":1,"id":1}\n{"key":"b"}\n{"op":"ping"}\n{"key":"c","value":1}\n')
    await reader.send(b'{"key":"a"}\n')
    await wait_until(lambda: door.proxy.connection_count == 2)
    await trio.sleep(0.01)
    await door.proxy.stop()
    lines = (await writer.rest()).splitlines(keepends=True)
    assert [next(code for code in CODES if code in line) for line in lines] == [
        b'"timeout"',
        b'"unavailable"',
        b'{"status": "ok"}',
        b'"unavailable"',
        CLOSE_SHUTDOWN,
    ]
    assert b'"unavailable"' in (await reader.rest()).splitlines()[0]


CODES = (b'"timeout"', b'"unavailable"', b'{"status": "ok"}', CLOSE_SHUTDOWN)


async def test_stop_twice(open_door: OpenDoor, nursery: trio.Nursery) -> None:
    """Stopping an open door twice at once ends both calls."""
    door = await open_door()
    nursery.start_soon(door.proxy.stop)
    await door.proxy.stop()


class FailingStore(MemoryStore):
    def start_write(
        self, operations: Sequence[AnyAsked], *, timeout_s: float, done: OnAnswer
    ) -> Answer | object:
        if getattr(operations[0], "key", None) == "bug":
            raise LookupError("a bug of ours")
        return super().start_write(operations, timeout_s=timeout_s, done=done)


async def test_a_bug_ends_one_connection(open_door: OpenDoor) -> None:
    """An unexpected exception closes its connection, is told with its traceback, and hurts nobody else."""
    door = await open_door(FailingStore())
    unlucky, other = await door.connect(), await door.connect()
    await other.ask(b'{"key":"a","value":1}\n')
    await unlucky.send(b'{"key":"bug","value":1}\n')
    assert await unlucky.rest() == b""
    assert await other.ask(b'{"key":"a"}\n') == b'{"key": "a", "value": 1, "status": "ok"}\n'
    (failed,) = door.sink.events(ClientFailed)
    assert "a bug of ours" in failed.traceback
    assert "Traceback" in failed.traceback
    door.sink.records.clear()


async def test_a_connection_is_told(open_door: OpenDoor) -> None:
    """A connection's beginning and end are events, with what it asked; its requests are not."""
    door = await open_door()
    client = await door.connect()
    await client.ask(b'{"key":"a","value":1}\n')
    await client.send(b'{"key":"a"}\n{"key":"a"}\n')
    await client.stream.send_eof()
    await client.rest()
    await door.proxy.stop()
    (connected,) = door.sink.events(ClientConnected)
    (disconnected,) = door.sink.events(ClientDisconnected)
    assert connected.client == disconnected.client
    assert connected.address.startswith("127.0.0.1:")
    assert (disconnected.reason, disconnected.requests) == ("end of input", 3)
    assert len(door.sink.records) == 2


async def test_one_connection_too_many_is_told_so(open_door: OpenDoor) -> None:
    """Beyond the limit a client gets `overloaded` and is closed; when one left, the next is served."""
    door = await open_door(connections_max=1)
    first = await door.connect()
    await first.ask(b'{"op":"ping"}\n')
    assert b'"overloaded"' in await (await door.connect()).rest()
    assert len(door.sink.events(ClientRefused)) == 1
    await first.stream.aclose()
    await wait_until(lambda: not door.proxy.connection_count)
    assert b'"status"' in await (await door.connect()).ask(b'{"op":"ping"}\n')


async def test_out_of_descriptors(open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system gives no connection, the door waits a moment, tells it once, and accepts again."""
    failures = [OSError(errno.EMFILE, "Too many open files")] * 3
    accept = socket.socket.accept

    def failing_accept(listener: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise failures.pop()
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", failing_accept)
    monkeypatch.setattr(server, "ACCEPT_PAUSE_S", 0.01)
    door = await open_door()
    client = await door.connect()
    assert b'"status"' in await client.ask(b'{"op":"ping"}\n')
    assert not failures
    assert len(door.sink.events(AcceptFailed)) == 1


async def test_cancelling_the_door_ends_it_at_once() -> None:
    """A cancelled door closes its connections without waiting for the store."""
    store = MemoryStore(is_gated=True)
    proxy = Proxy(store, ProxyConfig(port=0), Trace())
    async with trio.open_nursery() as inner:
        port = await inner.start(proxy.serve)
        client = Client(await trio.open_tcp_stream("127.0.0.1", port))
        await client.send(b'{"key":"a","value":1}\n')
        await wait_until(lambda: store.runs)
        inner.cancel_scope.cancel()
    async with client.stream:
        assert await client.rest() == b""


async def test_cancelling_the_door_ends_connections_that_rest() -> None:
    """Who watches the sockets may end before their connections, which close them all the same."""
    proxy = Proxy(MemoryStore(), ProxyConfig(port=0), Trace())
    clients: list[Client] = []
    async with trio.open_nursery() as inner:
        port = await inner.start(proxy.serve)
        for _ in range(20):
            clients.append(Client(await trio.open_tcp_stream("127.0.0.1", port)))
            assert b'"status"' in await clients[-1].ask(b'{"op":"ping"}\n')
        inner.cancel_scope.cancel()
    for client in clients:
        assert await client.rest() == b""
        await client.stream.aclose()


async def test_a_socket_that_the_system_does_not_watch_is_waited_for(
    open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a limit to what one user may watch. It is met in the task of whoever answers, which must not end."""
    make_epoll = select.epoll

    class Full:
        def __init__(self) -> None:
            self._epoll = make_epoll()
            self.fileno, self.poll, self.close = self._epoll.fileno, self._epoll.poll, self._epoll.close

        def register(self, descriptor: int, events: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(select, "epoll", Full)
    door = await open_door()
    client = await door.connect()
    for _ in range(2):
        assert b'"status"' in await client.ask(b'{"op":"ping"}\n')
