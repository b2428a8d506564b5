"""The data directory: made whole or not at all, for one process at a time, never mixed up."""

import errno
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import msgspec
import pytest

from trio_kv.raft.entry import make_entry
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.storage.data_directory import DataDirectory, open_data_directory
from trio_kv.storage.errors import DamagedError, LockedError, ManifestError, NodesDifferError, StorageError
from trio_kv.storage.files import RealFiles

SEGMENT_BYTES = 4096
SEGMENT = "wal-0000000000000001.log"


def open_directory(
    path: Path, nodes: int | None = None, *, seed: int = 1, is_synced: bool = False
) -> DataDirectory:
    return open_data_directory(
        path, nodes=nodes, random=Random(seed), segment_bytes=SEGMENT_BYTES, is_synced=is_synced
    )


def make(path: Path, nodes: int = 3) -> None:
    """Make a cluster and let every node write one entry."""
    with open_directory(path, nodes) as directory:
        for node in directory.nodes:
            wal = directory.node(node).open().wal
            wal.append([Write(Ticket(1, 1, 1), HardState(1, 1), None, (make_entry(1, 1, 0, None),))])
            wal.close()


def states(path: Path) -> dict[int, str]:
    with open_directory(path) as directory:
        return {node: directory.node(node).state for node in directory.nodes}


def test_first_start_makes_five_nodes(tmp_path: Path) -> None:
    """By default a new cluster has five nodes, each with an identity and an empty log, also deep down."""
    path = tmp_path / "a" / "b"
    with open_directory(path, is_synced=True) as directory:
        assert directory.nodes == (1, 2, 3, 4, 5)
        assert len({directory.node(node).incarnation for node in directory.nodes}) == 5
        for node in directory.nodes:
            found = directory.node(node)
            assert (found.state, found.reason) == ("ok", "")
            opened = found.open()
            wal, recovered = opened.wal, opened.recovered
            wal.close()
            assert (recovered.hard_state, recovered.entries) == (HardState(), [])
    assert sorted(file.name for file in path.iterdir()) == [
        "lock",
        "manifest.json",
        *(f"node-{node}" for node in range(1, 6)),
    ]


def test_later_starts_find_the_same_cluster(tmp_path: Path) -> None:
    """Ids don't change, and what was written is there."""
    make(tmp_path)
    first = (tmp_path / "manifest.json").read_bytes()
    with open_directory(tmp_path, 3, seed=99) as directory:
        opened = directory.node(2).open()
        wal, recovered = opened.wal, opened.recovered
        wal.close()
        assert [entry.index for entry in recovered.entries] == [1]
    assert (tmp_path / "manifest.json").read_bytes() == first


@pytest.mark.parametrize("nodes", [0, 10, -1])
def test_impossible_numbers_of_nodes_are_refused(tmp_path: Path, nodes: int) -> None:
    """A cluster has one to nine nodes; nothing is made otherwise."""
    with pytest.raises(ValueError, match=f"1 to 9 nodes, not {nodes}"):
        open_directory(tmp_path / "data", nodes)
    assert not (tmp_path / "data").exists()


