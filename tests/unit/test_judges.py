"""Judges against hand-made steps: each fires on the smallest violation of its rule, and not on what is allowed."""

from random import Random

import attrs
import pytest

from trio_kv.check.admission import require_none_of_clients
from trio_kv.check.durability import Shadow
from trio_kv.check.former_selves import FormerSelves
from trio_kv.check.history import Operation
from trio_kv.check.incarnations import Incarnations
from trio_kv.check.index_order import IndexOrder
from trio_kv.check.match_index import MatchIndex
from trio_kv.check.own_key import OwnKey
from trio_kv.check.program_order import ProgramOrder
from trio_kv.check.queues import left_waiting
from trio_kv.check.revision_order import RevisionOrder
from trio_kv.check.term_growth import TermGrowth, require_quiet
from trio_kv.check.up_to_date_vote import UpToDateVote
from trio_kv.check.versions import Versions
from trio_kv.check.violation import Violation
from trio_kv.check.watch import View
from trio_kv.kv.commands import OpenSession
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Get
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.entry import Entry, LogPosition, make_entry
from trio_kv.raft.log import Log
from trio_kv.raft.messages import AppendAccepted, Heartbeat, HeartbeatReply, RequestVote, VoteReply
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.replica.replica import Replica
from trio_kv.wire.node_port import Read, ReplyTo


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
    judge.snapshot_stored(1, LogPosition(2, 1))
    for place in (LogPosition(3, 1), LogPosition(2, 2)):
        with pytest.raises(Violation, match="stored a snapshot"):
            judge.snapshot_stored(1, place)


def test_a_log_dropped_beyond_its_snapshot_is_refused() -> None:
    """What is dropped is in a snapshot."""
    judge = IndexOrder(entries(1, 1))
    judge.snapshot_stored(1, LogPosition(1, 1))
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
    disk = Shadow(HardState(3), snapshot=LogPosition(5, 3))
    judge = MatchIndex({2: disk})
    judge.matched(view(term=3), 2, 0, 5)
    with pytest.raises(Violation, match="whose disk ends at 5"):
        judge.matched(view(term=3), 2, 5, 6)
    disk.hard_state = HardState(4)
    judge.matched(view(term=3), 2, 5, 6)


def test_a_match_that_goes_back_is_refused() -> None:
    """Unless the follower's disk was lost, what it acknowledged stays acknowledged."""
    judge = MatchIndex({2: Shadow(HardState(3), snapshot=LogPosition(5, 3))})
    with pytest.raises(Violation, match="and up to 4 before"):
        judge.matched(view(term=3), 2, 4, 3)
    judge.wiped(2)
    judge.matched(view(term=3), 2, 4, 0)
    judge.rebuilt(2)
    with pytest.raises(Violation, match="and up to 4 before"):
        judge.matched(view(term=3), 2, 4, 3)


def accepted(match: int, incarnation: int, term: int = 3) -> AppendAccepted:
    """Return what node 2 acknowledges to node 1."""
    return AppendAccepted(2, 1, term, incarnation, False, match)


def test_what_a_former_self_acknowledged_does_not_count() -> None:
    """Neither what came before the leader heard of the new disk, nor what comes late; what the new one says does."""
    judge, leader = FormerSelves(), view(term=3)
    judge.started(leader, HardState())
    judge.took(leader, accepted(5, incarnation=7))
    judge.took(leader, accepted(9, incarnation=7, term=2))
    judge.matched(leader, 2, 0, 5)
    with pytest.raises(Violation, match="counts n2 up to 6"):
        judge.matched(leader, 2, 5, 6)
    judge.took(leader, accepted(2, incarnation=8))
    judge.took(leader, accepted(5, incarnation=7))
    judge.matched(leader, 2, 5, 2)
    with pytest.raises(Violation, match="counts n2 up to 5"):
        judge.matched(leader, 2, 2, 5)


def test_a_vote_of_a_former_self_elects_nobody() -> None:
    """Once the candidate has heard of the voter's new disk, that one must have voted itself."""
    judge, candidate = FormerSelves(), view(term=3)
    judge.started(candidate, HardState())
    candidate.raft.votes = {1, 2}
    judge.took(candidate, VoteReply(2, 1, 3, 7, False, True))
    judge.elected(candidate)
    judge.took(candidate, VoteReply(2, 1, 3, 8, False, False))
    with pytest.raises(Violation, match="counts a vote of n2"):
        judge.elected(candidate)
    judge.took(candidate, VoteReply(2, 1, 3, 8, False, True))
    judge.elected(candidate)


