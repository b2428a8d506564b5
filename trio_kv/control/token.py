"""The token of the control door, and the file through which the owner's other processes find it.

Whoever can read the file may break the cluster, so it is its owner's alone from the moment it exists, and
is replaced as a whole: a reader finds an old file or a new one, never half of one. A crash may leave the
file behind; the process id in it tells, and the next start replaces it.

The token itself is that of the data directory, where it lies in a file of its own: a page that is open finds its way
back to a server that was started again. A store that keeps nothing has a new one each time.
"""

import contextlib
import fcntl
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import msgspec

from trio_kv.storage.errors import FULL

FILE_NAME = "control.json"
TOKEN_NAME = "control.token"  # noqa: S105 - the name of a file
TOKEN_BYTES = 32
_token = re.compile(rb"([A-Za-z0-9_-]{43})\n", re.ASCII)
"""A token of so many bytes, as it is kept."""


@attrs.frozen
class ControlFile:
    """How to reach a running server's control door."""

    address: str
    """Host and port, as in a URL."""
    token: str = attrs.field(repr=False)
    pid: int
    certificate: str | None = None
    """That of the server, in PEM, if the door speaks TLS: who can read this file knows the server by it."""


def make_token() -> str:
    """Return a new secret."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def token_of(data_dir: Path) -> str:
    """Return the token of a data directory: the one that is kept there, or a new one, which is kept from now on.

    One that others could have read is replaced. On a disk that is full a new one is not kept.
    """
    path = data_dir / TOKEN_NAME
    with contextlib.suppress(OSError):
        # Not to wait for a writer, if it is a pipe; nor is a link followed that somebody has put there.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags), "rb") as file:
            status, kept = os.fstat(file.fileno()), _token.fullmatch(file.read(100))
        is_own = status.st_uid == os.getuid() and not status.st_mode & 0o077
        if stat.S_ISREG(status.st_mode) and is_own and kept is not None:
            return kept[1].decode()
    token = make_token()
    with contextlib.suppress(OSError):
        _replace(path, token.encode() + b"\n")
    return token


def control_path(data_dir: Path | None, port: int) -> Path:
    """Return where the file of a door is.

    Args:
        data_dir: the server's data directory, or None if it keeps nothing.
        port: the door's port, which tells apart the servers that keep nothing.

    Raises:
        OSError: the user's run-time directory cannot be made, or is not the user's alone.

    """
    if data_dir is not None:
        return data_dir / FILE_NAME
    return runtime_directory() / f"control-{port}.json"


def runtime_directory() -> Path:
    """Return our place in the user's run-time directory, or one of the user's alone if the system has none.

    Raises:
        OSError: it cannot be made, or what is there is not the user's alone.

    """
    given = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(given) / "trio_kv" if given else Path(tempfile.gettempdir()) / f"trio_kv-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Anybody may have made it before us, in a place where all may write.
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{path} is not a directory of this user alone; remove it")
    return path


@contextlib.contextmanager
def kept_from_cleaners(directory: Path) -> Iterator[None]:
    """Let what removes old files leave a directory alone: systemd-tmpfiles does, as long as it is locked.

    All who use it lock it together. Where that can't be, nothing is done.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


def write_control_file(path: Path, content: ControlFile) -> None:
    """Put a file in place at once, readable by its owner alone.

    If the disk is full, what an earlier server left there makes room.

    Raises:
        OSError: it cannot be written.

    """
    try:
        _write(path, content)
    except OSError as error:
        if error.errno not in FULL or not path.exists():
            raise
        path.unlink()
        _write(path, content)


def _write(path: Path, content: ControlFile) -> None:
    members = attrs.asdict(content, filter=lambda _, value: value is not None)
    _replace(path, msgspec.json.encode(members) + b"\n")


def _replace(path: Path, data: bytes) -> None:
    # A name that nobody has: with O_EXCL inside, so that a link put there is not followed, and mode 0600.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_control_file(path: Path) -> ControlFile:
    """Read a file that `write_control_file` wrote.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError: it holds something else.

    """
    content = path.read_bytes()
    try:
        return msgspec.json.decode(content, type=ControlFile)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} is not a control file") from error


def remove_control_file(path: Path, content: ControlFile) -> None:
    """Remove the file if it is still that of this server: a later one may have replaced it."""
    with contextlib.suppress(OSError, ValueError):
        found = read_control_file(path)
        if (found.address, found.token, found.pid) == (content.address, content.token, content.pid):
            path.unlink()
