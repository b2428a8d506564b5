"""A new cluster out of a snapshot's file: the same content under new names, or nothing at all."""

import base64
import contextlib
import shutil
from pathlib import Path
from random import Random

import msgspec
import pytest

from trio_kv.kv import commands
from trio_kv.kv.commands import OpenSession
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Delete, Set
from trio_kv.kv.reply import Reply
from trio_kv.kv.restorer import Restorer
from trio_kv.raft.entry import Entry, make_entry
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.storage.data_directory import DataDirectory, open_data_directory
from trio_kv.storage.errors import DamagedError, LockedError, ManifestError
from trio_kv.storage.files import RealFiles
from trio_kv.storage.opening import Opened
from trio_kv.storage.restore import REVISIONS_SKIPPED, SnapshotContent, check_snapshot, restore
from trio_kv.storage.snapshot_reading import snapshot_name
from trio_kv.storage.snapshots import SnapshotStore
from trio_kv.wire.frames import Base, Identity
from trio_kv.wire.snapshot_file import FRAME_HEADER_BYTES, HEADER_BYTES

SEGMENT_BYTES = 4096
TERM = 7
BACKUP_OF_VERSION_1 = """
a3Zfc25hcAoBAAAAoHMCWRYV7NTD777EplMHAQIAAAAo59HM9BAAAAoAAAAAAAAAAQAAAAAAAAAHSETBMHw1G0qtmmLEAAAAAAAAAAF7ImZvcm1h
dCI6InRyaW9fa3Ygc3RhdGUiLCJ2ZXJzaW9uIjoyLCJoZWFkIjp7ImFwcGxpZWQiOjEwLCJhcHBsaWVkX3Rlcm0iOjEsInRpbWVfdXMiOjgxMjI4
MzgsImVudHJpZXNfZGlnZXN0IjozNzU5OTUxOTA0LCJzdGF0ZV9kaWdlc3QiOjEwNTY2NTUwMTN9LCJjb3VudHMiOnsic2Vzc2lvbnMiOjEsInJl
cGxpZXMiOjEsIml0ZW1zIjo0fX0KptGZWgXeJwIyAAAAAQAAAAF7ImNodW5rIjoxLCJzZXNzaW9ucyI6W1syLDEwMDAwMDAwMDAsODEyMjgzOCw4
XV19CsCM1H4fxFzsdgAAAAIAAAABeyJjaHVuayI6MiwiaXRlbXMiOltbInNuYWNrIiwiY2hpcHMiLDNdLFsibnVtYmVyIiwxLjEwLDRdLFsiY2zD
qSIseyJiIjogWzEsIG51bGxdLCAiYSI6ICLDqSJ9LDVdLFsibG9jayIsImNhcm9sIiw4XV19CvyDyrp+D0sWOQAAAAMAAAABeyJjaHVuayI6Mywi
cmVwbGllcyI6W1syLDgsIm9rIiwxLHRydWUsMTAsIiIsImdvbmUiLDldXX0KZE8JI/WSC7UIAAAABAAAAAKlAQAAAAAAAA==
"""
"""A backup, in base64, that the program took whose logs had format 1, after a server with three nodes was asked to::

    set snack chips; set number 1.10; set clé '{"b": [1, null], "a": "é"}'
    cas lock alice; cas lock bob (which is refused); set lock carol; set gone 1; delete gone
"""
IDENTITY = Identity("c0ffee" * 5 + "42", 2, 123456789)


def set_entry(index: int, term: int = TERM) -> Entry:
    raw = msgspec.Raw(msgspec.json.encode("x" * 100))
    return make_entry(index, term, index * 10, commands.Write(1, index, index, Set(f"key{index}", raw)))


def make_machine(keys: int) -> Machine:
    machine = Machine()
    machine.apply([make_entry(1, TERM, 0, OpenSession(1_000_000))])
    machine.apply([set_entry(index) for index in range(2, keys + 2)])
    return machine


def write_snapshot(path: Path, chunks: list[bytes], index: int, term: int = TERM) -> Path:
    """Write the file of a snapshot, and return where it is."""
    path.mkdir(exist_ok=True)
    writer = SnapshotStore(RealFiles(path, is_synced=False), IDENTITY).begin(index, term)
    for number, chunk in enumerate(chunks):
        writer.add(number, chunk)
    return path / writer.finish().name


