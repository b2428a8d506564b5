"""Followers further away are sent entries together, as long as those nearby commit without them."""

from collections.abc import Callable

import pytest

from tests.unit.test_near import CONFIG, PEERS, beat, leader, store
from trio_kv.kv.commands import Expire
from trio_kv.raft.leader import Leader
from trio_kv.raft.messages import AppendAccepted, AppendEntries, HeartbeatReply, ReadIndex
from trio_kv.raft.node import Raft

DELAY_S = CONFIG.spare_delay_s
NEAR, FAR = (4, 5), (2, 3)
AT = 1.0
"""When all were heard last, and have all of the log."""


@pytest.fixture
def raft() -> Raft:
    """Return node 1 of five, which leads; 4 and 5 are near, and a majority with it."""
    raft = leader(*NEAR)
    beat(raft, AT)
    return raft


def propose(raft: Raft, now: float) -> dict[int, int]:
    """Write an entry; return how many entries each follower is sent in the same pass."""
    raft.propose(now, [Expire(1)])
    return sent(raft, now)


def sent(raft: Raft, now: float) -> dict[int, int]:
    ready = raft.ready(now)
    if ready.write is not None and raft.persistence.oldest_write_at == now:
        raft.stored(now, ready.write.ticket)
    return {each.target: len(each.entries) for each in ready.messages if isinstance(each, AppendEntries)}


def accept(raft: Raft, now: float, *peers: int, match: int | None = None, room: int | None = None) -> None:
    """Let followers say that they have all of the log, or so much."""
    for peer in peers:
        raft.receive(
            now, AppendAccepted(peer, 1, 1, 1, False, raft.log.last_index if match is None else match, room)
        )


def test_those_further_away_get_together_what_has_gathered(raft: Raft) -> None:
    """The commit does not wait for them, and their timer is that of the leader."""
    for now in (AT, AT + DELAY_S / 4, AT + DELAY_S / 2):
        assert propose(raft, now) == dict.fromkeys(NEAR, 1)
        accept(raft, now, *NEAR)
        assert raft.commit == raft.log.last_index
    now, found = AT, dict[int, int]()
    while not found:
        now = raft.deadline
        raft.timeout(now)
        found = sent(raft, now)
    assert (now, found) == (AT + DELAY_S, dict.fromkeys(FAR, 3))
    assert raft.deadline > now
    accept(raft, now, *FAR)
    assert propose(raft, now) == dict.fromkeys(NEAR, 1), "and so on"


def one_is_silent(raft: Raft) -> float:
    for times in (1, 2):
        beat(raft, AT + times * CONFIG.heartbeat_interval_s, NEAR[0])
    return AT + 2.1 * CONFIG.heartbeat_interval_s


def one_is_slow(raft: Raft) -> float:
    propose(raft, AT)
    accept(raft, AT, NEAR[0])
    return AT + DELAY_S / 2


def one_lacks_what_is_committed(raft: Raft) -> float:
    propose(raft, AT)
    sent(raft, AT + DELAY_S)
    accept(raft, AT + DELAY_S, 2, 3, 4)
    assert raft.commit == raft.log.last_index
    return AT + DELAY_S


def one_has_a_full_disk(raft: Raft) -> float:
    accept(raft, AT, NEAR[0], room=1 << 20)
    return AT


def own_disk_is_slow(raft: Raft) -> float:
    raft.propose(AT, [Expire(1)])
    assert raft.ready(AT).write is not None
    accept(raft, AT, *NEAR)
    return AT + DELAY_S / 2


def own_disk_was_slow(raft: Raft) -> float:
    """A lone write would wait for it each time."""
    raft.propose(AT, [Expire(1)])
    write = raft.ready(AT).write
    assert write is not None
    accept(raft, AT, *NEAR)
    raft.stored(AT + DELAY_S / 2, write.ticket)
    return AT + DELAY_S / 2


def own_disk_is_full(raft: Raft) -> float:
    raft.set_free_log_bytes(1 << 20)
    return AT


