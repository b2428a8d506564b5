"""The write-ahead log: what is acknowledged stays, what is torn is cut, damage is named."""

import errno
import itertools
from pathlib import Path
from random import Random

import attrs
import msgspec
import pytest

from trio_kv.kv import commands
from trio_kv.kv.operations import Set
from trio_kv.raft.entry import Entry, LogPosition, make_entry
from trio_kv.raft.log_space import WRITE_BYTES_EXTRA
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.storage.batches import encode, merge, size_bytes
from trio_kv.storage.errors import DamagedError
from trio_kv.storage.files import Files, RealFiles
from trio_kv.storage.memory import MemoryFiles, PowerLossError
from trio_kv.storage.recovery import Recovered, Recovery
from trio_kv.storage.segments import segment_name
from trio_kv.storage.wal import Wal
from trio_kv.wire.frames import SECTOR_BYTES, Base, Identity, SegmentHeader

IDENTITY = Identity("c0ffee" * 5 + "42", 2, 123456789)
SEGMENT_BYTES = 16384
FIRST, SECOND, THIRD = map(segment_name, (1, 2, 3))


def entry(index: int, term: int = 1, size_bytes: int = 150) -> Entry:
    """Return an entry of about this many bytes."""
    text = f"{index}." * (size_bytes // (len(str(index)) + 1))
    return make_entry(
        index,
        term,
        index * 10,
        commands.Write(1, index, index, Set(f"key{index}", msgspec.Raw(msgspec.json.encode(text)))),
    )


def write(
    *entries: Entry,
    hard_state: HardState | None = None,
    truncate_from: int | None = None,
    base: LogPosition | None = None,
) -> Write:
    """Return a write. Its ticket is of no concern to the log."""
    return Write(Ticket(0, 0, 0), hard_state, truncate_from, entries, base)


def create(files: Files, *, term: int = 1) -> Wal:
    """Return a new log that may hold entries up to this term."""
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    wal.append([write(hard_state=HardState(term, 2))])
    return wal


def reopen(files: Files, covered_index: int = 0, segment_bytes: int = SEGMENT_BYTES) -> tuple[Wal, Recovered]:
    recovery = Recovery(files, IDENTITY, covered_index=covered_index)
    recovered = recovery.read()
    return Wal.resume(files, recovery, segment_bytes=segment_bytes), recovered


def recover(files: Files, covered_index: int = 0) -> Recovered:
    return reopen(files, covered_index)[1]


@pytest.fixture(params=["memory", "real"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """Both implementations of the port, which must behave alike."""
    return MemoryFiles() if request.param == "memory" else RealFiles(tmp_path)


# Writing and reading back.


def test_log_round_trip(files: Files) -> None:
    """All records come back, over several segments, and writing goes on where it ended."""
    wal = create(files)
    wal.append([write(*map(entry, range(1, 60)))])
    wal.append(
        [
            write(hard_state=HardState(2, None)),
            write(entry(40, 2), truncate_from=40),
            write(entry(41, 2), entry(42, 2)),
        ]
    )
    for index in range(43, 150):
        wal.append([write(entry(index, 2))])
        if wal.wants_spare:
            wal.prepare()
    wal.close()
    assert wal.segment > 2
    wal, recovered = reopen(files)
    expected = [entry(index, 1 if index < 40 else 2) for index in range(1, 150)]
    assert recovered == Recovered(HardState(2, None), Base(0, 0), expected, ())
    assert (wal.hard_state, wal.last_index) == (HardState(2, None), 149)
    wal.append([write(entry(150, 2))])
    wal.close()
    wal, recovered = reopen(files)
    assert recovered.entries == [*expected, entry(150, 2)]
    wal.close()


def test_a_batch_is_one_frame() -> None:
    """However many writes a batch holds, it is one write and one sync."""
    files = MemoryFiles()
    wal = create(files)
    frames, steps = wal.frames, files.steps
    wal.append([write(entry(index)) for index in range(1, 51)])
    assert wal.frames == frames + 1
    assert files.steps == steps + 2


def test_batches_and_entries_larger_than_a_segment(files: Files) -> None:
    """A batch larger than a segment is cut; an entry larger than a segment gets a segment of its own size."""
    wal = create(files)
    wal.append([write(*map(entry, range(1, 301)))])
    wal.append([write(entry(301, size_bytes=100), entry(302, size_bytes=40_000), entry(303))])
    wal.append([write(entry(304))])
    wal.close()
    wal, recovered = reopen(files)
    assert [len(each.encoded) > SEGMENT_BYTES for each in recovered.entries] == [False] * 301 + [
        True,
        False,
        False,
    ]
    assert [each.index for each in recovered.entries] == list(range(1, 305))
    wal.append([write(entry(305))])
    wal.close()


@pytest.mark.parametrize("segment_bytes", [4096, 65536])
def test_size_of_segments_may_change(segment_bytes: int) -> None:
    """A log goes on with segments of another size than it was begun with."""
    files = MemoryFiles()
    wal = create(files)
    wal.append([write(*map(entry, range(1, 60)))])
    wal.prepare()
    wal, _ = reopen(files, segment_bytes=segment_bytes)
    wal.append([write(*map(entry, range(60, 250)))])
    wal.append([write(*map(entry, range(250, 300)))])
    assert [each.index for each in recover(files).entries] == list(range(1, 300))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(write(entry(5)), id="gap"),
        pytest.param(write(entry(3)), id="overwrites"),
        pytest.param(write(entry(4, 1)), id="older term"),
        pytest.param(write(entry(4, 4)), id="term not durable"),
        pytest.param(write(hard_state=HardState(2, 2)), id="term goes back"),
        pytest.param(write(hard_state=HardState(3, 1)), id="votes twice"),
        pytest.param(write(hard_state=HardState(3, 2)), id="forgets an incarnation"),
        pytest.param(write(hard_state=HardState(3, 2, ((1, 6),))), id="an incarnation goes back"),
        pytest.param(write(truncate_from=5), id="truncates nothing"),
        pytest.param(write(truncate_from=0), id="truncates the base"),
        pytest.param(write(base=LogPosition(9, 4)), id="reset to a term that isn't durable"),
    ],
)
def test_D7_a_write_that_does_not_follow_is_a_bug(wrong: Write) -> None:
    """No write that breaks a rule of the log reaches the disk, and none can follow it."""
    files = MemoryFiles()
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    state = HardState(3, 2, ((1, 7),))
    wal.append([write(entry(1), entry(2, 3), entry(3, 3), hard_state=state)])
    steps = files.steps
    with pytest.raises(AssertionError):
        wal.append([wrong])
    assert files.steps == steps
    with pytest.raises(AssertionError, match="failed before"):
        wal.append([write(entry(4, 3))])


# Damage and torn writes.


def sample_log() -> tuple[MemoryFiles, Recovered]:
    """Return a log of two used segments and a spare, and what it holds."""
    files = MemoryFiles()
    wal = create(files, term=1)
    index = 0
    for size in itertools.cycle((300, 1500, 700, 40)):
        wal.append([write(*(entry(index + n, 1, size) for n in range(1, 4)))])
        index += 3
        if wal.segment == 2 and wal.offset > 3000:
            break
    wal.append([write(entry(index, 2), truncate_from=index, hard_state=HardState(2, 1))])
    wal.append([write(entry(index + 1, 2, 900))])
    wal.prepare()
    assert files.names() == [FIRST, SECOND, THIRD]
    return files, recover(files)


def used_bytes(files: MemoryFiles, name: str) -> int:
    """Return where the last frame of a segment ends."""
    used = len(files.read(name).rstrip(b"\0"))
    return -(-used // SECTOR_BYTES) * SECTOR_BYTES


def judge(files: MemoryFiles, expected: Recovered, name: str) -> str:
    """Open a log that was tampered with: it holds all that was acknowledged, or names the place."""
    damage, recovered = None, None
    try:
        recovered = recover(files, expected.base.index)
    except DamagedError as error:
        damage = error
    if damage is not None:
        assert name in damage.file
        assert 0 <= damage.offset <= len(files.read(name))
        assert damage.reason
        assert damage.way_out
        return "damaged"
    assert recovered is not None
    assert (recovered.hard_state, recovered.entries) == (expected.hard_state, expected.entries)
    return "torn" if recovered.warnings else "whole"


def test_D10_every_wrong_byte_is_damage(stride: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Each used byte wrong in turn, or the file cut there, stops the node: nothing is cut off."""
    files, expected = sample_log()
    cases = 0
    for name in (FIRST, SECOND, THIRD):
        for offset in range(0, used_bytes(files, name), stride):
            flipped = files.copy()
            flipped.flip(name, offset, (0x01, 0x80, 0xFF)[offset % 3])
            assert judge(flipped, expected, name) == "damaged", (name, offset)
            cut = files.copy()
            cut.cut(name, offset)
            assert judge(cut, expected, name) == "damaged", (name, offset)
            cases += 2
    with capsys.disabled():
        print(f" {cases} cases", end="")  # noqa: T201 - how much was tried is part of the claim
    assert cases > 30_000 // stride


def test_D10_wrong_unused_bytes_lose_nothing() -> None:
    """A wrong byte behind the log's end costs nothing that was acknowledged, wherever it is."""
    files, expected = sample_log()
    outcomes = set()
    for name in (FIRST, SECOND, THIRD):
        for offset in range(used_bytes(files, name), SEGMENT_BYTES, 37):
            flipped = files.copy()
            flipped.flip(name, offset, 0x40)
            outcomes.add(judge(flipped, expected, name))
    assert outcomes == {"damaged", "torn"}


@pytest.mark.parametrize("gone", [FIRST, SECOND])
def test_D10_a_missing_segment_is_damage(gone: str) -> None:
    """A segment that is gone is noticed, also the last one that was written to."""
    files, _ = sample_log()
    for others in ((), (THIRD,)):
        twin = files.copy()
        for name in (gone, *others):
            twin.lose(name)
        with pytest.raises(DamagedError, match=f"{gone} is damaged at byte 0: the file is missing"):
            recover(twin)


def test_D10_a_sector_of_zeros_inside_the_log_is_damage() -> None:
    """Any sector but those of the last frame turned to zeros is noticed."""
    files, expected = sample_log()
    for name in (FIRST, SECOND, THIRD):
        end = used_bytes(files, name) - (3 * SECTOR_BYTES if name == SECOND else 0)
        for offset in range(0, end, SECTOR_BYTES):
            twin = files.copy()
            twin.put(name, offset, bytes(SECTOR_BYTES))
            assert judge(twin, expected, name) == "damaged", (name, offset)


def test_D10_frames_behind_a_torn_one_are_damage() -> None:
    """A frame with a zero sector is not torn when another frame, or anything else, stands behind it."""
    files = MemoryFiles()
    wal = create(files)
    wal.append([write(entry(1, size_bytes=1400))])
    start = wal.offset
    wal.append([write(entry(2, size_bytes=1400))])
    end = wal.offset
    torn = files.copy()
    torn.put(FIRST, start + SECTOR_BYTES, bytes(SECTOR_BYTES))
    assert recover(torn.copy()).warnings
    torn.put(FIRST, end + 4 * SECTOR_BYTES, b"!")
    with pytest.raises(DamagedError, match="data behind the end"):
        recover(torn)
    wal.append([write(entry(3))])
    files.put(FIRST, start + SECTOR_BYTES, bytes(SECTOR_BYTES))
    with pytest.raises(DamagedError, match="what follows at byte"):
        recover(files)


@pytest.mark.parametrize(
    ("identity", "number", "reason"),
    [
        (attrs.evolve(IDENTITY, cluster="0" * 32), 1, "belongs to"),
        (attrs.evolve(IDENTITY, node=3), 1, "belongs to"),
        (attrs.evolve(IDENTITY, incarnation=5), 1, "belongs to"),
        (IDENTITY, 4, "segment 4 under the name of segment 1"),
    ],
)
def test_a_foreign_segment_is_damage(identity: Identity, number: int, reason: str) -> None:
    """Another cluster's, node's or incarnation's log, or another part of this one, isn't taken for it."""
    files = MemoryFiles()
    create(files)
    files.put(FIRST, 0, SegmentHeader(identity, number, SEGMENT_BYTES).encode())
    with pytest.raises(DamagedError, match=reason):
        recover(files)


def test_two_spares_are_damage() -> None:
    """A second empty segment proves that more was written than is there."""
    files = MemoryFiles()
    create(files).prepare()
    files.create(THIRD, SEGMENT_BYTES, SegmentHeader(IDENTITY, 3, SEGMENT_BYTES).encode())
    with pytest.raises(DamagedError, match="two segments behind"):
        recover(files)


@pytest.mark.parametrize("sectors", [1, 2, 7])
def test_D9_a_torn_frame_is_cut_whatever_is_left_of_it(sectors: int) -> None:
    """Any sectors of the write under way may be left: it is cut unless all are; nothing else is lost."""
    files = MemoryFiles()
    wal = create(files)
    wal.append([write(entry(1), entry(2))])
    files.fail_after(1, OSError(errno.EIO, "at the sync"))
    with pytest.raises(OSError, match="at the sync"):
        wal.append([write(entry(3, size_bytes=sectors * SECTOR_BYTES - 300))])
    unsynced = files.unsynced()
    assert len(unsynced) == sectors
    for kept in itertools.chain.from_iterable(
        itertools.combinations(unsynced, n) for n in range(sectors + 1)
    ):
        twin = files.copy()
        twin.crash_keeping(kept)
        first = recover(twin)
        assert len(first.entries) == (3 if len(kept) == sectors else 2)
        assert bool(first.warnings) == (0 < len(kept) < sectors)
        again, second = reopen(twin)
        assert (second.entries, second.warnings) == (first.entries, ())
        again.append([write(entry(again.last_index + 1))])
        assert recover(twin).entries[: len(first.entries)] == first.entries


def test_what_was_read_is_durable() -> None:
    """A frame not synced when the process died outlives a power cut once it was read back."""
    for failing in (0, 1):
        files = MemoryFiles()
        wal = create(files)
        files.fail_after(failing, OSError(errno.EIO, "broken"))
        with pytest.raises(OSError, match="broken"):
            wal.append([write(entry(1))])
        recovered = recover(files)
        assert recovered.entries == [entry(1)]
        files.crash_keeping(())
        assert recover(files) == recovered


def test_a_name_that_was_read_is_durable() -> None:
    """A segment whose name was not synced when the process died keeps what is written to it later."""
    files = MemoryFiles()
    wal = create(files)
    files.fail_after(4, OSError(errno.EIO, "at the sync of the directory"))
    with pytest.raises(OSError, match="at the sync of the directory"):
        wal.prepare()
    assert files.names() == [FIRST, SECOND]
    wal, _ = reopen(files)
    wal.append([write(*map(entry, range(1, 51)))])
    wal.append([write(*map(entry, range(51, 90)))])
    assert wal.segment == 2
    files.crash_keeping((), image=0)
    assert len(recover(files).entries) == 89


def test_a_seal_that_was_read_is_durable() -> None:
    """A seal not synced when the process died is durable before the next segment is written to."""
    files = MemoryFiles()
    wal = create(files)
    wal.append([write(*map(entry, range(1, 50)))])
    wal.prepare()
    files.fail_after(1, OSError(errno.EIO, "at the sync of the seal"))
    with pytest.raises(OSError, match="at the sync of the seal"):
        wal.append([write(*map(entry, range(50, 99)))])
    wal, recovered = reopen(files)
    assert (wal.segment, len(recovered.entries)) == (2, 49)
    wal.append([write(entry(50))])
    files.crash_keeping(())
    assert len(recover(files).entries) == 50


# A snapshot in place of the log, and in place of its beginning.


def grow(wal: Wal, last: int, term: int = 1) -> None:
    """Append entries one by one, up to this index."""
    for index in range(wal.last_index + 1, last + 1):
        wal.append([write(entry(index, term))])


def test_N2_a_reset_drops_the_whole_log(files: Files) -> None:
    """Behind the record of a reset the log holds only what came later, in the same write and after it."""
    wal = create(files)
    grow(wal, 30)
    wal.append(
        [
            write(entry(31), truncate_from=31),
            write(entry(101, 3), hard_state=HardState(3, None), base=LogPosition(100, 2)),
        ]
    )
    assert (wal.base, wal.last_index, wal.term_at(100), wal.term_at(30)) == (Base(100, 2), 101, 2, None)
    wal.append([write(entry(101, 3), truncate_from=101), write(entry(102, 3))])
    wal.close()
    wal, recovered = reopen(files, 100)
    assert recovered == Recovered(HardState(3, None), Base(100, 2), [entry(101, 3), entry(102, 3)], ())
    # A conflicting log may have been longer than the snapshot.
    wal.append([write(base=LogPosition(50, 3)), write(entry(51, 3))])
    wal.close()
    wal, recovered = reopen(files, 50)
    assert (recovered.base, recovered.entries) == (Base(50, 3), [entry(51, 3)])
    wal.close()


def test_segments_that_a_snapshot_covers_are_deleted(files: Files) -> None:
    """Whole segments go, the one that is written to never; the rest can be read, and goes on."""
    wal = create(files, term=2)
    grow(wal, 100)
    grow(wal, 300, term=2)
    assert wal.segment > 4
    before = recover(files) if isinstance(files, MemoryFiles) else None
    assert wal.compact(0) == 0
    deleted = wal.compact(150)
    assert deleted > 0
    assert wal.compact(150) == 0
    assert 0 < wal.base.index <= 150
    assert files.names()[0] == segment_name(1 + deleted)
    grow(wal, 310, term=2)
    wal.close()
    wal, recovered = reopen(files, 150)
    assert recovered.base == wal.base
    assert recovered.hard_state == HardState(2, 2)
    assert [each.index for each in recovered.entries] == list(range(wal.base.index + 1, 311))
    assert before is None or recovered.entries[:-10] == before.entries[wal.base.index :]
    wal.compact(310)
    assert files.names()[0] == segment_name(wal.segment)
    grow(wal, 400, term=2)
    wal.compact(400)
    wal.close()
    wal, recovered = reopen(files, 400)
    assert (wal.last_index, wal.term_at(400), recovered.hard_state) == (400, 2, HardState(2, 2))
    wal.append([write(entry(401, 2))])
    wal.close()


def test_D8_incarnations_stand_at_the_beginning_of_each_segment() -> None:
    """What was heard of nine nodes is there when all segments but the last are gone, however full each of them was."""
    heard = tuple((node, (1 << 64) - node) for node in range(1, 10))
    for size in (*range(1, 1100, 9), *range(3000, 5100, 27)):
        files = MemoryFiles()
        wal = Wal.create(files, IDENTITY, segment_bytes=4096)
        wal.append([write(hard_state=HardState(1, 2, heard))])
        while wal.segment < 4:
            wal.append([write(entry(wal.last_index + 1, size_bytes=size))])
        # Larger than a segment: it is cut into several frames, each of which has to fit behind what is restated.
        last = wal.last_index
        wal.append([write(*[entry(last + place, size_bytes=size) for place in range(1, 9)])])
        assert recover(files).entries[-1].index == wal.last_index == last + 8
        wal.compact(wal.last_index)
        wal.reset(wal.last_index + 5, 2)
        assert recover(files, wal.last_index).hard_state == wal.hard_state == HardState(2, None, heard)


def log_before_a_beginning() -> MemoryFiles:
    """Return a log of term 7 whose first segment is sealed, and whose second one holds nothing yet."""
    files = MemoryFiles()
    wal = create(files, term=7)
    last = 0
    while wal.segment == 1:
        last += 1
        grow(wal, last, term=7)
    files = MemoryFiles()
    wal = create(files, term=7)
    grow(wal, last - 1, term=7)
    wal.prepare()
    files.fail_after(2, PowerLossError())  # behind the write and the sync of the seal
    with pytest.raises(PowerLossError):
        grow(wal, last, term=7)
    files.crash_keeping(())
    return files


def test_a_segment_that_was_not_begun_keeps_the_one_before() -> None:
    """Only a segment's first frame says what came before it: without one, term and vote would be lost."""
    files = log_before_a_beginning()
    wal, recovered = reopen(files)
    assert wal.segment == 2
    assert wal.compact(recovered.entries[-1].index) == 0
    assert recover(files).hard_state == HardState(7, 2)
    grow(wal, wal.last_index + 1, term=7)
    assert wal.compact(wal.last_index) == 1
    assert recover(files, wal.last_index).hard_state == HardState(7, 2)


def test_a_truncation_behind_a_segments_beginning_keeps_the_one_before() -> None:
    """A log can't begin with a segment that says to drop entries of the one before; later it may again."""
    files = MemoryFiles()
    wal = create(files, term=3)
    while wal.segment == 1:
        grow(wal, wal.last_index + 1)
    last = wal.last_index
    wal.append([write(entry(last - 9, 3), truncate_from=last - 9)])
    grow(wal, last + 10, term=3)
    assert wal.segment == 2
    assert wal.compact(last + 10) == 0
    assert recover(files).entries[-1].index == last + 10
    while wal.segment == 2:
        grow(wal, wal.last_index + 1, term=3)
    assert wal.compact(wal.last_index) == 2
    wal, recovered = reopen(files, wal.last_index)
    assert recovered.entries[-1].index == wal.last_index
    assert wal.term_at(wal.last_index) == 3


def interrupt_compaction(files: MemoryFiles, wal: Wal) -> None:
    """Delete the first segment, and let power fail at the second one."""
    files.fail_after(2, PowerLossError())
    with pytest.raises(PowerLossError):
        wal.compact(wal.last_index)
    files.crash_keeping(())
    assert files.names()[0] == SECOND


def test_N6_an_interrupted_compaction_may_leave_what_goes_back_behind_the_log() -> None:
    """A segment that should be gone as well may drop entries that are gone already: all of that is covered."""
    files = MemoryFiles()
    wal = create(files, term=3)
    while wal.segment == 1:
        grow(wal, wal.last_index + 1)
    wal.append([write(entry(20, 3), truncate_from=20)])
    while wal.segment == 2:
        grow(wal, wal.last_index + 1, term=3)
    last = wal.last_index
    interrupt_compaction(files, wal)
    wal, recovered = reopen(files, last)
    assert recovered.entries == [entry(index, 3) for index in range(20, last + 1)]
    assert (recovered.base.index, wal.term_at(20)) == (19, 3)
    with pytest.raises(AssertionError, match="truncation at 15"):
        wal.append([write(truncate_from=15)])
    wal, _ = reopen(files, last)
    assert wal.compact(last) == 1
    grow(wal, last + 1, term=3)
    assert recover(files, last).entries[-1] == entry(last + 1, 3)
    files.lose(THIRD)
    with pytest.raises(DamagedError):
        recover(files, last)


def test_N6_an_interrupted_compaction_may_leave_a_segment_without_records() -> None:
    """A segment that was sealed before it held anything says nothing of what came before it; the next one does."""
    files = log_before_a_beginning()
    wal, recovered = reopen(files)
    last = recovered.entries[-1].index
    wal.append([write(entry(last + 1, 7, size_bytes=40_000))])
    assert wal.segment == 3
    interrupt_compaction(files, wal)
    assert recover(files, last).entries == [entry(last + 1, 7, size_bytes=40_000)]
    assert recover(files, last).hard_state == HardState(7, 2)
    with pytest.raises(DamagedError, match=f"the log begins after entry {last}"):
        recover(files, last - 1)


@pytest.mark.parametrize("is_truncated", [False, True])
def test_a_reset_frees_the_segments_before_it(is_truncated: bool) -> None:
    """After a reset nothing older is needed, even if its segment goes back behind its beginning (core seed 4878)."""
    files = MemoryFiles()
    wal = create(files, term=3)
    while wal.segment < 3:
        grow(wal, wal.last_index + 1)
    if is_truncated:
        wal.append([write(truncate_from=wal.last_index - 15)])
    wal.append([write(entry(1001, 3), base=LogPosition(1000, 2))])
    assert wal.compact(1000) == 2
    wal, recovered = reopen(files, 1000)
    assert (recovered.base, recovered.entries) == (Base(1000, 2), [entry(1001, 3)])
    while wal.segment == 3:
        grow(wal, wal.last_index + 1, term=3)
    wal.compact(wal.last_index)
    assert files.names() == [segment_name(4)]
    assert recover(files, wal.last_index).base.index < wal.last_index


def compacted_log() -> tuple[MemoryFiles, Recovered]:
    """Return a log whose first segments are gone, and what it holds."""
    files = MemoryFiles()
    wal = Wal.create(files, IDENTITY, segment_bytes=4096)
    wal.append([write(hard_state=HardState(2, 2))])
    grow(wal, 20)
    grow(wal, 50, term=2)
    wal.append([write(entry(47, 2), truncate_from=47)])
    wal.compact(30)
    wal.prepare()
    return files, recover(files, 30)


def test_D10_every_wrong_byte_of_a_compacted_log_is_damage(
    stride: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log without its beginning is as safe as a whole one: each used byte wrong, or cut, stops the node."""
    files, expected = compacted_log()
    cases = 0
    for name in files.names():
        for offset in range(0, used_bytes(files, name), stride):
            flipped, cut = files.copy(), files.copy()
            flipped.flip(name, offset, (0x01, 0x80, 0xFF)[offset % 3])
            assert judge(flipped, expected, name) == "damaged", (name, offset)
            cut.cut(name, offset)
            assert judge(cut, expected, name) == "damaged", (name, offset)
            cases += 2
    with capsys.disabled():
        print(f" {cases} cases", end="")  # noqa: T201 - how much was tried is part of the claim
    assert cases > 10_000 // stride


def test_D10_a_missing_segment_of_a_compacted_log_is_damage() -> None:
    """What is missing in the middle, or needed at the beginning, is noticed; not what the snapshot covers."""
    files, expected = compacted_log()
    names = files.names()[:-1]
    assert len(names) > 2
    for name in names:
        twin = files.copy()
        twin.lose(name)
        with pytest.raises(DamagedError, match="is damaged at byte 0: the file is missing"):
            recover(twin, 30)
    twin = files.copy()
    twin.lose(names[0])
    assert recover(twin, 46).entries[-1] == expected.entries[-1]
    for name in names:
        files.lose(name)
    with pytest.raises(DamagedError, match="was not begun"):
        recover(files, 46)


@pytest.mark.parametrize("error", [PowerLossError(), OSError(errno.EIO, "broken")])
def test_N6_a_fault_at_each_step_of_a_compaction(error: OSError) -> None:
    """However far the deletion of segments came, the log is whole behind the snapshot, and has no hole."""
    sound = MemoryFiles()
    wal = create(sound)
    grow(wal, 300)
    expected = recover(sound).entries
    for step in range(2 * (wal.segment - 1)):
        for image in (0, -1):
            files = sound.copy()
            wal, _ = reopen(files)
            files.fail_after(step, error)
            with pytest.raises(OSError, match=r"power lost|broken"):
                wal.compact(300)
            with pytest.raises(AssertionError, match="failed before"):
                wal.compact(300)
            files.crash_keeping((), image=image)
            wal, recovered = reopen(files, 300)
            assert recovered.entries == expected[recovered.base.index :]
            wal.compact(300)
            assert files.names() == [segment_name(wal.segment)]


# A disk that is full.


def test_D12_space_is_taken_before_it_is_promised() -> None:
    """The next segment is wanted when a quarter is used; without it there is room for three quarters more."""
    files = MemoryFiles()
    wal = create(files)
    while not wal.wants_spare:
        grow(wal, wal.last_index + 1)
    assert SEGMENT_BYTES // 4 <= wal.offset < SEGMENT_BYTES // 2
    free_log_bytes = wal.free_log_bytes
    assert free_log_bytes > SEGMENT_BYTES // 2
    wal.prepare()
    assert wal.free_log_bytes > free_log_bytes + SEGMENT_BYTES * 3 // 4
    assert not wal.wants_spare


@pytest.mark.parametrize("size_bytes", [20, 400, 1500, 5000])
def test_D12_what_fits_into_the_room_is_written_and_votes_after_it(size_bytes: int) -> None:
    """On a full disk all that the room is said to hold can be written; then hard states, for there is more."""
    files = MemoryFiles()
    wal = create(files)
    files.capacity_bytes = SEGMENT_BYTES
    with pytest.raises(OSError, match="no space"):
        wal.prepare()
    written = 0
    while len((new := entry(wal.last_index + 1, size_bytes=size_bytes)).encoded) + WRITE_BYTES_EXTRA <= (
        wal.free_log_bytes
    ):
        wal.append([write(new)])
        written += 1
    assert written > 1
    for term in range(2, 5):
        wal.append([write(hard_state=HardState(term, 1))])
    assert (wal.segment, files.names()) == (1, [FIRST])
    with pytest.raises(OSError, match="no space"):
        grow(wal, wal.last_index + 100, term=4)
    files.capacity_bytes = None
    wal, recovered = reopen(files)
    assert len(recovered.entries) >= written
    assert recovered.hard_state == HardState(4, 1)
    grow(wal, wal.last_index + 100, term=4)


@pytest.mark.parametrize("has_spare", [False, True])
def test_D12_what_fits_is_what_is_written_without_a_segment(has_spare: bool) -> None:
    """On a full disk a batch is written if the log said that it fits, and else not, to the byte."""

    def open_full() -> tuple[MemoryFiles, Wal]:
        files = MemoryFiles()
        wal = create(files)
        grow(wal, 9)
        if has_spare:
            wal.prepare()
        files.capacity_bytes = len(files.names()) * SEGMENT_BYTES
        return files, wal

    _, wal = open_full()
    text_bytes = SEGMENT_BYTES - 4 * SECTOR_BYTES - (0 if has_spare else wal.offset)
    verdicts = []
    for extra in range(0, 4 * SECTOR_BYTES, 7):
        batch = write(
            make_entry(
                10, 1, 100, commands.Write(1, 10, 10, Set("key", msgspec.Raw(b"1" * (text_bytes + extra))))
            )
        )
        files, wal = open_full()
        verdicts.append(wal.fits(size_bytes(encode(merge([batch])))))
        if verdicts[-1]:
            wal.append([batch])
        else:
            with pytest.raises(OSError, match="no space"):
                wal.append([batch])
        assert len(files.names()) == 1 + has_spare
    assert verdicts == sorted(verdicts, reverse=True)
    assert verdicts[0] is True
    assert verdicts[-1] is False


def test_D12_a_write_waits_for_room_if_it_is_let() -> None:
    """What does not fit into a full disk is tried again as often as its caller wants, and nothing is lost."""
    files = MemoryFiles()
    wal = create(files)
    files.capacity_bytes = SEGMENT_BYTES
    waits = 0
    for waits, error in enumerate(wal.appending([write(*map(entry, range(1, 300)))]), 1):
        assert error.errno == errno.ENOSPC
        if waits % 3 == 0:
            files.capacity_bytes = len(files.names()) * SEGMENT_BYTES + SEGMENT_BYTES
    assert waits > 6
    assert len(recover(files).entries) == 299


# A disk that fails.


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_D11_D12_a_failure_at_any_call_loses_nothing(number: int) -> None:
    """EIO or ENOSPC at each call in turn: the log comes back with all that was acknowledged."""

    def run(files: MemoryFiles) -> list[Entry]:
        """Write until it fails; return what was acknowledged."""
        stored: list[Entry] = []
        try:
            wal = create(files)
            for index in range(1, 200, 3):
                batch = [entry(index + n, size_bytes=400) for n in range(3)]
                wal.append([write(*batch)])
                stored += batch
                if wal.wants_spare:
                    wal.prepare()
        except OSError as error:
            numbers.add(error.errno)
            files.clear_faults()
        return stored

    numbers: set[int | None] = set()
    undisturbed = MemoryFiles()
    run(undisturbed)
    assert undisturbed.steps > 150
    for step in range(5, undisturbed.steps):
        for seed in (None, step):
            files = MemoryFiles()
            files.fail_after(step, OSError(number, "broken"))
            stored = run(files)
            if seed is not None:
                files.crash(Random(seed))
            wal, recovered = reopen(files)
            assert recovered.entries[: len(stored)] == stored, (step, seed)
            assert len(recovered.entries) <= len(stored) + 3
            wal.append([write(entry(wal.last_index + 1), hard_state=HardState(1, 2))])
    assert numbers == {number}


def test_D11_nothing_is_written_after_a_failed_sync() -> None:
    """A sync that fails once and would work the next time is not asked again."""
    files = MemoryFiles()
    wal = create(files)
    files.fail_after(1, OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        wal.append([write(entry(1))])
    steps = files.steps
    with pytest.raises(AssertionError, match="failed before"):
        wal.append([write(entry(1))])
    assert files.steps == steps


def test_D12_a_full_disk_is_tried_again_when_the_segment_is_needed() -> None:
    """The next segment that could not be made ahead is made when it is needed."""
    files = MemoryFiles()
    wal = create(files)
    files.fail_next(errno.ENOSPC)
    with pytest.raises(OSError, match="asked for"):
        wal.prepare()
    wal.append([write(*map(entry, range(1, 200)))])
    assert len(recover(files).entries) == 199


def test_a_leftover_temporary_file_is_removed() -> None:
    """What an interrupted making of a segment left behind is removed at the next start."""
    files = MemoryFiles()
    create(files)
    files.create(SECOND + ".tmp", 100)
    recover(files)
    assert files.names() == [FIRST]
