"""Incarnations: a node that says it knows of one knows it for good (decision 0048).

Votes of a disk that is gone elect a second leader only if three or four things come together, which seeds hardly ever
bring about. So the rules by which they can't are judged themselves:

- a node that answers a heartbeat round has durably heard of the incarnations which that round named;
- a voter, and a leader who lets a node end its rebuild, have durably heard of all that they name;
- a node that ends its rebuild durably knows of each one that had ended before its own began.

Durable is what a node was given when it started, and will be given again, and what its disk holds.
"""

from collections.abc import Iterable, Mapping

from trio_kv.check.durability import Shadow
from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View
from trio_kv.raft.messages import Heartbeat, HeartbeatReply, Message, ReadIndexReply, VoteReply
from trio_kv.raft.ready import HardState

_JUDGED = (Heartbeat, HeartbeatReply, VoteReply, ReadIndexReply)


class Incarnations(Judge):
    """Compares what nodes say that they know with what they will still know after a crash."""

    def __init__(self, disks: Mapping[int, Shadow]) -> None:
        """Judge by these disks, kept up to date by somebody else."""
        self._disks = disks
        self._own: dict[int, int] = {}
        """node -> its incarnation."""
        self._given: dict[int, dict[int, int]] = {}
        """node -> what it knew when it started."""
        self._named: dict[tuple[int, int, int, int], tuple[tuple[int, int], ...]] = {}
        """(leader, term, round, follower) -> what that heartbeat named, if it named any."""
        self._rebuilt: dict[int, int] = {}
        """node -> its incarnation when it ended a rebuild last."""
        self._due: dict[int, dict[int, int]] = {}
        """node that is being rebuilt -> who had ended a rebuild when it started."""

    def started(self, view: View, hard_state: HardState) -> None:
        """Refuse a start that forgets what the disk knows."""
        node, raft = view.id, view.raft
        for peer, incarnation in hard_state.incarnations:
            if raft.incarnation_of(peer) < incarnation:
                raise Violation(
                    f"{view}: its disk knows of incarnation {incarnation:x} of n{peer}, it does not"
                )
        self._own[node], self._given[node] = raft.incarnation, dict(raft.incarnations())
        self._due[node] = self._rebuilt.copy() if raft.is_rebuilding else {}

    def rebuilt(self, node: int) -> None:
        """Refuse that a node counts that could let votes count which its former self knew to be void."""
        self._require(node, self._due.pop(node).items(), "ends its rebuild")
        self._rebuilt[node] = self._own[node]

    def sent(self, node: int, message: Message) -> None:
        """Refuse to say that one knows what one would forget."""
        if not isinstance(message, _JUDGED):
            return
        if isinstance(message, Heartbeat):
            if message.rebuilding and message.round:
                self._named[node, message.term, message.round, message.target] = message.rebuilding
        elif isinstance(message, HeartbeatReply):
            answered = message.target, message.term, message.round, node
            self._require(node, self._named.get(answered, ()), f"sends {message}")
        else:
            self._require(node, message.incarnations, f"sends {message}")

    def _require(self, node: int, known: Iterable[tuple[int, int]], what: str) -> None:
        durable = dict(self._disks[node].hard_state.incarnations)
        given = self._given[node]
        for peer, incarnation in known:
            if peer != node and max(durable.get(peer, 0), given.get(peer, 0)) < incarnation:
                raise Violation(
                    f"n{node} {what}, and after a crash would not know that n{peer} is {incarnation:x}"
                )
