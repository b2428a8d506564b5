"""The directory of one node: whose it is, in what state, and how one is put in the place of another.

A directory is put in another's place in an order of which each step may be interrupted:

1. The new one is made as a whole, durably, as `node-N.new`. As long as the manifest names the old incarnation it
   belongs to nobody, and the next start removes it.
2. The manifest names the new incarnation. From there on the new directory is the node's.
3. The old one is moved aside, and the new one gets the name (`settle`). If that is interrupted, the next start ends it.

So a full disk, for one, is met before anything is moved. A node's directory may be a link to one on another disk: both
the new one and the one that was moved aside lie there, and the link stays as it is.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import attrs

from trio_kv.kv.commands import decode_command as decode_kv_command
from trio_kv.raft.entry import Command
from trio_kv.storage.errors import REBUILD, DamagedError, StorageError
from trio_kv.storage.files import TEMPORARY_SUFFIX, Files
from trio_kv.storage.folders import Folder
from trio_kv.storage.manifest import FORMAT, IDENTITY_NAME, read_json, write_json
from trio_kv.storage.opening import Examination, Opened, open_node
from trio_kv.storage.segments import SEGMENT_BYTES, segment_name, segment_numbers
from trio_kv.storage.snapshot_reading import snapshot_names
from trio_kv.storage.wal import Wal
from trio_kv.wire.frames import SECTOR_BYTES, Identity

REBUILDING_NAME = "rebuilding"
"""Stands in the directory of a node that is rebuilt and does not count yet (see `storage.rebuild`)."""
NEW_SUFFIX = ".new"
"""Of a directory that may become a node's."""

State = Literal["ok", "needs_rebuild", "damaged"]


@attrs.frozen
class NodeDirectory:
    """What was found of one node."""

    identity: Identity
    root: Folder
    """Where its directory stands."""
    name: str
    state: State
    reason: str = ""
    """Why the state isn't ok, for people."""
    segment_bytes: int = SEGMENT_BYTES

    @property
    def path(self) -> Path:
        """How a person finds it."""
        return self.root.path / self.name

    @property
    def way_out(self) -> str:
        """What a person can do if the state isn't ok."""
        return "" if self.state == "ok" else REBUILD

    @property
    def is_rebuilding(self) -> bool:
        """Whether the directory was made anew, and the others have not filled it yet (see `storage.rebuild`)."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self.files() as files:
            return REBUILDING_NAME in files.names()
        return False

    @property
    def incarnation(self) -> int:
        """The node's incarnation, for its messages."""
        return self.identity.incarnation

    @contextlib.contextmanager
    def files(self) -> Iterator[Files]:
        """Give the files in it, to look at or to change a few. Raises OSError."""
        with (
            contextlib.closing(self.root.folder(self.name)) as folder,
            contextlib.closing(folder.files()) as files,
        ):
            yield files

    def open(
        self,
        decode_command: Callable[[bytes], Command] = decode_kv_command,
        on_read: Callable[[], object] | None = None,
    ) -> Opened:
        """Open the node's log and its snapshots. What is returned is durable, and so are the names that lead to it.

        Args:
            decode_command: what turns the bytes of a command into the command.
            on_read: called after each piece that the disk gave.

        Raises:
            DamagedError: what is there can't be believed.
            GoneError: the directory, or the one that it stands in, was moved away.
            OSError: the disk refused.

        """
        if self.state != "ok":
            # It was in order when it was looked at first, and is not any more.
            raise DamagedError(str(self.path), 0, self.reason)
        with contextlib.closing(self.root.folder(self.name)) as folder, contextlib.ExitStack() as undo:
            folder.check_here()
            folder.sync_above()
            # Two views of the directory: the disk's two threads use one each.
            log_files = undo.enter_context(contextlib.closing(folder.files()))
            snapshot_files = undo.enter_context(contextlib.closing(folder.files()))
            # Whoever made this file may have died before its name was durable; `open_node` sees to the others.
            log_files.sync(IDENTITY_NAME)
            log_files.on_read = on_read
            opened = open_node(
                log_files,
                snapshot_files,
                self.identity,
                segment_bytes=self.segment_bytes,
                decode_command=decode_command,
            )
            log_files.on_read = None
            undo.pop_all()
            return attrs.evolve(opened, place=folder.place)

    def sizes(self) -> tuple[int, int]:
        """Return how many bytes its largest snapshot has, and how many its log, or 0. Raises OSError."""
        if self.state != "ok":
            return 0, 0
        with self.files() as files:
            names = files.names()
            snapshots = [files.size(name) for name in snapshot_names(names)]
            return max(snapshots, default=0), sum(files.size(segment_name(n)) for n in segment_numbers(names))

    def check_sound(self) -> None:
        """Read all that a start would read; return if the node would start with all of its data.

        Raises:
            StorageError: it would not.
            OSError: the disk refused.

        """
        if self.state != "ok":
            raise StorageError(self.reason, self.way_out)
        if self.is_rebuilding:
            raise StorageError("it is being rebuilt, and has not all of its data yet", "Wait for that.")
        with self.files() as files:
            Examination(files, self.identity).run()


