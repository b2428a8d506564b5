"""The system's sockets: bytes and connections over TCP, without a layer between the socket and who waits for it."""

import contextlib
import errno
import select
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from trio_kv.proxy.stream import CHUNK_BYTES_MAX, Listener
from trio_kv.proxy.tls_stream import TlsStream
from trio_kv.transport.tls import Credentials

HAS_EPOLL = hasattr(select, "epoll")
READY_MAX = 256
"""So many sockets are looked after before other tasks get their turn."""
BACKLOG_MAX = 2048
"""Connections that wait to be accepted; further ones wait in their clients."""
ABSENT_ERRORS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})
"""The machine does not have an address, or none of its kind."""


class Watch:
    """Tells the owners of many sockets when there is something to receive, in one task.

    A task that waits for each of them would be woken, and wait again, for each request: with Trio that is a turn of the
    scheduler and a system call, and half of what a small request costs. Where the system has no `epoll` there is none.
    """

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._epoll = select.epoll() if HAS_EPOLL else None
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._is_running = False

    def add(self, descriptor: int, on_readable: Callable[[], object]) -> bool:
        """Watch a socket; return False if nobody would be told."""
        if self._epoll is None or not self._is_running:
            return False
        try:
            self._epoll.register(descriptor, select.EPOLLIN)
        except OSError:
            # The system watches no more of them (`fs.epoll.max_user_watches`): its task waits for it, as for any other.
            return False
        self._callbacks[descriptor] = on_readable
        return True

    def remove(self, descriptor: int) -> None:
        """Watch a socket no more. To be done before it is closed."""
        del self._callbacks[descriptor]
        if self._epoll is not None and self._is_running:
            self._epoll.unregister(descriptor)

    async def run(self) -> None:
        """Tell the owners, until cancelled."""
        if self._epoll is None:
            await trio.sleep_forever()
        else:
            await self._run(self._epoll)

    async def _run(self, epoll: "select.epoll") -> None:
        self._is_running = True
        try:
            while True:
                await trio.lowlevel.wait_readable(epoll.fileno())
                for descriptor, _ in epoll.poll(0, READY_MAX):
                    # Somebody else's callback may have ended the watch.
                    on_readable = self._callbacks.get(descriptor)
                    if on_readable is not None:
                        on_readable()
        finally:
            # A door that is cancelled may still have connections, which wait for their sockets by themselves then.
            self._is_running = False
            epoll.close()


class SocketStream:
    """A `ByteStream`: a connected socket.

    Args:
        sock: the socket, which is owned from now on.
        peer: the peer's address, for people.
        watch: tells when it is readable.

    """

    __slots__ = ("_sock", "_watch", "peer", "receive_nowait", "send_nowait", "wait_readable")

    def __init__(self, sock: socket.socket, peer: str, watch: Watch) -> None:
        """Let the socket neither block nor hold back small replies; see the class."""
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer = peer
        self._sock = sock
        self._watch = watch
        # Methods would cost one more frame each.
        self.wait_readable: Callable[[], Awaitable[None]] = partial(
            trio.lowlevel.wait_readable, sock.fileno()
        )
        self.receive_nowait: Callable[[], bytes] = partial(sock.recv, CHUNK_BYTES_MAX)
        self.send_nowait: Callable[[bytes | memoryview], int] = sock.send

    def watch(self, on_readable: Callable[[], object]) -> bool:
        """See `ByteStream`."""
        return self._watch.add(self._sock.fileno(), on_readable)

    def unwatch(self) -> None:
        """See `ByteStream`."""
        self._watch.remove(self._sock.fileno())

    async def send_some(self, data: memoryview) -> int:
        """See `ByteStream`."""
        await trio.lowlevel.wait_writable(self._sock.fileno())
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    async def send_eof(self) -> None:
        """See `ByteStream`."""
        self._sock.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """See `ByteStream`."""
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()


class SocketListener:
    """A `Listener`: a socket that listens, and is owned from now on."""

    def __init__(self, sock: socket.socket, credentials: Credentials | None = None) -> None:
        """Take the socket; see the class.

        Args:
            sock: the socket.
            credentials: for TLS; None for plain TCP.

        """
        sock.setblocking(False)
        self.port: int = sock.getsockname()[1]
        self._sock = sock
        self._watch = Watch()
        self._credentials = credentials

    async def run(self) -> None:
        """See `Listener`."""
        await self._watch.run()

    async def accept(self) -> SocketStream | TlsStream:
        """See `Listener`."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            peer = _format_address(address)
            if self._credentials is not None:
                return TlsStream(sock, peer, self._credentials)
            return SocketStream(sock, peer, self._watch)

    def close(self) -> None:
        """See `Listener`."""
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()


async def open_listeners(host: str, port: int) -> list[Listener]:
    """Listen on every address of a host; with port 0 on one free port for all of them. Raises as `bind_host`."""
    with contextlib.ExitStack() as stack:
        bound = await bind_host(host, port)
        for sock in bound:
            stack.enter_context(sock).listen(BACKLOG_MAX)
        stack.pop_all()
    return [SocketListener(sock) for sock in bound]


async def bind_host(host: str, port: int) -> list[socket.socket]:
    """Return sockets bound to each address of a host; with port 0 to one free port for all of them.

    A name may stand for more than the machine has, as `localhost` for ::1 where IPv6 is switched off: those addresses
    are left out. Nobody can connect before the sockets listen.

    Raises:
        OSError: the host has no address here, or a port can't be had.

    """
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    absent: OSError | None = None
    with contextlib.ExitStack() as stack:
        bound: list[socket.socket] = []
        # A hosts file may name an address twice.
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                sock = _bind(socket.socket(family, kind, protocol), (address[0], port, *address[2:]))
            except OSError as error:
                if error.errno not in ABSENT_ERRORS:
                    raise
                absent = error
                continue
            port = sock.getsockname()[1]
            bound.append(stack.enter_context(sock))
        if absent is not None and not bound:
            raise absent
        stack.pop_all()
    return bound


def _bind(sock: socket.socket, address: tuple[str | int, ...]) -> socket.socket:
    with contextlib.ExitStack() as stack:
        stack.enter_context(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        stack.pop_all()
    return sock


def _format_address(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
