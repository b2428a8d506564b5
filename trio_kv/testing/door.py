"""A client door without a port: its connections are streams in memory."""

import contextlib
import errno
import math

import trio
import trio.testing

from trio_kv.proxy.stream import ByteStream, Listener, TrioStream

_MemoryStream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class MemoryDoor:
    """Where clients of this process knock: a `proxy.stream.Listener`, and the way in."""

    port = 0

    def __init__(self) -> None:
        """Be open, with nobody there yet."""
        self._arrive, self._arrived = trio.open_memory_channel[_MemoryStream](math.inf)

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
        """Let nobody connect any more; who has not been let in finds the connection ended, as a system does it."""
        with contextlib.suppress(trio.WouldBlock):
            while True:
                stream = self._arrived.receive_nowait()
                stream.send_stream.close()
                stream.receive_stream.close()
        self._arrived.close()
