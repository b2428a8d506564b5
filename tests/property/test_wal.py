"""Random logs, random faults: what comes back is what was acknowledged, or that plus the batch under way."""

import contextlib
import errno
from random import Random

import attrs
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_kv.kv import commands
from trio_kv.kv.operations import Set
from trio_kv.raft.entry import Entry, LogPosition, make_entry
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.storage.memory import MemoryFiles, PowerLossError
from trio_kv.storage.memory_disk import MemoryDisk
from trio_kv.storage.recovery import Recovered, Recovery
from trio_kv.storage.snapshots import SnapshotStore
from trio_kv.storage.wal import Wal
from trio_kv.wire.frames import SECTOR_BYTES, Base, Identity

IDENTITY = Identity("ab" * 16, 1, 77)
SEGMENT_BYTES = 4096


@attrs.frozen
class Log:
    """What a log holds: the whole model."""

    hard_state: HardState = attrs.field(factory=HardState)
    entries: tuple[Entry, ...] = ()
    base: Base = Base(0, 0)  # noqa: RUF009 - frozen

    @property
    def last(self) -> Base:
        return Base(self.entries[-1].index, self.entries[-1].term) if self.entries else self.base

    def after(self, write: Write) -> list["Log"]:
        """Return the log after each step of a write."""
        logs = [self]
        if write.hard_state is not None:
            logs.append(attrs.evolve(logs[-1], hard_state=write.hard_state))
        if write.base is not None:
            logs.append(attrs.evolve(logs[-1], entries=(), base=Base(*write.base)))
        if write.truncate_from is not None:
            kept = write.truncate_from - 1 - self.base.index
            logs.append(attrs.evolve(logs[-1], entries=self.entries[:kept]))
        for entry in write.entries:
            logs.append(attrs.evolve(logs[-1], entries=(*logs[-1].entries, entry)))
        return logs

    def compacted(self, base: Base) -> "Log":
        """Return the log without what is before a new base, of term 0 if unknown; itself, if it does not hold that."""
        dropped = base.index - self.base.index
        if not 0 <= dropped <= len(self.entries):
            return self
        term = self.entries[dropped - 1].term if dropped else self.base.term
        if base.term not in {0, term}:
            return self
        return attrs.evolve(self, base=base, entries=self.entries[dropped:])

    def is_one_of(self, logs: list["Log"]) -> bool:
        """Return whether this log that came back is one of these, perhaps with less of its beginning."""
        return any(log.compacted(self.base) == self for log in logs)

    @classmethod
    def of(cls, recovered: Recovered) -> "Log":
        return cls(recovered.hard_state, tuple(recovered.entries), recovered.base)


def draw_write(log: Log, random: Random) -> Write:
    """Return a write that may follow on this log."""
    term, hard_state, truncate_from, base = log.hard_state.term, None, None, None
    if term == 0 or random.random() < 0.3:
        term += random.randint(1, 2)
        hard_state = HardState(term, random.choice((None, 1, 2, 3)), draw_heard(log, random))
    last = log.last.index
    if random.random() < 0.05:
        base = LogPosition(random.randint(max(1, last - 20), last + 50), random.randint(1, term))
        last = base[0]
    elif last > log.base.index and random.random() < 0.2:
        truncate_from = random.randint(max(log.base.index + 1, last - 5), last)
        last = truncate_from - 1
    size_max = random.choice((0, 50, 50, 400, 400, 2000, 9000))
    entries = [
        make_entry(last + n, term, 0, _command(random.randrange(size_max + 1)) if size_max else None)
        for n in range(1, random.choice((1, 1, 2, 8)) + 1)
    ]
    return Write(Ticket(0, term, last), hard_state, truncate_from, tuple(entries), base)


def draw_heard(log: Log, random: Random) -> tuple[tuple[int, int], ...]:
    """Return what may be known of incarnations after what this log knows."""
    heard = dict(log.hard_state.incarnations)
    if random.random() < 0.5:
        node = random.randint(1, 9)
        heard[node] = heard.get(node, 0) + random.getrandbits(53)
    return tuple(sorted(heard.items()))


def _command(size_bytes: int) -> commands.Write:
    return commands.Write(1, 1, 1, Set("k", msgspec.Raw(msgspec.json.encode("x" * size_bytes))))


def open_log(files: MemoryFiles) -> tuple[Wal, Recovered]:
    """Open the log; whatever it lacks at its beginning counts as covered by a snapshot."""
    recovery = Recovery(files, IDENTITY, covered_index=1 << 60)
    recovered = recovery.read()
    return Wal.resume(files, recovery, segment_bytes=SEGMENT_BYTES), recovered


def open_through_faults(files: MemoryFiles, random: Random) -> tuple[Wal, Recovered]:
    """Open the log, often after attempts that power, or the process, did not survive."""
    while random.random() < 0.4:
        files.fail_after(random.randrange(6), random.choice((PowerLossError(), OSError(errno.EIO, "broken"))))
        with contextlib.suppress(OSError):
            open_log(files)
        files.clear_faults()
        if random.random() < 0.5:
            files.crash(random)
    return open_log(files)


