"""What lies in a node's inbox until the node can act on it: it wakes nobody, and is not forgotten."""

from collections.abc import Sequence
from random import Random

import pytest
import trio
import trio.testing

from trio_kv.cluster.inbox import Inbox
from trio_kv.kv.commands import OpenSession
from trio_kv.kv.operations import Get
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.messages import (
    AppendAccepted,
    AppendEntries,
    HeartbeatReply,
    Message,
    ReadIndex,
    RequestVote,
    VoteReply,
)
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import Ticket
from trio_kv.replica.driver import Driver, Input, TimerFired, Work
from trio_kv.replica.jobs import Stored
from trio_kv.replica.patience import Patience
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import Turns
from trio_kv.wire.node_port import Propose, Read, ReplyTo

CLIENT = ReplyTo(1, 1)
PEERS = (2, 3, 4, 5)
READ = Read(CLIENT, 9, [Get("k")])
STALE = Read(CLIENT, 9, [Get("k")], is_stale=True)
PROPOSE = Propose(CLIENT, 8, [OpenSession(1_000_000)])


class Leader:
    """Node 1 of five, which leads term 1 and whose disk stores at once; the others say what a test lets them say."""

    def __init__(self, peers: Sequence[int] = PEERS) -> None:
        raft = Raft(
            id=1, peers=peers, config=RaftConfig(), random=Random(1), incarnation=1, now=0.0, events_level=99
        )
        self.raft = raft
        self.driver = Driver(Replica(raft), Turns(1.0))
        self.now = 0.0
        raft.become_candidate(0.0, "a test", is_pre_vote=False)
        self.step()
        for peer in (2, 3):
            self.step(raft_vote(peer))
        assert raft.is_leader
        self.acknowledge(*peers)

    def step(self, *items: Input) -> Work:
        work = self.driver.step(self.now, self.now, items)
        while work.write is not None:
            work = self.driver.step(self.now, self.now, [Stored(work.write.ticket)])
        return work

    def acknowledge(self, *peers: int) -> Work:
        last = self.raft.log.last_index
        return self.step(*[accepted(peer, last) for peer in peers])

    def propose(self) -> None:
        """Let an entry be on its way to the followers, stored here."""
        self.step(PROPOSE)
        assert self.raft.commit < self.raft.log.durable == self.raft.log.last_index

    def ask(self) -> None:
        """Let a heartbeat round be on its way."""
        self.step(ReadIndex(2, 1, 1, 1, False, 7, 1))
        assert self.raft.role.own_reads() == []


def raft_vote(peer: int) -> Message:
    return VoteReply(peer, 1, 1, 1, False, True)


def accepted(peer: int, match: int) -> AppendAccepted:
    return AppendAccepted(peer, 1, 1, 1, False, match)


def replied(peer: int, round_number: int = 1) -> HeartbeatReply:
    return HeartbeatReply(peer, 1, 1, 1, False, round_number)


def looks(leader: Leader, *items: object) -> list[bool]:
    """Return, for each of these in turn, whether the leader would look at it at once."""
    patience = Patience(leader.raft)
    return [patience.is_over(item) for item in items]


def test_an_idle_leader_acts_on_every_request() -> None:
    """Nothing is under way that a request could wait for."""
    leader = Leader()
    for item in (PROPOSE, READ, STALE, ReadIndex(2, 1, 1, 1, False, 7, 1)):
        assert looks(leader, item) == [True]


def test_an_idle_leader_leaves_replies_lying() -> None:
    """They tell that followers are there, which nobody waits for."""
    leader = Leader()
    assert looks(leader, *[accepted(peer, leader.raft.log.last_index) for peer in PEERS]) == [False] * 4
    assert looks(leader, *[replied(peer) for peer in PEERS]) == [False] * 4


def test_the_acknowledgement_that_commits_is_looked_at() -> None:
    """With the leader two of four followers are a majority; its own disk counts as one of three."""
    leader = Leader()
    leader.propose()
    assert looks(leader, accepted(2, 2), accepted(3, 2)) == [False, True]
    unstored = Leader()
    unstored.driver.step(unstored.now, unstored.now, [PROPOSE])
    assert looks(unstored, accepted(2, 2), Stored(Ticket(9, 1, 2)), accepted(3, 2)) == [False, False, True]


