"""The port of a byte stream: what a connection needs of whatever carries its bytes.

Behind it are the system's sockets (`proxy.sockets`), any stream of Trio's, as one with TLS (`TrioStream`), and the
simulator's twin (`sim.whole.sockets`). Receiving and sending come in two parts, one that waits and one that does not:
a reply that can be sent at once costs no wait, and whoever is called away from a wait has lost no bytes.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

CHUNK_BYTES_MAX = 65536
"""How much is received at once, and sent at once by a stream that does not tell how far it is."""


class ConnectionLostError(Exception):
    """The peer is gone, or takes nothing. Its argument says which."""


def lost(doing: str, error: Exception) -> ConnectionLostError:
    """Return what an error of a stream means for its connection."""
    return ConnectionLostError(f"{doing} failed: {error if isinstance(error, OSError) else repr(error)}")


class ByteStream(Protocol):
    """A connection with a peer. One task receives and sends; `send_nowait` is for all.

    Raises of all methods but `aclose`:
        OSError, ConnectionLostError: the peer is gone.
        BlockingIOError: nothing can be received or sent now. A stream may raise it, as sockets do, or return None or 0.

    """

    @property
    def peer(self) -> str:
        """The peer's address, for people."""
        ...  # pragma: no cover

    def wait_readable(self) -> Awaitable[None]:
        """Wait until there is something to receive. It may be cancelled."""
        ...  # pragma: no cover

    def watch(self, on_readable: Callable[[], object]) -> bool:
        """Call `on_readable`, again and again, as long as there is something to receive, until `unwatch`.

        It must neither raise nor wait.

        Returns:
            False if the stream can't do that: then there is `wait_readable` alone.

        """
        ...  # pragma: no cover

    def unwatch(self) -> None:
        """Call nobody any more."""
        ...  # pragma: no cover

    def receive_nowait(self) -> bytes | None:
        """Return at most `CHUNK_BYTES_MAX` of what has come; b"" at the end of input, None if there is nothing now."""
        ...  # pragma: no cover

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send what goes at once; return how many bytes that is."""
        ...  # pragma: no cover

    async def send_some(self, data: memoryview) -> int:
        """Wait until some bytes are sent; return how many.

        After it was cancelled a stream is lost that can't tell how far it came.
        """
        ...  # pragma: no cover

    async def send_eof(self) -> None:
        """Say to the peer that nothing more comes, where the stream can say that without closing."""
        ...  # pragma: no cover

    async def aclose(self) -> None:
        """Close it; at once when cancelled."""
        ...  # pragma: no cover


class Listener(Protocol):
    """Where connections come in."""

    @property
    def port(self) -> int:
        """The port on which it listens."""
        ...  # pragma: no cover

    async def run(self) -> None:
        """Do what its connections need as long as they live. Until it is cancelled, which must be after their end."""
        ...  # pragma: no cover

    async def accept(self) -> ByteStream:
        """Wait for the next connection.

        Raises:
            OSError: the system gave none, as for want of descriptors.

        """
        ...  # pragma: no cover

    def close(self) -> None:
        """Let nobody connect any more."""
        ...  # pragma: no cover


Listen = Callable[[str, int], Awaitable[list[Listener]]]
"""Opens listeners on every address of a host; with port 0 on one free port for all of them. Raises OSError."""


class TrioStream:
    """A `ByteStream` over a stream of Trio's. It is slower than a socket: nothing goes without a wait.

    Args:
        stream: what carries the bytes. It is owned from now on.
        peer: the peer's address, for people.

    """

    def __init__(self, stream: trio.abc.Stream, peer: str) -> None:
        """Have received nothing; see the class."""
        self.peer = peer
        self._stream = stream
        self._received: bytes | None = None
        self._is_torn = False
        """Whether a piece was begun and not ended."""

    async def wait_readable(self) -> None:
        """See `ByteStream`; what came is kept until it is received."""
        if self._received is not None:
            await trio.lowlevel.checkpoint()
            return
        try:
            self._received = bytes(await self._stream.receive_some(CHUNK_BYTES_MAX))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise lost("receiving", error) from error

    def watch(self, on_readable: Callable[[], object]) -> bool:
        """See `ByteStream`. What came can only be known by waiting for it."""
        del on_readable
        return False

    def unwatch(self) -> None:
        """See `ByteStream`."""

    def receive_nowait(self) -> bytes | None:
        """See `ByteStream`."""
        received, self._received = self._received, None
        return received

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send nothing: it would have to wait."""
        del data
        return 0

    async def send_some(self, data: memoryview) -> int:
        """See `ByteStream`."""
        if self._is_torn:
            raise ConnectionLostError("sending was cut short")
        piece = data[:CHUNK_BYTES_MAX]
        self._is_torn = True
        try:
            await self._stream.send_all(piece)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise lost("sending", error) from error
        self._is_torn = False
        return len(piece)

    async def send_eof(self) -> None:
        """See `ByteStream`."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            try:
                await self._stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise lost("shutting down", error) from error

    async def aclose(self) -> None:
        """See `ByteStream`."""
        await self._stream.aclose()