def live(wal: Wal, files: MemoryFiles, log: Log, random: Random) -> list[Log]:
    """Write until a fault ends it; return the logs that may be on the disk then."""
    error = random.choice((PowerLossError(), OSError(errno.EIO, ""), OSError(errno.ENOSPC, "")))
    files.fail_after(random.randrange(40), error)
    possible = [log]
    with contextlib.suppress(OSError):
        for _ in range(30):
            batch, possible = [], possible[-1:]
            for _ in range(random.choice((1, 1, 1, 3))):
                batch.append(draw_write(possible[-1], random))
                possible += possible[-1].after(batch[-1])
            if sum(len(entry.encoded) for write in batch for entry in write.entries) < SEGMENT_BYTES // 2:
                possible = [possible[0], possible[-1]]  # the batch is one frame: all of it or nothing
            wal.append(batch)
            possible = possible[-1:]
            if wal.wants_spare and random.random() < 0.7:
                wal.prepare()
            if random.random() < 0.2:
                # A snapshot holds committed entries only, and those are never truncated.
                index = random.randint(possible[0].base.index, possible[0].last.index)
                wal.compact(index)
                possible = [possible[0].compacted(wal.base)]
    files.clear_faults()
    return possible


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_what_was_acknowledged_comes_back(seed: int, lives: int) -> None:
    """Acknowledged is durable, through any power cuts, dead processes and failures, in recovery too."""
    random = Random(seed)
    files = MemoryFiles()
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    log = Log()
    for _ in range(lives):
        possible = live(wal, files, log, random)
        if random.random() < 0.7:
            files.crash(random)
        wal, recovered = open_through_faults(files, random)
        log = Log.of(recovered)
        assert log.is_one_of(possible)
        # What was read once is there for good.
        files.crash(random)
        wal, again = open_through_faults(files, random)
        assert Log.of(again).is_one_of([log])
        assert again.warnings == ()
        log = Log.of(again)


@settings(max_examples=100)
@given(st.integers(0, 2**32))
def test_simulated_disk_keeps_what_it_told_of(seed: int) -> None:
    """A simulated disk gives back after a power cut all that it completed, and so does its twin."""
    random = Random(seed)
    files = MemoryFiles()
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    disk = MemoryDisk(wal, files, SnapshotStore(files, IDENTITY), lambda _: None)
    submitted, writes = [Log()], []
    for number in range(random.randrange(1, 40)):
        write = attrs.evolve(draw_write(submitted[-1], random), ticket=Ticket(number + 1, 0, 0))
        writes.append(write)
        submitted.append(submitted[-1].after(write)[-1])
        disk.submit(write)
    told = 0
    while len(disk) and random.random() < 0.7:
        ticket = disk.step(random.randint(1, 4))
        assert ticket is not None
        assert ticket.number > told
        told = ticket.number
    twin = files.copy()
    disk.crash(random)
    assert len(disk) == 0
    _, recovered = open_log(files)
    assert len(recovered.warnings) <= 1
    possible = [submitted[told]]
    for before, write in zip(submitted[told:-1], writes[told:], strict=True):
        possible += before.after(write)
    assert Log.of(recovered) in possible
    _, untouched = open_log(twin)
    assert Log.of(untouched) == submitted[told]


def live_full(wal: Wal, files: MemoryFiles, log: Log, random: Random) -> list[Log]:
    """Write on a disk that is full now and then, reserved room included; return the logs that may be on it at the end.

    The end may come while a write waits for room, or between a write and its sync.
    """
    possible = [log]
    for _ in range(random.randrange(8)):
        if files.capacity_bytes is None and random.random() < 0.3:
            fill(files, random)
        if random.random() < 0.15:
            files.fail_after(random.randrange(3), OSError(errno.EIO, ""))
        batch, possible = [draw_write(possible[-1], random)], possible[-1:]
        possible += possible[0].after(batch[0])
        try:
            for _ in wal.appending(batch):
                if random.random() < 0.2:
                    return possible
                assert files.capacity_bytes is not None
                files.capacity_bytes += random.choice((SECTOR_BYTES, 3 * SECTOR_BYTES, 3 * SEGMENT_BYTES))
        except OSError:
            return possible
        files.clear_faults()
        possible = possible[-1:]
        if random.random() < 0.3:
            files.capacity_bytes = None
        with contextlib.suppress(OSError):
            wal.make_ballast()
    return possible


def fill(files: MemoryFiles, random: Random) -> None:
    """Let the disk be full, and its reserved room perhaps be gone."""
    if random.random() < 0.7:
        files.share()
    files.is_copy_on_write = random.random() < 0.3
    files.capacity_bytes = files.used_bytes + random.choice((0, 0, SECTOR_BYTES, 2 * SECTOR_BYTES))


def open_full(files: MemoryFiles, random: Random) -> tuple[Wal, Recovered]:
    """Open the log on a disk that may be full, after syncs that failed and attempts that nothing came of."""
    if random.random() < 0.6:
        fill(files, random)
    while True:
        if random.random() < 0.3:
            files.fail_after(random.randrange(6), random.choice((PowerLossError(), OSError(errno.EIO, ""))))
        try:
            return open_log(files)
        except OSError:
            files.clear_faults()
            if random.random() < 0.5:
                files.crash(random)
            if random.random() < 0.5:
                files.capacity_bytes = None


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_D12_what_was_acknowledged_comes_back_from_a_full_disk(seed: int, lives: int) -> None:
    """Wherever room ends, in reserved places too, at starts too: acknowledged is durable, and what was read stays."""
    random = Random(seed)
    files = MemoryFiles()
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    log = Log()
    for _ in range(lives):
        possible = live_full(wal, files, log, random)
        files.clear_faults()
        if random.random() < 0.5:
            files.crash(random)
        wal, recovered = open_full(files, random)
        files.clear_faults()
        log = Log.of(recovered)
        assert log.is_one_of(possible)
        files.crash(random)
        wal, again = open_full(files, random)
        files.clear_faults()
        assert Log.of(again).is_one_of([log])
        log = Log.of(again)