def make_snapshot(path: Path, keys: int = 3) -> tuple[Path, Machine]:
    machine = make_machine(keys)
    return write_snapshot(path, list(machine.freeze().chunks()), machine.applied), machine


def restore_to(source: Path, target: Path, nodes: int = 3, **options: object) -> SnapshotContent:
    return restore(
        source,
        target,
        nodes=nodes,
        random=Random(1),
        segment_bytes=SEGMENT_BYTES,
        is_synced=False,
        **options,  # type: ignore[arg-type]
    )


def open_directory(path: Path, nodes: int | None = None) -> DataDirectory:
    return open_data_directory(
        path, nodes=nodes, random=Random(2), segment_bytes=SEGMENT_BYTES, is_synced=False
    )


def read_machine(opened: Opened) -> Machine:
    restorer = Restorer()
    assert opened.recovered.snapshot is not None
    for chunk in opened.snapshots.chunks(opened.recovered.snapshot):
        restorer.feed(chunk)
    return restorer.finish()


def tree(path: Path) -> dict[str, bytes]:
    """Return what lies in a directory, but for the lock."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "lock"
    }


@pytest.mark.parametrize("nodes", [1, 3, 9])
def test_every_node_starts_from_the_snapshot(tmp_path: Path, nodes: int) -> None:
    """Each node holds the state machine as it was, its log begins behind that, and it is in the snapshot's term."""
    source, machine = make_snapshot(tmp_path / "old", keys=40)
    content = restore_to(source.rename(tmp_path / "any name"), tmp_path / "a" / "new", nodes)
    assert (content.index, content.term, content.keys, content.sessions) == (41, TERM, 40, 1)
    with open_directory(tmp_path / "a" / "new", nodes) as directory:
        assert directory.nodes == tuple(range(1, nodes + 1))
        for node in directory.nodes:
            with contextlib.closing(directory.node(node).open()) as opened:
                assert opened.recovered.hard_state == HardState(TERM, None)
                assert (opened.recovered.base, opened.recovered.entries) == (
                    Base(REVISIONS_SKIPPED + 41, TERM),
                    [],
                )
                restored = read_machine(opened)
            assert restored.state_digest == machine.state_digest
            assert restored.entries_digest == machine.entries_digest
            assert restored.applied == machine.applied + REVISIONS_SKIPPED
            assert restored.time_us == machine.time_us
            assert restored.items == machine.items


def test_a_backup_of_format_1_is_the_way_over(tmp_path: Path) -> None:
    """A new cluster is made of what the last version with another log backed up, with every digit and every answer."""
    source = tmp_path / "backup.snap"
    source.write_bytes(base64.b64decode(BACKUP_OF_VERSION_1))
    assert restore_to(source, tmp_path / "data").keys == 4
    with (
        open_directory(tmp_path / "data") as directory,
        contextlib.closing(directory.node(2).open()) as opened,
    ):
        machine = read_machine(opened)
    assert {key: bytes(item.value).decode() for key, item in machine.items.items()} == {
        "snack": '"chips"',
        "number": "1.10",
        "clé": '{"b": [1, null], "a": "é"}',
        "lock": '"carol"',
    }
    ((session, kept),) = machine.sessions
    ((seq, answer),) = kept.replies.items()
    assert answer == Reply("ok", msgspec.Raw(b"1"), 10)
    again = make_entry(
        machine.applied + 1, 9, machine.time_us, commands.Write(session, seq, 0, Delete("gone"))
    )
    assert machine.apply([again]) == [answer], "it took effect before the backup"


def test_the_new_cluster_is_another_one(tmp_path: Path) -> None:
    """Its id, and with it every file, is its own: two that were restored from one backup are never mixed up."""
    source, _ = make_snapshot(tmp_path / "old")
    restore_to(source, tmp_path / "new")
    restore(source, tmp_path / "other", nodes=3, random=Random(5), segment_bytes=SEGMENT_BYTES)
    with open_directory(tmp_path / "new") as new, open_directory(tmp_path / "other") as other:
        assert len({new.cluster, other.cluster, IDENTITY.cluster}) == 3
        name = snapshot_name(REVISIONS_SKIPPED + 4, TERM)
        shutil.copy(other.node(1).path / name, new.node(1).path / name)
        with pytest.raises(DamagedError, match="belongs to"):
            new.node(1).open()


