"""One node's brain: who is answered when, with what, and who is told that nobody knows."""

from collections.abc import Iterable
from random import Random
from typing import Any

import attrs
import msgspec
import pytest

from trio_kv.kv import commands
from trio_kv.kv.commands import OpenSession
from trio_kv.kv.operations import Cas, Get, Set
from trio_kv.kv.reply import TimedReply
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.log import Log
from trio_kv.raft.messages import AppendEntries, Heartbeat, Message
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import HardState, Write
from trio_kv.replica.driver import Continue, Driver, Input, TimerFired
from trio_kv.replica.group import GROUP_S
from trio_kv.replica.jobs import Stored
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import Turns
from trio_kv.wire.node_port import Answer, Done, Propose, Read, Refused, ReplyTo, Unknown

CONFIG = RaftConfig(
    commit_delay_s=0.0, election_timeout_min_s=0.2, election_timeout_max_s=0.4, heartbeat_interval_s=0.05
)

CLIENT = ReplyTo(1, 1)


class Cluster:
    """Replicas whose messages are delivered when told to, and whose disks write at once unless held."""

    def __init__(self, size: int) -> None:
        self.now = 0.0
        numbers = range(1, size + 1)
        self.nodes = {
            number: self.make(number, [peer for peer in numbers if peer != number]) for number in numbers
        }
        self.wire: list[Message] = []
        self.answers: list[tuple[Any, Answer]] = []
        self.passes: list[tuple[int, int]] = []
        """(node, last index applied) of each pass that applied something."""
        self.queues: dict[int, list[Write]] = {number: [] for number in numbers}
        self.held: set[int] = set()
        self.cut: set[int] = set()
        self.entries_max = 0

    def make(
        self, number: int, peers: Iterable[int], log: Log | None = None, state: HardState | None = None
    ) -> Replica:
        raft = Raft(
            id=number,
            peers=peers,
            config=CONFIG,
            random=Random(f"replica/{number}"),
            incarnation=number,
            now=self.now,
            hard_state=state or HardState(),
            log=log,
        )
        return Replica(raft)

    def settle(self, number: int, *items: Input) -> None:
        """Give a node what came, and carry out what it wants."""
        node = self.nodes[number]
        driver = Driver(node, Turns(1.0))
        while True:
            work = driver.step(self.now, self.now, items)
            items = ()
            self.wire += [m for m in work.messages if m.source not in self.cut and m.target not in self.cut]
            if work.write is not None:
                self.queues[number].append(work.write)
            self.answers += work.answers
            if node.applied_now:
                self.passes.append((number, node.applied_now[-1].index))
            if self.queues[number] and number not in self.held:
                items = (Stored(self.queues[number].pop(0).ticket),)
            elif node.group.missing:
                items = (Continue(),)
            elif not (work.messages or work.write or node.applied_now or node.is_behind):
                return

    def deliver(self) -> None:
        """Deliver until nothing is on the wire."""
        while self.wire:
            message = self.wire.pop(0)
            if message.source in self.cut or message.target in self.cut:
                continue
            self.settle(message.target, message)

    def elect(self, number: int) -> None:
        """Let a node win an election."""
        self.now += 0.5
        self.nodes[number].raft.become_candidate(self.now, reason="test", is_pre_vote=False)
        self.settle(number)
        self.deliver()
        assert self.nodes[number].raft.is_leader

    def propose(self, number: int, request: int, *keys: str, session: int = 1) -> None:
        asked = [
            commands.Write(session, request * 100 + place, 0, Set(key, value(request)))
            for place, key in enumerate(keys)
        ]
        self.settle(number, Propose(CLIENT, request, asked))

    def read(
        self, number: int, request: int, *keys: str, is_stale: bool = False, applied_min: int = 0
    ) -> None:
        self.settle(number, Read(CLIENT, request, [Get(key) for key in keys], is_stale, applied_min))

    def heartbeat(self, number: int) -> None:
        """Let the leader's heartbeat fall due, and all answer."""
        self.now += 0.06
        self.settle(number, TimerFired())
        self.deliver()

    def wait(self, leader: int, for_s: float) -> None:
        """Let time pass, and heartbeats be sent."""
        until = self.now + for_s
        while self.now < until:
            self.heartbeat(leader)

    def taken(self) -> list[Answer]:
        """Return and forget the answers so far."""
        answers, self.answers = self.answers, []
        return [answer for _, answer in answers]