def test_another_number_of_nodes_is_refused(tmp_path: Path) -> None:
    """The message says how many nodes the cluster has and how to go on."""
    make(tmp_path)
    with pytest.raises(NodesDifferError, match=r"cluster of 3 nodes; it can't be started with 5") as caught:
        open_directory(tmp_path, 5)
    assert "--nodes 3" in caught.value.way_out
    assert states(tmp_path) == {1: "ok", 2: "ok", 3: "ok"}


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """While one process uses the directory another one is told which; afterwards it may."""
    program = (
        "import sys; from pathlib import Path; from random import Random\n"
        "from trio_kv.storage.data_directory import open_data_directory\n"
        "open_data_directory(Path(sys.argv[1]), random=Random(1), nodes=1, segment_bytes=4096)\n"
        "print('open', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(LockedError, match=f"in use by process {other.pid}") as caught:
            open_directory(tmp_path)
        assert "Stop that process" in caught.value.way_out
        other.communicate("")
    open_directory(tmp_path).close()


def test_the_lock_ends_with_the_directory(tmp_path: Path) -> None:
    """Closing lets go of the lock, twice does no harm; a refused start holds nothing."""
    directory = open_directory(tmp_path, 1)
    with pytest.raises(LockedError):
        open_directory(tmp_path)
    directory.close()
    directory.close()
    with pytest.raises(NodesDifferError):
        open_directory(tmp_path, 2)
    open_directory(tmp_path).close()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"format":2,"cluster":"', id="cut short"),
        pytest.param(b"\xff\xfe", id="not text"),
        pytest.param(b'{"format":2,"cluster":"abcd","nodes":[{"node":1,"incarnation":1}]}', id="short id"),
        pytest.param(b'{"format":2,"cluster":"' + b"0" * 32 + b'","nodes":[]}', id="no nodes"),
        pytest.param(
            b'{"format":2,"cluster":"' + b"0" * 32 + b'","nodes":[{"node":2,"incarnation":1}]}', id="hole"
        ),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(tmp_path: Path, content: bytes) -> None:
    """A broken manifest is never taken for a first start."""
    make(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        open_directory(tmp_path)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    """A directory of a later program is left alone, whatever else its manifest says."""
    make(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b'{"format": 5, "shards": 7}')
    with pytest.raises(ManifestError, match="format 5, this program reads format 4"):
        open_directory(tmp_path)


def test_format_1_is_refused_with_the_way_over(tmp_path: Path) -> None:
    """A directory of the first versions is left as it is, and whoever starts on it is told how to go on."""
    make(tmp_path)
    old = (tmp_path / "manifest.json").read_bytes().replace(b'"format": 4', b'"format": 1')
    (tmp_path / "manifest.json").write_bytes(old)
    with pytest.raises(ManifestError, match="format 1, this program reads format 4") as caught:
        open_directory(tmp_path)
    assert "trio-kv backup FILE" in caught.value.way_out
    assert "trio-kv restore FILE --data-dir NEW" in caught.value.way_out
    assert (tmp_path / "manifest.json").read_bytes() == old


def test_D8_a_node_without_its_log_needs_to_be_rebuilt(tmp_path: Path) -> None:
    """A node whose directory is missing, empty or without a log is no new one. The others start."""
    make(tmp_path, 4)
    shutil.rmtree(tmp_path / "node-1")
    shutil.rmtree(tmp_path / "node-2")
    (tmp_path / "node-2").mkdir()
    (tmp_path / "node-3" / SEGMENT).unlink()
    assert states(tmp_path) == {1: "needs_rebuild", 2: "needs_rebuild", 3: "needs_rebuild", 4: "ok"}
    with open_directory(tmp_path) as directory:
        assert "is missing" in directory.node(1).reason
        assert "holds no log" in directory.node(3).reason


def test_another_nodes_directory_is_damage(tmp_path: Path) -> None:
    """Directories that were swapped, came from elsewhere or lost their identity don't start."""
    make(tmp_path / "data", 4)
    with open_directory(tmp_path / "other", 4, seed=2):
        pass
    data = tmp_path / "data"
    (data / "node-1").rename(data / "swapped")
    (data / "node-2").rename(data / "node-1")
    (data / "swapped").rename(data / "node-2")
    shutil.rmtree(data / "node-3")
    (tmp_path / "other" / "node-3").rename(data / "node-3")
    (data / "node-4" / "identity.json").unlink()
    assert states(data) == dict.fromkeys(range(1, 5), "damaged")
    with open_directory(data) as directory:
        assert "belongs to Identity" in directory.node(3).reason
        assert "identity.json" in directory.node(4).reason
        assert "Rebuild" in directory.node(4).way_out


def test_another_nodes_log_is_damage(tmp_path: Path) -> None:
    """A log that came under another node's identity is refused when it is opened."""
    make(tmp_path)
    shutil.copy(tmp_path / "node-1" / SEGMENT, tmp_path / "node-2" / SEGMENT)
    with open_directory(tmp_path) as directory, pytest.raises(DamagedError, match="belongs to") as caught:
        directory.node(2).open()
    assert caught.value.file == str(tmp_path / "node-2" / SEGMENT)


def test_a_lost_manifest_is_no_first_start(tmp_path: Path) -> None:
    """Logs that were written to and no manifest: refused, and nothing is touched."""
    make(tmp_path)
    before = (tmp_path / "node-1" / SEGMENT).read_bytes()
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ManifestError, match=r"node-1 holds a log, but .*manifest\.json is missing"):
        open_directory(tmp_path)
    assert (tmp_path / "node-1" / SEGMENT).read_bytes() == before


class _StoppedError(OSError):
    """The process died here."""


def test_a_first_start_that_was_interrupted_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the making of a cluster is interrupted, the next start makes it, and none is half made."""
    calls = 0
    create = RealFiles.create

    def interrupted(self: RealFiles, name: str, size_bytes: int, head: bytes = b"") -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            (self.path / (name + ".tmp")).write_bytes(head[: len(head) // 2])
            raise _StoppedError(errno.EIO, "stopped")
        create(self, name, size_bytes, head)

    monkeypatch.setattr(RealFiles, "create", interrupted)
    for stop_at in range(1, 8):
        calls = 0
        with pytest.raises(_StoppedError):
            open_directory(tmp_path / str(stop_at), 3)
        assert not (tmp_path / str(stop_at) / "manifest.json").exists()
        with open_directory(tmp_path / str(stop_at), 2, seed=stop_at) as directory:
            assert directory.nodes == (1, 2)
            for node in directory.nodes:
                directory.node(node).open().wal.close()


def test_what_is_written_is_plain_json(tmp_path: Path) -> None:
    """A person can read the manifest, and each identity repeats its part."""
    make(tmp_path, 1)
    manifest = msgspec.json.decode((tmp_path / "manifest.json").read_bytes())
    identity = msgspec.json.decode((tmp_path / "node-1" / "identity.json").read_bytes())
    assert manifest == {
        "format": 4,
        "cluster": identity["cluster"],
        "nodes": [{"node": 1, "incarnation": identity["incarnation"]}],
    }
    assert issubclass(ManifestError, StorageError)
