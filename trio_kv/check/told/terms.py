"""Which entry stands at an index of a log of which only its end is known.

Logs that have an entry of the same index and term are equal up to it (Log Matching, paper §5.3). So the place of its
last entry says all that a log holds, as soon as it is known where each term begins, and behind which other one.
"""

import attrs

from trio_kv.raft.entry import LogPosition


@attrs.frozen
class _Start:
    first: int
    """Index of the term's first entry, or of the first one that is known."""
    before: int | None
    """Term of the entry before it; None: not known."""


class Terms:
    """Where each term begins."""

    def __init__(self) -> None:
        """Know of no term."""
        self._starts: dict[int, _Start] = {0: _Start(0, None)}

    def note(self, term: int, first: int, before: int | None) -> int | None:
        """Note that the entries of a term begin at `first`, behind one of term `before`; None: not known.

        Returns:
            the first index that was noted earlier, if that contradicts.

        """
        known = self._starts.get(term)
        if known is None:
            self._starts[term] = _Start(first, before)
        elif before is None:
            if known.before is None:
                self._starts[term] = _Start(min(first, known.first), None)
            elif first < known.first:
                return known.first
        elif known.before is None and first <= known.first:
            self._starts[term] = _Start(first, before)
        elif (known.first, known.before) != (first, before):
            return known.first
        return None

    def has(self, term: int) -> bool:
        """Return whether it is known where a term begins, and behind what."""
        start = self._starts.get(term)
        return start is not None and start.before is not None

    def is_within(self, first: int, term: int) -> bool:
        """Return whether an entry at `first` belongs to this term, in a log that has a later one of it."""
        start = self._starts.get(term)
        return start is not None and first >= start.first

    def term_at(self, end: LogPosition, index: int) -> int | None:
        """Return the term of the entry at an index of the log that ends at `end`; None: not known, or there is none."""
        last, term = end
        if index >= last:
            return term if index == last else None
        if not index:
            return 0
        starts = self._starts
        while True:
            start = starts.get(term)
            if start is None:
                return None
            if index >= start.first:
                return term
            if start.before is None:
                return None
            term = start.before

    def holds(self, end: LogPosition, place: LogPosition) -> bool | None:
        """Return whether the log that ends at `end` has the entry at `place`; None: it can't be told."""
        if place.index > end.index:
            return False
        term = self.term_at(end, place.index)
        return None if term is None else term == place.term
