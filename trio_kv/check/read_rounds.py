"""Confirmed reads: a leader answers a ReadIndex only after a majority replied to a round begun since (thesis §6.4).

A stale read is rare even where this is broken: somebody else must have committed in between. So the rule itself is
judged, by what leaders and followers say and when: a question is answered only if a majority, with its leader, has
replied in its term to a heartbeat round that began after the leader took the question. Who asked needs no reply: the
question itself was said in that term, and not before its reads came.
"""

from collections.abc import Sequence

from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View
from trio_kv.raft.messages import Heartbeat, HeartbeatReply, Message, ReadIndex, ReadIndexReply
from trio_kv.raft.ready import HardState
from trio_kv.raft.voters import Voters


class ReadRounds(Judge):
    """Knows which round each question found, and which rounds each follower replied to."""

    def __init__(self, members: Sequence[int]) -> None:
        """Know of no round."""
        self._voters = Voters(members)
        self._begun: dict[int, int] = {}
        """leader -> its last round."""
        self._questions: dict[tuple[int, int], dict[tuple[int, int], int]] = {}
        """(leader, asker) -> {(nonce, counter): the last round begun when it was first taken}."""
        self._rebuilding: set[tuple[int, int]] = set()
        """(nonce, counter) of the questions of nodes that are being rebuilt."""
        self._replied: dict[tuple[int, int], dict[int, int]] = {}
        """(leader, term) -> {follower: the last round it replied to}."""

    def started(self, view: View, hard_state: HardState) -> None:
        """Forget what an earlier life of the node had begun."""
        del hard_state
        self._begun[view.id] = 0

    def elected(self, view: View) -> None:
        """Begin to count rounds anew."""
        self._begun[view.id] = 0
        for leader, asker in list(self._questions):
            if leader == view.id:
                del self._questions[leader, asker]

    def took(self, view: View, message: Message) -> None:
        """See a question come."""
        if isinstance(message, ReadIndex):
            questions = self._questions.setdefault((view.id, message.source), {})
            questions.setdefault((message.nonce, message.counter), self._begun[view.id])
            if message.is_rebuilding:
                self._rebuilding.add((message.nonce, message.counter))

    def sent(self, node: int, message: Message) -> None:
        """See rounds begin and end, and judge answers."""
        if isinstance(message, Heartbeat):
            self._begun[node] = max(self._begun[node], message.round)
        elif isinstance(message, HeartbeatReply):
            if message.is_rebuilding:
                return  # What it knew of later terms is lost: it can't tell whether this leader still leads.
            replied = self._replied.setdefault((message.target, message.term), {})
            replied[node] = max(message.round, replied.get(node, 0))
        elif isinstance(message, ReadIndexReply):
            question = message.nonce, message.counter
            found = self._questions.get((node, message.target), {}).get(question)
            if found is None:
                raise Violation(f"{message} left, but no such question came in this term")
            replied = self._replied.get((node, message.term), {})
            confirmed = [follower for follower, last in replied.items() if last > found]
            if question not in self._rebuilding:
                confirmed.append(message.target)
            if not self._voters.has_majority([node, *confirmed]):
                raise Violation(f"{message} left, confirmed since it was asked only by nodes {confirmed}")
