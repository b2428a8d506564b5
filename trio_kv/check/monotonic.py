"""What never goes back: the term, a vote within its term, the commit index and what is applied (paper figure 2).

The commit index is judged within the life of a process (it isn't persisted); term and vote across restarts too, as far
as anybody could know of them (`check.durability`, `check.election_safety`).
"""

from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View


class Monotonic(Judge):
    """Compares each change with what was before."""

    def entered(self, view: View, term: int, vote: int | None) -> None:
        """Refuse an older term, and another vote in the same one."""
        if term < view.term:
            raise Violation(f"{view}: the term went back to {term}")
        if term == view.term and view.vote is not None and vote != view.vote:
            raise Violation(f"{view}: the vote changed from {view.vote} to {vote}")

    def applied(self, view: View, last: int) -> None:
        """Refuse to apply backwards, or what isn't committed (the commit index itself is judged by the watch)."""
        if last < view.applied:
            raise Violation(f"{view}: applied went back from {view.applied} to {last}")
        if last > view.commit:
            raise Violation(f"{view}: applied {last}, which is not committed")
