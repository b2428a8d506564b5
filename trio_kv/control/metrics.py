"""The metrics, in the formats of Prometheus: what everybody has counted, put into words when somebody asks.

prometheus_client is known here alone. Nothing is counted with it: its own counters cost several times as much, and
would be all over the house. Names are those by which dashboards of etcd know the same things, with our prefix; a series
of a node has its label `node`, for without it Prometheus keeps one of several nodes, and says nothing.

This module is imported when metrics are first asked for, since prometheus_client takes a quarter of a second.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf

import trio
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from trio_kv.cluster.statistics import ClusterStatistics, LinkStatistics, NodeStatistics
from trio_kv.control.response import Response
from trio_kv.control.views import Server
from trio_kv.meter.histogram import Histogram
from trio_kv.raft.leader import Leader
from trio_kv.trace.lines import LineSink
from trio_kv.wire.node_status import State

PREFIX = "trio_kv_"
OPEN_METRICS_END = b"# EOF\n"

Read = Callable[[NodeStatistics], float]

NODE_GAUGES: tuple[tuple[str, str, Read], ...] = (
    ("server_has_leader", "Whether the node knows who leads.", lambda node: node.leader is not None),
    ("server_is_leader", "Whether the node leads.", lambda node: node.role == Leader.name),
    (
        "server_proposals_pending",
        "Runs of writes that wait here to be committed and applied.",
        lambda node: node.proposals_pending,
    ),
    ("server_reads_pending", "Runs of reads that wait here for an answer.", lambda node: node.reads_pending),
    ("raft_term", "The node's term.", lambda node: node.term),
    ("raft_log_first_index", "Index of the first entry in the node's log.", lambda node: node.log_first),
    ("raft_log_last_index", "Index of the last entry in the node's log.", lambda node: node.log_last),
    (
        "raft_snapshot_index",
        "The last entry in the node's newest snapshot.",
        lambda node: node.snapshot_index,
    ),
    (
        "raft_is_rebuilding",
        "Whether the node is filled by the others, and counts for nothing until then.",
        lambda node: node.is_rebuilding,
    ),
    ("kv_keys", "Keys that the node holds.", lambda node: node.keys),
    ("kv_sessions", "Sessions of clients and gateways that the node knows.", lambda node: node.sessions),
    (
        "disk_is_full",
        "Whether the node's disk has no more room than what is reserved.",
        lambda node: node.is_disk_full,
    ),
    (
        "disk_write_wait_seconds",
        "For how long the oldest write has been waiting for the node's disk.",
        lambda node: node.write_waits_s,
    ),
)
NODE_COUNTERS: tuple[tuple[str, str, Read], ...] = (
    (
        "server_leader_changes_seen_total",
        "How often the node heard of another leader.",
        lambda node: node.leader_changes,
    ),
    (
        "server_proposals_committed_total",
        "Log entries that the node knows to be committed: its commit index.",
        lambda node: node.commit,
    ),
    ("server_proposals_applied_total", "Log entries that the node has applied.", lambda node: node.applied),
    (
        "server_proposals_failed_total",
        "Runs of writes that the node refused, or whose fate it can't tell.",
        lambda node: node.proposals_failed,
    ),
    (
        "network_peer_received_failures_total",
        "Messages of peers for which the node had no room.",
        lambda node: node.messages_lost,
    ),
    ("disk_wal_write_bytes_total", "Bytes written to the node's log.", lambda node: node.disk_bytes),
)
NODE_HISTOGRAMS: tuple[tuple[str, str, Callable[[NodeStatistics], Histogram]], ...] = (
    (
        "disk_wal_fsync_duration_seconds",
        "How long the syncs of the node's log took.",
        lambda node: node.syncs,
    ),
    (
        "server_commit_duration_seconds",
        "From when the node, leading, appended an entry until it was committed.",
        lambda node: node.commits,
    ),
)

LINK_COUNTERS = (
    ("link_connects_total", "Connections that a process has opened to another one."),
    ("link_sent_bytes_total", "Bytes that a process has sent to another one, unasked."),
    ("link_received_bytes_total", "Bytes of answers that a process got from another one."),
    ("link_lost_messages_total", "Messages of Raft that found no room on the link, or no connection."),
)


class ServerCollector(Collector):
    """Looks at a server and tells what it sees.

    Args:
        server: the server.

    """

    def __init__(self, server: Server) -> None:
        """Look at nothing yet."""
        self._server = server

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of a look taken now."""
        cluster = self._server.look_at_cluster()
        yield from _of_cluster(cluster)
        yield from _of_nodes({str(each.node): each.running for each in cluster.members if each.running})
        yield from self._of_door()
        yield from self._of_process()

    def _of_door(self) -> Iterator[Metric]:
        door = self._server.door
        yield _gauge("client_connections", "Connections of clients that are open.", door.connection_count)
        yield _counter(
            "client_connections_accepted_total",
            "Clients that came, those sent away included.",
            door.client_count,
        )
        yield _gauge("client_watches", "Watches that are open.", door.watch_count)
        name, text = (
            "client_request_duration_seconds",
            "From when a run of requests was taken up until its answer.",
        )
        durations = HistogramMetricFamily(PREFIX + name, text, labels=["operation"])
        for operation, histogram in sorted(door.meter.durations.items()):
            _add(durations, [operation], histogram)
        yield durations
        errors = CounterMetricFamily(
            f"{PREFIX}client_errors", "Answers of the store that were no success.", labels=["error"]
        )
        for error, count in sorted(door.meter.errors.items()):
            errors.add_metric([error], count)
        yield errors

    def _of_process(self) -> Iterator[Metric]:
        server = self._server
        yield _counter("trace_events_total", "Events that were told to somebody.", server.trace.event_count)
        lost = CounterMetricFamily(
            f"{PREFIX}trace_lost_lines", "Lines of the log or the trace that were dropped.", labels=["sink"]
        )
        # Two sinks of one writer have one series.
        writers = {sink.writer.name: sink.writer for sink in server.trace.sinks if isinstance(sink, LineSink)}
        for name, writer in writers.items():
            lost.add_metric([name], writer.statistics().lost)
        yield lost
        lag = HistogramMetricFamily(
            f"{PREFIX}runtime_loop_lag_seconds", "How late the event loop woke a task."
        )
        _add(lag, [], server.lag.delays)
        yield lag
        build = GaugeMetricFamily(f"{PREFIX}build_info", "Which version runs; always 1.", labels=["version"])
        build.add_metric([server.version], 1)
        yield build


