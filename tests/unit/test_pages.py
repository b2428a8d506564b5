"""A node that is asked for pages: others go on while its keys are put in order, and while pages are made."""

from random import Random

import msgspec
import pytest

from trio_kv.kv.commands import OpenSession
from trio_kv.kv.commands import Write as WriteCommand
from trio_kv.kv.operations import Get, Scan, Set
from trio_kv.kv.operations.operation import Query
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import HardState
from trio_kv.replica.driver import Continue, Driver, Input
from trio_kv.replica.jobs import Stored
from trio_kv.replica.pages import ORDERED_KEYS_MAX, PAGES_IN_A_PASS_MAX
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import Turns
from trio_kv.wire.node_port import Answer, Done, Propose, Read, ReplyTo, Unknown

ONE = msgspec.Raw(b"1")
CLIENT = ReplyTo(1, 1)
KEYS = 5 * ORDERED_KEYS_MAX


class Node:
    """A node that leads alone, whose disk writes at once. Each step is one pass."""

    def __init__(self) -> None:
        config = RaftConfig(commit_delay_s=0.0)
        raft = Raft(
            id=1, peers=(), config=config, random=Random(1), incarnation=1, now=0.0, hard_state=HardState()
        )
        self.replica, self.now, self.stored = Replica(raft), 100.0, list[Input]()
        self.driver = Driver(self.replica, Turns(1.0))
        self.answers: list[Answer] = []
        self.wants_pass = False
        raft.become_candidate(self.now, reason="test", is_pre_vote=False)
        self.step()
        self.finish()
        self.propose(0, [OpenSession(10**9)])
        self.finish()
        (opened,) = self.taken()
        assert isinstance(opened, Done)
        self.session = opened.replies[0].revision
        self.seq = 0

    def step(self, *items: Input) -> None:
        """Make a pass."""
        self.now += 0.001
        came, self.stored = [*items, *self.stored], []
        if self.wants_pass:
            came.append(Continue())
        work = self.driver.step(self.now, self.now, came)
        self.wants_pass = bool(work.turns)
        self.answers += [answer for _, answer in work.answers]
        if work.write is not None:
            self.stored.append(Stored(work.write.ticket))

    def finish(self) -> int:
        """Make passes until there is nothing left to do; return how many."""
        passes = 0
        while self.stored or self.wants_pass or self.replica.requests_waiting:
            self.step()
            passes += 1
            assert passes < 1000
        return passes

    def propose(self, number: int, commands: list[OpenSession] | list[WriteCommand], *places: object) -> None:
        """Give it a run."""
        self.step(Propose(CLIENT, number, commands, 0, places))  # type: ignore[arg-type]

    def write(self, number: int, *keys: str, place: int = -1, queries: tuple[Query, ...] = ()) -> None:
        """Set keys, with queries between them."""
        commands = []
        for key in keys:
            self.seq += 1
            commands.append(WriteCommand(self.session, self.seq, 1, Set(key, ONE)))
        self.propose(number, commands, *([(place, queries)] if queries else []))

    def read(self, number: int, *queries: Query, is_stale: bool = False) -> None:
        """Ask queries."""
        self.step(Read(CLIENT, number, queries, is_stale))  # type: ignore[arg-type]

    def taken(self) -> list[Answer]:
        """Return and forget the answers so far."""
        answers, self.answers = self.answers, []
        return answers


def texts(answer: Answer) -> list[bytes]:
    """Return the values of the replies in an answer."""
    assert isinstance(answer, Done)
    return [bytes(reply.value or b"") for reply in answer.replies]


@pytest.fixture(name="node")
def make_node() -> Node:
    """Return a node with many keys that are in no order yet."""
    node = Node()
    for begin in range(0, KEYS, 1000):
        node.write(1, *[f"k{number:06}" for number in range(begin, begin + 1000)])
        node.finish()
    node.taken()
    return node


@pytest.mark.parametrize("is_stale", [False, True])
def test_others_go_on_while_keys_are_put_in_order(node: Node, is_stale: bool) -> None:
    """The first scan of many keys waits for as many passes as that takes, and nobody else waits with it."""
    node.read(1, Scan(count=True), is_stale=is_stale)
    passes = 0
    while not node.taken():
        node.write(100, f"new{passes}")
        node.read(200, Get(f"new{passes}"))
        node.step()
        assert {answer.number for answer in node.answers} >= {100, 200} or node.answers[0].number == 1
        node.answers = [answer for answer in node.answers if answer.number == 1]
        passes += 1
    assert passes > 3
    node.read(2, Scan(count=True), Scan("new", limit=1, values=False), is_stale=is_stale)
    passes_then = node.finish()
    (answer,) = [answer for answer in node.taken() if answer.number == 2]
    count, page = texts(answer)
    assert count == b'"count": %d, ' % (len(node.replica.machine.items))
    assert page.startswith(b'"items": [{"key":"new0","revision":')
    assert passes_then <= 2


def test_a_run_with_a_scan_waits_before_it_is_appended(node: Node) -> None:
    """So that what came behind it is done meanwhile; then the scan tells what was written before it and no more."""
    node.write(1, "a1", "a2", place=1, queries=(Scan("a"),))
    node.write(2, "a3")
    node.step()
    node.step()
    assert [answer.number for answer in node.taken()] == [2]
    assert node.replica.requests_waiting == 1
    assert node.finish() > 3
    (answer,) = node.taken()
    assert isinstance(answer, Done)
    assert answer.number == 1
    page = texts(answer)[1].decode()
    assert '"key":"a1"' in page
    assert '"key":"a2"' not in page
    assert '"key":"a3"' in page
    assert node.replica.uncommitted_bytes == 0


def test_pages_are_made_some_at_a_time(node: Node) -> None:
    """However many are asked for at once; each of them is answered."""
    node.read(1, Scan(limit=1))
    node.finish()
    node.taken()
    for number in range(5 * PAGES_IN_A_PASS_MAX):
        node.replica.read(Read(CLIENT, number, [Scan(limit=1)]))
    most = 0
    while node.replica.requests_waiting:
        before = len(node.answers)
        node.step()
        most = max(most, len(node.answers) - before)
    assert most == PAGES_IN_A_PASS_MAX
    assert [answer.number for answer in node.taken()] == list(range(5 * PAGES_IN_A_PASS_MAX))


def test_a_node_that_dies_tells_that_it_does_not_know(node: Node) -> None:
    """Also to those who wait for the order of its keys."""
    node.read(1, Scan())
    node.step()
    node.write(2, "a", place=1, queries=(Scan(),))
    assert set(node.driver.stop()) == {(CLIENT, Unknown(1, 1)), (CLIENT, Unknown(2, 1))}


def test_a_read_with_many_pages_is_answered_all_the_same(node: Node) -> None:
    """A run of a client has one page, but what comes in a read is answered however many it has."""
    node.read(1, *[Scan(limit=1)] * (3 * PAGES_IN_A_PASS_MAX))
    node.finish()
    (answer,) = node.taken()
    assert len(texts(answer)) == 3 * PAGES_IN_A_PASS_MAX
