"""What a node heard of incarnations outlives its restart, where the nodes share no manifest (decision 0048).

All scenarios begin as that of decision 0009: node 3 votes for node 5 in term 2, of which nobody else knows, and loses
its disk. Rebuilt, it votes in term 2 again, and node 2 leads that term. Then the late request of node 5 reaches one
more voter. With the vote of a disk that is gone node 5 would have a majority, too.
"""

from random import Random

import pytest

from tests.five import Five
from trio_kv.kv.machine import Machine
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.entry import make_entry
from trio_kv.raft.messages import AppendEntries, Heartbeat, HeartbeatReply, Message, ReadIndex, ReadIndexReply
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import HardState
from trio_kv.replica.driver import Driver, Heard
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import Turns


def lead_term_2(five: Five, *voters: int) -> None:
    """Let node 2 lead term 2, with the new vote of node 3."""
    five.stand(2, leader=1)
    five.deliver(2, *voters)
    assert five.nodes[2].is_leader
    assert five.nodes[2].term == 2


def vote_late(five: Five, late: list[Message], voter: int) -> None:
    """Let a voter hear what node 5 asked long ago; it votes, and must not make node 5 lead."""
    five.wire = [each for each in late if each.target == voter]
    five.deliver(voter, 5)
    assert five.nodes[voter].vote == 5
    assert not five.nodes[5].is_leader


def test_D8_a_leader_that_confirmed_a_rebuild_still_knows_of_it_after_a_restart() -> None:
    """D8: node 1 confirmed the rebuild. A restart makes it the late voter, and it tells node 5 which vote is void."""
    five = Five()
    five.elect(1)
    late = five.let_vote_and_replace(3, 5, leader=1)
    five.beats(1, 1, 2, 3, 4)
    assert not five.is_rebuilding(3)
    lead_term_2(five, 3, 4)
    five.restart(1)
    vote_late(five, late, voter=1)


def test_D8_a_voter_that_answered_the_round_still_knows_of_it_after_a_restart() -> None:
    """D8: the round of nodes 1, 2 and 4 confirmed the rebuild: so node 4 has to know of it when it votes at last."""
    five = Five()
    five.elect(1)
    late = five.let_vote_and_replace(3, 5, leader=1)
    five.beats(1, 1, 2, 3, 4)
    five.restart(4)
    lead_term_2(five, 1, 3)
    vote_late(five, late, voter=4)


def test_D8_a_round_is_answered_when_what_it_names_is_durable() -> None:
    """D8: node 4 heard of the rebuild, and its disk stands still. Restarted it would know nothing: it must not answer.

    Without its answer nodes 1 and 2 are no majority, so node 3 stays out.
    """
    five = Five()
    five.elect(1)
    late = five.let_vote_and_replace(3, 5, leader=1)
    five.disks[4].is_held = True
    five.beats(1, 1, 2, 3, 4)
    assert five.nodes[4].incarnation_of(3) == 2
    assert five.is_rebuilding(3)
    five.free(4)
    five.beats(1, 1, 2, 3, 4)
    assert not five.is_rebuilding(3)
    five.restart(4)
    lead_term_2(five, 1, 3)
    vote_late(five, late, voter=4)


def test_D8_a_leader_confirms_a_rebuild_when_it_knows_of_it_durably() -> None:
    """D8: the leader counts itself. As long as its disk stands still it leads on, and confirms nothing of node 3."""
    five = Five()
    five.elect(1)
    late = five.let_vote_and_replace(3, 5, leader=1)
    five.disks[1].is_held = True
    five.beats(1, 1, 2, 3, 4)
    assert five.nodes[1].is_leader
    assert five.is_rebuilding(3)
    five.free(1)
    five.beats(1, 1, 2, 3, 4)
    assert not five.is_rebuilding(3)
    lead_term_2(five, 3, 4)
    five.restart(1)
    vote_late(five, late, voter=1)


def test_D8_a_voter_that_was_rebuilt_itself_learned_what_its_former_self_knew() -> None:
    """D8: node 4 loses its disk, too, when node 3 is rebuilt. With its own rebuild it learns of that of node 3.

    Nodes 1, 2 and 4 confirmed node 3, and nodes 1, 2 and 3 confirmed node 4. Of the voters of node 5 only node 4 can
    know which vote is void, and it is a disk that never heard of it.
    """
    five = Five()
    five.elect(1)
    late = five.let_vote_and_replace(3, 5, leader=1)
    five.beats(1, 1, 2, 3, 4)
    five.replace(4)
    five.wire = []
    five.beats(1, 1, 2, 3, 4)
    assert not any(five.is_rebuilding(node) for node in (3, 4))
    five.restart(4)
    lead_term_2(five, 1, 3)
    vote_late(five, late, voter=4)


