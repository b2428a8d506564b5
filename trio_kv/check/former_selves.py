"""Former selves: what a node said before it lost its disk counts no more for who has heard of it since (decision 0009).

A node that comes back with another disk has a higher incarnation, and lacks what it had acknowledged and voted. Who was
told of the higher one must not count what comes, or has come, of a lower one: neither as a vote nor as a copy of an
entry. Whoever was not told yet may; the rules of rebuilds make that harmless.
"""

from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View
from trio_kv.raft.messages import AppendAccepted, Message, VoteReply
from trio_kv.raft.ready import HardState


class Heard:
    """Who has heard of which incarnations."""

    def __init__(self) -> None:
        """Know that nobody has heard of any."""
        self._heard: dict[tuple[int, int], int] = {}

    def note(self, listener: int, node: int, incarnation: int) -> int:
        """Note what a listener hears of a node; return by how much it is more than all before: below 0, it is void."""
        before = self._heard.get((listener, node), 0)
        self._heard[listener, node] = max(before, incarnation)
        return incarnation - before

    def forget(self, listener: int) -> None:
        """Let a listener have heard of nothing."""
        for key in [each for each in self._heard if each[0] == listener]:
            del self._heard[key]


class FormerSelves(Judge):
    """Knows which votes and acknowledgements each node has of the others as they are now, as far as it was told."""

    def __init__(self) -> None:
        """Know of none."""
        self._heard = Heard()
        self._matches: dict[tuple[int, int], tuple[int, int]] = {}
        """(leader, follower) -> term, and up to where the follower acknowledged its log in it."""
        self._votes: dict[tuple[int, int], int] = {}
        """(candidate, voter) -> the last term in which it voted for the candidate."""

    def started(self, view: View, hard_state: HardState) -> None:
        """Begin with what a node knows from its disk."""
        del hard_state
        self._heard.forget(view.id)
        for node, incarnation in view.raft.incarnations():
            self._heard.note(view.id, node, incarnation)
        for known in (self._matches, self._votes):
            for key in [each for each in known if each[0] == view.id]:
                del known[key]

    def took(self, view: View, message: Message) -> None:
        """Note what a message lets its receiver count on; nothing of what is void."""
        key = view.id, message.source
        news = self._heard.note(*key, message.incarnation)
        if news < 0:
            return
        if news > 0:
            self._matches.pop(key, None)
            self._votes.pop(key, None)
        if isinstance(message, AppendAccepted):
            # Of two terms the later one counts, and in it the higher match: as pairs do.
            self._matches[key] = max(self._matches.get(key, (0, 0)), (message.term, message.match))
        elif isinstance(message, VoteReply) and message.is_granted:
            self._votes[key] = max(self._votes.get(key, 0), message.term)

    def matched(self, view: View, peer: int, before: int, match: int) -> None:
        """Refuse a match that the follower, as it is now, did not acknowledge."""
        del before
        term, acknowledged = self._matches.get((view.id, peer), (0, 0))
        if match > (acknowledged if term == view.term else 0):
            raise Violation(
                f"{view} counts n{peer} up to {match}, which its present self did not acknowledge"
            )

    def elected(self, view: View) -> None:
        """Refuse a vote that the voter, as it is now, did not give."""
        for voter in sorted(view.raft.votes - {view.id}):
            if self._votes.get((view.id, voter)) != view.term:
                raise Violation(f"{view} counts a vote of n{voter}, which its present self did not give")
