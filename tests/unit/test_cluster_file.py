"""`cluster.toml`: what it says of nodes on hosts of their own, and what is told of one that can't be."""

from pathlib import Path

import pytest

from trio_kv.cli.cluster_file import ClusterFile, parse_address, read_cluster_file
from trio_kv.cli.errors import UsageError
from trio_kv.transport.peer_tls import PeerFiles

CLUSTER = "c0ffee" * 5 + "42"
HEAD = f'cluster = "{CLUSTER}"\n'
TWO = '[nodes.1]\npeer = "10.0.0.1:3003"\n[nodes.2]\npeer = "10.0.0.2:3003"\n'
SECRET = 'secret = "0123456789abcdef"\n'
TLS = '[tls]\nca = "ca.pem"\ncert = "/etc/node-{node}.pem"\nkey = "keys/{node}/{node}.key"\n'


def read(directory: Path, text: str) -> ClusterFile:
    path = directory / "cluster.toml"
    path.write_text(text)
    path.chmod(0o600)
    return read_cluster_file(path)


def test_a_file_says_who_there_is(tmp_path: Path) -> None:
    """Every node with its addresses, and where its data lies; what is not said is for `serve` to know."""
    second = '[nodes.2]\npeer = "[fd00::2]:3003"\nlisten = "n2.example:4001"\ncontrol = "127.0.0.1:4002"\n'
    file = read(
        tmp_path, HEAD + '[nodes.1]\npeer = "n1.example:3003"\n' + second + 'data-dir = "/var/lib/n{node}"\n'
    )
    assert (file.cluster, file.nodes) == (CLUSTER, (1, 2))
    one, two = file.peer(1), file.peer(2)
    assert (one.node, one.address, one.listen, one.control) == (1, ("n1.example", 3003), None, None)
    assert one.data_dir == tmp_path / "trio_kv-data-1"
    assert (two.address, two.listen, two.control) == (
        ("fd00::2", 3003),
        ("n2.example", 4001),
        ("127.0.0.1", 4002),
    )
    assert two.data_dir == Path("/var/lib/n2")
    assert file.peer_files(1) is None
    with pytest.raises(UsageError, match=r"no node 3 in .*cluster\.toml: the nodes are 1 and 2"):
        file.peer(3)


def test_one_file_serves_all_hosts(tmp_path: Path) -> None:
    """Paths are relative to it, and have the node's number in them."""
    file = read(tmp_path, HEAD + TWO + TLS)
    assert file.peer_files(2) == PeerFiles(
        tmp_path / "ca.pem", Path("/etc/node-2.pem"), tmp_path / "keys/2/2.key"
    )


def test_what_others_can_reach_needs_certificates(tmp_path: Path) -> None:
    """On loopback, with certificates, or if a person wants it so: else it is refused, with what would do."""
    file = read(tmp_path, HEAD + TWO)
    with pytest.raises(UsageError, match=r"node 1 at 10\.0\.0\.1:3003 can be reached by others.* --insecure"):
        file.check_access(is_insecure=False)
    file.check_access(is_insecure=True)
    read(tmp_path, HEAD + TWO + TLS).check_access(is_insecure=False)


