"""What a log may look like: the rules that hold before every write and after every read.

The same few rules guard both sides. Broken before a write they are a bug of the caller, and the write doesn't
happen; broken after a read they are damage of the disk, and the node doesn't start.
"""

from collections.abc import Sequence
from typing import assert_never

import attrs

from trio_kv.raft.entry import Entry
from trio_kv.raft.ready import HardState
from trio_kv.wire.frames import Base, Record, Truncate


class ShapeError(ValueError):
    """A record does not follow on what the log holds."""


@attrs.define
class LogShape:
    """Which indexes and terms a log holds, without the entries.

    Invariants: the entries' indexes follow on the base's without gaps; terms never decrease along the log; no
    entry is of a later term than the hard state (scenario D7: were an entry durable before its term, its node
    could come back into an older term and elect or follow a rival); the hard state's term never decreases,
    and a vote that was given stays given for its term (scenario D1).
    """

    hard_state: HardState = attrs.field(factory=HardState)
    base: Base = Base(0, 0)  # noqa: RUF009 - frozen
    """The entry before the first one. Later, what a snapshot covers is dropped up to here."""
    last_index: int = 0
    _terms: list[tuple[int, int]] = attrs.field(factory=list)
    """(first index, term) of each run of entries of one term: a short list, for terms are few."""

    @property
    def last(self) -> Base:
        """Index and term of the log's last entry."""
        return Base(self.last_index, self._terms[-1][1] if self._terms else self.base.term)

    def put(self, record: Record) -> None:
        """Carry out a record.

        Raises:
            ShapeError: it breaks a rule; nothing can be said about the shape any more.

        """
        match record:
            case HardState():
                self._vote(record)
            case Truncate(index):
                self._truncate(index)
            case Base():
                if record != self.last:
                    raise ShapeError(
                        f"the log ends at {_place(self.last)}, but a segment goes on from {_place(record)}"
                    )
            case Sequence():
                self._extend(record)
            case _:
                assert_never(record)

    def _vote(self, new: HardState) -> None:
        old = self.hard_state
        if new.term < old.term:
            raise ShapeError(f"term {new.term} follows on term {old.term}")
        if new.term == old.term and old.vote not in {None, new.vote}:
            raise ShapeError(f"the vote of term {new.term} changes from {old.vote} to {new.vote}")
        self.hard_state = new

    def _truncate(self, index: int) -> None:
        if not self.base.index < index <= self.last_index + 1:
            raise ShapeError(
                f"truncation at {index}, but the log goes from {self.base.index + 1} to {self.last_index}"
            )
        while self._terms and self._terms[-1][0] >= index:
            self._terms.pop()
        self.last_index = index - 1

    def _extend(self, entries: Sequence[Entry]) -> None:
        index, term = self.last_index, self.last.term
        for entry in entries:
            index += 1
            if entry.index != index:
                raise ShapeError(f"entry {entry} stands where {index} is due")
            if entry.term != term:
                if entry.term < term:
                    raise ShapeError(f"entry {entry} follows on one of term {term}")
                term = entry.term
                self._terms.append((index, term))
        if term > self.hard_state.term:
            raise ShapeError(f"an entry of term {term} stands in a log of term {self.hard_state.term}")
        self.last_index = index


def _place(base: Base) -> str:
    return f"{base.index}@{base.term}"
