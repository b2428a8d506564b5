"""A client door without a port: its connections are streams in memory."""

import errno
import math

import trio
import trio.testing

from trio_kv.proxy.stream import ByteStream, Listener, TrioStream


class MemoryDoor:
    """Where clients of this process knock: a `proxy.stream.Listener`, and the way in."""

    port = 0

    def __init__(self) -> None:
        """Be open, with nobody there yet."""
        self._arrive, self._arrived = trio.open_memory_channel[trio.abc.Stream](math.inf)

    async def listen(self, host: str, port: int) -> list[Listener]:
        """Return itself; see `proxy.stream.Listen`."""
        del host, port
        await trio.lowlevel.checkpoint()
        return [self]

    async def open_stream(self, host: str = "", port: int = 0) -> trio.abc.Stream:
        """Connect, whatever the address; see `client.dialler.OpenStream`.

        Raises:
            OSError: the door is closed.

        """
        del host, port
        await trio.lowlevel.checkpoint()
        ours, theirs = trio.testing.memory_stream_pair()
        try:
            self._arrive.send_nowait(theirs)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the cluster of this test has ended") from error
        return ours

    async def run(self) -> None:
        """Do nothing until cancelled: its connections need nothing."""
        await trio.sleep_forever()

    async def accept(self) -> ByteStream:
        """Wait for the next connection."""
        return TrioStream(await self._arrived.receive(), "memory")

    def close(self) -> None:
        """Let nobody connect any more."""
        self._arrived.close()
