"""Snapshots beside the log, and a disk that is full: in order, never in the log's way, and told."""

import errno
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trio_kv.raft.entry import LogPosition, make_entry
from trio_kv.raft.log_space import WRITE_BYTES_EXTRA
from trio_kv.raft.ready import ChunkWasRead, HardState, Ticket, Write
from trio_kv.replica.jobs import (
    AddChunk,
    BeginSnapshot,
    ChunkAdded,
    CompactLog,
    Completion,
    DiskFailed,
    FinishSnapshot,
    LogSpaceChanged,
    ReadChunk,
    ReleaseSnapshot,
    SnapshotFailed,
    SnapshotMoved,
    SnapshotStored,
    Stored,
)
from trio_kv.storage import disk as disk_module
from trio_kv.storage.disk import DiskThread
from trio_kv.storage.errors import DamagedError
from trio_kv.storage.files import Files, RealFiles
from trio_kv.storage.memory import MemoryFiles
from trio_kv.storage.memory_disk import MemoryDisk
from trio_kv.storage.opening import open_node
from trio_kv.storage.snapshot_reading import SnapshotInfo, snapshot_name
from trio_kv.storage.snapshots import SnapshotStore
from trio_kv.storage.wal import Wal
from trio_kv.wire.frames import Identity

IDENTITY = Identity("ab" * 16, 1, 77)
SEGMENT_BYTES = 16384
Told = tuple[Any, ...]
WORDS = {
    ChunkAdded: "added",
    ChunkWasRead: "read",
    DiskFailed: "end",
    LogSpaceChanged: "room",
    SnapshotFailed: "failed",
    SnapshotMoved: "moved",
    SnapshotStored: "stored",
}


class HeldFiles(MemoryFiles):
    """The twin of a disk, on which snapshots wait at their syncs until the test lets them go."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()

    def sync(self, name: str) -> None:
        if "snap" in name:
            self.reached.set()
            self.gate.wait()
        super().sync(name)

    @contextmanager
    def held(self) -> Iterator[None]:
        self.reached.clear()
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()


class Filler:
    """A command of a certain size."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def encode(self) -> bytes:
        return b'["expire"]' + b" " * self.size_bytes


def write(number: int, size_bytes: int = 0) -> Write:
    entry = make_entry(number, 1, 0, Filler(size_bytes) if size_bytes else None)
    return Write(Ticket(number, 1, number), HardState(1, 1) if number == 1 else None, None, (entry,))


@attrs.define
class World:
    """A disk over some files, and all that it told."""

    files: Files
    told: list[Told] = attrs.field(factory=list)
    changed: trio.Event = attrs.field(factory=trio.Event)

    def tell(self, what: str, *values: object) -> None:
        self.told.append((what, *values))
        self.changed.set()
        self.changed = trio.Event()

    def post(self, completion: Completion) -> None:
        match completion:
            case Stored():
                self.tell("ticket", completion.ticket.number)
            case _:
                self.tell(WORDS[type(completion)], *attrs.astuple(completion, recurse=False))

    @asynccontextmanager
    async def disk(self, **options: Any) -> AsyncIterator[DiskThread]:
        """Run a disk thread on a new log."""
        wal = Wal.create(self.files, IDENTITY, segment_bytes=SEGMENT_BYTES)
        wal.make_ballast()
        # On real files the two threads have a view of the directory each.
        twin = RealFiles(self.files.path) if isinstance(self.files, RealFiles) else self.files
        disk = DiskThread(wal, SnapshotStore(twin, IDENTITY), self.post, **options)
        try:
            yield disk
        finally:
            with trio.CancelScope(shield=True):
                await disk.stop()

    def all_told(self, what: str) -> list[Told]:
        return [told for told in self.told if told[0] == what]

    async def wait(self, what: str, *values: object, count: int = 1) -> Told:
        """Wait until something was told so many times, and return the last of it."""
        with trio.fail_after(20):
            while (
                len(found := [told for told in self.all_told(what) if told[1 : 1 + len(values)] == values])
                < count
            ):
                await self.changed.wait()
        return found[-1]

    def opened(self) -> tuple[list[int], SnapshotInfo | None]:
        opened = open_node(self.files, self.files, IDENTITY, segment_bytes=SEGMENT_BYTES)
        opened.close()
        return [entry.index for entry in opened.recovered.entries], opened.recovered.snapshot


