"""A host's data directory: made once, opened and never made again, one node's and no other's."""

import errno
import shutil
from pathlib import Path
from random import Random

import pytest

from trio_kv.raft.entry import make_entry
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.storage.data_directory import DataDirectory, open_data_directory
from trio_kv.storage.errors import LockedError, LostError, ManifestError, StorageError
from trio_kv.storage.files import RealFiles
from trio_kv.storage.host import make_host_directory, open_host_directory
from trio_kv.storage.inspect import verify
from trio_kv.storage.rebuild import rebuild_node
from trio_kv.wire.incarnations import FIRST_END

SEGMENT_BYTES = 4096
CLUSTER = "c0ffee" * 5 + "42"
OTHER = "decade" * 5 + "42"


def make(
    path: Path,
    node: int = 2,
    *,
    nodes: int = 3,
    cluster: str = CLUSTER,
    seed: int = 1,
    is_synced: bool = False,
) -> DataDirectory:
    return make_host_directory(
        path,
        cluster=cluster,
        nodes=nodes,
        node=node,
        random=Random(seed),
        segment_bytes=SEGMENT_BYTES,
        is_synced=is_synced,
    )


def start(path: Path, node: int = 2, *, nodes: int = 3, cluster: str = CLUSTER) -> DataDirectory:
    return open_host_directory(
        path, cluster=cluster, nodes=nodes, node=node, segment_bytes=SEGMENT_BYTES, is_synced=False
    )


def write(directory: DataDirectory, node: int) -> None:
    opened = directory.node(node).open()
    opened.wal.append([Write(Ticket(1, 1, 1), HardState(1, 1), None, (make_entry(1, 1, 0, None),))])
    opened.close()


def tree(path: Path) -> dict[str, bytes]:
    """Return all files, but for the one that tells who holds the lock."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name != "lock"
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The directory of node 2 of 3, which wrote something."""
    with make(tmp_path / "data") as directory:
        write(directory, 2)
    return tmp_path / "data"


def test_a_host_has_its_own_node_alone(tmp_path: Path) -> None:
    """One directory is made. Of the others it is known that there are these, and nothing else."""
    path = tmp_path / "deep" / "down"
    with make(path, is_synced=True) as directory:
        assert (directory.nodes, directory.nodes_here) == ((1, 2, 3), (2,))
        assert directory.cluster == CLUSTER
        assert directory.manifest.incarnations == {1: 0, 2: directory.node(2).incarnation, 3: 0}
        assert directory.node(2).incarnation > 0
        with pytest.raises(AssertionError, match="node 1 lives elsewhere"):
            directory.node(1)
    assert sorted(file.name for file in path.iterdir()) == ["lock", "manifest.json", "node-2"]


def test_each_start_finds_it(data: Path) -> None:
    """Nothing of it changes, and what was written is there."""
    before = tree(data)
    with start(data) as directory:
        opened = directory.node(2).open()
        opened.close()
        assert [entry.index for entry in opened.recovered.entries] == [1]
        with pytest.raises(LockedError):
            start(data)
    assert tree(data) == before


def test_it_is_looked_at_without_the_others(data: Path) -> None:
    """`wal verify` judges what is there, and misses nobody."""
    report = verify(data)
    assert (report.state, [node.node for node in report.nodes]) == ("sound", [2])


@pytest.mark.parametrize("nodes_and_node", [(3, 0), (3, 4), (10, 1), (0, 1)])
def test_what_can_not_be_is_not_made(tmp_path: Path, nodes_and_node: tuple[int, int]) -> None:
    """A node that the cluster does not have, too many nodes, or an id that is none."""
    nodes, node = nodes_and_node
    with pytest.raises(ValueError, match=r"of 3 nodes none has the number|1 to 9 nodes"):
        make(tmp_path / "data", node, nodes=nodes)
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        make(tmp_path / "data", cluster=CLUSTER.upper())
    assert not (tmp_path / "data").exists()


def test_it_is_made_once(data: Path) -> None:
    """What is there is never made anew, and nothing is put beside somebody's files."""
    before = tree(data)
    with pytest.raises(ManifestError, match="is not empty"):
        make(data)
    assert tree(data) == before


def test_D8_what_is_not_there_is_lost(data: Path) -> None:
    """A directory that is gone, empty because nothing is mounted there, or without its manifest: none is made."""
    (data / "manifest.json").rename(data / "manifest.away")
    with pytest.raises(LostError, match=r"holds no manifest\.json: the data of node 2 is lost"):
        start(data)
    shutil.rmtree(data)
    data.mkdir()
    with pytest.raises(LostError, match=r"holds no manifest\.json"):
        start(data)
    assert list(data.iterdir()) == []
    data.rmdir()
    with pytest.raises(LostError, match="is not there") as caught:
        start(data)
    assert "`trio-kv cluster create` makes its directory, once" in caught.value.way_out
    assert "`trio-kv rebuild 2 --cluster FILE`" in caught.value.way_out
    assert not data.exists()
    data.write_text("")
    with pytest.raises(LostError, match="is no directory"):
        start(data)


