"""A file that gets its name when it is whole: made beside its place, under a name that nobody else uses.

It is locked as long as its process lives. One that is there and not locked was left by a process that was killed, and
whoever makes the next one in that directory removes it.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

import attrs

from trio_kv.storage.files import TEMPORARY_SUFFIX
from trio_kv.storage.systems import sync_directory

PREFIX: Final = ".trio_kv-backup-"
HAS_NO_LINKS: Final = frozenset(
    {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
)
"""How a file system says that it knows no second names, as FAT does."""


@attrs.frozen
class NewFile:
    """A file without a name of its own yet."""

    path: Path
    file: BinaryIO

    def publish(self, place: Path, *, is_forced: bool) -> None:
        """Give the file its name, durably. Of two that do so at once, one comes last, or fails if it may not replace.

        Args:
            place: the name, in the same directory.
            is_forced: whether it may take the place of a file that is there.

        Raises:
            FileExistsError: there is something, and it must not be replaced.
            OSError: the disk refused.

        """
        if is_forced:
            self.path.replace(place)
        else:
            try:
                place.hardlink_to(self.path)
            except OSError as error:
                if os.path.lexists(place):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place)) from error
                if error.errno not in HAS_NO_LINKS:
                    raise
                self.path.rename(place)
            self.path.unlink(missing_ok=True)
        sync_directory(place.parent)


@contextlib.contextmanager
def open_new_file(directory: Path) -> Iterator[NewFile]:
    """Make a file that only its owner may read; at the end it is gone, unless it was given its name.

    Raises:
        OSError: the directory does not take it.

    """
    _remove_left(directory)
    path, descriptor = _make(directory)
    try:
        with _ended_in_order(), os.fdopen(descriptor, "w+b") as file:
            yield NewFile(path, file)
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let the signals that end a process tidy up first, as Ctrl-C does."""

    def end(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:  # one that is ignored, as under nohup, stays so
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _make(directory: Path) -> tuple[Path, int]:
    while True:
        path = directory / f"{PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        if _lock(descriptor) and os.fstat(descriptor).st_nlink:
            return path, descriptor
        # Somebody who tidies up was quicker than our lock.
        os.close(descriptor)


def _remove_left(directory: Path) -> None:
    for path in directory.glob(f"{PREFIX}*{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a file; tell whether that was possible. A file system without locks has nothing tidied up."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
