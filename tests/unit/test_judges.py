"""Judges against hand-made steps: each fires on the smallest violation of its rule, and not on what is allowed."""

from random import Random
from types import SimpleNamespace

import pytest

from trio_kv.check.admission import require_none_of_clients
from trio_kv.check.index_order import IndexOrder
from trio_kv.check.match_index import MatchIndex
from trio_kv.check.queues import left_waiting
from trio_kv.check.revision_order import RevisionOrder
from trio_kv.check.term_growth import TermGrowth, require_quiet
from trio_kv.check.up_to_date_vote import UpToDateVote
from trio_kv.check.violation import Violation
from trio_kv.check.watch import View
from trio_kv.kv.commands import OpenSession
from trio_kv.kv.machine import Machine
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.entry import Entry, make_entry
from trio_kv.raft.log import Log
from trio_kv.raft.messages import RequestVote, VoteReply
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.replica.replica import Replica
from trio_kv.replica.requests import Read


def entries(*terms: int) -> list[Entry]:
    return [make_entry(index, term, 0, None) for index, term in enumerate(terms, 1)]


def view(*terms: int, term: int = 3, base: int = 0, commit: int = 0) -> View:
    """Return what a watch sees of node 1 of three."""
    raft = Raft(
        id=1,
        peers=[2, 3],
        config=RaftConfig(),
        random=Random("judges"),
        incarnation=1,
        now=0.0,
        hard_state=HardState(term, None),
        log=Log(entries(*terms)),
    )
    raft.commit = commit
    return View(1, raft, Machine(), entries(*terms), term, None, commit, 0, base=base)


def ask(last_index: int, last_term: int) -> RequestVote:
    """Return node 2's request for a vote in term 4."""
    return RequestVote(2, 1, 4, 2, False, last_index, last_term)


def yes(target: int = 2) -> VoteReply:
    return VoteReply(1, target, 4, 1, False, True)


@pytest.mark.parametrize("last", [(2, 2), (3, 2), (1, 3)])
def test_a_vote_for_an_equal_or_better_log_is_fine(last: tuple[int, int]) -> None:
    """The later last term wins, and with the same one the longer log (paper §5.4.1)."""
    judge = UpToDateVote()
    judge.took(view(1, 2), ask(*last))
    judge.sent(1, yes())


@pytest.mark.parametrize("last", [(1, 2), (9, 1), (0, 0)])
def test_a_vote_for_a_log_that_is_behind_is_refused(last: tuple[int, int]) -> None:
    """A log of the same last term that is shorter, or one of an older last term however long, gets no vote."""
    judge = UpToDateVote()
    judge.took(view(1, 2), ask(*last))
    with pytest.raises(Violation, match="the answer to"):
        judge.sent(1, yes())


def test_a_vote_that_nobody_asked_for_is_refused() -> None:
    """A vote answers a request of that candidate in that term."""
    judge = UpToDateVote()
    judge.took(view(1, 2), ask(2, 2))
    with pytest.raises(Violation, match="nobody asked"):
        judge.sent(1, yes(target=3))


def test_a_snapshot_of_what_is_not_committed_is_refused() -> None:
    """A snapshot ends at an entry that is committed: of that index, and of that term."""
    judge = IndexOrder(entries(1, 1))
    judge.snapshot_stored(1, (2, 1))
    for place in ((3, 1), (2, 2)):
        with pytest.raises(Violation, match="stored a snapshot"):
            judge.snapshot_stored(1, place)


def test_a_log_dropped_beyond_its_snapshot_is_refused() -> None:
    """What is dropped is in a snapshot."""
    judge = IndexOrder(entries(1, 1))
    judge.snapshot_stored(1, (1, 1))
    judge.compacted(view(1, 1, base=1, commit=2))
    with pytest.raises(Violation, match="dropped its log"):
        judge.compacted(view(1, 1, base=2, commit=2))


