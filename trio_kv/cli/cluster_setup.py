"""`cluster init` and `cluster create`: what there must be before the nodes of a cluster start on their hosts."""

import contextlib
import itertools
import os
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Final

import msgspec

from trio_kv.cli.cluster_file import PLACEHOLDER, parse_address, read_cluster_file
from trio_kv.cli.errors import NotDoneError, UsageError
from trio_kv.cli.failures import explain_os_error
from trio_kv.cli.new_file import open_new_file
from trio_kv.cli.output import ExitCode, Output, say, show, show_json
from trio_kv.cli.words import count, join
from trio_kv.client.addresses import DEFAULT_PORT, Address, format_address
from trio_kv.storage.errors import ManifestError
from trio_kv.storage.host import make_host_directory
from trio_kv.storage.manifest import MANIFEST_NAME, NODES_MAX, draw_cluster_id
from trio_kv.storage.systems import sync_descriptor
from trio_kv.transport.peer_tls import load_peer
from trio_kv.transport.tls import CertificateError

if TYPE_CHECKING:
    from trio_kv.cli.certificates import Made

FILE_NAME: Final = "cluster.toml"
CERTIFICATES_NAME: Final = "certificates"
SECRET_BYTES: Final = 32
SECRET, PUBLIC = 0o600, 0o644
"""Modes of files."""


def init(directory: Path, nodes: str, output: Output, *, has_certificates: bool) -> ExitCode:
    """Carry out `cluster init`; return the exit code.

    Raises:
        UsageError: there can be no such nodes.
        NotDoneError: it can't be written, or is there already; nothing was changed.

    """
    addresses = _read_nodes(nodes)
    cluster = draw_cluster_id(SystemRandom())
    made = _make_certificates(cluster, addresses) if has_certificates else None
    contents = {
        directory / CERTIFICATES_NAME / name: (SECRET if name.endswith(".key") else PUBLIC, data)
        for name, data in (made.files.items() if made else ())
    }
    # It comes last: whoever finds it finds all that it names.
    place = directory / FILE_NAME
    secret = "" if has_certificates else secrets.token_hex(SECRET_BYTES)
    contents[place] = (SECRET if secret else PUBLIC, _describe(cluster, addresses, secret).encode())
    try:
        _write_all(contents)
    except FileExistsError as error:
        raise NotDoneError(
            f"{error.filename} is there already, and stays as it is: name another directory"
        ) from error
    except OSError as error:
        raise NotDoneError(explain_os_error(error, directory)) from error
    if output == "json":
        files = [str(each) for each in contents]
        show_json({"cluster": cluster, "nodes": len(addresses), "file": str(place), "files": files})
        return ExitCode.OK
    show(f"{place}: a new cluster of {count(len(addresses), 'node')}, {cluster}")
    if made is not None:
        who = f"a CA, and certificates of the nodes and of a client until {made.end:%Y-%m-%d}"
        show(f"{directory / CERTIFICATES_NAME}: {who}. ca.key signs them: keep it off the hosts")
    show(f"on each host, once: trio-kv cluster create --cluster {shlex.quote(str(place))} --node N")
    try:
        read_cluster_file(place).check_access(is_insecure=False)
    except UsageError as error:
        say(str(error))
    return ExitCode.OK


def create(cluster: Path, node: int | None, data_dir: Path | None, output: Output) -> ExitCode:
    """Carry out `cluster create`; return the exit code.

    Raises:
        UsageError: the file can't be used, or it is not said which node this is.
        NotDoneError, StorageError: there is no new directory.

    """
    file = read_cluster_file(cluster)
    if node is None:
        raise UsageError(f"--node is missing: it says which of the nodes {join(file.nodes)} this host has")
    place = data_dir or file.peer(node).data_dir
    try:
        make_host_directory(
            place, cluster=file.cluster, nodes=len(file.nodes), node=node, random=SystemRandom()
        ).close()
    except ManifestError as error:
        if not (place / MANIFEST_NAME).exists():
            raise
        raise NotDoneError(f"{place} holds a node already, and that is made once: start it") from error
    except OSError as error:
        raise NotDoneError(explain_os_error(error, place)) from error
    if output == "json":
        show_json({"cluster": file.cluster, "node": node, "data_dir": str(place)})
    else:
        show(f"{place}: the data directory of node {node} of {len(file.nodes)}, with nothing in it yet")
    files = file.peer_files(node)
    if files is not None:
        try:
            load_peer(files, file.cluster, node)
        except CertificateError as error:
            say(f"before it is started, see to its certificates. {error}")
    return ExitCode.OK


