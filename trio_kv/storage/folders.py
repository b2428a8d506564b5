"""The port to a directory that holds files and other directories, and its implementation on a real disk.

A folder is opened once, and all that is in it is reached from there and not by its path: what becomes of the path
meanwhile can't lead to another directory's files. Names are durable after `sync`, and not before. Its twin in memory is
`storage.memory_folder`.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, Self

from trio_kv.storage.errors import StorageError
from trio_kv.storage.files import Files, RealFiles
from trio_kv.storage.lock import Lock
from trio_kv.storage.place import Place, list_directory, open_directory, sync_names_above


class Folder(Protocol):
    """One directory, and those in it. Several threads may use it."""

    @property
    def path(self) -> Path:
        """How a person finds it."""

    @property
    def place(self) -> Place | None:
        """Where its name led to it; None in memory."""

    def files(self) -> Files:
        """Return its plain files, for one thread. Whoever asked closes them."""

    def names(self) -> list[str]:
        """Return the names of all that is in it, sorted."""

    def folder(self, name: str) -> "Folder":
        """Open a directory in it, or one that a link in it leads to. Whoever asked closes it.

        Raises:
            FileNotFoundError: there is none.
            NotADirectoryError: it is something else.

        """

    def make(self, name: str) -> "Folder":
        """Open a directory in it; make it, if it isn't there. The name may not be durable yet."""

    def rename(self, source: str, target: str) -> None:
        """Give a directory in it another name, which nothing has. Durable after `sync`."""

    def remove(self, name: str) -> None:
        """Remove a directory in it with all that it holds, durably."""

    def home(self, name: str) -> contextlib.AbstractContextManager[tuple["Folder", str]]:
        """Give the folder in which a directory really lies, and its name there: that of a link's target.

        Raises:
            StorageError: it can't be renamed there, or there is no such folder.

        """

    def sync(self) -> None:
        """Make the names in it durable."""

    def sync_above(self) -> None:
        """Make the names durable that lead to it from outside of the folder that it was opened in."""

    def check_here(self) -> None:
        """Check that its name still leads to it.

        Raises:
            GoneError: it does not.

        """

    def lock(self, *, is_shared: bool = False) -> None:
        """Let this process alone use it until `close`; if shared, others may look as well.

        Raises:
            LockedError: another process uses it.
            StorageError: its file system can't lock it.

        """

    def close(self) -> None:
        """Let go of it. May be called again."""


class RealFolder:
    """A directory on a real disk.

    Raises of all methods:
        OSError: the disk refused.

    """

    def __init__(
        self, descriptor: int, path: Path, place: Place, *, is_synced: bool, is_inside: bool = False
    ) -> None:
        """Take over an open directory; inside of one whose names are looked after. Use `open` or `open_new`."""
        self._path = path
        self._place = place
        self._descriptor = descriptor
        self._is_synced = is_synced
        self._is_inside = is_inside
        self._lock: Lock | None = None

    @classmethod
    def open(cls, path: Path, *, is_synced: bool = True) -> Self:
        """Open a directory.

        Args:
            path: which one.
            is_synced: False leaves out every sync of what is in it.

        Raises:
            OSError: there is none, or it may not be read.

        """
        descriptor = open_directory(path)
        return cls(descriptor, path, Place.of(descriptor, path), is_synced=is_synced)

    @classmethod
    def inherited(cls, descriptor: int, path: Path, *, is_synced: bool = True) -> Self:
        """Take over a directory that another process opened, and locked: the lock lasts as long as one of them has it.

        Raises:
            OSError: the descriptor is none of a directory.

        """
        return cls(descriptor, path, Place.of(descriptor, path), is_synced=is_synced)

    @classmethod
    def open_new(cls, path: Path, *, is_synced: bool = True) -> Self:
        """Open a directory; make it, and those above it, if they aren't there. Raises OSError."""
        for missing in reversed([each for each in (path, *path.parents) if not each.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        return cls.open(path, is_synced=is_synced)

    @property
    def descriptor(self) -> int:
        """What a further process of the server inherits, and the lock with it."""
        return self._descriptor

    # The port, in the order of `Folder`.

    @property
    def path(self) -> Path:
        """How a person finds it."""
        return self._path

    @property
    def place(self) -> Place | None:
        """Where its name led to it."""
        return self._place

    def files(self) -> RealFiles:
        """Return its plain files."""
        return RealFiles(self.path, is_synced=self._is_synced, directory=self._descriptor, place=self._place)

    def names(self) -> list[str]:
        """Return the names of all that is in it, sorted."""
        return [entry.name for entry in list_directory(self._descriptor)]

    def folder(self, name: str) -> "RealFolder":
        """Open a directory in it."""
        descriptor = open_directory(name, inside=self._descriptor)
        place = Place.of(descriptor, self._place.path / name)
        is_inside = not place.path.is_symlink()
        return RealFolder(descriptor, self.path / name, place, is_synced=self._is_synced, is_inside=is_inside)

    def make(self, name: str) -> "RealFolder":
        """Open a directory in it; make it, if it isn't there."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self._descriptor)
        return self.folder(name)

    def rename(self, source: str, target: str) -> None:
        """Give a directory in it another name."""
        os.rename(source, target, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        """Remove a directory in it with all that it holds, durably."""
        shutil.rmtree(name, dir_fd=self._descriptor)
        self.sync()

    @contextlib.contextmanager
    def home(self, name: str) -> Iterator[tuple[Folder, str]]:
        """Give the folder in which a directory really lies, and its name there."""
        path = self._place.path / name
        target = path.resolve()
        if target.is_mount():
            raise StorageError(
                f"{target} is a file system of its own, and can't be moved aside.",
                f"Nothing was changed. Let {name} be a link to a directory on that file system.",
            )
        if not path.is_symlink():
            yield self, name
            return
        if not target.parent.is_dir():
            raise StorageError(
                f"{path} is a link to {target}, and there is no {target.parent}.",
                "Nothing was changed. Bring back the disk that it leads to, or remove the link.",
            )
        with contextlib.closing(RealFolder.open(target.parent, is_synced=self._is_synced)) as folder:
            yield folder, target.name

    def sync(self) -> None:
        """Make the names in it durable."""
        if self._is_synced:
            os.fsync(self._descriptor)

    def sync_above(self) -> None:
        """Make the names durable that lead to it from outside of the folder that it was opened in."""
        if self._is_synced and not self._is_inside:
            sync_names_above(self._place.path)

    def check_here(self) -> None:
        """Check that its name still leads to it."""
        self._place.check()

    def lock(self, *, is_shared: bool = False) -> None:
        """Let this process alone use it until `close`; if shared, others may look as well."""
        self._lock = Lock(self._descriptor, self.path, is_shared=is_shared)
        # It may have been moved before it was locked.
        self.check_here()

    def close(self) -> None:
        """Let go of it."""
        if self._lock is not None:
            self._lock.close()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
