"""What a connection has to say to its client: replies, and lines between them, in the order in which they were put.

There is one writer, the connection's own task. What is said while nothing waits is sent at once, from where it was
made, as far as the client takes it. The rest waits for the writer.
"""

import trio

from trio_kv.proxy.books import Owner, UnsentReplies
from trio_kv.proxy.stream import ByteStream, ConnectionLostError, lost


class Outbox:
    """Bytes that wait to be sent.

    What waits is limited over all connections: beyond that the client is dropped that has been slow for the longest
    time. A connection makes no more replies while some wait.

    Invariant: `_unsent` is the end of what was begun; `_queue` comes behind it.

    Args:
        owner: the connection, as the books know it.
        stream: where it sends to.
        books: of the replies that clients don't take, over all connections.
        stall_s: a client that takes nothing for so long is lost.

    """

    __slots__ = (
        "_books",
        "_is_dropped",
        "_owner",
        "_queue",
        "_scope",
        "_send_nowait",
        "_stall_s",
        "_stream",
        "_unsent",
        "waiting_bytes",
    )

    def __init__(self, owner: Owner, stream: ByteStream, books: UnsentReplies, stall_s: float) -> None:
        """Begin empty; see the class."""
        self.waiting_bytes = 0
        """What waits, with all that was begun: that is in memory until its last byte is sent."""
        self._owner = owner
        self._stream = stream
        self._send_nowait = stream.send_nowait
        self._books = books
        self._stall_s = stall_s
        self._queue: list[bytes] = []
        self._unsent = memoryview(b"")
        self._scope = trio.CancelScope()
        """Around the wait for a client that is slow."""
        self._is_dropped = False

    def send_nowait(self, data: bytes) -> bool:
        """Send bytes as far as they go at once; return whether nothing waits now.

        Raises:
            ConnectionLostError: the client is gone.

        """
        is_first = not self.waiting_bytes
        if is_first:
            try:
                sent = self._send_nowait(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise lost("sending", error) from error
            if sent == len(data):
                return True
            self._unsent = memoryview(data)[sent:]
        else:
            self._queue.append(data)
        self.waiting_bytes += len(data)
        self._books.note(self._owner, self.waiting_bytes, is_new=is_first)
        return False

    async def flush(self) -> None:
        """Be the writer: wait for a client that is slow, but not for one that takes nothing.

        Raises:
            ConnectionLostError: the client is gone, or was dropped, or took nothing for too long.

        """
        while self.waiting_bytes:
            while self._unsent:
                if self._is_dropped:
                    raise ConnectionLostError("the client does not take its replies, nor do too many others")
                with trio.CancelScope(deadline=trio.current_time() + self._stall_s) as self._scope:
                    try:
                        self._unsent = self._unsent[await self._stream.send_some(self._unsent) :]
                    except OSError as error:
                        raise lost("sending", error) from error
                if self._scope.cancelled_caught and not self._is_dropped:
                    raise ConnectionLostError(f"the client took nothing for {self._stall_s:g} s")
            self._unsent = memoryview(b"".join(self._queue))
            self._queue.clear()
            self.waiting_bytes = len(self._unsent)
            self._books.note(self._owner, self.waiting_bytes, is_new=True)

    def drop(self) -> None:
        """Wait no longer for the client."""
        self._is_dropped = True
        self._scope.cancel()

    def close(self) -> None:
        """Forget what is not sent."""
        self._books.forget(self._owner)