def test_the_log_goes_on_after_the_snapshot(tmp_path: Path) -> None:
    """What is written then has revisions far above all of the old cluster, and is there after a restart."""
    source, _ = make_snapshot(tmp_path / "old")
    next_index = REVISIONS_SKIPPED + 5
    restore_to(source, tmp_path / "new")
    with open_directory(tmp_path / "new") as directory:
        with contextlib.closing(directory.node(2).open()) as opened:
            opened.wal.append(
                [
                    Write(
                        Ticket(1, TERM + 1, next_index),
                        HardState(TERM + 1, 2),
                        None,
                        (set_entry(next_index, TERM + 1),),
                    )
                ]
            )
        with contextlib.closing(directory.node(2).open()) as opened:
            assert [entry.index for entry in opened.recovered.entries] == [next_index]
            assert opened.recovered.base == Base(next_index - 1, TERM)


@pytest.mark.parametrize("content", ["a cluster", "a file", "an own file", "a directory"])
def test_a_directory_that_is_not_empty_is_refused(tmp_path: Path, content: str) -> None:
    """Nothing is ever restored over something: what is there stays as it is, to the byte."""
    source, _ = make_snapshot(tmp_path / "old")
    target = tmp_path / "target"
    target.mkdir()
    if content == "a cluster":
        open_directory(target, 3).close()
    elif content == "a directory":
        (target / "node-1").mkdir()
    else:
        (target / ("manifest.json" if content == "an own file" else "notes")).write_text("mine")
    before = tree(target)
    with pytest.raises(ManifestError, match="is not empty"):
        restore_to(source, target)
    assert tree(target) == before
    assert content == "a cluster" or not (target / "lock").exists()


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    """A new file system is empty, but for its lost+found; so is a directory in which a server was refused."""
    source, _ = make_snapshot(tmp_path / "old")
    target = tmp_path / "target"
    (target / "lost+found").mkdir(parents=True)
    (target / "lock").touch()
    restore_to(source, target)
    open_directory(target).close()


def test_two_restores_at_once(tmp_path: Path) -> None:
    """The second one is refused while the first one works."""
    source, _ = make_snapshot(tmp_path / "old")
    refused = []

    def on_progress(step: str, _done: int, _total: int) -> None:
        if step == "copy":
            with pytest.raises(LockedError):
                restore_to(source, tmp_path / "new")
            refused.append(step)

    restore_to(source, tmp_path / "new", on_progress=on_progress)
    assert refused


