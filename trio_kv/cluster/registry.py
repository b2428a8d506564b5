"""What the control plane knows of the nodes: the gateway and the control door read it, nodes never do.

It is only a hint: who leads is decided by Raft, and whoever asks the wrong node is told so.
"""

from collections.abc import Callable
from enum import StrEnum

import attrs
import trio

from trio_kv.cluster.inbox import Inbox
from trio_kv.raft.voters import Voters
from trio_kv.trace.text import encodable


class FaultError(ValueError):
    """Something was asked of the cluster that makes no sense now. The text says why."""


class State(StrEnum):
    """The state of a node, as the protocol's `status` names it."""

    UP = "up"
    PAUSED = "paused"
    CRASHED = "crashed"
    STOPPED = "stopped"
    DAMAGED = "damaged"
    NEEDS_REBUILD = "needs_rebuild"


@attrs.define(eq=False)
class NodeStatus:
    """One node as last seen. Numbers of a node that is down are those it had when it went."""

    node: int
    state: State = State.STOPPED
    reason: str = ""
    is_gone: bool = False
    """Whether it is down because its directory is not where it was."""
    role: str = "follower"
    term: int = 0
    leader: int | None = None
    commit: int = 0
    applied: int = 0
    log_first: int = 1
    log_last: int = 0
    digest: str = ""
    inbox: Inbox | None = None
    """Where to send it something; None while it is down."""
    refresh: Callable[[], None] | None = None
    """Brings the numbers up to date, which costs too much to do at every step."""

    def as_reply(self) -> dict[str, object]:
        """Return the node's row of the protocol's status reply."""
        row: dict[str, object] = {
            "node": self.node,
            "role": self.role if self.inbox is not None else None,
            "state": str(self.state),
            "term": self.term,
            "commit": self.commit,
            "applied": self.applied,
            "log_first": self.log_first,
            "log_last": self.log_last,
            "digest": self.digest,
        }
        if self.reason:
            row["reason"] = encodable(self.reason)
        return row


class Registry:
    """All nodes of a cluster, and who is told when one changes its role, term or state."""

    def __init__(self, nodes: list[int]) -> None:
        """Know the nodes, all stopped."""
        self.nodes = {node: NodeStatus(node) for node in sorted(nodes)}
        self.voters = Voters(nodes)
        self.faults: Callable[[], list[dict[str, object]]] = list
        """Tells what was made wrong with the cluster, and is wrong still."""
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` at each change; return what ends that. It must not raise, nor wait."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def wait_change(self) -> None:
        """Wait for the next change."""
        changed = trio.Event()
        unlisten = self.listen(changed.set)
        try:
            await changed.wait()
        finally:
            unlisten()

    def changed(self) -> None:
        """Tell all listeners."""
        for listener in self._listeners:
            listener()

    def status(self) -> dict[str, object]:
        """Return the members of the protocol's status reply, but for `status` itself."""
        for status in self.nodes.values():
            if status.refresh is not None:
                status.refresh()
        leader = self.leader()
        return {
            "leader": leader.node if leader else None,
            "term": max(status.term for status in self.nodes.values()),
            "nodes": [status.as_reply() for status in self.nodes.values()],
            "faults": self.faults(),
        }

    def leader(self) -> NodeStatus | None:
        """Return the live node that leads the highest term, if any says that it leads."""
        leaders = [
            status for status in self.nodes.values() if status.inbox is not None and status.role == "leader"
        ]
        return max(leaders, key=lambda status: status.term, default=None)

    @property
    def is_majority_gone(self) -> bool:
        """Whether so many directories are not where they were that waiting for a leader is in vain."""
        return self.voters.has_majority([node for node, status in self.nodes.items() if status.is_gone])

    def readable(self) -> list[NodeStatus]:
        """Return the nodes that run, the leader last: they can be asked to read."""
        live = [
            status for status in self.nodes.values() if status.inbox is not None and status.state is State.UP
        ]
        return sorted(live, key=lambda status: (status.role == "leader", status.node))
