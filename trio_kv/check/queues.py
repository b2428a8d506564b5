"""Queues that empty: a cluster at rest keeps nobody waiting, and remembers nothing that is over.

What is left in a queue when everything has its answer stays there for good, and adds up.
"""

from collections.abc import Collection, Mapping

from trio_kv.raft.leader import Leader
from trio_kv.replica.replica import Replica


def left_waiting(replica: Replica, living: Collection[int]) -> Mapping[str, int]:
    """Return what waits in a node, and how many of it; nothing if all is done.

    Args:
        replica: the node.
        living: all nodes that are up: others answer nothing.

    """
    raft = replica.raft
    waiting = {
        "requests": replica.requests_waiting,
        "reads": len(raft.unanswered_reads()),
        "writes": int(raft.oldest_write_at is not None),
        "jobs": len(replica.snapshots.jobs),
    }
    if isinstance(raft.role, Leader):
        answerer = raft.role.answerer
        progress = [each for peer, each in raft.role.progress.items() if peer in living]
        waiting["questions"] = len(answerer.pending) + len(answerer.new)
        waiting["appends"] = sum(len(each.in_flight) for each in progress if not each.is_probing)
    return {name: count for name, count in waiting.items() if count}
