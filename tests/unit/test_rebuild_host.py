"""`rebuild --cluster`: nothing is made before a majority of the other hosts has said what the lost node was."""

import json
from pathlib import Path

import pytest

from trio_kv.cli import rebuild_host
from trio_kv.cli.cluster_file import ClusterFile, read_cluster_file
from trio_kv.cli.main import main
from trio_kv.cli.output import ExitCode
from trio_kv.storage.host import open_host_directory
from trio_kv.transport.asking import Asked
from trio_kv.wire.incarnations import FIRST_END

Printed = pytest.CaptureFixture[str]
FIVE = ",".join(f"127.0.0.1:{port}" for port in range(4001, 4006))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterFile:
    """A cluster of five hosts."""
    for name in ("CLUSTER", "NODE", "DATA_DIR", "OUTPUT"):
        monkeypatch.delenv(f"TRIO_KV_{name}", raising=False)
    assert main(["cluster", "init", str(tmp_path), "--nodes", FIVE]) == ExitCode.OK
    return read_cluster_file(tmp_path / "cluster.toml")


def answer(monkeypatch: pytest.MonkeyPatch, known: dict[int, int], reasons: dict[int, str]) -> None:
    """Let the other hosts say this."""

    async def ask_all(*_: object, **__: object) -> Asked:
        return Asked({process: {2: incarnation} for process, incarnation in known.items()}, reasons)

    monkeypatch.setattr(rebuild_host, "ask_all", ask_all)


def rebuild(file: ClusterFile, *words: str) -> int:
    return main(["rebuild", "2", "--cluster", str(file.path), *words])


def incarnation(file: ClusterFile) -> int:
    with open_host_directory(file.peer(2).data_dir, cluster=file.cluster, nodes=5, node=2) as directory:
        assert directory.node(2).is_rebuilding
        return directory.node(2).incarnation


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_minority_is_not_enough(
    file: ClusterFile, count: int, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    """What they know may be too low: nothing is made, and it is told who said nothing, and why."""
    known = dict.fromkeys((1, 3, 4, 5)[:count], 7)
    answer(monkeypatch, known, {each: f"it is {each}" for each in (1, 3, 4, 5)[count:]})
    assert rebuild(file) == ExitCode.NOT_DONE
    told = capsys.readouterr().err
    assert f"takes 3 other nodes that have all of their data, and {count} of 4 have" in told
    assert "Node 5: it is 5." in told
    assert "Start the others, and ask again." in told
    assert not file.peer(2).data_dir.exists()


@pytest.mark.parametrize("highest", [0, 7, FIRST_END - 1, FIRST_END + 5, FIRST_END + 2**40])
def test_the_highest_that_a_majority_knows_counts(
    file: ClusterFile, highest: int, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    """Also if the others know less, or nothing; and the new one is higher than any first one."""
    capsys.readouterr()
    answer(monkeypatch, {1: 0, 3: highest, 5: min(highest, 3)}, {4: "Connection refused"})
    assert rebuild(file, "-o", "json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"node": 2, "moved_to": None}
    assert incarnation(file) > max(highest, FIRST_END - 1)


def test_a_node_that_is_there_is_moved_aside(
    file: ClusterFile, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    """And the new one is above it, and above what the others know, for it may be an old copy."""
    assert main(["cluster", "create", "--cluster", str(file.path), "--node", "2"]) == ExitCode.OK
    for known in (0, FIRST_END + 2**40):
        answer(monkeypatch, dict.fromkeys((1, 3, 4, 5), known), {})
        before = 0 if known == 0 else incarnation(file)
        capsys.readouterr()
        assert rebuild(file, "-o", "json") == ExitCode.OK
        assert Path(json.loads(capsys.readouterr().out)["moved_to"]).exists()
        assert incarnation(file) > max(before, known, FIRST_END - 1)


def test_one_that_a_server_has_is_left_alone(
    file: ClusterFile, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    """That can do it itself."""
    assert main(["cluster", "create", "--cluster", str(file.path), "--node", "2"]) == ExitCode.OK
    answer(monkeypatch, dict.fromkeys((1, 3, 4, 5), 0), {})
    with open_host_directory(file.peer(2).data_dir, cluster=file.cluster, nodes=5, node=2):
        assert rebuild(file) == ExitCode.NOT_DONE
    assert "trio-kv ctl rebuild 2" in capsys.readouterr().err


def test_what_is_somebodys_is_not_touched(
    file: ClusterFile, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    """A directory that holds something else is none for a node."""
    place = file.peer(2).data_dir
    place.mkdir()
    (place / "letter").write_text("dear")
    answer(monkeypatch, dict.fromkeys((1, 3, 4, 5), 0), {})
    assert rebuild(file) == ExitCode.NOT_DONE
    assert str(place) in capsys.readouterr().err
    assert [each.name for each in place.iterdir()] == ["letter"]


def test_the_rules_of_a_start_hold(tmp_path: Path, file: ClusterFile, capsys: Printed) -> None:
    """Nobody is asked without a proof, or for a node that there is not."""
    assert main(["rebuild", "7", "--cluster", str(file.path)]) == ExitCode.USAGE
    assert "there is no node 7" in capsys.readouterr().err
    bare = tmp_path / "bare.toml"
    bare.write_text("\n".join(line for line in file.path.read_text().splitlines() if "secret" not in line))
    assert main(["rebuild", "2", "--cluster", str(bare)]) == ExitCode.USAGE
    assert "give a secret" in capsys.readouterr().err
