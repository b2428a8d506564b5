"""A connection of the load over TLS, or with a token to show, or both. Once it is open it is as any other."""

import socket
import ssl
from collections.abc import Sequence
from typing import Any

from trio_kv.cli.bench.connection import RECEIVE_BYTES, Connection, ConnectionLostError
from trio_kv.client.tls import Tls, explain_tls
from trio_kv.wire.operations import Auth, Ping, Request
from trio_kv.wire.replies import parse_reply
from trio_kv.wire.requests import encode_request

OPENING_S = 5.0
"""How long handshake and token may take. The load waits meanwhile: that is a matter of its beginning."""


class SecureConnection(Connection):
    """A connection that has more to do before it is open.

    Args:
        family: of the address.
        peer: the address.
        host: what was asked for, which is the name that the certificate must have.
        tls: how to know the server; None for plain TCP.
        token: what to show; None for nothing.

    """

    __slots__ = ("_host", "_tls", "_token")

    def __init__(
        self, family: int, peer: Sequence[Any], host: str, tls: Tls | None, token: str | None
    ) -> None:
        """Prepare it; see the class."""
        super().__init__(family, peer)
        self._host = host
        self._tls = tls
        self._token = token

    def finish_start(self) -> None:
        """Become open. Raises OSError: nobody listens there, or does not take us."""
        super().finish_start()
        self.is_open = False
        sock: socket.socket = self._socket
        sock.settimeout(OPENING_S)
        try:
            if self._tls is not None:
                sock = self._socket = self._tls.wrap(sock, self._host)
            sock.sendall(encode_request(Request(Ping() if self._token is None else Auth(self._token))))
            reply = sock.recv(RECEIVE_BYTES)
        except ssl.SSLError as error:
            raise ConnectionLostError(explain_tls(error)) from error
        if not reply or parse_reply(reply.rstrip()).code != "ok":
            raise ConnectionLostError(
                parse_reply(reply.rstrip()).message if reply else "closed by the server"
            )
        sock.setblocking(False)
        self.recv, self.send_some = sock.recv, sock.send
        if isinstance(sock, ssl.SSLSocket):
            self.recv, self.send_some = _Receiver(sock), _Sender(sock)
        self.is_open = True


class _Receiver:
    """Takes what came, over TLS: all of it, for what the library holds wakes nobody."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock

    def __call__(self, size: int) -> bytes:
        chunks = []
        try:
            while chunk := self._sock.recv(size):
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            if not chunks:
                raise BlockingIOError from None
        return b"".join(chunks)


class _Sender:
    """Sends what goes at once, over TLS."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock

    def __call__(self, data: Any) -> int:
        try:
            return self._sock.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            raise BlockingIOError from None
