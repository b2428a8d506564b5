"""The twin of a disk in memory: the same interfaces, no thread, and power that fails on purpose.

`MemoryFiles` stands under the very `Wal` that runs on real disks. It remembers for each sector what was there
at the last sync and all that was written to it since. When power fails, each such sector comes back with any
of these contents, independently of the others: a disk writes back in whatever order it likes, and only a
sector is atomic. The same goes for names: a directory comes back as it was at its last sync, or at any moment
since.

Two subtle ways of real disks are kept. What is read before a crash is the newest write, durable or not, as
from a page cache. And after a *failed* sync the pages count as clean: a second sync leaves them as they are,
only writing them again makes them durable. A file that grows has its size among what may be lost: it comes back
with any that it had since its last sync, and with zeros where nothing arrived.

Directories may stand in a directory (`storage.memory_folder`): their names are among those that a power cut may lose.
"""

import errno
import functools
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from random import Random
from typing import Concatenate, ParamSpec, Self, TypeVar

from trio_kv.storage.errors import GoneError
from trio_kv.storage.files import TEMPORARY_SUFFIX
from trio_kv.storage.memory_file import MemoryFile
from trio_kv.wire.frames import SECTOR_BYTES

_P = ParamSpec("_P")
_T = TypeVar("_T")


class PowerLossError(OSError):
    """The moment at which power failed. What follows is `crash`."""

    def __init__(self) -> None:
        """Look like an input/output error: whoever catches it learns nothing."""
        super().__init__(errno.EIO, "power lost")


