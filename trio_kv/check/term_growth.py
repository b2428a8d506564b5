"""Terms that settle: a disturbance costs a few terms, and then there are no new ones (thesis §9.6, scenario E8).

Pre-vote and check-quorum are there for this: a node that was cut off, or hears only a part of the others, must not
depose a leader that works, again and again, as long as a partition lasts. So new terms are counted from the last moment
at which anything changed. While links or clocks are unsteady all the time, elections follow on one another rightly,
and nothing is judged.
"""

from collections.abc import Callable, Iterable

from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View
from trio_kv.raft.node import Raft


class TermGrowth(Judge):
    """Counts the terms since something was disturbed."""

    def __init__(self, terms_max: int, is_unsteady: Callable[[], bool]) -> None:
        """Count from now on.

        Args:
            terms_max: so many new terms may follow on a disturbance: the more, the more votes are split.
            is_unsteady: whether time-outs may be missed without end just now.

        """
        self._terms_max = terms_max
        self._is_unsteady = is_unsteady
        self._newest_term = 0
        self._since = 0
        self.most = 0
        """The most terms that followed on a disturbance."""

    def disturbed(self) -> None:
        """Begin to count anew: something was broken or mended."""
        self._since = 0

    def entered(self, view: View, term: int, vote: int | None) -> None:
        """Count a term that nobody was in before."""
        del vote
        if term <= self._newest_term:
            return
        grown, self._newest_term = term - self._newest_term, term
        if self._is_unsteady():
            self._since = 0
            return
        self._since += grown
        self.most = max(self.most, self._since)
        if self._since > self._terms_max:
            raise Violation(f"{view} enters term {term}, the {self._since}th since anything changed")


def require_quiet(rafts: Iterable[Raft], term: int, terms_max: int) -> None:
    """Refuse that a leader that works was deposed after all was healed.

    Args:
        rafts: all nodes.
        term: that of the first leader whom all followed.
        terms_max: how many more there may be: a transfer may have been under way.

    Raises:
        Violation: terms went on.

    """
    terms = [raft.term for raft in rafts]
    if max(terms) > term + terms_max:
        raise Violation(f"terms went on from {term} to {max(terms)} without a fault")
