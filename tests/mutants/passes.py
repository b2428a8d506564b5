"""What a node leaves lying, what it holds together, and what leaves without a pass of it (decision 0024)."""

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from tests.mutants.registry import Patch, mutant
from trio_kv.cluster.inbox import Inbox
from trio_kv.cluster.node import Node
from trio_kv.raft.batches import Batches
from trio_kv.raft.entry import Entry
from trio_kv.raft.events import Told
from trio_kv.raft.follower import Follower
from trio_kv.raft.leader import Leader
from trio_kv.raft.messages import Heartbeat, Message, ReadIndex, ReadIndexReply
from trio_kv.raft.node import Raft
from trio_kv.raft.progress import Progress
from trio_kv.raft.reads import Question
from trio_kv.raft.ready import Ticket
from trio_kv.raft.replicator import Replicator
from trio_kv.replica import group
from trio_kv.replica.driver import Control
from trio_kv.replica.group import Group
from trio_kv.replica.replica import Replica

NO_PASS = "tests/unit/test_no_pass.py::"
PATIENCE = "tests/unit/test_patience.py::"
REPLICA = "tests/unit/test_replica.py::"
BATCHES = "tests/unit/test_batches.py::"
GROUP = "tests/unit/test_group.py::"
UNDER_WAY = "tests/unit/test_writes_under_way.py::"


def answer_when_asked(patch: Patch, is_sure: "Sure") -> None:
    """Let a leader answer a question at once where `is_sure` says so."""
    real = Replicator.on_read_index

    def on_read_index(self: Replicator, now: float, message: ReadIndex) -> None:
        if self.raft.commit >= self.first_index and is_sure(self, message):
            question = Question(message.source, message.nonce, message.counter)
            self._answer(question, self.raft.commit)
        else:
            real(self, now, message)

    patch.setattr(Replicator, "on_read_index", on_read_index)


class Sure:
    """Tells whether leader and asker are enough."""

    def __call__(self, leader: Replicator, message: ReadIndex) -> bool:
        raise NotImplementedError


class InAnyCluster(Sure):
    """Whatever the size of the cluster."""

    def __call__(self, leader: Replicator, message: ReadIndex) -> bool:
        return leader.progress[message.source].counts


class WhoeverAsks(Sure):
    """Also an asker that is being rebuilt."""

    def __call__(self, leader: Replicator, message: ReadIndex) -> bool:
        return leader.raft.voters.has_majority((leader.raft.id, message.source))


@mutant("R leader and asker confirm a read also where they are no majority", world="core")
def _(patch: Patch) -> None:
    answer_when_asked(patch, InAnyCluster())


@mutant("D8 a node that is being rebuilt confirms its own question", world="core")
def _(patch: Patch) -> None:
    answer_when_asked(patch, WhoeverAsks())


@mutant("L6 a follower takes the commit index of an answer without looking into its log", world="core")
def _(patch: Patch) -> None:
    real = Raft.receive

    def receive(self: Raft, now: float, message: Message) -> None:
        if isinstance(message, ReadIndexReply) and message.term == self.term and not self.is_leader:
            self.commit_to(min(message.index, self.log.last_index))
        real(self, now, message)

    patch.setattr(Raft, "receive", receive)


@mutant(
    "D12 what is stored on a full disk overtakes what its space is to be asked of",
    tests=(f"{REPLICA}test_D12_on_a_full_disk_what_is_stored_overtakes_nothing",),
)
def _(patch: Patch) -> None:
    real = Raft.stored_and_done

    def stored_and_done(self: Raft, ticket: Ticket) -> tuple[Sequence[Message], Sequence[Told]] | None:
        persistence = self.persistence
        free_log_bytes, persistence.free_log_bytes = persistence.free_log_bytes, None
        passed = real(self, ticket)
        persistence.free_log_bytes = free_log_bytes
        return passed

    patch.setattr(Raft, "stored_and_done", stored_and_done)


@mutant("D3 what waits for a later write leaves with an earlier one", world="core")
def _(patch: Patch) -> None:
    real = Raft.stored_and_done

    def stored_and_done(self: Raft, ticket: Ticket) -> tuple[Sequence[Message], Sequence[Told]] | None:
        passed = real(self, ticket)
        if passed is None:
            return None
        later = [message for write in self.persistence._pending for message in write.messages]
        for write in self.persistence._pending:
            write.messages.clear()
        return [*passed[0], *later], passed[1]

    patch.setattr(Raft, "stored_and_done", stored_and_done)


@mutant(
    "inbox: what lies there is never looked at",
    tests=(f"{UNDER_WAY}test_what_lies_in_the_inbox_is_taken_before_long",),
)
def _(patch: Patch) -> None:
    patch.setattr(Node, "_look_later", lambda self: None)


@mutant(
    "patience: one acknowledgement more than it takes is waited for",
    tests=(f"{PATIENCE}test_the_acknowledgement_that_commits_is_looked_at",),
)
def _(patch: Patch) -> None:
    real = Leader.acks_missing
    patch.setattr(Leader, "acks_missing", lambda self: real(self) + 1)


@mutant(
    "patience: a follower that lacks entries is heard with the others",
    tests=(f"{PATIENCE}test_a_follower_that_lacks_entries_is_heard_at_once",),
)
def _(patch: Patch) -> None:
    patch.setattr(Leader, "hasty_followers", lambda self: frozenset())


@mutant(
    "group commit: commands wait for a commit that does not come",
    tests=(f"{REPLICA}test_commands_do_not_wait_for_a_commit_that_does_not_come",),
)
def _(patch: Patch) -> None:
    patch.setattr(group, "GROUP_S", float("inf"))


