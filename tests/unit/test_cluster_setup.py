"""`cluster init` and `cluster create`: what they make fits together, and takes the place of nothing."""

import datetime as dt
import json
import ssl
import stat
import sys
from pathlib import Path

import pytest

from trio_kv.cli.certificates import CERTIFICATE_DAYS, make_certificates
from trio_kv.cli.cluster_file import ClusterFile, read_cluster_file
from trio_kv.cli.main import main
from trio_kv.cli.output import ExitCode
from trio_kv.client.tls import Tls
from trio_kv.storage.host import open_host_directory
from trio_kv.transport import peer_tls
from trio_kv.transport.peer_tls import PeerContexts, PeerFiles, WrongPeerError, check_peer, load_peer
from trio_kv.transport.tls import CertificateError, Files, load

HOSTS = "10.0.0.1:4001,n2.example:4001,[fd00::3]:4001"
Printed = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLUSTER", "NODE", "DATA_DIR", "OUTPUT"):
        monkeypatch.delenv(f"TRIO_KV_{name}", raising=False)


def run(*words: object) -> int:
    return main(["cluster", *map(str, words)])


def init(directory: Path, *words: object) -> ClusterFile:
    assert run("init", directory, *words) == ExitCode.OK
    return read_cluster_file(directory / "cluster.toml")


def files_of(file: ClusterFile, node: int) -> PeerFiles:
    files = file.peer_files(node)
    assert files is not None
    return files


def tree(path: Path) -> dict[str, bytes]:
    return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}


def test_three_nodes_on_this_machine(tmp_path: Path, capsys: Printed) -> None:
    """That is what is made if nothing is said: no two of their doors have the same port, and nothing is missing."""
    file = init(tmp_path / "deep" / "down")
    assert file.nodes == (1, 2, 3)
    peers = [file.peer(node) for node in file.nodes]
    doors = [door for peer in peers for door in (peer.address, peer.listen, peer.control)]
    assert len(set(doors)) == 9
    assert None not in doors
    assert len({peer.data_dir for peer in peers}) == 3
    file.check_access(is_insecure=False)
    shown = capsys.readouterr()
    assert f"a new cluster of 3 nodes, {file.cluster}" in shown.out
    assert shown.err == ""


def test_without_certificates_there_is_a_secret(tmp_path: Path) -> None:
    """Each cluster has its own, and it is for its user alone; with certificates there is none."""
    file, other = init(tmp_path / "a"), init(tmp_path / "b")
    assert len(file.secret) == 64
    assert file.secret != other.secret
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert init(tmp_path / "c", "--with-certificates").secret == ""


def test_each_cluster_has_an_id_of_its_own(tmp_path: Path) -> None:
    """So that no node of one is ever taken for one of the other."""
    assert init(tmp_path / "a").cluster != init(tmp_path / "b").cluster


def test_doors_keep_clear_of_peers(tmp_path: Path) -> None:
    """Where nodes share a host, and their peers have the usual ports of doors."""
    file = init(tmp_path, "--nodes", "127.0.0.1:3001,127.0.0.1:3003,n3.example:3001")
    one, two, three = (file.peer(node) for node in file.nodes)
    assert (one.listen, one.control) == (("127.0.0.1", 3002), ("127.0.0.1", 3004))
    assert (two.listen, two.control) == (("127.0.0.1", 3005), ("127.0.0.1", 3006))
    assert (three.listen, three.control) == (None, None)


def test_hosts_that_others_reach_are_told_to_need_certificates(tmp_path: Path, capsys: Printed) -> None:
    """The file is written all the same: its owner may bring some."""
    file = init(tmp_path, "--nodes", HOSTS)
    assert [peer.address[0] for peer in file.peers.values()] == ["10.0.0.1", "n2.example", "fd00::3"]
    assert "node 1 at 10.0.0.1:4001 can be reached by others" in capsys.readouterr().err


def test_what_is_made_is_told_as_json(tmp_path: Path, capsys: Printed) -> None:
    """One object, and nothing else."""
    file = init(tmp_path, "--with-certificates", "--nodes", "127.0.0.1:4001", "-o", "json")
    told = json.loads(capsys.readouterr().out)
    assert (told["cluster"], told["nodes"]) == (file.cluster, 1)
    assert told["file"] == str(tmp_path / "cluster.toml")
    assert sorted(told["files"]) == sorted(map(str, (each for each in tmp_path.rglob("*") if each.is_file())))


def test_keys_are_their_owners(tmp_path: Path) -> None:
    """Nobody else may read them; what is no secret may be read."""
    init(tmp_path, "--with-certificates")
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.rglob("*") if each.is_file()}
    assert len(modes) == 11
    assert {name for name, mode in modes.items() if mode == 0o600} == {
        *("ca.key", "client.key", "node-1.key", "node-2.key", "node-3.key")
    }
    assert set(modes.values()) == {0o600, 0o644}


