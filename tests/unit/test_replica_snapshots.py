"""Snapshots of one node, seen from its replica: taken beside its work, received from leaders, sent to followers."""

from random import Random

import attrs
import msgspec
import pytest

from trio_kv.kv import commands
from trio_kv.kv.commands import OpenSession
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Set
from trio_kv.kv.reply import Item
from trio_kv.kv.siblings import Siblings
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.entry import Entry, make_entry
from trio_kv.raft.events import RebuildEnded, SnapshotInstalled
from trio_kv.raft.log import Log
from trio_kv.raft.messages import (
    AppendAccepted,
    AppendEntries,
    Heartbeat,
    InstallReply,
    InstallSnapshot,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    VoteReply,
)
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import HardState, Write
from trio_kv.replica.driver import Driver, Input, TimerFired, Work
from trio_kv.replica.jobs import (
    AddChunk,
    BeginSnapshot,
    ChunkAdded,
    CompactLog,
    FinishSnapshot,
    Job,
    SnapshotFailed,
    SnapshotMoved,
    SnapshotStored,
    Stored,
)
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import Turns

CONFIG = RaftConfig(
    election_timeout_min_s=0.2, election_timeout_max_s=0.4, heartbeat_interval_s=0.05, log_entries_kept=0
)
LEADER, OTHER = (2, 1, 5, 2, False), (3, 1, 6, 3, False)
"""What messages of node 2, which leads term 5, begin with; and those of node 3, which leads term 6."""


def entries(first: int, last: int, term: int) -> tuple[Entry, ...]:
    """Return entries that open a session first, and write then."""
    return tuple(
        make_entry(
            index,
            term,
            index,
            OpenSession(60_000_000)
            if index == 1
            else commands.Write(1, index, 0, Set(f"k{index % 3}", msgspec.Raw(b"%d" % index))),
        )
        for index in range(first, last + 1)
    )


def machine_at(index: int) -> Machine:
    """Return the state after so many entries of term 5."""
    machine = Machine()
    machine.apply(entries(1, index, 5))
    return machine


def chunks_at(index: int) -> list[bytes]:
    """Return the snapshot of that state."""
    return list(machine_at(index).freeze().chunks())


def installs(header: tuple[int, int, int, int, bool], index: int) -> list[InstallSnapshot]:
    """Return a whole snapshot of entries of term 5, chunk by chunk."""
    chunks = chunks_at(index)
    last = len(chunks) - 1
    return [
        InstallSnapshot(*header, index, 5, number, data, number == last) for number, data in enumerate(chunks)
    ]


class Node:
    """Node 1 of three, a follower in term 5, and its disk, which does things when it is told to."""

    def __init__(self, log: Log | None = None, *, is_rebuilding: bool = False) -> None:
        raft = Raft(
            id=1,
            peers=(2, 3),
            config=CONFIG,
            random=Random("snapshots"),
            incarnation=1,
            incarnations={2: 2, 3: 3},
            now=0.0,
            hard_state=HardState(5, None),
            log=log,
            is_rebuilding=is_rebuilding,
        )
        self.replica = Replica(raft)
        self.turns = Turns(1.0)
        self.driver = Driver(self.replica, self.turns)
        self.writes: list[Write] = []
        self.jobs: list[Job] = []
        self.sent: list[object] = []
        self.events: list[object] = []

    def step(self, *items: Input, now: float = 0.0) -> Work:
        """Give the node what came, and carry out what it wants, but for the disk's work."""
        work = self.driver.step(now, now, items)
        self.sent += work.messages
        self.events += [told.event for told in work.events]
        if work.write is not None:
            self.writes.append(work.write)
        self.jobs += work.jobs
        return work

    def store(self) -> None:
        """Let all writes become durable."""
        writes, self.writes = self.writes, []
        self.step(*[Stored(write.ticket) for write in writes])

    def take(self, messages: list[InstallSnapshot]) -> None:
        """Take a snapshot chunk by chunk, each stored before the next one comes."""
        for message in messages:
            self.step(message)
            if not message.is_last:
                self.step(ChunkAdded(message.index, message.index_term, message.number))

    def snapshot_stored(self, index: int) -> None:
        """Let a snapshot be durable."""
        self.step(SnapshotStored(index, 5, 100))

    def told(self, kind: type) -> list[object]:
        """Return and forget the messages of a kind."""
        told = [message for message in self.sent if isinstance(message, kind)]
        self.sent = [message for message in self.sent if not isinstance(message, kind)]
        return told