def test_an_incarnation_that_a_crash_would_make_it_forget_is_not_vouched_for() -> None:
    """Who answers a round that names an incarnation, or names one itself, has it on disk."""
    disks = {1: Shadow()}
    judge = Incarnations(disks)
    judge.started(view(), HardState())
    judge.sent(2, Heartbeat(2, 1, 4, 2, False, 7, 0, 0, 0, ((3, 9),)))
    judge.sent(1, HeartbeatReply(1, 2, 4, 1, False, 6))
    with pytest.raises(Violation, match="would not know that n3 is 9"):
        judge.sent(1, HeartbeatReply(1, 2, 4, 1, False, 7))
    disks[1].hard_state = HardState(4, None, ((3, 9),))
    judge.sent(1, HeartbeatReply(1, 2, 4, 1, False, 7))
    judge.sent(1, attrs.evolve(yes(), incarnations=((1, 77), (3, 9))))
    with pytest.raises(Violation, match="would not know that n3 is a"):
        judge.sent(1, attrs.evolve(yes(), incarnations=((3, 10),)))


def test_a_rebuild_that_ends_without_what_others_know_is_refused() -> None:
    """Who counts again knows of each one that was rebuilt before."""
    disks = {1: Shadow(), 2: Shadow()}
    judge = Incarnations(disks)
    other, node = view(), view()
    other.id = 2
    node.raft.is_rebuilding = True
    judge.started(other, HardState())
    judge.rebuilt(2)
    for heard in ((), ((2, 1),)):
        judge.started(node, HardState())
        disks[1].hard_state = HardState(3, None, heard)
        if heard:
            judge.rebuilt(1)
        else:
            with pytest.raises(Violation, match="n1 ends its rebuild, and after a crash"):
                judge.rebuilt(1)


def test_a_start_that_forgets_an_incarnation_is_refused() -> None:
    """What the disk holds of incarnations is known from the start."""
    with pytest.raises(Violation, match="its disk knows of incarnation 9 of n3"):
        Incarnations({}).started(view(), HardState(3, None, ((3, 9),)))


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


def test_a_connection_that_goes_back_is_refused() -> None:
    """What one connection is told of a key never goes back, of any other key it says nothing."""
    judge = RevisionOrder()
    judge.follows("k", 7)
    judge.follows("other", 5)
    judge.follows("k", 7)
    with pytest.raises(Violation, match="revision 6 after 7"):
        judge.follows("k", 6)


def answered(words: str) -> Operation:
    """Return an operation from words like `cas x>y conflict =z` or `get missing`."""
    words, _, result = words.partition(" =")
    op, *middle, outcome = words.split()
    expected, _, value = middle[0].rpartition(">") if middle else ("", "", "")
    return Operation(
        client=1,
        op=op,
        key="k",
        call_s=1.0,
        return_s=None if outcome == "unknown" else 2.0,
        outcome=outcome,
        value=value.encode() or None,
        expected=expected.encode() or None,
        result=result.encode() or None,
    )


@pytest.mark.parametrize(
    ("chain", "judged"),
    [
        (
            "get missing, set a ok, get ok =a, set b ok, get ok =b, delete ok =b, get missing, delete missing",
            8,
        ),
        ("cas >a ok, cas a>b ok, cas a>c conflict =b, cas >c conflict =b, get ok =b", 5),
        ("cas x>a conflict, get missing", 2),
        ("set a ok, set b failed, get failed, delete failed, get ok =a", 2),
        ("set a ok, get unknown, get ok =a", 2),
        ("set a ok, set b unknown, get ok =c, get missing", 1),
    ],
)
def test_a_chain_that_sees_itself_is_accepted(chain: str, judged: int) -> None:
    """Each answer follows from those before it; what failed did nothing, behind an unknown write all may be."""
    own = OwnKey("k")
    for words in chain.split(", "):
        own.told(answered(words))
    assert own.judged == judged
    assert own.is_known == ("b unknown" not in chain)


@pytest.mark.parametrize(
    "chain",
    [
        "get ok =a",
        "set a ok, get missing",
        "set a ok, set b ok, get ok =a",
        "set a ok, set b failed, get ok =b",
        "set a ok, delete missing",
        "set a ok, set b ok, delete ok =a",
        "set a ok, delete ok =a, get ok =a",
        "set a ok, cas b>c ok",
        "cas >a conflict",
        "set a ok, cas a>b conflict =a",
        "set a ok, cas b>c conflict =d",
        "set a ok, cas >b conflict",
    ],
)
def test_a_chain_that_does_not_see_itself_is_refused(chain: str) -> None:
    """A read that overtook a write, a lost write, one that came back, a condition that was not looked at."""
    *before, last = chain.split(", ")
    own = OwnKey("k")
    for words in before:
        own.told(answered(words))
    with pytest.raises(Violation, match="which one connection alone uses"):
        own.told(answered(last))


