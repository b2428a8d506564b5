"""What a node tells of its changes: to whom, when, and when not."""

from random import Random
from typing import cast

import msgspec

from trio_kv.kv.machine import Machine
from trio_kv.kv.operations.operation import Change, NoChange
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.node import Raft
from trio_kv.replica import feed as module
from trio_kv.replica.feed import Feed
from trio_kv.wire.node_port import Answer, Batch, Gone, Pull, Refused, ReplyTo, Unknown

ASKER = ReplyTo(1, 1)
WAIT_S = 2 * RaftConfig().election_timeout_max_s


class FakeRaft:
    """As much of a core as a feed looks at."""

    id = 3
    config = RaftConfig()
    leader: int | None = 1


class Fed:
    """A feed, and a machine that applies what it is told to."""

    def __init__(self, after: int = 0) -> None:
        self.raft = FakeRaft()
        self.feed = Feed(cast(Raft, self.raft), after)
        self.machine = Machine()
        self.machine.applied = after

    def apply(self, *keys: str, nothing: int = 0) -> None:
        """Let one entry change these keys, behind some that change nothing."""
        machine = self.machine
        machine.applied += 1 + nothing
        changes = [Change("set", key, msgspec.Raw(b"1"), machine.applied, 0) for key in keys]
        machine.changes = [*[NoChange("ok", 0, None)] * nothing, *changes]
        self.feed.applied(machine, 1 + nothing, 10)

    def answers(self) -> list[Answer]:
        return [answer for _, answer in self.feed.answers()]


def test_a_pull_is_answered_by_what_comes_next() -> None:
    """It waits for that; the range tells that nothing was left out, entries without a change included."""
    fed = Fed(5)
    fed.feed.pull(0.0, Pull(ASKER, 1, 5))
    assert fed.answers() == []
    fed.apply("a", "b", nothing=2)
    (batch,) = fed.answers()
    assert isinstance(batch, Batch)
    assert (batch.number, batch.node, batch.after, batch.upto) == (1, 3, 5, 8)
    assert [(each.key, each.revision) for each in batch.changes] == [("a", 8), ("b", 8)]
    assert not fed.feed.is_asked


def test_what_is_behind_the_history_is_gone() -> None:
    """A node that was made of a snapshot, or installs one, has nothing from before it, and says since when it has."""
    fed = Fed(5)
    fed.apply("a")
    fed.feed.pull(0.0, Pull(ASKER, 1, 4))
    assert fed.answers() == [Gone(1, 3, 5)]
    fed.feed.pull(0.0, Pull(ASKER, 2, 6))
    fed.machine.applied = 20
    fed.feed.restart(20)
    assert fed.answers() == [Gone(2, 3, 20)]
    fed.feed.pull(0.0, Pull(ASKER, 3, 20))
    fed.apply("b")
    assert isinstance(fed.answers()[0], Batch)


def test_silence_is_told() -> None:
    """Who waited for long enough hears that there was nothing, if this node hears a leader."""
    fed = Fed()
    fed.feed.pull(1.0, Pull(ASKER, 1, 0))
    fed.feed.pull(1.5, Pull(ASKER, 2, 0))
    assert fed.feed.deadline == 1.0 + WAIT_S
    assert fed.feed.timeout(1.0 + WAIT_S) == [(ASKER, Batch(1, 3, 0, 0, ()))]
    assert fed.feed.deadline == 1.5 + WAIT_S


def test_a_node_without_a_leader_sends_its_askers_away() -> None:
    """Others may write meanwhile: what it has told stays true, but it can't tell what comes next."""
    fed = Fed()
    fed.raft.leader = None
    fed.feed.pull(1.0, Pull(ASKER, 1, 0))
    assert fed.answers() == []
    assert fed.feed.timeout(1.0 + WAIT_S) == [(ASKER, Refused(1, 3, None))]
    assert fed.feed.deadline == float("inf")


def test_a_node_that_dies_says_so() -> None:
    """To all who wait."""
    fed = Fed()
    fed.feed.pull(0.0, Pull(ASKER, 1, 0))
    assert fed.feed.stop() == [(ASKER, Unknown(1, 3))]


def test_who_waits_is_limited() -> None:
    """One more is refused, and goes elsewhere."""
    fed = Fed()
    for number in range(module.PULLS_MAX + 1):
        fed.feed.pull(0.0, Pull(ASKER, number, 0))
    assert fed.answers() == [Refused(module.PULLS_MAX, 3, 1)]


def test_pieces_join() -> None:
    """A long history is told in pieces, each of which begins where the one before ended."""
    fed, random = Fed(), Random(1)
    for _ in range(3 * module.BATCH_CHANGES_MAX):
        fed.apply(*["a", "b"][: random.randint(0, 2)])
    at, told = 0, 0
    while at < fed.machine.applied:
        fed.feed.pull(0.0, Pull(ASKER, 1, at))
        (batch,) = fed.answers()
        assert isinstance(batch, Batch)
        assert batch.after == at < batch.upto
        assert len(batch.changes) <= module.BATCH_CHANGES_MAX + 1
        at, told = batch.upto, told + len(batch.changes)
    assert at == fed.machine.applied
    assert told == len(fed.feed.history.read(0, 1 << 30)[1])


def test_large_changes_come_in_several_answers() -> None:
    """One answer with all that the history holds would hold up a link between processes for a second."""
    fed = Fed()
    value = msgspec.Raw(bytes(1 << 20))
    for revision in range(1, 21):
        fed.machine.applied = revision
        fed.machine.changes = [Change("set", "k", value, revision, 0)]
        fed.feed.applied(fed.machine, 1, len(bytes(value)))
    after, sizes = 0, []
    while after < 20:
        fed.feed.pull(0.0, Pull(ASKER, 1, after))
        (batch,) = fed.answers()
        assert isinstance(batch, Batch)
        assert batch.after == after
        after = batch.upto
        sizes.append(len(batch.changes))
    assert sum(sizes) == 20
    assert max(sizes) <= 5
