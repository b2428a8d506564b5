"""What is locked and used is the directory, and not a name: cleaners, movers and second servers don't mix it up."""

import errno
import fcntl
import os
import shutil
from pathlib import Path
from random import Random

import pytest

from trio_kv.control.token import kept_from_cleaners
from trio_kv.raft.entry import make_entry
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.storage.data_directory import DataDirectory, open_data_directory
from trio_kv.storage.errors import GoneError, LockedError, StorageError
from trio_kv.storage.files import RealFiles
from trio_kv.storage.inspect import verify
from trio_kv.storage.manifest import MANIFEST_NAME
from trio_kv.storage.node_directory import NodeDirectory
from trio_kv.storage.rebuild import end_rebuild, rebuild_node

SEGMENT_BYTES = 4096
SEGMENT = "wal-0000000000000001.log"


def start(path: Path, nodes: int | None = None, *, seed: int = 3, is_synced: bool = False) -> DataDirectory:
    return open_data_directory(
        path, nodes=nodes, random=Random(seed), segment_bytes=SEGMENT_BYTES, is_synced=is_synced
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory of three nodes, each of which wrote something."""
    with start(tmp_path / "data", 3) as directory:
        for node in directory.nodes:
            opened = directory.node(node).open()
            opened.wal.append([Write(Ticket(1, 1, 1), HardState(1, 1), None, (make_entry(1, 1, 0, None),))])
            opened.close()
    return tmp_path / "data"


def tree(path: Path) -> dict[str, bytes]:
    """Return all files, but for the one that tells who holds the lock."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name != "lock"
    }


# The lock


def test_the_lock_is_not_the_file(data: Path) -> None:
    """Without the lock's file a second server is refused all the same, and makes no file; so is who only looks."""
    with start(data):
        (data / "lock").unlink()
        with pytest.raises(LockedError, match="in use by another process"):
            start(data)
        with pytest.raises(LockedError):
            verify(data)
        assert not (data / "lock").exists()
    start(data).close()


def test_who_locks_the_file_alone_is_heeded(data: Path) -> None:
    """An older version locks the file and nothing else: it keeps newer ones out, too."""
    with (data / "lock").open("r+b") as older:
        older.write(b"4711\n")
        older.flush()
        fcntl.flock(older, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="in use by process 4711"):
            start(data)
        with pytest.raises(LockedError):
            verify(data)
    start(data).close()


