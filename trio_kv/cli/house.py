"""Opens the house from the ground up: directory, cluster, store, doors; and closes it from the top down."""

import errno
import importlib
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import SystemRandom

import attrs
import trio

from trio_kv import __version__
from trio_kv.cli.access import Access, AccessError, open_access
from trio_kv.cli.failures import explain_os_error
from trio_kv.cli.options import ServeOptions, show_address
from trio_kv.cli.processors import choose_processors, kept_to
from trio_kv.client.control import NoDoorError, find_door
from trio_kv.cluster.cluster import Cluster
from trio_kv.cluster.config import ClusterConfig
from trio_kv.control import seen
from trio_kv.control.config import ControlConfig
from trio_kv.control.feed import FrameFeed
from trio_kv.control.http import Routes
from trio_kv.control.lag import LoopLag
from trio_kv.control.server import ControlDoor
from trio_kv.control.static import page_routes
from trio_kv.control.views import Server
from trio_kv.gateway.local import LocalCluster, open_cluster
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.limits import VALUE_BYTES_LIMIT, Limits
from trio_kv.proxy.server import Proxy
from trio_kv.proxy.sockets import BACKLOG_MAX, bind_host
from trio_kv.storage.errors import StorageError
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import AccessReloaded, AccessReloadFailed

UNPRIVILEGED_PORT = 1024
"""Ports below it are for root, unless the system is told otherwise."""
REMOVED_S = 1.0
"""How long the end waits until a directory that nothing is kept in is removed."""


class StartError(Exception):
    """The store can't be opened; the message says why, and the way out, to a person."""


@attrs.frozen
class House:
    """A cluster in this process, and its doors."""

    _cluster: Cluster
    _proxy: Proxy
    _door: ControlDoor
    _access: Access
    _trace: Trace
    nodes: int
    """How many nodes there are."""
    port: int
    """Of the client door."""
    control_port: int

    @property
    def is_loading(self) -> bool:
        """Whether nodes still read what their disks hold."""
        return self._cluster.is_loading

    def page_address(self, *, has_token: bool) -> str:
        """Return the dashboard's address: with its token, or without."""
        return self._door.page_address(has_token=has_token)

    @property
    def own_directory(self) -> Path:
        """Where files lie that are for the server's user alone."""
        return self._door.file_directory

    async def wait_leader(self) -> int:
        """Wait until a node leads, and return it."""
        return await self._cluster.wait_leader()

    async def reload(self) -> None:
        """Read tokens and certificates anew. Where a file can't be used, what there was stays in force."""
        access, proxy, door = self._access, self._proxy, self._door
        try:
            read = await trio.to_thread.run_sync(access.read, abandon_on_cancel=True)
        except AccessError as error:
            self._trace.emit(AccessReloadFailed(str(error)))
            return
        if access.credentials is not None and read.loaded is not None:
            access.credentials.replace(read.loaded)
            try:
                await trio.to_thread.run_sync(door.tell_certificate)
            except OSError as error:
                why = f"certificates are in force, and trio-kv ctl is not told: {explain_os_error(error)}"
                self._trace.emit(AccessReloadFailed(why))
        access.replace_peers(read)
        if read.tokens is not None:
            proxy.change_tokens(read.tokens)
        names = [] if read.tokens is None else sorted(holder.name for holder in read.tokens.values())
        self._trace.emit(AccessReloaded(tuple(names), has_tls=read.loaded is not None))

    async def stop(self) -> None:
        """Take no new connections, answer what is left within 2 s, say so to all, close the doors."""
        await self._proxy.stop()
        self._door.stop()


@asynccontextmanager
async def open_house(options: ServeOptions, trace: Trace) -> AsyncIterator[House]:
    """Open the store that the options describe, and let it run as long as the block does.

    Raises:
        StartError: the directory or a port can't be had.

    """
    # The ports come first: what is in use already is known before anything is made.
    access = await _open_access(options)
    with ExitStack() as sockets:
        client_sockets = await _bind(sockets, options, options.host, options.port, "--port")
        control_sockets = await _bind(
            sockets, options, options.control_host, options.control_port, "--control-port"
        )
        async with _open_cluster(options, trace, access) as (local, path), trio.open_nursery() as nursery:
            proxy = Proxy(
                local.store,
                _proxy_config(options),
                trace,
                tokens=access.tokens,
                credentials=access.credentials,
            )
            config = ControlConfig(
                host=options.control_host,
                port=options.control_port,
                data_dir=None if options.is_ephemeral else path,
            )
            feed = FrameFeed(local.cluster, proxy, trace)
            await nursery.start(feed.run)
            lag = LoopLag()
            nursery.start_soon(lag.run)
            server = Server(__version__, proxy, local.cluster.statistics, local.cluster.refresh, lag, trace)
            door = ControlDoor(
                local.cluster,
                config,
                trace,
                access.credentials,
                routes=await _routes(server),
                opens=proxy.knows_token,
                feed=feed,
                store=local.store,
            )
            _listen(client_sockets, options, "--port")
            _listen(control_sockets, options, "--control-port")
            port: int = await nursery.start(proxy.serve, client_sockets)
            try:
                control_port: int = await nursery.start(door.serve, control_sockets)
            except OSError as error:
                raise StartError(_explain_control_file(config, error)) from error
            nodes = len(local.cluster.registry.nodes)
            yield House(local.cluster, proxy, door, access, trace, nodes, port, control_port)
            nursery.cancel_scope.cancel()


