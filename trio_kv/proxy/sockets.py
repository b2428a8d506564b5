"""What the client door needs of a network: sockets that don't block, and ways to wait for them.

`KERNEL` is the real one: the sockets of the operating system, and Trio's low-level waiting. The simulator has another
(`sim.whole.sockets`), whose bytes travel in virtual time.
"""

import contextlib
import socket
from typing import Any, Protocol, Self

import trio

BACKLOG_MAX = 2048
"""Connections that wait to be accepted; further ones wait in their clients."""


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
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        with contextlib.ExitStack() as stack:
            listeners: list[Listener] = []
            for family, kind, protocol, _, address in found:
                listener = stack.enter_context(socket.socket(family, kind, protocol))
                listener.setblocking(False)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((address[0], port, *address[2:]))
                listener.listen(BACKLOG_MAX)
                port = listener.getsockname()[1]
                listeners.append(listener)
            stack.pop_all()
        return listeners


KERNEL: Sockets = _Kernel()
