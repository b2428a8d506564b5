"""The port to one directory of files, and its implementation on a real disk.

Everything durable is made with these few calls, so that one implementation of the log runs on real files and
on their twin in memory (`storage.memory`), where power fails on purpose. What the port promises:

- A file appears under its name whole or not at all: it is written under a temporary name, synced, renamed,
  and the directory is synced. Renaming before syncing would let a crash leave an empty file under the final
  name.
- `write` and `append` are durable after `sync`, and not before. What is read shows the newest write, durable or
  not.
- A file whose size isn't known beforehand grows under its temporary name: `begin`, `append`, `sync`, `rename`.
- Files are reached from the open directory. Before one is made (`create`, `begin`) it is looked at whether the
  directory still has its name: else what is written would not be found again, and a GoneError says so.
- An OSError leaves the file in an unknown state, but for a `write` that finds no space (`errors.FULL`): nothing was
  promised of it yet, and the same bytes may be written to the same place again.
- After a failed sync, also one that says that the disk is full, the kernel may have thrown the pages away and marked
  them clean, so that a second sync "succeeds" (https://wiki.postgresql.org/wiki/Fsync_Errors): nothing is ever tried
  again here, and recovery writes the last frame anew before it believes in it.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from trio_kv.storage.errors import FULL
from trio_kv.storage.place import Place, list_directory, open_directory
from trio_kv.storage.systems import exempt_from_copying, sync_descriptor, take_space, write_all

TEMPORARY_SUFFIX = ".tmp"
"""A file with such a name is one whose making was interrupted. It may be deleted."""
OPEN_FILES_MAX = 4
"""Files that `RealFiles` keeps open to write, and as many to read; beyond it the one opened first is closed."""
BLOCK_BYTES = 1 << 20
"""What `RealFiles` appends, and reads in parts, at a time. A thread beside a busy one gives up Python's lock with each
call, and waits for it afterwards: many small calls would take many times as long as the disk does.
"""
_ZEROS = bytes(1 << 20)


class Files(Protocol):
    """The files of one directory. For one thread at a time; `create` may run beside the rest.

    Two threads that share a directory each have their own.
    """

    on_read: Callable[[], object] | None
    """Is called after each piece that the disk gave."""

    def location(self, name: str) -> str:
        """Return how a person finds the file."""

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""

    def read(self, name: str) -> bytes:
        """Return the whole file."""

    def create(self, name: str, size_bytes: int, head: bytes = b"") -> None:
        """Make a file of `head`, then zeros, durable under its name. An older one is replaced.

        Where zeros can be written over later without taking space, they can.
        """

    def reserve(self, name: str, size_bytes: int) -> None:
        """Make a file that takes so much space, durably, and gives it back when it is deleted; it holds anything."""

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write inside the file: its size never changes. If it finds no space, a part may be written."""

    def size(self, name: str) -> int:
        """Return a file's size, in bytes."""

    def read_at(self, name: str, offset: int, length: int) -> bytes:
        """Return that part of a file; less, where the file ends."""

    def begin(self, name: str) -> None:
        """Make an empty file that `append` may let grow. An older one is replaced; the name isn't durable."""

    def append(self, name: str, data: bytes) -> None:
        """Write behind the file's end."""

    def sync(self, name: str) -> None:
        """Make all writes to the file durable, and its size."""

    def rename(self, source: str, target: str) -> None:
        """Give a file its final name, durably. Whoever calls it has synced the file."""

    def uncache(self, name: str) -> None:
        """Let what is read next come from the disk and not from memory, where the system can do that."""

    def sync_directory(self) -> None:
        """Make the names durable."""

    def delete(self, name: str) -> None:
        """Remove a file, durably."""

    def close(self) -> None:
        """Let go of all open files. Nothing is synced by it."""


