"""A follower against hand-made messages, also such as no correct leader sends."""

from random import Random

import pytest

from trio_kv.raft.config import RaftConfig
from trio_kv.raft.entry import make_entry
from trio_kv.raft.log import Log
from trio_kv.raft.messages import AppendAccepted, AppendEntries, AppendRejected, Heartbeat
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import HardState


def follower(*terms: int, term: int) -> Raft:
    """Return node 1 of two, whose entries have these terms."""
    log = Log([make_entry(index, of, 0, None) for index, of in enumerate(terms, 1)])
    return Raft(
        id=1,
        peers=[2],
        config=RaftConfig(log_entries_kept=0),
        random=Random("follower"),
        incarnation=1,
        incarnations={2: 2},
        now=0.0,
        hard_state=HardState(term, None),
        log=log,
    )


def append(term: int, prev: tuple[int, int], *terms: int, commit: int = 0) -> AppendEntries:
    """Return node 2's append of entries of these terms behind `prev`."""
    entries = tuple(make_entry(prev[0] + 1 + place, of, 0, None) for place, of in enumerate(terms))
    return AppendEntries(2, 1, term, 2, False, *prev, entries, commit)


def test_L6_an_append_commits_no_further_than_it_verifies() -> None:
    """Scenario L6: what stands behind the entries of an append may be of another leader, and is not committed."""
    raft = follower(1, 2, 2, 2, term=3)
    raft.receive(0.0, append(3, (0, 0), 1, commit=4))
    assert raft.commit == 1


def test_L6_a_heartbeat_commits_no_further_than_the_entry_it_names() -> None:
    """Scenario L6, with a heartbeat."""
    raft = follower(1, 2, 2, 2, term=3)
    raft.receive(0.0, Heartbeat(2, 1, 3, 2, False, 0, 1, 1, 4))
    assert raft.commit == 1


def test_a_tail_without_conflict_is_kept() -> None:
    """An append that ends inside the log cuts nothing off: the rest may be newer (scenario L5)."""
    raft = follower(1, 1, 1, term=1)
    raft.receive(0.0, append(1, (0, 0), 1, 1))
    assert raft.log.last_index == 3
    (reply,) = raft.ready(0.0).messages
    assert reply == AppendAccepted(1, 2, 1, 1, False, 2)


def test_a_committed_entry_is_never_cut_away() -> None:
    """A leader that contradicts a committed entry is a broken one: the node stops rather than obeys."""
    raft = follower(1, 1, term=1)
    raft.receive(0.0, append(1, (2, 1), commit=2))
    with pytest.raises(AssertionError, match="committed"):
        raft.receive(0.0, append(2, (0, 0), 2))


def test_two_leaders_of_one_term_are_an_error() -> None:
    """Election Safety is asserted where it would be seen to break (paper figure 3)."""
    raft = Raft(
        id=1, peers=[2, 3], config=RaftConfig(log_entries_kept=0), random=Random("f"), incarnation=1, now=0.0
    )
    raft.receive(0.0, Heartbeat(2, 1, 1, 2, False, 0, 0, 0, 0))
    with pytest.raises(AssertionError, match="two leaders"):
        raft.receive(0.0, Heartbeat(3, 1, 1, 3, False, 0, 0, 0, 0))


def test_a_log_too_short_says_where_it_ends() -> None:
    """The hint is one past the end, with term 0."""
    raft = follower(1, 1, term=1)
    raft.receive(0.0, append(1, (7, 1), 1))
    (reply,) = raft.ready(0.0).messages
    assert reply == AppendRejected(1, 2, 1, 1, False, 7, 0, 3)


def test_a_conflict_names_the_whole_term() -> None:
    """The hint is the conflicting term's first index, so that the leader steps over all of it (paper §5.3)."""
    raft = follower(1, 2, 2, 2, term=3)
    raft.receive(0.0, append(3, (4, 1), 3))
    (reply,) = raft.ready(0.0).messages
    assert reply == AppendRejected(1, 2, 3, 1, False, 4, 2, 2)


def test_an_append_below_the_base_is_taken_from_the_base_on() -> None:
    """What a snapshot covers is committed, hence equal: only what lies behind it is looked at."""
    raft = follower(1, 1, 1, term=1)
    raft.receive(0.0, append(1, (3, 1), commit=3))
    raft.ready(0.0)
    assert raft.compact(2) == 2
    raft.receive(0.0, append(1, (0, 0), 1, 1, 1, 1))
    assert raft.log.last_index == 4


def test_a_message_for_another_node_or_of_a_stranger_is_ignored() -> None:
    """Neither moves the term."""
    raft = follower(1, term=1)
    raft.receive(0.0, Heartbeat(9, 1, 5, 2, False, 0, 0, 0, 0))
    raft.receive(0.0, Heartbeat(2, 3, 5, 2, False, 0, 0, 0, 0))
    assert raft.term == 1


def test_a_copy_goes_its_own_way() -> None:
    """A copy in the same state answers the same, and nothing of it reaches the original."""
    raft = follower(1, term=1)
    raft.receive(0.0, append(1, (1, 1), 1, 1))
    raft.read("r")
    twin = raft.copy()
    expected = twin.ready(0.0)
    assert expected.write is not None
    twin.stored(0.0, expected.write.ticket)
    twin.receive(1.0, append(2, (1, 1), 2))
    assert (raft.term, raft.log.last_index, raft.log.durable) == (1, 3, 1)
    assert raft.ready(0.0) == expected


def test_an_append_behind_the_snapshot_is_answered() -> None:
    """A follower that has a newer snapshot tells a leader that looks for its end below that one where it is.

    It may have got the snapshot from an earlier leader, and its word of that be lost: a leader whose appends all stayed
    without an answer would send the same ones for ever.
    """
    raft = Raft(
        id=1,
        peers=[2],
        config=RaftConfig(log_entries_kept=0),
        random=Random("follower"),
        incarnation=1,
        incarnations={2: 2},
        now=0.0,
        hard_state=HardState(3, None),
        log=Log(base_index=9, base_term=2),
    )
    for message in (append(3, (4, 1), 1, 1), append(3, (6, 1))):
        raft.receive(0.0, message)
        (reply,) = raft.ready(0.0).messages
        assert reply == AppendAccepted(1, 2, 3, 1, False, 9)
