"""One file of the twin of a disk in memory (`storage.memory`): what is read now, and what a power cut may leave."""

from collections.abc import Collection
from random import Random

import attrs

from trio_kv.wire.frames import SECTOR_BYTES, ZERO_SECTOR


@attrs.define
class MemoryFile:
    """One file by sectors; a sector that isn't listed is zero."""

    size_bytes: int
    sectors: dict[int, bytes] = attrs.field(factory=dict)
    """What is read now."""
    older: dict[int, tuple[bytes, ...]] = attrs.field(factory=dict)
    """What else a sector may hold after a power cut: its durable content, and what was written since."""
    dirty: set[int] = attrs.field(factory=set)
    """Sectors that the next sync makes durable."""
    older_sizes: tuple[int, ...] = ()
    """What else its size may be after a power cut: the durable one, and those since."""
    is_size_dirty: bool = False
    """Whether the next sync makes the size durable."""
    shared: set[int] = attrs.field(factory=set)
    """Sectors that somebody's copy of the file has, too."""
    is_unwritten: bool = False
    """Whether it only takes space: a copy of it shares nothing."""

    def copy(self) -> "MemoryFile":
        """Return an equal one."""
        return attrs.evolve(
            self,
            sectors=dict(self.sectors),
            older=dict(self.older),
            dirty=set(self.dirty),
            shared=set(self.shared),
        )

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """Return a part of what is read now; less, where the file ends."""
        end = self.size_bytes if length is None else min(offset + length, self.size_bytes)
        first = offset // SECTOR_BYTES
        numbers = range(first, -(-end // SECTOR_BYTES))
        data = b"".join([self.sectors.get(number, ZERO_SECTOR) for number in numbers])
        return data[offset - first * SECTOR_BYTES : end - first * SECTOR_BYTES]

    def write(self, offset: int, data: bytes) -> None:
        """Write inside the file."""
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

    def append(self, data: bytes) -> None:
        """Write behind its end."""
        self.older_sizes = (*self.older_sizes, self.size_bytes)
        self.is_size_dirty = True
        self.size_bytes += len(data)
        self.write(self.size_bytes - len(data), data)

    def sync(self) -> None:
        """Make what is dirty durable."""
        for number in self.dirty:
            del self.older[number]
        self.dirty.clear()
        if self.is_size_dirty:
            self.older_sizes, self.is_size_dirty = (), False

    def sync_failed(self) -> None:
        """Count what is dirty as clean, though it is not durable."""
        self.dirty.clear()
        self.is_size_dirty = False

    def uncache(self) -> None:
        """Drop what is in memory and not dirty: after a failed sync that is not what the disk holds."""
        for number in [number for number in self.older if number not in self.dirty]:
            self.settle(number, self.older[number][0])

    def crash(self, random: Random) -> None:
        """Come back after a power cut with any of what it may hold, as `random` chooses."""
        if self.is_unwritten:
            return
        # A whole write is often kept or lost as one; sectors drawn one by one would almost never show that.
        fate = random.choice(("any", "any", "newest", "oldest"))
        if self.older_sizes:
            self.settle_size(random.choice((*self.older_sizes, self.size_bytes)))
        for number in sorted(self.older):
            candidates = (*self.older[number], self.sectors[number])
            chosen = {"newest": len(candidates) - 1, "oldest": 0}.get(fate, random.randrange(len(candidates)))
            self.settle(number, candidates[chosen])

    def crash_keeping(self, kept: Collection[int]) -> None:
        """Come back with these sectors as they were written last, the others as at the last sync, as long as needed."""
        if self.older_sizes:
            needed = max(((sector + 1) * SECTOR_BYTES for sector in kept), default=0)
            self.settle_size(max(self.older_sizes[0], min(needed, self.size_bytes)))
        for number in sorted(self.older):
            self.settle(number, self.sectors[number] if number in kept else self.older[number][0])

    def settle_size(self, size_bytes: int) -> None:
        """Decide how long a file is after a power cut."""
        self.size_bytes, self.older_sizes, self.is_size_dirty = size_bytes, (), False
        for number in [number for number in self.sectors if number * SECTOR_BYTES >= size_bytes]:
            del self.sectors[number]
            self.older.pop(number, None)
            self.dirty.discard(number)

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
