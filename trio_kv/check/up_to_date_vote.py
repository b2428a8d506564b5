"""Election restriction: a vote goes only to a candidate whose log is at least as up-to-date (paper §5.4.1).

What a candidate says of its log is compared with the voter's log at the moment at which the voter takes the request;
a vote that leaves without such a request behind it is none.
"""

from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View
from trio_kv.raft.messages import Message, RequestVote, VoteReply


class UpToDateVote(Judge):
    """Knows which requests a voter may say yes to."""

    def __init__(self) -> None:
        """Know of no request."""
        self._asked: dict[tuple[int, int, int], list[str]] = {}
        """(voter, candidate, term) -> for each request what is wrong with it, or nothing."""

    def took(self, view: View, message: Message) -> None:
        """Compare the logs."""
        if isinstance(message, RequestVote):
            log = view.raft.log
            theirs, ours = (message.last_term, message.last_index), (log.last_term, log.last_index)
            wrong = "" if theirs >= ours else f"{message}, to a voter whose log ends at {ours[1]}@{ours[0]}"
            self._asked.setdefault((view.id, message.source, message.term), []).append(wrong)

    def sent(self, node: int, message: Message) -> None:
        """Refuse a vote for a log that lacks something."""
        if not (isinstance(message, VoteReply) and message.is_granted):
            return
        asked = self._asked.get((node, message.target, message.term))
        if not asked:
            raise Violation(f"{message} left, and nobody asked for it")
        if all(asked):
            raise Violation(f"{message} left, the answer to {asked[-1]}")
