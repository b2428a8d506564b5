"""What storage can't put right by itself. Each error says what is wrong and what a person can do about it."""

import errno
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors that say that a disk is full, and not that it is broken - unless a sync ends in one: what was written may be
gone then, as after any other error of a sync."""

REBUILD = (
    "Nothing was changed, and the other nodes still hold the log. Don't repair the file, and don't bring back"
    " an older copy: both make the node forget what it promised. Rebuild it from the others instead."
)
"""The way out of damage. An old copy of a node's directory breaks Raft: it forgot votes and entries."""


class StorageError(Exception):
    """Storage refuses to start or to go on."""

    def __init__(self, message: str, way_out: str) -> None:
        """Say what is wrong, and what can be done."""
        super().__init__(message)
        self.message = message
        self.way_out = way_out

    def __str__(self) -> str:
        return f"{self.message}\n{self.way_out}"


class DamagedError(StorageError):
    """A file holds something that was never written to it, or lacks something that was."""

    def __init__(self, file: str, offset: int, reason: str, way_out: str = REBUILD) -> None:
        """Name the file, the byte where the trouble begins, and what is wrong there."""
        super().__init__(f"{file} is damaged at byte {offset}: {reason}", way_out)
        self.file = file
        self.offset = offset
        self.reason = reason


class LockedError(StorageError):
    """Another process uses the data directory."""


class ManifestError(StorageError):
    """The manifest can't be read, or does not go with what lies beside it."""


class LostError(StorageError):
    """There is no data directory where a node's must be: that is a lost disk, and no first start."""


class NodesDifferError(StorageError):
    """The cluster in the data directory has another number of nodes than was asked for."""


class GoneError(OSError):
    """A directory that is in use is not where it was found: what is written into it would not be found again."""

    def __init__(self, path: Path | str, what: str) -> None:
        """Name the directory, and say what became of it."""
        self.text = (
            f"{path} {what}. Nothing more is written, for the next start would not find it. Stop the server, put the "
            "directory back where it was, and start again"
        )
        super().__init__(errno.ENOENT, self.text)

    def __str__(self) -> str:
        return self.text
