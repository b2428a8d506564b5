"""Commitment: a leader commits by counting replicas only entries of its own term (paper §5.4.2, figure 8)."""

from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View


class CommitRule(Judge):
    """Looks at where a leader's commit index moves to."""

    def __init__(self) -> None:
        """Have seen nothing."""
        self.old_term_commits = 0
        """How often a leader committed entries of earlier terms along with its own."""

    def committed(self, view: View, first: int, last: int) -> None:
        """Refuse a leader's commit index at an entry of an earlier term."""
        if not view.is_leader:
            return
        term = view.entries[last - 1].term
        if term != view.term:
            raise Violation(f"{view} committed entry {last} of term {term} by counting")
        if view.entries[first - 1].term != term:
            self.old_term_commits += 1
