"""Snapshots on disk: whole or not there, the log made to go with them, damage named, no reader given garbage."""

import errno
from pathlib import Path
from random import Random

import attrs
import msgspec
import pytest

from trio_kv.kv import commands
from trio_kv.kv.operations import Set
from trio_kv.raft.entry import Entry, LogPosition, make_entry
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.replica.jobs import (
    AddChunk,
    BeginSnapshot,
    ChunkAdded,
    Completion,
    FinishSnapshot,
    SnapshotFailed,
    SnapshotJob,
    SnapshotMoved,
    SnapshotStored,
)
from trio_kv.storage.errors import DamagedError
from trio_kv.storage.files import Files, RealFiles
from trio_kv.storage.jobs import MOVED_STEPS, SnapshotJobs
from trio_kv.storage.memory import MemoryFiles, PowerLossError
from trio_kv.storage.opening import Opened, open_node
from trio_kv.storage.segments import segment_name
from trio_kv.storage.snapshot_reading import SnapshotInfo, snapshot_name
from trio_kv.storage.snapshots import SYNC_BYTES, SnapshotStore
from trio_kv.storage.wal import Wal
from trio_kv.wire.frames import Base, FrameError, Identity
from trio_kv.wire.snapshot_file import SnapshotHeader, decode_snapshot_header

IDENTITY = Identity("c0ffee" * 5 + "42", 2, 123456789)
SEGMENT_BYTES = 4096


def entry(index: int, term: int = 1, size_bytes: int = 150) -> Entry:
    raw = msgspec.Raw(msgspec.json.encode("x" * size_bytes))
    return make_entry(index, term, index * 10, commands.Write(1, index, index, Set(f"key{index}", raw)))


def write(*entries: Entry, hard_state: HardState | None = None, base: LogPosition | None = None) -> Write:
    return Write(Ticket(0, 0, 0), hard_state, None, entries, base)


def create(files: Files, *, entries: int = 0, term: int = 1) -> None:
    """Make a log that holds so many entries of term 1."""
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    wal.append([write(hard_state=HardState(term, 2))])
    for first in range(1, entries + 1, 3):
        wal.append([write(*(entry(index) for index in range(first, min(first + 3, entries + 1))))])


def reopen(files: Files) -> Opened:
    return open_node(files, files, IDENTITY, segment_bytes=SEGMENT_BYTES)


def chunks_of(index: int, count: int = 4) -> list[bytes]:
    """Return the chunks of a snapshot up to this entry, of various sizes; the first one says which it is."""
    return [f"{index}".encode(), *(b"%d." % n * (n * 97) for n in range(1, count))]


def take(store: SnapshotStore, index: int, term: int = 1, count: int = 4) -> SnapshotInfo:
    """Write a snapshot."""
    writer = store.begin(index, term)
    for number, chunk in enumerate(chunks_of(index, count)):
        writer.add(number, chunk)
    return writer.finish()


def indexes(opened: Opened) -> list[int]:
    return [each.index for each in opened.recovered.entries]


