"""The disk thread: order of tickets, one frame for all that waited, one failure, an end that waits."""

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import attrs
import pytest
import trio
import trio.testing

from trio_kv.raft.entry import make_entry
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.replica.jobs import Completion, DiskFailed, Stored
from trio_kv.storage import disk as disk_module
from trio_kv.storage.disk import DiskThread
from trio_kv.storage.memory import MemoryFiles
from trio_kv.storage.memory_disk import MemoryDisk
from trio_kv.storage.recovery import Recovery
from trio_kv.storage.snapshots import SnapshotStore
from trio_kv.storage.wal import Wal
from trio_kv.wire.frames import Identity

IDENTITY = Identity("ab" * 16, 1, 77)
SEGMENT_BYTES = 16384


class HeldFiles(MemoryFiles):
    """The twin of a disk, whose syncs wait until the test lets them go."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()
        self.create_error: OSError | None = None

    def create(self, name: str, size_bytes: int, head: bytes = b"") -> None:
        if self.create_error is not None:
            raise self.create_error
        super().create(name, size_bytes, head)

    def sync(self, name: str) -> None:
        self.reached.set()
        self.gate.wait()
        super().sync(name)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let syncs wait as long as this context lasts."""
        self.reached.clear()
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()


@attrs.define
class Listener:
    """Collects what the thread tells."""

    tickets: list[int] = attrs.field(factory=list)
    errors: list[Exception] = attrs.field(factory=list)
    changed: trio.Event = attrs.field(factory=trio.Event)

    def post(self, completion: Completion) -> None:
        match completion:
            case Stored():
                self.tickets.append(completion.ticket.number)
            case DiskFailed():
                self.errors.append(completion.error)
            case _:
                raise AssertionError(completion)
        self.changed.set()
        self.changed = trio.Event()

    async def wait_stored(self, number: int) -> None:
        while not self.tickets or self.tickets[-1] < number:
            await self.changed.wait()

    async def wait_failed(self) -> Exception:
        while not self.errors:
            await self.changed.wait()
        return self.errors[0]


@attrs.define
class World:
    """A disk thread over the twin, and whoever listens to it."""

    files: HeldFiles
    wal: Wal
    listener: Listener
    disk: DiskThread

    def submit(self, *numbers: int, size_bytes: int = 0) -> None:
        for number in numbers:
            self.disk.submit(write(number, size_bytes))

    async def hold(self, *numbers: int) -> None:
        """Submit writes and wait until the first of them is at its sync."""
        self.submit(*numbers)
        await trio.to_thread.run_sync(self.files.reached.wait)

    def recovered(self) -> list[int]:
        return [entry.index for entry in Recovery(self.files, IDENTITY).read().entries]


class Filler:
    """A command of a certain size."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def encode(self) -> bytes:
        return b'["expire"]' + b" " * self.size_bytes


def write(number: int, size_bytes: int = 0) -> Write:
    entry = make_entry(number, 1, 0, Filler(size_bytes) if size_bytes else None)
    return Write(Ticket(number, 1, number), HardState(1, 1) if number == 1 else None, None, (entry,))


@pytest.fixture
async def world() -> World:
    files = HeldFiles()
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    listener = Listener()
    return World(files, wal, listener, DiskThread(wal, SnapshotStore(files, IDENTITY), listener.post))


async def test_tickets_complete_in_order(world: World) -> None:
    """What was submitted is durable when its ticket, or a later one, is told; tickets come in order."""
    for number in range(1, 60):
        world.submit(number)
        if number % 7 == 0:
            await world.listener.wait_stored(number)
    await world.listener.wait_stored(59)
    assert world.listener.tickets == sorted(set(world.listener.tickets))
    assert not world.files.unsynced()
    await world.disk.stop()
    assert world.recovered() == list(range(1, 60))
    assert world.listener.errors == []


async def test_what_waits_becomes_one_frame(world: World) -> None:
    """All that was submitted while one write was under way is one frame, one sync and one completion."""
    with world.files.held():
        await world.hold(1)
        world.submit(*range(2, 40))
    await world.listener.wait_stored(39)
    assert world.listener.tickets == [1, 39]
    assert world.wal.frames == 2
    assert (world.disk.batches, world.disk.writes) == (2, 39)
    await world.disk.stop()


async def test_nothing_is_told_before_it_is_durable(world: World) -> None:
    """No completion comes while the sync is under way."""
    with world.files.held():
        await world.hold(1)
        await trio.testing.wait_all_tasks_blocked()
        assert world.listener.tickets == []
    await world.listener.wait_stored(1)
    await world.disk.stop()


@pytest.mark.parametrize("step", [0, 1], ids=["write", "sync"])
async def test_D11_a_failure_is_told_once_and_ends_the_disk(world: World, step: int) -> None:
    """A write or sync that fails is not tried again; nothing that waited is acknowledged."""
    world.submit(1)
    await world.listener.wait_stored(1)
    world.files.fail_after(step, OSError(errno.EIO, "broken"))
    world.submit(2, 3)
    error = await world.listener.wait_failed()
    assert isinstance(error, OSError)
    assert error.errno == errno.EIO
    world.submit(4)
    await world.disk.stop()
    await world.disk.stop()
    assert world.listener.tickets == [1]
    assert len(world.listener.errors) == 1


async def test_a_bug_is_told_like_a_failure(world: World) -> None:
    """A write that doesn't follow on the log ends the thread with its error: nobody waits for ever."""
    world.submit(2)
    assert isinstance(await world.listener.wait_failed(), AssertionError)
    await world.disk.stop()


