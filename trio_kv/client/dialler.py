"""How the client on Trio gets a connection: over its addresses in turn, with TLS and a token where they are wanted."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs
import trio

from trio_kv.client.addresses import Address, format_address
from trio_kv.client.errors import NotConnectedError, error_of, explain
from trio_kv.client.pipeline import REPLY_BYTES_MAX
from trio_kv.wire.operations import Auth, Ping, Request
from trio_kv.wire.replies import ReplyError, parse_reply
from trio_kv.wire.requests import encode_request

if TYPE_CHECKING:
    from trio_kv.client.tls import Tls

RECEIVE_BYTES = 65_536

OpenStream = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a stream to the client door at a host and port. Raises OSError: there is none."""


async def open_tcp(host: str, port: int) -> trio.abc.Stream:
    """Open a TCP connection; the default of `open_client`."""
    return await trio.open_tcp_stream(host, port)


@attrs.frozen
class Dialled:
    """A connection to a server that takes us."""

    stream: trio.abc.Stream
    address: str
    """For people."""


class Dialler:
    """Opens connections, to the address that served last if there are several.

    Args:
        addresses: of servers of one cluster.
        timeout_s: how long all addresses together may take.
        token: shown first on each connection; None: there is none.
        tls: how to know the server; None for plain streams.
        open_stream: opens a stream.

    """

    def __init__(
        self,
        addresses: tuple[Address, ...],
        *,
        timeout_s: float,
        token: str | None,
        tls: "Tls | None",
        open_stream: OpenStream,
    ) -> None:
        """Begin with the first address; see the class."""
        self.addresses = addresses
        self._timeout_s = timeout_s
        self._token = token
        self._tls = tls
        self._open_stream = open_stream
        self._place = 0

    def turn(self) -> None:
        """Begin with the next address from here on."""
        self._place = (self._place + 1) % len(self.addresses)

    async def dial(self) -> Dialled:
        """Return a connection to the first server that takes us.

        Raises:
            NotConnectedError: none does, or not in time.
            StoreError: one refuses us, as for a wrong token.

        """
        reasons = []
        first, count = self._place, len(self.addresses)
        # Watches and calls connect at the same time: each goes round by itself.
        for place in [number % count for number in range(first, first + count)]:
            address = self.addresses[place]
            try:
                with trio.fail_after(self._timeout_s / count):
                    dialled = await self._dial_one(address)
            except (NotConnectedError, trio.TooSlowError) as error:
                late = f"{format_address(address)} does not answer"
                reasons.append(late if isinstance(error, trio.TooSlowError) else str(error))
            else:
                self._place = place
                return dialled
        raise NotConnectedError("; ".join(reasons))

    async def _dial_one(self, address: Address) -> Dialled:
        text = format_address(address)
        try:
            stream = await self._open_stream(*address)
        except OSError as error:
            raise NotConnectedError(f"no server at {text}: {explain_stream(error)}") from error
        if self._tls is not None:
            name = self._tls.server_name or address[0]
            stream = trio.SSLStream(stream, self._tls.context, server_hostname=name, https_compatible=True)
        is_taken = False
        try:
            await self._introduce(stream)
            is_taken = True
        except (OSError, trio.BrokenResourceError, ReplyError) as error:
            raise NotConnectedError(f"no answer from {text}: {explain_stream(error)}") from error
        finally:
            if not is_taken:
                await trio.aclose_forcefully(stream)
        return Dialled(stream, text)

    async def _introduce(self, stream: trio.abc.Stream) -> None:
        """Show the token, and learn whether the server takes us: over TLS it may refuse behind its handshake."""
        if self._token is None and self._tls is None:
            return
        operation = Ping() if self._token is None else Auth(self._token)
        await stream.send_all(encode_request(Request(operation)))
        reply = parse_reply(await LineReader(stream).receive_line())
        error = error_of(reply, may_write=False)
        if reply.close is not None:
            raise ReplyError("it closes every connection")
        if error is not None and self._token is not None:
            raise error


class LineReader:
    """Lines of a stream. A call that is cancelled loses none.

    Args:
        stream: what carries them.

    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        """Have received nothing; see the class."""
        self.stream = stream
        self._received = bytearray()

    async def receive_line(self) -> bytes:
        r"""Return the next line without its \n.

        Raises:
            ReplyError: the other side closed first, or sent a line that has no end.
            trio.BrokenResourceError, trio.ClosedResourceError: the stream is no more.

        """
        received, searched = self._received, 0
        while (end := received.find(b"\n", searched)) < 0:
            searched = len(received)
            if searched > REPLY_BYTES_MAX:
                raise ReplyError(f"a reply of more than {REPLY_BYTES_MAX} bytes")
            data = await self.stream.receive_some(RECEIVE_BYTES)
            if not data:
                raise ReplyError("the server closed the connection")
            received += data
        line = bytes(received[:end])
        del received[: end + 1]
        return line


def explain_stream(error: Exception) -> str:
    """Return what went wrong with a stream, in a few words."""
    cause = error.__cause__
    while isinstance(cause, ExceptionGroup):
        # A name may stand for several addresses, each of which has its own reason.
        cause = cause.exceptions[0]
    return explain(cause if isinstance(cause, OSError) else error)
