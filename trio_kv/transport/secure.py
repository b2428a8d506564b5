"""How connections between processes are opened, and what proves who is at their other end."""

import ssl
from typing import Protocol, cast

import trio

from trio_kv.transport.connection import RejectedError
from trio_kv.transport.peer_tls import PeerContexts, Secured, WrongPeerError, check_peer
from trio_kv.transport.peers import Address
from trio_kv.transport.tls import explain, open_tls


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
        below: opens and takes the connections that TLS goes over; None: TCP.

    """

    def __init__(self, contexts: PeerContexts, cluster: str, below: Security | None = None) -> None:
        """Have no connection yet; see the class."""
        self.contexts = contexts
        self._below = Plain() if below is None else below
        self._cluster = cluster

    async def dial(self, address: Address, process: int) -> trio.abc.Stream:
        """See `Security`."""
        raw = await self._below.dial(address, process)
        try:
            stream = await _shake_hands(raw, self.contexts.dialling, server_side=False)
            check_peer(cast("Secured", stream), self._cluster, process)
        except WrongPeerError as error:
            await trio.aclose_forcefully(raw)
            raise RejectedError(str(error)) from error
        except BaseException:
            await trio.aclose_forcefully(raw)
            raise
        return stream

    async def accept(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        """See `Security`."""
        return await _shake_hands(await self._below.accept(stream), self.contexts.listening, server_side=True)

    def why_not(self, stream: trio.abc.Stream, process: int) -> str | None:
        """See `Security`."""
        try:
            check_peer(cast("Secured", stream), self._cluster, process)
        except WrongPeerError as error:
            return str(error)
        return None


async def _shake_hands(
    stream: trio.abc.Stream, context: ssl.SSLContext, *, server_side: bool
) -> trio.abc.Stream:
    try:
        return await open_tls(stream, context, server_side=server_side)
    except trio.BrokenResourceError as error:
        raise RejectedError(f"the TLS handshake failed: {explain(error.__cause__)}") from error