@pytest.fixture
def world() -> World:
    return World(HeldFiles())


def snapshot(disk: DiskThread | MemoryDisk, index: int, *chunks: bytes) -> None:
    """Ask for a whole snapshot."""
    disk.submit(BeginSnapshot(index, 1))
    for number, chunk in enumerate(chunks):
        disk.submit(AddChunk(number, chunk))
    disk.submit(FinishSnapshot())


# Snapshots.


async def test_jobs_are_done_in_order_and_told(world: World) -> None:
    """A snapshot is added chunk by chunk, stored, and read again; each step is told, in order."""
    info = SnapshotInfo(2, 1, 2, 7, snapshot_name(2, 1))
    async with world.disk() as disk:
        for number in range(1, 6):
            disk.submit(write(number))
        await world.wait("ticket", 5)
        world.told.clear()
        disk.submit(ReadChunk(None, 0))
        snapshot(disk, 2, b"one", b"more")
        disk.submit(ReadChunk(None, 0))
        disk.submit(ReadChunk(LogPosition(2, 1), 1))
        disk.submit(ReadChunk(LogPosition(1, 1), 0))
        await world.wait("read", count=4)
    assert world.told == [
        ("read", 0, 0, None, False),
        ("added", 2, 1, 0),
        ("added", 2, 1, 1),
        ("moved", 2, 1),
        ("stored", 2, 1, 7),
        ("read", 2, 1, b"one", False),
        ("read", 2, 1, b"more", True),
        ("read", 1, 1, None, False),
    ]
    assert world.opened() == ([3, 4, 5], info)


async def test_N4_a_reader_may_finish_after_the_next_snapshot(world: World) -> None:
    """A snapshot that is read outlives the next one, until its reader is done."""
    async with world.disk() as disk:
        disk.submit(write(1))
        snapshot(disk, 1, b"1")
        disk.submit(ReadChunk(None, 0))
        snapshot(disk, 2, b"2")
        disk.submit(ReadChunk(LogPosition(1, 1), 0))
        disk.submit(ReleaseSnapshot(1, 1))
        disk.submit(ReadChunk(LogPosition(1, 1), 0))
        disk.submit(ReadChunk(None, 0))
        await world.wait("read", count=4)
    assert [told[1:4] for told in world.all_told("read")] == [
        (1, 1, b"1"),
        (1, 1, b"1"),
        (1, 1, None),
        (2, 1, b"2"),
    ]


async def test_the_log_does_not_wait_for_a_snapshot(world: World) -> None:
    """While a snapshot is being synced, writes of the log become durable as ever."""
    assert isinstance(world.files, HeldFiles)
    async with world.disk() as disk:
        with world.files.held():
            snapshot(disk, 1, b"state")
            await trio.to_thread.run_sync(world.files.reached.wait)
            for number in range(1, 30):
                disk.submit(write(number, 1000))
                await world.wait("ticket", number)
            assert not world.all_told("stored")
            assert disk.writes == 29
        await world.wait("stored")
    assert world.opened()[0] == list(range(2, 30))


async def test_a_snapshot_may_be_given_up(world: World) -> None:
    """The beginning of another one removes what was written."""
    async with world.disk() as disk:
        disk.submit(write(1))
        disk.submit(BeginSnapshot(1, 1))
        disk.submit(AddChunk(0, b"x"))
        disk.submit(BeginSnapshot(2, 1))
        disk.submit(AddChunk(0, b"y"))
        snapshot(disk, 3, b"z")
        await world.wait("stored")
    assert world.all_told("added") == [("added", index, 1, 0) for index in (1, 2, 3)]
    assert [name for name in world.files.names() if "snap" in name] == [snapshot_name(3, 1)]


async def test_the_log_is_compacted_behind_what_was_written(world: World) -> None:
    """Segments go when the writes before are durable, in the log's own thread."""
    async with world.disk() as disk:
        snapshot(disk, 100, b"state")
        await world.wait("stored")
        for number in range(1, 120):
            disk.submit(write(number, 1000))
            await world.wait("ticket", number)
        disk.submit(CompactLog(100))
        disk.submit(write(120))
        await world.wait("ticket", 120)
        await disk.stop(drop_queued=False)
    first = next(name for name in world.files.names() if name.startswith("wal-"))
    assert first > "wal-0000000000000004.log"
    assert world.opened()[0] == list(range(101, 121))