async def _routes(server: Server) -> Routes:
    """Return all that the control door serves beside its WebSocket."""
    page = await trio.to_thread.run_sync(page_routes, abandon_on_cancel=True)
    return {**page, **seen.routes(server)}


async def _bind(
    stack: ExitStack, options: ServeOptions, host: str, port: int, flag: str
) -> list[socket.socket]:
    try:
        bound = await bind_host(host, port)
    except OSError as error:
        raise StartError(_explain_port(options, host, port, flag, error)) from error
    for sock in bound:
        stack.enter_context(sock)
    return bound


def _listen(bound: Sequence[socket.socket], options: ServeOptions, flag: str) -> None:
    for sock in bound:
        host, port = sock.getsockname()[:2]
        try:
            sock.listen(BACKLOG_MAX)
        except OSError as error:
            raise StartError(_explain_port(options, host, port, flag, error)) from error


async def _open_access(options: ServeOptions) -> Access:
    try:
        return await trio.to_thread.run_sync(open_access, options, abandon_on_cancel=True)
    except AccessError as error:
        raise StartError(str(error)) from error


@asynccontextmanager
async def _open_cluster(
    options: ServeOptions, trace: Trace, access: Access
) -> AsyncIterator[tuple[LocalCluster, Path]]:
    """Open the cluster in its data directory; give both."""
    processors = choose_processors(options.pin, options.processes, SystemRandom())
    try:
        with kept_to(processors[0] if processors else None, trace):
            async with (
                _data_path(options) as path,
                _open_nodes(path, options, trace, access, processors) as local,
            ):
                yield local, path
    except StorageError as error:
        raise StartError(str(error)) from error


def _open_nodes(
    path: Path, options: ServeOptions, trace: Trace, access: Access, processors: Sequence[int]
) -> AbstractAsyncContextManager[LocalCluster]:
    """Open the cluster in this process, or in this one and others."""
    # Loaded when it is needed: most servers have one process.
    if options.cluster is not None:
        host = importlib.import_module("trio_kv.cli.host")
        alone: AbstractAsyncContextManager[LocalCluster] = host.open_host(options, trace, access.security)
        return alone
    if options.processes > 1:
        processes = importlib.import_module("trio_kv.cli.processes")
        spread: AbstractAsyncContextManager[LocalCluster] = processes.open_processes(
            path, options, trace, processors
        )
        return spread
    return open_cluster(
        path,
        nodes=options.nodes,
        config=ClusterConfig(raft=options.raft_config()),
        session_timeout_s=options.session_timeout_s,
        segment_bytes=options.segment_bytes,
        is_synced=options.is_synced,
        trace=trace,
    )


@asynccontextmanager
async def _data_path(options: ServeOptions) -> AsyncIterator[Path]:
    """Give the directory to use: that of the options, or one that is removed at the end, unless its disk hangs."""
    if not options.is_ephemeral:
        yield options.data_dir
        return
    try:
        path = Path(tempfile.mkdtemp(prefix="trio_kv-"))
    except OSError as error:
        why = explain_os_error(error, tempfile.tempdir)
        raise StartError(f"no place for the data of --ephemeral: {why}. TMPDIR names another") from error
    try:
        yield path
    finally:
        with trio.move_on_after(REMOVED_S, shield=True):
            remove = partial(shutil.rmtree, path, ignore_errors=True)
            await trio.to_thread.run_sync(remove, abandon_on_cancel=True)


def _proxy_config(options: ServeOptions) -> ProxyConfig:
    return ProxyConfig(
        host=options.host,
        port=options.port,
        idle_timeout_s=options.idle_timeout_s,
        line_bytes_max=options.line_bytes_max,
        pending_bytes_max=options.pending_bytes_max,
        connections_max=options.connections_max,
        watches_max=options.watches_max,
        limits=Limits(
            options.key_bytes_max, options.value_bytes_max or VALUE_BYTES_LIMIT, options.page_items_max
        ),
    )


def _explain_port(options: ServeOptions, host: str, port: int, flag: str, error: OSError) -> str:
    """Return why a port can't be had, and what would do; each cause has an advice of its own."""
    why = (error.strerror or str(error)).lower()
    match error.errno:
        case errno.EADDRINUSE:
            advice = f"{_running_server(options)}{flag} 0 picks a free port"
        case errno.EACCES | errno.EPERM if port < UNPRIVILEGED_PORT:
            advice = f"ports below 1024 are root's: name another with {flag}"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT | errno.EPROTONOSUPPORT:
            advice = "it is no address of this machine: name one that is with --host, such as 127.0.0.1"
        case errno.EMFILE | errno.ENFILE:
            advice = "raise the limit of open files with ulimit -n"
        case _ if isinstance(error, socket.gaierror):
            advice = "name an address of this machine with --host, such as 127.0.0.1"
        case _:
            advice = f"--host and {flag} name another place"
    return f"can't listen on {show_address(host, port)}: {why}; {advice}"


def _running_server(options: ServeOptions) -> str:
    """Return a sentence on the server that has the data directory already, if there is one."""
    if options.is_ephemeral:
        return ""
    try:
        door = find_door(options.data_dir, None)
    except NoDoorError:
        return ""
    return f"process {door.pid} is a server that runs already, "


def _explain_control_file(config: ControlConfig, error: OSError) -> str:
    if error.strerror is None:
        return str(error)
    place = (
        explain_os_error(error) if config.data_dir is None else f"{config.data_dir}: {error.strerror.lower()}"
    )
    return f"the file by which `trio-kv ctl` finds the server can't be written: {place}"
