"""TLS between nodes: only a certificate that names the cluster and the node makes a peer."""

import datetime as dt
import ssl
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
import trustme

from trio_kv.transport import peer_tls
from trio_kv.transport.peer_tls import (
    PeerContexts,
    PeerFiles,
    WrongPeerError,
    check_peer,
    load_peer,
    peer_name,
)
from trio_kv.transport.tls import CertificateError

CLUSTER = "c0ffee" * 5 + "42"
OTHER = "decade" * 5 + "42"
LONG_AGO = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)


@attrs.frozen
class Papers:
    """A CA, and certificates of it in files."""

    directory: Path
    ca: trustme.CA = attrs.field(factory=trustme.CA)

    def issue(self, *names: str, **how: dt.datetime) -> PeerFiles:
        issued = self.ca.issue_cert(*names, **how)  # type: ignore[arg-type]
        place = self.directory / names[0]
        place.mkdir(parents=True)
        files = PeerFiles(place / "ca.pem", place / "node.pem", place / "node.key")
        self.ca.cert_pem.write_to_path(files.ca)
        for blob in issued.cert_chain_pems:
            blob.write_to_path(files.certificate, append=True)
        issued.private_key_pem.write_to_path(files.key)
        return files

    def node(self, node: int) -> PeerContexts:
        return load_peer(self.issue(peer_name(CLUSTER, node), "127.0.0.1"), CLUSTER, node)


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


def contexts_of(files: PeerFiles) -> PeerContexts:
    """Return what somebody can have that holds these files, and is not looked at."""
    listening, dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    dialling.check_hostname = False
    dialling.verify_mode = ssl.CERT_NONE
    for context in (listening, dialling):
        context.load_cert_chain(files.certificate, files.key)
    return PeerContexts(listening, dialling)