@pytest.fixture(params=["memory", "real"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """Both implementations of the port, which must behave alike."""
    return MemoryFiles() if request.param == "memory" else RealFiles(tmp_path)


# Writing and reading.


def test_snapshot_round_trip(files: Files) -> None:
    """A snapshot comes back chunk by chunk, also after a restart, and the log goes on behind it."""
    create(files, entries=20)
    opened = reopen(files)
    assert (opened.snapshots.newest(), opened.recovered.snapshot) == (None, None)
    info = take(opened.snapshots, 12)
    chunks = chunks_of(12)
    assert info == SnapshotInfo(12, 1, 4, sum(map(len, chunks)), snapshot_name(12, 1))
    opened.close()
    opened = reopen(files)
    assert opened.snapshots.newest() == info == opened.recovered.snapshot
    assert list(opened.snapshots.chunks(info)) == chunks
    assert [opened.snapshots.read_chunk(LogPosition(12, 1), number) for number in (3, 0)] == [
        chunks[3],
        chunks[0],
    ]
    assert (opened.recovered.base, indexes(opened)) == (Base(12, 1), list(range(13, 21)))
    opened.wal.append([write(entry(21))])
    opened.close()
    assert indexes(reopen(files)) == list(range(13, 22))


def test_the_one_before_goes_when_the_next_is_there(files: Files) -> None:
    """Two snapshots are on the disk only until the second is proved readable."""
    create(files, entries=20)
    store = reopen(files).snapshots
    take(store, 5)
    writer = store.begin(9, 1)
    writer.add(0, b"state")
    assert [name for name in files.names() if "snap" in name] == [
        snapshot_name(5, 1),
        snapshot_name(9, 1) + ".tmp",
    ]
    assert writer.finish() == store.newest()
    assert [name for name in files.names() if "snap" in name] == [snapshot_name(9, 1)]


def test_snapshots_are_synced_as_they_grow() -> None:
    """No more than 4 MiB wait for a sync."""
    files = MemoryFiles()
    create(files)
    writer = reopen(files).snapshots.begin(1, 1)
    for number in range(12):
        writer.add(number, b"x" * (1 << 20))
        assert len(files.unsynced()) * 512 <= SYNC_BYTES + 4096
    writer.abort()
    assert not [name for name in files.names() if "snap" in name]


def test_an_empty_snapshot_and_a_large_chunk(files: Files) -> None:
    """A snapshot may have no chunk at all, and a chunk any size."""
    create(files)
    store = reopen(files).snapshots
    assert store.begin(1, 1).finish().chunks == 0
    writer = store.begin(2, 1)
    writer.add(0, b"y" * 3_000_000)
    writer.finish()
    assert store.read_chunk(LogPosition(2, 1), 0) == b"y" * 3_000_000


def test_chunks_come_in_order() -> None:
    """A chunk that is left out, or an older snapshot than the newest, is a bug."""
    files = MemoryFiles()
    create(files)
    store = reopen(files).snapshots
    take(store, 5)
    with pytest.raises(AssertionError, match="chunk 0 is due, not 1"):
        store.begin(6, 1).add(1, b"")
    with pytest.raises(AssertionError, match="older than"):
        store.begin(4, 1)


def test_the_same_snapshot_is_not_written_twice() -> None:
    """Begun again, a snapshot that is there stays as it is: somebody may be reading it."""
    files = MemoryFiles()
    create(files, entries=9)
    store = reopen(files).snapshots
    info = take(store, 5)
    before = files.read(info.name)
    writer = store.begin(5, 1)
    writer.add(0, b"other")
    assert writer.finish() == info
    store.begin(5, 1).abort()
    assert (files.read(info.name), store.newest()) == (before, info)


def test_a_leftover_is_removed_at_the_next_start() -> None:
    """What is left of a snapshot that was not finished goes away, and older ones too."""
    files = MemoryFiles()
    create(files, entries=9)
    store = reopen(files).snapshots
    take(store, 3)
    kept = files.read(snapshot_name(3, 1))
    take(store, 5)
    store.begin(7, 1).add(0, b"unfinished")
    files.create(snapshot_name(3, 1), len(kept), kept)
    opened = reopen(files)
    assert [name for name in files.names() if "snap" in name] == [snapshot_name(5, 1)]
    assert opened.recovered.base == Base(5, 1)


def test_a_header_of_a_later_format_is_refused() -> None:
    """A snapshot of an unknown format is not guessed at; and no byte of a header can be wrong unnoticed."""
    header = SnapshotHeader(IDENTITY, 5, 1)
    data = header.encode()
    assert decode_snapshot_header(data) == header
    for offset in range(len(data)):
        wrong = bytearray(data)
        wrong[offset] ^= 4
        with pytest.raises(FrameError):
            decode_snapshot_header(bytes(wrong))


# Readers (scenarios N4, N8).


def test_N4_a_snapshot_that_is_sent_outlives_the_next_one(files: Files) -> None:
    """A reader may finish with the snapshot that it began with; at the second replacement it is told."""
    create(files, entries=30)
    store = reopen(files).snapshots
    take(store, 5)
    assert store.read_chunk(LogPosition(5, 1), 0) == b"5"
    take(store, 9)
    assert store.read_chunk(LogPosition(5, 1), 3) == chunks_of(5)[3]
    assert store.read_chunk(LogPosition(9, 1), 1) == chunks_of(9)[1]
    take(store, 14)
    assert store.read_chunk(LogPosition(5, 1), 1) is None
    assert store.read_chunk(LogPosition(9, 1), 1) == chunks_of(9)[1]
    assert len([name for name in files.names() if "snap" in name]) == 2
    store.release(LogPosition(9, 1))
    assert store.read_chunk(LogPosition(9, 1), 1) is None
    assert [name for name in files.names() if "snap" in name] == [snapshot_name(14, 1)]


def test_N4_a_released_snapshot_goes_with_the_next_one(files: Files) -> None:
    """A snapshot that nobody reads any more does not outlive the next one; unknown chunks are gone as well."""
    create(files, entries=30)
    store = reopen(files).snapshots
    take(store, 5)
    store.read_chunk(LogPosition(5, 1), 0)
    store.release(LogPosition(5, 1))
    take(store, 9)
    assert store.read_chunk(LogPosition(5, 1), 0) is None
    assert store.read_chunk(LogPosition(9, 1), 4) is None
    assert store.read_chunk(LogPosition(9, 2), 0) is None


def test_a_wrong_chunk_is_never_sent() -> None:
    """A chunk that is not as it was written is damage, named, and not sent."""
    files = MemoryFiles()
    create(files, entries=9)
    store = reopen(files).snapshots
    info = take(store, 5)
    files.flip(info.name, files.size(info.name) - 200, 1)
    with pytest.raises(DamagedError, match=rf"{info.name} is damaged at byte \d+: the bytes of frame 3"):
        store.read_chunk(LogPosition(5, 1), 3)


# Every crash point.


def replace_snapshot(files: MemoryFiles) -> int:
    """Write a snapshot in place of the one there is, until that is done or fails; return what was stored."""
    try:
        take(reopen(files).snapshots, 9)
    except OSError:
        return 5
    return 9


@pytest.mark.parametrize(
    "error", [PowerLossError(), OSError(errno.EIO, "broken"), OSError(errno.ENOSPC, "full")]
)
def test_N6_a_fault_at_each_step_of_a_snapshot(error: OSError) -> None:
    """Whatever step is the last, the node comes back with one whole snapshot and all of its log."""
    sound = MemoryFiles()
    create(sound, entries=20)
    take(reopen(sound).snapshots, 5)
    steps = sound.copy()
    first = steps.steps
    assert replace_snapshot(steps) == 9
    found = set()
    for step in range(steps.steps - first):
        for seed in range(12):
            files = sound.copy()
            files.fail_after(step, error)
            stored = replace_snapshot(files)
            files.clear_faults()
            if seed or isinstance(error, PowerLossError):
                files.crash(Random(seed))
            opened = reopen(files)
            info = opened.recovered.snapshot
            assert info is not None
            assert info.index >= stored
            assert list(opened.snapshots.chunks(info)) == chunks_of(info.index)
            assert indexes(opened) == list(range(info.index + 1, 21))
            assert [name for name in files.names() if "snap" in name] == [info.name]
            found.add(info.index)
    assert found == {5, 9}


def carry_out(jobs: SnapshotJobs, index: int, chunks: int) -> None:
    """Write a whole snapshot."""
    added = [AddChunk(number, chunk) for number, chunk in enumerate(chunks_of(index, chunks))]
    all_jobs: list[SnapshotJob] = [BeginSnapshot(index, 1), *added, FinishSnapshot()]
    for job in all_jobs:
        list(jobs.steps(job))


def test_D12_a_full_disk_ends_a_snapshot_cleanly() -> None:
    """Without space for it a snapshot leaves nothing behind, and the one before stays."""
    files = MemoryFiles()
    create(files, entries=20)
    store = reopen(files).snapshots
    take(store, 5)
    used_bytes = sum(files.size(name) for name in files.names())
    told: list[Completion] = []
    for free_log_bytes in range(0, 1000, 50):
        files.capacity_bytes = used_bytes + free_log_bytes
        carry_out(SnapshotJobs(store, told.append), 9, 6)
        failed = told.pop()
        assert isinstance(failed, SnapshotFailed)
        assert (failed.index, failed.term) == (9, 1)
        assert not [each for each in told if not isinstance(each, ChunkAdded)]
        told.clear()
        assert [name for name in files.names() if "snap" in name] == [snapshot_name(5, 1)]
    files.capacity_bytes = None
    assert take(store, 9) == store.newest()


def test_a_snapshot_that_takes_long_to_be_stored_tells_that_it_gets_on() -> None:
    """It is told when it was synced, and after each few chunks that were read back: who waits for it sees it move."""
    files = MemoryFiles()
    create(files, entries=20)
    told: list[Completion] = []
    carry_out(SnapshotJobs(reopen(files).snapshots, told.append), 9, 3 * MOVED_STEPS)
    moved = told[3 * MOVED_STEPS : -1]
    assert [type(each) for each in told if each not in moved] == [ChunkAdded] * 3 * MOVED_STEPS + [
        SnapshotStored
    ]
    assert set(moved) == {SnapshotMoved(9, 1)}
    assert len(moved) >= 3


class ForgetfulFiles(MemoryFiles):
    """A disk that gives back other than it was given."""

    wrong_at = -1

    def read_at(self, name: str, offset: int, length: int) -> bytes:
        data = super().read_at(name, offset, length)
        if name.endswith(".tmp") and offset <= self.wrong_at < offset + length:
            return b"\0" + data[1:] if data[:1] != b"\0" else b"\1" + data[1:]
        return data


@pytest.mark.parametrize("wrong_at", [0, 70, 400, 1000])
def test_a_snapshot_is_proved_readable_before_it_counts(wrong_at: int) -> None:
    """A disk that gives back other than was written has failed; the snapshot before stays."""
    files = ForgetfulFiles()
    create(files, entries=20)
    store = reopen(files).snapshots
    info = take(store, 5)
    files.wrong_at = wrong_at
    with pytest.raises(OSError, match="can't be read back") as caught:
        take(store, 9)
    assert caught.value.errno == errno.EIO
    assert store.newest() == info == reopen(files).recovered.snapshot


# The log and its snapshot (scenarios N1, N2, N6, N9).


def conflicting(files: MemoryFiles, *, entries: int, snapshot: tuple[int, int]) -> None:
    """Make a log of term 1 and a snapshot, as when a snapshot came from a leader and power failed then."""
    create(files, entries=entries)
    take(reopen(files).snapshots, *snapshot)


@pytest.mark.parametrize(
    ("entries", "snapshot", "kept"),
    [
        pytest.param(20, (12, 1), range(13, 21), id="the log holds it"),
        pytest.param(12, (12, 1), range(0), id="the log ends there"),
        pytest.param(20, (12, 2), range(0), id="N1 another term stands there"),
        pytest.param(7, (12, 1), range(0), id="N9 the log is shorter"),
        pytest.param(0, (12, 3), range(0), id="N9 the log is empty"),
    ],
)
def test_N2_the_log_goes_with_the_snapshot_before_anything_else(
    entries: int, snapshot: tuple[int, int], kept: range
) -> None:
    """A log in conflict with the snapshot is replaced durably at the start, at whatever step that is interrupted."""
    sound = MemoryFiles()
    conflicting(sound, entries=entries, snapshot=snapshot)
    steps = sound.copy()
    opened = reopen(steps)
    for step in range(steps.steps - sound.steps + 1):
        for seed in range(4):
            files = sound.copy()
            files.fail_after(step, PowerLossError())
            try:
                reopen(files)
            except PowerLossError:
                files.crash(Random(seed))
            files.clear_faults()
            opened = reopen(files)
            assert (opened.recovered.base, indexes(opened)) == (Base(*snapshot), list(kept))
            assert opened.recovered.hard_state.term >= snapshot[1]
            files.crash_keeping((), image=0)
            again = reopen(files)
            assert again.recovered == opened.recovered
            again.wal.append([write(entry(again.wal.last_index + 1, again.wal.hard_state.term))])
            assert indexes(reopen(files)) == [*kept, again.wal.last_index]


def test_N6_a_log_that_begins_after_the_snapshot_is_damage() -> None:
    """Entries between the snapshot's end and the log's beginning are missing: the node says so."""
    files = MemoryFiles()
    create(files, entries=60)
    opened = reopen(files)
    info = take(opened.snapshots, 30)
    assert opened.wal.compact(30) > 0
    first = min(name for name in files.names() if "wal" in name)
    missing = segment_name(int(first[4:20]) - 1)
    files.lose(info.name)
    with pytest.raises(DamagedError, match=rf"{missing} is damaged at byte 0: .* the snapshot ends at 0"):
        reopen(files)


def test_a_reset_log_without_its_snapshot_is_damage() -> None:
    """A log that a snapshot took the place of is worth nothing without it."""
    files = MemoryFiles()
    conflicting(files, entries=7, snapshot=(12, 1))
    info = reopen(files).recovered.snapshot
    assert info is not None
    files.lose(info.name)
    with pytest.raises(DamagedError, match="the log begins after entry 12, and the snapshot ends at 0"):
        reopen(files)


def two_snapshots(*, entries: int, compacts: bool) -> MemoryFiles:
    """Return a disk on which the newest snapshot's predecessor is still there."""
    files = MemoryFiles()
    create(files, entries=entries)
    opened = reopen(files)
    older = take(opened.snapshots, 10)
    kept = files.read(older.name)
    take(opened.snapshots, 30)
    files.create(older.name, len(kept), kept)
    if compacts:
        opened.wal.compact(30)
    return files


def test_a_damaged_snapshot_is_passed_over_if_the_log_holds_what_is_in_it() -> None:
    """With the log back to the one before, the newest may be damaged: nothing is lost, and people are told."""
    files = two_snapshots(entries=60, compacts=False)
    files.flip(snapshot_name(30, 1), 100, 1)
    opened = reopen(files)
    assert (opened.recovered.base, indexes(opened)) == (Base(10, 1), list(range(11, 61)))
    assert "is damaged at byte" in opened.recovered.warnings[0]
    assert [name for name in files.names() if "snap" in name] == [snapshot_name(10, 1)]
    assert reopen(files).recovered.warnings == ()


def test_the_first_snapshot_may_be_damaged_while_the_log_is_whole() -> None:
    """A log that was never cut needs no snapshot."""
    files = MemoryFiles()
    create(files, entries=20)
    take(reopen(files).snapshots, 12)
    files.cut(snapshot_name(12, 1), 5)
    opened = reopen(files)
    assert (opened.recovered.snapshot, indexes(opened)) == (None, list(range(1, 21)))
    assert take(opened.snapshots, 12).index == 12


@pytest.mark.parametrize("entries", [60, 25])
def test_a_damaged_snapshot_that_is_needed_is_damage(entries: int) -> None:
    """If the log was cut behind it, or never held its end, the node names the snapshot and does not start."""
    files = two_snapshots(entries=entries, compacts=entries == 60)
    files.flip(snapshot_name(30, 1), 100, 1)
    before = {name: files.read(name) for name in files.names()}
    with pytest.raises(DamagedError, match=rf"{snapshot_name(30, 1)} is damaged at byte \d+"):
        reopen(files)
    assert {name: files.read(name) for name in files.names()} == before


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        (attrs.evolve(IDENTITY, node=3), "belongs to"),
        (attrs.evolve(IDENTITY, cluster="0" * 32), "belongs to"),
        (attrs.evolve(IDENTITY, incarnation=1), "belongs to"),
    ],
)
def test_a_foreign_snapshot_is_damage(identity: Identity, reason: str) -> None:
    """Another node's snapshot, brought here as it is, is not taken for this one's."""
    files = MemoryFiles()
    create(files, entries=3)
    writer = SnapshotStore(files, identity).begin(12, 1)
    writer.add(0, b"state")
    writer.finish()
    with pytest.raises(DamagedError, match=reason):
        reopen(files)