def _locked(
    method: "Callable[Concatenate[MemoryFiles, _P], _T]",
) -> "Callable[Concatenate[MemoryFiles, _P], _T]":
    """Let one thread at a time into the twin: a disk thread and its helper share one."""

    @functools.wraps(method)
    def locked(self: "MemoryFiles", /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with self._lock:
            return method(self, *args, **kwargs)

    return locked


class MemoryFiles:
    """A directory in memory, as a `storage.files.Files`, with faults.

    Every call is made of steps (a write, a sync, a making, a rename, a removal, a sync of the directory);
    `steps` counts them, and `fail_after` makes a chosen one fail.
    """

    def __init__(self, name: str = "memory") -> None:
        """Make an empty, durable directory; `name` is for messages."""
        self.name = name
        self.steps = 0
        self.capacity_bytes: int | None = None
        """Fault: all files together can't become larger than this."""
        self.is_copy_on_write = False
        """Each write goes to a new place, and what it replaces is free when it is durable: zeros reserve nothing."""
        self._copies_bytes = 0
        """What copies hold that nobody else does any more."""
        self.is_unreadable = False
        """Fault: nothing can be read, also after a power cut."""
        self.before_step: Callable[[], object] | None = None
        """Called before each step, with all that the steps before it left: where power may fail."""
        self.is_gone = False
        """Fault: the directory was moved away."""
        self.is_locked = False
        """Whether somebody uses it alone (`storage.memory_folder`)."""
        self.on_read: Callable[[], object] | None = None
        """Never called: memory gives all at once."""
        self._lock = threading.RLock()
        self._names: dict[str, MemoryFile | MemoryFiles] = {}
        self._older_names: list[dict[str, MemoryFile | MemoryFiles]] = []
        """What else the directory may hold after a power cut, oldest (the durable one) first."""
        self._failing_step: int | None = None
        self._error: OSError | None = None
        self._raised: OSError | None = None
        """The last fault that happened."""

    def copy(self) -> Self:
        """Return a twin of the twin and of those in it, with its unsynced writes and without its pending fault."""
        twin = type(self)(self.name)
        twin.steps = self.steps
        twin.capacity_bytes = self.capacity_bytes
        twin.is_copy_on_write = self.is_copy_on_write
        twin._copies_bytes = self._copies_bytes  # noqa: SLF001 - it is the same class
        directories = [self._names, *self._older_names]
        files = {id(file): file.copy() for directory in directories for file in directory.values()}
        copies = [{name: files[id(file)] for name, file in directory.items()} for directory in directories]
        twin._names, twin._older_names = copies[0], copies[1:]  # noqa: SLF001 - it is the same class
        return twin

    # The port, in the order of `storage.files.Files`.

    def location(self, name: str) -> str:
        """Return how a person finds the file."""
        return f"{self.name}/{name}"

    @_locked
    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(name for name, entry in self._names.items() if isinstance(entry, MemoryFile))

    @_locked
    def read(self, name: str) -> bytes:
        """Return the whole file."""
        self._check_readable()
        return self._file(name).read()

    @_locked
    def create(self, name: str, size_bytes: int, head: bytes = b"") -> None:
        """Make a file of `head`, then zeros, durable under its name. An older one is replaced."""
        self._check_here()
        temporary = name + TEMPORARY_SUFFIX
        file = MemoryFile(max(size_bytes, len(head)))
        try:
            self._step()
            self._check_space(file.size_bytes)
            self._change_names({**self._names, temporary: file})
            self._write(file, 0, head)
            self._sync(file)
            self._step()
        except PowerLossError:
            raise
        except OSError:
            self._change_names(_without(self._names, temporary))
            raise
        self._change_names({**_without(self._names, temporary), name: file})
        self.sync_directory()

    @_locked
    def reserve(self, name: str, size_bytes: int) -> None:
        """Make a file that takes so much space, and gives it back when it is deleted."""
        self.create(name, size_bytes)
        self._file(name).is_unwritten = True

    @_locked
    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write inside the file: it can be read now, and is durable after `sync`."""
        file = self._file(name)
        fitting = self._fitting_bytes(file, offset, len(data))
        self._write(file, offset, data[:fitting])
        if fitting < len(data):
            raise OSError(errno.ENOSPC, "no space is left to write in a reserved place")

    @_locked
    def size(self, name: str) -> int:
        """Return a file's size, in bytes."""
        return self._file(name).size_bytes

    @_locked
    def read_at(self, name: str, offset: int, length: int) -> bytes:
        """Return that part of a file; less, where the file ends."""
        self._check_readable()
        return self._file(name).read(offset, length)

    @_locked
    def begin(self, name: str) -> None:
        """Make an empty file that `append` may let grow."""
        self._check_here()
        self._step()
        self._change_names({**self._names, name: MemoryFile(0)})

    @_locked
    def append(self, name: str, data: bytes) -> None:
        """Write behind the file's end."""
        file = self._file(name)
        self._check_space(len(data))
        file.append(data)
        self._step()

    @_locked
    def sync(self, name: str) -> None:
        """Make all writes to the file durable, and its size."""
        self._sync(self._file(name))

    @_locked
    def rename(self, source: str, target: str) -> None:
        """Give a file its final name, durably."""
        file = self._file(source)
        self._step()
        self._change_names({**_without(self._names, source), target: file})
        self.sync_directory()

    @_locked
    def uncache(self, name: str) -> None:
        """Let what is read next come from the disk, unless it is still to be written there."""
        self._file(name).uncache()

    @_locked
    def sync_directory(self) -> None:
        """Make the names durable."""
        self._step()
        self._older_names.clear()

    @_locked
    def delete(self, name: str) -> None:
        """Remove a file, durably."""
        file = self._file(name)
        self._step()
        self._copies_bytes += len(file.shared) * SECTOR_BYTES
        self._change_names(_without(self._names, name))
        self.sync_directory()

    def close(self) -> None:
        """Do nothing: nothing is open."""

    # Directories in this one.

    @property
    def folders(self) -> Mapping[str, "MemoryFiles"]:
        """The directories that stand in this one, by name."""
        return {name: entry for name, entry in self._names.items() if isinstance(entry, MemoryFiles)}

    @_locked
    def change_folders(self, changed: "Mapping[str, MemoryFiles | None]") -> None:
        """Give names to directories in this one, or take them away, all at once; durable after `sync_directory`."""
        self._step()
        kept = {name: entry for name, entry in self._names.items() if name not in changed}
        self._change_names({**kept, **{name: entry for name, entry in changed.items() if entry is not None}})

    # Faults.

    def fail_after(self, steps: int, error: OSError) -> None:
        """Let a step fail, counted from 0, the next one. A later call replaces an earlier one."""
        self._failing_step, self._error = self.steps + steps, error

    def fail_next(self, error_number: int = errno.EIO) -> None:
        """Let the next step fail."""
        self.fail_after(0, OSError(error_number, "a fault that was asked for"))

    def share(self) -> None:
        """Let somebody copy all files by sharing their places: what they held reserved is not theirs alone any more."""
        for name in self.names():
            file = self._file(name)
            if not file.is_unwritten:
                file.shared = set(range(-(-file.size_bytes // SECTOR_BYTES)))

    def is_fault(self, error: OSError) -> bool:
        """Return whether an error is a fault that was asked for, and no mistake of whoever uses the files."""
        return isinstance(error, PowerLossError) or error is self._raised

    def clear_faults(self) -> None:
        """Forget a fault that did not happen yet."""
        self._failing_step = self._error = None

    def crash(self, random: Random) -> None:
        """Cut the power: what is not durable comes back in any of its contents, as `random` chooses.

        Directories in this one may lose their names, and nothing else.
        """
        images = [*self._older_names, self._names]
        self._names = images[random.randrange(len(images))]
        self._older_names = []
        for name in self.names():
            self._file(name).crash(random)
        self.clear_faults()

    def crash_keeping(self, kept: Collection[tuple[str, int]], *, image: int = -1) -> None:
        """Cut the power, with a known outcome.

        Args:
            kept: of all sectors that are not durable these, as (name, sector), come back as they were written
                last, and the others as they were at the last sync; a file is as long as these need.
            image: which of the `name_images` the directory comes back as: 0 is the one at its last sync, -1
                the newest.

        """
        self._names = [*self._older_names, self._names][image]
        self._older_names = []
        for name in self.names():
            self._file(name).crash_keeping({sector for at, sector in kept if at == name})
        self.clear_faults()

    @property
    def name_images(self) -> int:
        """How many images the directory may come back as after a power cut."""
        return len(self._older_names) + 1

    def unsynced(self) -> list[tuple[str, int]]:
        """Return the sectors that are not durable, as (name, sector)."""
        return [(name, number) for name in self.names() for number in sorted(self._file(name).older)]

    def content(self, name: str) -> bytes:
        """Return what a file holds, whatever is wrong with the disk."""
        return self._file(name).read()

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
        file = self._names[name] = MemoryFile(size_bytes)
        if content:
            file.put(0, content)

    def lose(self, name: str) -> None:
        """Remove a file, durably, as no program did."""
        del self._names[name]

    def _file(self, name: str) -> MemoryFile:
        file = self._names.get(name)
        if not isinstance(file, MemoryFile):
            raise FileNotFoundError(errno.ENOENT, "no such file", self.location(name))
        return file

    def _check_here(self) -> None:
        if self.is_gone:
            raise GoneError(self.name, "was moved away")

    def _step(self) -> None:
        """Count a step, or let it fail."""
        if self.before_step is not None:
            self.before_step()
        self.steps += 1
        if self._failing_step is not None and self.steps > self._failing_step:
            error = self._error
            self.clear_faults()
            assert error is not None
            self._raised = error
            raise error

    def _write(self, file: MemoryFile, offset: int, data: bytes) -> None:
        # A write that fails, or that power cuts short, may have reached the page cache: that is the worse
        # case, for the sectors can then be there, or partly, after a crash.
        file.write(offset, data)
        self._step()

    def _sync(self, file: MemoryFile) -> None:
        try:
            self._step()
        except PowerLossError:
            raise
        except OSError:
            file.sync_failed()
            raise
        file.sync()

    def _check_readable(self) -> None:
        if self.is_unreadable:
            self._raised = OSError(errno.EIO, "a fault that was asked for")
            raise self._raised

    def _check_space(self, size_bytes: int) -> None:
        if self.capacity_bytes is not None and self.used_bytes + size_bytes > self.capacity_bytes:
            raise OSError(errno.ENOSPC, "no space is left")

    @property
    def used_bytes(self) -> int:
        """How much all files take, and what copies of them hold alone."""
        return sum(self._file(name).size_bytes for name in self.names()) + self._copies_bytes

    def _fitting_bytes(self, file: MemoryFile, offset: int, length: int) -> int:
        """Return how much of a write finds space, and take it."""
        if not (self.is_copy_on_write or file.shared):
            return length
        capacity_bytes = sys.maxsize if self.capacity_bytes is None else self.capacity_bytes
        left_bytes = capacity_bytes - self.used_bytes
        for number in range(offset // SECTOR_BYTES, -(-(offset + length) // SECTOR_BYTES)):
            if not (self.is_copy_on_write or number in file.shared):
                continue
            if left_bytes < SECTOR_BYTES:
                return max(0, number * SECTOR_BYTES - offset)
            left_bytes -= SECTOR_BYTES
            if number in file.shared:
                file.shared.discard(number)
                self._copies_bytes += SECTOR_BYTES
        return length

    def _change_names(self, names: "dict[str, MemoryFile | MemoryFiles]") -> None:
        self._older_names.append(self._names)
        self._names = names


def _without(names: dict[str, MemoryFile | MemoryFiles], name: str) -> dict[str, MemoryFile | MemoryFiles]:
    return {other: file for other, file in names.items() if other != name}
