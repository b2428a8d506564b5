"""Servers that are made up, as metrics and health see them."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import trio

from trio_kv.cluster.statistics import ClusterStatistics, LinkStatistics, MemberStatistics, NodeStatistics
from trio_kv.control.lag import LoopLag
from trio_kv.control.views import Server
from trio_kv.meter.histogram import Histogram
from trio_kv.raft.voters import Voters
from trio_kv.trace.trace import Trace
from trio_kv.wire.node_status import State

NODES = 3


def some_durations() -> Histogram:
    histogram = Histogram()
    for number in range(100):
        histogram.note(0.00003 * number * number, number)
    return histogram


def running(node: int, **members: Any) -> MemberStatistics:
    """Return a node that runs; node 1 leads, unless that is said otherwise."""
    known: dict[str, Any] = {
        "role": "leader" if node == 1 else "follower",
        "leader": 1,
        "has_term_committed": node == 1,
        "is_rebuilding": False,
        "term": 3,
        "commit": 1000,
        "applied": 999,
        "log_first": 1,
        "log_last": 1001,
        "snapshot_index": 0,
        "leader_changes": 2,
        "proposals_pending": 1,
        "proposals_failed": 4,
        "reads_pending": 5,
        "keys": 10,
        "sessions": 1,
        "messages_lost": 6,
        "is_disk_full": False,
        "write_waits_s": 0.001,
        "syncs": some_durations(),
        "commits": some_durations(),
        "round_trips": {2: some_durations(), 3: some_durations()} if node == 1 else {},
        "disk_bytes": 1 << 40,
    }
    return member(node, NodeStatistics(**(known | members)))


def member(
    node: int,
    running: NodeStatistics | MemberStatistics | None = None,
    state: State = State.UP,
    *,
    is_loading: bool = False,
) -> MemberStatistics:
    if isinstance(running, MemberStatistics):
        running = running.running
    return MemberStatistics(node, state, "", is_loading, running)


def look(*members: MemberStatistics) -> ClusterStatistics:
    """Return how a cluster is with these nodes; those that are not named are well."""
    named = {each.node: each for each in members}
    all_members = tuple([named.get(node) or running(node) for node in range(1, NODES + 1)])
    links = (link(0, 1), link(1, 0, is_up=False))
    return ClusterStatistics(all_members, Voters(range(1, NODES + 1)), 7, 1, links)


def link(source: int, target: int, *, is_up: bool = True) -> LinkStatistics:
    """Return a link between processes."""
    return LinkStatistics(
        source=source,
        target=target,
        is_up=is_up,
        reason="" if is_up else "nobody answers",
        connects=3,
        bytes_sent=1000,
        bytes_received=500,
        messages_lost=2,
        round_trips=some_durations(),
    )


def door(**members: Any) -> Any:
    meter = SimpleNamespace(
        durations={"set": some_durations(), "get": some_durations()}, errors=Counter(missing=3, overloaded=1)
    )
    known = {"meter": meter, "connection_count": 4, "client_count": 9, "watch_count": 2, "is_stopping": False}
    return SimpleNamespace(**(known | members))


def server(cluster: ClusterStatistics, client_door: Any = None, trace: Trace | None = None) -> Server:
    return Server(
        "1.2.3", client_door or door(), lambda: cluster, trio.lowlevel.checkpoint, LoopLag(), trace or Trace()
    )
