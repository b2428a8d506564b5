"""Judges that can fail: known bugs, put into the real code on purpose, are found within some seeds.

Each mutant is the smallest form of a mistake that a real system made (the ids are those of the scenario list: D durable
state, L log and commit, R reads, C clients, E elections).
"""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest

from trio_kv.kv import machine as machine_module
from trio_kv.kv.image import encode_chunks
from trio_kv.kv.machine import Machine
from trio_kv.kv.reply import Reply
from trio_kv.raft import candidate, quorum
from trio_kv.raft.entry import Entry
from trio_kv.raft.errors import ReadOnly
from trio_kv.raft.events import RebuildEnded
from trio_kv.raft.follower import Follower
from trio_kv.raft.leader import Leader
from trio_kv.raft.log import Log
from trio_kv.raft.messages import (
    AppendAccepted,
    Heartbeat,
    HeartbeatReply,
    Message,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    VoteReply,
)
from trio_kv.raft.node import Raft
from trio_kv.raft.progress import Progress
from trio_kv.raft.quorum import quorum_value
from trio_kv.raft.reads import Asker
from trio_kv.raft.ready import HardState, Ready, Write
from trio_kv.replica.replica import Replica
from trio_kv.replica.snapshots import Snapshots
from trio_kv.sim.run import SimulationFailedError, run_seed

Patch = pytest.MonkeyPatch
SEEDS = range(1, 201)
"""Runs after which a mutant counts as survived."""

MUTANTS: dict[str, Callable[[Patch], None]] = {}


