"""The log of one node, in memory: the entries after its base, and how far they are on disk.

Invariants, asserted where the log changes:
- indexes follow one another without a gap, from `base_index + 1`;
- terms never decrease, and neither does cluster time;
- `base_index <= durable <= last_index`;
- an entry once appended changes only by being truncated with all that follow it.

Old entries are packed (`raft.runs`) where the nodes of a process share them.
"""

import copy
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate

from trio_kv.raft.entry import Entry
from trio_kv.raft.runs import Entries


class Log:
    """A node's log (paper §5.3). Its first index is `base_index + 1`: what is older stands in a snapshot."""

    __slots__ = (
        "_entries",
        "_first_indexes",
        "_terms",
        "base_index",
        "base_term",
        "base_time_us",
        "durable",
        "last_index",
    )

    def __init__(
        self, entries: Iterable[Entry] = (), *, base_index: int = 0, base_term: int = 0, base_time_us: int = 0
    ) -> None:
        """Take over what a disk held: all of it counts as durable, and `Entries` follow on one another already."""
        self.base_index = base_index
        self.base_term = base_term
        self.base_time_us = base_time_us
        self._entries = entries if isinstance(entries, Entries) else Entries()
        self.last_index = base_index + len(self._entries)
        """Index of the last entry."""
        # The terms present, rising, with the first index of each: all questions about terms are answered here.
        self._terms: list[int] = []
        self._first_indexes: list[int] = []
        self.durable = base_index
        if isinstance(entries, Entries):
            for index, term in entries.terms():
                self._note_term(index, term)
            assert (entries.last_time_us or base_time_us) >= base_time_us, "time goes back behind the base"
        else:
            self.append(list(entries))
        self.durable = self.last_index

    @property
    def last_term(self) -> int:
        """Term of the last entry."""
        return self._terms[-1] if self._terms else self.base_term

    @property
    def last_time_us(self) -> int:
        """Cluster time of the last entry, in microseconds."""
        time_us = self._entries.last_time_us
        return self.base_time_us if time_us is None else time_us

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at an index; None if the log doesn't know it."""
        if index == self.last_index:
            return self.last_term
        if not self.base_index <= index <= self.last_index:
            return None
        run = bisect_right(self._first_indexes, index) - 1
        return self._terms[run] if run >= 0 else self.base_term

    def first_index_of_term_at(self, index: int) -> int:
        """Return the first index of the unbroken run of one term that holds `index`."""
        run = bisect_right(self._first_indexes, index) - 1
        return self._first_indexes[run] if run >= 0 else self.base_index

    def last_index_of_term(self, term: int) -> int | None:
        """Return the last index that has this term; None if no entry has it."""
        run = bisect_right(self._terms, term) - 1
        if run < 0 or self._terms[run] != term:
            return self.base_index if term == self.base_term else None
        return self._first_indexes[run + 1] - 1 if run + 1 < len(self._first_indexes) else self.last_index

    def term_starts(self) -> list[tuple[int, int]]:
        """Return (index, term): where each term begins, and before them the place behind which the log begins."""
        starts = list(zip(self._first_indexes, self._terms, strict=True))
        if not self.base_index:
            return starts
        is_split = bool(starts) and starts[0][1] == self.base_term
        return [(self.base_index, self.base_term), *starts[is_split:]]

    def has(self, index: int, term: int) -> bool:
        """Return whether the entry at `index` has this term (the consistency check of paper §5.3)."""
        return self.term_at(index) == term

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Return whether a log that ends there is at least as up to date as this one (paper §5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def slice(self, first: int, last: int) -> tuple[Entry, ...]:
        """Return the entries from `first` to `last`, both included."""
        assert self.base_index < first, f"{first} is not above {self.base_index}"
        return tuple(self._entries.part(first - self.base_index - 1, last - self.base_index))

    def batch(self, first: int, entries_max: int, bytes_max: int) -> tuple[tuple[Entry, ...], int]:
        """Return the entries from `first` on, as many as these limits allow and one in any case; and their bytes."""
        entries = self.slice(first, min(self.last_index, first + entries_max - 1))
        sizes = [len(entry.encoded) for entry in entries]
        size_bytes = sum(sizes)
        if size_bytes > bytes_max:
            totals = list(accumulate(sizes))
            count = max(1, bisect_right(totals, bytes_max))
            entries, size_bytes = entries[:count], totals[count - 1]
        return entries, size_bytes

    def append(self, entries: list[Entry] | tuple[Entry, ...]) -> None:
        """Append entries that follow the last one."""
        index, term, time_us = self.last_index, self.last_term, self.last_time_us
        for entry in entries:
            index += 1
            assert entry.index == index, f"{entry} does not follow {index - 1}"
            assert entry.time_us >= time_us, f"time goes back at {entry}"
            time_us = entry.time_us
            if entry.term != term or not self._terms:
                assert entry.term >= term, f"{entry} follows term {term}"
                term = entry.term
                self._note_term(index, term)
        self._entries.extend(entries)
        self.last_index = index

    def _note_term(self, index: int, term: int) -> None:
        if not self._terms or self._terms[-1] != term:
            self._terms.append(term)
            self._first_indexes.append(index)

    def pack(self, index: int) -> None:
        """Pack entries up to `index`, which are committed and applied: they take less memory, and longer to read."""
        self._entries.pack(index - self.base_index)

    def truncate(self, first: int) -> None:
        """Drop all entries from `first` on."""
        assert self.base_index < first <= self.last_index
        self._entries.cut(first - self.base_index - 1)
        self.last_index = first - 1
        while self._first_indexes and self._first_indexes[-1] >= first:
            self._first_indexes.pop()
            self._terms.pop()
        self.durable = min(self.durable, first - 1)

    def compact(self, index: int) -> None:
        """Forget all entries up to `index`: a snapshot holds their effect (paper §7)."""
        assert self.base_index <= index <= self.durable
        if index == self.base_index:
            return
        base = self._entries[index - self.base_index - 1]
        run = bisect_right(self._first_indexes, index) - 1
        if index == self._run_end(run):
            run += 1
        del self._terms[:run], self._first_indexes[:run]
        if self._first_indexes and self._first_indexes[0] <= index:
            self._first_indexes[0] = index + 1
        self._entries.drop(index - self.base_index)
        self.base_index, self.base_term, self.base_time_us = base.index, base.term, base.time_us

    def reset(self, index: int, term: int, time_us: int) -> None:
        """Drop everything: a durable snapshot up to (index, term) takes the place of the log."""
        self._entries.clear()
        self._terms.clear()
        self._first_indexes.clear()
        self.base_index, self.base_term, self.base_time_us = index, term, time_us
        self.durable = self.last_index = index

    def size_bytes(self, first: int, last: int) -> int:
        """Return how many bytes the entries from `first` to `last` have."""
        begin = max(first, self.base_index + 1) - self.base_index - 1
        return self._entries.size_bytes(begin, max(begin, last - self.base_index))

    def _run_end(self, run: int) -> int:
        return self._first_indexes[run + 1] - 1 if run + 1 < len(self._first_indexes) else self.last_index

    def copy(self) -> "Log":
        """Return a log of its own with the same entries (the entries themselves are shared)."""
        twin = copy.copy(self)
        twin._entries = self._entries.copy()  # noqa: SLF001 - a twin of this class
        twin._terms = self._terms.copy()  # noqa: SLF001
        twin._first_indexes = self._first_indexes.copy()  # noqa: SLF001
        return twin
