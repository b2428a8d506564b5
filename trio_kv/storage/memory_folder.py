"""The twin of a directory with directories in it: in memory, with power that fails.

Each directory keeps its names by itself, as on a real disk: after a power cut it comes back as it was at its last sync
or at any moment since, whatever the others come back as.
"""

import contextlib
import errno
import itertools
from collections.abc import Iterator
from pathlib import Path
from random import Random

from trio_kv.storage.errors import GoneError, LockedError
from trio_kv.storage.folders import Folder
from trio_kv.storage.memory import MemoryFiles


class MemoryFolder:
    """A `storage.folders.Folder` in memory."""

    def __init__(self, content: MemoryFiles | None = None) -> None:
        """Stand on a directory; by default a new one that is empty and durable."""
        self.content = MemoryFiles("data") if content is None else content
        self._is_locking = False

    @property
    def path(self) -> Path:
        """How a person finds it."""
        return Path(self.content.name)

    @property
    def place(self) -> None:
        """Nothing: a directory in memory has no place."""

    def files(self) -> MemoryFiles:
        """Return its plain files."""
        return self.content

    def names(self) -> list[str]:
        """Return the names of all that is in it, sorted."""
        return sorted([*self.content.names(), *self.content.folders])

    def folder(self, name: str) -> "MemoryFolder":
        """Open a directory in it."""
        found = self.content.folders.get(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such directory", self.content.location(name))
        return MemoryFolder(found)

    def make(self, name: str) -> "MemoryFolder":
        """Open a directory in it; make it, if it isn't there."""
        if name not in self.content.folders:
            made = MemoryFiles(self.content.location(name))
            made.before_step = self.content.before_step
            self.content.change_folders({name: made})
        return self.folder(name)

    def rename(self, source: str, target: str) -> None:
        """Give a directory in it another name."""
        assert target not in self.names(), f"there is a {target}"
        moved = self.folder(source).content
        self.content.change_folders({source: None, target: moved})
        moved.name = self.content.location(target)

    def remove(self, name: str) -> None:
        """Remove a directory in it with all that it holds, durably."""
        content = self.folder(name).content
        for file in content.names():
            content.delete(file)
        self.content.change_folders({name: None})
        self.sync()

    @contextlib.contextmanager
    def home(self, name: str) -> Iterator[tuple[Folder, str]]:
        """Give this folder: there are no links in memory."""
        yield self, name

    def sync(self) -> None:
        """Make the names in it durable."""
        self.content.sync_directory()

    def sync_above(self) -> None:
        """Do nothing: nobody made what stands above."""

    def check_here(self) -> None:
        """Check that nobody moved it away."""
        if self.content.is_gone:
            raise GoneError(self.path, "was moved away")

    def lock(self, *, is_shared: bool = False) -> None:
        """Let one alone use it."""
        del is_shared
        if self.content.is_locked:
            raise LockedError(f"{self.path} is in use.", "Close it.")
        self.content.is_locked = self._is_locking = True

    def close(self) -> None:
        """Let go of it."""
        if self._is_locking:
            self.content.is_locked = self._is_locking = False


def all_directories(content: MemoryFiles) -> list[MemoryFiles]:
    """Return a directory and all below it, itself first."""
    below = (all_directories(content.folders[name]) for name in sorted(content.folders))
    return [content, *itertools.chain.from_iterable(below)]


def crash_all(content: MemoryFiles, random: Random) -> None:
    """Cut the power of a directory and of all that is left in it; the process that used it is gone as well."""
    content.is_locked = False
    content.crash(random)
    for each in content.folders.values():
        crash_all(each, random)