async def test_stop_drops_what_waits_and_awaits_what_runs(world: World) -> None:
    """The write under way is finished and told; those behind it never reach the disk."""
    stopped = trio.Event()

    async def stop() -> None:
        await world.disk.stop()
        stopped.set()

    async with trio.open_nursery() as nursery:
        with world.files.held():
            await world.hold(1)
            world.submit(2, 3)
            nursery.start_soon(stop)
            await trio.testing.wait_all_tasks_blocked()
            assert not stopped.is_set()
    assert world.listener.tickets == [1]
    assert world.recovered() == [1]


async def test_stop_can_finish_what_waits(world: World) -> None:
    """Asked not to drop anything, the thread ends when all is durable."""
    with world.files.held():
        await world.hold(1)
        world.submit(2, 3)
    await world.disk.stop(drop_queued=False)
    assert world.listener.tickets[-1] == 3
    assert world.recovered() == [1, 2, 3]


async def test_a_stall_holds_writes_until_it_ends(world: World) -> None:
    """A stalled disk completes nothing; afterwards everything, in order."""
    world.disk.stall()
    world.submit(1, 2)
    await trio.testing.wait_all_tasks_blocked()
    assert world.listener.tickets == []
    world.disk.unstall()
    await world.listener.wait_stored(2)
    await world.disk.stop()


async def test_stop_ends_a_stall_that_was_asked_for(world: World) -> None:
    """A node whose disk stands still by a fault can be stopped; nothing of what waited is written."""
    world.disk.stall()
    world.submit(1)
    await world.disk.stop()
    assert world.listener.tickets == []
    assert world.recovered() == []


async def test_stop_does_not_wait_for_a_delay(world: World) -> None:
    """A slow disk, an hour a write, can be stopped at once."""
    world.disk.delay_s = 3600
    world.submit(1)
    await world.disk.stop()
    assert world.recovered() == []


async def test_a_delay_that_is_taken_back_ends(world: World) -> None:
    """A slow disk that is healed goes on at once, also with the write that it had begun to delay."""
    world.disk.delay_s = 3600
    world.submit(1)
    world.disk.delay_s = 0
    await world.listener.wait_stored(1)
    await world.disk.stop()
    assert len(world.recovered()) == 1


async def test_a_fault_fails_the_next_batch(world: World) -> None:
    """`fail_next` makes the next write an input/output error."""
    world.disk.fail_next()
    world.submit(1)
    error = await world.listener.wait_failed()
    assert isinstance(error, OSError)
    assert error.errno == errno.EIO
    await world.disk.stop()


async def test_too_many_waiting_writes_are_a_failed_disk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue has a limit: a disk that lets more wait is told to have failed."""
    monkeypatch.setattr(disk_module, "WRITES_WAITING_MAX", 10)
    with world.files.held():
        await world.hold(1)
        world.submit(*range(2, 30))
    error = await world.listener.wait_failed()
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOBUFS
    await world.disk.stop()


async def test_the_next_segment_is_made_beside_the_writes(world: World) -> None:
    """Past its half a segment's successor is made by a helper, and a roll finds it there."""
    for number in range(1, 60):
        world.submit(number, size_bytes=1000)
        await world.listener.wait_stored(number)
    await world.disk.stop()
    assert world.wal.segment > 3
    assert world.recovered() == list(range(1, 60))


async def test_a_segment_that_can_not_be_made_is_a_failed_disk(world: World) -> None:
    """An input/output error of the helper ends the disk, even if no write follows."""
    world.files.create_error = OSError(errno.EIO, "broken")
    world.submit(1, size_bytes=6500)
    error = await world.listener.wait_failed()
    assert isinstance(error, OSError)
    assert error.errno == errno.EIO
    await world.disk.stop()
    assert world.listener.tickets == [1]


def test_a_run_that_ended_ends_the_thread() -> None:
    """A thread that finds nobody to tell ends quietly, and closes its log."""
    threads: list[threading.Thread] = []
    files = HeldFiles()
    files_gate = files.gate

    async def main() -> None:
        wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
        listener = Listener()
        disk = DiskThread(wal, SnapshotStore(files, IDENTITY), listener.post)
        threads.append(disk._thread)
        files_gate.clear()
        disk.submit(write(1))
        await trio.to_thread.run_sync(files.reached.wait)
        disk.submit(write(2))

    trio.run(main)
    files_gate.set()
    threads[0].join(timeout=10)
    assert not threads[0].is_alive()
    assert threads[0].daemon


def test_simulated_disk_speaks_alike() -> None:
    """The simulator's disk takes the same writes and completes them when it is told to."""
    files = MemoryFiles()
    wal = Wal.create(files, IDENTITY, segment_bytes=SEGMENT_BYTES)
    disk = MemoryDisk(wal, files, SnapshotStore(files, IDENTITY), lambda _: None)
    assert disk.step() is None
    for number in range(1, 6):
        disk.submit(write(number))
    assert disk.step(2) == Ticket(2, 1, 2)
    assert len(disk) == 3
    assert disk.step() == Ticket(5, 1, 5)
    disk.submit(write(6))
    files.fail_next()
    with pytest.raises(OSError, match="asked for"):
        disk.step()
    disk.submit(write(7))
    assert len(disk) == 0
    disk.crash(Random(1))