def mutant(name: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def register(put_in: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS[name] = put_in
        return put_in

    return register


@mutant("D1 the vote is not written to the disk")
def _(patch: Patch) -> None:
    real = Raft._next_write

    def without_vote(self: Raft, now: float) -> Write | None:
        write = real(self, now)
        if write is None or write.hard_state is None:
            return write
        write = attrs.evolve(write, hard_state=HardState(write.hard_state.term, None))
        self._pending[-1] = attrs.evolve(self._pending[-1], write=write)
        return write

    patch.setattr(Raft, "_next_write", without_vote)


@mutant("D3 replies leave before the write is durable")
def _(patch: Patch) -> None:
    def send(self: Raft, message: Message, *, waits_for_disk: bool = False) -> None:
        self._outbox.append(message)

    patch.setattr(Raft, "send", send)


@mutant("D3 append replies alone leave before the write is durable")
def _(patch: Patch) -> None:
    real = Raft.send

    def send(self: Raft, message: Message, *, waits_for_disk: bool = False) -> None:
        real(self, message, waits_for_disk=waits_for_disk and not isinstance(message, AppendAccepted))

    patch.setattr(Raft, "send", send)


@mutant("D5 the leader counts its own log before it is durable")
def _(patch: Patch) -> None:
    def maybe_commit(self: Leader) -> None:
        log = self.raft.log
        counted = [progress.counted_match for progress in self.progress.values()]
        index = quorum_value([log.last_index, *counted])
        if index > self.raft.commit and index >= self.first_index:
            self.raft.commit_to(index)
            self.raft.note_leader_commit(index)

    patch.setattr(Leader, "_maybe_commit", maybe_commit)


@mutant("L1 an entry of an older term is committed by counting")
def _(patch: Patch) -> None:
    def maybe_commit(self: Leader) -> None:
        log = self.raft.log
        index = quorum_value([log.durable, *(progress.counted_match for progress in self.progress.values())])
        if index > self.raft.commit:
            self.raft.commit_to(index)
            self.raft.note_leader_commit(index)

    patch.setattr(Leader, "_maybe_commit", maybe_commit)


@mutant("L5 every append truncates, also where it matches")
def _(patch: Patch) -> None:
    def skip_known(self: Follower, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        if self.raft.log.term_at(entries[0].index) is not None:
            first = max(entries[0].index, self.raft.commit + 1)
            if first <= self.raft.log.last_index:
                self.raft.truncate(first)
            return tuple(entry for entry in entries if entry.index >= first)
        return entries

    patch.setattr(Follower, "_skip_known", skip_known)


@mutant("L6 a follower commits up to the leader's commit, verified or not")
def _(patch: Patch) -> None:
    real = Follower.on_heartbeat

    def on_heartbeat(self: Follower, now: float, message: Heartbeat) -> None:
        real(self, now, message)
        self.raft.commit_to(min(message.commit, self.raft.log.last_index))

    patch.setattr(Follower, "on_heartbeat", on_heartbeat)


@mutant("L4 the match is taken from what was sent")
def _(patch: Patch) -> None:
    real = Progress.accepted

    def accepted(self: Progress, match: int) -> bool:
        return real(self, max(match, self.next - 1))

    patch.setattr(Progress, "accepted", accepted)


@mutant("E a candidate whose log is behind gets votes")
def _(patch: Patch) -> None:
    patch.setattr(Log, "is_up_to_date", lambda self, last_index, last_term: True)


@mutant("E logs are compared by length alone")
def _(patch: Patch) -> None:
    patch.setattr(Log, "is_up_to_date", lambda self, last_index, last_term: last_index >= self.last_index)


@mutant("E a node votes twice in a term")
def _(patch: Patch) -> None:
    real = Raft._on_request_vote

    def on_request_vote(self: Raft, now: float, message: RequestVote) -> None:
        if self.vote not in {None, self.id}:
            self.vote = None
        real(self, now, message)

    patch.setattr(Raft, "_on_request_vote", on_request_vote)


@mutant("R8 a quorum is one less than a majority")
def _(patch: Patch) -> None:
    def one_less(members: int) -> int:
        return max(1, members // 2)

    patch.setattr(quorum, "majority_size", one_less)
    patch.setattr(candidate, "majority_size", one_less)


@mutant("R1 a leader answers reads before it committed an entry of its term")
def _(patch: Patch) -> None:
    real = Leader.make_messages

    def make_messages(self: Leader, now: float) -> None:
        first_index, self.first_index = self.first_index, 0
        try:
            real(self, now)
        finally:
            self.first_index = first_index

    patch.setattr(Leader, "make_messages", make_messages)


@mutant("R a read index is answered without a round")
def _(patch: Patch) -> None:
    def on_read_index(self: Leader, now: float, message: ReadIndex) -> None:
        raft = self.raft
        raft.send(ReadIndexReply(*raft.header(message.source), message.nonce, message.counter, raft.commit))

    patch.setattr(Leader, "on_read_index", on_read_index)


@mutant("R a reply to any earlier round confirms a read")
def _(patch: Patch) -> None:
    real = Leader.on_heartbeat_reply

    def on_heartbeat_reply(self: Leader, now: float, message: HeartbeatReply) -> None:
        real(self, now, attrs.evolve(message, round=self.answerer.round))

    patch.setattr(Leader, "on_heartbeat_reply", on_heartbeat_reply)


@mutant("R3 any answer of a leader satisfies the read under way")
def _(patch: Patch) -> None:
    def answered(self: Asker, nonce: int, counter: int) -> list[Any]:
        contexts, self.asked = self.contexts(), []
        return contexts

    patch.setattr(Asker, "answered", answered)


@mutant("R a follower answers before it has applied the index")
def _(patch: Patch) -> None:
    real = Replica._answer_reads

    def answer_reads(self: Replica, ready: Ready) -> None:
        reads = tuple((context, 0) for context, _ in ready.reads)
        real(self, attrs.evolve(ready, reads=reads))

    patch.setattr(Replica, "_answer_reads", answer_reads)


@mutant("C1 a repeated command is applied again")
def _(patch: Patch) -> None:
    real = Machine._write

    def write(self: Machine, apply_write: Any, command: Any, *rest: Any) -> Reply:
        session = self.sessions.by_id.get(command.session)
        if session is not None:
            session.replies.pop(command.seq, None)
        return real(self, apply_write, command, *rest)

    patch.setattr(Machine, "_write", write)


@mutant("C10 a deposed leader says that its proposal was done")
def _(patch: Patch) -> None:
    real = Replica._answer_writes
    patch.setattr(Replica, "_give_up_lost", lambda self: None)

    def answer_writes(self: Replica, committed: tuple[Entry, ...], replies: list[Reply]) -> None:
        for waiter in self._waiters:
            place = waiter.first - committed[0].index
            if 0 <= place < len(committed):
                waiter.term = committed[place].term
        real(self, committed, replies)

    patch.setattr(Replica, "_answer_writes", answer_writes)


@mutant("E a lost election is never begun anew")
def _(patch: Patch) -> None:
    patch.setattr(
        candidate.Candidate, "on_timeout", lambda self, now: setattr(self, "deadline", float("inf"))
    )


@mutant("E10 the term of a reply is ignored")
def _(patch: Patch) -> None:
    real = Raft._enter_term_of

    def enter_term_of(self: Raft, now: float, message: Message) -> bool:
        if isinstance(message, HeartbeatReply | VoteReply):
            return False
        return real(self, now, message)

    patch.setattr(Raft, "_enter_term_of", enter_term_of)


@mutant("L9 a rejected append is not answered by going back")
def _(patch: Patch) -> None:
    patch.setattr(Leader, "on_append_rejected", lambda self, now, message: None)


@mutant("L a conflicting tail is never truncated")
def _(patch: Patch) -> None:
    def skip_known(self: Follower, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        return tuple(entry for entry in entries if entry.index > self.raft.log.last_index)

    patch.setattr(Follower, "_skip_known", skip_known)


@mutant("E3 a lower term gets no answer")
def _(patch: Patch) -> None:
    patch.setattr(Raft, "_answer_late", lambda self, message: None)


# Snapshots, disks that are full, disks that are lost (N snapshots and compaction, D durable state)


@mutant("N a snapshot lacks the sessions")
def _(patch: Patch) -> None:
    patch.setattr(
        machine_module, "encode_chunks", lambda head, sessions, items: encode_chunks(head, {}, items)
    )


@mutant("N a snapshot holds what is written while it is made")
def _(patch: Patch) -> None:
    real = Machine.freeze

    def freeze(self: Machine) -> Any:
        frozen = real(self)
        frozen._items = self.items
        return frozen

    patch.setattr(Machine, "freeze", freeze)


@mutant("N2 a conflicting log is dropped in memory, and not on the disk")
def _(patch: Patch) -> None:
    real = Raft.installed

    def installed(self: Raft, now: float, index: int, term: int, time_us: int) -> bool:
        is_news = real(self, now, index, term, time_us)
        self._base = None
        return is_news

    patch.setattr(Raft, "installed", installed)


@mutant("N2 an install is acknowledged before the disk has dropped the log")
def _(patch: Patch) -> None:
    def tell_installed(self: Raft) -> None:
        if self.leader is not None and isinstance(self.role, Follower):
            self._outbox.append(AppendAccepted(*self.header(self.leader), self.commit, self.room_bytes))

    patch.setattr(Raft, "_tell_installed", tell_installed)


@mutant("N6 the log is dropped when a snapshot is begun, not when it is durable")
def _(patch: Patch) -> None:
    real = Snapshots.begin

    def begin(self: Snapshots, machine: Machine) -> None:
        real(self, machine)
        self._compact_to = machine.applied

    patch.setattr(Snapshots, "begin", begin)


@mutant("N9 a state machine is installed before its snapshot is durable")
def _(patch: Patch) -> None:
    real = Replica.apply

    def apply(self: Replica, ready: Ready) -> Any:
        answers = real(self, ready)
        receiving = self.snapshots._receiving
        if receiving is not None and receiving.machine is not None:
            self.snapshot_stored(0.0, receiving.snapshot, 0)
        return answers

    patch.setattr(Replica, "apply", apply)


@mutant("D8 a node that is being rebuilt votes")
def _(patch: Patch) -> None:
    real = Raft._on_request_vote

    def on_request_vote(self: Raft, now: float, message: RequestVote) -> None:
        was, self.is_rebuilding = self.is_rebuilding, False
        real(self, now, message)
        self.is_rebuilding = was

    patch.setattr(Raft, "_on_request_vote", on_request_vote)


@mutant("D8 a node that is being rebuilt stands for election")
def _(patch: Patch) -> None:
    real = Follower.on_timeout

    def on_timeout(self: Follower, now: float) -> None:
        was, self.raft.is_rebuilding = self.raft.is_rebuilding, False
        real(self, now)
        self.raft.is_rebuilding = was

    patch.setattr(Follower, "on_timeout", on_timeout)


@mutant("D8 a node that is being rebuilt counts for commits")
def _(patch: Patch) -> None:
    patch.setattr(Progress, "counted_match", property(lambda self: self.match))


@mutant("D8 a node that is being rebuilt counts for reads")
def _(patch: Patch) -> None:
    patch.setattr(Progress, "counted_round", property(lambda self: self.acked_round))


@mutant("D8 a rebuild ends when nothing was asked yet")
def _(patch: Patch) -> None:
    real = Raft._maybe_end_rebuild

    def maybe_end_rebuild(self: Raft) -> None:
        if self._rebuilt_index is None and self.leader is not None:
            self._rebuilt_index = 0
        real(self)

    patch.setattr(Raft, "_maybe_end_rebuild", maybe_end_rebuild)


@mutant("D8 a rebuild ends before what it took is durable")
def _(patch: Patch) -> None:
    def maybe_end_rebuild(self: Raft) -> None:
        if self._rebuilt_index is not None and self.log.last_index >= self._rebuilt_index:
            self.is_rebuilding = False
            self.tell(RebuildEnded(self._rebuilt_index))

    patch.setattr(Raft, "_maybe_end_rebuild", maybe_end_rebuild)


@mutant("D8 a node that is being rebuilt does not say so")
def _(patch: Patch) -> None:
    patch.setattr(Raft, "header", lambda self, target: (self.id, target, self.term, self.incarnation, False))


@mutant("D8 a node that is being rebuilt is never done when its leader changes")
def _(patch: Patch) -> None:
    def confirm_reads(self: Raft, contexts: list[Any], index: int) -> None:
        contexts = [context for context in contexts if isinstance(context, list)]
        if contexts:
            self._reads.extend([(context, index) for context in contexts])

    patch.setattr(Raft, "confirm_reads", confirm_reads)


@mutant("D12 commands are taken whatever room there is")
def _(patch: Patch) -> None:
    patch.setattr(Leader, "_refuses_full", lambda self, now, size_bytes: None)


@mutant("D12 the room that commands need is not counted whole")
def _(patch: Patch) -> None:
    real = Leader._refuses_full
    patch.setattr(Leader, "_refuses_full", lambda self, now, size_bytes: real(self, now, 0))


@mutant("D12 a follower with a full disk takes all entries")
def _(patch: Patch) -> None:
    patch.setattr(Raft, "fitting", lambda self, entries: entries)


@mutant("D12 commands that are refused take effect")
def _(patch: Patch) -> None:
    real = Raft.propose

    def propose(self: Raft, now: float, commands: Any) -> Any:
        answer = real(self, now, commands)
        if isinstance(answer, ReadOnly):
            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(Leader, "refuses", lambda self, now, commands: None)
                real(self, now, commands)
        return answer

    patch.setattr(Raft, "propose", propose)


@mutant("D12 nobody asks a full disk whether it has room again")
def _(patch: Patch) -> None:
    real = Leader.on_append_accepted

    def on_append_accepted(self: Leader, now: float, message: AppendAccepted) -> None:
        known = self.progress[message.source].room_bytes
        real(self, now, message)
        if known is not None:
            self.progress[message.source].room_bytes = known

    patch.setattr(Leader, "on_append_accepted", on_append_accepted)


def seeds_until_killed(seeds: Sequence[int]) -> tuple[int, SimulationFailedError] | None:
    for count, seed in enumerate(seeds, 1):
        try:
            run_seed(seed)
        except SimulationFailedError as failure:
            return count, failure
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_killed(name: str, monkeypatch: Patch) -> None:
    """A judge finds the bug within the first seeds."""
    MUTANTS[name](monkeypatch)
    assert seeds_until_killed(SEEDS) is not None, f"survived {len(SEEDS)} seeds"