def value(number: int) -> msgspec.Raw:
    return msgspec.Raw(str(number).encode())


@pytest.fixture
def three() -> Cluster:
    """Three nodes; node 1 leads; there is a session."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.nodes[1].propose(0.0, Propose(CLIENT, 0, [OpenSession(60_000_000)]))
    cluster.settle(1)
    cluster.deliver()
    (opened,) = cluster.taken()
    assert isinstance(opened, Done)
    cluster.session = opened.replies[0].revision  # type: ignore[attr-defined]
    return cluster


def session(cluster: Cluster) -> int:
    number: int = cluster.session  # type: ignore[attr-defined]
    return number


def test_a_pass_compares_only_so_much(three: Cluster) -> None:
    """Conditions on large values are looked at in as many passes as they take; the order and the answers stay."""
    node, own = three.nodes[1], session(three)
    large, same = (msgspec.Raw(b"[" + b"1," * 12_000 + last) for last in (b"1]", b"1.0]"))
    asked: list[Any] = [commands.Write(own, 1, 0, Set("k", large))]
    asked += [commands.Write(own, 2 + place, 0, Cas("k", large, same)) for place in range(6)]
    asked.append(commands.Write(own, 8, 0, Cas("k", value(1), value(2))))
    node.propose(0.0, Propose(CLIENT, 1, asked))
    three.passes.clear()
    three.settle(1)
    three.deliver()
    (done,) = three.taken()
    assert isinstance(done, Done)
    assert [reply.code for reply in done.replies] == ["ok"] * 7 + ["conflict"]
    # Two comparisons of 48 KiB are more than a pass has time for.
    assert [last - own for number, last in three.passes if number == 1] == [3, 5, 7, 8]
    three.heartbeat(1)
    assert (
        three.nodes[2].machine.state_digest
        == three.nodes[3].machine.state_digest
        == node.machine.state_digest
    )


def test_a_write_is_answered_when_it_is_applied(three: Cluster) -> None:
    """Not when it is appended, nor when one node has it: once a majority has it on disk and it is applied here."""
    three.propose(1, 1, "a", "b", session=session(three))
    assert three.taken() == []
    three.deliver()
    (done,) = three.taken()
    assert isinstance(done, Done)
    assert (done.number, done.node, done.term) == (1, 1, three.nodes[1].raft.term)
    assert [reply.code for reply in done.replies] == ["ok", "ok"]
    assert done.replies[1].revision == done.replies[0].revision + 1 == done.applied


def test_runs_taken_together_are_answered_apart(three: Cluster) -> None:
    """All that comes before a `ready` is one append; each request gets the replies of its own commands."""
    for request, keys in ((1, "ab"), (2, "c"), (3, "de")):
        asked = [
            commands.Write(session(three), request * 10 + n, 0, Set(key, value(request)))
            for n, key in enumerate(keys)
        ]
        three.nodes[1].propose(0.0, Propose(CLIENT, request, asked))
    three.settle(1)
    appends = [message for message in three.wire if isinstance(message, AppendEntries)]
    assert [len(message.entries) for message in appends] == [5, 5]
    three.deliver()
    assert [(done.number, len(done.replies)) for done in three.taken() if isinstance(done, Done)] == [
        (1, 2),
        (2, 1),
        (3, 2),
    ]


def test_a_run_that_is_committed_in_pieces_is_answered_whole(three: Cluster) -> None:
    """Replies of the first piece are kept until the last command is applied."""
    three.propose(1, 1, "a", "b", session=session(three))
    cut = []
    for message in three.wire:
        assert isinstance(message, AppendEntries)
        cut.append(with_entries(message, message.entries[:1]))
    three.wire = list(cut)
    three.deliver()
    assert three.taken() == []
    three.heartbeat(1)
    three.heartbeat(1)
    (done,) = three.taken()
    assert isinstance(done, Done)
    assert [reply.code for reply in done.replies] == ["ok", "ok"]


def with_entries(message: AppendEntries, entries: Any) -> AppendEntries:
    return attrs.evolve(message, entries=tuple(entries))


def run_of(cluster: Cluster, request: int, *steps: Any, seq: int = 1) -> Propose:
    """Return a run: a text is a key to read, and all else is to be written."""
    commands_: list[Any] = []
    places: dict[int, list[Any]] = {}
    for step in steps:
        if isinstance(step, str):
            places.setdefault(len(commands_), []).append(Get(step))
        else:
            commands_.append(commands.Write(session(cluster), seq + len(commands_), 0, step))
    return Propose(CLIENT, request, commands_, 0, tuple(places.items()))


def put(number: int, key: str = "k") -> Set:
    return Set(key, value(number))


def told(answer: Answer) -> list[str]:
    """Return what each operation of a run was told: a value, or a code."""
    assert isinstance(answer, Done)
    return [reply.code if reply.value is None else bytes(reply.value).decode() for reply in answer.replies]


RUN: list[Any] = ["k", put(1), "k", "other", put(2), put(3), "k", Cas("k", value(9), value(8)), "k"]
ORDER = ["missing", "ok", "1", "missing", "ok", "ok", "3", "3", "3"]
"""The cas is told what it met."""


def test_a_read_sees_the_writes_before_it_in_its_run_and_none_behind_it(three: Cluster) -> None:
    """Each read of a run is answered from the state between the two writes where it stands, and not as it was read."""
    three.settle(1, run_of(three, 1, *RUN))
    assert three.taken() == []
    three.deliver()
    (done,) = three.taken()
    assert told(done) == ORDER


def test_the_first_read_of_a_run_sees_what_came_just_before(three: Cluster) -> None:
    """Another run that is appended along with it stands before its reads as well, however little is applied yet."""
    node = three.nodes[1]
    node.propose(0.0, run_of(three, 1, put(7), "k"))
    node.propose(0.0, run_of(three, 2, "k", put(8), seq=10))
    three.settle(1)
    three.deliver()
    assert [told(done) for done in three.taken()] == [["ok", "7"], ["7", "ok"]]


def test_a_run_keeps_its_places_over_many_passes(three: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether comparing values or answering queries takes too long: where a pass ends makes no difference."""
    monkeypatch.setattr("trio_kv.replica.replica.COMPARED_IN_A_PASS_BYTES_MAX", 0)
    monkeypatch.setattr("trio_kv.kv.asking.QUERIES_IN_A_CALL_MAX", 1)
    three.passes.clear()
    three.settle(
        1, run_of(three, 1, "k", Cas("k", value(1)), "k", "k", Cas("k", value(2), value(1)), "k", put(3), "k")
    )
    three.deliver()
    (done,) = three.taken()
    assert told(done) == ["missing", "ok", "1", "1", "ok", "2", "ok", "3"]
    assert len([last for number, last in three.passes if number == 1]) == 3


