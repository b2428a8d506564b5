"""TLS between nodes: both ends show a certificate, and it says which node of which cluster they are.

A peer may write whatever it likes into our log, so it is not enough that some CA knows it: **its certificate has the
name of its node**, a DNS name among the subject's alternative names::

    node-2.c0ffee….trio-kv         node 2 of the cluster with this id

No public CA signs such a name, and no other certificate of the same CA has one: neither that of a client, nor that of
another cluster's node, nor that of another node. Hosts and addresses are not looked at, since they may change.

TLS 1.2 is the least; two ends of ours agree on 1.3. There are no tickets, so each connection is proved anew.
"""

import contextlib
import re
import ssl
from pathlib import Path
from typing import Any, Final, Protocol

import attrs

from trio_kv.transport.tls import (
    CertificateError,
    HandshakeError,
    ask_for_certificate,
    explain,
    make_context,
    show_certificate,
)

DOMAIN: Final = "trio-kv"
"""The names of nodes end so. It is no public domain."""
_PEER = re.compile(rf"node-([1-9])\.([0-9a-f]{{32}})\.{DOMAIN}")
_ROUNDS_MAX = 4
"""So often each end of a handshake has its turn, at most."""


class WrongPeerError(HandshakeError):
    """Whoever is at the other end can't prove to be the node that it should be."""


class Secured(Protocol):
    """The end of a TLS connection after its handshake: of `ssl`, or of Trio."""

    def getpeercert(self) -> Any:
        """Return what the certificate says that the other end has shown; see `ssl.SSLSocket.getpeercert`."""


@attrs.frozen
class PeerFiles:
    """Where the certificates of a node are, all in PEM."""

    ca: Path
    """The CA of all nodes' certificates, or several of them while one takes the place of another."""
    certificate: Path
    """The node's own, and those between it and its CA."""
    key: Path


@attrs.frozen
class PeerContexts:
    """What a node's connections with its peers begin with."""

    listening: ssl.SSLContext
    dialling: ssl.SSLContext


def peer_name(cluster: str, node: int) -> str:
    """Return the name that a node's certificate must have."""
    return f"node-{node}.{cluster}.{DOMAIN}"


def load_peer(files: PeerFiles, cluster: str, node: int) -> PeerContexts:
    """Read a node's certificates, and try whether its peers would take them. It reads files: not for the event loop.

    Args:
        files: where they are.
        cluster: the id of the node's cluster.
        node: which node it is.

    Raises:
        CertificateError: they can't be read, don't fit together, or no peer would take them.

    """
    contexts = PeerContexts(make_context(ssl.PROTOCOL_TLS_SERVER), make_context(ssl.PROTOCOL_TLS_CLIENT))
    # The name that counts is that of the node, for both ends: see `check_peer`.
    contexts.dialling.check_hostname = False
    for context in (contexts.listening, contexts.dialling):
        show_certificate(context, files.certificate, files.key)
        ask_for_certificate(context, files.ca)
    try:
        dialling, listening = _shake_hands(contexts)
    except ssl.SSLError as error:
        raise CertificateError(
            f"{files.certificate}: no peer would take it with {files.ca}: {explain(error)}"
        ) from error
    try:
        check_peer(dialling, cluster, node)
        check_peer(listening, cluster, node)
    except WrongPeerError as error:
        raise CertificateError(f"{files.certificate}: {error}") from error
    return contexts


def check_peer(secured: Secured, cluster: str, node: int) -> None:
    """Check that the other end of a connection is a certain node.

    Args:
        secured: our end, after the handshake, which has proved that a CA of ours has signed the certificate.
        cluster: the id of the node's cluster.
        node: which node it must be.

    Raises:
        WrongPeerError: it is not; the reason is for people.

    """
    certificate = secured.getpeercert() or {}
    names = [name.lower() for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS"]
    if peer_name(cluster, node) in names:
        return
    found = [match for match in map(_PEER.fullmatch, names) if match]
    is_ours = any(match[2] == cluster for match in found)
    told = " and ".join(
        f"node {match[1]}" if is_ours else f"node {match[1]} of cluster {match[2]}" for match in found
    )
    expected = f"node {node}" if is_ours else f"node {node} of cluster {cluster}"
    raise WrongPeerError(
        f"the certificate is that of {told}, not of {expected}"
        if found
        else f"the certificate is that of no node: it lacks the name {peer_name(cluster, node)}"
    )


def _shake_hands(contexts: PeerContexts) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Let a node connect with itself, in memory; return both ends. Raises ssl.SSLError: it can't."""
    to_listening, to_dialling = ssl.MemoryBIO(), ssl.MemoryBIO()
    dialling = contexts.dialling.wrap_bio(to_dialling, to_listening)
    listening = contexts.listening.wrap_bio(to_listening, to_dialling, server_side=True)
    for _ in range(_ROUNDS_MAX):
        for end in (dialling, listening):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return dialling, listening
