"""Where an open directory was found, and whether it is still there.

A process that holds a directory open goes on writing into it, whatever becomes of its name: somebody may have moved it
away and put another one in its place, or removed it. What is acknowledged then is not found by the next start.
"""

import os
from pathlib import Path
from typing import Self

import attrs

from trio_kv.storage.errors import GoneError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_directory(path: Path | str, *, inside: int | None = None) -> int:
    """Open a directory, to reach what is in it; return the descriptor.

    Args:
        path: which one.
        inside: the open directory that the path begins in; None: the one that the process works in.

    Raises:
        OSError: there is none, or it may not be read.

    """
    return os.open(path, _DIRECTORY, dir_fd=inside)


def list_directory(descriptor: int) -> list[os.DirEntry[str]]:
    """Return what is in an open directory, sorted by name. Several threads may list one directory at once."""
    # A listing moves the place in the directory that all who share its descriptor have.
    own = open_directory(".", inside=descriptor)
    try:
        with os.scandir(own) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
            for entry in found:
                # Where the listing does not tell the kind, the entry asks the directory now, and remembers.
                entry.is_file(follow_symlinks=False)
    finally:
        os.close(own)
    return found


@attrs.frozen
class Place:
    """The name that led to a directory. Means something only as long as somebody holds the directory open.

    So long its number is given to no other directory.
    """

    path: Path
    device: int
    inode: int

    @classmethod
    def of(cls, descriptor: int, path: Path) -> Self:
        """Return the place of an open directory; `path` led to it."""
        found = os.fstat(descriptor)
        # The process may go elsewhere, which moves no directory.
        return cls(Path(os.path.abspath(path)), found.st_dev, found.st_ino)  # noqa: PTH100 - links stay as they are

    def check(self) -> None:
        """Check that the name still leads to the directory. If that can't be told, as on a disk that fails, nothing is
        raised.

        Raises:
            GoneError: it does not.

        """
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise GoneError(self.path, "was moved away or removed") from None
        except OSError:
            return
        if (found.st_dev, found.st_ino) != (self.device, self.inode):
            raise GoneError(self.path, "is another directory than the one in use")


def sync_names_above(path: Path) -> None:
    """Make the names durable that lead to a directory, as far up as its file system goes.

    Whoever made them may have died before it came to that. What may not be read is somebody else's. Raises OSError.
    """
    here = path.resolve()
    device = here.stat().st_dev
    while here.parent != here and here.parent.stat().st_dev == device:
        here = here.parent
        try:
            descriptor = open_directory(here)
        except PermissionError:
            continue
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