def test_a_run_that_is_committed_in_pieces_keeps_its_places(three: Cluster) -> None:
    """The first piece is applied, and another client's write is far behind, when the second piece comes."""
    three.settle(1, run_of(three, 1, *RUN))
    three.wire = [with_entries(m, m.entries[:1]) for m in three.wire if isinstance(m, AppendEntries)]
    three.deliver()
    assert three.taken() == []
    three.heartbeat(1)
    three.heartbeat(1)
    (done,) = three.taken()
    assert told(done) == ORDER


LOST = "unavailable"


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        # All of it was done by an earlier attempt: only what stands behind all writes has its place still.
        (RUN, RUN, [LOST, "ok", LOST, LOST, "ok", "ok", LOST, "3", "3"]),
        # So was the beginning: the reads behind that have theirs.
        ([put(1)], [put(1), "k", put(2), "k"], ["ok", "1", "ok", "2"]),
        ([put(1)], ["k", put(1), "k", put(2), "k"], [LOST, "ok", "1", "ok", "2"]),
        # What an earlier attempt was told of a condition has its moment, too, though it changed nothing.
        (
            [Cas("k", value(9), value(8))],
            ["k", Cas("k", value(9), value(8)), "k"],
            [LOST, "conflict", "missing"],
        ),
    ],
)
def test_a_read_before_a_write_that_was_done_before_has_lost_its_place(
    three: Cluster, first: list[Any], then: list[Any], expected: list[str]
) -> None:
    """The state may hold what stands behind the read in its own run: rather than that, it is told to ask again."""
    three.settle(1, run_of(three, 1, *first))
    three.deliver()
    three.taken()
    three.settle(1, run_of(three, 2, *then))
    three.deliver()
    (done,) = three.taken()
    assert told(done) == expected