def test_a_snapshot_under_another_name_is_damage() -> None:
    """A snapshot says itself how far it goes."""
    files = MemoryFiles()
    conflicting(files, entries=3, snapshot=(12, 1))
    data = files.read(snapshot_name(12, 1))
    files.lose(snapshot_name(12, 1))
    files.create(snapshot_name(13, 1), len(data), data)
    with pytest.raises(DamagedError, match="it is the snapshot up to 12@1"):
        reopen(files)


def test_D10_every_wrong_byte_of_a_snapshot_is_damage(
    stride: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each byte wrong in turn, or the file cut there or longer, is damage if the snapshot is needed, else no loss."""
    files = MemoryFiles()
    create(files, entries=60)
    opened = reopen(files)
    info = take(opened.snapshots, 30, count=6)
    whole = files.copy()
    opened.wal.compact(30)
    expected = reopen(files.copy()).recovered
    cases = 0
    for offset in range(0, files.size(info.name), stride):
        for is_cut in (False, True):
            twin, spared = files.copy(), whole.copy()
            for each in (twin, spared):
                if is_cut:
                    each.cut(info.name, offset)
                else:
                    each.flip(info.name, offset, (0x01, 0x80, 0xFF)[offset % 3])
            with pytest.raises(DamagedError) as caught:
                reopen(twin)
            assert caught.value.file.endswith(info.name)
            assert 0 <= caught.value.offset <= offset
            recovered = reopen(spared).recovered
            assert recovered.entries[30:] == expected.entries
            assert len(recovered.warnings) == 1
            cases += 2
    longer = files.read(info.name) + b"!"
    files.create(info.name, len(longer), longer)
    with pytest.raises(DamagedError, match="data behind the end"):
        reopen(files)
    with capsys.disabled():
        print(f" {cases} cases", end="")  # noqa: T201 - how much was tried is part of the claim
    assert cases > 8_000 // stride
