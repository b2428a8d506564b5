"""Every state in which a power cut may leave a disk: a script of log and snapshots, cut before each of its steps.

A state is a step, an image of the directory, and which of the sectors that were not durable came back. With up to
eight such sectors all subsets are tried; with more, every torn length, and all subsets of eight runs of them.
"""

import itertools
from collections.abc import Callable, Iterator

import attrs
import msgspec
import pytest

from trio_kv.kv import commands
from trio_kv.kv.operations import Set
from trio_kv.raft.entry import Entry, LogPosition, make_entry
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.storage.memory import MemoryFiles
from trio_kv.storage.opening import open_node
from trio_kv.storage.recovery import Recovered
from trio_kv.storage.snapshots import SnapshotStore
from trio_kv.storage.wal import Wal
from trio_kv.wire.frames import Base, Identity

IDENTITY = Identity("c0ffee" * 5 + "42", 2, 123456789)
SEGMENT_BYTES = 8192
SETS_MAX = 8


@attrs.frozen
class State:
    """What a node promised: its term and vote, and the log since the last snapshot that took the log's place."""

    hard_state: HardState = attrs.field(factory=HardState)
    floor: Base = Base(0, 0)  # noqa: RUF009 - frozen
    entries: tuple[Entry, ...] = ()

    def after(self, write: Write) -> "State":
        """Return the state with a write carried out."""
        floor, entries = self.floor, self.entries
        if write.base is not None:
            floor, entries = Base(*write.base), ()
        if write.truncate_from is not None:
            entries = entries[: write.truncate_from - floor.index - 1]
        return State(write.hard_state or self.hard_state, floor, entries + write.entries)

    def matches(self, recovered: Recovered) -> bool:
        """Return whether a log that came back is this one, without what a snapshot covers."""
        covered = recovered.base.index - self.floor.index
        if covered < 0 or covered > len(self.entries):
            return False
        base = (
            Base(self.entries[covered - 1].index, self.entries[covered - 1].term) if covered else self.floor
        )
        return (
            recovered.base == base
            and tuple(recovered.entries) == self.entries[covered:]
            and recovered.hard_state == self.hard_state
        )