def test_where_there_are_no_certificates_there_is_a_secret(tmp_path: Path) -> None:
    """Between nodes of one machine; and it is for nobody else to read."""
    one = '[nodes.1]\npeer = "127.0.0.1:1"\n'
    with pytest.raises(
        UsageError, match=r"anybody on this machine .* give a secret.* \[tls\], or add --insecure"
    ):
        read(tmp_path, HEAD + one).check_access(is_insecure=False)
    read(tmp_path, HEAD + one).check_access(is_insecure=True)
    file = read(tmp_path, HEAD + SECRET + one)
    file.check_access(is_insecure=False)
    assert file.secret == "0123456789abcdef"
    assert file.secret not in repr(file)
    with pytest.raises(UsageError, match="can be reached by others"):
        read(tmp_path, HEAD + SECRET + TWO).check_access(is_insecure=False)
    for mode in (0o640, 0o604, 0o620):
        file.path.chmod(mode)
        with pytest.raises(UsageError, match=rf"can be read by others \(mode 0{mode:o}\): chmod 600 "):
            read_cluster_file(file.path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TWO, "cluster is missing: the cluster's id, 32 hexadecimal digits"),
        ("cluster = 7\n" + TWO, "cluster is 7; right would be the cluster's id"),
        (
            f'cluster = "{CLUSTER.upper()}"\n' + TWO,
            "right would be 32 hexadecimal digits, as `trio-kv cluster",
        ),
        (HEAD, r"nodes is missing: a table, as \[nodes\]"),
        (HEAD + "nodes = 3", r"nodes is 3; right would be a table, as \[nodes\]"),
        (HEAD + "[nodes]", r"numbered from 1 on, without a gap, .* here they are none"),
        (HEAD + '[nodes.1]\npeer = "a:1"\n[nodes.3]\npeer = "b:1"', "here they are 1 and 3"),
        (HEAD + '[nodes.a]\npeer = "a:1"', "here they are a"),
        (HEAD + '[nodes]\n1 = "a:1"', r"nodes.1 is 'a:1'; right would be a table, as \[nodes\.1\]"),
        (HEAD + "".join(f'[nodes.{n}]\npeer = "a:{n}"\n' for n in range(1, 11)), "up to 9 of them"),
        (HEAD + "[nodes.1]", r"nodes\.1\.peer is missing: host:port, such as 10\.0\.0\.1:3003"),
        (HEAD + "[nodes.1]\npeer = 3003", r"nodes\.1\.peer is 3003; right would be host:port"),
        (HEAD + '[nodes.1]\npeer = "a"', r"nodes\.1\.peer: 'a' is no host:port"),
        (HEAD + '[nodes.1]\npeer = "::1:3003"', r"nodes\.1\.peer: '::1:3003' is no host:port"),
        (HEAD + '[nodes.1]\npeer = "a:0"', r"nodes\.1\.peer: a port is 1 to 65535, not 0"),
        (HEAD + '[nodes.1]\npeer = "a:x"', r"nodes\.1\.peer: 'x' is no whole number"),
        (HEAD + '[nodes.1]\npeer = "http://a:1"', r"nodes\.1\.peer: "),
        (HEAD + TWO.replace("0.2", "0.1"), r"nodes 1 and 2 have the same peer address 10\.0\.0\.1:3003"),
        (HEAD + '[nodes.1]\npeer = "a:1"\nlisten = "a:1"', "node 1 has a:1 twice"),
        (
            HEAD + '[nodes.1]\npeer = "a:1"\nlisen = "a:2"',
            r"there is no key nodes\.1\.lisen: did you mean listen\?",
        ),
        (HEAD + '[nodes.1]\npeer = "a:1"\ndata_dir = "d"', "did you mean data-dir"),
        (HEAD + '[nodes.1]\npeer = "a:1"\ndata-dir = ""', r"nodes\.1\.data-dir is ''; right would be a path"),
        (HEAD + TWO + '[tls]\nca = "x"', r"tls\.cert is missing: a path to a file in PEM"),
        (
            HEAD + TWO + TLS.replace("cert", "certificate"),
            r"no key tls\.certificate: there are ca, cert, key",
        ),
        ("token = 1\n" + HEAD + TWO, "there is no key token: there are cluster, nodes, secret, tls"),
        ('secret = "short"\n' + HEAD + TWO, "secret has 5 characters; right would be 16 to 200 characters"),
        ("secret = 7\n" + HEAD + TWO, "secret is 7; right would be 16 to 200"),
        ("cluster = ", "is not TOML"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """The message names the file, the key, and what would be right."""
    with pytest.raises(UsageError, match=words) as refused:
        read(tmp_path, text)
    assert str(tmp_path / "cluster.toml") in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It is named."""
    with pytest.raises(UsageError, match=r"none\.toml: no such file"):
        read_cluster_file(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:3003", ("10.0.0.1", 3003)),
        ("[::1]:65535", ("::1", 65535)),
        ("n1.example:1", ("n1.example", 1)),
    ],
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    """IPv6 in brackets."""
    assert parse_address(text) == address
