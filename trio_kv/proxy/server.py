"""The client door: a TCP port, its connections, and what is common to them.

Each connection is a task. What would need a timer or a task a connection is done once for all: one
sweeper finds idle connections, asleep until the first of them can expire, and the books of half lines
are kept in one place. An error on a socket ends its connection only; so does a bug of ours, which is
told as an event with its traceback. Neither takes the door down.
"""

import contextlib
import resource
import socket
import traceback
from collections.abc import Sequence
from itertools import islice

import trio

from trio_kv.gateway.store import Store
from trio_kv.proxy.access import Doorkeeper, Tokens
from trio_kv.proxy.books import HalfLines, UnsentReplies
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.connection import Connection
from trio_kv.proxy.meter import RequestMeter
from trio_kv.proxy.sockets import SocketListener, open_listeners
from trio_kv.proxy.stream import ByteStream, ConnectionLostError, Listen, Listener
from trio_kv.proxy.tls_stream import TlsStream
from trio_kv.raft.events import DEBUG
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import (
    AcceptFailed,
    ClientConnected,
    ClientDisconnected,
    ClientFailed,
    ClientRefused,
)
from trio_kv.transport.tls import Credentials, HandshakeError
from trio_kv.wire.replies import CLOSE_OK, encode_error

DESCRIPTORS_MAX = 65536
"""File descriptors asked for where the system sets no limit."""
DESCRIPTORS_KEPT = 128
"""File descriptors left for logs, snapshots and the control door."""
ACCEPT_PAUSE_S = 0.1
"""How long the door waits before it accepts again when the system gave no connection."""
SWEEP_INTERVAL_MIN_S = 0.02
"""Idle connections that expire within this time are closed in one sweep."""


