"""Scenario D12 where reserved room is gone: a write in a segment finds no room, and the disk is full, not broken."""

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import attrs
import msgspec
import pytest
import trio

from trio_kv.kv import commands
from trio_kv.kv.operations import Set
from trio_kv.raft.entry import Entry, make_entry
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.replica.jobs import Completion, DiskFailed, LogSpaceChanged, Stored
from trio_kv.storage.ballast import BALLAST_NAME, ballast_bytes
from trio_kv.storage.disk import DiskThread
from trio_kv.storage.errors import FULL
from trio_kv.storage.memory import MemoryFiles
from trio_kv.storage.memory_disk import MemoryDisk
from trio_kv.storage.recovery import Recovered, Recovery
from trio_kv.storage.segments import segment_name
from trio_kv.storage.snapshot_reading import snapshot_name
from trio_kv.storage.snapshots import SnapshotStore
from trio_kv.storage.wal import Wal
from trio_kv.wire.frames import SECTOR_BYTES, Identity

IDENTITY = Identity("ab" * 16, 1, 77)
SEGMENT_BYTES = 16384
FIRST = segment_name(1)


def entry(index: int, size_bytes: int = 150) -> Entry:
    text = f"{index}." * (size_bytes // (len(str(index)) + 1))
    return make_entry(
        index, 1, index, commands.Write(1, index, index, Set("key", msgspec.Raw(msgspec.json.encode(text))))
    )


def write(index: int, size_bytes: int = 150) -> Write:
    hard_state = HardState(1, 1) if index == 1 else None
    return Write(Ticket(index, 1, index), hard_state, None, (entry(index, size_bytes),))


def reopen(files: MemoryFiles) -> tuple[Wal, Recovered]:
    recovery = Recovery(files, IDENTITY)
    recovered = recovery.read()
    return Wal.resume(files, recovery, segment_bytes=SEGMENT_BYTES), recovered


def copied(files: MemoryFiles) -> None:
    files.share()


def copying(files: MemoryFiles) -> None:
    files.is_copy_on_write = True


TakesAway = Callable[[MemoryFiles], None]
takes_away = pytest.mark.parametrize("take_away", [copied, copying])
"""What takes reserved room away: a copy that shares blocks, or a file system that writes to new places only."""


def full(take_away: TakesAway, *, has_ballast: bool, free_bytes: int = 0) -> tuple[MemoryFiles, Wal]:
    """Return a log with three entries, and a disk that has so much room left, and none reserved."""
    files = MemoryFiles()
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    if has_ballast:
        wal.make_ballast()
    wal.append([write(1), write(2), write(3)])
    take_away(files)
    files.capacity_bytes = files.used_bytes + free_bytes
    return files, wal


@takes_away
def test_D12_a_write_that_finds_no_room_takes_that_of_the_ballast(take_away: TakesAway) -> None:
    """It is durable then, no room is told, and there is room for votes; with space again all is as before."""
    files, wal = full(take_away, has_ballast=True)
    free_log_bytes = wal.free_log_bytes
    wal.append([write(4)])
    assert (wal.is_short, wal.free_log_bytes, wal.wants_ballast) == (True, 0, True)
    assert files.names() == [FIRST]
    wal.append([Write(Ticket(5, 1, 4), HardState(2, 3), None, ())])
    files.capacity_bytes = files.used_bytes
    with pytest.raises(OSError, match="no space"):
        wal.make_ballast()
    files.capacity_bytes = None
    wal.make_ballast()
    assert not wal.is_short
    assert 0 < wal.free_log_bytes < free_log_bytes
    assert files.names() == [BALLAST_NAME, FIRST]
    files.crash(Random(1))
    _, recovered = reopen(files)
    assert ([each.index for each in recovered.entries], recovered.hard_state) == (
        [1, 2, 3, 4],
        HardState(2, 3),
    )


def test_D12_what_the_ballast_leaves_is_taken_for_votes_at_once() -> None:
    """Somebody else fills the disk again as soon as the ballast is gone: a node still votes, also after a restart."""
    files, wal = full(copied, has_ballast=True)
    wal.append([write(4)])
    files.capacity_bytes = files.used_bytes
    wal.append([Write(Ticket(5, 1, 4), HardState(2, 3), None, ())])
    files.crash(Random(1))
    wal, recovered = reopen(files)
    assert recovered.hard_state == HardState(2, 3)
    wal.append([Write(Ticket(1, 1, 4), HardState(3, 2), None, ())])


@takes_away
@pytest.mark.parametrize("seed", range(20))
def test_D12_the_very_same_bytes_are_written_until_they_fit(take_away: TakesAway, seed: int) -> None:
    """Room comes sector by sector. Power may fail at any time: what waits is cut off, and what was stored is there."""
    files, wal = full(take_away, has_ballast=False)
    assert isinstance(files.capacity_bytes, int)
    for tries, error in enumerate(wal.appending([write(4, 3000), write(5, 100)]), 1):
        assert error.errno == errno.ENOSPC
        assert wal.is_short
        twin = files.copy()
        twin.capacity_bytes = None
        twin.crash(Random(1000 * seed + tries))
        assert [each.index for each in reopen(twin)[1].entries] == [1, 2, 3]
        files.capacity_bytes += SECTOR_BYTES
    assert tries == 7
    files.crash(Random(seed))
    assert [each.index for each in reopen(files)[1].entries] == [1, 2, 3, 4, 5]


@takes_away
def test_D12_without_waiting_the_error_is_the_callers(take_away: TakesAway) -> None:
    """A log that is not let wait raises, and must be read again, as after any error."""
    _, wal = full(take_away, has_ballast=False)
    with pytest.raises(OSError, match="no space"):
        wal.append([write(4)])
    with pytest.raises(AssertionError, match="failed before"):
        wal.append([write(4)])


def test_D12_a_batch_that_waits_lets_the_log_be_compacted() -> None:
    """What a snapshot covers may go meanwhile: that is how there may be room again."""
    files = MemoryFiles()
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    for index in range(1, 30):
        wal.append([write(index, 1000)])
    copied(files)
    files.capacity_bytes = files.used_bytes
    appending = wal.appending([write(30, 1000)])
    assert next(appending, None) is not None
    assert wal.compact(29) > 0
    files.capacity_bytes = None
    assert next(appending, None) is None
    assert reopen_covered(files, 29) == [*range(reopen_first(files), 31)]


def reopen_covered(files: MemoryFiles, index: int) -> list[int]:
    return [each.index for each in Recovery(files, IDENTITY, covered_index=index).read().entries]


def reopen_first(files: MemoryFiles) -> int:
    return reopen_covered(files, 29)[0]


def test_D11_a_sync_that_says_full_is_a_failed_disk() -> None:
    """The kernel may have dropped what was written: nothing is tried again, unlike after a write that found no room."""
    files, wal = full(copied, has_ballast=True, free_bytes=SEGMENT_BYTES)
    files.fail_after(1, OSError(errno.ENOSPC, "told by the sync"))
    with pytest.raises(OSError, match="told by the sync"):
        list(wal.appending([write(4)]))
    assert BALLAST_NAME in files.names()
    with pytest.raises(AssertionError, match="failed before"):
        wal.append([write(4)])


# A start.


def torn(take_away: TakesAway) -> MemoryFiles:
    """Return a full disk on which a process died while its write waited for room, half of it done."""
    files, wal = full(take_away, has_ballast=False, free_bytes=2 * SECTOR_BYTES)
    appending = wal.appending([write(4, 3000)])
    assert next(appending, None) is not None
    copied(files)
    files.capacity_bytes = files.used_bytes
    return files


@takes_away
def test_D12_a_start_on_a_full_disk_goes_without_repairs(take_away: TakesAway) -> None:
    """What is left of an interrupted write stays until there is room; then it is zeroed before anything is written."""
    files = torn(take_away)
    wal, recovered = reopen(files)
    assert [each.index for each in recovered.entries] == [1, 2, 3]
    assert recovered.warnings
    appending = wal.appending([write(4)])
    assert next(appending, None) is not None
    files.capacity_bytes = None
    assert next(appending, None) is None
    files.crash(Random(3))
    assert [each.index for each in reopen(files)[1].entries] == [1, 2, 3, 4]


@takes_away
def test_D12_a_start_on_a_full_disk_believes_what_the_disk_holds(take_away: TakesAway) -> None:
    """What an earlier process wrote and did not sync is synced at least, for it can't be written anew."""
    files, wal = full(take_away, has_ballast=False, free_bytes=8 * SECTOR_BYTES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryFiles, "sync", lambda self, name: None)
        wal.append([write(4)])
    copied(files)
    files.capacity_bytes = files.used_bytes
    assert [each.index for each in reopen(files)[1].entries] == [1, 2, 3, 4]
    files.crash(Random(4))
    assert [each.index for each in reopen(files)[1].entries] == [1, 2, 3, 4]


@takes_away
def test_D12_a_start_on_a_full_disk_does_not_believe_what_memory_alone_holds(take_away: TakesAway) -> None:
    """After a sync that failed the frame can be read and is lost: the start waits for room to look again."""
    files, wal = full(take_away, has_ballast=False, free_bytes=8 * SECTOR_BYTES)
    files.fail_after(1, OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        wal.append([write(4)])
    copied(files)
    files.capacity_bytes = files.used_bytes
    with pytest.raises(OSError, match="no room") as caught:
        reopen(files)
    assert caught.value.errno in FULL
    assert [each.index for each in reopen(files)[1].entries] == [1, 2, 3]


# The disk's threads, and their twin.


@attrs.define
class Told:
    """All that a disk told, in order."""

    items: list[tuple[str, Any]] = attrs.field(factory=list)
    changed: trio.Event = attrs.field(factory=trio.Event)

    def tell(self, what: str, value: object) -> None:
        self.items.append((what, value))
        self.changed.set()
        self.changed = trio.Event()

    def post(self, completion: Completion) -> None:
        match completion:
            case Stored():
                self.tell("ticket", completion.ticket.number)
            case DiskFailed():
                self.tell("end", completion.error)
            case LogSpaceChanged():
                self.tell("room", completion.free_log_bytes)
            case _:
                raise AssertionError(completion)

    async def wait(self, what: str, value: object) -> None:
        with trio.fail_after(20):
            while (what, value) not in self.items:
                assert not [error for ended, error in self.items if ended == "end"]
                await self.changed.wait()


@asynccontextmanager
async def running(
    files: MemoryFiles, wal: Wal, retry_s: float = 0.001
) -> AsyncIterator[tuple[DiskThread, Told]]:
    told = Told()
    disk = DiskThread(wal, SnapshotStore(files, IDENTITY), told.post, retry_s=retry_s)
    try:
        yield disk, told
    finally:
        with trio.CancelScope(shield=True):
            await disk.stop()


@takes_away
async def test_D12_a_disk_without_reserved_room_is_full_and_not_failed(take_away: TakesAway) -> None:
    """That there is no room is told before the write is; with space again the disk says so, and has its ballast."""
    files, wal = full(take_away, has_ballast=True)
    async with running(files, wal, retry_s=0.01) as (disk, told):
        disk.submit(write(4))
        await told.wait("ticket", 4)
        assert told.items[:2] == [("room", 0), ("ticket", 4)]
        files.capacity_bytes = None
        await told.wait("room", None)
        assert BALLAST_NAME in files.names()
        disk.submit(write(5))
        await told.wait("ticket", 5)
    assert [each.index for each in reopen(files)[1].entries] == [1, 2, 3, 4, 5]


@takes_away
async def test_D12_a_write_that_waits_is_stored_once_there_is_room(take_away: TakesAway) -> None:
    """Without a ballast it waits and is told of by nobody; the disk can be stopped all the same."""
    files, wal = full(take_away, has_ballast=False)
    async with running(files, wal) as (disk, told):
        disk.submit(write(4, 3000))
        await told.wait("room", 0)
        assert isinstance(files.capacity_bytes, int)
        files.capacity_bytes += 3 * SECTOR_BYTES
        disk.submit(write(5))
        tries = files.steps + 5
        while files.steps < tries:  # noqa: ASYNC110 - each try is a step
            await trio.sleep(0.001)
        assert [what for what, _ in told.items] == ["room"]
        files.capacity_bytes = None
        await told.wait("ticket", 5)
        await told.wait("room", None)
    files, wal = full(take_away, has_ballast=False)
    async with running(files, wal, retry_s=3600) as (disk, told):
        disk.submit(write(4))
        await told.wait("room", 0)
    assert told.items == [("room", 0)]
    assert [each.index for each in reopen(files)[1].entries] == [1, 2, 3]


@takes_away
def test_D12_the_simulated_disk_waits_as_well(take_away: TakesAway) -> None:
    """It tells the same, and goes on with the batch when it is stepped and there is room."""
    files, wal = full(take_away, has_ballast=False)
    told: list[Completion] = []
    disk = MemoryDisk(wal, files, SnapshotStore(files, IDENTITY), told.append)
    for index in (4, 5, 6):
        disk.submit(write(index))
    assert disk.step(2) is None
    assert (disk.is_waiting, len(disk), told) == (True, 3, [LogSpaceChanged(0)])
    assert disk.step() is None
    files.capacity_bytes = None
    assert disk.step() == Ticket(5, 1, 5)
    assert (disk.is_waiting, told) == (False, [LogSpaceChanged(0), LogSpaceChanged(None)])
    assert disk.step() == Ticket(6, 1, 6)
    assert [each.index for each in reopen(files)[1].entries] == [1, 2, 3, 4, 5, 6]


# Files that nobody needs.


def test_D12_what_can_not_be_removed_for_lack_of_room_stays() -> None:
    """To remove a file may take room: a snapshot given up, or an old one, is no reason to fail; any other error is."""
    files = MemoryFiles()
    store = SnapshotStore(files, IDENTITY)
    writer = store.begin(1, 1)
    writer.add(0, b"state")
    files.fail_next(errno.ENOSPC)
    writer.abort()
    assert files.names() == [snapshot_name(1, 1) + ".tmp"]
    writer = store.begin(2, 1)
    files.fail_next(errno.EIO)
    with pytest.raises(OSError, match="asked for"):
        writer.abort()
    files.fail_next(errno.EDQUOT)
    store.clean()
    store.clean()
    assert files.names() == []


def test_the_ballast_is_small_beside_small_segments() -> None:
    """Only where segments are smaller than a server has them."""
    assert [ballast_bytes(size) for size in (16384, 64 << 10, 8 << 20)] == [2048, 1 << 20, 1 << 20]
