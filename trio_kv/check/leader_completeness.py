"""Leader Completeness: an entry committed in a term is in the logs of the leaders of all later terms (paper §5.4.3).

Over all history: a leader is compared with everything ever committed, and a commit with every leader of a later
term that was elected before it was heard of.
"""

from collections.abc import Sequence

from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View
from trio_kv.raft.entry import Entry


class LeaderCompleteness(Judge):
    """Knows every committed entry with the term in which it was, and with which log each leader began."""

    def __init__(self) -> None:
        """Know nothing committed."""
        self._committed: list[tuple[Entry, int]] = []
        self._logs: dict[int, tuple[Entry, ...]] = {}
        self._newest_term = 0

    def elected(self, view: View) -> None:
        """Compare a new leader's log with all that was committed in earlier terms."""
        self._logs[view.term] = tuple(view.entries)
        self._newest_term = max(self._newest_term, view.term)
        for entry, term in self._committed:
            if term < view.term:
                self._compare(view.term, view.entries, entry, term)

    def committed(self, view: View, first: int, last: int) -> None:
        """Note what a leader committed first, and compare it with later leaders."""
        if not view.is_leader:
            return
        for entry in view.entries[max(first - 1, len(self._committed)) : last]:
            self._committed.append((entry, view.term))
            for term in range(view.term + 1, self._newest_term + 1):
                if term in self._logs:
                    self._compare(term, self._logs[term], entry, view.term)

    @staticmethod
    def _compare(leader_term: int, log: Sequence[Entry], entry: Entry, term: int) -> None:
        if len(log) < entry.index or log[entry.index - 1].encoded != entry.encoded:
            raise Violation(f"term {leader_term}'s leader had not entry {entry}, committed in term {term}")
