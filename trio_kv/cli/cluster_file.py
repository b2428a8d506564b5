"""`cluster.toml`: which nodes a cluster has that live on hosts of their own, and how they find and prove each other.

One file serves all hosts, so that they can't disagree. Paths in it are relative to it, and `{node}` in one of them is
the number of the node that reads it::

    cluster = "c0ffee…"                 # its id: 32 hexadecimal digits
    secret = "5eed…"                    # what the nodes know of each other where they have no certificates

    [nodes.1]
    peer = "10.0.0.1:3003"              # where the other nodes reach it
    listen = "10.0.0.1:3001"            # its door for clients; else as `serve` has it
    control = "127.0.0.1:3002"          # its control door; else as `serve` has it
    data-dir = "/var/lib/trio_kv/data"  # else trio_kv-data-N beside the file

    [tls]                               # between the nodes
    ca = "certificates/ca.pem"
    cert = "certificates/node-{node}.pem"
    key = "certificates/node-{node}.key"

What each certificate must say stands in `transport.peer_tls`. A secret goes over connections as it is, so without
certificates all peers must be on one machine.
"""

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from trio_kv.cli.errors import UsageError
from trio_kv.cli.options import is_loopback
from trio_kv.cli.parsing import read_host, read_whole
from trio_kv.cli.toml_file import hint_key, kind_of, read_toml
from trio_kv.cli.words import join
from trio_kv.client.addresses import PORT_MAX, Address, format_address
from trio_kv.storage.manifest import NODES_MAX, is_cluster_id
from trio_kv.transport.peer_tls import PeerFiles

PLACEHOLDER: Final = "{node}"
"""Stands in a path for the number of a node."""
SECRET_LENGTH_MIN: Final = 16
SECRET_LENGTH_MAX: Final = 200
ADDRESS_WORDS: Final = "host:port, such as 10.0.0.1:3003 or [::1]:3003"


@attrs.frozen
class Peer:
    """A node, as all hosts know it."""

    node: int
    address: Address
    """Where the other nodes reach it."""
    data_dir: Path
    listen: Address | None = None
    """Of its door for clients; None: as `serve` has it."""
    control: Address | None = None
    """Of its control door; None: as `serve` has it."""


@attrs.frozen
class ClusterFile:
    """What a file says."""

    path: Path
    cluster: str
    """The cluster's id."""
    peers: Mapping[int, Peer]
    """All nodes, in order."""
    _tls: Mapping[str, str] | None = None
    secret: str = attrs.field(default="", repr=False)
    """What its nodes know of each other; empty: nothing."""

    @property
    def nodes(self) -> tuple[int, ...]:
        """All nodes, in order."""
        return tuple(self.peers)

    def peer(self, node: int) -> Peer:
        """Return a node that somebody has named.

        Raises:
            UsageError: the file has none of that number.

        """
        if node not in self.peers:
            raise UsageError(f"there is no node {node} in {self.path}: the nodes are {join(self.nodes)}")
        return self.peers[node]

    def peer_files(self, node: int) -> PeerFiles | None:
        """Return where a node's certificates are; None: the nodes prove nothing to each other."""
        if self._tls is None:
            return None
        ca, certificate, key = (_place(self.path, self._tls[name], node) for name in ("ca", "cert", "key"))
        return PeerFiles(ca, certificate, key)

    def check_access(self, *, is_insecure: bool) -> None:
        """Refuse nodes that anybody could speak to in a peer's place.

        Args:
            is_insecure: whether a person wants it so.

        Raises:
            UsageError: says who, and what would do.

        """
        if self._tls is not None or is_insecure:
            return
        for peer in self.peers.values():
            if not is_loopback(peer.address[0]):
                raise UsageError(
                    f"{self.path}: node {peer.node} at {format_address(peer.address)} can be reached by others, and"
                    " lacks certificates: give ca, cert and key in [tls], or let all peers be at 127.0.0.1, or add"
                    " --insecure"
                )
        if not self.secret:
            raise UsageError(
                f"{self.path}: anybody on this machine could speak as a node: give a secret, as `trio-kv cluster init`"
                " draws one, or ca, cert and key in [tls], or add --insecure"
            )


def read_cluster_file(path: Path) -> ClusterFile:
    """Return what a file says.

    Raises:
        UsageError: it can't be read, or understood; says where, and what would be right.

    """
    top = _Table(path, "", read_toml(path))
    top.check_keys("cluster", "secret", "nodes", "tls")
    cluster = top.text("cluster", "the cluster's id, 32 hexadecimal digits")
    if not is_cluster_id(cluster):
        raise top.refuse("cluster", "32 hexadecimal digits, as `trio-kv cluster init` draws them")
    return ClusterFile(path, cluster, _read_peers(top.table("nodes")), _read_tls(top), _read_secret(top))


