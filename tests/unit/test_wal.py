"""The write-ahead log: what is acknowledged stays, what is torn is cut, damage is named."""

import errno
import itertools
from pathlib import Path
from random import Random

import attrs
import msgspec
import pytest

from trio_kv.kv.commands import Set
from trio_kv.raft.entry import Entry, make_entry
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.storage.errors import DamagedError
from trio_kv.storage.files import Files, RealFiles
from trio_kv.storage.memory import MemoryFiles
from trio_kv.storage.recovery import Recovered, segment_name
from trio_kv.storage.wal import Wal
from trio_kv.wire.frames import SECTOR_BYTES, Identity, SegmentHeader

IDENTITY = Identity("c0ffee" * 5 + "42", 2, 123456789)
SEGMENT_BYTES = 16384
FIRST, SECOND, THIRD = map(segment_name, (1, 2, 3))


def entry(index: int, term: int = 1, size_bytes: int = 150) -> Entry:
    """Return an entry of about this many bytes."""
    text = f"{index}." * (size_bytes // (len(str(index)) + 1))
    return make_entry(
        index, term, index * 10, Set(1, index, index, f"key{index}", msgspec.Raw(msgspec.json.encode(text)))
    )


def write(*entries: Entry, hard_state: HardState | None = None, truncate_from: int | None = None) -> Write:
    """Return a write. Its ticket is of no concern to the log."""
    return Write(Ticket(0, 0, 0), hard_state, truncate_from, entries)


def create(files: Files, *, term: int = 1) -> Wal:
    """Return a new log that may hold entries up to this term."""
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    wal.append([write(hard_state=HardState(term, 2))])
    return wal


def reopen(files: Files) -> tuple[Wal, Recovered]:
    return Wal.open(files, IDENTITY, segment_bytes=SEGMENT_BYTES)


def recover(files: Files) -> Recovered:
    return reopen(files)[1]


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
    assert recovered == Recovered(
        HardState(2, None), attrs.evolve(recovered.base, index=0, term=0), expected, ()
    )
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
    frames, steps = wal.statistics().frames, files.steps
    wal.append([write(entry(index)) for index in range(1, 51)])
    assert wal.statistics().frames == frames + 1
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
    wal, _ = Wal.open(files, IDENTITY, segment_bytes=segment_bytes)
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
        pytest.param(write(truncate_from=5), id="truncates nothing"),
        pytest.param(write(truncate_from=0), id="truncates the base"),
    ],
)
def test_D7_a_write_that_does_not_follow_is_a_bug(wrong: Write) -> None:
    """No write that breaks a rule of the log reaches the disk, and none can follow it."""
    files = MemoryFiles()
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    wal.append([write(entry(1), entry(2, 3), entry(3, 3), hard_state=HardState(3, 2))])
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
        if wal.segment == 2 and wal.statistics().offset > 3000:
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
        recovered = recover(files)
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


def test_D10_every_wrong_byte_is_damage(capsys: pytest.CaptureFixture[str]) -> None:
    """Each used byte wrong in turn, or the file cut there, stops the node: nothing is cut off."""
    files, expected = sample_log()
    cases = 0
    for name in (FIRST, SECOND, THIRD):
        end = used_bytes(files, name)
        for offset in range(end):
            flipped = files.copy()
            flipped.flip(name, offset, (0x01, 0x80, 0xFF)[offset % 3])
            assert judge(flipped, expected, name) == "damaged", (name, offset)
            cut = files.copy()
            cut.cut(name, offset)
            assert judge(cut, expected, name) == "damaged", (name, offset)
            cases += 2
    with capsys.disabled():
        print(f" {cases} cases", end="")  # noqa: T201 - how much was tried is part of the claim
    assert cases > 30_000


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
    start = wal.statistics().offset
    wal.append([write(entry(2, size_bytes=1400))])
    end = wal.statistics().offset
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
    files.crash_keeping((), keeps_names=False)
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
