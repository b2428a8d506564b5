"""Messages that bring no news: they are taken without a pass of the node, and nothing comes of that but an answer."""

from collections import Counter
from random import Random

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_writes_under_way import SET, Cluster
from trio_kv.cluster.inbox import Inbox
from trio_kv.cluster.node import Node
from trio_kv.gateway.store import View
from trio_kv.kv.operations import Get
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.entry import make_entry
from trio_kv.raft.messages import (
    AppendAccepted,
    AppendEntries,
    Heartbeat,
    HeartbeatReply,
    Message,
    ReadIndex,
    VoteReply,
)
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import Ready
from trio_kv.replica.driver import Input, TimerFired, heard_and_done

CONFIG = RaftConfig()
ENTRIES = tuple(make_entry(index, 1, 0, None) for index in range(1, 4))


def follower() -> Raft:
    """Return node 2 of five, which follows node 1 in term 1, and has three entries of which two are committed."""
    raft = Raft(id=2, peers=(1, 3, 4, 5), config=CONFIG, random=Random(2), incarnation=1, now=0.0)
    raft.receive(0.0, AppendEntries(1, 2, 1, 1, False, 0, 0, ENTRIES, 2))
    raft.receive(0.0, heartbeat())
    store(raft, 0.0)
    return raft


def leader() -> Raft:
    """Return node 1 of five, which leads term 1; node 5 has nothing, and the others have all of its log."""
    raft = Raft(id=1, peers=(2, 3, 4, 5), config=CONFIG, random=Random(1), incarnation=1, now=0.0)
    raft.become_candidate(0.0, "a test", is_pre_vote=False)
    store(raft, 0.0)
    for peer in (2, 3):
        raft.receive(0.0, VoteReply(peer, 1, 1, 1, False, True))
    store(raft, 0.0)
    for peer in (2, 3, 4):
        raft.receive(0.0, AppendAccepted(peer, 1, 1, 1, False, 1, None))
    store(raft, 0.0)
    assert raft.is_leader
    raft.timeout(0.0)
    raft.ready(0.0)
    return raft


def store(raft: Raft, now: float) -> None:
    """Let all that a node wants to write be durable."""
    while (write := raft.ready(now).write) is not None:
        raft.stored(now, write.ticket)


def heartbeat(commit: int = 2, term: int = 1) -> Heartbeat:
    return Heartbeat(1, 2, term, 1, False, 7, 3, 1, commit)


def reply(source: int, term: int = 1, incarnation: int = 1) -> HeartbeatReply:
    return HeartbeatReply(source, 1, term, incarnation, False, 1)


def test_a_heartbeat_without_news_is_answered_at_once() -> None:
    """The follower's timer begins anew, and the round gets its reply."""
    raft = follower()
    before = raft.deadline
    assert heard_and_done(raft, 0.3, heartbeat()) == [HeartbeatReply(2, 1, 1, 1, False, 7)]
    assert raft.deadline >= 0.3 + CONFIG.election_timeout_min_s > before - 0.2
    assert raft.ready(0.3) == Ready()


@pytest.mark.parametrize(
    "message",
    [
        heartbeat(commit=3),
        heartbeat(term=2),
        heartbeat(term=0),
        attrs.evolve(heartbeat(), rebuilding=((3, 1),)),
        AppendEntries(1, 2, 1, 1, False, 3, 1, (), 2),
        HeartbeatReply(3, 2, 1, 1, False, 1),
    ],
    ids=["commits", "newer term", "older term", "tells of a rebuild", "an append", "a reply"],
)
def test_what_brings_news_to_a_follower_is_left_to_a_pass(message: Message) -> None:
    """It is not taken by halves: the node is as it was."""
    raft = follower()
    deadline = raft.deadline
    assert heard_and_done(raft, 0.1, message) is None
    assert (raft.deadline, raft.term, raft.commit) == (deadline, 1, 2)


def test_a_follower_that_follows_nobody_yet_needs_a_pass() -> None:
    """The first heartbeat of a leader tells who leads."""
    raft = follower()
    raft.become_follower(0.1, 2, "a test")
    assert heard_and_done(raft, 0.1, heartbeat(term=2)) is None