def parse_address(text: str) -> Address:
    """Return the host and the port that an address has.

    Raises:
        ValueError: it is none.

    """
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise ValueError(f"{text!r} is no {ADDRESS_WORDS}")
    number = read_whole(port)
    if not 1 <= number <= PORT_MAX:
        raise ValueError(f"a port is 1 to {PORT_MAX}, not {number}")
    return read_host(host), number


@attrs.frozen
class _Table:
    """A table of the file, and what it is called there."""

    path: Path
    name: str
    content: Mapping[str, Any]

    def refuse(self, key: str, right: str) -> UsageError:
        """Return what to say of a key that is not there, or has the wrong value."""
        where = self.name + key
        if key not in self.content:
            return UsageError(f"{self.path}: {where} is missing: {right}")
        return UsageError(f"{self.path}: {where} is {kind_of(self.content[key])}; right would be {right}")

    def check_keys(self, *known: str) -> None:
        for key in self.content:
            if key not in known:
                raise UsageError(f"{self.path}: there is no key {self.name}{key}: {hint_key(key, known)}")

    def text(self, key: str, right: str) -> str:
        value = self.content.get(key)
        if not isinstance(value, str) or not value:
            raise self.refuse(key, right)
        return value

    def table(self, key: str) -> "_Table":
        value = self.content.get(key)
        if not isinstance(value, dict):
            raise self.refuse(key, f"a table, as [{self.name}{key}]")
        return _Table(self.path, f"{self.name}{key}.", value)

    def address(self, key: str) -> Address:
        text = self.text(key, ADDRESS_WORDS)
        try:
            return parse_address(text)
        except ValueError as error:
            raise UsageError(f"{self.path}: {self.name}{key}: {error}") from error


def _read_peers(table: _Table) -> Mapping[int, Peer]:
    numbers = [str(number) for number in range(1, len(table.content) + 1)]
    if sorted(table.content) != numbers or not 1 <= len(numbers) <= NODES_MAX:
        found = join(sorted(table.content)) if table.content else "none"
        raise UsageError(
            f"{table.path}: the nodes are numbered from 1 on, without a gap, up to {NODES_MAX} of them, as [nodes.1];"
            f" here they are {found}"
        )
    peers = {int(number): _read_peer(table.table(number), int(number)) for number in numbers}
    _check_differ(table.path, list(peers.values()))
    return peers


def _read_peer(table: _Table, node: int) -> Peer:
    table.check_keys("peer", "listen", "control", "data-dir")
    data_dir = f"trio_kv-data-{PLACEHOLDER}"
    if "data-dir" in table.content:
        data_dir = table.text("data-dir", "a path")
    return Peer(
        node,
        table.address("peer"),
        _place(table.path, data_dir, node),
        table.address("listen") if "listen" in table.content else None,
        table.address("control") if "control" in table.content else None,
    )


def _check_differ(path: Path, peers: Sequence[Peer]) -> None:
    """Refuse an address of a node that is another one's, or one of its doors'."""
    seen: dict[Address, int] = {}
    for peer in peers:
        if peer.address in seen:
            raise UsageError(
                f"{path}: nodes {seen[peer.address]} and {peer.node} have the same peer address"
                f" {format_address(peer.address)}: give each its own"
            )
        seen[peer.address] = peer.node
        own = [each for each in (peer.address, peer.listen, peer.control) if each is not None]
        for address in own:
            if own.count(address) > 1:
                raise UsageError(
                    f"{path}: node {peer.node} has {format_address(address)} twice: peer, listen and control are"
                    " different doors, and each needs a port of its own"
                )


def _read_secret(top: _Table) -> str:
    if "secret" not in top.content:
        return ""
    right = f"{SECRET_LENGTH_MIN} to {SECRET_LENGTH_MAX} characters, as `trio-kv cluster init` draws them"
    secret = top.text("secret", right)
    if not SECRET_LENGTH_MIN <= len(secret) <= SECRET_LENGTH_MAX:
        raise UsageError(f"{top.path}: secret has {len(secret)} characters; right would be {right}")
    mode = stat.S_IMODE(top.path.stat().st_mode)
    if mode & 0o077:
        raise UsageError(
            f"{top.path} has a secret, and can be read by others (mode {mode:04o}): chmod 600 {top.path}"
        )
    return secret


def _read_tls(top: _Table) -> Mapping[str, str] | None:
    if "tls" not in top.content:
        return None
    table = top.table("tls")
    table.check_keys("ca", "cert", "key")
    return {key: table.text(key, "a path to a file in PEM") for key in ("ca", "cert", "key")}


def _place(path: Path, text: str, node: int) -> Path:
    return path.parent / text.replace(PLACEHOLDER, str(node))
