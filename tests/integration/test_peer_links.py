"""Mutual TLS between processes of a cluster, in virtual time: who is taken, and what both ends tell of who is not."""

import ssl
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from tests.linked import Linked, linked
from tests.unit.test_peer_tls import CLUSTER, LONG_AGO, OTHER, Papers, contexts_of
from trio_kv.kv.operations import Set
from trio_kv.trace.processes import LinkLost, LinkRefused, LinkRejected
from trio_kv.transport.peer_tls import PeerContexts, peer_name
from trio_kv.transport.secure import MutualTls, Security

HOSTS: dict[int, tuple[int, ...]] = {1: (1,), 2: (2,), 3: (3,)}


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


def secured(contexts: Mapping[int, PeerContexts]) -> dict[int, Callable[[Security], Security]]:
    return {
        process: partial(lambda own, below: MutualTls(own, CLUSTER, below), own)
        for process, own in contexts.items()
    }


async def write(cluster: Linked, process: int) -> str:
    answer = await cluster.all[process].store.write([Set("k", msgspec.Raw(b"1"))], timeout_s=10.0)
    return answer.replies[0].code


def told(cluster: Linked, process: int, kind: type[LinkRefused] | type[LinkRejected]) -> set[str]:
    return {each.reason for each in cluster.all[process].heard.events(kind) if isinstance(each, kind)}


def only(words: set[str]) -> str:
    """Return what alone was told."""
    assert len(words) == 1, words
    return words.pop()


async def test_who_proves_to_be_its_node_is_taken(
    papers: Papers, autojump_clock: trio.testing.MockClock
) -> None:
    """All processes speak to one another, and nobody complains."""
    contexts = {node: papers.node(node) for node in HOSTS}
    async with linked(HOSTS, security=secured(contexts)) as cluster:
        await cluster.wait_leader()
        assert [await write(cluster, process) for process in HOSTS] == ["ok"] * 3
        for process in HOSTS:
            assert told(cluster, process, LinkRefused) | told(cluster, process, LinkRejected) == set()


ENDED_BY = "the other process ended TLS: "
FAILED = "the TLS handshake failed: "


WRONG = {
    "foreign": (FAILED + "certificate verify failed: ", ENDED_BY + "tlsv1 alert unknown ca"),
    "ended": (
        FAILED + "certificate verify failed: certificate has expired",
        ENDED_BY + "sslv3 alert certificate expired",
    ),
    "second": (
        "the certificate is that of node 2, not of node 3",
        "refused: the certificate is that of node 2, not of node 3",
    ),
    "client": (
        "the certificate is that of no node: it lacks the name node-3.",
        "refused: the certificate is that of no node: it lacks the name node-3.",
    ),
    "cluster": (
        f"the certificate is that of node 3 of cluster {OTHER}, not of node 3 of cluster {CLUSTER}",
        f"refused: the certificate is that of node 3 of cluster {OTHER}, not of node 3 of cluster {CLUSTER}",
    ),
}
"""By what is wrong with the certificate of process 3: what the others say of it, and what it says itself."""


def issue_wrong(name: str, papers: Papers, elsewhere: Path) -> PeerContexts:
    """Return what process 3 has."""
    match name:
        case "foreign":
            files = Papers(elsewhere).issue(peer_name(CLUSTER, 3))
        case "ended":
            files = papers.issue(peer_name(CLUSTER, 3), not_before=LONG_AGO, not_after=LONG_AGO)
        case "second":
            files = papers.issue(peer_name(CLUSTER, 2))
        case "client":
            files = papers.issue("alice")
        case _:
            files = papers.issue(peer_name(OTHER, 3))
    contexts = contexts_of(files)
    for context in (contexts.listening, contexts.dialling):
        papers.ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return contexts


@pytest.mark.parametrize("name", WRONG)
async def test_who_can_not_prove_it_is_refused_and_both_ends_tell_why(
    name: str, papers: Papers, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Whoever calls whom: the words are in both logs, once, and in the status. The others go on."""
    said, heard = WRONG[name]
    third = issue_wrong(name, papers, tmp_path / "elsewhere")
    two = Papers(tmp_path / "two", papers.ca).node(2)
    async with linked(HOSTS, security=secured({1: papers.node(1), 2: two, 3: third})) as cluster:
        await trio.sleep(3.0)
        assert [await write(cluster, process) for process in (1, 2)] == ["ok"] * 2
        for process in (1, 2):
            word = only(told(cluster, process, LinkRefused))
            assert word.removeprefix("process 3: ").startswith(said)
            word = only(told(cluster, process, LinkRejected))
            assert word.startswith(said)
            assert len(cluster.all[process].heard.events(LinkRejected)) == 1
            status = cluster.all[process].process.cluster.registry.nodes[3]
            assert f"its process 3 can't be reached: {said}" in status.reason
        word = only(told(cluster, 3, LinkRejected))
        assert word.startswith(heard)
        for node in (1, 2):
            status = cluster.all[3].process.cluster.registry.nodes[node]
            assert f"its process {node} can't be reached: {heard}" in status.reason
        assert cluster.all[3].process.cluster.registry.leader() is None


async def test_new_certificates_are_for_new_connections(
    papers: Papers, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Those that live go on; who comes then is asked for what is in force."""
    old = {node: papers.node(node) for node in HOSTS}
    tls: dict[int, MutualTls] = {}

    def secure(node: int, below: Security) -> Security:
        tls[node] = MutualTls(old[node], CLUSTER, below)
        return tls[node]

    async with linked(HOSTS, security={node: partial(secure, node) for node in HOSTS}) as cluster:
        await cluster.wait_leader()
        renewed = Papers(tmp_path / "renewed")
        for node in (1, 2):
            tls[node].contexts = renewed.node(node)
        await trio.sleep(5.0)
        assert [await write(cluster, process) for process in HOSTS] == ["ok"] * 3
        assert not any(one.heard.events(LinkLost) for one in cluster.all.values())
        for source in HOSTS:
            for target in HOSTS:
                cluster.wires.break_all(source, target)
        await trio.sleep(5.0)
        assert [await write(cluster, process) for process in (1, 2)] == ["ok"] * 2
        assert any("certificate verify failed" in reason for reason in told(cluster, 3, LinkRejected))
        tls[3].contexts = renewed.node(3)
        await cluster.wait_leader()
        assert await write(cluster, 3) == "ok"
