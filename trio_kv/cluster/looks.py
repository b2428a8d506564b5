"""What is to be seen of a cluster from outside, as the dashboard shows it: plain data, taken at one moment.

It only looks: nothing here changes a node, and no node knows of it.
"""

from collections.abc import Iterable

import trio

from trio_kv.cluster.faults import Faults
from trio_kv.cluster.members import Member
from trio_kv.cluster.node import Node
from trio_kv.transport.links import LinkFault, Links
from trio_kv.wire.node_status import NodeStatus

SOUND = LinkFault()


def look_at_node(member: Member, faults: Faults) -> dict[str, object]:
    """Return what a node looks like. Numbers of one that is down are those that it had last."""
    running, status = member.node, member.status
    if running is not None:
        running.refresh_status()
    is_starting = running is None and member.is_living
    broken = faults.disk_faults(status.node)
    return {
        "node": status.node,
        "state": "starting" if is_starting else str(status.state),
        "detail": status.reason,
        "role": status.role,
        "term": status.term,
        "leader": None if running is None else status.leader,
        "vote": None if running is None else running.replica.raft.vote,
        "first": status.log_first,
        "last": status.log_last,
        "commit": status.commit,
        "applied": status.applied,
        "digest": status.digest,
        "snapshot": None if running is None else running.replica.snapshots.stored.index,
        **_countdown(running),
        "disk": {
            "delay_ms": round(1000 * member.disk_delay_s, 3),
            "is_full": "fill-disk" in broken or (running is not None and running.is_disk_full),
            "is_stalled": "stall-disk" in broken or bool(member.hung_reason),
            "will_fail": "fail-disk" in broken,
            "is_failed": member.has_disk_failed,
        },
        "clock_rate": member.clock.rate,
        "incarnation": None if running is None else f"{running.replica.raft.incarnation:x}",
        "starts": member.attempts,
    }


def look_at_absent(status: NodeStatus) -> dict[str, object]:
    """Return what a node looks like whose process tells nothing: what was last known of it, and why."""
    return {
        "node": status.node,
        "state": str(status.state),
        "detail": status.reason,
        "role": status.role,
        "term": status.term,
        "leader": None,
        "vote": None,
        "first": status.log_first,
        "last": status.log_last,
        "commit": status.commit,
        "applied": status.applied,
        "digest": status.digest,
        "snapshot": None,
        "election_ms": None,
        "election_of_ms": None,
        "disk": {
            "delay_ms": 0.0,
            "is_full": False,
            "is_stalled": False,
            "will_fail": False,
            "is_failed": False,
        },
        "clock_rate": 1.0,
        "incarnation": None,
        "starts": 0,
    }


def _countdown(running: Node | None) -> dict[str, object]:
    """Return how long a node waits until it stands for election, and how long it would wait at most."""
    if running is None or running.is_paused or running.replica.raft.role.name == "leader":
        return {"election_ms": None, "election_of_ms": None}
    raft = running.replica.raft
    left_s = running.clock.to_trio(raft.role.deadline) - trio.current_time()
    return {
        "election_ms": max(0, round(1000 * left_s)),
        "election_of_ms": round(1000 * raft.config.election_timeout_max_s),
    }


def look_at_links(links: Links, nodes: Iterable[int]) -> list[dict[str, object]]:
    """Return each direction of a link that is not sound, and what is wrong with it."""
    if not links.is_faulty:
        return []
    nodes = list(nodes)
    looks: list[dict[str, object]] = []
    for source in nodes:
        for target in nodes:
            if source == target:
                continue
            is_cut, fault = links.is_cut(source, target), links.fault((source, target))
            if is_cut or fault != SOUND:
                looks.append(
                    {
                        "link": [source, target],
                        "is_cut": is_cut,
                        "delay_ms": round(1000 * fault.delay_s, 3),
                        "jitter_ms": round(1000 * fault.jitter_s, 3),
                        "loss": fault.drop,
                        "duplicate": fault.duplicate,
                    }
                )
    return looks
