"""The arithmetic of majorities, for every size of cluster that can be started."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_kv.raft.quorum import majority_size, quorum_value


@pytest.mark.parametrize(
    ("members", "size"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4), (8, 5), (9, 5)]
)
def test_a_majority_is_more_than_half(members: int, size: int) -> None:
    """Half of an even cluster is no majority (scenario R8)."""
    assert majority_size(members) == size


@pytest.mark.parametrize("members", range(1, 10))
def test_two_majorities_always_meet(members: int) -> None:
    """Any two majorities share a node: all of Raft stands on that."""
    assert 2 * majority_size(members) > members


@pytest.mark.parametrize("members", range(1, 5))
def test_all_small_cases_by_looking(members: int) -> None:
    """The value is reached by a majority, and no greater one is: checked for every combination."""
    for values in product(range(4), repeat=members):
        result = quorum_value(values)
        assert sum(value >= result for value in values) >= majority_size(members)
        assert sum(value > result for value in values) < majority_size(members)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=9), st.data())
def test_progress_of_one_never_lowers_the_majority(values: list[int], data: st.DataObject) -> None:
    """When one member moves on, what a majority has reached stays or rises."""
    before = quorum_value(values)
    place = data.draw(st.integers(0, len(values) - 1))
    values[place] += data.draw(st.integers(0, 5))
    assert quorum_value(values) >= before
