"""One connection of a client, as a Trio task uses it: lines out, lines in."""

import socket
import struct
from collections.abc import Callable, Sequence

import trio

from trio_kv.wire.replies import ReplyError, ReplyLine, parse_reply

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
        line = await self.receive_line()
        return None if line is None else parse_reply(line)

    async def receive_line(self) -> bytes | None:
        """Return the next line, or None at the end of the connection."""
        while (end := self._received.find(b"\n", self._searched)) < 0:
            self._searched = len(self._received)
            chunk = await self._stream.receive_some(RECEIVE_BYTES)
            if not chunk or self._searched > REPLY_BYTES_MAX:
                return None
            self._received += chunk
        line = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        self._searched = 0
        return line

    def close(self) -> None:
        """Close the connection as a program does that ends."""
        self._stream.socket.close()

    def reset(self) -> None:
        """Break the connection off, as a machine does that loses its power: the other side hears a reset."""
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


GONE_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError, ReplyError)


async def converse(
    stream: LineStream,
    lines: Sequence[bytes],
    within_s: float,
    on_reply: Callable[[int, ReplyLine | None], None],
) -> bool:
    """Send lines at once, and take a reply to each; return whether the connection can still be used.

    Args:
        stream: a connection.
        lines: what to send.
        within_s: how long to wait for all of it.
        on_reply: is told of each line's number and reply, in their order: that of a server that closes the connection
            is the reply to all that is left, and None is no reply.

    """
    answered = 0
    is_usable = False
    try:
        with trio.move_on_after(within_s):
            await stream.send(b"".join(lines))
            while answered < len(lines):
                reply = await stream.receive()
                if reply is None:
                    break
                is_last = reply.close is not None
                for number in range(answered, len(lines) if is_last else answered + 1):
                    answered += 1
                    on_reply(number, reply)
                if is_last:
                    break
            else:
                is_usable = True
    except GONE_ERRORS:
        pass  # what it means for each line is for the caller
    finally:
        for number in range(answered, len(lines)):
            on_reply(number, None)
    return is_usable


async def connect(host: str, port: int) -> LineStream:
    """Open a connection.

    Raises:
        OSError: nobody listens there.

    """
    return LineStream(await trio.open_tcp_stream(host, port))
