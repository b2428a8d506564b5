"""A node that is rebuilt counts again only when it surely has all that its former self acknowledged."""

from random import Random

from tests.five import Five
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.entry import make_entry
from trio_kv.raft.messages import (
    AppendEntries,
    Heartbeat,
    Message,
    ReadIndex,
    ReadIndexReply,
)
from trio_kv.raft.node import Raft


def rebuilding() -> Raft:
    """Return node 1 of three, whose directory is new and empty."""
    return Raft(
        id=1,
        peers=[2, 3],
        config=RaftConfig(commit_delay_s=0.0),
        random=Random("rebuild"),
        incarnation=2,
        now=0.0,
        is_rebuilding=True,
    )


def settle(raft: Raft) -> list[Message]:
    """Let the disk store all there is; return what the node sends."""
    sent: list[Message] = []
    while True:
        ready = raft.ready(0.0)
        sent += ready.messages
        if ready.write is None:
            return sent
        raft.stored(0.0, ready.write.ticket)


def append(leader: int, term: int, prev: tuple[int, int], *terms: int, commit: int) -> AppendEntries:
    """Return a leader's append of entries of these terms behind `prev`."""
    entries = tuple(make_entry(prev[0] + 1 + place, of, 0, None) for place, of in enumerate(terms))
    return AppendEntries(leader, 1, term, 1, False, *prev, entries, commit)


def test_D8_entries_of_a_deposed_leader_do_not_end_a_rebuild() -> None:
    """D8: a log that is long enough isn't enough: it must be known to hold what is committed up to the confirmed index.

    Node 2, deposed without knowing it, fills node 1 with entries that were never committed; node 3 has committed
    others in their place, with the former self of node 1. Counted again with those, node 1 could elect node 2, and
    what is committed would be lost.
    """
    raft = rebuilding()
    raft.receive(0.0, append(2, 3, (0, 0), 1, 1, 3, 3, 3, commit=2))
    settle(raft)
    raft.receive(0.0, Heartbeat(3, 1, 4, 1, False, 0, 0, 0, 4))
    (asked,) = [message for message in settle(raft) if isinstance(message, ReadIndex)]
    raft.receive(0.0, ReadIndexReply(3, 1, 4, 1, False, asked.nonce, asked.counter, 4, 4))
    settle(raft)
    assert raft.log.durable == 5
    assert raft.is_rebuilding
    raft.receive(0.0, append(3, 4, (2, 1), 4, 4, commit=4))
    settle(raft)
    assert not raft.is_rebuilding


def test_D8_a_vote_of_the_former_self_is_void() -> None:
    """D8: a candidate that was promised a vote by a disk that is gone learns of that from whoever votes next.

    Node 5 has the vote of node 3 for term 2, and its other requests are late. Node 3 is rebuilt meanwhile, by nodes
    that know nothing of term 2, and may then vote in it again: else term 2 had two leaders, each with a majority.
    """
    five = Five()
    five.elect(1)
    late = five.let_vote_and_replace(3, 5, leader=1)
    five.beats(1, 1, 2, 3, 4)
    assert not five.is_rebuilding(3)

    five.stand(2, leader=1)
    five.deliver(2, 3, 4)
    assert five.nodes[2].is_leader
    assert five.nodes[2].term == 2
    five.wire = [each for each in late if each.target == 1]
    five.deliver(1, 5)
    assert five.nodes[1].vote == 5
    assert not five.nodes[5].is_leader