def test_a_snapshot_is_asked_for_chunk_by_chunk_and_acknowledged_when_it_is_durable() -> None:
    """One chunk is under way at a time; the last one is answered when the snapshot is durable and the log gave way."""
    node = Node()
    messages = installs(LEADER, 7)
    node.take(messages)
    assert [reply.next_number for reply in node.told(InstallReply)] == list(range(1, len(messages)))  # type: ignore[attr-defined]
    assert node.replica.machine.applied == 0
    assert node.told(AppendAccepted) == []
    assert [type(job) for job in node.jobs] == [BeginSnapshot, *[AddChunk] * len(messages), FinishSnapshot]
    node.snapshot_stored(7)
    assert node.replica.machine.applied == 7
    (write,) = node.writes
    assert write.base == (7, 5)
    assert node.told(AppendAccepted) == [], "the log on the disk still holds something else"
    node.store()
    (accepted,) = node.told(AppendAccepted)
    assert isinstance(accepted, AppendAccepted)
    assert accepted.match == 7


def test_what_a_leader_sends_is_shared_with_the_machine_that_is_ahead() -> None:
    """Items and keys of an installed snapshot are those of another node of the process, and later ones as well."""
    siblings, ahead = Siblings(), machine_at(9)
    ahead.join(siblings)
    node = Node()
    node.replica.machine.join(siblings)
    node.take(installs(LEADER, 7))
    node.snapshot_stored(7)
    machine = node.replica.machine
    assert machine.applied == 7
    assert machine.siblings is siblings
    assert [machine.get(key) is ahead.get(key) for key in ("k0", "k1", "k2")] == [False, True, False]
    assert machine.get("k0") == Item(msgspec.Raw(b"6"), 6, "k0")
    assert {id(key) for key in machine.items} == {id(key) for key in ahead.items}
    machine.apply(entries(8, 9, 5))
    assert all(machine.get(key) is ahead.get(key) for key in ("k0", "k1", "k2"))
    assert machine.state_digest == ahead.state_digest


def test_N1_nothing_of_a_conflicting_log_is_left() -> None:
    """Entries before and behind the snapshot's index go, from memory and in the write."""
    node = Node(Log(entries(1, 20, 3)))
    node.take(installs(LEADER, 7))
    node.snapshot_stored(7)
    log = node.replica.raft.log
    assert (log.base_index, log.base_term, log.last_index, log.durable) == (7, 5, 7, 7)
    assert [write.base for write in node.writes] == [(7, 5)]
    (event,) = [event for event in node.events if isinstance(event, SnapshotInstalled)]
    assert not event.is_log_kept


def test_a_log_that_agrees_is_kept() -> None:
    """What follows the snapshot's last entry in an equal log needs not be sent again, nor written."""
    node = Node(Log(entries(1, 20, 5)))
    node.take(installs(LEADER, 7))
    node.snapshot_stored(7)
    log = node.replica.raft.log
    assert (log.base_index, log.last_index, log.durable) == (7, 20, 20)
    assert node.writes == []
    assert node.replica.machine.applied == 7


def test_what_was_appended_just_before_an_install_is_written_behind_it() -> None:
    """Entries that came in the same step and are covered are not written: the disk goes on from the snapshot."""
    node = Node(Log(entries(1, 2, 5)))
    node.take(installs(LEADER, 7))
    node.step(AppendEntries(*LEADER, 2, 5, entries(3, 9, 5), 0), SnapshotStored(7, 5, 100))
    (write,) = node.writes
    assert write.base == (7, 5)
    assert [entry.index for entry in write.entries] == [8, 9]
    assert node.replica.raft.log.durable == 7
    node.store()
    assert node.replica.raft.log.durable == 9