async def test_stop_can_finish_the_jobs(world: World) -> None:
    """Asked not to drop anything, the disk ends when the snapshot is stored; else at once, and it is not there."""
    assert isinstance(world.files, HeldFiles)
    async with world.disk() as disk:
        disk.submit(write(1))
        snapshot(disk, 1, b"state")
        await disk.stop(drop_queued=False)
    await world.wait("stored")
    other = World(HeldFiles())
    async with other.disk() as disk:
        disk.stall()
        snapshot(disk, 1, b"state")
        await disk.stop()
    assert other.told == []
    assert other.opened() == ([], None)


async def test_D11_an_error_of_a_snapshot_is_a_failed_disk(world: World) -> None:
    """An input/output error ends the node, whichever of the two threads meets it, and is told once."""
    assert isinstance(world.files, HeldFiles)
    async with world.disk() as disk:
        disk.submit(write(1))
        await world.wait("ticket", 1)
        world.files.fail_after(2, OSError(errno.EIO, "broken"))
        snapshot(disk, 1, b"state")
        _, error = await world.wait("end")
        assert isinstance(error, OSError)
        disk.submit(write(2))
        disk.submit(CompactLog(1))
        disk.submit(FinishSnapshot())
    assert len(world.all_told("end")) == 1
    assert world.all_told("ticket") == [("ticket", 1)]


async def test_a_damaged_chunk_ends_the_node(world: World) -> None:
    """A snapshot that is not as it was written is damage, found as it is sent: nothing of it is sent."""
    assert isinstance(world.files, HeldFiles)
    async with world.disk() as disk:
        snapshot(disk, 1, b"state")
        await world.wait("stored")
        world.files.flip(snapshot_name(1, 1), 80, 1)
        disk.submit(ReadChunk(None, 0))
        _, error = await world.wait("end")
    assert isinstance(error, DamagedError)
    assert not world.all_told("read")


async def test_a_bug_in_a_job_is_told(world: World) -> None:
    """A chunk out of order ends the disk with its error."""
    async with world.disk() as disk:
        disk.submit(BeginSnapshot(1, 1))
        disk.submit(AddChunk(3, b""))
        assert isinstance((await world.wait("end"))[1], AssertionError)