def node_name(node: int) -> str:
    """Return the name of a node's directory."""
    return f"node-{node}"


def examine(root: Folder, name: str, identity: Identity, *, segment_bytes: int) -> NodeDirectory:
    """Look at a directory that should be this node's. Raises OSError."""
    state, reason = _examine(root, name, identity)
    return NodeDirectory(identity, root, name, state, reason, segment_bytes)


def _examine(root: Folder, name: str, identity: Identity) -> tuple[State, str]:
    path = root.path / name
    try:
        folder = root.folder(name)
    except (FileNotFoundError, NotADirectoryError):
        return "needs_rebuild", f"its directory {path} is missing"
    with contextlib.closing(folder), contextlib.closing(folder.files()) as files:
        if not segment_numbers(files.names()):
            return "needs_rebuild", f"its directory {path} holds no log"
        try:
            found = read_json(files, IDENTITY_NAME, Identity)
        except StorageError as error:
            return "damaged", error.message
    if found != identity:
        return "damaged", f"its directory {path} belongs to {found}, not to {identity}"
    return "ok", ""


def make_node(
    root: Folder, name: str, identity: Identity, *, segment_bytes: int, is_rebuilding: bool = False
) -> None:
    """Make a node's directory with an empty log, in place of what an interrupted call left. Raises OSError.

    All of it is durable but the directory's name.
    """
    with contextlib.closing(root.make(name)) as folder, contextlib.closing(folder.files()) as files:
        for each in files.names():
            if each.endswith(TEMPORARY_SUFFIX) or segment_numbers([each]):
                files.delete(each)
        if is_rebuilding:
            write_json(files, REBUILDING_NAME, {"since": identity.incarnation})
        write_json(files, IDENTITY_NAME, {"format": FORMAT, **attrs.asdict(identity)})
        Wal.create(files, identity, segment_bytes=segment_bytes).close()


def is_written(root: Folder, name: str) -> bool:
    """Return whether there is a directory with a log that was ever written to, or may have been. Raises OSError."""
    try:
        folder = root.folder(name)
    except (FileNotFoundError, NotADirectoryError):
        return False
    with contextlib.closing(folder), contextlib.closing(folder.files()) as files:
        names = files.names()
        numbers = segment_numbers(names)
        if numbers in ([], [1]) and not snapshot_names(names):
            return any(files.read(segment_name(number))[SECTOR_BYTES:].strip(b"\0") for number in numbers)
    return True


def settle(root: Folder, identity: Identity, replaced: int | None = None) -> Path | None:
    """Let a directory that was made to be this node's be it; remove one that was not.

    Args:
        root: where the node's directory stands.
        identity: the node's, as a durable manifest has it.
        replaced: the incarnation whose directory makes way, if that is known.

    Returns:
        where the old directory was moved, if there was one.

    Raises:
        StorageError: the directory can't be moved.
        OSError: the disk refused.

    """
    name = node_name(identity.node)
    with root.home(name) as (home, at):
        new = at + NEW_SUFFIX
        if new not in home.names():
            return None
        if _examine(home, new, identity)[0] != "ok":
            home.remove(new)
            return None
        aside: str | None = None
        if at in home.names():
            aside = f"{at}.replaced-{replaced or _incarnation(home, at):x}"
            while aside in home.names():
                aside += "x"
            home.rename(at, aside)
        home.rename(new, at)
        home.sync()
        return None if aside is None else home.path / aside


def _incarnation(home: Folder, name: str) -> int:
    with (
        contextlib.suppress(StorageError, OSError),
        contextlib.closing(home.folder(name)) as folder,
        contextlib.closing(folder.files()) as files,
    ):
        return read_json(files, IDENTITY_NAME, Identity).incarnation
    return 0