def test_a_file_system_without_locks_is_refused_in_words(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a directory can't be locked, two servers could use it: it is said, and nothing is changed."""
    before = tree(data)

    def flock(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError, match="can't be locked: Operation not supported") as caught:
        start(data)
    assert "local disk" in caught.value.way_out
    assert tree(data) == before


@pytest.mark.parametrize("is_there", [True, False])
def test_a_full_disk_does_not_keep_a_store_from_starting(
    data: Path, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process id is for people: a start does without it, and without the file."""
    if not is_there:
        (data / "lock").unlink()
    real = os.open

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def open_full(path: str | Path, flags: int, *arguments: object, **named: object) -> int:
        if path == "lock" and flags & os.O_CREAT and not is_there:
            full()
        return real(path, flags, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", open_full)
    monkeypatch.setattr(os, "pwrite", full)
    with start(data) as directory:
        assert [directory.node(node).state for node in directory.nodes] == ["ok"] * 3
        with pytest.raises(LockedError):
            start(data)


# The place


@pytest.mark.parametrize("what", ["moved", "replaced", "removed"])
def test_nothing_is_made_in_a_directory_that_is_gone(tmp_path: Path, what: str) -> None:
    """Before a file is made it is looked at whether it would be found again; what is open stays what it was."""
    path = tmp_path / "node"
    path.mkdir()
    files = RealFiles(path)
    files.create("a", 512)
    files.write("a", 0, b"before")
    if what == "removed":
        shutil.rmtree(path)
    else:
        path.rename(tmp_path / "old")
    if what == "replaced":
        path.mkdir()
        (path / "a").write_bytes(bytes(512))
    for make in (files.begin, lambda name: files.create(name, 512)):
        with pytest.raises(
            GoneError, match="another directory" if what == "replaced" else "moved away or removed"
        ):
            make("b")
    files.write("a", 6, b"after")
    files.sync("a")
    files.close()
    if what != "removed":
        assert (tmp_path / "old" / "a").read_bytes().startswith(b"beforeafter")
        assert sorted(file.name for file in (tmp_path / "old").iterdir()) == ["a"]
    if what == "replaced":
        assert (path / "a").read_bytes() == bytes(512)


def test_going_elsewhere_moves_no_directory(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that changes its working directory keeps the store that it opened by a relative path."""
    monkeypatch.chdir(data.parent)
    with start(Path("data")) as directory:
        monkeypatch.chdir("/")
        opened = directory.node(1).open()
        opened.wal.prepare()
        opened.close()
    assert (data / "node-1" / "wal-0000000000000002.log").exists()


def test_a_server_keeps_to_the_directory_that_it_opened(data: Path) -> None:
    """Another one in its place is not written to, and a node of the one that was moved does not start."""
    directory = start(data)
    opened = directory.node(1).open()
    data.rename(data.with_name("old"))
    with start(data, 3, seed=5) as other:
        before = tree(data)
        opened.wal.append([Write(Ticket(1, 1, 2), HardState(2, 1))])
        with pytest.raises(GoneError):
            opened.wal.prepare()
        with pytest.raises(GoneError):
            directory.node(2).open()
        with pytest.raises(StorageError, match="can't be rebuilt"):
            rebuild_node(directory, 2, Random(1))
        assert tree(data) == before
        assert other.cluster != directory.cluster
    opened.close()
    directory.close()
    with start(data.with_name("old")) as directory:
        assert directory.node(1).open().recovered.hard_state == HardState(2, 1)


def test_the_names_that_lead_there_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who made the directory may have died before its name was durable: each start syncs it, and those above it."""
    synced: set[int] = set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    data = tmp_path / "a" / "b" / "data"
    for _ in range(2):
        synced.clear()
        with start(data, 1, is_synced=True) as directory:
            opened = directory.node(1).open()
            opened.close()
        for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b", data, data / "node-1"):
            assert path.stat().st_ino in synced, path


def test_other_peoples_temporary_files_stay(tmp_path: Path) -> None:
    """Of what an interrupted step left all goes at the next start; what never was ours does not."""
    left = ["manifest.json.tmp", "unfinished.tmp", "node-1/identity.json.tmp", "node-1/rebuilding.tmp"]
    (tmp_path / "thesis.tmp").touch()
    start(tmp_path, 1).close()
    for name in (*left, f"node-1/{SEGMENT}.tmp"):
        (tmp_path / name).touch()
    with start(tmp_path) as directory:
        directory.node(1).open().close()
    assert [file.name for file in tmp_path.rglob("*.tmp")] == ["thesis.tmp"]


def test_an_error_of_the_disk_is_no_damage(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be read just now may be in order: only what was read, and is wrong, is damaged."""

    def read(self: RealFiles, name: str) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with start(data) as directory, monkeypatch.context() as patch:
        patch.setattr(RealFiles, "read", read)
        with pytest.raises(OSError, match="Input/output"):
            directory.node(1)
    assert states(data)[1] == "ok"


def test_what_merely_looks_like_a_node(tmp_path: Path) -> None:
    """A file, or a link to nothing, holds no log that somebody could miss: the first start goes on."""
    (tmp_path / "node-notes").touch()
    (tmp_path / "node-old").symlink_to(tmp_path / "nowhere")
    start(tmp_path, 1).close()
    assert states(tmp_path) == {1: "ok"}


# Rebuilding


def rebuild(data: Path, node: int = 2) -> Path | None:
    with start(data) as directory:
        return rebuild_node(directory, node, Random(4))


def linked(data: Path, node: int = 2) -> Path:
    """Put a node's directory on a disk of its own; return where it is."""
    disk = data.parent / "disk"
    disk.mkdir()
    (data / f"node-{node}").rename(disk / "here")
    (data / f"node-{node}").symlink_to(disk / "here")
    return disk / "here"


def states(data: Path) -> dict[int, str]:
    with start(data) as directory:
        for node in directory.nodes:
            directory.settle(node)
        return {node: directory.node(node).state for node in directory.nodes}


def test_a_linked_directory_is_replaced_where_it_lies(data: Path) -> None:
    """The new directory and the old one are on the node's own disk, and the link is as it was."""
    here = linked(data)
    old = tree(here)
    aside = rebuild(data)
    assert aside is not None
    assert aside.parent == here.parent
    assert tree(aside) == old
    assert (data / "node-2").readlink() == here
    assert (here / "rebuilding").exists()
    assert states(data) == {1: "ok", 2: "ok", 3: "ok"}
    with start(data) as directory:
        end_rebuild(directory.node(2))
        assert not (here / "rebuilding").exists()


def test_a_link_to_nothing(data: Path) -> None:
    """What the link leads to is made anew on its disk; if the disk is not there, that is said."""
    here = linked(data)
    shutil.rmtree(here)
    assert rebuild(data) is None
    assert states(data)[2] == "ok"
    shutil.rmtree(here.parent)
    with pytest.raises(StorageError, match=r"is a link to .*, and there is no") as caught:
        rebuild(data)
    assert "Bring back the disk" in caught.value.way_out
    assert (data / "node-2").is_symlink()


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_rebuild_that_died_behind_its_manifest_is_ended_by_the_next_start(
    data: Path, is_linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the manifest on the new directory is the node's: `verify` says so, and a start puts it in its place."""
    if is_linked:
        linked(data)

    def die(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("trio_kv.storage.data_directory.settle", die)
        with pytest.raises(RuntimeError):
            rebuild(data)
    if not is_linked:
        assert [node.state for node in verify(data).nodes] == ["sound"] * 3
    assert states(data) == {1: "ok", 2: "ok", 3: "ok"}
    assert (data / "node-2" / "rebuilding").exists()
    assert not list(data.parent.rglob("*.new"))


def test_a_node_is_sound_by_its_log(data: Path) -> None:
    """Damage that only reading finds counts: the one other node with all of the data keeps its directory."""
    with (data / "node-1" / SEGMENT).open("r+b") as segment:
        segment.seek(600)
        segment.write(b"\xff\xfe")
    before = tree(data)
    with pytest.raises(
        StorageError, match="takes 2 other nodes that have all of their data, and 1 of 2"
    ) as caught:
        rebuild(data, 3)
    assert "Node 1:" in caught.value.message
    assert "is damaged at byte" in caught.value.message
    assert tree(data) == before
    assert rebuild(data, 1) is not None


def test_a_node_that_runs_was_read_already(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files change while they would be read, and its disk may hang: it counts as it runs."""
    looked: list[int] = []
    check = NodeDirectory.check_sound

    def check_sound(self: NodeDirectory) -> None:
        looked.append(self.identity.node)
        check(self)

    monkeypatch.setattr(NodeDirectory, "check_sound", check_sound)
    with start(data) as directory:
        rebuild_node(directory, 3, Random(4), running=(1,))
        assert looked == [2]
        with pytest.raises(StorageError, match="Node 3: it is being rebuilt"):
            rebuild_node(directory, 2, Random(4), running=(1,))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_rebuild_that_the_disk_refuses_changes_nothing(
    data: Path, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file can't be made: the old directory is where it was, and the message says what to do."""
    real = RealFiles.create
    left = 0

    def create(self: RealFiles, *arguments: object, **named: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(error, os.strerror(error))
        real(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(RealFiles, "create", create)
    before = tree(data)
    for files in range(4):
        left = files
        with pytest.raises(StorageError, match="can be made" if error == errno.EIO else "there is no room"):
            rebuild(data)
        assert tree(data) == before
    left = 4
    assert rebuild(data) is not None
    assert (data / MANIFEST_NAME).read_bytes() != before[MANIFEST_NAME]


# Cleaners


def is_kept(directory: Path) -> bool:
    """Return whether systemd-tmpfiles would leave a directory alone: it tries to lock it alone."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_cleaners_of_old_files_leave_our_directories_alone(data: Path, tmp_path: Path) -> None:
    """A data directory is locked as long as it is open, and the one for control files by all servers together."""
    with start(data):
        assert is_kept(data)
    assert not is_kept(data)
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    with kept_from_cleaners(runtime):
        with kept_from_cleaners(runtime):
            assert is_kept(runtime)
        assert is_kept(runtime)
    assert not is_kept(runtime)
    with kept_from_cleaners(tmp_path / "nowhere"):
        pass