def test_every_flipped_or_missing_byte_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged file is refused, by name and the byte at or before the damage, and nothing is made of it."""
    source, _ = make_snapshot(tmp_path / "old")
    data = source.read_bytes()
    damaged = tmp_path / "damaged.snap"
    for place in range(len(data)):
        damaged.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        with pytest.raises(DamagedError) as caught:
            restore_to(damaged, tmp_path / "new")
        assert caught.value.file == str(damaged)
        assert caught.value.offset <= place
        damaged.write_bytes(data[:place])
        with pytest.raises(DamagedError):
            restore_to(damaged, tmp_path / "new")
    damaged.write_bytes(data + b"\0")
    with pytest.raises(DamagedError, match="behind the end"):
        restore_to(damaged, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with capsys.disabled():
        print(f" {2 * len(data) + 1} cases", end="")  # noqa: T201 - how much was tried is part of the claim


def test_a_damaged_chunk_is_named_with_a_way_out(tmp_path: Path) -> None:
    """The message tells the chunk and its byte, and does not send anybody to rebuild a backup from other nodes."""
    source, _ = make_snapshot(tmp_path / "old", keys=40)
    first = next(make_machine(40).freeze().chunks())
    second_at = HEADER_BYTES + FRAME_HEADER_BYTES + len(first)
    data = bytearray(source.read_bytes())
    data[second_at + FRAME_HEADER_BYTES + 5] ^= 1
    source.write_bytes(data)
    with pytest.raises(DamagedError) as caught:
        check_snapshot(source, lambda *_: None)
    assert caught.value.offset == second_at
    assert "frame 1" in caught.value.reason
    assert "another backup" in caught.value.way_out


def test_what_is_no_snapshot_at_all_is_told_so(tmp_path: Path) -> None:
    """A file of something else is refused with the question whether it is a backup; a missing one by the system."""
    (tmp_path / "notes").write_text("remember the milk" * 100)
    with pytest.raises(DamagedError, match="is it a backup"):
        restore_to(tmp_path / "notes", tmp_path / "new")
    with pytest.raises(FileNotFoundError):
        restore_to(tmp_path / "nothing", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_file_whose_checks_are_right_must_also_tell_the_truth(tmp_path: Path) -> None:
    """Chunks that are missing, twice there, or of another state are refused though every check is right."""
    machine = make_machine(2000)
    chunks = list(machine.freeze().chunks())
    applied = machine.applied
    assert len(chunks) > 3
    liars = {
        "should hold": (chunks[:-1], applied),
        "says that it is chunk 2": ([chunks[0], *chunks[2:]], applied),
        "says that it is chunk 1": ([*chunks, chunks[1]], applied),
        "holds the state at": (chunks, applied + 1),
        "holds no chunk": ([], applied),
        "chunk 1": ([chunks[0], b"nonsense", *chunks[2:]], applied),
    }
    for number, (reason, (told, index)) in enumerate(liars.items()):
        source = write_snapshot(tmp_path / f"liar{number}", told, index)
        with pytest.raises(DamagedError, match=reason):
            restore_to(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_killed_at_any_step(tmp_path: Path) -> None:
    """Whatever a kill leaves behind is a whole cluster, or is never started as one and makes way for the next try."""
    source, machine = make_snapshot(tmp_path / "old")
    target = tmp_path / "new"
    copies: list[Path] = []

    def on_progress(*_: object) -> None:
        if target.exists():
            copies.append(shutil.copytree(target, tmp_path / f"copy{len(copies)}"))

    restore_to(source, target, on_progress=on_progress)
    is_whole = [(copy / "manifest.json").exists() for copy in copies]
    assert sorted(is_whole) == is_whole, "a manifest was there and went away"
    assert {True, False} == set(is_whole)
    for copy in copies:
        if not (copy / "manifest.json").exists():
            with pytest.raises(ManifestError, match="Restore into it again"):
                open_directory(copy)
            restore_to(source, copy)
        with open_directory(copy) as directory, contextlib.closing(directory.node(3).open()) as opened:
            assert read_machine(opened).items == machine.items


def test_an_error_on_the_way_leaves_nothing_behind(tmp_path: Path) -> None:
    """A full disk, say, at any step: what was made is removed, and the same call works once there is room."""
    source, _ = make_snapshot(tmp_path / "old")
    for fatal in ("copy", "sync"):

        def on_progress(step: str, _done: int, _total: int, fatal: str = fatal) -> None:
            if step == fatal:
                raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            restore_to(source, tmp_path / "new", on_progress=on_progress)
        assert tree(tmp_path / "new") == {}
    restore_to(source, tmp_path / "new")


def test_a_mark_that_was_left_beside_a_manifest_does_no_harm(tmp_path: Path) -> None:
    """A kill right after the manifest leaves the mark: the cluster is whole, is started, and can't be restored over."""
    source, _ = make_snapshot(tmp_path / "old")
    restore_to(source, tmp_path / "new")
    (tmp_path / "new" / "unfinished").touch()
    with pytest.raises(ManifestError, match="is not empty"):
        restore_to(source, tmp_path / "new")
    open_directory(tmp_path / "new").close()
    assert not (tmp_path / "new" / "unfinished").exists()


def test_no_cluster_has_so_many_nodes(tmp_path: Path) -> None:
    """The number of nodes is checked before anything is made."""
    source, _ = make_snapshot(tmp_path / "old")
    with pytest.raises(ValueError, match="1 to 9"):
        restore_to(source, tmp_path / "new", nodes=10)
    assert not (tmp_path / "new").exists()
