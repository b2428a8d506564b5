"""Linearizable reads: ReadIndex, from both ends (thesis §6.4)."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import attrs
import pytest

from tests.mutants.registry import Patch, mutant, scenarios, scripts
from trio_kv.raft import state
from trio_kv.raft.leader import Leader
from trio_kv.raft.messages import (
    HeartbeatReply,
    Message,
    ReadIndex,
    ReadIndexReply,
)
from trio_kv.raft.node import Raft
from trio_kv.raft.reads import PendingReads
from trio_kv.raft.ready import Ready
from trio_kv.raft.voters import Ordered, Voters
from trio_kv.replica.replica import Replica


class TooFew(Voters):
    """Voters of whom half are a majority, and of an odd number one less than half."""

    def has_majority(self, nodes: Collection[int]) -> bool:
        return len(self.nodes.intersection(nodes)) >= max(1, len(self.nodes) // 2)

    def reached(self, values: Mapping[int, Ordered], nothing: Ordered) -> Ordered:
        ranked = sorted([values.get(node, nothing) for node in self.nodes], reverse=True)
        return ranked[max(1, len(self.nodes) // 2) - 1]


def confirm_reads_with(patch: Patch, quorum: Callable[[list[int]], int]) -> None:
    """Let another function than the majority's decide which heartbeat round is confirmed, and nothing else."""
    real = Leader._confirm_reads

    def reached(self: Voters, values: Mapping[int, int], nothing: int) -> int:
        return quorum([values.get(node, nothing) for node in self.nodes])

    def confirm_reads(self: Leader) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Voters, "reached", reached)
            real(self)

    patch.setattr(Leader, "_confirm_reads", confirm_reads)


@mutant(
    "R1 a leader answers reads before it committed an entry of its term",
    world="core",
    tests=scripts("read_path_1_no_read_before_the_no_op"),
)
def _(patch: Patch) -> None:
    real = Leader.replicate

    def replicate(self: Leader, now: float) -> None:
        first_index, self.first_index = self.first_index, 0
        try:
            real(self, now)
        finally:
            self.first_index = first_index

    patch.setattr(Leader, "replicate", replicate)


@mutant(
    "R1 a new leader confirms its own reads before it has committed in its term",
    world="core",
    tests=scripts("reads_R1_fresh_leader_holds_the_question"),
)
def _(patch: Patch) -> None:
    real = Leader.replicate

    def replicate(self: Leader, now: float) -> None:
        own = self.rounds.new.pop(None, []) if self.raft.commit < self.first_index else []
        if own:
            self.raft.confirm_reads([question.context for question in own], self.raft.commit)
        real(self, now)

    patch.setattr(Leader, "replicate", replicate)


@mutant(
    "R2 a question that finds no leader is dropped",
    world="core",
    tests=scripts("reads_R2_during_an_election"),
)
def _(patch: Patch) -> None:
    def give_up(self: PendingReads) -> None:
        self.asked = []

    patch.setattr(PendingReads, "give_up", give_up)


@mutant("R3 any answer of a leader satisfies the read under way", world="core")
def _(patch: Patch) -> None:
    def answered(self: PendingReads, nonce: int, counter: int) -> list[Any]:
        contexts, self.asked = self.contexts(), []
        return contexts

    patch.setattr(PendingReads, "answered", answered)


@mutant("R3 any answer is good for all reads", world="core", tests=scripts("reads_R3_old_answer"))
def _(patch: Patch) -> None:
    def answered(self: PendingReads, nonce: int, counter: int) -> list[Any]:
        contexts, self.asked = self.contexts() + self.waiting, []
        self.waiting = []
        return contexts

    patch.setattr(PendingReads, "answered", answered)


@mutant(
    "R3 an answer that comes after the question was asked again is void",
    tests=scripts("reads_slow_answers"),
)
def _(patch: Patch) -> None:
    real = PendingReads.answered
    patch.setattr(
        PendingReads,
        "answered",
        lambda self, nonce, counter: real(self, nonce, counter) if counter == self.counter else [],
    )


@mutant("R4 a leader confirms reads without a round", world="core", tests=scripts("reads_R4_deposed_leader"))
def _(patch: Patch) -> None:
    confirm_reads_with(patch, max)


@mutant(
    "R a read index is answered without a round",
    world="core",
    tests=scripts("read_path_2_applied_is_not_enough"),
)
def _(patch: Patch) -> None:
    def on_read_index(self: Leader, now: float, message: ReadIndex) -> None:
        raft = self.raft
        index, term = raft.commit, raft.log.term_at(raft.commit) or 0
        raft.send(ReadIndexReply(*raft.header(message.source), message.nonce, message.counter, index, term))

    patch.setattr(Leader, "on_read_index", on_read_index)


@mutant("R a reply to any earlier round confirms a read", world="core")
def _(patch: Patch) -> None:
    real = Leader.on_heartbeat_reply

    def on_heartbeat_reply(self: Leader, now: float, message: HeartbeatReply) -> None:
        real(self, now, attrs.evolve(message, round=self.rounds.last))

    patch.setattr(Leader, "on_heartbeat_reply", on_heartbeat_reply)


