"""`wal verify` and `wal dump` on the command line: sound, torn and damaged disks, and the exit codes."""

import json
from pathlib import Path
from random import Random

import msgspec
import pytest

from trio_kv.cli.main import main
from trio_kv.kv import commands
from trio_kv.kv.commands import OpenSession
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Set
from trio_kv.raft.entry import Entry, make_entry
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.storage.data_directory import open_data_directory

SEGMENT_BYTES = 1 << 14
LARGE = 1000
"""Bytes of a value that makes a frame longer than a sector."""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA_DIR", "OUTPUT"):
        monkeypatch.delenv(f"TRIO_KV_{name}", raising=False)


def set_entry(index: int) -> Entry:
    value = msgspec.Raw(msgspec.json.encode("x" * LARGE))
    return make_entry(index, 1, index, commands.Write(1, index, index, Set(f"key{index}", value)))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Return a directory of two nodes: each has a snapshot up to entry 3, and entries 4 and 5 in the log."""
    path = tmp_path / "data"
    entries = [make_entry(1, 1, 0, OpenSession(1_000_000)), *map(set_entry, range(2, 6))]
    machine = Machine()
    machine.apply(entries[:3])
    chunks = list(machine.freeze().chunks())
    with open_data_directory(
        path, random=Random(1), nodes=2, segment_bytes=SEGMENT_BYTES, is_synced=False
    ) as directory:
        for node in directory.nodes:
            opened = directory.node(node).open()
            opened.wal.append([Write(Ticket(1, 1, 1), HardState(1, 2), None, tuple(entries[:4]))])
            opened.wal.append([Write(Ticket(2, 1, 2), None, None, tuple(entries[4:]))])
            writer = opened.snapshots.begin(3, 1)
            for number, chunk in enumerate(chunks):
                writer.add(number, chunk)
            writer.finish()
            opened.close()
    return path


def log_of(data_dir: Path, node: int) -> Path:
    (path,) = (data_dir / f"node-{node}").glob("wal-*.log")
    return path


def last_frame(data: bytes) -> int:
    """Return where the last sector that is used begins."""
    return (len(data.rstrip(b"\0")) - 1) // 512 * 512


def tear(data_dir: Path, node: int) -> None:
    """Take the last sector of the last frame away, as if it was never written."""
    data = bytearray(log_of(data_dir, node).read_bytes())
    place = last_frame(bytes(data))
    data[place : place + 512] = bytes(512)
    log_of(data_dir, node).write_bytes(data)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def tree(path: Path) -> dict[str, bytes]:
    return {
        str(file): file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "lock"
    }


def test_sound(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sound directory exits with 0, and says so of each node."""
    before = tree(data_dir)
    assert main(["wal", "verify", str(data_dir)]) == 0
    shown = capsys.readouterr().out
    assert "node 1: sound" in shown
    assert "node 2: sound" in shown
    assert tree(data_dir) == before


def test_torn(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An interrupted write exits with 1, and is explained as harmless; it is left for the next start to cut off."""
    tear(data_dir, 2)
    before = tree(data_dir)
    assert main(["wal", "verify", str(data_dir)]) == 1
    shown = capsys.readouterr().out
    assert "node 1: sound" in shown
    assert "node 2: torn" in shown
    assert log_of(data_dir, 2).name in shown
    assert tree(data_dir) == before
    assert main(["wal", "verify", str(data_dir / "node-2")]) == 1
    assert main(["wal", "verify", str(data_dir / "node-1")]) == 0


@pytest.mark.parametrize("what", ["log", "snapshot"])
def test_damaged(data_dir: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Damage exits with 3 and names the file and a byte at or before it, also when another node is torn."""
    tear(data_dir, 1)
    path = log_of(data_dir, 2)
    if what == "snapshot":
        # The log is whole from the first entry on; only without its beginning is the snapshot needed.
        (path,) = (data_dir / "node-2").glob("*.snap")
    flip(path, 700 if what == "log" else 80)
    verdict = main(["wal", "verify", str(data_dir), "-o", "json"])
    told = json.loads(capsys.readouterr().out)
    states = {node["node"]: node["state"] for node in told["nodes"]}
    if what == "log":
        assert verdict == 3
        assert states == {1: "torn", 2: "damaged"}
        assert told["state"] == "damaged"
        (damaged,) = [node for node in told["nodes"] if node["state"] == "damaged"]
        assert damaged["file"].endswith(path.name)
        assert 512 <= damaged["offset"] <= 700
    assert main(["wal", "verify", str(data_dir)]) == verdict
    assert path.name in capsys.readouterr().out


def test_dump(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every record is told, one a line, with its place; the same as JSON."""
    assert main(["wal", "dump", str(data_dir / "node-1")]) == 0
    lines = capsys.readouterr().out.splitlines()
    for index in range(2, 6):
        assert any(f"key{index}" in line for line in lines)
    assert any("snapshot-" in line for line in lines)
    assert main(["wal", "dump", str(data_dir / "node-1"), "-o", "json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(told) == len(lines)
    assert {"file", "offset", "kind", "text"} <= set(told[0])


def test_dump_shows_what_comes_before_the_trouble(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a torn or damaged log all is told that can be believed, and the exit code is that of `verify`."""
    tear(data_dir, 1)
    assert main(["wal", "dump", str(data_dir / "node-1")]) == 1
    shown = capsys.readouterr().out
    assert "key4" in shown
    assert "key5" not in shown
    flip(log_of(data_dir, 2), last_frame(log_of(data_dir, 2).read_bytes()))
    assert main(["wal", "dump", str(data_dir / "node-2")]) == 3
    assert "key4" in capsys.readouterr().out


def test_what_can_not_be_told(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that is in use exits with 4; one that isn't there, or holds no cluster, with 2."""
    with open_data_directory(data_dir, random=Random(1)):
        for command in ("verify", "dump"):
            for path in (data_dir, data_dir / "node-1"):
                assert main(["wal", command, str(path)]) == 4
                assert "in use" in capsys.readouterr().err
    for path in (tmp_path / "nothing", tmp_path):
        assert main(["wal", "verify", str(path)]) == 2
        assert str(path) in capsys.readouterr().err
