"""Group commit: when the commands that wait are appended, and for whom they wait."""

from types import SimpleNamespace
from typing import Any

import pytest

from trio_kv.replica.group import GROUP_S, Group
from trio_kv.wire.node_port import Propose, ReplyTo


@pytest.fixture
def raft() -> Any:
    """A leader with nothing on its way."""
    return SimpleNamespace(is_leader=True, is_committing=False)


def propose(number: int) -> Propose:
    return Propose(ReplyTo(1, 1), number, [])


def behind(raft: Any, in_round: int, *numbers: int) -> Group:
    """Return commands that came while a round was under way, at the moment of its commit."""
    group = Group()
    raft.is_committing = True
    for number in numbers:
        group.add(0.0, propose(number))
        assert not group.is_due(0.0, raft, in_round)
    raft.is_committing = False
    return group


def test_commands_that_come_alone_wait_for_nobody(raft: Any) -> None:
    """Nothing is under way that they could have waited for."""
    group = Group()
    group.add(0.0, propose(1))
    assert group.missing == 0
    assert group.is_due(0.0, raft, 0)
    assert [each.number for each in group.take()] == [1]
    assert group.deadline == float("inf")


def test_the_next_round_begins_with_those_who_were_answered(raft: Any) -> None:
    """Three had their answers, so as many are waited for; once they are there the round begins."""
    group = behind(raft, 3, 1, 2)
    assert not group.is_due(0.0, raft, 3)
    for number, missing in ((3, 3), (4, 2)):
        assert group.missing == missing
        group.add(0.0, propose(number))
        assert not group.is_due(0.0, raft, 0)
    group.add(0.0, propose(5))
    assert group.is_due(0.0, raft, 0)
    assert [each.number for each in group.take()] == [1, 2, 3, 4, 5]


def test_those_who_do_not_come_back_are_not_waited_for(raft: Any) -> None:
    """Others had their turns, and they still have not asked."""
    group = behind(raft, 3, 1, 2)
    assert not group.is_due(0.0, raft, 3)
    group.close()
    assert group.missing == 0
    assert group.is_due(0.0, raft, 0)


def test_nobody_waits_for_longer_than_that(raft: Any) -> None:
    """Be it for a commit or for others."""
    group = behind(raft, 3, 1)
    assert group.deadline == GROUP_S
    assert not group.is_due(GROUP_S / 2, raft, 3)
    assert group.is_due(GROUP_S, raft, 0)
    raft.is_committing = True
    assert group.is_due(GROUP_S, raft, 0)


def test_a_group_is_taken_at_once_if_its_node_leads_no_more(raft: Any) -> None:
    """It is refused then."""
    group = behind(raft, 3, 1)
    assert not group.is_due(0.0, raft, 3)
    raft.is_leader = False
    assert group.is_due(0.0, raft, 3)


def test_what_one_group_waited_for_is_nothing_to_the_next(raft: Any) -> None:
    """It was behind a round; the commands that come when it is gone are not."""
    group = behind(raft, 3, 1)
    assert not group.is_due(0.0, raft, 3)
    group.take()
    group.add(1.0, propose(2))
    assert group.is_due(1.0, raft, 0)