@pytest.mark.parametrize("name", ["cluster.toml", "certificates/node-2.key"])
def test_nothing_is_overwritten(tmp_path: Path, capsys: Printed, name: str) -> None:
    """If one file is there, none is made."""
    place = tmp_path / name
    place.parent.mkdir(exist_ok=True)
    place.write_text("precious")
    assert run("init", tmp_path, "--with-certificates") == ExitCode.NOT_DONE
    assert f"{place} is there already, and stays as it is" in capsys.readouterr().err
    assert tree(tmp_path) == {name: b"precious"}


def test_all_is_written_or_nothing(tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made is removed again when the disk refuses the rest."""
    written = 0

    def sync(descriptor: int) -> None:
        nonlocal written
        written += 1
        if written == 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("trio_kv.cli.cluster_setup.sync_descriptor", sync)
    assert run("init", tmp_path, "--with-certificates") == ExitCode.NOT_DONE
    assert "no space left on device" in capsys.readouterr().err
    assert tree(tmp_path) == {}


def test_without_the_library_it_is_told_how_to_have_it(
    tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is made, and all else works."""
    monkeypatch.delitem(sys.modules, "trio_kv.cli.certificates", raising=False)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert run("init", tmp_path, "--with-certificates") == ExitCode.NOT_DONE
    assert "pip install 'trio-kv[certificates]'" in capsys.readouterr().err
    assert tree(tmp_path) == {}
    init(tmp_path)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ("a", "--nodes: 'a' is no host:port"),
        ("a:1,", "--nodes: '' is no host:port"),
        ("a:1,b:70000", "a port is 1 to 65535, not 70000"),
        ("a:1,b:1,a:1", "a:1 is there twice"),
        (",".join(f"a:{port}" for port in range(1, 11)), "a cluster has 1 to 9 nodes, not 10"),
    ],
)
def test_nodes_that_can_not_be_are_refused(tmp_path: Path, capsys: Printed, nodes: str, words: str) -> None:
    """With what would be right; nothing is made."""
    assert run("init", tmp_path / "new", "--nodes", nodes) == ExitCode.USAGE
    assert words in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


# Certificates


def connect(dialling: PeerContexts, listening: PeerContexts) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    return peer_tls._shake_hands(PeerContexts(listening.listening, dialling.dialling))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ClusterFile:
    """A cluster with certificates."""
    return init(tmp_path_factory.mktemp("made"), "--with-certificates", "--nodes", HOSTS)


def test_nodes_know_each_other_by_what_is_made(made: ClusterFile) -> None:
    """Each one by its own certificate, and none for another."""
    one, two = (load_peer(files_of(made, node), made.cluster, node) for node in (1, 2))
    near, far = connect(one, two)
    check_peer(near, made.cluster, 2)
    check_peer(far, made.cluster, 1)
    with pytest.raises(WrongPeerError, match="is that of node 2, not of node 3"):
        check_peer(near, made.cluster, 3)
    with pytest.raises(CertificateError, match="is that of node 2, not of node 1"):
        load_peer(files_of(made, 2), made.cluster, 1)


def test_another_clusters_node_is_no_peer(made: ClusterFile, tmp_path: Path) -> None:
    """Its CA is another one; and if one CA signs for two clusters, the name tells."""
    other = init(tmp_path, "--with-certificates")
    theirs = load_peer(files_of(other, 2), other.cluster, 2)
    ours = load_peer(files_of(made, 1), made.cluster, 1)
    for pair in ((ours, theirs), (theirs, ours)):
        with pytest.raises(ssl.SSLError, match="certificate verify failed"):
            connect(*pair)
    with pytest.raises(
        CertificateError, match=f"node 2 of cluster {other.cluster}, not of node 2 of cluster"
    ):
        load_peer(files_of(other, 2), made.cluster, 2)


def test_a_client_is_no_peer(made: ClusterFile) -> None:
    """Its certificate is taken by the handshake, as one of the same CA, and not by who looks at the name."""
    place = made.path.parent / "certificates"
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(place / "ca.pem")
    client.load_cert_chain(place / "client.pem", place / "client.key")
    node = load_peer(files_of(made, 1), made.cluster, 1)
    _, far = connect(PeerContexts(client, client), node)
    with pytest.raises(WrongPeerError, match="is that of no node: it lacks the name node-2"):
        check_peer(far, made.cluster, 2)
    with pytest.raises(CertificateError, match=r"certificate purpose"):
        load_peer(PeerFiles(place / "ca.pem", place / "client.pem", place / "client.key"), made.cluster, 2)


