"""Log Matching: two logs with an entry of the same index and term are identical up to it (paper figure 3, §5.3).

Judged by induction, entry by entry: whoever has an entry with this index and term has these bytes there, and an
entry of that term before it. If that holds for every entry in every log, the logs are equal all the way down.
"""

from collections.abc import Sequence

from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View
from trio_kv.raft.entry import Entry
from trio_kv.raft.ready import HardState


class LogMatching(Judge):
    """Knows every entry that ever stood in a log, and the term of the one before it."""

    def __init__(self) -> None:
        """Know no entry."""
        self._known: dict[tuple[int, int], tuple[Entry, int]] = {}

    def started(self, view: View, hard_state: HardState) -> None:
        """Judge what a disk gave back."""
        del hard_state
        self._judge(view, 0, view.entries)

    def log_changed(self, view: View, kept: int, dropped: Sequence[Entry], added: Sequence[Entry]) -> None:
        """Judge what was added."""
        del dropped
        self._judge(view, view.entries[kept - 1].term if kept else 0, added)

    def _judge(self, view: View, term_before: int, entries: Sequence[Entry]) -> None:
        for entry in entries:
            known, known_before = self._known.setdefault((entry.index, entry.term), (entry, term_before))
            if known is not entry and known.encoded != entry.encoded:
                raise Violation(
                    f"{view}: entry {entry} differs from the one of the same index and term elsewhere"
                )
            if known_before != term_before:
                raise Violation(
                    f"{view}: entry {entry} follows one of term {term_before}, elsewhere of {known_before}"
                )
            term_before = entry.term