def one_was_slow(raft: Raft) -> float:
    """The same."""
    propose(raft, AT)
    accept(raft, AT + DELAY_S / 2, *NEAR)
    return AT + DELAY_S / 2


@pytest.mark.parametrize(
    "happens",
    [
        one_is_silent,
        one_is_slow,
        one_was_slow,
        one_lacks_what_is_committed,
        one_has_a_full_disk,
        own_disk_is_slow,
        own_disk_was_slow,
        own_disk_is_full,
    ],
)
def test_nobody_is_spare_where_a_commit_may_have_to_wait(
    raft: Raft, happens: Callable[[Raft], float]
) -> None:
    """Those further away make up the majority then."""
    now = happens(raft)
    assert propose(raft, now).keys() >= set(FAR)


def test_one_that_is_quick_again_makes_the_others_spare_again(raft: Raft) -> None:
    """What was slow once may be so for a moment only."""
    now = one_is_slow(raft)
    accept(raft, now, *PEERS)
    assert propose(raft, now) == dict.fromkeys(PEERS, 1)
    accept(raft, now, *PEERS)
    assert propose(raft, now) == dict.fromkeys(NEAR, 1)


def test_who_is_far_behind_is_not_slowed_down(raft: Raft) -> None:
    """What does not go out in one pass, or one window, goes as soon as it can."""
    count = 4 * CONFIG.append_entries_max
    raft.propose(AT, [Expire(1)] * count)
    sent(raft, AT)
    for _ in range(10):
        accept(raft, AT, *NEAR)
        sent(raft, AT)
    assert raft.commit == count + 1
    now, taken = AT + DELAY_S, 0
    while found := sent(raft, now):
        assert found == dict.fromkeys(FAR, CONFIG.append_entries_max)
        taken += CONFIG.append_entries_max
        if not raft.has_more:
            accept(raft, now, *FAR, match=taken + 1)
    assert taken == count
    assert propose(raft, now) == dict.fromkeys(NEAR, 1)


@pytest.mark.parametrize("near", [(), (4,), PEERS])
def test_those_nearby_have_to_be_a_majority_and_not_all(near: tuple[int, ...]) -> None:
    """As on hosts of their own, or in one process."""
    raft = leader(*near)
    beat(raft, AT)
    assert propose(raft, AT) == dict.fromkeys(PEERS, 1)


def test_who_is_to_take_over_gets_what_it_lacks_at_once(raft: Raft) -> None:
    """Writes are refused until it has."""
    assert propose(raft, AT) == dict.fromkeys(NEAR, 1)
    raft.transfer(AT, FAR[0], reason="a test")
    assert sent(raft, AT).keys() == set(FAR)
    assert isinstance(raft.role, Leader)
    assert raft.deadline > AT


def test_a_read_of_one_further_away_does_not_wait_for_entries(raft: Raft) -> None:
    """It waits there until all is applied that was committed when it was asked."""
    assert propose(raft, AT) == dict.fromkeys(NEAR, 1)
    accept(raft, AT, *NEAR)
    raft.receive(AT, ReadIndex(FAR[0], 1, 1, 1, False, 7, 1))
    assert sent(raft, AT) == dict.fromkeys(FAR, 1)


def test_one_that_waits_is_not_asked_whether_it_got_something(raft: Raft) -> None:
    """It was sent nothing that could be lost."""
    interval_s = CONFIG.heartbeat_interval_s
    assert propose(raft, AT + interval_s) == dict.fromkeys(NEAR, 1)
    raft.receive(AT + interval_s, HeartbeatReply(FAR[0], 1, 1, 1, False, 1))
    assert sent(raft, AT + interval_s) == {}


def test_a_transfer_while_nobody_waits_is_not_waited_for(raft: Raft) -> None:
    """The timer must not fire again and again."""
    raft.transfer(AT, NEAR[0], reason="a test")
    store(raft)
    assert raft.deadline > AT
