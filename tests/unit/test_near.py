"""A round of a leader prefers followers nearby: their replies come sooner, and cost less."""

from random import Random

import pytest

from trio_kv.raft.config import RaftConfig
from trio_kv.raft.messages import AppendAccepted, Heartbeat, HeartbeatReply, ReadIndex, VoteReply
from trio_kv.raft.node import Raft

CONFIG = RaftConfig()
PEERS = (2, 3, 4, 5)


def leader(*near: int) -> Raft:
    """Return node 1 of five, which leads term 1, and whose followers have all of its log."""
    raft = Raft(id=1, peers=PEERS, config=CONFIG, random=Random(1), incarnation=1, now=0.0, near=near)
    raft.become_candidate(0.0, "a test", is_pre_vote=False)
    store(raft)
    for peer in (2, 3):
        raft.receive(0.0, VoteReply(peer, 1, 1, 1, False, True))
    store(raft)
    for peer in PEERS:
        raft.receive(0.0, AppendAccepted(peer, 1, 1, 1, False, 1, None))
    store(raft)
    assert raft.commit == 1
    return raft


def store(raft: Raft) -> None:
    while (write := raft.ready(0.0).write) is not None:
        raft.stored(0.0, write.ticket)


def beat(raft: Raft, now: float, *silent: int) -> None:
    """Let a heartbeat go to all, whom all but some answer, 2 as the last one."""
    raft.timeout(now)
    sent = [each for each in raft.ready(now).messages if isinstance(each, Heartbeat)]
    assert {each.target for each in sent} == set(PEERS)
    for each in sorted(sent, key=lambda each: -each.target):
        if each.target not in silent:
            after = now + (PEERS[-1] - each.target) / 1000
            raft.receive(after, HeartbeatReply(each.target, 1, 1, 1, False, each.round))


def asked(raft: Raft, now: float) -> set[int]:
    """Return whom the leader asks when a follower wants to read."""
    raft.receive(now, ReadIndex(3, 1, 1, 1, False, 7, 1))
    return {each.target for each in raft.ready(now).messages if isinstance(each, Heartbeat)}


@pytest.mark.parametrize(
    ("near", "targets"), [((), {2, 3}), (PEERS, {2, 3}), ((1, 4, 5), {4, 5}), ((5,), {3, 5}), ((2,), {2, 3})]
)
def test_a_round_goes_to_those_nearby(near: tuple[int, ...], targets: set[int]) -> None:
    """And then to those heard last: 3 has just asked, and before it 2 had answered last."""
    raft = leader(*near)
    beat(raft, 1.0)
    assert asked(raft, 1.02) == targets


def test_one_nearby_that_is_silent_is_no_better_than_others() -> None:
    """Its reply would be waited for until the next heartbeat, at each read anew, as long as it is down."""
    raft = leader(4, 5)
    beat(raft, 1.0)
    interval_s = CONFIG.heartbeat_interval_s
    for times in (1, 2):
        beat(raft, 1.0 + times * interval_s, 4)
    assert asked(raft, 1.01 + 2 * interval_s) == {3, 5}
