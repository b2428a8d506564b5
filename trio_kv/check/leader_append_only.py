"""Leader Append-Only: a leader never overwrites or deletes entries of its log (paper figure 3, §5.3)."""

from collections.abc import Sequence

from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View
from trio_kv.raft.entry import Entry


class LeaderAppendOnly(Judge):
    """Looks at each change of a log whose node led before and after it in one term."""

    def log_changed(self, view: View, kept: int, dropped: Sequence[Entry], added: Sequence[Entry]) -> None:
        """Refuse a leader's change that drops anything, and entries of other terms in what it adds."""
        raft = view.raft
        if not (view.is_leader and raft.is_leader and view.term == raft.term):
            return
        if dropped:
            raise Violation(f"{view} dropped its own entries from {kept + 1} on")
        if any(entry.term != view.term for entry in added):
            raise Violation(f"{view} appended an entry of another term")
