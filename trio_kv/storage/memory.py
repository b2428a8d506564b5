"""The twin of a disk in memory: the same interfaces, no thread, and power that fails on purpose.

`MemoryFiles` stands under the very `Wal` that runs on real disks. It remembers for each sector what was there
at the last sync and all that was written to it since. When power fails, each such sector comes back with any
of these contents, independently of the others: a disk writes back in whatever order it likes, and only a
sector is atomic. The same goes for names: a directory comes back as it was at its last sync, or at any moment
since.

Two subtle ways of real disks are kept. What is read before a crash is the newest write, durable or not, as
from a page cache. And after a *failed* sync the pages count as clean: a second sync leaves them as they are,
only writing them again makes them durable.

`MemoryDisk` is the twin of `storage.disk.DiskThread`: it works when the simulator says so, which thereby
decides how long a write takes, or that it never ends.
"""

import contextlib
import errno
from collections import deque
from collections.abc import Collection
from random import Random
from typing import Self

import attrs
import trio

from trio_kv.raft.ready import Ticket, Write
from trio_kv.storage.disk import WRITES_WAITING_MAX
from trio_kv.storage.files import TEMPORARY_SUFFIX
from trio_kv.storage.wal import Wal
from trio_kv.wire.frames import SECTOR_BYTES, ZERO_SECTOR


class PowerLossError(OSError):
    """The moment at which power failed. What follows is `crash`."""

    def __init__(self) -> None:
        """Look like an input/output error: whoever catches it learns nothing."""
        super().__init__(errno.EIO, "power lost")


