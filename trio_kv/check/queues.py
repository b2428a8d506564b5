"""Queues that empty: a cluster at rest keeps nobody waiting, and remembers nothing that is over.

What is left in a queue when everything has its answer stays there for good, and adds up.
"""

from collections.abc import Collection, Mapping

from trio_kv.raft.leader import Leader
from trio_kv.raft.node import Raft


def left_waiting(raft: Raft, requests: int, living: Collection[int]) -> Mapping[str, int]:
    """Return what waits in a node, and how many of it; nothing if all is done.

    Args:
        raft: the node.
        requests: how many requests of clients have no answer yet, as the node itself counts them.
        living: all nodes that are up: others answer nothing.

    """
    waiting = {
        "requests": requests,
        "reads": len(raft.unanswered_reads()),
        "writes": int(raft.persistence.oldest_write_at is not None),
    }
    if isinstance(raft.role, Leader):
        rounds = raft.role.rounds
        progress = [each for peer, each in raft.role.progress.items() if peer in living]
        waiting["questions"] = len(rounds.pending) + len(rounds.new)
        waiting["appends"] = sum(len(each.in_flight) for each in progress if each.is_replicating)
    return {name: count for name, count in waiting.items() if count}