async def test_too_many_waiting_jobs_are_a_failed_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue of jobs has a limit, like that of writes."""
    monkeypatch.setattr(disk_module, "JOBS_WAITING_MAX", 10)
    assert isinstance(world.files, HeldFiles)
    async with world.disk() as disk:
        with world.files.held():
            snapshot(disk, 1, b"state")
            await trio.to_thread.run_sync(world.files.reached.wait)
            for _ in range(12):
                disk.submit(ReadChunk(None, 0))
        _, error = await world.wait("end")
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOBUFS


# A full disk (scenario D12).


async def fill_room(world: World, disk: DiskThread, first: int) -> int:
    """Write as long as the room that was told suffices; return the number of the last write.

    The news may be those of the write before, which a busy machine brings late: so there must be room for two.
    """
    number = first
    while (
        world.all_told("room")[-1][1] >= 2 * len(write(number, 1000).entries[0].encoded) + WRITE_BYTES_EXTRA
    ):
        disk.submit(write(number, 1000))
        tellings = len(world.all_told("room"))
        await world.wait("ticket", number)
        await world.wait("room", count=tellings + 1)
        number += 1
    return number - 1


async def test_D12_a_full_disk_tells_its_room_and_recovers_by_itself(world: World) -> None:
    """Full, it tells what is left after each batch, still takes votes, and tells when there is space again."""
    async with world.disk(retry_s=0.001) as disk:
        disk.fill()
        # More than a quarter of the segment, so that the next one is wanted; but there is room for more.
        for number in range(1, 7):
            disk.submit(write(number, 1000))
            await world.wait("ticket", number)
        await world.wait("room")
        last = await fill_room(world, disk, number + 1)
        assert last > number
        rooms = [told[1] for told in world.all_told("room")]
        assert rooms == sorted(rooms, reverse=True)
        disk.submit(Write(Ticket(last + 1, 2, last), HardState(2, 3), None, ()))
        await world.wait("ticket", last + 1)
        # A snapshot is refused, cleanly.
        snapshot(disk, last, b"state")
        assert (await world.wait("failed", last, 1))[3]
        disk.unfill()
        await world.wait("room", None)
        snapshot(disk, last, b"state")
        await world.wait("stored")
        for extra in range(last + 1, last + 30):
            disk.submit(Write(Ticket(extra + 1, 2, extra), None, None, (make_entry(extra, 2, 0, None),)))
        await world.wait("ticket", last + 30)
    assert not world.all_told("end")
    assert world.opened()[0] == list(range(last + 1, last + 30))


async def test_D12_what_does_not_fit_waits_for_space(world: World) -> None:
    """A write that was under way when the disk became full is not lost, and does not end the node."""
    async with world.disk(retry_s=0.001) as disk:
        disk.fill()
        disk.submit(write(1, 5000))
        await world.wait("ticket", 1)
        for number in range(2, 10):
            disk.submit(write(number, 5000))
        await world.wait("room")
        disk.unfill()
        await world.wait("ticket", 9)
        await world.wait("room", None)
    assert world.opened()[0] == list(range(1, 10))


async def test_D12_a_disk_that_waits_for_space_can_be_stopped(world: World) -> None:
    """A node with a full disk ends like any other; what waited was never acknowledged."""
    async with world.disk(retry_s=3600) as disk:
        disk.fill()
        disk.submit(write(1, 5000))
        await world.wait("ticket", 1)
        disk.submit(write(2, 30_000))
        await world.wait("room")
    assert not world.all_told("end")
    assert world.opened()[0] == [1]


async def test_D12_a_snapshot_that_meets_a_full_disk_is_told(world: World) -> None:
    """The snapshot is removed and told once; what still comes of it is ignored, and the log goes on."""
    assert isinstance(world.files, HeldFiles)
    async with world.disk() as disk:
        disk.submit(write(1, 5000))
        await world.wait("ticket", 1)
        await trio.testing.wait_all_tasks_blocked()
        world.files.capacity_bytes = sum(map(world.files.size, world.files.names())) + SEGMENT_BYTES + 2000
        snapshot(disk, 1, b"x" * 500, b"y" * 50_000, b"z")
        await world.wait("failed", 1, 1)
        disk.submit(write(2))
        await world.wait("ticket", 2)
        disk.submit(ReadChunk(None, 0))
        await world.wait("read")
    assert len(world.all_told("failed")) == 1
    assert world.all_told("added") == [("added", 1, 1, 0)]
    assert not [name for name in world.files.names() if "snap" in name]
    assert not world.all_told("end")


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 160 KiB."""
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(tmp_path)],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small file system can be mounted here: {error}")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


async def test_D12_a_file_system_that_is_really_full(tmpfs: Path) -> None:
    """On a real full disk the room that is told is there, a snapshot is refused, and space is found again."""
    ballast = tmpfs / "ballast"
    ballast.write_bytes(bytes(112 << 10))
    world = World(RealFiles(tmpfs))
    async with world.disk(retry_s=0.01) as disk:
        number = 0
        while not world.all_told("room"):
            number += 1
            disk.submit(write(number, 1000))
            await world.wait("ticket", number)
            await trio.to_thread.run_sync(lambda: None)
            snapshot(disk, number, b"x" * 60_000)
            await world.wait("failed", number)
        last = await fill_room(world, disk, number + 1)
        ballast.unlink()
        await world.wait("room", None)
        snapshot(disk, last, b"x" * 60_000)
        await world.wait("stored")
        disk.submit(write(last + 1, 5000))
        await world.wait("ticket", last + 1)
    assert not world.all_told("end")
    indexes, info = world.opened()
    assert (indexes, info.index if info else 0) == ([last + 1], last)


# The twin.