def test_a_retry_after_a_change_of_leaders_loses_places(three: Cluster) -> None:
    """The deposed leader's attempt commits after all: the next leader knows that from the answers in its session."""
    three.settle(1, run_of(three, 1, *RUN))
    appends, three.wire, three.cut = three.wire, [], {1}
    for message in appends:
        three.settle(message.target, message)
    three.elect(2)
    three.settle(2, run_of(three, 2, *RUN))
    three.deliver()
    (done,) = three.taken()
    assert told(done) == [LOST, "ok", LOST, LOST, "ok", "ok", LOST, "3", "3"]
    three.cut = set()
    three.heartbeat(2)
    assert three.taken() == [Unknown(1, 1)]


def test_reads_of_an_unknown_session_have_no_place(three: Cluster) -> None:
    """Whether an earlier attempt was applied is not known any more; what is read behind all writes goes anyway."""
    unknown = [commands.Write(999, 1, 0, put(1))]
    three.settle(1, Propose(CLIENT, 1, unknown, 0, ((0, [Get("k")]), (1, [Get("k")]))))
    three.deliver()
    (done,) = three.taken()
    assert told(done) == [LOST, "session_expired", "missing"]


def test_who_does_not_lead_refuses(three: Cluster) -> None:
    """A follower appends nothing, says so for certain, and names the leader."""
    three.propose(2, 1, "a", session=session(three))
    assert three.taken() == [Refused(1, 2, 1)]
    assert three.wire == []


def test_C10_a_deposed_leaders_writes_are_unknown_at_once(three: Cluster) -> None:
    """Scenario C10: who stops leading can't tell what becomes of its writes: it neither waits nor denies."""
    three.cut = {1}
    three.propose(1, 1, "a", session=session(three))
    three.elect(2)
    assert three.taken() == []
    three.cut = set()
    three.heartbeat(2)
    assert three.taken() == [Unknown(1, 1)]


def test_C10_a_write_that_committed_after_all_is_not_denied(three: Cluster) -> None:
    """The next leader may have the entry: it is applied, and the answer *unknown* was the right one."""
    three.propose(1, 1, "a", session=session(three))
    appends, three.wire, three.cut = three.wire, [], {1}
    for message in appends:
        three.settle(message.target, message)
    three.elect(2)
    three.cut = set()
    three.heartbeat(2)
    assert three.taken() == [Unknown(1, 1)]
    assert three.nodes[2].machine.get("a") is not None


def test_C10_a_run_whose_tail_was_replaced_is_unknown(three: Cluster) -> None:
    """A new leader keeps a run's first entry and puts its own behind it; one message brings, and commits, all of that.

    The old leader then applies its own first command and somebody else's second in one batch, and must not take the
    other's reply for its own.
    """
    leader, follower = three.nodes[1], three.nodes[2]
    three.propose(1, 1, "a", "b", session=session(three))
    three.wire = [with_entries(m, m.entries[:1]) for m in three.wire if isinstance(m, AppendEntries)]
    three.cut = {1}
    for message in three.wire:
        three.settle(message.target, message)
    three.wire = []
    three.elect(2)
    three.propose(2, 2, "c", session=session(three))
    three.deliver()
    three.taken()
    first = leader.raft.commit + 1
    assert follower.raft.commit == first + 2  # The run's first entry, the no-op, and c.
    log = follower.raft.log
    entries = log.slice(first, log.last_index)
    assert entries[0].term < entries[1].term
    message = AppendEntries(
        *follower.raft.header(1), first - 1, log.term_at(first - 1) or 0, entries, log.last_index
    )
    three.cut = set()
    three.settle(1, message)
    assert leader.machine.applied == log.last_index
    assert three.taken() == [Unknown(1, 1)]