def test_what_can_wait_for_the_commit_lies() -> None:
    """New writes go out with the next append; stale reads, and whatever has no rule, never lie."""
    leader = Leader()
    leader.propose()
    assert looks(leader, PROPOSE, STALE, TimerFired()) == [False, True, True]
    assert looks(leader, RequestVote(2, 1, 2, 1, False, 1, 1)) == [True]


def test_the_reply_that_confirms_a_round_is_looked_at() -> None:
    """Questions that come meanwhile wait for the next round."""
    leader = Leader()
    leader.ask()
    assert looks(leader, ReadIndex(3, 1, 1, 1, False, 8, 1), READ) == [False, False]
    assert looks(leader, replied(2), replied(3)) == [False, True]


def test_a_question_that_needs_no_round_is_looked_at() -> None:
    """Of three, leader and asker are a majority: a round under way for the leader's own reads delays no question."""
    leader = Leader((2, 3))
    leader.step(READ)
    assert looks(leader, READ, ReadIndex(2, 1, 1, 1, False, 8, 1)) == [False, True]


def test_a_follower_that_lacks_entries_is_heard_at_once() -> None:
    """Each of its answers lets the leader send more."""
    leader = Leader()
    leader.raft.role.progress[4].become_probe(1)  # type: ignore[attr-defined]
    leader.propose()
    assert looks(leader, accepted(4, 1)) == [True]


def test_reads_of_a_follower_wait_for_the_question_under_way() -> None:
    """And only for that: without one they are asked for at once, and stale ones never wait."""
    raft = Raft(
        id=2, peers=(1, 3), config=RaftConfig(), random=Random(2), incarnation=1, now=0.0, events_level=99
    )
    driver = Driver(Replica(raft), Turns(1.0))
    driver.step(0.0, 0.0, [AppendEntries(1, 2, 1, 1, False, 0, 0, (), 0)])
    assert Patience(raft).is_over(READ)
    driver.step(0.0, 0.0, [READ])
    assert not Patience(raft).is_over(READ)
    assert Patience(raft).is_over(STALE)


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


async def test_what_lies_wakes_nobody_and_goes_along(autojump_clock: trio.testing.MockClock) -> None:
    """The node gets all of it, in its order, with the first item that it can act on."""
    leader, inbox = Leader(), Inbox()
    leader.propose()
    inbox.patience = Patience(leader.raft)
    told: list[str] = []
    inbox.on_left_lying = lambda: told.append("lies")
    inbox.post_peer(accepted(2, 2))
    inbox.post_request(PROPOSE)
    with trio.move_on_after(1) as scope:
        await inbox.receive()
    assert scope.cancelled_caught
    assert told == ["lies"]
    inbox.post_peer(accepted(3, 2))
    inbox.post_request(READ)
    items = await inbox.receive()
    assert [type(item) for item in items] == [AppendAccepted, Propose, AppendAccepted, Read]


def test_whoever_drains_gets_what_lies_and_what_was_sent() -> None:
    """Once: what was taken is not there any more."""
    leader, inbox = Leader(), Inbox()
    leader.propose()
    inbox.patience = Patience(leader.raft)
    assert inbox.drain() == []
    inbox.post_peer(accepted(2, 2))
    assert inbox.drain() == [accepted(2, 2)]
    assert inbox.drain() == []
    inbox.post_peer(accepted(2, 2))
    inbox.post_request(STALE)
    assert inbox.drain() == [accepted(2, 2), STALE]
    assert inbox.drain() == []


async def test_what_lies_counts_towards_the_limits(autojump_clock: trio.testing.MockClock) -> None:
    """Or else a node that waits for a commit would take requests without end."""
    leader, inbox = Leader(), Inbox(peers_max=1, requests_max=2)
    leader.propose()
    inbox.patience = Patience(leader.raft)
    assert inbox.post_peer(accepted(2, 2))
    assert not inbox.post_peer(accepted(3, 2))
    assert [inbox.post_request(PROPOSE) for _ in range(3)] == [True, True, False]