def test_a_truncation_just_before_an_install_does_not_outlive_it() -> None:
    """A conflicting tail was cut and replaced in the same step: the write begins at the snapshot, and cuts nothing."""
    node = Node(Log((*entries(1, 2, 3), *entries(3, 12, 4))))
    node.take(installs(LEADER, 7))
    node.step(AppendEntries(*LEADER, 0, 0, entries(1, 9, 5), 0), SnapshotStored(7, 5, 100))
    (write,) = node.writes
    assert (write.base, write.truncate_from) == ((7, 5), None)
    assert [entry.index for entry in write.entries] == [8, 9]


def test_an_install_never_moves_the_commit_index_back() -> None:
    """The log overtook the snapshot while that was put into place: the node keeps its own state."""
    node = Node(Log(entries(1, 2, 5)))
    node.take(installs(LEADER, 7))
    node.step(AppendEntries(*LEADER, 2, 5, entries(3, 9, 5), 9))
    own = node.replica.machine
    assert own.applied == 9
    node.snapshot_stored(7)
    assert node.replica.machine is own
    assert node.replica.raft.commit == 9
    assert not [event for event in node.events if isinstance(event, SnapshotInstalled)]


def test_a_snapshot_that_is_put_into_place_gives_way_to_no_other() -> None:
    """Its last chunk was taken: an older snapshot of another leader must wait, or the disk would go back."""
    node = Node()
    node.take(installs(LEADER, 9))
    node.jobs.clear()
    node.step(*installs(OTHER, 7)[:1])
    assert node.jobs == []
    node.snapshot_stored(9)
    assert node.replica.machine.applied == 9
    node.store()
    node.told(AppendAccepted)
    node.step(*installs(OTHER, 7)[:1])
    node.store()
    (accepted,) = node.told(AppendAccepted)
    assert isinstance(accepted, AppendAccepted)
    assert accepted.match == 7


def test_another_leader_goes_on_where_the_first_one_ended() -> None:
    """All nodes make the same chunks of the same state, so what came of one is kept."""
    node = Node()
    messages = installs(LEADER, 7)
    assert len(messages) > 2
    node.take(messages[:2])
    node.told(InstallReply)
    resumed = installs(OTHER, 7)
    node.step(resumed[0])
    node.store()
    (reply,) = node.told(InstallReply)
    assert isinstance(reply, InstallReply)
    assert (reply.target, reply.next_number) == (3, 2)
    node.take(resumed[2:])
    node.snapshot_stored(7)
    assert node.replica.machine.applied == 7
    assert list(node.replica.machine.freeze().chunks()) == chunks_at(7)


def test_doubled_and_reordered_chunks_are_taken_once() -> None:
    """A chunk that comes again, or too early, is answered with the one that is wanted."""
    node = Node()
    messages = installs(LEADER, 7)
    node.step(messages[1], messages[0], messages[0])
    assert [type(job) for job in node.jobs] == [BeginSnapshot, AddChunk]
    node.replica.snapshots.chunk_added(7, 5, 0)
    node.step(messages[0])
    node.take(messages[1:])
    node.snapshot_stored(7)
    assert node.replica.machine.applied == 7


def test_a_snapshot_that_can_not_be_read_is_refused_and_asked_for_anew() -> None:
    """A chunk of another version leaves the node as it was, and the next attempt begins at the first chunk."""
    node = Node()
    messages = installs(LEADER, 7)
    node.step(attrs.evolve(messages[0], data=b"{}"))
    node.step(messages[1])
    replies = node.told(InstallReply)
    assert isinstance(replies[-1], InstallReply)
    assert replies[-1].next_number == 0
    node.take(messages)
    node.snapshot_stored(7)
    assert node.replica.machine.applied == 7


def test_a_snapshot_without_room_leaves_no_trace() -> None:
    """A full disk ends it; what the node has and answers stays as it was, and it is asked for anew."""
    node = Node(Log(entries(1, 2, 5)))
    messages = installs(LEADER, 7)
    node.step(messages[0])
    node.step(SnapshotFailed(7, 5, "full"))
    node.step(messages[1])
    replies = node.told(InstallReply)
    assert isinstance(replies[-1], InstallReply)
    assert replies[-1].next_number == 0
    assert node.replica.raft.log.last_index == 2