def test_one_that_has_ended_is_no_peers(tmp_path: Path) -> None:
    """It is told when it was made when that will be; then it is refused at the start."""
    begin = dt.datetime.now(dt.UTC) - dt.timedelta(days=CERTIFICATE_DAYS + 1)
    cluster = "c0ffee" * 5 + "42"
    old = make_certificates(cluster, {1: "127.0.0.1"}, begin)
    assert old.end < dt.datetime.now(dt.UTC)
    for name, data in old.files.items():
        (tmp_path / name).write_bytes(data)
    files = PeerFiles(tmp_path / "ca.pem", tmp_path / "node-1.pem", tmp_path / "node-1.key")
    with pytest.raises(CertificateError, match="certificate has expired"):
        load_peer(files, cluster, 1)


@pytest.mark.parametrize("host", ["n2.example", "localhost", "127.0.0.1"])
def test_a_node_serves_at_its_doors_with_it(made: ClusterFile, host: str) -> None:
    """Clients reach it by the name of its host and on its own machine; the door may ask for the client's."""
    place, files = made.path.parent / "certificates", files_of(made, 2)
    door = load(Files(files.certificate, files.key, client_ca=files.ca))
    tls = Tls.of_files(files.ca, place / "client.pem", place / "client.key")
    client = tls.context
    to_client, to_door = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_door, server_hostname=host),
        door.context.wrap_bio(to_door, to_client, server_side=True),
    )
    for _ in range(3):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ends[0].version() == ends[1].version() == "TLSv1.3"


# The directory of a host


def test_a_host_gets_its_directory_once(tmp_path: Path, capsys: Printed) -> None:
    """Where the file says, with the cluster's id; a second time it is refused, and nothing changes."""
    file = init(tmp_path)
    command = ("create", "--cluster", file.path, "--node", 2)
    assert run(*command) == ExitCode.OK
    place = file.peer(2).data_dir
    assert f"{place}: the data directory of node 2 of 3" in capsys.readouterr().out
    with open_host_directory(place, cluster=file.cluster, nodes=3, node=2) as directory:
        assert directory.node(2).state == "ok"
    before = tree(place)
    assert run(*command) == ExitCode.NOT_DONE
    assert f"{place} holds a node already, and that is made once: start it" in capsys.readouterr().err
    assert tree(place) == before


def test_certificates_are_tried_before_they_are_needed(tmp_path: Path, capsys: Printed) -> None:
    """What no peer would take is told when the directory is made, which it is all the same."""
    file = init(tmp_path, "--with-certificates")
    capsys.readouterr()
    assert run("create", "--cluster", file.path, "--node", 1) == ExitCode.OK
    assert capsys.readouterr().err == ""
    files_of(file, 3).certificate.write_bytes(files_of(file, 2).certificate.read_bytes())
    files_of(file, 3).key.write_bytes(files_of(file, 2).key.read_bytes())
    assert run("create", "--cluster", file.path, "--node", 3) == ExitCode.OK
    assert "node-3.pem: the certificate is that of node 2, not of node 3" in capsys.readouterr().err


def test_it_may_lie_elsewhere(tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an option says, or a variable; and what was made is told as JSON."""
    file = init(tmp_path)
    capsys.readouterr()
    monkeypatch.setenv("TRIO_KV_CLUSTER", str(file.path))
    monkeypatch.setenv("TRIO_KV_NODE", "3")
    assert run("create", "--data-dir", tmp_path / "there", "--output", "json") == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told == {"cluster": file.cluster, "node": 3, "data_dir": str(tmp_path / "there")}
    open_host_directory(tmp_path / "there", cluster=file.cluster, nodes=3, node=3).close()


def test_what_is_not_empty_is_no_place(tmp_path: Path, capsys: Printed) -> None:
    """Nothing is put beside somebody's files."""
    file = init(tmp_path)
    assert run("create", "--cluster", file.path, "--node", 1, "--data-dir", tmp_path) == ExitCode.NOT_DONE
    assert f"{tmp_path} is not empty" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert (
        run("create", "--cluster", file.path, "--node", 1, "--data-dir", tmp_path / "file")
        == ExitCode.NOT_DONE
    )
    assert "file: not a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "--node is missing: it says which of the nodes 1, 2 and 3 this host has"),
        (("--node", 4), "there is no node 4 in"),
        (("--node", 10), "--node 10: must be <= 9"),
        (("--cluster", "none.toml"), "none.toml: no such file"),
    ],
)
def test_what_can_not_be_created_is_told(
    tmp_path: Path, capsys: Printed, words: tuple[object, ...], told: str
) -> None:
    """With what would be right."""
    file = init(tmp_path)
    named = words if "--cluster" in words else ("--cluster", file.path, *words)
    assert run("create", *named) == ExitCode.USAGE
    assert told in capsys.readouterr().err
    assert not list(tmp_path.glob("trio_kv-data*"))