def connect(dialling: PeerContexts, listening: PeerContexts) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Return both ends of a connection in memory. Raises ssl.SSLError: there is none."""
    return peer_tls._shake_hands(PeerContexts(listening.listening, dialling.dialling))


def test_both_ends_know_the_other_one(papers: Papers) -> None:
    """By name and by TLS 1.3, whoever dials."""
    one, two = papers.node(1), papers.node(2)
    for dialling, listening, nodes in ((one, two, (2, 1)), (two, one, (1, 2))):
        for end, node in zip(connect(dialling, listening), nodes, strict=True):
            check_peer(end, CLUSTER, node)
            assert end.version() == "TLSv1.3"
            with pytest.raises(WrongPeerError, match=rf"is that of node {node}, not of node 3$"):
                check_peer(end, CLUSTER, 3)
            with pytest.raises(WrongPeerError, match=f"of node {node} of cluster {CLUSTER}, not .* {OTHER}"):
                check_peer(end, OTHER, node)


def test_tls_1_2_is_the_least(papers: Papers) -> None:
    """It will do, and nothing older."""
    one, two = papers.node(1), papers.node(2)
    assert one.dialling.minimum_version is ssl.TLSVersion.TLSv1_2
    one.dialling.maximum_version = ssl.TLSVersion.TLSv1_2
    ends = connect(one, two)
    assert [end.version() for end in ends] == ["TLSv1.2"] * 2
    check_peer(ends[0], CLUSTER, 2)
    check_peer(ends[1], CLUSTER, 1)


@pytest.mark.parametrize("names", [("alice",), ("127.0.0.1", "localhost"), ("*." + CLUSTER + ".trio-kv",)])
def test_a_certificate_of_the_same_ca_makes_no_peer(papers: Papers, names: tuple[str, ...]) -> None:
    """Neither a client's, nor a door's, nor one for all names of the cluster."""
    stranger = contexts_of(papers.issue(*names))
    _, end = connect(stranger, papers.node(1))
    for node in (1, 2, 3):
        with pytest.raises(WrongPeerError, match=rf"of no node: it lacks the name node-{node}\."):
            check_peer(end, CLUSTER, node)


def test_a_name_of_another_ca_counts_for_nothing(papers: Papers, tmp_path: Path) -> None:
    """The handshake fails, at either end."""
    stranger = contexts_of(Papers(tmp_path / "elsewhere").issue(peer_name(CLUSTER, 2)))
    one = papers.node(1)
    for dialling, listening in ((one, stranger), (stranger, one)):
        with pytest.raises(ssl.SSLError):
            connect(dialling, listening)


def test_who_shows_nothing_is_no_peer(papers: Papers) -> None:
    """A certificate is asked for."""
    nothing = PeerContexts(papers.node(1).listening, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    nothing.dialling.check_hostname = False
    nothing.dialling.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError):
        connect(nothing, papers.node(2))


def test_one_that_has_ended_is_refused(papers: Papers) -> None:
    """By the peer that it is shown to."""
    old = contexts_of(papers.issue(peer_name(CLUSTER, 2), not_before=LONG_AGO, not_after=LONG_AGO))
    with pytest.raises(ssl.SSLError):
        connect(old, papers.node(1))


def test_what_no_peer_would_take_is_refused_at_the_start(papers: Papers, tmp_path: Path) -> None:
    """One that has ended, of another CA, of another node or of none: the file and the reason are told."""
    old = papers.issue(peer_name(CLUSTER, 2), not_before=LONG_AGO, not_after=LONG_AGO)
    with pytest.raises(
        CertificateError, match=r"node\.pem: no peer would take it .*: certificate has expired"
    ):
        load_peer(old, CLUSTER, 2)
    foreign = Papers(tmp_path / "elsewhere").issue(peer_name(CLUSTER, 3))
    with pytest.raises(CertificateError, match="unable to get local issuer"):
        load_peer(attrs.evolve(foreign, ca=old.ca), CLUSTER, 3)
    third = papers.issue(peer_name(CLUSTER, 3))
    with pytest.raises(
        CertificateError, match=r"node\.pem: the certificate is that of node 3, not of node 1"
    ):
        load_peer(third, CLUSTER, 1)
    with pytest.raises(CertificateError, match="of no node: it lacks the name node-1"):
        load_peer(papers.issue("alice"), CLUSTER, 1)


def test_files_that_can_not_be_used_are_told(papers: Papers, tmp_path: Path) -> None:
    """As those of doors: which one, and why."""
    good, other = papers.issue(peer_name(CLUSTER, 1)), papers.issue(peer_name(CLUSTER, 2))
    for files, what in (
        (attrs.evolve(good, ca=tmp_path / "none"), "none: no such file"),
        (attrs.evolve(good, certificate=tmp_path / "none"), "none: no such file"),
        (attrs.evolve(good, ca=good.key), r"node\.key: "),
        (attrs.evolve(good, key=other.key), "the key is not that of the certificate"),
    ):
        with pytest.raises(CertificateError, match=what):
            load_peer(files, CLUSTER, 1)


def test_a_certificate_may_be_that_of_several_nodes(papers: Papers) -> None:
    """That is for who issues it to decide."""
    files = papers.issue(peer_name(CLUSTER, 1), peer_name(CLUSTER, 2))
    load_peer(files, CLUSTER, 1)
    load_peer(files, CLUSTER, 2)
    with pytest.raises(CertificateError, match="is that of node 1 and node 2, not of node 3"):
        load_peer(files, CLUSTER, 3)


async def test_a_stream_of_trio_will_do(papers: Papers) -> None:
    """Its certificate is looked at as that of any other end."""
    near, far = trio.testing.memory_stream_pair()
    dialling = trio.SSLStream(near, papers.node(1).dialling)
    listening = trio.SSLStream(far, papers.node(2).listening, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialling.do_handshake)
        nursery.start_soon(listening.do_handshake)
    check_peer(dialling, CLUSTER, 2)
    check_peer(listening, CLUSTER, 1)