def program(words: str) -> None:
    """Let a connection pipeline these requests, and judge all answers."""
    operations = [answered(each) for each in words.split(", ")]
    judge = ProgramOrder()
    for number, operation in enumerate(operations):
        judge.asked(number, operation.value)
    for number, operation in enumerate(operations):
        judge.told(number, operation)


@pytest.mark.parametrize(
    "words",
    [
        "get missing, set a ok, get ok =a, set b ok, get ok =b, get ok =other, set c ok, get missing",
        "set a unknown, set b ok, get ok =a",
        "set a ok, set b failed, get ok =a, cas b>c conflict =a",
        "set a ok, set b unknown, get ok =a, get ok =b",
        "cas >a conflict =b, set c ok, get ok =c, delete ok =c, get ok =d",
    ],
)
def test_answers_in_program_order_are_accepted(words: str) -> None:
    """What others write may stand between any two requests, and a write of unknown outcome comes at any time."""
    program(words)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("get ok =a, set a ok", "asked for behind it"),
        ("set a ok, get ok =b, set b ok", "asked for behind it"),
        ("set a ok, cas x>c conflict =b, cas >b ok", "asked for behind it"),
        ("delete ok =a, set a unknown", "asked for behind it"),
        ("set a ok, set b ok, get ok =a", "did not see the last write"),
        ("set a ok, delete ok =a, get ok =a", "did not see the last write"),
        ("set a ok, cas a>b ok, set c unknown, get ok =a", "did not see the last write"),
    ],
)
def test_answers_out_of_program_order_are_refused(words: str, why: str) -> None:
    """A read that was overtaken by a write behind it, or overtook one before it, also where others write as well."""
    with pytest.raises(Violation, match=why):
        program(words)


def versions(*answers: tuple[str, int | None]) -> Versions:
    judge = Versions()
    for value in (b"a", b"b"):
        judge.asked(value)
    for words, revision in answers:
        judge.told(answered(words), revision)
    return judge


def test_versions_that_agree_are_accepted() -> None:
    """Values may be seen in any order, with or without a revision; a missing key has none."""
    versions(
        ("get ok =b", 7),
        ("get ok =a", None),
        ("get ok =a", 5),
        ("get ok =a", None),
        ("cas a>b ok", 7),
        ("get missing", 0),
        ("delete ok =b", 9),
        ("cas >a conflict =b", 7),
        ("cas b>a conflict", 0),
        ("set a unknown", None),
        ("get failed", None),
    )


@pytest.mark.parametrize(
    ("before", "last", "words"),
    [
        (("set a ok", 5), ("get ok =c", 6), "a value that nobody wrote"),
        (("set a ok", 5), ("get ok =c", None), "a value that nobody wrote"),
        (("set a ok", 5), ("get ok =b", 5), "revision 5, which is that of a"),
        (("set a ok", 5), ("get ok =a", 6), "revision 6, where another answer told of 5"),
        (("set a ok", 5), ("cas x>b conflict =a", 6), "revision 6, where another answer told of 5"),
        (("get ok =a", None), ("set a failed", None), "somebody was told of a"),
        (("set a failed", None), ("get ok =a", 5), "a value that nobody wrote"),
    ],
)
def test_versions_that_contradict_each_other_are_refused(
    before: tuple[str, int | None], last: tuple[str, int | None], words: str
) -> None:
    """A value from nowhere, two values at one revision, a value written twice, one whose write failed."""
    judge = versions(before)
    with pytest.raises(Violation, match=words):
        judge.told(answered(last[0]), last[1])


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
    raft = Raft(
        id=1, peers=(2, 3), config=RaftConfig(), random=Random("q"), incarnation=1, now=0.0, events_level=0
    )
    replica = Replica(raft)
    assert not left_waiting(replica.raft, replica.requests_waiting, [1, 2, 3])
    replica.read(Read(ReplyTo(0, 1), 1, (Get("k"),)))
    replica.ready(0.0)
    assert left_waiting(replica.raft, replica.requests_waiting, [1, 2, 3]) == {"requests": 1, "reads": 1}


def test_only_what_clients_wrote_must_fit_on_a_disk_known_to_be_full() -> None:
    """A no-op has room of its own; a client's command among the writes is named."""
    no_op, command = make_entry(7, 3, 0, None), make_entry(8, 3, 0, OpenSession(60_000_000))
    require_none_of_clients(1, [Write(Ticket(1, 3, 7), entries=(no_op,))], 100)
    with pytest.raises(Violation, match=r"^n1 took 8@3\.\.8@3 .* 100 bytes"):
        require_none_of_clients(1, [Write(Ticket(2, 3, 8), entries=(no_op, command))], 100)
