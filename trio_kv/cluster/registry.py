"""What the control plane knows of the nodes: the gateway and the control door read it, nodes never do.

It is only a hint: Raft decides who leads, and a node that is asked in vain refuses. It is the `Directory` of
this process: the nodes that run have a handle here, and their answers find their way to who asked.
"""

from collections.abc import Callable, Iterable

import attrs
import trio

from trio_kv.raft.voters import Voters
from trio_kv.wire.node_port import Answer, ReplyTo, Request
from trio_kv.wire.node_status import NodeStatus, State

ASKER_BITS = 30
"""So many askers there can be in the life of a process, and half as many of its lives as a number has room for."""
FIRST_PROCESS = 0
"""As a process names itself in the ids of askers that is the only one, or the first."""


@attrs.frozen(eq=False)
class Handle:
    """A `NodeHandle` of a node that runs."""

    status: NodeStatus
    submit: Callable[[Request], bool]
    refresh: Callable[[], None]
    """Brings the numbers of the status up to date, which costs too much to do at every step."""
    is_near: bool = True


class Registry:
    """All nodes of a cluster, who is told when one changes its role, term or state, and who waits for answers.

    Args:
        nodes: of all processes.
        process: the number of this one.
        start: drawn for this life of the process: its former askers had other ids.

    """

    def __init__(self, nodes: list[int], *, process: int = FIRST_PROCESS, start: int = 0) -> None:
        """Know the nodes, all stopped; see the class."""
        self.nodes = {node: NodeStatus(node) for node in sorted(nodes)}
        self.voters = Voters(nodes)
        self.faults: Callable[[], list[dict[str, object]]] = list
        """Tells what was made wrong with the cluster, and is wrong still."""
        self._handles: dict[int, Handle] = {}
        self._listeners: list[Callable[[], None]] = []
        self._askers: dict[ReplyTo, Callable[[Answer], None]] = {}
        self._process = process
        self._joined = start << ASKER_BITS

    # Nodes

    def attach(self, handle: Handle) -> None:
        """Let a node that runs be spoken to."""
        self._handles[handle.status.node] = handle

    def detach(self, node: int) -> None:
        """Let a node be down."""
        self._handles.pop(node, None)
        self.nodes[node].role = None
        self.changed()

    def handle(self, node: int) -> Handle | None:
        """Return the handle of a node, if it runs."""
        return self._handles.get(node)

    def leader(self) -> Handle | None:
        """Return the live node that leads the highest term, if any says that it leads."""
        leaders = [handle for handle in self._handles.values() if handle.status.role == "leader"]
        return max(leaders, key=lambda handle: handle.status.term, default=None)

    def readable(self) -> list[Handle]:
        """Return the nodes that run, the leader last: they can be asked to read."""
        running = [handle for handle in self._handles.values() if handle.status.state is State.UP]
        return sorted(running, key=lambda handle: (handle.status.role == "leader", handle.status.node))

    @property
    def is_majority_gone(self) -> bool:
        """Whether so many directories are not where they were that waiting for a leader is in vain."""
        return self.voters.has_majority([node for node, status in self.nodes.items() if status.is_gone])

    def status(self) -> dict[str, object]:
        """Return the members of the protocol's status reply, but for `status` itself."""
        for handle in self._handles.values():
            handle.refresh()
        leader = self.leader()
        return {
            "leader": leader.status.node if leader else None,
            "term": max(status.term for status in self.nodes.values()),
            "nodes": [status.as_reply() for status in self.nodes.values()],
            "faults": self.faults(),
        }

    # Changes

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

    # Answers

    def join(self, deliver: Callable[[Answer], None]) -> ReplyTo:
        """Let answers to a new asker of this process arrive at `deliver`, which must neither raise nor wait."""
        self._joined += 1
        reply_to = ReplyTo(self._process, self._joined)
        self.route(reply_to, deliver)
        return reply_to

    def route(self, reply_to: ReplyTo, deliver: Callable[[Answer], None]) -> None:
        """Let answers to an asker, which may be in another process, arrive at `deliver`."""
        self._askers[reply_to] = deliver

    def leave(self, reply_to: ReplyTo) -> None:
        """Let further answers to an asker be dropped."""
        self._askers.pop(reply_to, None)

    def deliver(self, answers: Iterable[tuple[ReplyTo, Answer]]) -> None:
        """Give answers to who asked. Whoever is not there any more needs none."""
        for reply_to, answer in answers:
            deliver = self._askers.get(reply_to)
            if deliver is not None:
                deliver(answer)