def _make_certificates(cluster: str, addresses: Mapping[int, Address]) -> "Made":
    try:
        from trio_kv.cli.certificates import make_certificates
    except ImportError as error:
        raise NotDoneError(
            "certificates take the library cryptography, which is not installed: pip install"
            " 'trio-kv[certificates]', or leave out --with-certificates and bring your own"
        ) from error
    return make_certificates(cluster, {node: address[0] for node, address in addresses.items()})


def _read_nodes(text: str) -> Mapping[int, Address]:
    """Return where each node is."""
    try:
        addresses = [parse_address(word.strip()) for word in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--nodes: {error}; write one for each node, with commas between them") from error
    if len(addresses) > NODES_MAX:
        raise UsageError(f"--nodes: a cluster has 1 to {NODES_MAX} nodes, not {len(addresses)}")
    for address in addresses:
        if addresses.count(address) > 1:
            raise UsageError(f"--nodes: {format_address(address)} is there twice: give each node its own")
    return dict(enumerate(addresses, 1))


def _describe(cluster: str, addresses: Mapping[int, Address], secret: str) -> str:
    """Return what stands in the file; without a secret the nodes have certificates."""
    doors = _doors(addresses)
    lines = [
        f"# A cluster of {count(len(addresses), 'node')}; this file is the same on all hosts.",
        f"# Paths are relative to it, and {PLACEHOLDER} in one of them is the number of the node that reads it.",
        "# A node may also have: listen and control, where its doors are, and data-dir.",
        f'cluster = "{cluster}"',
    ]
    if secret:
        lines += ["# Whoever can read it may be a node: it is for this user alone.", f'secret = "{secret}"']
    for node, address in addresses.items():
        lines += ["", f"[nodes.{node}]", f"peer = {_quote(address)}"]
        lines += [f"{name} = {_quote(door)}" for name, door in doors.get(node, {}).items()]
    if not secret:
        path = f"{CERTIFICATES_NAME}/node-{PLACEHOLDER}"
        lines += [
            "",
            "[tls]",
            f'ca = "{CERTIFICATES_NAME}/ca.pem"',
            f'cert = "{path}.pem"',
            f'key = "{path}.key"',
        ]
    return "\n".join(lines) + "\n"


def _doors(addresses: Mapping[int, Address]) -> Mapping[int, Mapping[str, Address]]:
    """Return doors for the nodes that share a host, where not all can have the usual ports."""
    hosts = [host for host, _ in addresses.values()]
    taken = {port for _, port in addresses.values()}
    free: dict[str, Iterator[int]] = {
        host: (port for port in itertools.count(DEFAULT_PORT) if port not in taken) for host in hosts
    }
    return {
        node: {name: ("127.0.0.1", next(free[host])) for name in ("listen", "control")}
        for node, (host, _) in addresses.items()
        if hosts.count(host) > 1
    }


def _quote(address: Address) -> str:
    # What JSON takes for a string TOML does, too.
    return msgspec.json.encode(format_address(address)).decode()


def _write_all(contents: Mapping[Path, tuple[int, bytes]]) -> None:
    """Write new files, durably and in this order: all of them, or none.

    Raises:
        FileExistsError: one is there already.
        OSError: the disk refused.

    """
    _check_new(list(contents))
    with contextlib.ExitStack() as undo:
        for place, (mode, data) in contents.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            with open_new_file(place.parent) as new:
                os.fchmod(new.file.fileno(), mode)
                new.file.write(data)
                new.file.flush()
                sync_descriptor(new.file.fileno())
                new.publish(place, is_forced=False)
            undo.callback(place.unlink)
        undo.pop_all()


def _check_new(places: Sequence[Path]) -> None:
    for place in places:
        if os.path.lexists(place):
            raise FileExistsError(None, "", str(place))
