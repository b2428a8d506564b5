"""A whole store behind its client door, in the process of the test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from trio_kv.gateway.local import LocalCluster, open_cluster
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.server import Proxy
from trio_kv.trace.trace import Trace


@asynccontextmanager
async def open_store(
    path: Path, *, nodes: int = 3, config: ProxyConfig | None = None
) -> AsyncIterator[tuple[LocalCluster, int]]:
    """Open a cluster and its client door; give its port."""
    async with (
        open_cluster(path, nodes=nodes, is_synced=False) as local,
        trio.open_nursery() as nursery,
    ):
        await local.cluster.wait_leader()
        proxy = Proxy(local.store, config or ProxyConfig(port=0), Trace())
        port: int = await nursery.start(proxy.serve)
        yield local, port
        nursery.cancel_scope.cancel()
