"""To whom a leader hands over that could as well lead on."""

import pytest

from tests.unit.test_near import PEERS, leader, store
from trio_kv.raft.entry import make_entry
from trio_kv.raft.leader import SUCCESSOR_BEHIND_MAX, Leader
from trio_kv.raft.messages import AppendAccepted, AppendRejected
from trio_kv.raft.node import Raft

COUNT = 2 * SUCCESSOR_BEHIND_MAX
MAX = SUCCESSOR_BEHIND_MAX


def leading(behind: dict[int, int]) -> tuple[Raft, Leader]:
    """Return a leader with a long log, and its role; followers lack so many entries, or nearly all."""
    raft = leader()
    raft.append([make_entry(index, 1, 0, None) for index in range(2, 2 + COUNT)])
    store(raft)
    for peer in PEERS:
        match = raft.log.last_index - behind.get(peer, COUNT)
        raft.receive(0.0, AppendAccepted(peer, 1, 1, 1, False, match, None))
    assert isinstance(raft.role, Leader)
    return raft, raft.role


@pytest.mark.parametrize(
    ("behind", "peers", "found"),
    [
        ({2: 5, 3: 2, 4: 0}, (2, 3), 3),
        ({2: 2, 3: 2}, (3, 2), 2),
        ({2: MAX}, (2,), 2),
        ({2: MAX + 1}, (2,), None),
        ({2: MAX + 1, 3: MAX - 1}, (2, 3), 3),
        ({}, (), None),
    ],
)
def test_it_is_one_that_has_nearly_all_of_the_log(
    behind: dict[int, int], peers: tuple[int, ...], found: int | None
) -> None:
    """Of those that are asked about the one that has most; nobody, if commands would wait for all of them."""
    assert leading(behind)[1].successor(peers) == found


def test_it_is_nobody_who_is_being_rebuilt() -> None:
    """Such a node stands for no election."""
    raft, role = leading({2: 0, 3: 1})
    raft.receive(0.0, AppendRejected(2, 1, 1, 1, True, 1, 0, 1))
    assert not role.progress[2].counts
    assert role.successor((2, 3)) == 3
    assert role.successor((2,)) is None
