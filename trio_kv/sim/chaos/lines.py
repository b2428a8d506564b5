"""One connection of a client, as a Trio task uses it: lines out, lines in."""

import socket
import struct

import trio

from trio_kv.wire.replies import ReplyLine, parse_reply

RECEIVE_BYTES = 65_536
REPLY_BYTES_MAX = 16 << 20
"""A longer reply is not to anything that was asked here: the connection is given up."""


class LineStream:
    """Lines over a stream, which it owns.

    `send` and `receive` raise:
        trio.BrokenResourceError: the connection is gone.
        trio.ClosedResourceError: we closed it.

    """

    def __init__(self, stream: trio.SocketStream) -> None:
        """Speak over an open connection."""
        self._stream = stream
        self._received = bytearray()
        self._searched = 0

    async def send(self, data: bytes) -> None:
        """Send bytes: whole lines, but for a client that wants to break off in the middle."""
        await self._stream.send_all(data)

    async def receive(self) -> ReplyLine | None:
        """Return the next reply, or None at the end of the connection.

        Raises:
            ReplyError: the line is no reply of this protocol.

        """
        while (end := self._received.find(b"\n", self._searched)) < 0:
            self._searched = len(self._received)
            chunk = await self._stream.receive_some(RECEIVE_BYTES)
            if not chunk or self._searched > REPLY_BYTES_MAX:
                return None
            self._received += chunk
        line = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        self._searched = 0
        return parse_reply(line)

    def close(self) -> None:
        """Close the connection as a program does that ends."""
        self._stream.socket.close()

    def reset(self) -> None:
        """Break the connection off, as a machine does that loses its power: the other side hears a reset."""
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


async def connect(host: str, port: int) -> LineStream:
    """Open a connection.

    Raises:
        OSError: nobody listens there.

    """
    return LineStream(await trio.open_tcp_stream(host, port))
