"""The lock of a data directory: one process uses it, others that only look may do so together.

What is locked is the directory itself, and not a file in it: whoever removes a file, or puts another directory under
the name, does not let a second process in. (A directory that is locked is also left alone by systemd-tmpfiles, which
removes old files from /tmp.)

A file `lock` holds the process id, for people. It is locked as well, where that can be: older versions lock
nothing else, and on a network file system the lock of a directory may hold on one machine only.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from trio_kv.storage.errors import LockedError, StorageError

LOCK_NAME = "lock"


class Lock:
    """A directory that is locked until `close`.

    Args:
        directory: its descriptor; the lock lasts at most as long as that is open.
        path: how a person finds it.
        is_shared: others may look, too, and nothing is written.

    Raises:
        LockedError: another process uses it.
        StorageError: its file system can't lock it.
        OSError: the disk refused.

    """

    def __init__(self, directory: int, path: Path, *, is_shared: bool) -> None:
        """Take the lock, or raise."""
        self._file = -1
        kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
        _take(directory, directory, path, kind)
        try:
            self._file = self._open_file(directory, is_shared=is_shared)
            if self._file >= 0:
                _take(self._file, directory, path, kind)
                if not is_shared:
                    _write_owner(self._file)
        except BaseException:
            self.close()
            fcntl.flock(directory, fcntl.LOCK_UN)
            raise

    @staticmethod
    def _open_file(directory: int, *, is_shared: bool) -> int:
        flags = os.O_RDONLY if is_shared else os.O_RDWR | os.O_CREAT
        try:
            return os.open(LOCK_NAME, flags | os.O_CLOEXEC, 0o600, dir_fd=directory)
        except OSError:
            # The directory is locked already: a full disk, say, must not keep a store from being read.
            return -1

    def close(self) -> None:
        """Let go of the file. The directory stays locked as long as it is open."""
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)


def _take(descriptor: int, directory: int, path: Path, kind: int) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = _owner(directory)
        by = f"process {owner}" if owner else "another process"
        if kind == fcntl.LOCK_SH:
            raise LockedError(
                f"{path} is in use by {by}: its files change while they are read.",
                "Stop the server first; a running one tells of its nodes by `status`.",
            ) from error
        raise LockedError(
            f"{path} is in use by {by}.",
            "Stop that process, or name another --data-dir. What is locked is the directory: removing files in it"
            " does not help.",
        ) from error
    except OSError as error:
        raise StorageError(
            f"{path} can't be locked: {error.strerror or error}. Two servers could use it at once.",
            "Put the data directory on a file system that has locks (flock): on a local disk.",
        ) from error


def _owner(directory: int) -> str:
    """Return the process id of whoever holds the lock, as far as that is known."""
    try:
        descriptor = os.open(LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return ""
    try:
        return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)


def _write_owner(descriptor: int) -> None:
    # For people only.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
