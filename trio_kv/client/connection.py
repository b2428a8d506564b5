"""One TCP connection that carries lines, synchronous, with a deadline on everything that may block."""

import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from trio_kv.client.errors import is_of_tls
from trio_kv.client.pipeline import REPLY_BYTES_MAX

if TYPE_CHECKING:
    from trio_kv.client.tls import Tls

RECEIVE_BYTES = 65_536

SSL_ERROR_WANT_READ = 2
"""`ssl.SSL_ERROR_WANT_READ`."""


class ConnectionEndedError(ConnectionError):
    """The other side closed the connection."""


class LineConnection:
    """Lines out, lines in.

    Raises:
        OSError: nobody listens there, or not in time.

    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        timeout_s: float,
        mono_s: Callable[[], float] = time.monotonic,
        tls: "Tls | None" = None,
    ) -> None:
        self._mono_s = mono_s
        self._received = bytearray()
        self._socket = socket.create_connection((host, port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._is_secure = tls is not None
        if tls is not None:
            self._socket = tls.wrap(self._socket, host)

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self._socket.close()

    def send(self, data: bytes, *, timeout_s: float) -> None:
        """Send whole lines.

        Raises:
            TimeoutError: the other side did not take them in time.
            OSError: the connection is broken. Part of the data may have arrived.

        """
        self._socket.settimeout(timeout_s)
        self._socket.sendall(data)

    def has_news(self) -> bool:
        """Whether something came, or ended, without having been asked for."""
        if self._received:
            return True
        if self._is_secure:
            return self._has_secure_news()
        poll = select.poll()  # `select.select` takes descriptors below 1024 only.
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def _has_secure_news(self) -> bool:
        """Whether there is something beside what TLS says by itself."""
        self._socket.setblocking(False)
        try:
            self._received += self._socket.recv(RECEIVE_BYTES)
        except OSError as error:
            return getattr(error, "errno", None) != SSL_ERROR_WANT_READ or not is_of_tls(error)
        return True

    def receive_line(self, *, timeout_s: float) -> bytes:
        r"""Return the next line without its \n.

        Raises:
            TimeoutError: no whole line came in time.
            ConnectionEndedError: the other side closed first, or sent a line that has no end.
            OSError: the connection is broken.

        """
        deadline = self._mono_s() + timeout_s
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if searched > REPLY_BYTES_MAX:
                raise ConnectionEndedError(f"a reply of more than {REPLY_BYTES_MAX} bytes")
            left_s = deadline - self._mono_s()
            if left_s <= 0:
                raise TimeoutError("no answer in time")
            self._socket.settimeout(left_s)
            chunk = self._socket.recv(RECEIVE_BYTES)
            if not chunk:
                raise ConnectionEndedError("the server closed the connection")
            self._received += chunk
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line
