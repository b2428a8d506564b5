"""Random logs, random faults: what comes back is what was acknowledged, or that plus the batch under way."""

import contextlib
import errno
from random import Random

import attrs
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_kv.kv.commands import Set
from trio_kv.raft.entry import Entry, make_entry
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.storage.memory import MemoryDisk, MemoryFiles, PowerLossError
from trio_kv.storage.recovery import Recovered
from trio_kv.storage.wal import Wal
from trio_kv.wire.frames import Identity

IDENTITY = Identity("ab" * 16, 1, 77)
SEGMENT_BYTES = 4096


@attrs.frozen
class Log:
    """What a log holds: the whole model."""

    hard_state: HardState = attrs.field(factory=HardState)
    entries: tuple[Entry, ...] = ()

    def after(self, write: Write) -> list["Log"]:
        """Return the log after each step of a write."""
        logs = [self]
        if write.hard_state is not None:
            logs.append(attrs.evolve(logs[-1], hard_state=write.hard_state))
        if write.truncate_from is not None:
            logs.append(attrs.evolve(logs[-1], entries=self.entries[: write.truncate_from - 1]))
        for entry in write.entries:
            logs.append(attrs.evolve(logs[-1], entries=(*logs[-1].entries, entry)))
        return logs

    @classmethod
    def of(cls, recovered: Recovered) -> "Log":
        return cls(recovered.hard_state, tuple(recovered.entries))


def draw_write(log: Log, random: Random) -> Write:
    """Return a write that may follow on this log."""
    term, hard_state, truncate_from = log.hard_state.term, None, None
    if term == 0 or random.random() < 0.3:
        term += random.randint(1, 2)
        hard_state = HardState(term, random.choice((None, 1, 2, 3)))
    last = len(log.entries)
    if last and random.random() < 0.2:
        truncate_from = random.randint(max(1, last - 5), last)
        last = truncate_from - 1
    size_max = random.choice((0, 50, 50, 400, 400, 2000, 9000))
    entries = [
        make_entry(last + n, term, 0, _command(random.randrange(size_max + 1)) if size_max else None)
        for n in range(1, random.choice((1, 1, 2, 8)) + 1)
    ]
    return Write(Ticket(0, term, last), hard_state, truncate_from, tuple(entries))


def _command(size_bytes: int) -> Set:
    return Set(1, 1, 1, "k", msgspec.Raw(msgspec.json.encode("x" * size_bytes)))


def open_through_faults(files: MemoryFiles, random: Random) -> tuple[Wal, Recovered]:
    """Open the log, often after attempts that power, or the process, did not survive."""
    while random.random() < 0.4:
        files.fail_after(random.randrange(6), random.choice((PowerLossError(), OSError(errno.EIO, "broken"))))
        with contextlib.suppress(OSError):
            Wal.open(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
        files.clear_faults()
        if random.random() < 0.5:
            files.crash(random)
    return Wal.open(files, IDENTITY, segment_bytes=SEGMENT_BYTES)


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
    files.clear_faults()
    return possible


@settings(max_examples=300, deadline=None)
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
        assert log in possible
        # What was read once is there for good.
        files.crash(random)
        wal, again = open_through_faults(files, random)
        assert (Log.of(again), again.warnings) == (log, ())


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_simulated_disk_keeps_what_it_told_of(seed: int) -> None:
    """A simulated disk gives back after a power cut all that it completed, and so does its twin."""
    random = Random(seed)
    files = MemoryFiles()
    disk = MemoryDisk(Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES), files)
    submitted = [Log()]
    for number in range(random.randrange(1, 40)):
        write = draw_write(submitted[-1], random)
        submitted.append(submitted[-1].after(write)[-1])
        disk.submit(attrs.evolve(write, ticket=Ticket(number + 1, 0, 0)))
    told = 0
    while len(disk) and random.random() < 0.7:
        ticket = disk.step(random.randint(1, 4))
        assert ticket is not None
        assert ticket.number > told
        told = ticket.number
    twin = files.copy()
    disk.crash(random)
    assert len(disk) == 0
    _, recovered = Wal.open(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    assert len(recovered.warnings) <= 1
    log = Log.of(recovered)
    assert (
        any(log in earlier.after(write) for earlier, write in _steps(submitted, told))
        or log == submitted[told]
    )
    _, untouched = Wal.open(twin, IDENTITY, segment_bytes=SEGMENT_BYTES)
    assert Log.of(untouched) == submitted[told]


def _steps(submitted: list[Log], told: int) -> list[tuple[Log, Write]]:
    """Return (log before, write) for everything behind what was told."""
    steps = []
    for before, after in zip(submitted[told:], submitted[told + 1 :], strict=False):
        kept = 0
        while (
            kept < min(len(before.entries), len(after.entries))
            and before.entries[kept] == after.entries[kept]
        ):
            kept += 1
        truncate_from = kept + 1 if kept < len(before.entries) else None
        steps.append((before, Write(Ticket(0, 0, 0), after.hard_state, truncate_from, after.entries[kept:])))
    return steps