def test_a_follower_reads_once_it_has_applied_what_the_leader_noted(three: Cluster) -> None:
    """A follower's answer is as new as what was committed when it asked, though it had not heard of that commit."""
    three.propose(1, 1, "a", session=session(three))
    late: list[Message] = []
    while three.wire:  # The follower is told of no commit: heartbeats to it come later.
        message = three.wire.pop(0)
        if isinstance(message, Heartbeat) and message.target == 2:
            late.append(message)
            continue
        three.settle(message.target, message)
    three.taken()
    assert three.nodes[2].machine.get("a") is None
    three.nodes[2].raft.confirm_reads([[Read(CLIENT, 7, [Get("a")])]], three.nodes[1].raft.commit)
    three.settle(2)
    assert three.taken() == []
    three.wire = late
    three.deliver()
    (done,) = three.taken()
    assert isinstance(done, Done)
    assert (done.number, done.node, done.replies[0].code, done.replies[0].value) == (7, 2, "ok", value(1))


def test_reads_of_one_batch_share_one_question(three: Cluster) -> None:
    """A hundred reads that come together cost one question and one round."""
    for request in range(100):
        three.nodes[2].read(Read(CLIENT, request, [Get("a")]))
    three.settle(2)
    assert len(three.wire) == 1
    three.deliver()
    assert [answer.number for answer in three.taken()] == list(range(100))


def test_a_missing_key_is_missing(three: Cluster) -> None:
    """A read replies key by key, in order."""
    three.propose(1, 1, "a", session=session(three))
    three.deliver()
    three.taken()
    three.read(2, 2, "a", "nope", "a")
    three.deliver()
    (done,) = three.taken()
    assert isinstance(done, Done)
    assert [reply.code for reply in done.replies] == ["ok", "missing", "ok"]


def test_a_stale_read_asks_nobody(three: Cluster) -> None:
    """It is answered at once from what is applied."""
    three.read(2, 1, "a", is_stale=True)
    assert three.wire == []
    assert [answer.number for answer in three.taken()] == [1]


def test_a_stale_read_never_goes_back_in_time(three: Cluster) -> None:
    """A node that has not applied what the connection has seen waits until it has."""
    three.read(2, 1, "a", is_stale=True, applied_min=three.nodes[2].machine.applied + 1)
    assert three.taken() == []
    three.propose(1, 2, "a", session=session(three))
    three.deliver()
    answers = {answer.number: answer for answer in three.taken()}
    stale = answers[1]
    assert isinstance(stale, Done)
    assert stale.replies[0].value == value(2)


def restarted(cluster: Cluster, number: int) -> Replica:
    """Return the node as it comes back from its disk, with nothing applied."""
    raft = cluster.nodes[number].raft
    entries = raft.log.slice(1, raft.log.last_index)
    return cluster.make(number, raft.peers, Log(entries), HardState(raft.term, raft.vote))


def test_R6_a_restarted_node_answers_no_stale_read_before_it_caught_up(three: Cluster) -> None:
    """After a start nothing is applied: a stale read waits for a commit index learned from a leader, and its apply."""
    three.propose(1, 1, "a", session=session(three))
    three.deliver()
    three.taken()
    three.nodes[2] = restarted(three, 2)
    three.read(2, 2, "a", is_stale=True)
    assert three.taken() == []
    three.heartbeat(1)
    (done,) = three.taken()
    assert isinstance(done, Done)
    assert done.replies[0].value == value(1)


