"""A connection over TLS, as a door's byte stream. It is slower than a socket: nothing goes without a wait."""

import socket

import trio

from trio_kv.proxy.stream import ConnectionLostError, TrioStream
from trio_kv.transport.tls import Credentials, is_end, shake_hands
from trio_kv.wire.replies import encode_error

SPEAKS_TLS = encode_error("bad_request", "this port speaks TLS: connect with --ca, and the file of its CA")
"""What a client is told that speaks plainly."""


class TlsStream(TrioStream):
    """A `ByteStream` whose client has to shake hands first.

    Args:
        sock: a connected socket, which is owned from now on.
        peer: the peer's address, for people.
        credentials: what is shown to the client, and asked of it.

    """

    def __init__(self, sock: socket.socket, peer: str, credentials: Credentials) -> None:
        """Have received nothing; see the class."""
        # Trio switches off Nagle's algorithm by itself.
        super().__init__(trio.SocketStream(trio.socket.from_stdlib_socket(sock)), peer)
        self._credentials = credentials

    async def wait_readable(self) -> None:
        """See `ByteStream`. An end without a word is one: a line that was cut in its midst is no request."""
        try:
            await super().wait_readable()
        except ConnectionLostError as error:
            if error.__cause__ is None or not is_end(error.__cause__):
                raise
            self._received = b""

    async def shake_hands(self) -> None:
        """Do what comes before the first byte. May be cancelled; then the stream can only be closed.

        Raises:
            HandshakeError: the client speaks no TLS, or does not prove what it has to.

        """
        self._stream = await shake_hands(self._stream, self._credentials, lambda _: SPEAKS_TLS)