class RealFiles:
    """Files of a directory on a real disk.

    Args:
        path: the directory; it exists.
        is_synced: False leaves out every sync: a power cut may then lose or mix up anything.
        directory: its descriptor, if it is open already; it stays the caller's.
        place: where that was found; by default `path`, as it leads there now.

    Raises of all methods:
        OSError: the disk refused.

    """

    def __init__(
        self,
        path: Path,
        *,
        is_synced: bool = True,
        directory: int | None = None,
        place: Place | None = None,
    ) -> None:
        """Open the directory, until `close`; one that has no descriptor yet is opened again when it is used again."""
        self.path = path
        self.is_synced = is_synced
        self._is_by_path = directory is None
        self._directory = open_directory(path if directory is None else ".", inside=directory)
        self._place = place or Place.of(self._directory, path)
        self._descriptors: dict[str, int] = {}
        """Of files that are written to."""
        self._readers: dict[str, int] = {}
        """Of files that are read in parts: they may stand where nothing can be written."""
        self._appended: dict[str, bytearray] = {}
        """What was appended and not yet given to the system."""
        self._block: tuple[str, int, bytes] = ("", 0, b"")
        """The part of a file that was read last: (name, offset, data)."""
        self.on_read: Callable[[], object] | None = None
        """Is called after each piece that the disk gave."""

    def location(self, name: str) -> str:
        """Return the file's path."""
        return str(self.path / name)

    def names(self) -> list[str]:
        """Return the names of all plain files, sorted."""
        return [entry.name for entry in list_directory(self._at) if entry.is_file(follow_symlinks=False)]

    def read(self, name: str) -> bytes:
        """Return the whole file."""
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._at)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read()
        if self.on_read is not None:
            self.on_read()
        return data

    def create(self, name: str, size_bytes: int, head: bytes = b"") -> None:
        """Make a file of `head`, then zeros, durable under its name. An older one is replaced."""
        self._make(name, lambda descriptor: self._fill(descriptor, size_bytes, head))

    def reserve(self, name: str, size_bytes: int) -> None:
        """Make a file that takes so much space, durably, and gives it back when it is deleted; it holds anything."""
        self._make(name, lambda descriptor: take_space(descriptor, size_bytes))

    def _make(self, name: str, fill: Callable[[int], object]) -> None:
        self._place.check()
        temporary = name + TEMPORARY_SUFFIX
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o600, dir_fd=self._at)
            try:
                fill(descriptor)
                if self.is_synced:
                    sync_descriptor(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, name, src_dir_fd=self._at, dst_dir_fd=self._at)
        except OSError:
            # Most often the disk is full: leave nothing behind that makes it fuller.
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._at)
            raise
        self._forget(name)
        self.sync_directory()

    @staticmethod
    def _fill(descriptor: int, size_bytes: int, head: bytes) -> None:
        if len(head) < size_bytes:
            exempt_from_copying(descriptor)
        write_all(descriptor, 0, head)
        for offset in range(len(head), size_bytes, len(_ZEROS)):
            write_all(descriptor, offset, _ZEROS[: size_bytes - offset])

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write inside the file."""
        self._block = ("", 0, b"")
        write_all(self._descriptor(name), offset, data)

    def size(self, name: str) -> int:
        """Return a file's size, in bytes."""
        self._flush(name)
        return os.stat(name, dir_fd=self._at).st_size

    def read_at(self, name: str, offset: int, length: int) -> bytes:
        """Return that part of a file; less, where the file ends."""
        self._flush(name)
        of, begin, block = self._block
        if of != name or not begin <= offset <= offset + length <= begin + len(block):
            begin, block = offset, self._read_at(name, offset, max(length, BLOCK_BYTES))
            self._block = (name, begin, block)
        return block[offset - begin : offset - begin + length]

    def _read_at(self, name: str, offset: int, length: int) -> bytes:
        descriptor = self._open(self._readers, name, os.O_RDONLY)
        data = os.pread(descriptor, length, offset)
        # One call returns 2 GiB at most; a file that ends returns nothing.
        while len(data) < length and (more := os.pread(descriptor, length - len(data), offset + len(data))):
            data += more
        if self.on_read is not None:
            self.on_read()
        return data

    def begin(self, name: str) -> None:
        """Make an empty file that `append` may let grow."""
        self._place.check()
        self._forget(name)
        self._open(self._descriptors, name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def append(self, name: str, data: bytes) -> None:
        """Write behind the file's end, a block at a time: what is left is written when it is synced or read."""
        appended = self._appended.setdefault(name, bytearray())
        appended += data
        if len(appended) >= BLOCK_BYTES:
            self._flush(name)

    def _flush(self, name: str) -> None:
        appended = self._appended.pop(name, None)
        if appended:
            self._block = ("", 0, b"")
            descriptor = self._descriptor(name)
            write_all(descriptor, os.fstat(descriptor).st_size, bytes(appended))

    def sync(self, name: str) -> None:
        """Make all writes to the file durable, and its size."""
        self._flush(name)
        if self.is_synced:
            sync_descriptor(self._descriptor(name))

    def rename(self, source: str, target: str) -> None:
        """Give a file its final name, durably."""
        self._flush(source)
        self._forget(source)
        self._forget(target)
        os.replace(source, target, src_dir_fd=self._at, dst_dir_fd=self._at)
        self.sync_directory()

    def uncache(self, name: str) -> None:
        """Drop the file's pages from the page cache. macOS has no call for it."""
        self._block = ("", 0, b"")
        if self.is_synced and sys.platform != "darwin":
            descriptor = self._open(self._readers, name, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync_directory(self) -> None:
        """Make the names durable."""
        if self.is_synced:
            os.fsync(self._at)

    def delete(self, name: str) -> None:
        """Remove a file, durably: were the order of two removals lost, a log could come back with a hole."""
        self._forget(name)
        os.unlink(name, dir_fd=self._at)
        self.sync_directory()

    def close(self) -> None:
        """Close what is open. May be called again."""
        self._appended.clear()
        directory, self._directory = self._directory, -1
        if directory >= 0:
            os.close(directory)
        for table in (self._descriptors, self._readers):
            while table:
                os.close(table.popitem()[1])

    @property
    def _at(self) -> int:
        if self._directory < 0 and self._is_by_path:
            self._directory = open_directory(self.path)
            self._place = Place.of(self._directory, self.path)
        return self._directory

    def _descriptor(self, name: str) -> int:
        return self._open(self._descriptors, name, os.O_RDWR)

    @staticmethod
    def _close_in(table: dict[str, int], name: str) -> None:
        descriptor = table.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def _open(self, table: dict[str, int], name: str, flags: int) -> int:
        descriptor = table.get(name)
        if descriptor is None:
            descriptor = table[name] = os.open(name, flags | os.O_CLOEXEC, 0o600, dir_fd=self._at)
            if len(table) > OPEN_FILES_MAX:
                self._close_in(table, next(iter(table)))
        return descriptor

    def _forget(self, name: str) -> None:
        self._appended.pop(name, None)
        self._block = ("", 0, b"")
        self._close_in(self._descriptors, name)
        self._close_in(self._readers, name)


def remove(files: Files, name: str) -> None:
    """Delete a file that nobody needs, now or, if the disk is too full for that, at the next start. Raises OSError."""
    try:
        files.delete(name)
    except OSError as error:
        if error.errno not in FULL:
            raise