def test_R6_a_leader_that_restarted_too_makes_nobody_fresh(three: Cluster) -> None:
    """When all restart, the new leader's commit index begins at nothing: its first word is no proof of being fresh."""
    three.propose(1, 1, "a", session=session(three))
    three.deliver()
    three.taken()
    three.nodes = {number: restarted(three, number) for number in three.nodes}
    three.read(3, 2, "a", is_stale=True)
    three.now += 0.5
    three.nodes[1].raft.become_candidate(three.now, reason="test", is_pre_vote=False)
    three.settle(1)
    while three.wire:
        message = three.wire.pop(0)
        is_told = isinstance(message, AppendEntries | Heartbeat)
        three.settle(message.target, message)
        if is_told and message.target == 3:
            break
    assert three.nodes[3].raft.leader == 1
    assert three.taken() == []
    three.deliver()
    three.heartbeat(1)
    (done,) = three.taken()
    assert isinstance(done, Done)
    assert done.replies[0].value == value(1)


def test_an_expiry_is_proposed_once_when_it_is_due() -> None:
    """A single leader writes nothing while nothing is due, then one entry, at the instant that it asked to be woken."""
    cluster = Cluster(1)
    cluster.elect(1)
    node = cluster.nodes[1]
    node.propose(0.0, Propose(CLIENT, 0, [OpenSession(1_234_567)]))
    cluster.settle(1)
    before = node.raft.log.last_index
    for _ in range(1000):
        cluster.now = node.deadline
        cluster.settle(1, TimerFired())
        if not node.machine.sessions.by_id:
            break
    assert node.raft.log.last_index == before + 1
    assert node.machine.expires_at_us is None


@pytest.mark.parametrize("timeout_us", [1, 3, 1_000_003, 7_777_777, 99_999_999])
def test_an_expiry_is_never_tried_too_early(timeout_us: int) -> None:
    """Whatever the fractions of a second: what is due by the clock is due in cluster time, too."""
    cluster = Cluster(1)
    cluster.now = 12_345.678_9
    cluster.nodes = {1: cluster.make(1, [])}
    cluster.elect(1)
    node = cluster.nodes[1]
    cluster.now += 0.1
    node.propose(0.0, Propose(CLIENT, 0, [OpenSession(timeout_us)]))
    cluster.settle(1)
    due_us = node.machine.expires_at_us
    assert due_us is not None
    last = node.raft.log.last_index
    role: Any = node.raft.role
    while cluster.now < role.when(due_us) - 0.06:
        cluster.heartbeat(1)
    assert node.raft.log.last_index == last
    cluster.now = role.when(due_us)
    cluster.settle(1, TimerFired())
    assert node.raft.log.last_index == last + 1
    assert not node.machine.sessions.by_id


def test_no_second_expiry_while_the_first_is_under_way(three: Cluster) -> None:
    """Without a majority the expiry can't be committed, and is not proposed over and over."""
    three.wait(1, 59.8)
    three.cut = {2, 3}
    last = three.nodes[1].raft.log.last_index
    for _ in range(3):
        three.now += 0.1
        three.settle(1, TimerFired())
    assert three.nodes[1].raft.log.last_index == last + 1


def test_an_expiry_that_was_lost_is_proposed_by_the_next_term(three: Cluster) -> None:
    """A leader whose Expire was cut away, and who leads again, proposes another, whatever index the first one had."""
    node = three.nodes[1]
    three.wait(1, 59.8)
    three.cut = {1}
    three.propose(1, 1, *"abcdefgh", session=session(three))
    three.now += 0.3
    three.settle(1, TimerFired())
    lost = node.raft.log.last_index
    three.elect(2)
    three.cut = set()
    three.heartbeat(2)
    three.heartbeat(2)
    three.elect(1)
    assert node.raft.log.last_index < lost
    three.wait(1, 1.0)
    assert not node.machine.sessions.by_id


def timed(cluster: Cluster, *keys: str, ttl: float) -> Propose:
    """Return a request to set keys that end."""
    writes = [
        commands.Write(session(cluster), 700 + place, 0, Set(key, value(1), ttl=ttl))
        for place, key in enumerate(keys)
    ]
    return Propose(CLIENT, 7, writes)