@mutant(
    "R7 a follower answers before it has applied the index",
    world="core",
    tests=scenarios("test_R7_reads_at_leaders_and_followers_while_leaders_change", file="core"),
)
def _(patch: Patch) -> None:
    real = Replica.apply

    def apply(self: Replica, ready: Ready) -> None:
        reads = tuple((context, 0) for context, _ in ready.reads)
        real(self, attrs.evolve(ready, reads=reads))

    patch.setattr(Replica, "apply", apply)


@mutant("R8 a quorum is one less than a majority", world="core")
def _(patch: Patch) -> None:
    patch.setattr(state, "Voters", TooFew)


@mutant("R8 half of an even cluster confirms a read", world="core", tests=scripts("reads_R8_even_cluster"))
def _(patch: Patch) -> None:
    confirm_reads_with(patch, lambda rounds: sorted(rounds, reverse=True)[(len(rounds) - 1) // 2])


@mutant(
    "R3 a reply to a round of an earlier term is counted",
    tests=scripts("read_path_3_old_replies_confirm_nothing"),
)
def _(patch: Patch) -> None:
    real = Raft.receive

    def receive(self: Raft, now: float, message: Message) -> None:
        if isinstance(message, HeartbeatReply) and message.term < self.term:
            message = attrs.evolve(message, term=self.term)
        real(self, now, message)

    patch.setattr(Raft, "receive", receive)


@mutant(
    "R3 a question is asked again under its old number",
    tests=scripts("read_path_3_old_replies_confirm_nothing"),
)
def _(patch: Patch) -> None:
    real_ask, real_give_up = PendingReads.ask, PendingReads.give_up

    def ask(self: PendingReads, now: float) -> int:
        is_repeated, counter = bool(self.asked), self.counter
        real_ask(self, now)
        if is_repeated:
            self.counter = counter
            self.asked = [(counter, context) for _, context in self.asked]
        return self.counter

    def give_up(self: PendingReads) -> None:
        counter = self.counter
        real_give_up(self)
        self.counter = max(0, counter - 1)

    patch.setattr(PendingReads, "ask", ask)
    patch.setattr(PendingReads, "give_up", give_up)


@mutant("R3 a node asks under the numbers of its former self", world="core")
def _(patch: Patch) -> None:
    real = PendingReads.__init__
    patch.setattr(PendingReads, "__init__", lambda self, nonce: real(self, 1))


@mutant(
    "R4 the index of a read is noted before its term is checked",
    world="core",
    tests=scripts("read_path_4_index_of_the_moment_of_the_check"),
)
def _(patch: Patch) -> None:
    noted: dict[tuple[int, int], int] = {}
    real_take, real_send = Leader.on_read_index, Raft.send

    def on_read_index(self: Leader, now: float, message: ReadIndex) -> None:
        noted.setdefault((message.nonce, message.counter), self.raft.commit)
        real_take(self, now, message)

    def send(self: Raft, message: Message, *, waits_for_disk: bool = False) -> None:
        if isinstance(message, ReadIndexReply):
            message = attrs.evolve(message, index=noted[message.nonce, message.counter])
        real_send(self, message, waits_for_disk=waits_for_disk)

    patch.setattr(Leader, "on_read_index", on_read_index)
    patch.setattr(Raft, "send", send)


@mutant(
    "R7 an answer commits its index at a follower",
    tests=scripts("read_path_5_answers_commit_nothing"),
)
def _(patch: Patch) -> None:
    real = Raft.confirm_reads

    def confirm_reads(self: Raft, contexts: list[Any], index: int) -> None:
        real(self, contexts, index)
        if not self.is_leader:
            self.commit_to(min(index, self.log.last_index))

    patch.setattr(Raft, "confirm_reads", confirm_reads)


@mutant(
    "R6 a leader answers reads by the commit index with which it started",
    world="core",
    tests=scripts("read_path_6_no_read_while_the_log_is_replayed"),
)
def _(patch: Patch) -> None:
    real = Raft.read

    def read(self: Raft, context: Any) -> None:
        if self.peers:
            real(self, context)
        else:
            self.confirm_reads([context], self.commit)

    patch.setattr(Raft, "read", read)


@mutant(
    "R6 a restarted node answers stale reads from what its disk held",
    tests=("tests/unit/test_replica.py::test_R6_a_restarted_node_answers_no_stale_read_before_it_caught_up",),
)
def _(patch: Patch) -> None:
    patch.setattr(Replica, "is_fresh", True)


@mutant(
    "R6 a leader of an old commit index makes stale reads fresh",
    tests=("tests/unit/test_replica.py::test_R6_a_leader_that_restarted_too_makes_nobody_fresh",),
)
def _(patch: Patch) -> None:
    def note_leader_commit(self: Raft, index: int) -> None:
        if self.fresh_index is None:
            self.fresh_index = index

    patch.setattr(Raft, "note_leader_commit", note_leader_commit)
