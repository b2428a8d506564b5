"""What a log may look like: the rules that hold before every write and after every read.

The same few rules guard both sides. Broken before a write they are a bug of the caller, and the write doesn't
happen; broken after a read they are damage of the disk, and the node doesn't start.
"""

from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import assert_never

import attrs

from trio_kv.raft.entry import Entry, LogPosition
from trio_kv.raft.ready import HardState
from trio_kv.wire.frames import Base, Record, Reset, Truncate


class ShapeError(ValueError):
    """A record does not follow on what the log holds."""


@attrs.define
class LogShape:
    """Which indexes and terms a log holds, without the entries.

    Invariants: the entries' indexes follow on the base's without gaps; terms never decrease along the log; no
    entry is of a later term than the hard state (scenario D7: were an entry durable before its term, its node
    could come back into an older term and elect or follow a rival); the hard state's term never decreases,
    and a vote that was given stays given for its term (scenario D1); an incarnation that was heard of is never
    forgotten, nor a lower one taken for it (scenario D8).
    """

    hard_state: HardState = attrs.field(factory=HardState)
    base: Base = Base(0, 0)  # noqa: RUF009 - frozen
    """The entry before the first one: what a snapshot covers is dropped up to here, or up to some way before."""
    last_index: int = 0
    segment: int = 1
    """The segment that records come from or go to. Set by the owner, before its first record."""
    is_beginning_gone: bool = False
    """Set while a log is read whose first segments were deleted.

    A truncation that is left may then reach behind the log's beginning, into a segment that is gone. This happens where
    the deletion was interrupted, or went up to a reset. A snapshot covers what is gone, so nothing is lost. The base
    then has term 0, for unknown, until the next segment or the reset tells its term."""
    _cuts: list[tuple[int, Base]] = attrs.field(factory=list)
    """Where the log could begin: (segment, entry before it). The log never went back behind that entry since."""
    _terms: list[tuple[int, int]] = attrs.field(factory=list)
    """(first index, term) of each run of entries of one term: a short list, for terms are few."""

    @property
    def last(self) -> Base:
        """Index and term of the log's last entry."""
        return Base(self.last_index, self._terms[-1][1] if self._terms else self.base.term)

    def term_at(self, index: int) -> int | None:
        """Return the term of an entry, or of the base; None if the log does not hold it."""
        if not self.base.index <= index <= self.last_index:
            return None
        run = bisect_right(self._terms, index, key=itemgetter(0)) - 1
        return self._terms[run][1] if run >= 0 else self.base.term

    def begin(self, hard_state: HardState, base: Base) -> None:
        """Take over what the first segment that is left says of those before it."""
        self.is_beginning_gone = True
        self.hard_state, self.base, self.last_index = hard_state, base, base.index

    def cut(self, index: int) -> tuple[int, Base] | None:
        """Return the last segment with which the log can begin if it drops all up to `index`, and the entry before it.

        A log can't begin with a segment that holds a truncation of entries before it.
        """
        return next((cut for cut in reversed(self._cuts) if cut[1].index <= index), None)

    def compact(self, base: Base) -> None:
        """Forget all entries up to an entry of the log, which becomes its base."""
        assert self.term_at(base.index) == base.term, f"the log does not hold {_place(base)}"
        self.base = base
        while len(self._terms) > 1 and self._terms[1][0] <= base.index + 1:
            del self._terms[0]
        if self._terms and self._terms[0][0] <= base.index:
            self._terms[0] = (base.index + 1, self._terms[0][1])
        if self.last_index == base.index:
            self._terms.clear()

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
            case Base(index, _):
                if self.is_beginning_gone and self.last == Base(index, 0):
                    self.base = record
                if record != self.last:
                    raise ShapeError(
                        f"the log ends at {_place(self.last)}, but a segment goes on from {_place(record)}"
                    )
                self._cuts.append((self.segment, record))
            case Reset(index, term):
                self._reset(Base(index, term))
            case Sequence():
                self._extend(record)
            case _:
                assert_never(record)

    def _reset(self, base: Base) -> None:
        if base.term > self.hard_state.term:
            raise ShapeError(f"a log of term {self.hard_state.term} is reset to {_place(base)}")
        self.base, self.last_index = base, base.index
        self._terms.clear()
        # Nothing before the reset is needed any more. A truncation that stands before it in this segment, and reaches
        # behind the segment's beginning, is read as after an interrupted deletion.
        self._cuts = [(self.segment, base)]

    def _vote(self, new: HardState) -> None:
        old = self.hard_state
        if new.term < old.term:
            raise ShapeError(f"term {new.term} follows on term {old.term}")
        if new.term == old.term and old.vote not in {None, new.vote}:
            raise ShapeError(f"the vote of term {new.term} changes from {old.vote} to {new.vote}")
        heard = dict(new.incarnations)
        for node, incarnation in old.incarnations:
            if heard.get(node, 0) < incarnation:
                raise ShapeError(f"incarnation {incarnation:x} of node {node} is forgotten")
        self.hard_state = new

    def _truncate(self, index: int) -> None:
        if self.is_beginning_gone and 0 < index <= self.base.index:
            self.base = Base(index - 1, 0)
        if not self.base.index < index <= self.last_index + 1:
            raise ShapeError(
                f"truncation at {index}, but the log goes from {self.base.index + 1} to {self.last_index}"
            )
        while self._terms and self._terms[-1][0] >= index:
            self._terms.pop()
        while self._cuts and self._cuts[-1][1].index >= index:
            self._cuts.pop()
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
                self._terms.append(LogPosition(index, term))
        if term > self.hard_state.term:
            raise ShapeError(f"an entry of term {term} stands in a log of term {self.hard_state.term}")
        self.last_index = index


def _place(base: Base) -> str:
    return f"{base.index}@{base.term}"