def test_C6_a_key_ends_in_its_time_over_reigns_without_a_write(three: Cluster) -> None:
    """Its time goes on over many reigns that write no more than a no-op; nothing is written before it is due."""
    three.nodes[1].propose(three.now, Propose(CLIENT, 0, [OpenSession(10**12)]))
    three.settle(1)
    three.deliver()
    opened = three.nodes[1].machine.applied
    write = commands.Write(opened, 1, 0, Set("k", value(1), ttl=40))
    three.settle(1, Propose(CLIENT, 7, [write]))
    three.deliver()
    begun_s, last = three.now, three.nodes[1].machine.applied
    leader, reigns = 1, 0
    while "k" in three.nodes[leader].machine.items:
        assert three.nodes[leader].raft.log.last_index == last + reigns
        assert three.now - begun_s < 60
        three.wait(leader, 2.0)
        if "k" in three.nodes[leader].machine.items:
            leader, reigns = leader % 3 + 1, reigns + 1
            three.elect(leader)
    # Half a second without a leader, each time, counts for nobody.
    assert 40 <= three.now - begun_s <= 40 + reigns * (0.5 + 0.06) + 2.0
    assert reigns >= 15


def test_C6_a_leader_whose_clock_leaps_counts_nothing_of_it(three: Cluster) -> None:
    """It was suspended and did not lead meanwhile: an hour's leap takes no more than an election time-out of a key."""
    node = three.nodes[1]
    three.settle(1, timed(three, "k", ttl=3.0))
    three.deliver()
    before_us = node.raft.role.time_us(three.now)
    three.now += 3600
    three.settle(1, timed(three, "k", "m", ttl=3.0), TimerFired())
    assert node.raft.role.time_us(three.now) - before_us <= 500_000
    three.deliver()
    three.wait(1, 1.0)
    assert {"k", "m"} <= set(node.machine.items)
    three.wait(1, 2.0)
    assert not {"k", "m"} & set(node.machine.items)


def test_C6_followers_clocks_decide_nothing(three: Cluster) -> None:
    """Whatever their clocks show, a key stays until the leader says that it ends, and all nodes lose it then."""
    three.settle(1, timed(three, "k", ttl=1.0))
    three.deliver()
    now, three.now = three.now, three.now + 3600
    for follower in (2, 3):
        three.settle(follower)
        assert "k" in three.nodes[follower].machine.items
    three.now = now
    three.wait(1, 1.2)
    assert all("k" not in node.machine.items for node in three.nodes.values())


def test_a_new_leader_lets_nothing_end_before_it_knows_the_state(three: Cluster) -> None:
    """While entries of before its term are not applied, a key may have been written again: no entry is wasted on it."""
    three.settle(1, timed(three, "k", ttl=1.0))
    three.deliver()
    three.wait(1, 0.9)
    node = three.nodes[2]
    three.elect(2)
    assert node.machine.applied == node.raft.log.last_index
    role: Any = node.raft.role
    assert node.deadline <= role.when(node.machine.expires_at_us)
    node.machine.applied -= 1
    assert node._expiry_deadline() == float("inf")


def test_a_read_tells_the_time_left_by_the_cluster_time_that_its_node_knows(three: Cluster) -> None:
    """Leader and followers tell it within a heartbeat of one another, also while nothing is written."""
    three.settle(1, timed(three, "k", ttl=10.0))
    three.deliver()
    three.taken()
    three.wait(1, 4.0)
    left = []
    for number in (1, 2, 3):
        three.read(number, 20 + number, "k", is_stale=True)
        (answer,) = three.taken()
        assert isinstance(answer, Done)
        (reply,) = answer.replies
        assert isinstance(reply, TimedReply)
        left.append(reply.ttl_us)
    assert all(5_800_000 < ttl_us < 6_100_000 for ttl_us in left), left