def _of_cluster(cluster: ClusterStatistics) -> Iterator[Metric]:
    yield _gauge("cluster_nodes", "Nodes of the cluster, those that are down included.", len(cluster.members))
    yield _gauge(
        "cluster_quorum_size", "So many nodes it takes to decide anything.", cluster.voters.majority_size()
    )
    yield _gauge("cluster_faults_active", "Faults that were asked for and are not healed.", cluster.faults)
    yield _counter(
        "network_lost_messages_total", "Messages between nodes that did not arrive.", cluster.messages_lost
    )
    yield from _of_links(cluster.links)
    ups = GaugeMetricFamily(f"{PREFIX}node_up", "Whether the node runs, and is not paused.", labels=["node"])
    states = GaugeMetricFamily(
        f"{PREFIX}node_state", "1 for the state in which the node is.", labels=["node", "state"]
    )
    for member in cluster.members:
        ups.add_metric([str(member.node)], member.state is State.UP and member.running is not None)
        for state in State:
            states.add_metric([str(member.node), state.value], member.state is state)
    yield ups
    yield states


def _of_links(links: Iterable[LinkStatistics]) -> Iterator[Metric]:
    """Yield what there is of links between processes."""
    labels = ["from", "to"]
    ups = GaugeMetricFamily(f"{PREFIX}link_up", "Whether a process can speak to another one.", labels=labels)
    trips = HistogramMetricFamily(
        f"{PREFIX}link_round_trip_time_seconds", "From a ping until its answer was here.", labels=labels
    )
    counters = {
        name: CounterMetricFamily(f"{PREFIX}{name}", text, labels=labels) for name, text in LINK_COUNTERS
    }
    for link in links:
        ends = [str(link.source), str(link.target)]
        ups.add_metric(ends, link.is_up)
        _add(trips, ends, link.round_trips)
        counts = (link.connects, link.bytes_sent, link.bytes_received, link.messages_lost)
        for counter, count in zip(counters.values(), counts, strict=True):
            counter.add_metric(ends, count)
    yield ups
    yield trips
    yield from counters.values()


def _of_nodes(nodes: Mapping[str, NodeStatistics]) -> Iterator[Metric]:
    for name, text, read in NODE_GAUGES:
        gauge = GaugeMetricFamily(PREFIX + name, text, labels=["node"])
        for label, node in nodes.items():
            gauge.add_metric([label], read(node))
        yield gauge
    for name, text, read in NODE_COUNTERS:
        counter = CounterMetricFamily(PREFIX + name, text, labels=["node"])
        for label, node in nodes.items():
            counter.add_metric([label], read(node))
        yield counter
    for name, text, find in NODE_HISTOGRAMS:
        histogram = HistogramMetricFamily(PREFIX + name, text, labels=["node"])
        for label, node in nodes.items():
            _add(histogram, [label], find(node))
        yield histogram
    trips = HistogramMetricFamily(
        f"{PREFIX}network_peer_round_trip_time_seconds",
        "From a heartbeat of the node, leading, until the peer's reply was here.",
        labels=["node", "peer"],
    )
    for label, node in nodes.items():
        for peer, histogram_of_peer in sorted(node.round_trips.items()):
            _add(trips, [label, str(peer)], histogram_of_peer)
    yield trips


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value)


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    buckets = [
        ("+Inf" if bound == inf else str(bound), float(count)) for bound, count in histogram.cumulative()
    ]
    family.add_metric(labels, buckets, histogram.total)


def make_registry(server: Server) -> CollectorRegistry:
    """Return a registry of a server's own: programs that embed several don't see one in another's metrics."""
    registry = CollectorRegistry()
    registry.register(ServerCollector(server))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


async def encode(registry: CollectorRegistry, accept: str) -> Response:
    """Return what a scraper gets, in the format that prometheus_client chooses by its `Accept` header.

    All of it takes some 10 ms: others have their turn behind each metric.
    """
    try:
        encoder, content_type = choose_encoder(accept)
    except TypeError:
        # A version that is no number.
        encoder, content_type = choose_encoder("")
    parts = []
    for metric in registry.collect():
        parts.append(encoder(_One(metric)).removesuffix(OPEN_METRICS_END))
        await trio.lowlevel.checkpoint()
    if content_type.startswith("application/openmetrics-text"):
        parts.append(OPEN_METRICS_END)
    return Response(200, b"".join(parts), content_type)


class _One(Collector):
    """A metric, collected already."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return [self._metric]