def raft(*, is_rebuilding: bool = False, hard_state: HardState = HardState()) -> Raft:  # noqa: B008 - frozen
    """Return node 1 of three. Its caller knows of the second incarnation of node 2."""
    return Raft(
        id=1,
        peers=[2, 3],
        config=RaftConfig(),
        random=Random("incarnations"),
        incarnation=5,
        incarnations={1: 5, 2: 2},
        now=0.0,
        is_rebuilding=is_rebuilding,
        hard_state=hard_state,
    )


def test_D8_a_rebuild_ends_when_what_came_with_the_answer_is_durable() -> None:
    """D8: with the end of the rebuild the node votes; a crash then must not make it one that never heard."""
    node = raft(is_rebuilding=True)
    entry = make_entry(1, 1, 0, None)
    node.receive(0.0, AppendEntries(2, 1, 1, 2, False, 0, 0, (entry,), 1))
    ready = node.ready(0.0)
    assert ready.write is not None
    node.stored(0.0, ready.write.ticket)
    (asked,) = [each for each in (*ready.messages, *node.ready(0.0).messages) if isinstance(each, ReadIndex)]
    told = ((1, 5), (2, 2), (3, 7))
    node.receive(0.0, ReadIndexReply(2, 1, 1, 2, False, asked.nonce, asked.counter, 1, 1, told))
    write = node.ready(0.0).write
    assert write is not None
    assert write.hard_state == HardState(1, None, told)
    assert node.is_rebuilding
    node.stored(0.0, write.ticket)
    node.ready(0.0)
    assert not node.is_rebuilding


def test_the_greater_of_what_the_caller_and_the_disk_know_counts() -> None:
    """A manifest is written when a node is replaced, and a disk when that is heard: either may be ahead."""
    node = raft(hard_state=HardState(4, None, ((2, 1), (3, 9))))
    assert [node.incarnation_of(peer) for peer in (1, 2, 3)] == [5, 2, 9]
    assert raft().incarnation_of(3) == 0
    assert node.ready(0.0).write is None


def test_only_what_is_news_is_written() -> None:
    """A round that names what is known is answered at once, as ever; news go to the disk once."""
    node = raft(hard_state=HardState(1))

    def beat(number: int, named: tuple[tuple[int, int], ...]) -> Heartbeat:
        return Heartbeat(2, 1, 1, 2, False, number, 0, 0, 0, named)

    node.receive(0.0, beat(1, ((2, 2),)))
    ready = node.ready(0.0)
    assert (ready.messages, ready.write) == ((HeartbeatReply(1, 2, 1, 5, False, 1),), None)
    node.receive(0.0, beat(2, ((3, 4),)))
    ready = node.ready(0.0)
    assert ready.messages == (HeartbeatReply(1, 2, 1, 5, False, 0),)
    assert ready.write is not None
    assert ready.write.hard_state == HardState(1, None, ((1, 5), (2, 2), (3, 4)))
    node.receive(0.0, beat(3, ()))
    assert node.ready(0.0).messages == (HeartbeatReply(1, 2, 1, 5, False, 0),)
    node.stored(0.0, ready.write.ticket)
    assert [each.round for each in node.ready(0.0).messages if isinstance(each, HeartbeatReply)] == [2, 3]
    node.receive(0.0, beat(4, ((3, 4),)))
    ready = node.ready(0.0)
    assert (len(ready.messages), ready.write) == (1, None)


@pytest.mark.parametrize(("incarnation", "known"), [(4, 4), (2, 2), (1, 2), (0, 2)])
def test_a_hello_is_noted_if_it_is_of_a_higher_incarnation(incarnation: int, known: int) -> None:
    """The transport tells of a hello by a control input; the node's disk has it with the next write."""
    node = raft(hard_state=HardState(1))
    driver = Driver(Replica(node, Machine()), Turns(1.0))
    write = driver.step(0.0, 0.0, [Heard(2, incarnation)]).write
    assert node.incarnation_of(2) == known
    assert (write is not None) == (known > 2)
    if write is not None:
        assert write.hard_state == HardState(1, None, ((1, 5), (2, 4)))
