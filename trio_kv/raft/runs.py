"""Old entries of a log, packed: what is applied is only kept for a follower that is behind, so it is kept as bytes.

An entry in memory is eight objects, and most of them are there for who applies it. A `Run` is the bytes of many
entries in one object: a third of the memory. It is read back when somebody asks for its entries.

The nodes of a process hold the same entries, so they share their runs: whoever packs one asks `SharedRuns` for it,
which gives one that is known only if it has the same bytes.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload
from weakref import WeakValueDictionary, ref

import attrs

from trio_kv.raft.entry import UNREAD, Command, Entry, SharingDecoder, decode_entries

RUN_ENTRIES = 256
"""Entries of a run; a run ends where the index divides by it, so that all logs cut theirs at the same places."""
JOINED_BYTES_MAX = 256 << 10
"""A run of more bytes stays as it is: to join large entries would copy much to save little."""
READ_RUNS_MAX = 16
"""Runs whose entries are remembered after they were read, for the other nodes that read them next."""
UNAPPLIED_ENTRIES_MAX = 1 << 17
"""So many of the last entries that a start reads are not packed: they are about to be applied, on all nodes."""


@attrs.frozen(eq=False, slots=True, weakref_slot=True)
class Run:
    """Entries that follow on one another, as bytes."""

    first: int
    """Index of the first one."""
    count: int
    data: bytes
    """All of them as bytes; empty if they are too large for that."""
    entries: tuple[Entry, ...]
    """The entries then; else empty."""
    terms: tuple[tuple[int, int], ...]
    """(first index, term) of each term in it."""
    last_time_us: int

    def is_equal(self, other: "Run") -> bool:
        """Return whether both hold the same entries: the bytes decide."""
        return (self.first, self.data, self.entries) == (other.first, other.data, other.entries)


def pack(entries: Sequence[Entry]) -> Run:
    """Return entries that follow on one another as a run."""
    is_joined = sum([len(entry.encoded) for entry in entries]) <= JOINED_BYTES_MAX
    data = b"".join([entry.encoded for entry in entries]) if is_joined else b""
    terms, term = [], -1
    if entries[0].term == entries[-1].term:
        terms.append((entries[0].index, entries[0].term))
    else:
        for entry in entries:
            if entry.term != term:
                term = entry.term
                terms.append((entry.index, term))
    kept = () if is_joined else tuple(entries)
    return Run(entries[0].index, len(entries), data, kept, tuple(terms), entries[-1].time_us)


class SharedRuns:
    """The runs of all nodes of one process.

    A run lives as long as a log holds it. May be used by threads that load nodes, beside the loop.

    Args:
        decode_command: what turns the bytes of a command into the command.

    """

    def __init__(self, decode_command: Callable[[bytes], Command]) -> None:
        """Know no run yet."""
        self.decode_command = decode_command
        self._known: WeakValueDictionary[int, Run] = WeakValueDictionary()
        self._read: OrderedDict[Run, tuple[Entry, ...]] = OrderedDict()
        self._logs: list[ref[Entries]] = []
        """What was read of each log of the process that is still there."""
        self.unpacked: list[Entry] = []
        """While a log is read: what another one holds that is not packed. They will share these entries."""

    def share(self, run: Run) -> Run:
        """Return the run that is known and equal to this one; else this one, which is known from here on."""
        number = (run.first - 1) // RUN_ENTRIES
        known = self._known.get(number)
        if known is not None:
            if known.is_equal(run):
                return known
            if known.count > run.count:
                # The beginning of a log may be inside a run. The whole one is of more use to others.
                return run
        self._known[number] = run
        return run

    def find(self, index: int) -> Run | None:
        """Return the known run that holds an index, or would."""
        return self._known.get((index - 1) // RUN_ENTRIES)

    def read(self, run: Run) -> tuple[Entry, ...]:
        """Return the entries of a run."""
        if run.entries:
            return run.entries
        entries = self._read.pop(run, None)
        if entries is None:
            entries = tuple(decode_entries(run.data, self.decode_command))
            assert len(entries) == run.count
        self._read[run] = entries
        if len(self._read) > READ_RUNS_MAX:
            self._read.popitem(last=False)
        return entries

    def begin_reading(self) -> None:
        """Remember what a log of the process holds unpacked, for one that is read now."""
        logs = [log for each in self._logs if (log := each()) is not None]
        self._logs = [ref(log) for log in logs]
        self.unpacked = max([log.unpacked() for log in logs], key=len, default=[])

    def end_reading(self, entries: "Entries") -> None:
        """Let the next ones share with a log that was read."""
        self._logs.append(ref(entries))

    def forget_read(self) -> None:
        """Remember no entries: nobody is behind, and nobody reads."""
        self._read.clear()
        self.unpacked = []


class SharedReader(SharingDecoder):
    """Reads one log of a process: what other nodes have read before need not be decoded again.

    Nor what a snapshot covers, which nobody will ask for. Of runs that is known from their beginning on: a log is read
    from its beginning to its end.
    """

    def __init__(self, shared: SharedRuns) -> None:
        """Begin to read."""
        super().__init__(shared.decode_command)
        shared.begin_reading()
        self.shared = shared
        self.covered_index = 0
        """A snapshot holds all up to here."""
        self._run: Run | None = None
        self._next = 0
        """The index that is compared next."""
        self._offset = 0
        """Where its bytes begin in the run."""

    @property
    def unpacked(self) -> list[Entry]:
        """See `SharingDecoder`."""
        return self.shared.unpacked

    def is_known(self, index: int, encoded: bytes) -> bool:
        """See `SharingDecoder`."""
        if index <= self.covered_index:
            return True
        if self._run is None or index != self._next:
            run = self.shared.find(index)
            self._run = run if run is not None and run.first == index else None
            self._offset = 0
        run = self._run
        if run is None or not run.data.startswith(encoded, self._offset):
            self._run = None
            return False
        self._offset += len(encoded)
        self._next = index + 1
        if self._offset == len(run.data):
            self._run = None
        return True


class Entries(Sequence[Entry]):
    """A list of entries that follow on one another, of which the first ones may be packed.

    Invariants: each run ends where the index divides by `RUN_ENTRIES`, and all but the first one begin behind such an
    index; `_gone` entries of the first run are not in the list any more.

    Args:
        entries: what it begins with.
        shared: makes and reads runs; without it nothing is packed.

    """

    __slots__ = ("__weakref__", "_gone", "_packed", "_runs", "_tail", "shared")

    def __init__(self, entries: Iterable[Entry] = (), shared: SharedRuns | None = None) -> None:
        """See the class."""
        self._runs: list[Run] = []
        self._packed = 0
        """Entries in runs, without those that are gone."""
        self._gone = 0
        self._tail: list[Entry] = list(entries)
        self.shared = shared

    def __len__(self) -> int:
        return self._packed + len(self._tail)

    def part(self, begin: int, end: int) -> list[Entry]:
        """Return the entries from place `begin` up to `end`."""
        packed = self._packed
        if begin >= packed:
            return self._tail[begin - packed : end - packed] if end > begin else []
        return self._read(begin, min(end, packed)) + self._tail[: max(0, end - packed)]

    @overload
    def __getitem__(self, place: int) -> Entry: ...

    @overload
    def __getitem__(self, place: slice) -> list[Entry]: ...

    def __getitem__(self, place: int | slice) -> Entry | list[Entry]:
        packed = self._packed
        if isinstance(place, slice):
            begin, end, _ = place.indices(len(self))
            return self.part(begin, end)
        if place < 0:
            place += len(self)
        return self._tail[place - packed] if place >= packed else self._read(place, place + 1)[0]

    def __iter__(self) -> Iterator[Entry]:
        for run in range(len(self._runs)):
            entries = self._read_run(run)
            yield from entries[self._gone :] if run == 0 else entries
        yield from self._tail

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def last_time_us(self) -> int | None:
        """Cluster time of the last entry; None without one."""
        if self._tail:
            return self._tail[-1].time_us
        return self._runs[-1].last_time_us if self._runs else None

    def terms(self) -> Iterator[tuple[int, int]]:
        """Yield (index, term) of the first entry and of at least each one whose term differs from that before it."""
        for number, run in enumerate(self._runs):
            first = run.first + self._gone if number == 0 else run.first
            for place, (index, term) in enumerate(run.terms):
                is_gone = place + 1 < len(run.terms) and run.terms[place + 1][0] <= first
                if not is_gone:
                    yield max(index, first), term
        for entry in self._tail:
            yield entry.index, entry.term

    def extend(self, entries: Iterable[Entry]) -> None:
        """Put entries at the end."""
        self._tail.extend(entries)

    def cut(self, count: int) -> None:
        """Drop all but the first `count` entries."""
        while self._packed > count:
            assert self.shared is not None
            run = self._runs.pop()
            entries = list(self.shared.read(run))[0 if self._runs else self._gone :]
            self._gone = self._gone if self._runs else 0
            self._packed -= len(entries)
            self._tail[:0] = entries
        del self._tail[count - self._packed :]

    def drop(self, count: int) -> None:
        """Drop the first `count` entries."""
        gone = self._gone + min(count, self._packed)
        runs = 0
        while runs < len(self._runs) and self._runs[runs].count <= gone:
            gone -= self._runs[runs].count
            runs += 1
        del self._runs[:runs], self._tail[: max(0, count - self._packed)]
        self._packed -= min(count, self._packed)
        self._gone = gone

    def clear(self) -> None:
        """Drop all."""
        self._runs.clear()
        self._tail.clear()
        self._packed = self._gone = 0

    def pack(self, count: int) -> None:
        """Pack of the first `count` entries what makes whole runs."""
        if self.shared is None:
            return
        begin = 0
        while begin < len(self._tail):
            first = self._tail[begin].index
            end = begin + RUN_ENTRIES - (first - 1) % RUN_ENTRIES
            if self._packed + end > count:
                break
            entries = self._tail[begin:end]
            run = pack(entries)
            if run.entries:
                run = pack(self._read_unread(entries))
            self._runs.append(self.shared.share(run))
            begin = end
        if begin:
            del self._tail[:begin]
            self._packed += begin

    def unpacked(self) -> list[Entry]:
        """Return a list of the entries that are not packed, all at the end."""
        return self._tail.copy()

    def end_reading(self) -> None:
        """Decode what was not, as other nodes had read it, and is not packed; let the next ones share it."""
        self._tail = self._read_unread(self._tail)
        if self.shared is not None:
            self.shared.end_reading(self)

    def _read_unread(self, entries: list[Entry]) -> list[Entry]:
        if not any(entry.command is UNREAD for entry in entries):
            return entries
        assert self.shared is not None
        decode = self.shared.decode_command
        return [
            next(decode_entries(entry.encoded, decode)) if entry.command is UNREAD else entry
            for entry in entries
        ]

    def size_bytes(self, begin: int, end: int) -> int:
        """Return how many bytes the entries from place `begin` up to `end` have."""
        packed, size_bytes, start = self._packed, 0, -self._gone
        for run in self._runs if begin < packed else ():
            if begin <= start and start + run.count <= end and run.data:
                size_bytes += len(run.data)
            elif begin < start + run.count and start < end:
                assert self.shared is not None
                part = self.shared.read(run)[max(0, begin - start) : end - start]
                size_bytes += sum([len(entry.encoded) for entry in part])
            start += run.count
        tail = self._tail[max(0, begin - packed) : max(0, end - packed)]
        return size_bytes + sum([len(entry.encoded) for entry in tail])

    def copy(self) -> "Entries":
        """Return a list of its own with the same entries and runs."""
        twin = Entries(self._tail, self.shared)
        twin._runs, twin._packed, twin._gone = self._runs.copy(), self._packed, self._gone
        return twin

    def _read(self, begin: int, end: int) -> list[Entry]:
        """Return packed entries."""
        begin, end = begin + self._gone, end + self._gone
        entries: list[Entry] = []
        # All runs but the first are whole.
        first_count = self._runs[0].count
        number = 0 if begin < first_count else 1 + (begin - first_count) // RUN_ENTRIES
        start = 0 if number == 0 else first_count + (number - 1) * RUN_ENTRIES
        while start < end:
            run = self._read_run(number)
            entries += run[max(0, begin - start) : end - start]
            start += len(run)
            number += 1
        return entries

    def _read_run(self, number: int) -> tuple[Entry, ...]:
        assert self.shared is not None
        return self.shared.read(self._runs[number])
