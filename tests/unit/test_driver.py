"""The one loop that drives a replica: what a pass gives, whatever came."""

from random import Random

import pytest

from trio_kv.kv.commands import OpenSession
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Get
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.events import TransferEnded
from trio_kv.raft.node import Raft
from trio_kv.replica import replica as replica_module
from trio_kv.replica.driver import Continue, DiskFailedError, Driver, Input, Transfer, Work
from trio_kv.replica.jobs import DiskFailed, LogSpaceChanged, Stored
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import Turns
from trio_kv.trace.vocabulary import DiskRoomChanged
from trio_kv.wire.node_port import Done, Propose, Read, ReplyTo


class Node:
    """A node that is alone, leads, and stores at once."""

    def __init__(self) -> None:
        raft = Raft(
            id=1, peers=(), config=RaftConfig(), random=Random(1), incarnation=1, now=0.0, events_level=20
        )
        replica = Replica(raft)
        self.driver = Driver(replica, Turns(1.0))
        self.now = 2.0
        self.driver.replica.raft.become_candidate(self.now, "test", is_pre_vote=False)
        self.step()
        assert replica.raft.is_leader

    def step(self, *items: Input) -> Work:
        """Return the work of a pass; what it writes is stored in further ones."""
        work = self.driver.step(self.now, self.now, items)
        later = work
        while later.write is not None:
            later = self.driver.step(self.now, self.now, [Stored(later.write.ticket)])
            work.answers += later.answers
        return work


@pytest.fixture
def node() -> Node:
    return Node()


def test_a_pass_that_raises_loses_no_answer(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had answered when something else in it raised is among the last answers of the node."""
    write = node.driver.step(node.now, node.now, [Propose(ReplyTo(1, 1), 7, [OpenSession(60_000_000)])]).write
    assert write is not None

    def take_turn(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(Replica, "take_turn", take_turn)
    with pytest.raises(RuntimeError):
        node.step(Stored(write.ticket))
    ((reply_to, answer),) = node.driver.stop()
    assert reply_to == ReplyTo(1, 1)
    assert isinstance(answer, Done)


def test_a_read_that_was_confirmed_is_answered_though_the_pass_raises(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It left Raft and was not answered yet, when an entry could not be applied: it is among the last answers."""
    write = node.driver.step(node.now, node.now, [Propose(ReplyTo(1, 1), 7, [OpenSession(60_000_000)])]).write
    assert write is not None

    def apply(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(Machine, "apply", apply)
    with pytest.raises(RuntimeError):
        node.step(Stored(write.ticket), Read(ReplyTo(1, 1), 8, [Get("k")]))
    assert {answer.number for _, answer in node.driver.stop()} == {7, 8}


def test_a_further_pass_is_wanted_once_at_a_time(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as `Continue` was not given, no pass asks for it again; then the next one does, if work is left."""
    has_more = True
    monkeypatch.setattr(replica_module.Replica, "has_more", property(lambda _: has_more))
    assert [node.step().turns for _ in range(3)] == [1, 0, 0]
    assert node.step(Continue()).turns == 1
    has_more = False
    assert node.step(Continue()).turns == 0


def test_what_came_is_told_before_what_came_of_it(node: Node) -> None:
    """The room on the disk, and a transfer that can't be, are told in the order in which they came."""
    events = node.step(LogSpaceChanged(100_000), Transfer(1), LogSpaceChanged(None)).events
    kinds = [type(told.event) for told in events]
    assert kinds[0] is DiskRoomChanged
    assert [kind for kind in kinds if kind is TransferEnded or kind is DiskRoomChanged][-1] is DiskRoomChanged
    assert node.step().events == ()


def test_D11_a_failed_disk_ends_the_pass(node: Node) -> None:
    """Nothing comes of a pass in which the disk says that it failed."""
    error = OSError(5, "broken")
    with pytest.raises(DiskFailedError) as raised:
        node.step(DiskFailed(error))
    assert raised.value.__cause__ is error