@attrs.define
class _File:
    """One file by sectors; a sector that isn't listed is zero."""

    size_bytes: int
    sectors: dict[int, bytes] = attrs.field(factory=dict)
    """What is read now."""
    older: dict[int, tuple[bytes, ...]] = attrs.field(factory=dict)
    """What else a sector may hold after a power cut: its durable content, and what was written since."""
    dirty: set[int] = attrs.field(factory=set)
    """Sectors that the next sync makes durable."""

    def copy(self) -> "_File":
        return _File(self.size_bytes, dict(self.sectors), dict(self.older), set(self.dirty))

    def read(self) -> bytes:
        count = -(-self.size_bytes // SECTOR_BYTES)
        return b"".join([self.sectors.get(number, ZERO_SECTOR) for number in range(count)])[: self.size_bytes]

    def write(self, offset: int, data: bytes) -> None:
        assert 0 <= offset <= self.size_bytes - len(data), "a write may not change the size of a file"
        first = offset // SECTOR_BYTES
        head = self.sectors.get(first, ZERO_SECTOR)[: offset % SECTOR_BYTES]
        last = (offset + len(data)) // SECTOR_BYTES
        tail = self.sectors.get(last, ZERO_SECTOR)[(offset + len(data)) % SECTOR_BYTES :]
        image = head + data + tail
        for place in range(0, len(image) - SECTOR_BYTES + 1, SECTOR_BYTES):
            number = first + place // SECTOR_BYTES
            if number == last and len(tail) == SECTOR_BYTES:
                break
            old = self.sectors.get(number, ZERO_SECTOR)
            new = image[place : place + SECTOR_BYTES]
            if new == old and number not in self.older:
                continue  # Either way it holds the same after a power cut.
            self.older[number] = (*self.older.get(number, ()), old)
            self.sectors[number] = new
            self.dirty.add(number)

    def sync(self) -> None:
        for number in self.dirty:
            del self.older[number]
        self.dirty.clear()

    def sync_failed(self) -> None:
        self.dirty.clear()

    def settle(self, number: int, image: bytes) -> None:
        """Decide what a sector holds after a power cut."""
        self.sectors[number] = image
        del self.older[number]
        self.dirty.discard(number)

    def put(self, offset: int, data: bytes) -> None:
        """Change bytes behind everybody's back, durably."""
        content = bytearray(self.read())
        content[offset : offset + len(data)] = data
        first, last = offset // SECTOR_BYTES, (offset + len(data) - 1) // SECTOR_BYTES
        for number in range(first, last + 1):
            self.sectors[number] = bytes(content[number * SECTOR_BYTES : (number + 1) * SECTOR_BYTES])
            self.older.pop(number, None)
            self.dirty.discard(number)


class MemoryFiles:
    """A directory in memory, as a `storage.files.Files`, with faults.

    Every call is made of steps (a write, a sync, a making, a rename, a removal, a sync of the directory);
    `steps` counts them, and `fail_after` makes a chosen one fail.
    """

    def __init__(self, name: str = "memory") -> None:
        """Make an empty, durable directory; `name` is for messages."""
        self.name = name
        self.steps = 0
        self._names: dict[str, _File] = {}
        self._older_names: list[dict[str, _File]] = []
        """What else the directory may hold after a power cut, oldest (the durable one) first."""
        self._failing_step: int | None = None
        self._error: OSError | None = None

    def copy(self) -> Self:
        """Return a twin of the twin, with its unsynced writes and without its pending fault."""
        twin = type(self)(self.name)
        twin.steps = self.steps
        directories = [self._names, *self._older_names]
        files = {id(file): file.copy() for directory in directories for file in directory.values()}
        copies = [{name: files[id(file)] for name, file in directory.items()} for directory in directories]
        twin._names, twin._older_names = copies[0], copies[1:]  # noqa: SLF001 - it is the same class
        return twin

    # The port, in the order of `storage.files.Files`.

    def location(self, name: str) -> str:
        """Return how a person finds the file."""
        return f"{self.name}/{name}"

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(self._names)

    def read(self, name: str) -> bytes:
        """Return the whole file."""
        return self._file(name).read()

    def create(self, name: str, size_bytes: int, head: bytes = b"") -> None:
        """Make a file of `head`, then zeros, durable under its name. An older one is replaced."""
        temporary = name + TEMPORARY_SUFFIX
        file = _File(max(size_bytes, len(head)))
        try:
            self._step()
            self._change_names({**self._names, temporary: file})
            self._write(file, 0, head)
            self._sync(file)
            self._step()
        except PowerLossError:
            raise
        except OSError:
            self._change_names({other: kept for other, kept in self._names.items() if other != temporary})
            raise
        renamed = {other: kept for other, kept in self._names.items() if other != temporary}
        self._change_names({**renamed, name: file})
        self.sync_directory()

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write inside the file: it can be read now, and is durable after `sync`."""
        self._write(self._file(name), offset, data)

    def sync(self, name: str) -> None:
        """Make all writes to the file durable."""
        self._sync(self._file(name))

    def sync_directory(self) -> None:
        """Make the names durable."""
        self._step()
        self._older_names.clear()

    def delete(self, name: str) -> None:
        """Remove a file, durably."""
        self._file(name)
        self._step()
        self._change_names({other: file for other, file in self._names.items() if other != name})
        self.sync_directory()

    def close(self) -> None:
        """Do nothing: nothing is open."""

    # Faults.

    def fail_after(self, steps: int, error: OSError) -> None:
        """Let a step fail, counted from 0, the next one. A later call replaces an earlier one."""
        self._failing_step, self._error = self.steps + steps, error

    def fail_next(self, error_number: int = errno.EIO) -> None:
        """Let the next step fail."""
        self.fail_after(0, OSError(error_number, "a fault that was asked for"))

    def clear_faults(self) -> None:
        """Forget a fault that did not happen yet."""
        self._failing_step = self._error = None

    def crash(self, random: Random) -> None:
        """Cut the power: what is not durable comes back in any of its contents, as `random` chooses."""
        images = [*self._older_names, self._names]
        self._names = images[random.randrange(len(images))]
        self._older_names = []
        for name in self.names():
            file = self._names[name]
            # A whole write is often kept or lost as one; sectors drawn one by one would almost never show
            # that.
            fate = random.choice(("any", "any", "newest", "oldest"))
            for number in sorted(file.older):
                candidates = (*file.older[number], file.sectors[number])
                chosen = {"newest": len(candidates) - 1, "oldest": 0}.get(
                    fate, random.randrange(len(candidates))
                )
                file.settle(number, candidates[chosen])
        self.clear_faults()

    def crash_keeping(self, kept: Collection[tuple[str, int]], *, keeps_names: bool = True) -> None:
        """Cut the power, with a known outcome.

        Args:
            kept: of all sectors that are not durable these, as (name, sector), come back as they were written
                last, and the others as they were at the last sync.
            keeps_names: False brings the directory back as it was at its last sync.

        """
        if self._older_names and not keeps_names:
            self._names = self._older_names[0]
        self._older_names = []
        for name, file in self._names.items():
            for number in sorted(file.older):
                file.settle(number, file.sectors[number] if (name, number) in kept else file.older[number][0])
        self.clear_faults()

    def unsynced(self) -> list[tuple[str, int]]:
        """Return the sectors that are not durable, as (name, sector)."""
        return [(name, number) for name in self.names() for number in sorted(self._names[name].older)]

    def flip(self, name: str, offset: int, mask: int) -> None:
        """Flip the bits of `mask` in one byte, durably: the disk forgot what it was given."""
        file = self._file(name)
        file.put(offset, bytes([file.read()[offset] ^ mask]))

    def put(self, name: str, offset: int, data: bytes) -> None:
        """Change bytes durably, as no program did."""
        self._file(name).put(offset, data)

    def cut(self, name: str, size_bytes: int) -> None:
        """Shorten a file, durably."""
        content = self._file(name).read()[:size_bytes]
        file = self._names[name] = _File(size_bytes)
        if content:
            file.put(0, content)

    def lose(self, name: str) -> None:
        """Remove a file, durably, as no program did."""
        del self._names[name]

    def _file(self, name: str) -> _File:
        file = self._names.get(name)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", self.location(name))
        return file

    def _step(self) -> None:
        """Count a step, or let it fail."""
        self.steps += 1
        if self._failing_step is not None and self.steps > self._failing_step:
            error = self._error
            self.clear_faults()
            assert error is not None
            raise error

    def _write(self, file: _File, offset: int, data: bytes) -> None:
        # A write that fails, or that power cuts short, may have reached the page cache: that is the worse
        # case, for the sectors can then be there, or partly, after a crash.
        file.write(offset, data)
        self._step()

    def _sync(self, file: _File) -> None:
        try:
            self._step()
        except PowerLossError:
            raise
        except OSError:
            file.sync_failed()
            raise
        file.sync()

    def _change_names(self, names: dict[str, _File]) -> None:
        self._older_names.append(self._names)
        self._names = names


class MemoryDisk:
    """A node's disk in the simulator: takes writes like `DiskThread`, carries them out when told to.

    The simulator's duties: `step` whenever the disk should have finished something, report the ticket to the
    node, and on an OSError report the failure and never step again. A disk that stalls is one that isn't
    stepped.
    """

    def __init__(self, wal: Wal, files: MemoryFiles) -> None:
        """Drive `wal`, which stands on `files`."""
        self.wal = wal
        self.files = files
        self._waiting: deque[Write] = deque()
        self._is_failed = False

    def __len__(self) -> int:
        """Return how many writes wait."""
        return len(self._waiting)

    def submit(self, write: Write) -> None:
        """Let a write wait for its turn. After a failure it is dropped: the failure was told."""
        assert len(self._waiting) < WRITES_WAITING_MAX, "the simulator does not step this disk"
        if not self._is_failed:
            self._waiting.append(write)

    def step(self, writes_max: int | None = None) -> Ticket | None:
        """Make what waits durable, as one batch, and return its last ticket; None if nothing waits.

        Args:
            writes_max: take only so many of them, as if the others had come while this batch was under way.

        Raises:
            OSError: the disk failed.

        """
        batch = [
            self._waiting.popleft() for _ in range(min(len(self._waiting), writes_max or WRITES_WAITING_MAX))
        ]
        if not batch:
            return None
        # Until it is done: whatever ends it early leaves a failed disk.
        self._is_failed = True
        self.wal.append(batch)
        if self.wal.wants_spare:
            self.wal.prepare()
        self._is_failed = False
        return batch[-1].ticket

    def crash(self, random: Random) -> None:
        """Cut the power. What waited is lost, or in part on the disk: the batch may have been under way."""
        if self._waiting and not self._is_failed and random.random() < 0.75:
            self.files.fail_after(random.randrange(3), PowerLossError())
            with contextlib.suppress(PowerLossError):
                self.step(random.randint(1, len(self._waiting)))
        self._waiting.clear()
        self.files.crash(random)

    async def stop(self, *, drop_queued: bool = True) -> None:
        """Forget what waits, as when only the process dies. With False, carry it out first."""
        if not drop_queued and not self._is_failed:
            self.step()
        self._waiting.clear()
        await trio.lowlevel.checkpoint()
