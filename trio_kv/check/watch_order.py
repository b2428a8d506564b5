"""Watches: what is told is what was done, in order, without a gap and none twice (scenarios C2, C3).

Judged by the history of the reference, at the moment at which a line is told, and so without waiting for an end: a line
about a revision holds all that this revision did to the watched keys, and nothing was done to them between it and the
line before. Word that all was told up to a revision is a lie if anything was left out. A watch may jump only where it
says so.
"""

from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import Protocol

from trio_kv.check.reference import Reference
from trio_kv.check.violation import Violation
from trio_kv.kv.commands import Expire
from trio_kv.raft.entry import Entry

Event = tuple[str, str, bytes | None]
"""Kind, key, and value."""


_index_of = _place_of = itemgetter(0)

EVENTS_NAMED = 3
"""So many of those that are missing are named."""


class Chronicle(Protocol):
    """What was committed, and what came of it."""

    @property
    def entries(self) -> Sequence[Entry]:
        """All that was committed."""

    @property
    def reference(self) -> Reference:
        """The state after these."""


class WatchOrder:
    """Judges one watch, over all connections and nodes that it is told by.

    Raises of all methods:
        Violation: what is told is wrong.

    Args:
        who: whose watch it is, for people.
        text: which keys.
        is_prefix: whether it is about all keys that begin so.
        chronicle: what was committed.

    """

    def __init__(self, who: str, text: str, *, is_prefix: bool, chronicle: Chronicle) -> None:
        """Be told nothing yet; see the class."""
        self.position = 0
        """All up to here was told."""
        self.told_count = 0
        """How many events were told."""
        self._who = who
        self._text = text
        self._is_prefix = is_prefix
        self._chronicle = chronicle
        self._asked_at = 0

    def asked(self) -> None:
        """See the watch begin, or begin anew: what it is answered holds all that is committed now."""
        self._asked_at = len(self._chronicle.entries)

    def begun(self, revision: int, first: int | None) -> None:
        """See the answer: the revision up to which all was applied, and from where on it was asked for."""
        self._require_committed(revision)
        if revision < self._asked_at:
            raise Violation(
                f"{self._who} began at {revision}, though {self._asked_at} was committed when it asked"
            )
        self.position = revision if first is None else first - 1

    def told(self, revision: int, events: Sequence[Event]) -> None:
        """See a line about a revision."""
        self._require_committed(revision)
        if revision <= self.position:
            raise Violation(f"{self._who} was told of {revision} behind {self.position}: {events}")
        self._require_nothing_between(revision - 1, f"a line about {revision}")
        due = self._due(revision - 1, revision)
        if list(events) != due:
            raise Violation(f"{self._who} was told at {revision} of {events}, and not of {due}")
        if not events:
            raise Violation(f"{self._who} was told at {revision} of nothing")
        self.position = revision
        self.told_count += len(events)

    def progressed(self, revision: int) -> None:
        """See word that all up to a revision was told."""
        self._require_committed(revision)
        if revision < self.position:
            raise Violation(f"{self._who} was told that it is at {revision}, behind {self.position}")
        self._require_nothing_between(revision, f"word that all is told up to {revision}")
        self.position = revision

    def lost(self, revision: int) -> None:
        """See the watch end: it can begin anew from this revision."""
        self._require_nothing_between(revision - 1, f"word to go on from {revision}")
        if revision <= self.position:
            raise Violation(
                f"{self._who} is to go on from {revision}, and was told up to {self.position} already"
            )

    def jumped(self, oldest: int) -> None:
        """See the watch told that what is behind its place is gone, up to before this revision."""
        self._require_committed(oldest - 1)
        if oldest - 1 <= self.position:
            raise Violation(
                f"{self._who} stands at {self.position}, and was told that all from {oldest} on is there"
            )
        self.position = oldest - 1

    @property
    def is_complete(self) -> bool:
        """Whether all that was committed was told."""
        return not self._due(self.position, len(self._chronicle.entries))

    def _require_committed(self, revision: int) -> None:
        if revision > len(self._chronicle.entries):
            raise Violation(
                f"{self._who} was told of {revision}; {len(self._chronicle.entries)} is the last that was committed"
            )

    def _require_nothing_between(self, revision: int, what: str) -> None:
        missed = self._due(self.position, revision)
        if missed:
            told = ", ".join([f"{kind} {key}" for kind, key, _ in missed[:EVENTS_NAMED]])
            raise Violation(
                f"{self._who} got {what}, and was not told behind {self.position} of {len(missed)} events: {told}"
            )

    def _due(self, after: int, upto: int) -> list[Event]:
        """Return all that was done to the watched keys in (after, upto], in the order in which it is to be told."""
        changes = self._chronicle.reference.changes
        first, end = (bisect_right(changes, index, key=_index_of) for index in (after, upto))
        due: dict[tuple[int, str], Event] = {}
        for index, key, item in changes[first:end]:
            if key == self._text or (self._is_prefix and key.startswith(self._text)):
                # What was done to a key last is what a revision did to it.
                due[index, key] = self._event(index, key, item)
        return [event for _, event in sorted(due.items(), key=_place_of)]

    def _event(self, index: int, key: str, item: tuple[bytes, int] | None) -> Event:
        if item is not None:
            return "set", key, item[0]
        is_expiry = isinstance(self._chronicle.entries[index - 1].command, Expire)
        return "expire" if is_expiry else "delete", key, None
