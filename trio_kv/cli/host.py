"""`serve --cluster`: one node of a cluster whose nodes live on hosts of their own, with doors of its own.

Its start waits for nobody: the doors are open at once, and the other nodes are called again and again until they are
there.
"""

import contextlib
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Any

import attrs
import trio

from trio_kv.cli.cluster_file import ClusterFile, read_cluster_file
from trio_kv.cli.errors import UsageError
from trio_kv.cli.options import ServeOptions
from trio_kv.client.addresses import format_address
from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.disks import RealDisks
from trio_kv.cluster.process import ClusterProcess
from trio_kv.control.anywhere import serve_commands
from trio_kv.gateway.local import LocalCluster, make_store, running_in
from trio_kv.storage.data_directory import DataDirectory
from trio_kv.storage.errors import StorageError
from trio_kv.storage.host import open_host_directory
from trio_kv.trace.trace import Trace
from trio_kv.transport.peer_tls import load_peer
from trio_kv.transport.peers import Layout
from trio_kv.transport.secure import MutualTls, Plain, Security

BACKLOG = 128


def for_host(options: ServeOptions) -> ServeOptions:
    """Return the options of one node, with what the file of its cluster says where nothing else was said.

    Raises:
        UsageError: the file can't be read, or they don't fit together.

    """
    file, node = _read(options)
    file.check_access(is_insecure=options.is_insecure)
    usual, peer = ServeOptions(), file.peer(node)
    changes: dict[str, Any] = {}
    if options.data_dir == usual.data_dir:
        changes["data_dir"] = peer.data_dir
    if peer.listen is not None and (options.host, options.port) == (usual.host, usual.port):
        changes["host"], changes["port"] = peer.listen
    if peer.control is not None and (options.control_host, options.control_port) == (
        usual.control_host,
        usual.control_port,
    ):
        changes["control_host"], changes["control_port"] = peer.control
    return attrs.evolve(options, **changes)


def _read(options: ServeOptions) -> tuple[ClusterFile, int]:
    assert options.cluster is not None
    file = read_cluster_file(options.cluster)
    if options.node is None:
        raise UsageError(
            f"--node says which node of {file.path} this host has: {file.nodes[0]} to {file.nodes[-1]}"
        )
    return file, options.node


def has_certificates(options: ServeOptions) -> bool:
    """Return whether the nodes know each other by certificates. Raises UsageError."""
    file, node = _read(options)
    return file.peer_files(node) is not None


def load_security(options: ServeOptions) -> Security:
    """Read the certificates by which the nodes know each other, if they have some. Not for the event loop.

    Raises:
        UsageError: the file of the cluster can't be used.
        CertificateError: they can't be, or no peer would take them.

    """
    file, node = _read(options)
    return secure(file, node)


def secure(file: ClusterFile, node: int) -> Security:
    """Return how a node connects with the others. It reads files. Raises CertificateError, see `load_security`."""
    files = file.peer_files(node)
    return Plain() if files is None else MutualTls(load_peer(files, file.cluster, node), file.cluster)


@contextlib.asynccontextmanager
async def open_host(options: ServeOptions, trace: Trace, security: Security) -> AsyncIterator[LocalCluster]:
    """Run one node of a cluster, and its links to the others, for as long as the context lasts.

    Args:
        options: those of `for_host`.
        trace: takes all events.
        security: see `load_security`.

    Raises:
        StorageError: its data directory can't be used.

    """
    file, node = _read(options)
    directory = await trio.to_thread.run_sync(partial(_open, file, node, options), abandon_on_cancel=True)
    random = SystemRandom()
    layout = layout_of(file, node)
    process = ClusterProcess.make(
        RealDisks(directory, trace),
        layout,
        ClusterConfig(raft=options.raft_config()),
        trace,
        random,
        secret=file.secret,
        security=security,
        is_host=True,
    )
    serve_commands(process.cluster, process.others)
    local = make_store(process.cluster, random, session_timeout_s=options.session_timeout_s)
    listeners = await _listen(*layout.addresses[node])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.run_links, listeners)
        async with running_in(directory, local):
            yield local
        nursery.cancel_scope.cancel()


def layout_of(file: ClusterFile, node: int) -> Layout:
    """Return the processes of a cluster, as the one knows them that has this node: each has the number of its own."""
    return Layout(
        node,
        {each: (each,) for each in file.nodes},
        {each: peer.address for each, peer in file.peers.items()},
    )


def _open(file: ClusterFile, node: int, options: ServeOptions) -> DataDirectory:
    """Open what lies on the disk. It may hang: for a thread."""
    return open_host_directory(
        Path(options.data_dir),
        cluster=file.cluster,
        nodes=len(file.nodes),
        node=node,
        segment_bytes=options.segment_bytes,
        is_synced=options.is_synced,
    )


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    """Open the port for the other nodes."""
    try:
        return await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as error:
        why = error if isinstance(error, socket.gaierror) else error.strerror or error
        raise StorageError(
            f"can't listen on {format_address((host, port))} for the other nodes: {str(why).lower()}.",
            "Its `peer` in the file must be an address of this host, and nobody else must listen there.",
        ) from error