@mutant(
    "group commit: a round begins without those who are answered by the commit of the last one",
    tests=(f"{GROUP}test_the_next_round_begins_with_those_who_were_answered",),
)
def _(patch: Patch) -> None:
    real = Group.is_due
    patch.setattr(Group, "is_due", lambda self, now, raft, in_round: real(self, now, raft, -(1 << 20)))


@mutant(
    "group commit: those who were answered are waited for though others had their turns",
    tests=(f"{GROUP}test_those_who_do_not_come_back_are_not_waited_for",),
)
def _(patch: Patch) -> None:
    patch.setattr(Group, "close", lambda self: None)


@mutant(
    "group commit: commands that are refused go on weighing",
    tests=(f"{REPLICA}test_commands_that_wait_are_refused_by_a_leader_that_is_deposed",),
)
def _(patch: Patch) -> None:
    real = Replica._append_proposals

    def append_proposals(self: Replica, now: float) -> None:
        before = self.uncommitted_bytes
        real(self, now)
        self.uncommitted_bytes = before

    patch.setattr(Replica, "_append_proposals", append_proposals)


@mutant(
    "node: a completion overtakes what came in a pause",
    tests=(f"{UNDER_WAY}test_what_the_disk_tells_in_a_pause_is_not_overtaken",),
)
def _(patch: Patch) -> None:
    real = Node.resume

    def resume(self: Node) -> None:
        real(self)
        self._is_behind = False

    patch.setattr(Node, "resume", resume)


@mutant(
    "node: a change of its clock puts off the look at what lies",
    tests=(f"{UNDER_WAY}test_what_lies_is_looked_at_in_time_also_when_the_clock_changes",),
)
def _(patch: Patch) -> None:
    def clock_changed(self: Node) -> None:
        self._timer_scope.deadline = self.clock.to_trio(self._timer_at)

    patch.setattr(Node, "clock_changed", clock_changed)


@mutant(
    "follower: a heartbeat that commits something is answered without a pass",
    tests=(f"{NO_PASS}test_what_brings_news_to_a_follower_is_left_to_a_pass",),
)
def _(patch: Patch) -> None:
    real = Follower.is_answer_all

    def is_answer_all(self: Follower, message: Message) -> bool:
        commit = self.raft.commit
        return real(self, attrs.evolve(message, commit=commit) if isinstance(message, Heartbeat) else message)

    patch.setattr(Follower, "is_answer_all", is_answer_all)


@mutant(
    "leader: a reply for which a question waits is taken without a pass",
    tests=(f"{NO_PASS}test_a_reply_for_which_a_question_waits_needs_a_pass",),
)
def _(patch: Patch) -> None:
    real = Replicator.is_answer_all

    def is_answer_all(self: Replicator, message: Message) -> bool:
        pending, self.rounds.pending = self.rounds.pending, []
        try:
            return real(self, message)
        finally:
            self.rounds.pending = pending

    patch.setattr(Replicator, "is_answer_all", is_answer_all)


@mutant(
    "inbox: a message without news overtakes those that wait",
    tests=(f"{NO_PASS}test_no_message_overtakes_another_one",),
)
def _(patch: Patch) -> None:
    real = Inbox.post_peer

    def post_peer(self: Inbox, message: Message) -> bool:
        return self.pass_on(message) or real(self, message)

    patch.setattr(Inbox, "post_peer", post_peer)


@mutant(
    "node: one that is paused answers heartbeats",
    tests=(f"{NO_PASS}test_a_node_that_is_paused_answers_no_heartbeat",),
)
def _(patch: Patch) -> None:
    real = Node._pass_on

    def pass_on(self: Node, item: Control | Message) -> bool:
        self._is_behind = False
        return real(self, item)

    patch.setattr(Node, "_pass_on", pass_on)


@mutant(
    "node: the timer is not told that it is due later, and fires in vain",
    tests=(f"{NO_PASS}test_in_an_idle_cluster_the_leader_alone_has_passes",),
)
def _(patch: Patch) -> None:
    real = Node.__init__

    def init(self: Node, **parts: Any) -> None:
        real(self, **parts)
        self._soon_s = 0.0

    patch.setattr(Node, "__init__", init)


@mutant(
    "node: a busy one tells its timer of each deadline that moved on",
    tests=(f"{NO_PASS}test_questions_move_the_timer_of_a_busy_node_seldom",),
)
def _(patch: Patch) -> None:
    real = Node._set_timer

    def set_timer(self: Node, now: float, deadline: float) -> None:
        self._set_at = float("-inf")
        real(self, now, deadline)

    patch.setattr(Node, "_set_timer", set_timer)


@mutant(
    "a pass reads a whole window of the log for a follower",
    tests=(BATCHES + "test_a_pass_reads_no_more_than_a_batch_for_one_follower",),
)
def _(patch: Patch) -> None:
    patch.setattr(Batches, "_entries_read", property(lambda self: 0, lambda self, value: None))


@mutant(
    "a follower that is far behind keeps the others waiting",
    tests=(BATCHES + "test_each_follower_gets_a_batch_in_each_pass",),
)
def _(patch: Patch) -> None:
    real = Batches.of

    def of(self: Batches, progress: Progress) -> Iterator[tuple[tuple[Entry, ...], int]]:
        if not self._read:
            yield from real(self, progress)
        self.has_more = True

    patch.setattr(Batches, "of", of)


@mutant(
    "a window counts appends, however large they are",
    tests=("tests/unit/test_progress.py::test_few_large_appends_fill_the_window",),
)
def _(patch: Patch) -> None:
    patch.setattr(Progress, "_has_room", lambda self: len(self.in_flight) < self.config.append_window)
