"""`backup`, `restore` and `rebuild` on the command line: what is made, what is refused, what is said."""

import errno
import io
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from trio_kv.cli import backup as backup_module
from trio_kv.cli import progress
from trio_kv.cli.main import main
from trio_kv.cli.new_file import open_new_file
from trio_kv.cli.output import show_key
from trio_kv.cli.shell_words import Arguments
from trio_kv.client import control
from trio_kv.client.control import Door, NoDoorError
from trio_kv.kv.commands import OpenSession, Write
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Set
from trio_kv.raft.entry import make_entry
from trio_kv.storage.data_directory import open_data_directory
from trio_kv.storage.files import RealFiles
from trio_kv.storage.restore import check_snapshot
from trio_kv.storage.snapshots import SnapshotStore
from trio_kv.wire.frames import Identity

IDENTITY = Identity("c0ffee" * 5 + "42", 2, 123456789)
Serve = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DATA_DIR", "NODES", "OUTPUT", "TIMEOUT", "CONTROL_PORT"):
        monkeypatch.delenv(f"TRIO_KV_{name}", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Return the file of a snapshot of three keys, as a node keeps it."""
    machine = Machine()
    machine.apply([make_entry(1, 4, 0, OpenSession(1_000_000))])
    for index in (2, 3, 4):
        operation = Set(f"k{index}", msgspec.Raw(b'"v"'), ttl=1.5 if index == 4 else UNSET)
        machine.apply([make_entry(index, 4, index, Write(1, index, index, operation))])
    (tmp_path / "node-2").mkdir()
    writer = SnapshotStore(RealFiles(tmp_path / "node-2", is_synced=False), IDENTITY).begin(4, 4)
    for number, chunk in enumerate(machine.freeze().chunks()):
        writer.add(number, chunk)
    return tmp_path / "node-2" / writer.finish().name


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Return what lets a server answer `backup` with these paths, one after the other, and counts the questions."""

    def start(*paths: Path) -> list[str]:
        asked: list[str] = []

        def command(
            door: Door, name: str, arguments: object, *, timeout_s: float, tls: object
        ) -> dict[str, object]:
            asked.append(name)
            path = paths[min(len(asked), len(paths)) - 1]
            return {"id": 1, "status": "ok", "path": str(path), "index": 4, "term": 4}

        monkeypatch.setattr(control, "find_door", lambda *_: Door("127.0.0.1:1", "secret", 1))
        monkeypatch.setattr(control, "command", command)
        return asked

    return start


def names(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()} - {"node-2"}


def test_backup_copies_a_fresh_snapshot(
    serve: Serve, snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The copy is the snapshot to the byte, for its owner's eyes, and the output tells what is in it."""
    asked = serve(snapshot)
    assert main(["backup", "b.snap"]) == 0
    assert asked == ["backup"]
    assert (tmp_path / "b.snap").read_bytes() == snapshot.read_bytes()
    assert stat.S_IMODE((tmp_path / "b.snap").stat().st_mode) == 0o600
    size = len(snapshot.read_bytes())
    shown = capsys.readouterr()
    assert shown.out == f"b.snap: everything up to entry 4 of term 4, 3 keys, {size} bytes\n"
    assert shown.err == ""
    assert names(tmp_path) == {"b.snap"}


def test_backup_as_json(serve: Serve, snapshot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--output json` tells file, index, term, keys and size."""
    serve(snapshot)
    assert main(["backup", "b.snap", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    size = snapshot.stat().st_size
    assert told == {"file": "b.snap", "index": 4, "term": 4, "keys": 3, "bytes": size}


def test_backup_does_not_overwrite(
    serve: Serve, snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is there stays, and the cluster isn't even asked, unless `--force` is said."""
    asked = serve(snapshot)
    (tmp_path / "b.snap").write_text("precious")
    assert main(["backup", "b.snap"]) == 1
    assert "--force" in capsys.readouterr().err
    assert asked == []
    assert (tmp_path / "b.snap").read_text() == "precious"
    assert main(["backup", "b.snap", "--force"]) == 0
    assert (tmp_path / "b.snap").read_bytes() == snapshot.read_bytes()


def test_backup_asks_again_when_the_snapshot_is_gone(serve: Serve, snapshot: Path, tmp_path: Path) -> None:
    """A newer snapshot may have replaced the one that was named: then there is a newer one to be had."""
    asked = serve(tmp_path / "gone.snap", snapshot)
    assert main(["backup", "b.snap"]) == 0
    assert len(asked) == 2


def test_backup_gives_up_in_the_end(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A snapshot that is always gone is told, and nothing is left."""
    serve(tmp_path / "gone.snap")
    assert main(["backup", "b.snap"]) == 1
    assert "gone 5 times" in capsys.readouterr().err
    assert names(tmp_path) == set()


def test_backup_of_a_damaged_snapshot_is_refused(
    serve: Serve, snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy that does not check is removed, the old backup stays, and the byte is named."""
    serve(snapshot)
    data = bytearray(snapshot.read_bytes())
    data[-40] ^= 1
    snapshot.write_bytes(data)
    (tmp_path / "b.snap").write_text("the one of yesterday")
    assert main(["backup", "b.snap", "--force"]) == 1
    shown = capsys.readouterr().err
    assert str(snapshot) in shown
    assert "damaged at byte" in shown
    assert (tmp_path / "b.snap").read_text() == "the one of yesterday"
    assert names(tmp_path) == {"b.snap"}


def make_odd_places(path: Path) -> None:
    """Make what a backup can't be put into."""
    os.mkfifo(path / "pipe")
    (path / "to-pipe").symlink_to("pipe")
    (path / "to-nowhere").symlink_to("nowhere/b.snap")
    (path / "loop").symlink_to("loop")
    (path / "to-null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path / "socket"))


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        ("nowhere/b.snap", "there is no directory nowhere"),
        (".", "is a directory"),
        ("pipe", "pipe is a pipe"),
        ("to-pipe", "is a pipe"),
        ("socket", "is a socket"),
        ("/dev/null", "is a device"),
        ("to-null", "is a device"),
        ("to-nowhere", "there is no directory"),
        ("loop", "loop"),
        ("-", "can't go to a pipe"),
        ("x" * 300, "too long"),
    ],
)
def test_backup_to_an_impossible_place(  # noqa: PLR0917 - fixtures
    serve: Serve,
    snapshot: Path,
    file: str,
    hint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What can't be written in the end is refused before the cluster is asked, also with --force, and stays."""
    make_odd_places(tmp_path)
    before = {path.name: path.lstat().st_mode for path in tmp_path.iterdir()}
    asked = serve(snapshot)
    for force in ([], ["--force"]):
        assert main(["backup", *force, "--", file]) == 2
        assert hint in capsys.readouterr().err
    assert asked == []
    assert {path.name: path.lstat().st_mode for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("exists", [False, True])
def test_backup_through_a_link_is_put_where_it_leads(
    serve: Serve, snapshot: Path, tmp_path: Path, exists: bool
) -> None:
    """The link stays a link; the file is made beside its target, which may be on another disk."""
    serve(snapshot)
    (tmp_path / "other-disk").mkdir()
    (tmp_path / "latest.snap").symlink_to("other-disk/b.snap")
    target = tmp_path / "other-disk" / "b.snap"
    if exists:
        target.write_text("precious")
        assert main(["backup", "latest.snap"]) == 1
        assert target.read_text() == "precious"
    assert main(["backup", "latest.snap", *(["--force"] if exists else [])]) == 0
    assert (tmp_path / "latest.snap").is_symlink()
    assert target.read_bytes() == snapshot.read_bytes()
    assert names(tmp_path) == {"latest.snap", "other-disk"}
    assert names(target.parent) == {"b.snap"}


@pytest.mark.parametrize("has_links", [True, False])
def test_two_backups_to_one_name(
    serve: Serve,
    snapshot: Path,
    tmp_path: Path,
    has_links: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one that is done later finds the name taken; with --force it takes its place. They are never mixed."""
    if not has_links:

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    serve(snapshot)
    check = check_snapshot

    def be_slow(*args: Any, **more: Any) -> Any:
        content = check(*args, **more)
        (tmp_path / "b.snap").write_text("the other's")
        return content

    with monkeypatch.context() as patch:
        patch.setattr(backup_module, "check_snapshot", be_slow)
        assert main(["backup", "b.snap"]) == 1
        assert names(tmp_path) == {"b.snap"}
        assert (tmp_path / "b.snap").read_text() == "the other's"
        assert main(["backup", "b.snap", "--force"]) == 0
    assert (tmp_path / "b.snap").read_bytes() == snapshot.read_bytes()
    (tmp_path / "b.snap").unlink()
    assert main(["backup", "b.snap"]) == 0
    assert (tmp_path / "b.snap").read_bytes() == snapshot.read_bytes()
    assert names(tmp_path) == {"b.snap"}


def test_what_a_killed_backup_left_is_removed_by_the_next(
    serve: Serve, snapshot: Path, tmp_path: Path
) -> None:
    """A copy that is still being made is locked, and left alone; so are files of other names, and links."""
    serve(snapshot)
    (tmp_path / ".trio_kv-backup-0123.tmp").write_text("half")
    (tmp_path / "b.snap.tmp").write_text("somebody's own")
    (tmp_path / ".trio_kv-backup-link.tmp").symlink_to("b.snap.tmp")
    with open_new_file(tmp_path) as living:
        assert names(tmp_path) == {living.path.name, "b.snap.tmp", ".trio_kv-backup-link.tmp"}
        assert main(["backup", "b.snap"]) == 0
        assert living.path.exists()
    assert names(tmp_path) == {"b.snap", "b.snap.tmp", ".trio_kv-backup-link.tmp"}
    assert (tmp_path / "b.snap.tmp").read_text() == "somebody's own"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_backup_that_is_ended_leaves_nothing_for_long(tmp_path: Path, number: int) -> None:
    """Whatever signal ends it half-way, no file has the name; what only SIGKILL leaves is not locked any more."""
    script = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # A job in the background begins with none,
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and one under nohup ignores this one.
from trio_kv.cli.new_file import open_new_file
with open_new_file(Path(sys.argv[1])) as new:
    new.file.write(b"half")
    os.kill(os.getpid(), int(sys.argv[2]))
    new.publish(Path(sys.argv[1]) / "b.snap", is_forced=False)
"""
    command = [sys.executable, "-c", script, str(tmp_path), str(int(number))]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode in (-number, 128 + number)
    left = names(tmp_path)
    assert len(left) == (1 if number == signal.SIGKILL else 0)
    assert "b.snap" not in left
    with open_new_file(tmp_path) as new:
        assert names(tmp_path) == {new.path.name}


def test_backup_asks_another_node_when_a_snapshot_is_damaged(
    monkeypatch: pytest.MonkeyPatch, snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One bad disk spoils no backup: its node is left out of the next question, and named."""
    bad = snapshot.with_name("snapshot-0000000000000005-0000000000000004.snap")
    data = bytearray(snapshot.read_bytes())
    data[-40] ^= 1
    bad.write_bytes(data)
    asked: list[object] = []

    def command(
        door: Door, name: str, arguments: object, *, timeout_s: float, tls: object
    ) -> dict[str, object]:
        asked.append(arguments)
        path, node = (bad, 2) if len(asked) == 1 else (snapshot, 3)
        return {"id": 1, "status": "ok", "path": str(path), "index": 4, "term": 4, "node": node}

    monkeypatch.setattr(control, "find_door", lambda *_: Door("127.0.0.1:1", "secret", 1))
    monkeypatch.setattr(control, "command", command)
    assert main(["backup", "b.snap"]) == 0
    assert asked == [{}, {"without": [2]}]
    assert "damaged at byte" in capsys.readouterr().err
    assert (tmp_path / "b.snap").read_bytes() == snapshot.read_bytes()
    assert names(tmp_path) == {"b.snap"}


def test_backup_without_a_server_and_with_one_that_can_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No server exits with 3; a cluster that can't take a snapshot with 1 and its reason."""
    assert main(["backup", "b.snap"]) == 3
    assert "does a server run" in capsys.readouterr().err
    refusal = {"id": 1, "status": "error", "error": "bad_request", "message": "no leader"}
    monkeypatch.setattr(control, "find_door", lambda *_: Door("127.0.0.1:1", "secret", 1))
    monkeypatch.setattr(control, "command", lambda *_, **__: refusal)
    assert main(["backup", "b.snap"]) == 1
    assert "no leader" in capsys.readouterr().err

    def hang_up(*_: object, **__: object) -> None:
        raise NoDoorError("the door closed")

    monkeypatch.setattr(control, "command", hang_up)
    assert main(["backup", "b.snap"]) == 3
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("user/7", "user/7"),
        ("ž", "ž"),
        ("my key", '"my key"'),
        ('"q"', '"\\"q\\""'),
        ("a\nb", '"a\\nb"'),
        ("\x9b", '"\x9b"'),
        ("-x", '"-x"'),
    ],
)
def test_a_key_is_shown_as_the_shell_takes_it(key: str, shown: str) -> None:
    """What could be misread is a JSON string, which the shell reads back as the key."""
    assert show_key(key) == shown
    assert Arguments(shown).take_text("KEY")[0] == key


EXPORTED = [
    '{"key":"k2","value":"v","revision":2}',
    '{"key":"k3","value":"v","revision":3}',
    '{"key":"k4","value":"v","revision":4,"ttl":1.5}',
]


def test_an_export_is_one_state_in_order_out_of_a_fresh_snapshot(
    serve: Serve, snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is asked for anew if its file is gone, tells when keys end, and a file gets its name when it is whole."""
    asked = serve(tmp_path / "gone.snap", snapshot)
    assert main(["export"]) == 0
    assert len(asked) == 2
    out, err = capsys.readouterr()
    assert (out.splitlines(), err) == (EXPORTED, "trio-kv: 3 keys, everything up to entry 4\n")
    assert main(["export", "--prefix", "k3", "-q"]) == 0
    assert capsys.readouterr() == (f"{EXPORTED[1]}\n", "")
    assert main(["export", "all.jsonl"]) == 0
    assert (tmp_path / "all.jsonl").read_text().splitlines() == EXPORTED
    assert main(["export", "all.jsonl"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["export", "all.jsonl", "--force", "--prefix", "none"]) == 0
    assert (tmp_path / "all.jsonl").read_text() == ""
    assert names(tmp_path) == {"all.jsonl"}
    with snapshot.open("r+b") as file:
        file.seek(-40, os.SEEK_END)
        (byte,) = file.read(1)
        file.seek(-40, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    assert main(["export"]) == 1
    assert "damaged at byte" in capsys.readouterr().err


def test_an_export_of_a_backup_asks_no_server(snapshot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a server there is no other export."""
    assert main(["export"]) == 3
    assert "does a server run" in capsys.readouterr().err
    assert main(["export", "--from-backup", str(snapshot)]) == 0
    assert capsys.readouterr().out.splitlines() == EXPORTED
    assert main(["export", "--from-backup", "none.snap"]) == 1
    assert "none.snap" in capsys.readouterr().err


def test_restore_makes_a_cluster(snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output tells what is in the new cluster and how to start it; nothing is asked of a server."""
    assert main(["restore", str(snapshot), "--data-dir", "new", "--nodes", "3"]) == 0
    shown = capsys.readouterr().out
    assert "new: a new cluster of 3 nodes with everything up to entry 4, 3 keys" in shown
    assert "serve --data-dir new" in shown
    with open_data_directory(tmp_path / "new", random=Random(1)) as directory:
        assert directory.nodes == (1, 2, 3)
    assert main(["restore", str(snapshot), "--data-dir", "one", "--nodes", "1", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    size = snapshot.stat().st_size
    assert told == {"data_dir": "one", "nodes": 1, "index": 4, "term": 4, "keys": 3, "bytes": size}


def test_restore_refuses(snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory with something in it, a damaged or missing file: exit code 1, the reason, and nothing made."""
    assert main(["restore", str(snapshot), "--data-dir", str(snapshot.parent)]) == 1
    assert "is not empty" in capsys.readouterr().err
    data = bytearray(snapshot.read_bytes())
    data[100] ^= 1
    (tmp_path / "bad.snap").write_bytes(data)
    assert main(["restore", "bad.snap", "--data-dir", "new"]) == 1
    assert "bad.snap is damaged at byte " in capsys.readouterr().err
    assert main(["restore", "none.snap", "--data-dir", "new"]) == 1
    assert "none.snap: No such file" in capsys.readouterr().err
    assert main(["restore", str(snapshot), "--data-dir", "bad.snap"]) == 1
    assert "bad.snap" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_rebuild_moves_the_old_directory_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The node gets an empty directory and a new incarnation, and the output says where the old one is."""
    with open_data_directory(tmp_path / "data", random=Random(1), nodes=3) as directory:
        incarnation = directory.node(2).incarnation
    (tmp_path / "data" / "node-2" / "note").write_text("old")
    assert main(["rebuild", "2", "--data-dir", "data"]) == 0
    shown = capsys.readouterr().out
    (aside,) = (tmp_path / "data").glob("node-2.replaced-*")
    assert (aside / "note").read_text() == "old"
    assert str(aside.relative_to(tmp_path)) in shown
    assert "other nodes fill it" in shown
    with open_data_directory(tmp_path / "data", random=Random(1)) as directory:
        assert directory.node(2).is_rebuilding
        assert directory.node(2).incarnation > incarnation


def test_rebuild_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No cluster, no such node, a running server, too few sound nodes: exit code 1, and nothing is changed."""
    assert main(["rebuild", "2", "--data-dir", "data"]) == 1
    assert "there is no cluster in data" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
    with open_data_directory(tmp_path / "data", random=Random(1), nodes=3):
        assert main(["rebuild", "2", "--data-dir", "data"]) == 1
        assert "trio-kv ctl rebuild 2" in capsys.readouterr().err
    assert main(["rebuild", "4", "--data-dir", "data"]) == 1
    assert "the nodes are 1, 2, 3" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "data" / "node-1")
    assert main(["rebuild", "2", "--data-dir", "data"]) == 1
    assert "restore a backup" in capsys.readouterr().err
    assert not list((tmp_path / "data").glob("*.replaced-*"))
    assert main(["rebuild", "1", "--data-dir", "data", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"node": 1, "moved_to": None}


def test_progress_is_shown_to_a_person_only(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bars go to a terminal on stderr; stdout holds the result alone, and a pipe gets no bars at all."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert main(["restore", str(snapshot), "--data-dir", "quiet"]) == 0
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["restore", str(snapshot), "--data-dir", "shown"]) == 0
    for step in ("checking", "copying", "opening"):
        assert step in terminal.getvalue()
    assert "node 5 of 5" in terminal.getvalue()
    assert "opening" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (1, "1 byte"),
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (12_345_678_901, "12.3 GB"),
        (10**13, "10.0 TB"),
    ],
)
def test_sizes_are_told_as_people_say_them(count: int, shown: str) -> None:
    """A size has a unit that keeps its number short."""
    assert progress.show_bytes(count) == shown