def test_the_simulated_disk_does_the_same_jobs() -> None:
    """The simulator's disk carries out writes before jobs, one step at a time, and tells the same."""
    files = MemoryFiles()
    world = World(files)
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    disk = MemoryDisk(wal, files, SnapshotStore(files, IDENTITY), world.post)
    snapshot(disk, 1, b"one")
    disk.submit(ReadChunk(None, 0))
    disk.submit(write(1))
    assert disk.step() == Ticket(1, 1, 1)
    assert (len(disk), world.told) == (4, [])
    while len(disk):
        assert disk.step() is None
    info = SnapshotInfo(1, 1, 1, 3, snapshot_name(1, 1))
    assert world.told == [
        ("added", 1, 1, 0),
        ("moved", 1, 1),
        ("stored", 1, 1, 3),
        ("read", 1, 1, b"one", True),
    ]
    disk.submit(ReleaseSnapshot(1, 1))
    disk.submit(CompactLog(1))
    while len(disk):
        disk.step()
    assert world.opened() == ([], info)


def test_the_simulated_disk_compacts_behind_the_writes_before() -> None:
    """As in the disk thread: a log that went first could lose what a write that waits cuts off (core seed 32544)."""
    files = MemoryFiles()
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    disk = MemoryDisk(wal, files, SnapshotStore(files, IDENTITY), World(files).post)
    for number in range(1, 101):
        disk.submit(write(number, 1000))
        disk.step()
    disk.submit(attrs.evolve(write(100), truncate_from=100))
    compaction, read = CompactLog(100), ReadChunk(None, 0)
    disk.submit(compaction)
    disk.submit(write(101))
    disk.submit(read)
    ready = [disk.ready_job]
    with pytest.raises(AssertionError):
        disk.step_job(compaction)
    names = files.names()
    disk.step(1)
    ready.append(disk.ready_job)
    assert ready == [read, compaction], (
        "snapshots don't wait for writes, nor a compaction for what came after it"
    )
    disk.step_job(compaction)
    assert len(files.names()) < len(names)
    assert disk.step() == Ticket(101, 1, 101)


class SlowlyFull(MemoryFiles):
    """A full disk that takes its time to say so, as one with many files does that might give back some room."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = threading.Event()
        self.answers = threading.Event()

    def reserve(self, name: str, size_bytes: int) -> None:
        self.is_asked.set()
        assert self.answers.wait(20)
        raise OSError(errno.ENOSPC, "full")


async def test_D12_a_disk_that_is_full_at_its_start_says_so_before_its_first_write() -> None:
    """Whoever stored its vote may lead, and must know by then that there is no room for what it admits."""
    files = SlowlyFull()
    world = World(files)
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    disk = DiskThread(wal, SnapshotStore(files, IDENTITY), world.post)
    disk.submit(write(1))
    assert await trio.to_thread.run_sync(files.is_asked.wait, 20)
    assert disk.batches == 0
    files.answers.set()
    await world.wait("ticket", 1)
    assert world.told[0] == ("room", 0)
    await disk.stop()


def test_D12_the_simulated_disk_can_be_full() -> None:
    """It tells its room after each batch while it is full, and when it is not any more."""
    files = MemoryFiles()
    world = World(files)
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    disk = MemoryDisk(wal, files, SnapshotStore(files, IDENTITY), world.post)
    wal.make_ballast()
    files.capacity_bytes = files.used_bytes
    for number in range(1, 8):
        disk.submit(write(number, 1000))
        disk.step()
    rooms = [told[1] for told in world.told]
    assert len(rooms) > 2
    assert rooms == sorted(rooms, reverse=True)
    disk.step()
    assert len(world.told) == len(rooms)
    files.capacity_bytes = None
    disk.step()
    assert world.told[-1] == ("room", None)


def test_power_may_fail_while_the_simulated_disk_can_not_be_read() -> None:
    """A job that fails in the middle of a power cut is cut short like all else; what was durable before stays."""
    for seed in range(20):
        files = MemoryFiles()
        world = World(files)
        wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
        disk = MemoryDisk(wal, files, SnapshotStore(files, IDENTITY), world.post)
        disk.submit(write(1))
        disk.step()
        snapshot(disk, 1, b"one")
        disk.step()
        disk.step()
        files.is_unreadable = True
        disk.crash(Random(seed))
        files.is_unreadable = False
        assert world.opened() == ([1], None)
