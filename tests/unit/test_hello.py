"""The hello: who is taken for a process of the cluster, and by which word everybody else is sent away."""

from random import Random

import attrs
import msgspec
import pytest

from trio_kv.transport import hello
from trio_kv.transport.hello import Known
from trio_kv.transport.peers import Identity, Layout
from trio_kv.wire import incarnations
from trio_kv.wire.incarnations import FIRST_END
from trio_kv.wire.links import VERSIONS, Welcome

LAYOUT = Layout(1, {1: (1,), 2: (2,), 3: (3,)}, {each: ("host", each) for each in (1, 2, 3)})
OWN = Identity(layout=LAYOUT, cluster="c" * 32, secret="known to all")
OTHER = attrs.evolve(OWN, layout=attrs.evolve(LAYOUT, own=2))
FIRST, SECOND = 7, FIRST_END + 7
"""Incarnations of a first disk, and of one that replaced it."""


def knowing(incarnation: int) -> Known:
    return lambda node: incarnation if node == 2 else 0


def refused(known: int = FIRST, /, **changes: object) -> str | None:
    said = OTHER.hello({2: FIRST}, 1)
    return hello.why_refused(msgspec.structs.replace(said, **changes), OWN, knowing(known))


def welcome(**changes: object) -> str | None:
    right = Welcome(version=VERSIONS[1], process=2, incarnations={2: FIRST}, nodes=3)
    return hello.why_not_welcome(msgspec.structs.replace(right, **changes), 2, OWN, knowing(FIRST))


def test_a_peer_is_taken() -> None:
    """As it says it is, by both ends, whether it was heard of before or not; for snapshots, and to ask."""
    assert refused() is None
    assert refused(0) is None
    assert refused(is_bulk=True) is None
    assert refused(is_asking=True, incarnations={}) is None
    assert welcome() is None


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"secret": "guessed"}, "it does not know the secret"),
        ({"secret": ""}, "it does not know the secret"),
        ({"cluster": "d" * 32}, "it belongs to cluster d"),
        ({"versions": (VERSIONS[1] + 1, VERSIONS[1] + 1)}, "it speaks versions"),
        ({"versions": (0, VERSIONS[0] - 1)}, "it speaks versions"),
        ({"target": 3}, "it wants process 3, and this is process 1"),
        ({"process": 1}, "there is no other process 1"),
        ({"process": 4}, "there is no other process 4"),
        ({"nodes": 5}, "its cluster has 5 nodes, and this one 3"),
        ({"incarnations": {}}, "it has nodes [], and process 2 has [2]"),
        ({"incarnations": {2: FIRST, 3: FIRST}}, "it has nodes [2, 3]"),
        ({"incarnations": {2: FIRST - 1}}, "node 2 was made twice"),
        ({"incarnations": {2: FIRST + 1}}, "node 2 was made twice"),
        ({"is_asking": True}, "it asks what is known of its nodes, and has some"),
        ({"is_asking": True, "incarnations": {}, "is_bulk": True}, "it asks what is known"),
        ({"is_asking": True, "incarnations": {}, "nodes": 5}, "its cluster has 5 nodes"),
        ({"is_asking": True, "incarnations": {}, "secret": ""}, "it does not know the secret"),
    ],
)
def test_whatever_differs_is_a_reason(changes: dict[str, object], word: str) -> None:
    """Each rule by itself, also for one who only asks."""
    assert word in str(refused(FIRST, **changes))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"process": 3}, "process 3 answers where process 2 was called"),
        ({"version": VERSIONS[1] + 1}, "it chose version"),
        ({"nodes": 5}, "its cluster has 5 nodes, and this one 3"),
        ({"incarnations": {3: FIRST}}, "it has nodes [3]"),
        ({"incarnations": {2: FIRST + 1}}, "node 2 was made twice"),
    ],
)
def test_who_answers_is_looked_at_as_well(changes: dict[str, object], word: str) -> None:
    """A process that calls another one would send its votes there."""
    assert word in str(welcome(**changes))


def test_whoever_does_not_know_the_secret_learns_nothing_else() -> None:
    """Whatever else is wrong with his hello."""
    assert "secret" in str(refused(secret="", cluster="d" * 32, target=3))


def test_a_disk_that_replaced_another_one_is_taken_and_its_former_self_no_more() -> None:
    """Whether the former one was the first, and whether it was ever heard of."""
    assert refused(0, incarnations={2: SECOND}) is None
    assert refused(FIRST, incarnations={2: SECOND}) is None
    assert refused(SECOND, incarnations={2: SECOND + 1}) is None
    for former in (FIRST, SECOND - 1):
        assert "a former self" in str(refused(SECOND, incarnations={2: former}))


def test_a_disk_that_replaces_one_is_higher_than_all_that_there_were() -> None:
    """Also than a first one of which nobody has heard; and no JSON reader rounds it."""
    random = Random(1)
    for _ in range(1000):
        first = incarnations.draw_first(random)
        assert 0 < first < FIRST_END
        for known in (0, first):
            second = incarnations.draw_successor(known, random)
            assert first < second < 2**53
            assert second < incarnations.draw_successor(second, random)
            assert incarnations.why_no_successor(second, first) is None