def test_a_follower_whose_term_is_not_durable_needs_a_pass() -> None:
    """Its answer has to wait for its disk."""
    raft = follower()
    raft.receive(0.1, heartbeat(term=2))
    raft.ready(0.1)
    raft.fresh_index = 2
    assert heard_and_done(raft, 0.1, heartbeat(term=2)) is None


def test_a_reply_that_nobody_waits_for_is_taken_at_once() -> None:
    """It counts as hearing from the follower, as ever: check-quorum stands on it."""
    raft = leader()
    while (now := raft.deadline) < 3.0:
        raft.timeout(now)
        raft.ready(now)
        for peer in (2, 3):
            assert heard_and_done(raft, now, reply(peer)) == []
        assert raft.ready(now) == Ready()
    silent_since = now
    while raft.is_leader:
        now = raft.deadline
        raft.timeout(now)
        raft.ready(now)
    assert now - silent_since <= CONFIG.election_timeout_max_s


@pytest.mark.parametrize(
    "message",
    [
        reply(5),
        reply(2, incarnation=2),
        attrs.evolve(reply(2), is_rebuilding=True),
        reply(2, term=2),
        reply(7),
        AppendAccepted(2, 1, 1, 1, False, 1, None),
    ],
    ids=["lacks entries", "has a new disk", "is being rebuilt", "newer term", "no member", "an append"],
)
def test_what_brings_news_to_a_leader_is_left_to_a_pass(message: Message) -> None:
    """Something may have to be sent because of it."""
    raft = leader()
    assert heard_and_done(raft, 0.1, message) is None
    assert raft.is_leader


def test_a_reply_for_which_a_question_waits_needs_a_pass() -> None:
    """It may confirm a round."""
    raft = leader()
    raft.receive(0.1, ReadIndex(3, 1, 1, 1, False, 8, 1))
    raft.ready(0.1)
    assert heard_and_done(raft, 0.1, reply(2)) is None


@given(
    commit=st.integers(0, 4),
    prev_index=st.integers(0, 4),
    round_number=st.integers(0, 2),
    time_us=st.integers(0, 3),
    now=st.sampled_from((0.0, 0.1, 0.5)),
)
def test_the_same_comes_of_it_as_in_a_pass(
    commit: int, prev_index: int, round_number: int, time_us: int, now: float
) -> None:
    """Whatever is taken at once leaves the node, and says to others, what a pass would have."""
    message = Heartbeat(1, 2, 1, 1, False, round_number, prev_index, 1, commit, (), time_us)
    alone = follower()
    passing = alone.copy()
    said = heard_and_done(alone, now, message)
    passing.receive(now, message)
    ready = passing.ready(now)
    if said is None:
        assert commit > 2
        return
    assert ready == Ready(messages=tuple(said))
    assert alone.ready(now) == Ready()
    for name in ("deadline", "term", "commit", "heard_time", "heard_leader_at", "leader", "fresh_index"):
        assert getattr(alone, name) == getattr(passing, name)


# In a cluster


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