def test_a_late_word_of_a_full_disk_ends_no_other_snapshot() -> None:
    """What the disk says of an own snapshot, that a leader's has taken the place of, ends neither that nor the node."""
    node = Node(Log(entries(1, 2, 5)))
    node.step(Heartbeat(*LEADER, 0, 2, 5, 2))
    node.replica.snapshots.ask()
    node.step()
    assert node.replica.snapshots.is_taking
    messages = installs(LEADER, 7)
    node.take(messages)
    node.step(SnapshotFailed(2, 5, "full"))
    node.step(*messages)
    node.snapshot_stored(7)
    assert node.replica.machine.applied == 7


def test_a_chunk_that_comes_with_the_word_of_a_full_disk_is_asked_for_anew() -> None:
    """A second attempt was under way, and went on when the disk told of the first one's chunk. Then it was full."""
    node = Node(Log(entries(1, 2, 5)))
    messages = installs(LEADER, 7)
    node.step(messages[0])
    node.step(AppendEntries(*LEADER, 2, 5, entries(3, 3, 5), 0))
    node.step(messages[0])
    node.step(ChunkAdded(7, 5, 0))
    node.step(messages[1], SnapshotFailed(7, 5, "full"))
    node.take(messages)
    node.snapshot_stored(7)
    assert node.replica.machine.applied == 7


def test_no_own_snapshot_is_begun_before_what_the_newest_one_holds_is_applied() -> None:
    """The log went on beside a leader's snapshot, and is committed beyond it, but not applied so far: an older one than
    the newest would be of no use, and the disk refuses it.
    """
    node = Node(Log(entries(1, 2, 5)))
    node.take(installs(LEADER, 7))
    node.replica.raft.config = attrs.evolve(CONFIG, committed_entries_max=2)
    node.step(AppendEntries(*LEADER, 2, 5, entries(3, 9, 5), 9))
    node.replica.snapshots.ask()
    node.snapshot_stored(7)
    assert node.replica.machine.applied < 7
    while node.replica.machine.applied < 9:
        node.step()
    assert [job for job in node.jobs if isinstance(job, BeginSnapshot)][1:] == [BeginSnapshot(8, 5)]


def test_an_own_snapshot_is_taken_while_entries_are_applied_and_the_log_is_dropped_after_it() -> None:
    """What is applied meanwhile is not in it, and the log is dropped when it is durable and not before."""
    node = Node(Log(entries(1, 6, 5)))
    node.step(Heartbeat(*LEADER, 0, 6, 5, 6))
    replica = node.replica
    replica.snapshots.ask()
    assert replica.is_snapshot_due
    node.step()
    node.step(AppendEntries(*LEADER, 6, 5, entries(7, 9, 5), 9))
    for _ in range(20):
        for job in [job for job in node.jobs if isinstance(job, AddChunk)][-1:]:
            node.step(ChunkAdded(6, 5, job.number))
        node.step()
        if any(isinstance(job, FinishSnapshot) for job in node.jobs):
            break
    assert [job.data for job in node.jobs if isinstance(job, AddChunk)] == chunks_at(6)
    assert not [job for job in node.jobs if isinstance(job, CompactLog)]
    assert replica.raft.log.base_index == 0
    node.store()
    node.snapshot_stored(6)
    while replica.has_more:
        node.step()
    assert replica.raft.log.base_index == 6
    assert [job for job in node.jobs if isinstance(job, CompactLog)] == [CompactLog(6)]
    assert replica.machine.applied == 9
    assert replica.machine.is_settled


def test_of_a_disk_that_hangs_no_more_is_asked_than_one_chunk() -> None:
    """Snapshots that are offered while a chunk is being stored don't pile up; the newest is taken after that."""
    node = Node()
    node.step(installs(LEADER, 5)[0])
    for index in (6, 7, 8):
        node.step(installs(LEADER, index)[0])
    assert [type(job) for job in node.jobs] == [BeginSnapshot, AddChunk]
    node.step(ChunkAdded(5, 5, 0))
    node.take(installs(LEADER, 8))
    node.snapshot_stored(8)
    assert node.replica.machine.applied == 8


def test_the_leader_hears_that_the_last_chunk_is_being_worked_on() -> None:
    """To sync and to read back a large snapshot takes longer than a lease: each step of it is told."""
    node = Node()
    messages = installs(LEADER, 7)
    node.take(messages)
    node.told(InstallReply)
    node.step(SnapshotMoved(7, 5))
    (reply,) = node.told(InstallReply)
    assert isinstance(reply, InstallReply)
    assert reply.next_number == len(messages) - 1, "not the one behind it"


