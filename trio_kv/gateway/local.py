"""A cluster of this process and its store, opened together: for the server, for tests and for Trio programs."""

import contextlib
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from random import Random, SystemRandom

import attrs
import trio

from trio_kv.cluster.cluster import Cluster
from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.disks import Disks, RealDisks
from trio_kv.gateway.raft import RaftStore
from trio_kv.kv.sessions import check_timeout
from trio_kv.storage.data_directory import DataDirectory, open_data_directory
from trio_kv.storage.errors import StorageError
from trio_kv.storage.segments import SEGMENT_BYTES, check_segment_bytes
from trio_kv.trace.trace import Trace
from trio_kv.transport.links import Links
from trio_kv.transport.memory import MemoryNetwork


@attrs.frozen
class LocalCluster:
    """What `open_cluster` opened."""

    store: RaftStore
    """Reads and writes; see `gateway.store.Store`."""
    cluster: Cluster
    """The nodes: their status, what operates them, and `faults`, which breaks them."""


@contextlib.asynccontextmanager
async def open_cluster(
    path: str | os.PathLike[str],
    *,
    nodes: int | None = None,
    config: ClusterConfig | None = None,
    session_timeout_s: float = 1000.0,
    segment_bytes: int = SEGMENT_BYTES,
    is_synced: bool = True,
    trace: Trace | None = None,
    random: Random | None = None,
) -> AsyncIterator[LocalCluster]:
    """Run a cluster in this process for as long as the context lasts.

    Args:
        path: its data directory; made at the first start.
        nodes: how many nodes, 1 to 9; fixed at the first start, 5 if not said there.
        config: time-outs and limits.
        session_timeout_s: after how long without a write the cluster forgets a session; see `RaftStore`.
        segment_bytes: size of a segment of the log.
        is_synced: whether writes are synced before they are acknowledged. False is for tests.
        trace: takes all events.
        random: draws time-outs, coins and ids.

    Raises:
        StorageError: the data directory can't be used; the text says why and what to do.
        ValueError: `session_timeout_s` is out of its range, or segments can't have that size.

    """
    check_timeout(session_timeout_s)
    check_segment_bytes(segment_bytes)
    source = SystemRandom() if random is None else random
    trace = trace or Trace()
    directory = await open_directory(
        Path(path), random=source, nodes=nodes, segment_bytes=segment_bytes, is_synced=is_synced
    )
    made = make_local(
        RealDisks(directory, trace),
        config=config or ClusterConfig(),
        session_timeout_s=session_timeout_s,
        trace=trace,
        random=source,
    )
    async with running_in(directory, made):
        yield made


async def open_directory(
    path: Path, *, random: Random, nodes: int | None, segment_bytes: int, is_synced: bool
) -> DataDirectory:
    """Open a data directory in a thread; see `open_data_directory`.

    Raises:
        StorageError: it can't be used; the text says why and what to do.

    """
    opening = partial(
        open_data_directory,
        path,
        random=random,
        nodes=nodes,
        segment_bytes=segment_bytes,
        is_synced=is_synced,
    )
    try:
        # A disk that hangs keeps nobody from giving up: what the thread opened by then ends with the process.
        return await trio.to_thread.run_sync(opening, abandon_on_cancel=True)
    except OSError as error:
        message = f"the data directory {path} can't be used: {error.strerror or error}"
        raise StorageError(message, "choose another one, or make it writable") from error


@contextlib.asynccontextmanager
async def running_in(directory: DataDirectory, local: LocalCluster) -> AsyncIterator[None]:
    """Let a cluster run for as long as the context lasts, and then close its data directory."""
    try:
        async with running(local):
            yield
    finally:
        # A thread that was left behind may write when its disk moves again: the lock ends with it, and the process.
        if not local.cluster.is_disk_abandoned:
            directory.close()


def make_local(
    disks: Disks, *, config: ClusterConfig, session_timeout_s: float, trace: Trace, random: Random
) -> LocalCluster:
    """Make a cluster of nodes that have disks, and its store; neither runs yet. See `open_cluster`."""
    network = MemoryNetwork(Links(Random(random.getrandbits(64))))
    cluster = Cluster(disks, config, trace, random, network)
    return make_store(cluster, random, session_timeout_s=session_timeout_s)


def make_store(cluster: Cluster, random: Random, *, session_timeout_s: float) -> LocalCluster:
    """Return a cluster with a store of its own; neither runs yet."""
    # The system's own source costs a system call for each toss of the coin: it seeds a quick one.
    coin = Random(random.getrandbits(64))
    store = RaftStore(cluster.registry, coin, session_timeout_s=session_timeout_s, secrets=random)
    return LocalCluster(store, cluster)


@contextlib.asynccontextmanager
async def running(local: LocalCluster) -> AsyncIterator[None]:
    """Let a cluster and its store run for as long as the context lasts."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(local.cluster.run)
        await nursery.start(local.store.run)
        yield
        nursery.cancel_scope.cancel()
