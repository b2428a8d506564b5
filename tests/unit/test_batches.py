"""What one pass of a leader reads of its log: one follower that is far behind must not cost others their heartbeats."""

from random import Random

import pytest

from trio_kv.kv.commands import Expire
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.messages import AppendAccepted, AppendEntries, VoteReply
from trio_kv.raft.node import Raft

CONFIG = RaftConfig(append_entries_max=10, append_window=4)
PEERS = (2, 3, 4)
LAST = 101
"""The no-op of the term, and a hundred entries."""


@pytest.fixture
def raft() -> Raft:
    """Return node 1 of four, which leads term 1 and has a hundred entries that nobody else has."""
    raft = Raft(id=1, peers=PEERS, config=CONFIG, random=Random(1), incarnation=1, now=0.0)
    raft.become_candidate(0.0, "a test", is_pre_vote=False)
    store(raft)
    for peer in (2, 3):
        raft.receive(0.0, VoteReply(peer, 1, 1, 1, False, True))
    store(raft)
    raft.propose(0.0, [Expire(1)] * (LAST - 1))
    sent(raft)
    return raft


def store(raft: Raft) -> None:
    while (write := raft.ready(0.0).write) is not None:
        raft.stored(0.0, write.ticket)


def has(raft: Raft, peer: int, last: int) -> None:
    """Let a follower say that it has all up to `last`."""
    raft.receive(0.0, AppendAccepted(peer, 1, 1, 1, False, last, None))


def sent(raft: Raft) -> dict[int, list[tuple[int, int]]]:
    """Return, for each follower, first and last index of each append that one pass sends."""
    found: dict[int, list[tuple[int, int]]] = {}
    for message in raft.ready(0.0).messages:
        if isinstance(message, AppendEntries):
            entries = message.entries
            found.setdefault(message.target, []).append((entries[0].index, entries[-1].index))
    return found


def test_a_pass_reads_no_more_than_a_batch_for_one_follower(raft: Raft) -> None:
    has(raft, 2, 1)
    for first in (2, 12, 22, 32):
        assert raft.has_more == (first > 2)
        assert sent(raft) == {2: [(first, first + 9)]}
    assert not raft.has_more, "its window is full"
    assert sent(raft) == {}
    has(raft, 2, 21)
    assert sent(raft) == {2: [(42, 51)]}
    assert raft.has_more


def test_each_follower_gets_a_batch_in_each_pass(raft: Raft) -> None:
    """One that is further behind, and answers at once, must not keep the others waiting."""
    has(raft, 2, 1)
    has(raft, 3, 51)
    for times in range(3):
        behind, before = 2 + 10 * times, 52 + 10 * times
        assert sent(raft) == {2: [(behind, behind + 9)], 3: [(before, before + 9)]}
        has(raft, 2, behind + 9)


def test_followers_who_lack_the_same_share_what_was_read(raft: Raft) -> None:
    for peer in PEERS:
        has(raft, peer, 81)
    assert sent(raft) == {peer: [(82, 91)] for peer in PEERS}
    assert sent(raft) == {peer: [(92, 101)] for peer in PEERS}
    assert not raft.has_more


def test_few_entries_go_out_at_once(raft: Raft) -> None:
    """Several batches in a pass, as long as they are small."""
    raft.config = RaftConfig(append_entries_max=10, append_bytes_max=1, append_window=4)
    has(raft, 2, 1)
    assert sent(raft) == {2: [(2, 2), (3, 3), (4, 4), (5, 5)]}
    assert not raft.has_more


@pytest.mark.parametrize("left", [0, 1 << 20])
def test_a_full_disk_that_has_all_it_has_space_for_is_not_waited_for(raft: Raft, left: int) -> None:
    raft.receive(0.0, AppendAccepted(2, 1, 1, 1, False, 1, left))
    assert bool(sent(raft)) == bool(left)
    assert not raft.has_more
    has(raft, 3, 51)
    assert sent(raft) == {3: [(52, 61)]}, "the full one takes one append at a time"
    assert raft.has_more
