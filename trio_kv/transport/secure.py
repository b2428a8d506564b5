"""How connections between processes are opened, and what proves who is at their other end."""

import ssl
from typing import Protocol, cast

import trio

from trio_kv.transport.connection import LinkLostError
from trio_kv.transport.peer_tls import PeerContexts, Secured, WrongPeerError, check_peer
from trio_kv.transport.peers import Address
from trio_kv.transport.tls import explain


class Security(Protocol):
    """Opens and takes connections between processes."""

    async def dial(self, address: Address, process: int) -> trio.abc.Stream:
        """Open a connection to a process.

        Raises:
            OSError: nobody can be reached there.
            LinkLostError: whoever is there can't prove to be that process.

        """
        ...  # pragma: no cover

    async def accept(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        """Return what to speak over with whoever has opened this one.

        Raises:
            LinkLostError: he proves nothing.

        """
        ...  # pragma: no cover

    def why_not(self, stream: trio.abc.Stream, process: int) -> str | None:
        """Return why the other end of a connection that was taken can't be this process; None if it can."""
        ...  # pragma: no cover


class Plain:
    """TCP alone: what proves who somebody is stands in his hello."""

    async def dial(self, address: Address, process: int) -> trio.abc.Stream:
        """See `Security`."""
        del process
        return await trio.open_tcp_stream(*address)

    async def accept(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        """See `Security`."""
        await trio.lowlevel.checkpoint()
        return stream

    def why_not(self, stream: trio.abc.Stream, process: int) -> str | None:
        """See `Security`."""
        del stream, process
        return None


class MutualTls:
    """TLS, of which both ends show a certificate that names cluster and node. A process has one node, of its number.

    Args:
        contexts: what connections begin with from now on; may be replaced.
        cluster: the id of the cluster.

    """

    def __init__(self, contexts: PeerContexts, cluster: str) -> None:
        """Have no connection yet; see the class."""
        self.contexts = contexts
        self._cluster = cluster

    async def dial(self, address: Address, process: int) -> trio.abc.Stream:
        """See `Security`."""
        stream = trio.SSLStream(await trio.open_tcp_stream(*address), self.contexts.dialling)
        try:
            await _shake_hands(stream)
            check_peer(cast("Secured", stream), self._cluster, process)
        except WrongPeerError as error:
            await trio.aclose_forcefully(stream)
            raise LinkLostError(str(error)) from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def accept(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        """See `Security`."""
        secure = trio.SSLStream(stream, self.contexts.listening, server_side=True)
        await _shake_hands(secure)
        return secure

    def why_not(self, stream: trio.abc.Stream, process: int) -> str | None:
        """See `Security`."""
        try:
            check_peer(cast("Secured", stream), self._cluster, process)
        except WrongPeerError as error:
            return str(error)
        return None


async def _shake_hands(stream: "trio.SSLStream[trio.abc.Stream] | trio.SSLStream[trio.SocketStream]") -> None:
    try:
        await stream.do_handshake()
    except (trio.BrokenResourceError, ssl.CertificateError) as error:
        raise LinkLostError(f"the TLS handshake failed: {explain(error.__cause__)}") from error
