"""A cluster inside a test: the real nodes, store and client door, in memory or on disk."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import attrs
import trio

from trio_kv.client.background import running_beside
from trio_kv.client.trio_client import TrioClient, open_client
from trio_kv.cluster.cluster import Cluster as Nodes
from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.faults import Faults
from trio_kv.gateway.local import LocalCluster, make_local, running
from trio_kv.gateway.local import open_cluster as open_on_disk
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.server import Proxy
from trio_kv.testing.disks import SEGMENT_BYTES, MemoryDisks
from trio_kv.testing.door import MemoryDoor
from trio_kv.trace.trace import Trace
from trio_kv.wire.node_status import State

NODES = 3
CONFIG = ClusterConfig(restart_delay_min_s=0.1, restart_delay_max_s=1.0)
"""What is the default here: a node that crashed comes back soon."""
HASTE = 20.0
"""So many times as fast runs the clock of the node that stands for election first, until somebody leads."""
LOOK_S = 0.005
"""How often it is looked whether nodes have caught up."""


@attrs.frozen
class Cluster:
    """A cluster of this test. `open_cluster` makes one."""

    __test__ = False  # no test, whatever the name of who imports it

    client: TrioClient
    """A client of its door."""
    faults: Faults
    """What can be broken: nodes, links and disks. See its methods; `heal` mends links and disks."""
    port: int | None
    """Of the client door on 127.0.0.1; None if it has none."""
    _nodes: Nodes
    _door: MemoryDoor

    @property
    def nodes(self) -> tuple[int, ...]:
        """The numbers of all nodes."""
        return tuple(self._nodes.registry.nodes)

    @property
    def leader(self) -> int | None:
        """The node that leads just now, if one does."""
        leader = self._nodes.registry.leader()
        return None if leader is None else leader.status.node

    def state(self, node: int) -> State:
        """Return how a node is: up, paused, crashed, stopped, ... Raises KeyError: there is none of that number."""
        return self._nodes.registry.nodes[node].state

    def open_client(self, **options: Any) -> AbstractAsyncContextManager[TrioClient]:
        """Open one more client of the cluster; options are those of `trio_kv.open_client`."""
        return open_client(**{"open_stream": self.open_stream, **options})

    async def open_stream(self, host: str = "", port: int = 0) -> trio.abc.Stream:
        """Open a connection to the client door, in memory, whatever the address: for whoever takes a way to connect.

        Raises:
            OSError: the cluster has ended.

        """
        return await self._door.open_stream(host, port)

    # What operates nodes

    def crash(self, node: int) -> None:
        """Let a node die as if its power failed; it comes back by itself. Raises FaultError: it does not run."""
        self.faults.crash(node)

    def stop(self, node: int) -> None:
        """Let a node die and stay down until `restart`. Raises FaultError: it does not run."""
        self._nodes.stop(node)

    def restart(self, node: int) -> None:
        """Start a node that is down, or let one that runs die and start again at once."""
        self._nodes.restart(node)

    def transfer(self, node: int) -> None:
        """Ask the leader to hand over to a node. Raises FaultError: nobody leads, or that node does."""
        self._nodes.transfer(node)

    def snapshot(self, node: int) -> None:
        """Let a node take a snapshot now. Raises FaultError: it does not run."""
        self._nodes.snapshot(node)

    async def rebuild(self, node: int) -> None:
        """Give a node that is stopped a new, empty disk, for the others to fill. Raises FaultError."""
        await self._nodes.rebuild(node)

    # What is waited for

    async def wait_leader(self) -> int:
        """Wait until a node leads; return it."""
        return await self._nodes.wait_leader()

    async def wait_up(self) -> None:
        """Wait until all nodes run."""
        while any(status.state is not State.UP for status in self._nodes.registry.nodes.values()):
            await self._nodes.registry.wait_change()

    async def wait_converged(self) -> None:
        """Wait until somebody leads and all nodes have carried out the same, all that there is in any log.

        Nodes that are on their way back are waited for; those that are paused, or stay down, are left out.
        """
        while not self._has_converged():  # noqa: ASYNC110 - nobody is told of each entry that a node carries out
            await trio.sleep(LOOK_S)

    def _has_converged(self) -> bool:
        self._nodes.status()  # It brings the numbers up to date.
        statuses = self._nodes.registry.nodes.values()
        states = {status.state for status in statuses}
        up = [status for status in statuses if status.state is State.UP]
        is_equal = len({(each.applied, each.digest) for each in up}) == 1
        is_whole = all(each.applied == each.log_last for each in up)
        return State.CRASHED not in states and self.leader is not None and is_equal and is_whole


@contextlib.asynccontextmanager
async def open_cluster(
    nodes: int = NODES,
    *,
    path: Path | None = None,
    port: int | None = None,
    config: ClusterConfig = CONFIG,
    session_timeout_s: float = 1000.0,
    trace: Trace | None = None,
) -> AsyncIterator[Cluster]:
    """Run a cluster for as long as the context lasts. It begins when a node leads and the client is connected.

    In memory it has neither files nor threads, so that a `trio.testing.MockClock` is its clock, too. What the body
    raises comes out as it is.

    Args:
        nodes: how many, 1 to 9.
        path: a data directory, which is made if it isn't there; None: disks in memory.
        port: opens the client door on this port of 127.0.0.1 as well; 0: on a free one, see `Cluster.port`.
        config: time-outs and limits.
        session_timeout_s: after how long without a write the cluster forgets a client's session.
        trace: takes all events.

    Raises:
        StorageError: the data directory can't be used, or its cluster has another number of nodes.
        OSError: the port can't be had.
        ValueError: no cluster can have so many nodes.

    """
    random, trace = Random(), trace or Trace()
    local = partial(
        _open_local,
        nodes,
        path,
        config=config,
        session_timeout_s=session_timeout_s,
        trace=trace,
        random=random,
    )
    opened: list[Cluster] = []
    is_open = trio.Event()

    async def run() -> None:
        async with _open_doors(local, port, trace) as cluster:
            opened.append(cluster)
            is_open.set()
            await trio.sleep_forever()

    async with running_beside(run):
        await is_open.wait()
        yield opened[0]


@contextlib.asynccontextmanager
async def _open_doors(
    open_local: Callable[[], AbstractAsyncContextManager[LocalCluster]], port: int | None, trace: Trace
) -> AsyncIterator[Cluster]:
    door = MemoryDoor()
    async with open_local() as local, trio.open_nursery() as nursery:
        proxy = Proxy(local.store, ProxyConfig(idle_timeout_s=0.0), trace, door.listen)
        await nursery.start(proxy.serve)
        if port is not None:
            port = await nursery.start(Proxy(local.store, ProxyConfig(port=port), trace).serve)
        await _elect(local.cluster)
        async with open_client(open_stream=door.open_stream) as client:
            yield Cluster(client, local.cluster.faults, port, local.cluster, door)
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def _open_local(
    nodes: int, path: Path | None, *, config: ClusterConfig, trace: Trace, random: Random, **options: Any
) -> AsyncIterator[LocalCluster]:
    common = {"config": config, "trace": trace, "random": random, **options}
    if path is not None:
        # Nothing has to outlive the machine here.
        async with open_on_disk(
            path, nodes=nodes, segment_bytes=SEGMENT_BYTES, is_synced=False, **common
        ) as local:
            yield local
        return
    disks = MemoryDisks(nodes, random)
    local = make_local(disks, **common)
    async with trio.open_nursery() as nursery:
        await nursery.start(disks.run)
        async with running(local):
            yield local
        nursery.cancel_scope.cancel()


async def _elect(nodes: Nodes) -> None:
    """Wait until somebody leads. Nobody waits for the time-out of the first election: one node's passes sooner."""
    first = min(nodes.registry.nodes)
    nodes.faults.skew_clock(first, HASTE)
    try:
        await nodes.wait_leader()
    finally:
        nodes.faults.skew_clock(first, 1.0)
