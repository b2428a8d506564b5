"""What a real cluster tells of itself to probes and scrapers, while it is broken and mended."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import attrs
import trio
from msgspec import Raw
from prometheus_client.parser import text_string_to_metric_families

from tests.looks import door
from trio_kv.control import seen
from trio_kv.control.http import Request, Routes
from trio_kv.control.lag import LoopLag
from trio_kv.control.views import Server
from trio_kv.gateway.local import LocalCluster, open_cluster
from trio_kv.kv.operations import Set
from trio_kv.trace.trace import Trace

WAIT_S = 30.0
"""A condition that does not come true within this time fails the test."""
NODES = 3
SEGMENT_BYTES = 1 << 20
ONE = Raw(b"1")

T = TypeVar("T")


@attrs.frozen
class Watched:
    """A cluster, and who looks at it."""

    local: LocalCluster
    routes: Routes

    async def ask(self, path: str, **query: list[str]) -> tuple[int, str]:
        """Return status and body of an answer."""
        response = await self.routes[path].handler(Request(query, {}))
        return response.status, response.body.decode()

    async def is_ready(self, **query: list[str]) -> bool:
        return (await self.ask("/readyz", **query))[0] == 200

    async def eventually(self, part: str) -> tuple[int, str]:
        """Wait until that is among what is told of readiness; return status and body of that answer."""
        return await wait_for(lambda: self.ask("/readyz", verbose=[""]), lambda told: part in told[1])

    async def figures(self, name: str) -> dict[str, float]:
        """Return the samples of this name, by node."""
        families = text_string_to_metric_families((await self.ask("/metrics"))[1])
        samples = [sample for family in families for sample in family.samples]
        return {sample.labels.get("node", ""): sample.value for sample in samples if sample.name == name}


async def wait_for(ask: Callable[[], Awaitable[T]], is_it: Callable[[T], bool]) -> T:
    with trio.fail_after(WAIT_S):
        while not is_it(told := await ask()):  # noqa: ASYNC110 - a probe asks again, and is not called
            await trio.sleep(0.01)
    return told


@asynccontextmanager
async def open_watched(path: Path, nodes: int = NODES) -> AsyncIterator[Watched]:
    """Run a cluster that all nodes of take part in."""
    async with open_cluster(path, nodes=nodes, segment_bytes=SEGMENT_BYTES, is_synced=False) as local:
        server = Server("1.2.3", door(), local.cluster.statistics, local.cluster.refresh, LoopLag(), Trace())
        watched = Watched(local, seen.routes(server))
        await watched.eventually(f"quorum ok: of {nodes} nodes, {nodes} run")
        await wait_for(watched.is_ready, bool)
        yield watched


async def write(local: LocalCluster, count: int, value: Raw = ONE) -> None:
    for number in range(count):
        answer = await local.store.write([Set(f"k{number}", value)], timeout_s=WAIT_S)
        assert answer.replies[0].code == "ok"


async def test_a_cluster_is_ready_as_long_as_a_majority_is(tmp_path: Path) -> None:
    """A minority may be down; a majority may not, and whoever comes back is counted again. It lives all the while."""
    async with open_watched(tmp_path) as watched:
        cluster = watched.local.cluster
        leader = await cluster.wait_leader()
        first, second = [node for node in range(1, NODES + 1) if node != leader]
        cluster.stop(first)
        await watched.eventually(f"quorum ok: of 3 nodes, 2 run (node {first} is stopped)")
        assert await watched.is_ready()
        cluster.stop(second)
        told = await watched.eventually("quorum failed: of 3 nodes, 1 runs")
        assert told[0] == 503
        assert await watched.ask("/livez") == (200, "ok\n")
        (third,) = {1, 2, 3} - {first, second}
        await wait_for(lambda: watched.figures("trio_kv_raft_term"), lambda terms: set(terms) == {str(third)})
        ups = await watched.figures("trio_kv_node_up")
        assert ups == {str(first): 0, str(second): 0, str(third): 1}
        cluster.restart(first)
        await watched.eventually("leader ok")
        await wait_for(watched.is_ready, bool)


async def test_a_majority_of_full_disks_is_not_ready(tmp_path: Path) -> None:
    """It serves reads still: who asks for no more than that leaves the check out."""
    async with open_watched(tmp_path) as watched:
        cluster = watched.local.cluster
        for node in (1, 2):
            cluster.faults.fill_disk(node)
        # A disk is known to be full when the next segment of the log can't be made, at a quarter of this one.
        await write(watched.local, 2, Raw(b'"%b"' % (b"x" * 200_000)))
        told = await watched.eventually("disk failed: of 3 nodes, 1 takes writes")
        assert "node 1 has a full disk; node 2 has a full disk" in told[1]
        assert not await watched.is_ready()
        assert await watched.is_ready(exclude=["disk"])
        assert await watched.figures("trio_kv_disk_is_full") == {"1": 1, "2": 1, "3": 0}
        cluster.faults.heal()
        await wait_for(watched.is_ready, bool)


async def test_a_paused_leader_leads_nobody(tmp_path: Path) -> None:
    """As long as no other is elected nobody leads, whatever the one that stands still believes."""
    async with open_watched(tmp_path, nodes=1) as watched:
        cluster = watched.local.cluster
        cluster.faults.pause(1)
        await watched.eventually("[-]leader failed: no node leads; paused: node 1")
        cluster.faults.resume(1)
        await wait_for(watched.is_ready, bool)


async def test_what_nodes_do_is_counted(tmp_path: Path) -> None:
    """Entries, commits, round trips and changes of the leader are counted by the nodes that see them."""
    async with open_watched(tmp_path) as watched:
        cluster = watched.local.cluster
        await write(watched.local, 20)
        commits = await watched.figures("trio_kv_server_commit_duration_seconds_count")
        committed = await watched.figures("trio_kv_server_proposals_committed_total")
        # Beside the writes there are entries that open terms, and the gateway's session; each is timed by its leader.
        assert 22 <= sum(commits.values()) <= max(committed.values())
        assert max((await watched.figures("trio_kv_kv_keys")).values()) == 20
        bytes_written = await watched.figures("trio_kv_disk_wal_write_bytes_total")
        assert max(bytes_written.values()) >= 20 * 512
        await wait_for(
            lambda: watched.figures("trio_kv_network_peer_round_trip_time_seconds_count"),
            lambda trips: sum(trips.values()) > 0,
        )
        before = await watched.figures("trio_kv_server_leader_changes_seen_total")
        assert set(before) == {"1", "2", "3"}
        cluster.transfer(await cluster.wait_leader() % NODES + 1)
        await wait_for(
            lambda: watched.figures("trio_kv_server_leader_changes_seen_total"),
            lambda now: all(now[node] > before[node] for node in before),
        )


async def test_a_reply_that_comes_after_the_next_heartbeat_is_counted(tmp_path: Path) -> None:
    """Peers that are slow are to be seen, so what is late must not be left out."""
    async with open_watched(tmp_path) as watched:
        cluster = watched.local.cluster

        async def slow() -> dict[int, bool]:
            """Return for each peer of a leader whether a reply took over the 0.15 s that raise an alert."""
            nodes = [each.running for each in cluster.statistics().members if each.running is not None]
            trips = {peer: trips for node in nodes for peer, trips in node.round_trips.items()}
            return {peer: (trips.quantile(1.0) or 0.0) > 0.15 for peer, trips in trips.items()}

        await wait_for(slow, lambda peers: len(peers) >= NODES - 1)
        cluster.faults.delay(0.08)
        await wait_for(slow, lambda peers: sum(peers.values()) >= NODES - 1)


async def test_proposals_that_fail_at_a_node_are_counted(tmp_path: Path) -> None:
    """A leader that loses its lead with writes under way can't tell their fate; it is no error of the client."""
    async with open_watched(tmp_path) as watched:
        cluster = watched.local.cluster
        leader = await cluster.wait_leader()
        # Cut off, it takes writes and commits none, until it notices that it hears nobody.
        others = [node for node in range(1, NODES + 1) if node != leader]
        cluster.faults.partition([[leader], others])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, watched.local, 1)
            await wait_for(
                lambda: watched.figures("trio_kv_server_proposals_failed_total"),
                lambda failed: failed[str(leader)] >= 1,
            )
            cluster.faults.heal()