def test_D8_a_node_without_its_log_needs_to_be_rebuilt(data: Path) -> None:
    """As in a whole cluster's directory; that of the others is missed by nobody."""
    shutil.rmtree(data / "node-2")
    with start(data) as directory:
        assert directory.node(2).state == "needs_rebuild"


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"cluster": OTHER}, f"belongs to cluster {CLUSTER}, not to {OTHER}"),
        ({"node": 3}, "belongs to node 2, not to node 3"),
        ({"nodes": 5}, "was made for a cluster of 3 nodes, not of 5"),
    ],
)
def test_another_ones_directory_is_refused(data: Path, how: dict[str, object], what: str) -> None:
    """The wrong cluster, node or number of nodes: said, and nothing is changed."""
    before = tree(data)
    with pytest.raises(ManifestError, match=what):
        start(data, **how)  # type: ignore[arg-type]
    assert tree(data) == before
    start(data).close()


def test_a_host_and_a_whole_cluster_are_not_mixed_up(data: Path, tmp_path: Path) -> None:
    """Neither is started as the other: a host's alone would take two lost disks for granted."""
    before = tree(data)
    with pytest.raises(ManifestError, match="holds node 2 alone of a cluster of 3"):
        open_data_directory(data, random=Random(1), segment_bytes=SEGMENT_BYTES)
    assert tree(data) == before
    whole = tmp_path / "whole"
    with open_data_directory(whole, nodes=3, random=Random(1), segment_bytes=SEGMENT_BYTES) as directory:
        cluster = directory.cluster
    with pytest.raises(ManifestError, match="holds all nodes of a cluster, not node 2 alone"):
        start(whole, cluster=cluster)


@pytest.mark.parametrize("here", ["4", "1", '"2"'])
def test_a_manifest_that_makes_no_sense_is_refused(data: Path, here: str) -> None:
    """The node that lives here is one of the cluster, and its incarnation is known."""
    path = data / "manifest.json"
    path.write_text(path.read_text().replace('"here": 2', f'"here": {here}'))
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        start(data)


def test_a_manifest_without_here_is_a_whole_clusters(tmp_path: Path) -> None:
    """Those of before say nothing of it, and neither does one that is made now."""
    with open_data_directory(tmp_path, nodes=3, random=Random(1), segment_bytes=SEGMENT_BYTES) as directory:
        assert directory.nodes_here == (1, 2, 3)
    assert "here" not in (tmp_path / "manifest.json").read_text()


def test_a_rebuild_needs_a_majority_that_is_known_to_be_sound(data: Path) -> None:
    """The others are not here to be looked at: who asks for it has to know that they run with all of their data."""
    with start(data) as directory:
        before = directory.node(2).incarnation
        with pytest.raises(StorageError, match="Node 3: it lives elsewhere"):
            rebuild_node(directory, 2, Random(1), running=[1])
        moved_to = rebuild_node(directory, 2, Random(1), running=[1, 3])
        assert moved_to is not None
        assert directory.node(2).incarnation > before
    with start(data) as directory:
        assert (directory.node(2).state, directory.node(2).is_rebuilding) == ("ok", True)
        assert directory.manifest.here == 2


@pytest.mark.parametrize("known", [0, 77, FIRST_END - 1, FIRST_END + 77])
def test_D8_what_takes_the_place_of_a_lost_one_counts_for_nothing_yet(tmp_path: Path, known: int) -> None:
    """Its incarnation is higher than any that is known or was the first, and the others have to fill it."""
    with make_host_directory(
        tmp_path,
        cluster=CLUSTER,
        nodes=3,
        node=2,
        random=Random(1),
        replaces=known,
        segment_bytes=SEGMENT_BYTES,
        is_synced=False,
    ) as directory:
        found = directory.node(2)
        assert (found.state, found.is_rebuilding) == ("ok", True)
        least = max(known, FIRST_END - 1)
        assert least < found.incarnation < least + (1 << 32)
        with pytest.raises(StorageError, match="being rebuilt"):
            found.check_sound()
    with start(tmp_path) as directory:
        assert directory.node(2).is_rebuilding


class _StoppedError(OSError):
    """The process died here."""


@pytest.mark.parametrize("stop_at", range(1, 5))
def test_a_making_that_was_interrupted_is_done_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """Wherever that is, what is there is either nothing, or no start and the next making, or the whole."""
    calls = 0
    create = RealFiles.create

    def interrupted(self: RealFiles, name: str, size_bytes: int, head: bytes = b"") -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise _StoppedError(errno.EIO, "stopped")
        create(self, name, size_bytes, head)

    with monkeypatch.context() as patch:
        patch.setattr(RealFiles, "create", interrupted)
        patch.setattr("trio_kv.storage.making._remove_unfinished", lambda *_: None)
        with pytest.raises(_StoppedError):
            make(tmp_path)
    with pytest.raises(StorageError, match="is not complete" if stop_at > 1 else "is lost"):
        start(tmp_path)
    make(tmp_path).close()
    start(tmp_path).close()