class Taking:
    """Node 1, which applies entries and takes snapshots in turn with node 2, on a disk that stores when it is told."""

    def __init__(self) -> None:
        self.node = Node(Log(entries(1, 6, 5)))
        self.node.step(Heartbeat(*LEADER, 0, 6, 5, 6))
        self.turns = self.node.turns
        self.replica = self.node.replica
        self.replica.snapshots.ask()

    def step(self, now: float, *items: Input) -> list[Job]:
        """Return the jobs of a pass."""
        return self.node.step(*items, now=now).jobs


def test_a_snapshot_goes_on_without_its_turn_only_as_far_as_the_disk_has_it() -> None:
    """Its disk hangs, and the turn goes on; when the disk moves it asks anew, and makes more when it is its turn."""
    taking = Taking()
    replica, turns = taking.replica, taking.turns
    assert taking.step(0.0) == [BeginSnapshot(6, 5)]
    chunks = [job for job in taking.step(0.1) if isinstance(job, AddChunk)]
    assert chunks
    assert not turns.take(0.9, 2)
    assert turns.take(1.3, 2)
    taking.step(1.4)
    assert replica.snapshots.has_lost_turn
    assert not replica.has_more, "it waits, and does not turn in circles"
    taking.step(1.5, ChunkAdded(6, 5, chunks[0].number))
    assert replica.snapshots.has_lost_turn
    turns.give_back(2)
    taking.step(1.6)
    assert turns.holder == 1
    assert not replica.snapshots.has_lost_turn


def test_a_turn_is_given_back_when_the_node_is_tidy(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it drops its log behind the snapshot the next one would disturb clients."""
    taking = Taking()
    replica, turns = taking.replica, taking.turns
    added: list[Input] = []
    for now in (0.0, 0.1, 0.2):
        jobs = taking.step(now, *added)
        added = [ChunkAdded(6, 5, job.number) for job in jobs if isinstance(job, AddChunk)]
    monkeypatch.setattr("trio_kv.replica.replica.COMPACT_ENTRIES_MAX", 1)
    taking.step(0.3, *added, SnapshotStored(6, 5, 100))
    assert replica.snapshots.is_compacting
    assert turns.holder == 1
    while not replica.is_cleaned_up:
        taking.step(0.3)
    assert turns.holder is None


def test_D8_a_node_that_is_rebuilt_counts_when_all_is_durable_again() -> None:
    """It asks what is committed, says what it is, votes for nobody, and ends when it has all of that."""
    node = Node(is_rebuilding=True)
    node.step(Heartbeat(*LEADER, 1, 0, 0, 0))
    (question,) = node.told(ReadIndex)
    assert isinstance(question, ReadIndex)
    assert question.is_rebuilding
    node.step(AppendEntries(*LEADER, 0, 0, entries(1, 3, 5), 3))
    node.store()
    assert node.replica.raft.is_rebuilding, "nobody said yet what it must have"
    node.step(ReadIndexReply(*LEADER, question.nonce, question.counter, 5, 5))
    assert node.replica.raft.is_rebuilding, "it lacks two entries"
    node.step(RequestVote(3, 1, 6, 3, False, 9, 5, True))
    node.store()
    (vote,) = node.told(VoteReply)
    assert isinstance(vote, VoteReply)
    assert not vote.is_granted
    node.step(AppendEntries(*OTHER, 3, 5, entries(4, 5, 5), 5))
    assert node.replica.raft.is_rebuilding, "they are not durable"
    node.store()
    assert [event for event in node.events if isinstance(event, RebuildEnded)] == [RebuildEnded(5)]


def test_a_rebuild_without_a_leader_waits_without_turning_in_circles() -> None:
    """Its question gets no answer and its leader is gone: the next deadline lies ahead."""
    node = Node(is_rebuilding=True)
    node.step(Heartbeat(*LEADER, 1, 0, 0, 0))
    now = 0.0
    for _ in range(10):
        assert node.replica.deadline > now or now == 0.0
        now = max(now, node.replica.deadline)
        node.step(TimerFired(), now=now)
    assert node.replica.deadline > now
    assert now > 0.4
