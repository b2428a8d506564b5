"""One connection of the load: a socket that never waits, and the batch that is under way on it."""

import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from trio_kv.cli.bench.answers import CLOSED
from trio_kv.cli.bench.workload import Batch

RECEIVE_BYTES = 1 << 16
"""How much is received at once. Python allocates so much for each call, and above 128 KiB glibc may map and unmap
memory for that each time: a load of lone requests then takes nearly twice as much of a processor."""


class ConnectionLostError(ConnectionError):
    """The other side closed, or what it sent can't be relied on; the message says which."""


class Connection:
    """A connection, of which at most one batch is under way.

    Attributes:
        batch: what is under way.
        due_ns: when it was to be sent.
        chunks: answers to it that came, and are not all.
        is_open: whether it is connected.
        recv: the socket's own: takes what came, or raises OSError.
        send_some: the socket's own `send`.

    """

    __slots__ = (
        "_family",
        "_peer",
        "_rest",
        "_socket",
        "batch",
        "chunks",
        "due_ns",
        "is_open",
        "recv",
        "send_some",
    )

    def __init__(self, family: int, peer: Sequence[Any]) -> None:
        """Prepare a connection to an address as the system has it."""
        self._family = family
        self._peer = tuple(peer)
        self.due_ns = 0
        self._reset()

    def _reset(self) -> None:
        self._socket = socket.socket(self._family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self.recv: Callable[[int], bytes] = self._socket.recv
        self.send_some: Callable[[bytes | memoryview], int] = self._socket.send
        self._rest: memoryview | None = None
        self.batch: Batch | None = None
        self.chunks: list[bytes] = []
        self.is_open = False

    def fileno(self) -> int:
        """Return the descriptor; each attempt to connect has another."""
        return self._socket.fileno()

    def start(self) -> None:
        """Begin to connect.

        Raises:
            OSError: nobody listens there.

        """
        code = self._socket.connect_ex(self._peer)
        if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            raise OSError(code, os.strerror(code))

    def finish_start(self) -> None:
        """Become open, or learn that nobody listens there.

        Raises:
            OSError: nobody does.

        """
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_open = True

    def close(self) -> None:
        """Close the socket and have a new one ready; the batch is nobody's any more."""
        self._socket.close()
        self._reset()

    def end(self) -> None:
        """Close the socket for good."""
        self._socket.close()

    def send(self, batch: Batch, due_ns: int) -> bool:
        """Put a batch under way; return whether all of it is sent.

        Raises:
            OSError: the other side is gone.

        """
        self.batch = batch
        self.due_ns = due_ns
        self._rest = memoryview(batch.data)
        return self.send_rest()

    def send_rest(self) -> bool:
        """Send more of the batch; return whether all of it is sent.

        Raises:
            OSError: the other side is gone.

        """
        if self._rest is not None:
            try:
                sent = self.send_some(self._rest)
            except BlockingIOError:
                return False
            self._rest = self._rest[sent:] or None
        return self._rest is None

    def keep_rest(self, sent: int) -> None:
        """Know that only so many bytes of the batch are sent."""
        assert self.batch is not None
        self._rest = memoryview(self.batch.data)[sent:]

    def add(self, chunk: bytes) -> bytes | None:
        """Add answers to those that came before; return all if no line of them is missing.

        Raises:
            ConnectionLostError: the other side closed, or says something that nobody asked for.

        """
        if not chunk or self.batch is None:
            raise ConnectionLostError(CLOSED)
        self.chunks.append(chunk)
        if sum(each.count(b"\n") for each in self.chunks) < self.batch.size:
            return None
        text = b"".join(self.chunks)
        self.chunks.clear()
        return text


def code_of(error: OSError) -> str:
    """Return what is told of an error of a connection.

    >>> code_of(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
    'connection refused'
    """
    return (error.strerror or str(error)).lower()
