"""Who decides: majorities of sets of nodes, for every size of cluster and while members change."""

from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_kv.raft.voters import Voters

NODES = st.frozensets(st.integers(1, 9), min_size=1, max_size=9)
VOTERS = st.builds(Voters, NODES, st.none() | NODES)
VALUES = st.dictionaries(st.integers(1, 12), st.integers(0, 20), max_size=12)


def subsets(nodes: frozenset[int]) -> list[frozenset[int]]:
    return [frozenset(some) for size in range(len(nodes) + 1) for some in combinations(sorted(nodes), size)]


@pytest.mark.parametrize(
    ("count", "size"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4), (8, 5), (9, 5)]
)
def test_a_majority_is_more_than_half(count: int, size: int) -> None:
    """Half of an even cluster is no majority (scenario R8)."""
    voters = Voters(range(1, count + 1))
    assert voters.majority_size() == size
    assert voters.has_majority(range(1, size + 1))
    assert not voters.has_majority(range(1, size))


def test_without_voters_there_is_no_majority() -> None:
    """Nobody decides for a group that has no voters, and nothing is reached in it."""
    assert not Voters(()).has_majority({1, 2, 3})
    assert Voters(()).reached({1: 5}, 0) == 0


def test_who_is_no_voter_counts_for_nothing() -> None:
    """A node that is heard and does not vote neither makes a majority nor moves what is reached."""
    voters = Voters({1, 2, 3})
    assert not voters.has_majority({1, 7, 8, 9})
    assert voters.reached({1: 5, 7: 9, 8: 9, 9: 9}, 0) == 0
    assert 7 not in voters


@settings(max_examples=200)
@given(VOTERS, st.data())
def test_two_majorities_always_meet(voters: Voters, data: st.DataObject) -> None:
    """Any two majorities share a voter, also of the old set alone: all of Raft stands on that."""
    everybody = voters.nodes | (voters.old or frozenset())
    some = data.draw(st.sampled_from([each for each in subsets(everybody) if voters.has_majority(each)]))
    assert not voters.has_majority(everybody - some)
    for half in (voters.nodes, voters.old):
        if half is not None:
            assert not Voters(half).has_majority(half - some), "each half is met"


@settings(max_examples=200)
@given(VOTERS, VALUES)
def test_what_is_reached_is_reached_by_a_majority_and_no_more_is(
    voters: Voters, values: dict[int, int]
) -> None:
    """A majority has the value returned, and no majority has a greater one: the two questions agree."""
    reached = voters.reached(values, 0)
    assert voters.has_majority(
        {node for node in voters.nodes | (voters.old or frozenset()) if values.get(node, 0) >= reached}
    )
    assert not voters.has_majority({node for node, value in values.items() if value > reached})


@pytest.mark.parametrize("count", range(1, 5))
def test_all_small_cases_by_counting(count: int) -> None:
    """For every combination of values the value is the one that counting by hand finds."""
    voters = Voters(range(1, count + 1))
    for numbers in product(range(4), repeat=count):
        values = dict(enumerate(numbers, 1))
        by_hand = max(each for each in range(4) if sum(number >= each for number in numbers) * 2 > count)
        assert voters.reached(values, 0) == by_hand


@settings(max_examples=100)
@given(VOTERS, VALUES, st.integers(1, 9), st.integers(0, 5))
def test_progress_of_one_never_lowers_what_is_reached(
    voters: Voters, values: dict[int, int], node: int, more: int
) -> None:
    """When one node moves on, what a majority has reached stays or rises."""
    before = voters.reached(values, 0)
    assert voters.reached({**values, node: values.get(node, 0) + more}, 0) >= before