async def test_in_an_idle_cluster_the_leader_alone_has_passes(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One a heartbeat, for its timer. No follower has any, and no timer of one fires in vain."""
    passes: Counter[int] = Counter()
    fired: Counter[type] = Counter()
    real = Node._pass

    def note(node: Node, now: float, items: list[Input]) -> None:
        passes[node.replica.id] += 1
        fired.update(map(type, items))
        real(node, now, items)

    monkeypatch.setattr(Node, "_pass", note)
    woken = 0
    wake = Inbox.wake

    def count(inbox: Inbox) -> None:
        nonlocal woken
        woken += 1
        wake(inbox)

    monkeypatch.setattr(Inbox, "wake", count)
    cluster = Cluster()
    await nursery.start(cluster.run)
    await trio.sleep(1.0)
    passes.clear()
    fired.clear()
    woken = 0
    await trio.sleep(100 * CONFIG.heartbeat_interval_s)
    assert passes.keys() == {cluster.lead()}
    assert passes[cluster.lead()] == fired[TimerFired] == woken == pytest.approx(100, abs=1)
    assert fired.keys() == {TimerFired}
    nursery.cancel_scope.cancel()


async def test_questions_move_the_timer_of_a_busy_node_seldom(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each moves a follower's deadline to and fro. To tell the timer both times cost 2 % of a small read."""
    calls = moves = 0
    real = Node._set_timer

    def count(node: Node, now: float, deadline: float) -> None:
        nonlocal calls, moves
        before = node._timer_at
        real(node, now, deadline)
        calls, moves = calls + 1, moves + (node._timer_at != before)

    monkeypatch.setattr(Node, "_set_timer", count)
    cluster = Cluster()
    await nursery.start(cluster.run)
    await trio.sleep(1.0)
    calls = moves = 0
    for _ in range(1000):
        answer = await cluster.store.read([Get("a")], timeout_s=1.0, is_stale=False, view=View())
        assert answer.replies[0].code == "missing"
        await trio.sleep(0.001)
    assert calls > 2000
    # A time or two a heartbeat and node, and whatever the leader has to do.
    assert moves < 6 / CONFIG.heartbeat_interval_s
    nursery.cancel_scope.cancel()


async def test_who_hears_no_leader_any_more_stands_in_time(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """However long its timer was put off by heartbeats."""
    cluster = Cluster()
    await nursery.start(cluster.run)
    for heartbeats in range(1, 20):
        await trio.sleep(heartbeats * 0.013)
    lead = cluster.lead()
    cluster.nodes[lead].pause()
    await trio.sleep(CONFIG.election_timeout_min_s - CONFIG.heartbeat_interval_s - 0.001)
    others = [node.replica.raft for number, node in cluster.nodes.items() if number != lead]
    assert [raft.leader for raft in others] == [lead, lead]
    await trio.sleep(CONFIG.election_timeout_max_s)
    assert lead not in [raft.leader for raft in others]
    nursery.cancel_scope.cancel()


async def test_no_message_overtakes_another_one(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A heartbeat that follows an append waits for the same pass."""
    cluster = Cluster()
    await nursery.start(cluster.run)
    await trio.sleep(1.0)
    lead, target = cluster.lead(), cluster.lead() % 3 + 1
    raft, inbox = cluster.nodes[target].replica.raft, cluster.inboxes[target]
    last, header = raft.log.last_index, (lead, target, raft.term, lead, False)
    beat = Heartbeat(*header, 1, last, raft.log.last_term, raft.commit)
    cluster.sent.clear()
    inbox.post_peer(beat)
    assert [type(message) for message in cluster.sent] == [HeartbeatReply]
    cluster.sent.clear()
    inbox.post_peer(AppendEntries(*header, last, raft.log.last_term, (), raft.commit))
    inbox.post_peer(beat)
    assert cluster.sent == []
    await trio.sleep(0.001)
    assert {type(message) for message in cluster.sent} == {AppendAccepted, HeartbeatReply}
    nursery.cancel_scope.cancel()


async def test_a_node_that_is_paused_answers_no_heartbeat(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Nor does one that was resumed and did not look yet."""
    cluster = Cluster()
    await nursery.start(cluster.run)
    await trio.sleep(1.0)
    target = cluster.lead() % 3 + 1
    cluster.nodes[target].pause()
    cluster.sent.clear()
    await trio.sleep(1.0)
    assert any(isinstance(message, Heartbeat) and message.target == target for message in cluster.sent)
    assert not any(message.source == target for message in cluster.sent)
    cluster.nodes[target].resume()
    cluster.inboxes[target].post_peer(cluster.sent[-1])
    assert not any(message.source == target for message in cluster.sent)
    await trio.sleep(0.1)
    assert any(message.source == target for message in cluster.sent)
    nursery.cancel_scope.cancel()


async def test_a_bug_where_a_heartbeat_is_answered_ends_that_node_alone(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised in the pass of another node, which goes on."""
    cluster = Cluster()
    await nursery.start(cluster.run)
    target = cluster.lead() % 3 + 1
    node = Cluster().nodes[target]
    raised = trio.Event()

    def receive(now: float, message: Message) -> None:
        raised.set()
        raise RuntimeError("a bug")

    monkeypatch.setattr(node.replica.raft, "receive", receive)
    monkeypatch.setattr(node.replica.raft.role, "is_answer_all", lambda message: True)
    with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        async with trio.open_nursery() as alone:
            alone.start_soon(node.run)
            await trio.sleep(0.001)
            assert node.inbox.post_peer(Heartbeat(1, target, 1, 1, False, 1, 0, 0, 0))
    assert raised.is_set()
    assert (await cluster.store.write([SET], timeout_s=1.0)).replies[0].code == "ok"
    nursery.cancel_scope.cancel()
