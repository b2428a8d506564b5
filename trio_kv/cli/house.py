"""Opens the house from the ground up: directory, cluster, store, doors; and closes it from the top down."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

import attrs
import trio

from trio_kv.cli.options import ServeOptions
from trio_kv.cluster.cluster import Cluster
from trio_kv.cluster.config import ClusterConfig
from trio_kv.control.config import ControlConfig
from trio_kv.control.server import ControlDoor
from trio_kv.gateway.local import open_cluster
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.server import Proxy
from trio_kv.storage.errors import StorageError
from trio_kv.trace.trace import Trace


class StartError(Exception):
    """The store can't be opened; the message says why, and the way out, to a person."""


class House(Protocol):
    """An open store."""

    @property
    def port(self) -> int:
        """Port of the client door."""
        ...

    @property
    def control_port(self) -> int:
        """Port of the control door."""
        ...

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        ...

    @property
    def is_loading(self) -> bool:
        """Whether nodes still read what their disks hold."""
        ...

    async def wait_leader(self) -> int:
        """Wait until a node leads, and return it."""
        ...

    async def stop(self) -> None:
        """Take no new connections, answer what is left within 2 s, say so to all, close the doors."""
        ...


@attrs.frozen
class RaftHouse:
    """A cluster in this process, and its doors."""

    cluster: Cluster
    proxy: Proxy
    door: ControlDoor
    nodes: int
    port: int
    control_port: int

    @property
    def is_loading(self) -> bool:
        """Whether nodes still read what their disks hold."""
        return self.cluster.is_loading

    async def wait_leader(self) -> int:
        """Wait until a node leads, and return it."""
        return await self.cluster.wait_leader()

    async def stop(self) -> None:
        """Take no new connections, answer what is left within 2 s, say so to all, close the doors."""
        await self.proxy.stop()
        self.door.stop()


@asynccontextmanager
async def open_house(options: ServeOptions, trace: Trace) -> AsyncIterator[RaftHouse]:
    """Open the store that the options describe, and let it run as long as the block does.

    Raises:
        StartError: the directory or a port can't be had.

    """
    with _data_path(options) as path, _explain():
        async with (
            open_cluster(
                path,
                nodes=options.nodes,
                config=ClusterConfig(raft=options.raft_config()),
                session_timeout_s=options.session_timeout_s,
                segment_bytes=options.segment_bytes,
                is_synced=not (options.is_ephemeral or options.has_no_fsync),
                trace=trace,
            ) as local,
            trio.open_nursery() as nursery,
        ):
            proxy = Proxy(local.store, _proxy_config(options), trace)
            data_dir = None if options.is_ephemeral else path
            door = ControlDoor(
                local.cluster, ControlConfig(port=options.control_port, data_dir=data_dir), trace
            )
            port = await _open_door(nursery, proxy.serve, options.host, options.port, "--port")
            control_port = await _open_door(
                nursery, door.serve, "127.0.0.1", options.control_port, "--control-port"
            )
            yield RaftHouse(local.cluster, proxy, door, len(local.cluster.registry.nodes), port, control_port)
            nursery.cancel_scope.cancel()


async def _open_door(
    nursery: trio.Nursery, serve: Callable[..., Awaitable[object]], host: str, port: int, flag: str
) -> int:
    try:
        opened: int = await nursery.start(serve)
    except OSError as error:
        raise StartError(_explain_port(host, port, flag, error)) from error
    return opened


@contextmanager
def _explain() -> Iterator[None]:
    """Turn what keeps the data directory from being used into words for a person."""
    try:
        yield
    except StorageError as error:
        raise StartError(str(error)) from error


@contextmanager
def _data_path(options: ServeOptions) -> Iterator[Path]:
    """Give the directory to use: that of the options, or one that is removed at the end."""
    if not options.is_ephemeral:
        yield options.data_dir
        return
    try:
        directory = tempfile.TemporaryDirectory(prefix="trio_kv-")
    except OSError as error:
        raise StartError(
            f"there is no place for what an ephemeral store keeps until it ends: {error.strerror or error}."
            " TMPDIR names a directory for it"
        ) from error
    with directory as path:
        yield Path(path)


def _proxy_config(options: ServeOptions) -> ProxyConfig:
    return ProxyConfig(
        host=options.host,
        port=options.port,
        idle_timeout_s=options.idle_timeout_s,
        line_bytes_max=options.line_bytes_max,
        pending_bytes_max=options.pending_bytes_max,
    )


def _explain_port(host: str, port: int, flag: str, error: OSError) -> str:
    return (
        f"can't listen on {host}:{port}: {(error.strerror or str(error)).lower()}. {flag} 0 picks a free port"
    )