class Proxy:
    """The client door.

    Its driver starts it with `await nursery.start(proxy.serve)`, which returns the port, and ends it
    with `await proxy.stop()`. Cancelling `serve` instead ends all connections at once and without a word.

    Args:
        store: what answers the requests.
        config: the door's limits.
        trace: where events go.
        listen: opens the listeners that its connections come from.
        tokens: one of them has to be shown; None if none is asked for.
        credentials: for TLS, on sockets that are given to `serve`; None for plain TCP.

    """

    def __init__(
        self,
        store: Store,
        config: ProxyConfig,
        trace: Trace,
        listen: Listen = open_listeners,
        *,
        tokens: Tokens | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """Prepare a door that is closed; see the class."""
        self.port = 0
        """The port on which it listens, once it does."""
        self._store = store
        self._config = config
        self._trace = trace
        self._listen = listen
        self._credentials = credentials
        self._handshakes: set[trio.CancelScope] = set()
        """Those that are under way."""
        self._keeper = Doorkeeper(tokens, config.limits, trio.current_time, trace.emit)
        self._halves = HalfLines(config.pending_bytes_max)
        self._unsent = UnsentReplies(config.unsent_bytes_max)
        self.meter = RequestMeter()
        """Counts the requests."""
        self._connections: dict[Connection, tuple[int, str]] = {}
        """Each with its client's number and address, in the order in which they came."""
        self._is_occupied = trio.Event()
        self._doors = trio.CancelScope()
        self._ended = trio.Event()
        self._is_stopping = False
        self._connections_max = config.connections_max
        self.client_count = 0
        """How many clients came, those that were sent away among them."""

    @property
    def is_stopping(self) -> bool:
        """Whether no new connections are taken any more."""
        return self._is_stopping

    @property
    def watch_count(self) -> int:
        """How many watches are open."""
        return sum(connection.watch_count for connection in self._connections)

    @property
    def connection_count(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def clients(self, count_max: int) -> list[dict[str, object]]:
        """Return who is connected: at most so many, those first that have been for the longest time."""
        return [
            {
                "client": client,
                "address": address,
                "name": connection.holder_name,
                "requests": connection.session.request_count,
            }
            for connection, (client, address) in islice(self._connections.items(), count_max)
        ]

    @property
    def half_bytes(self) -> int:
        """How many bytes of half lines all connections hold together."""
        return self._halves.total_bytes

    async def serve(
        self,
        opened: Sequence[socket.socket] = (),
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Open the port, tell it through `task_status`, and serve until stopped.

        Args:
            opened: sockets that listen already; without any the door opens its own listeners.
            task_status: told the port.

        Raises:
            OSError: the port cannot be opened.

        """
        free = max(raise_descriptor_limit() - DESCRIPTORS_KEPT, 1)
        self._connections_max = min(self._config.connections_max, free)
        listeners: list[Listener] = [SocketListener(sock, self._credentials) for sock in opened]
        listeners = listeners or await self._listen(self._config.host, self._config.port)
        self.port = listeners[0].port
        try:
            async with trio.open_nursery() as helpers:
                for listener in listeners:
                    helpers.start_soon(listener.run)
                async with trio.open_nursery() as connections:
                    await self._open_doors(listeners, connections, task_status)
                helpers.cancel_scope.cancel()
        finally:
            self._ended.set()

    async def _open_doors(
        self, listeners: Sequence[Listener], connections: trio.Nursery, task_status: trio.TaskStatus[int]
    ) -> None:
        """Accept connections until stopped."""
        with contextlib.ExitStack() as stack:
            for listener in listeners:
                stack.callback(listener.close)
            with self._doors:
                async with trio.open_nursery() as doors:
                    for listener in listeners:
                        doors.start_soon(self._accept, listener, connections)
                    if self._config.idle_timeout_s:
                        doors.start_soon(self._sweep)
                    task_status.started(self.port)

    async def stop(self) -> None:
        """Accept no more, answer what has come within `stop_grace_s`, say so to all, close.

        What is not answered by then gets `timeout` if it is a write that the store has, else `unavailable`.
        """
        if not self._is_stopping:
            self._is_stopping = True
            self._doors.cancel()
            for handshake in self._handshakes:
                handshake.cancel()
            deadline_s = trio.current_time() + self._config.stop_grace_s
            for connection in list(self._connections):
                connection.stop(deadline_s)
        await self._ended.wait()

    def knows_token(self, token: str) -> bool:
        """Return whether a token opens this door, if only to read; in constant time."""
        return self._keeper.find(token) is not None

    def change_tokens(self, tokens: Tokens) -> None:
        """Let other tokens open the door from now on; who has shown one that does no more is sent away."""
        self._keeper.tokens = tokens
        for connection in list(self._connections):
            connection.send_away_if_void()

    async def _accept(self, listener: Listener, connections: trio.Nursery) -> None:
        now = trio.lowlevel.current_clock().current_time
        is_failing = False
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                # Out of descriptors or memory, most likely. The client stays in the backlog and the
                # listener stays readable, so without a pause this would spin.
                if not is_failing:
                    self._trace.emit(AcceptFailed(str(error)))
                is_failing = True
                await trio.sleep(ACCEPT_PAUSE_S)
                continue
            is_failing = False
            if len(self._connections) >= self._connections_max:
                await self._refuse(stream)
                continue
            client = self._count()
            connection = Connection(
                stream,
                store=self._store,
                config=self._config,
                halves=self._halves,
                unsent=self._unsent,
                meter=self.meter,
                now=now,
                admission=self._keeper.admit(client, stream.peer),
            )
            self._connections[connection] = (client, stream.peer)
            self._is_occupied.set()
            connections.start_soon(self._serve_connection, connection, client, stream)

    def _count(self) -> int:
        """Return the number of the next client."""
        self.client_count += 1
        return self.client_count

    async def _refuse(self, stream: ByteStream) -> None:
        """Tell a client that the door is full."""
        reason = f"{self._connections_max} connections are open, which is the limit; try again later"
        # The client may be gone already, which leaves nobody to tell.
        with contextlib.suppress(OSError, ConnectionLostError):
            stream.send_nowait(encode_error("overloaded", reason))
        await stream.aclose()
        self._trace.emit(ClientRefused(client=self._count(), address=stream.peer, reason=reason))

    async def _serve_connection(self, connection: Connection, client: int, stream: ByteStream) -> None:
        session, address = connection.session, stream.peer
        try:
            if self._trace.level <= DEBUG:
                self._trace.emit(ClientConnected(client=client, address=address))
            if isinstance(stream, TlsStream):
                await self._shake_hands(stream)
            await connection.serve()
        except HandshakeError as error:
            session.refuse("bad_request", str(error))
        except Exception:  # noqa: BLE001 - told below, with its traceback
            # The boundary of one client: whatever this bug is, the others keep their door. It is told
            # with its traceback, and the client sees a closed connection: its outcome is unknown.
            session.lose("failed")
            text = traceback.format_exc()
            self._trace.emit(ClientFailed(client=client, address=address, traceback=text))
        finally:
            await connection.aclose()
            del self._connections[connection]
        if session.is_refused:
            self._trace.emit(ClientRefused(client=client, address=address, reason=session.reason))
        if self._trace.level <= DEBUG:
            requests = session.request_count
            self._trace.emit(ClientDisconnected(client=client, reason=session.reason, requests=requests))

    async def _shake_hands(self, stream: TlsStream) -> None:
        """Let a client prove what it has to; not for longer than it may take, nor when the door stops."""
        scope = trio.CancelScope(deadline=trio.current_time() + self._config.handshake_timeout_s)
        self._handshakes.add(scope)
        try:
            with scope:
                await stream.shake_hands()
        finally:
            self._handshakes.discard(scope)
        if scope.cancelled_caught:
            raise HandshakeError("no TLS handshake in time")

    async def _sweep(self) -> None:
        """Close connections that were silent for too long."""
        idle_timeout_s = self._config.idle_timeout_s
        while True:
            if not self._connections:
                self._is_occupied = trio.Event()
                await self._is_occupied.wait()
            now = trio.current_time()
            first = now
            for connection in self._connections:
                # One with a request in flight will be active when it is answered.
                if connection.is_idle:
                    if connection.active_s + idle_timeout_s <= now:
                        connection.retire(CLOSE_OK, "idle")
                    else:
                        first = min(first, connection.active_s)
            await trio.sleep_until(max(first + idle_timeout_s, now + SWEEP_INTERVAL_MIN_S))


def raise_descriptor_limit() -> int:
    """Let this process open as many files as it may; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return DESCRIPTORS_MAX
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else hard
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            # macOS has a second limit, which it does not tell; then the door makes do with what it has.
            return soft
        return wanted
    return soft
