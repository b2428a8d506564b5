"""Looking at files: the verdict is what a start would do, with file, byte and reason, and nothing is changed."""

import shutil
from pathlib import Path
from random import Random

import msgspec
import pytest

from trio_kv.kv import commands
from trio_kv.kv.operations import Set
from trio_kv.raft.entry import Entry, make_entry
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.storage.data_directory import open_data_directory
from trio_kv.storage.errors import DamagedError, LockedError, ManifestError
from trio_kv.storage.inspect import Line, dump, verify
from trio_kv.storage.segments import segment_name
from trio_kv.storage.snapshot_reading import snapshot_name

SEGMENT_BYTES = 4096


def entry(index: int, term: int = 1) -> Entry:
    return make_entry(
        index,
        term,
        index,
        commands.Write(1, index, index, Set(f"key{index}", msgspec.Raw(b'"' + b"x" * 300 + b'"'))),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cluster of three nodes; node 2 has a snapshot and a log of several segments."""
    path = tmp_path / "data"
    with open_data_directory(
        path, random=Random(1), nodes=3, segment_bytes=SEGMENT_BYTES, is_synced=False
    ) as directory:
        opened = directory.node(2).open()
        opened.wal.append([Write(Ticket(0, 0, 0), HardState(3, 1))])
        for index in range(1, 31):
            opened.wal.append([Write(Ticket(0, 0, 0), None, None, (entry(index),))])
        opened.wal.append([Write(Ticket(0, 0, 0), None, 29, (entry(29, 3),))])
        writer = opened.snapshots.begin(20, 1)
        writer.add(0, b"the state")
        writer.add(1, b"more of it")
        writer.finish()
        opened.close()
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 0x10
    file.write_bytes(data)


def end_of_log(node: Path) -> tuple[Path, int]:
    """Return the last segment that was written to, and where its last frame ends."""
    segment = max(file for file in node.glob("wal-*") if file.read_bytes()[512:].strip(b"\0"))
    used = len(segment.read_bytes().rstrip(b"\0"))
    return segment, -(-used // 512) * 512


def test_a_sound_directory(path: Path) -> None:
    """A whole cluster, and each node alone, is sound; the report says what is there, and nothing is changed."""
    before = contents(path)
    report = verify(path)
    assert (report.state, [node.state for node in report.nodes]) == ("sound", ["sound"] * 3)
    node = report.nodes[1]
    assert (node.node, node.term, node.vote, node.snapshot_index, node.last_index) == (2, 3, 1, 20, 29)
    assert node.segments > 3
    assert "Term 3, a vote for node 1; a snapshot up to entry 20" in node.explanation
    assert verify(path / "node-2").nodes == (node,)
    assert contents(path) == before


def test_a_torn_log(path: Path) -> None:
    """An interrupted write is told with file and byte; the verdict is that of a start, which cuts it off."""
    with open_data_directory(path, random=Random(1)) as directory:
        opened = directory.node(2).open()
        opened.wal.append([Write(Ticket(0, 0, 0), None, None, (entry(30, 3), entry(31, 3)))])
        opened.close()
    segment, torn_end = end_of_log(path / "node-2")
    data = bytearray(segment.read_bytes())
    data[torn_end - 512 : torn_end] = bytes(512)
    segment.write_bytes(data)
    before = contents(path)
    report = verify(path)
    node = report.nodes[1]
    assert (report.state, node.state, node.file, node.last_index) == ("torn", "torn", str(segment), 29)
    assert f"the write at byte {node.offset} was interrupted" in node.explanation
    assert next(line for line in dump(path / "node-2") if line.kind == "torn").offset == node.offset
    assert contents(path) == before
    with open_data_directory(path, random=Random(1)) as directory:
        assert directory.node(2).open().recovered.entries[-1].index == 29
    assert verify(path).state == "sound"


@pytest.mark.parametrize("name", [segment_name(2), snapshot_name(20, 1)])
def test_a_damaged_file(path: Path, name: str) -> None:
    """A wrong bit is named with file, byte, reason and the way out, just as a start would; others stay sound."""
    file = path / "node-2" / name
    flip(file, 600 if "wal" in name else 90)
    with open_data_directory(path, random=Random(1)) as directory:
        directory.node(1).open().close()
        if "wal" in name:
            with pytest.raises(DamagedError):
                directory.node(2).open()
    report = verify(path)
    node = report.nodes[1]
    assert (node.file, [other.state for other in report.nodes[::2]]) == (str(file), ["sound"] * 2)
    assert node.offset is not None
    if "wal" in name:
        assert (report.state, node.state) == ("damaged", "damaged")
        assert "Rebuild it from the others" in node.explanation
    else:
        # The log still holds all of it, so the node would start.
        assert (report.state, node.state) == ("torn", "torn")
        assert "the next start removes it" in node.explanation
    last = list(dump(path / "node-2"))[-1]
    assert (last.kind, last.file, last.offset) == (node.state, str(file), node.offset)


def test_a_node_that_lost_its_directory(path: Path) -> None:
    """A missing directory, or a foreign one, is damage of the cluster, and the report says of which node."""
    shutil.rmtree(path / "node-1")
    shutil.rmtree(path / "node-3")
    shutil.copytree(path / "node-2", path / "node-3")
    report = verify(path)
    assert [node.state for node in report.nodes] == ["damaged", "sound", "damaged"]
    assert "is missing" in report.nodes[0].explanation
    assert "belongs to" in report.nodes[2].explanation
    assert next(dump(path / "node-3")).kind == "damaged"


def test_dump_shows_every_record(path: Path) -> None:
    """Each record of the log and each chunk of the snapshots is one line, with the byte where it stands."""
    lines = list(dump(path / "node-2"))
    kinds = [line.kind for line in lines]
    assert kinds[:4] == ["snapshot", "chunk", "chunk", "end"]
    assert kinds[4:7] == ["segment", "hard_state", "base"]
    assert kinds.count("entry") == 31
    assert kinds.count("base") == kinds.count("seal") + 1
    truncation = kinds.index("truncate")
    assert lines[truncation].text == "from 29"
    assert lines[truncation + 1].text.startswith(
        '29@3 at 29 us: ["write",1,29,29,{"op":"set","key":"key29","value":"xxx'
    )
    assert lines[truncation + 1].text.endswith("…")
    assert lines[1] == Line(
        str(path / "node-2" / snapshot_name(20, 1)), lines[1].offset, "chunk", "0: 9 bytes"
    )
    assert {line.file for line in dump(path)} >= {line.file for line in lines}
    assert len(list(dump(path))) > len(lines)


def test_a_log_that_does_not_lead_to_its_snapshot_is_explained(path: Path) -> None:
    """What the next start will do is said: a snapshot takes the place of a log that is in conflict with it."""
    with open_data_directory(path, random=Random(1)) as directory:
        opened = directory.node(1).open()
        writer = opened.snapshots.begin(7, 2)
        writer.add(0, b"state")
        writer.finish()
        opened.close()
    node = verify(path).nodes[0]
    assert (node.state, node.snapshot_index, node.last_index) == ("sound", 7, 0)
    assert "the next start lets the snapshot take its place" in node.explanation
    with open_data_directory(path, random=Random(1)) as directory:
        directory.node(1).open().close()
    assert [line.text for line in dump(path / "node-1") if line.kind == "reset"] == [
        "a snapshot up to 7@2 takes the place of the log"
    ]
    node = verify(path).nodes[0]
    assert (node.state, node.last_index, node.term) == ("sound", 7, 2)


def test_a_directory_in_use_is_not_looked_at(path: Path) -> None:
    """While a server runs its files change: both tools refuse, and two that look don't disturb each other."""
    with open_data_directory(path, random=Random(1)):
        for look in (path, path / "node-2"):
            with pytest.raises(LockedError, match="in use by process"):
                verify(look)
            with pytest.raises(LockedError, match="in use by process"):
                next(dump(look))
    lines = dump(path)
    next(lines)
    assert verify(path).state == "sound"
    with pytest.raises(LockedError):
        open_data_directory(path, random=Random(1))
    assert list(lines)
    open_data_directory(path, random=Random(1)).close()


def test_what_is_no_data_directory_is_refused(tmp_path: Path, path: Path) -> None:
    """Another directory, or none, is no damage; a node's directory taken out of its cluster can be read."""
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "nowhere")
    with pytest.raises(ManifestError):
        verify(tmp_path)
    alone = tmp_path / "elsewhere" / "copy"
    shutil.copytree(path / "node-2", alone)
    assert verify(alone).nodes[0].last_index == 29