@attrs.define
class Script:
    """Carries out the script, and knows at each moment what a node may come back with."""

    files: MemoryFiles
    wal: Wal
    store: SnapshotStore
    state: State = attrs.field(factory=State)
    accepted: tuple[State, ...] = (State(),)
    snapshot_index: int = 0
    """Of the newest snapshot that was told to be stored."""

    def write(self, write: Write) -> None:
        after = self.state.after(write)
        self.accepted = (self.state, after)
        self.wal.append([write])
        self.state, self.accepted = after, (after,)
        if self.wal.wants_spare:
            self.wal.prepare()

    def grow(self, sizes: str, *, term: int = 1) -> None:
        """Append a batch for each letter: of one entry to four, of a few bytes to some sectors."""
        for letter in sizes:
            count, size_bytes = {"a": (1, 5), "b": (3, 100), "c": (1, 900), "d": (4, 600), "e": (1, 2600)}[
                letter
            ]
            last = self.wal.last_index
            self.write(
                Write(
                    Ticket(0, 0, 0),
                    None,
                    None,
                    tuple(entry(last + n, term, size_bytes) for n in range(1, count + 1)),
                )
            )

    def snapshot(self, index: int, term: int, *, between: Callable[[], None], installs: bool = False) -> None:
        """Write a snapshot, and do something else between its chunks."""
        writer = self.store.begin(index, term)
        for number, size_bytes in enumerate((40, 900, 300, 2000)):
            writer.add(number, b"%d." % index * (size_bytes // 3))
            between()
        # From its rename on it counts. One that the log does not lead to takes the log's place at the next start.
        after = State(self.state.hard_state, Base(index, term)) if installs else self.state
        self.accepted = (self.state, after)
        writer.finish()
        self.state, self.accepted = after, (after,)
        self.snapshot_index = index


def entry(index: int, term: int, size_bytes: int) -> Entry:
    raw = msgspec.Raw(msgspec.json.encode(f"{index}." * (size_bytes // 4)))
    return make_entry(index, term, index * 10, commands.Write(1, index, index, Set(f"key{index}", raw)))


def vote(term: int, vote: int | None = None) -> Write:
    return Write(Ticket(0, 0, 0), HardState(term, vote))


def play(script: Script) -> None:
    """Do all that a node does to its disk: elections, appends, truncations, snapshots of its own and of a leader."""
    script.write(vote(1, 2))
    script.grow("abcde" * 3 + "dd")
    index = script.wal.last_index
    script.snapshot(index - 3, 1, between=lambda: script.grow("c"))
    script.wal.compact(index - 3)
    script.write(vote(2))
    truncated = script.wal.last_index - 1
    script.write(
        Write(Ticket(0, 0, 0), None, truncated, (entry(truncated, 2, 300), entry(truncated + 1, 2, 1500)))
    )
    script.grow("ebdb", term=2)
    # The one before is being sent to somebody, and outlives the next one.
    script.store.read_chunk(LogPosition(index - 3, 1), 0)
    index = script.wal.last_index
    script.snapshot(index, 2, between=lambda: script.grow("ba", term=2))
    script.wal.compact(index)
    script.write(vote(4, 1))
    # A leader's snapshot, beyond the end of the log; the node goes on as the core tells it to.
    index = script.wal.last_index + 50
    script.snapshot(index, 3, between=lambda: None, installs=True)
    script.write(Write(Ticket(0, 0, 0), None, None, (entry(index + 1, 4, 700),), LogPosition(index, 3)))
    script.wal.compact(index)
    script.grow("abcd", term=4)
    # And one that the log holds something else against.
    index = script.wal.last_index - 2
    script.write(vote(6))
    script.snapshot(index, 5, between=lambda: None, installs=True)
    script.write(Write(Ticket(0, 0, 0), None, None, (), LogPosition(index, 5)))
    script.wal.compact(index)
    script.grow("abcdeabdd", term=6)
    script.snapshot(script.wal.last_index - 1, 6, between=lambda: None)
    script.wal.compact(script.wal.last_index - 1)


def subsets(sectors: list[tuple[str, int]]) -> Iterator[frozenset[tuple[str, int]]]:
    """Yield which sectors may come back."""
    sets = min(len(sectors), SETS_MAX)
    runs = [sectors[len(sectors) * n // sets : len(sectors) * (n + 1) // sets] for n in range(sets)]
    seen = set()
    for count in range(sets + 1):
        for chosen in itertools.combinations(runs, count):
            seen.add(frozenset(itertools.chain.from_iterable(chosen)))
    seen |= {frozenset(sectors[:length]) for length in range(len(sectors) + 1)}
    yield from sorted(seen, key=sorted)


def test_every_state_after_a_power_cut(stride: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever of the unsynced writes survives: the node starts, with all that was acknowledged and nothing else."""
    files = MemoryFiles()
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    script = Script(files, wal, SnapshotStore(files, IDENTITY))
    states = 0
    warned = 0

    def cut() -> None:
        nonlocal states, warned
        for image in range(files.name_images):
            for kept in itertools.islice(subsets(files.unsynced()), files.steps % stride, None, stride):
                where = f"step {files.steps}, image {image}, kept {sorted(kept)}"
                twin = files.copy()
                twin.crash_keeping(kept, image=image)
                opened = open_node(twin, twin, IDENTITY, segment_bytes=SEGMENT_BYTES)
                recovered = opened.recovered
                assert any(state.matches(recovered) for state in script.accepted), where
                assert recovered.base.index >= script.snapshot_index, where
                if recovered.snapshot is not None:
                    assert b"".join(opened.snapshots.chunks(recovered.snapshot)), where
                # What it goes on with is kept as well.
                new = entry(opened.wal.last_index + 1, max(recovered.hard_state.term, 1), 10)
                opened.wal.append([Write(Ticket(0, 0, 0), HardState(new.term + 1), None, (new,))])
                again = open_node(twin, twin, IDENTITY, segment_bytes=SEGMENT_BYTES).recovered
                assert again.entries == [*recovered.entries, new], where
                warned += bool(recovered.warnings)
                states += 1

    files.before_step = cut
    play(script)
    files.before_step = None
    with capsys.disabled():
        print(f" {states} states, {warned} torn", end="")  # noqa: T201 - how much was tried is part of the claim
    assert states >= 10_000 // stride
    assert 1000 // stride < warned < states