def test_a_node_that_stops_answers_everything_once(three: Cluster) -> None:
    """Requests in every stage get an answer, and no request gets two."""
    follower = three.nodes[2]
    follower.read(Read(CLIENT, 1, [Get("a")]))  # Not asked yet.
    three.settle(2)  # Asked; the answer never comes.
    follower.read(Read(CLIENT, 2, [Get("a")]))
    three.settle(2)  # Waits for the next question.
    follower.read(Read(CLIENT, 3, [Get("a")]))
    follower.read(Read(CLIENT, 4, [Get("a")], is_stale=True, applied_min=10**6))
    follower.propose(0.0, Propose(CLIENT, 5, [OpenSession(1)]))
    follower.raft.confirm_reads([[Read(CLIENT, 6, [Get("a")])]], 1)
    assert sorted(answer.number for _, answer in follower.stop()) == [1, 2, 3, 4, 5, 6]


def test_a_leader_that_stops_answers_its_own_reads_and_writes(three: Cluster) -> None:
    """Own reads that wait for a round, and writes that wait for a majority, are unknown."""
    three.propose(1, 1, "a", session=session(three))
    three.read(1, 2, "a")
    assert three.nodes[1].stop() == [(CLIENT, Unknown(1, 1)), (CLIENT, Unknown(2, 1))]


def test_commands_wait_for_the_commit_under_way_and_go_together(three: Cluster) -> None:
    """Group commit: what comes while entries are on their way is appended when they are committed, in one go."""
    node, current = three.nodes[1], session(three)
    for request in (1, 2, 3):
        three.propose(1, request, "k", session=current)
    assert node.raft.log.last_index == node.raft.commit + 1
    assert node.requests_waiting == 3
    three.deliver()
    assert sorted(answer.number for answer in three.taken()) == [1, 2, 3]
    appends = [term for term in three.passes if term[0] == 1]
    assert [index for _, index in appends][-2:] == [node.machine.applied - 2, node.machine.applied]


def test_commands_do_not_wait_for_a_commit_that_does_not_come(three: Cluster) -> None:
    """After a while they are appended all the same; what they weigh is counted from the beginning."""
    node = three.nodes[1]
    three.cut = {2, 3}
    three.propose(1, 1, "k", session=session(three))
    last = node.raft.log.last_index
    second = Propose(CLIENT, 2, [commands.Write(session(three), 200, 0, Set("k", value(2)))], 77)
    three.settle(1, TimerFired(), second)
    assert (node.raft.log.last_index, node.uncommitted_bytes) == (last, 77)
    assert node.deadline == three.now + GROUP_S
    three.now += GROUP_S
    three.settle(1, TimerFired())
    assert (node.raft.log.last_index, node.uncommitted_bytes) == (last + 1, 77)


def test_commands_that_wait_are_refused_by_a_leader_that_is_deposed(three: Cluster) -> None:
    """They were never appended, so nothing happened, and what they weighed is free again."""
    node = three.nodes[1]
    three.cut = {1}
    three.propose(1, 1, "k", session=session(three))
    three.settle(1, Propose(CLIENT, 2, [commands.Write(session(three), 200, 0, Set("k", value(2)))], 77))
    three.elect(2)
    three.cut = set()
    three.heartbeat(2)
    three.settle(1)
    assert set(three.taken()) >= {Unknown(1, 1), Refused(2, 1, 2)}
    assert node.uncommitted_bytes == 0


@pytest.mark.parametrize("free_log_bytes", [None, 100_000])
def test_D12_on_a_full_disk_what_is_stored_overtakes_nothing(
    three: Cluster, free_log_bytes: int | None
) -> None:
    """Until it is known how much space it left, a write counts as under way; else its answer leaves at once."""
    follower = three.nodes[2]
    three.held = {2}
    three.propose(1, 1, "k", session=session(three))
    three.deliver()
    (write,) = three.queues[2]
    follower.raft.set_free_log_bytes(free_log_bytes)
    left = follower.raft.persistence.free_log_bytes_left
    passed = Driver(follower, Turns(1.0)).pass_on(three.now, Stored(write.ticket))
    assert (passed is None) == (free_log_bytes is not None)
    assert follower.raft.persistence.free_log_bytes_left == left