def test_indices_out_of_order_are_refused() -> None:
    """Nobody applies what is not committed, commits what is not there, or counts as durable what is not there."""
    judge = IndexOrder(entries(1, 1))
    judge.started(view(1, 1), HardState())
    judge.committed(view(1, 1, commit=2), 1, 2)
    with pytest.raises(Violation, match="committed 3"):
        judge.committed(view(1, 1, commit=3), 1, 3)
    ahead = view(1, 1, commit=0)
    ahead.machine.apply(entries(1))
    with pytest.raises(Violation, match="applied 1"):
        judge.applied(ahead, 1)
    eager = view(1, 1, commit=2)
    eager.raft.log.durable = 3
    with pytest.raises(Violation, match="durable"):
        judge.applied(eager, 0)


def test_a_match_beyond_the_disk_is_refused() -> None:
    """A leader counts on no more than a follower's disk holds, unless that follower has gone on to a later term."""
    disk = SimpleNamespace(term=3, end=5)
    judge = MatchIndex({2: disk})
    judge.matched(view(term=3), 2, 0, 5)
    with pytest.raises(Violation, match="whose disk ends at 5"):
        judge.matched(view(term=3), 2, 5, 6)
    disk.term = 4
    judge.matched(view(term=3), 2, 5, 6)


def test_a_match_that_goes_back_is_refused() -> None:
    """Unless the follower's disk was lost, what it acknowledged stays acknowledged."""
    judge = MatchIndex({2: SimpleNamespace(term=3, end=5)})
    with pytest.raises(Violation, match="and up to 4 before"):
        judge.matched(view(term=3), 2, 4, 3)
    judge.wiped(2)
    judge.matched(view(term=3), 2, 4, 0)
    judge.rebuilt(2)
    with pytest.raises(Violation, match="and up to 4 before"):
        judge.matched(view(term=3), 2, 4, 3)


def test_a_revision_that_goes_back_is_refused() -> None:
    """Who asks after an answer sees at least that; who asked before may see what was there before."""
    judge = RevisionOrder()
    before = judge.asked(["k"])
    judge.told("k", 7)
    after = judge.asked(["k", "other"])
    judge.told("k", 5, *before)
    judge.told("other", 1, after[1])
    with pytest.raises(Violation, match="revision 5 after 7"):
        judge.told("k", 5, after[0])


def test_terms_that_do_not_settle_are_refused() -> None:
    """A disturbance costs some terms; then there are no more, but as long as timers are unsteady."""
    is_unsteady = False
    judge = TermGrowth(2, lambda: is_unsteady)
    seen = view()
    for term in (1, 2):
        judge.entered(seen, term, None)
        judge.entered(seen, term, 1)
    judge.disturbed()
    judge.entered(seen, 4, None)
    with pytest.raises(Violation, match="the 3th since anything changed"):
        judge.entered(seen, 5, None)
    is_unsteady = True
    judge.entered(seen, 50, None)
    is_unsteady = False
    judge.entered(seen, 52, None)


def test_a_leader_that_is_deposed_after_healing_is_refused() -> None:
    """Terms end with the leader whom all follow."""
    rafts = [view(term=term).raft for term in (7, 9)]
    require_quiet(rafts, 7, 2)
    with pytest.raises(Violation, match="from 6 to 9"):
        require_quiet(rafts, 6, 2)


def test_what_is_left_in_queues_is_told() -> None:
    """A read that found no leader waits, and is seen to."""
    replica = Replica(
        id=1, peers=(2, 3), config=RaftConfig(), random=Random("q"), incarnation=1, now=0.0, events_level=0
    )
    assert not left_waiting(replica.raft, replica.requests_waiting, [1, 2, 3])
    replica.read(Read(0, 1, ("k",)))
    replica.ready(0.0)
    assert left_waiting(replica.raft, replica.requests_waiting, [1, 2, 3]) == {"requests": 1, "reads": 1}


def test_only_what_clients_wrote_must_fit_on_a_disk_known_to_be_full() -> None:
    """A no-op has room of its own; a client's command among the writes is named."""
    no_op, command = make_entry(7, 3, 0, None), make_entry(8, 3, 0, OpenSession(60_000_000))
    require_none_of_clients(1, [Write(Ticket(1, 3, 7), entries=(no_op,))], 100)
    with pytest.raises(Violation, match=r"^n1 took 8@3\.\.8@3 .* 100 bytes"):
        require_none_of_clients(1, [Write(Ticket(2, 3, 8), entries=(no_op, command))], 100)
