"""What a connection has to say to its client: replies until they are sent, at the client's pace."""

import trio

from trio_kv.proxy.books import Receiver, UnsentReplies
from trio_kv.proxy.sockets import Socket, Sockets


class ConnectionLostError(Exception):
    """The client is gone, or takes nothing. Its argument says which."""


class Outbox:
    """Lines that wait to be sent, and the end of what was begun. One task uses it; `drop` is for all.

    Invariant: what is sent is whole lines; `_unsent` is the end of one that was begun.

    Args:
        owner: the connection, as the books know it.
        sock: where it sends to.
        sockets: what it waits by.
        books: of the replies that clients don't take, over all connections.
        stall_s: a client that takes nothing for so long is lost.

    """

    __slots__ = (
        "_books",
        "_is_dropped",
        "_lines",
        "_owner",
        "_scope",
        "_sock",
        "_sockets",
        "_stall_s",
        "_unsent",
        "waiting_bytes",
    )

    def __init__(
        self, owner: Receiver, sock: Socket, sockets: Sockets, books: UnsentReplies, stall_s: float
    ) -> None:
        """Begin empty; see the class."""
        self.waiting_bytes = 0
        """Of the lines that were put and not sent yet."""
        self._owner = owner
        self._sock = sock
        self._sockets = sockets
        self._books = books
        self._stall_s = stall_s
        self._lines: list[bytes] = []
        self._unsent = memoryview(b"")
        self._scope = trio.CancelScope()
        """Around the wait for a client that is slow."""
        self._is_dropped = False

    def put(self, line: bytes) -> None:
        """Add a line."""
        self._lines.append(line)
        self.waiting_bytes += len(line)

    def go_on(self) -> None:
        """Put the end of what was begun before the lines, after sending it was cancelled."""
        self._lines.insert(0, bytes(self._unsent))

    async def flush(self) -> None:
        """Send the lines; wait for a client that is slow, but not for one that takes nothing.

        Raises:
            ConnectionLostError: the client is gone, or was dropped, or took nothing for too long.

        """
        lines = self._lines
        if lines:
            data = lines[0] if len(lines) == 1 else b"".join(lines)
            lines.clear()
            self.waiting_bytes = 0
            sent = self.send_nowait(data)
            if sent != len(data):
                await self.send_rest(data, sent)

    def drop(self) -> None:
        """Wait no longer for the client."""
        self._is_dropped = True
        self._scope.cancel()

    def close(self) -> None:
        """Forget what is not sent."""
        self._books.forget(self._owner)

    async def send_rest(self, data: bytes, sent: int) -> None:
        """Send what the kernel did not take at once, `sent` bytes in. Raises as `flush`."""
        self._unsent = memoryview(data)[sent:]
        # All of it is in memory until its last byte is sent.
        self._books.note(self._owner, len(data), is_new=True)
        while self._unsent:
            if self._is_dropped:
                raise ConnectionLostError("the client does not take its replies, nor do too many others")
            with trio.CancelScope(deadline=trio.current_time() + self._stall_s) as self._scope:
                await self._sockets.wait_writable(self._sock.fileno())
            if self._scope.cancelled_caught and not self._is_dropped:
                raise ConnectionLostError(f"the client took nothing for {self._stall_s:g} s")
            self._unsent = self._unsent[self.send_nowait(self._unsent) :]
        self._books.forget(self._owner)

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send what the kernel takes at once; return how many bytes that is.

        Raises:
            ConnectionLostError: the client is gone.

        """
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ConnectionLostError(f"sending failed: {error}") from error
