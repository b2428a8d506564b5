"""What the client door needs of a network: sockets that don't block, and ways to wait for them.

`KERNEL` is the real one: the sockets of the operating system, and Trio's low-level waiting. The simulator has another
(`sim.whole.sockets`), whose bytes travel in virtual time.
"""

import contextlib
import errno
import socket
from typing import Any, Protocol, Self

import trio

BACKLOG_MAX = 2048
"""Connections that wait to be accepted; further ones wait in their clients."""
ABSENT_ERRORS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})
"""The machine does not have an address, or none of its kind."""


class Socket(Protocol):
    """A connected socket that does not block; the part of `socket.socket` that a connection uses.

    Raises of all methods:
        BlockingIOError: it can't be done now.
        OSError: the peer is gone.

    """

    def fileno(self) -> int:
        """Return its descriptor, by which it is waited for."""
        ...  # pragma: no cover

    def recv(self, bufsize: int, /) -> bytes:
        """Return what has come; nothing at the end of input."""
        ...  # pragma: no cover

    def send(self, data: bytes | memoryview, /) -> int:
        """Take some bytes; return how many."""
        ...  # pragma: no cover

    def shutdown(self, how: int, /) -> None:
        """Say to the peer that nothing more comes."""
        ...  # pragma: no cover

    def setblocking(self, flag: bool, /) -> None:
        """Let it block, or not."""
        ...  # pragma: no cover

    def setsockopt(self, level: int, optname: int, value: int, /) -> None:
        """Set an option."""
        ...  # pragma: no cover

    def close(self) -> None:
        """Let go of it."""
        ...  # pragma: no cover


class Listener(Protocol):
    """A socket that connections come to. Raises as `Socket`."""

    def fileno(self) -> int:
        """Return its descriptor, by which it is waited for."""
        ...  # pragma: no cover

    def accept(self) -> tuple[Socket, Any]:
        """Return the next connection, and its peer's address."""
        ...  # pragma: no cover

    def getsockname(self) -> Any:
        """Return its own address: (host, port, …)."""
        ...  # pragma: no cover

    def close(self) -> None:
        """Let nobody connect any more."""
        ...  # pragma: no cover

    def __enter__(self) -> Self:
        """Be closed when the block ends."""
        ...  # pragma: no cover

    def __exit__(self, *args: object) -> None:
        """Close it."""
        ...  # pragma: no cover


class Sockets(Protocol):
    """Opens listeners, and waits for descriptors."""

    async def open_listeners(self, host: str, port: int) -> list[Listener]:
        """Listen on every address of a host; with port 0 on one free port for all of them.

        Raises:
            OSError: the host has no address, or a port cannot be opened.

        """
        ...  # pragma: no cover

    async def wait_readable(self, descriptor: int, /) -> None:
        """Wait until there is something to receive or accept."""
        ...  # pragma: no cover

    async def wait_writable(self, descriptor: int, /) -> None:
        """Wait until something can be sent."""
        ...  # pragma: no cover

    def notify_closing(self, descriptor: int, /) -> None:
        """Wake who waits for a descriptor that is about to be closed."""
        ...  # pragma: no cover


class _Kernel:
    """The operating system."""

    # The functions themselves: a wrapper around them would cost something at each wait.
    wait_readable = staticmethod(trio.lowlevel.wait_readable)
    wait_writable = staticmethod(trio.lowlevel.wait_writable)
    notify_closing = staticmethod(trio.lowlevel.notify_closing)

    async def open_listeners(self, host: str, port: int) -> list[Listener]:
        """See `Sockets`."""
        with contextlib.ExitStack() as stack:
            listeners: list[Listener] = []
            for listener in await bind_host(host, port):
                stack.enter_context(listener).listen(BACKLOG_MAX)
                listeners.append(listener)
            stack.pop_all()
        return listeners


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
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        stack.pop_all()
    return sock


KERNEL: Sockets = _Kernel()
