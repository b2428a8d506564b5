"""What a node writes to its log, acknowledges and commits (paper §5.3, §5.4)."""

from unittest.mock import ANY

import attrs

from tests.mutants.registry import Patch, mutant, scenarios, scripts
from trio_kv.raft.entry import Entry
from trio_kv.raft.follower import Follower
from trio_kv.raft.leader import Leader
from trio_kv.raft.log import Log
from trio_kv.raft.messages import (
    AppendAccepted,
    AppendEntries,
    Heartbeat,
    Message,
    RequestPreVote,
    RequestVote,
)
from trio_kv.raft.node import Raft
from trio_kv.raft.persistence import Persistence
from trio_kv.raft.progress import Progress
from trio_kv.raft.ready import HardState, Ticket, Write

APPEND_TESTS_L6 = ("tests/unit/test_follower.py::test_L6_an_append_commits_no_further_than_it_verifies",)


@mutant("D1 the vote is not written to the disk", world="core")
def _(patch: Patch) -> None:
    real = Persistence.next_write

    def without_vote(self: Persistence, now: float, hard_state: HardState) -> Write | None:
        write = real(self, now, hard_state)
        if write is None or write.hard_state is None:
            return write
        write = attrs.evolve(write, hard_state=attrs.evolve(write.hard_state, vote=None))
        self._pending[-1] = attrs.evolve(self._pending[-1], write=write)
        return write

    patch.setattr(Persistence, "next_write", without_vote)


@mutant(
    "D1 a candidate asks before its own vote is on disk",
    world="core",
    tests=scripts("elections_D1_candidates_own_vote"),
)
def _(patch: Patch) -> None:
    real = Raft.send

    def send(self: Raft, message: Message, *, waits_for_disk: bool = False) -> None:
        if isinstance(message, RequestVote):
            self.effects.messages.append(message)
        else:
            real(self, message, waits_for_disk=waits_for_disk)

    patch.setattr(Raft, "send", send)


@mutant(
    "D3 replies leave before the write is durable",
    world="core",
    tests=scripts("elections_D1_vote_is_durable_before_reply", "commit_waits_for_a_majority_of_disks"),
)
def _(patch: Patch) -> None:
    def send(self: Raft, message: Message, *, waits_for_disk: bool = False) -> None:
        self.effects.messages.append(message)

    patch.setattr(Raft, "send", send)


@mutant(
    "D3 append replies alone leave before the write is durable",
    world="core",
    tests=scenarios("test_D3_power_fails_everywhere_at_once"),
)
def _(patch: Patch) -> None:
    real = Raft.send

    def send(self: Raft, message: Message, *, waits_for_disk: bool = False) -> None:
        real(self, message, waits_for_disk=waits_for_disk and not isinstance(message, AppendAccepted))

    patch.setattr(Raft, "send", send)


@mutant("D5 the leader counts its own log before it is durable", world="core")
def _(patch: Patch) -> None:
    def maybe_commit(self: Leader) -> None:
        log = self.raft.log
        index = self._reached(log.last_index, lambda progress: progress.match, 0)
        if index > self.raft.commit and index >= self.first_index:
            self.raft.commit_to(index)
            self.raft.note_leader_commit(index)

    patch.setattr(Leader, "_maybe_commit", maybe_commit)


@mutant(
    "D7 a message leaves in a term that is not on disk",
    world="core",
    tests=scripts("disk_nothing_leaves_in_a_term_not_durable"),
)
def _(patch: Patch) -> None:
    patch.setattr(
        Persistence, "durable_term", property(lambda self: ANY, lambda self, value: None), raising=False
    )


@mutant(
    "L1 an entry of an older term is committed by counting",
    world="core",
    tests=scripts("commit_L1_figure_8", "read_path_7_no_read_of_what_may_be_undone"),
)
def _(patch: Patch) -> None:
    def maybe_commit(self: Leader) -> None:
        log = self.raft.log
        index = self._reached(log.durable, lambda progress: progress.match, 0)
        if index > self.raft.commit:
            self.raft.commit_to(index)
            self.raft.note_leader_commit(index)

    patch.setattr(Leader, "_maybe_commit", maybe_commit)


@mutant("L1 an ack of an older term is counted", tests=scripts("commit_L1_ack_of_an_older_term"))
def _(patch: Patch) -> None:
    real = Raft.receive

    def receive(self: Raft, now: float, message: Message) -> None:
        if isinstance(message, AppendAccepted) and message.term < self.term:
            message = attrs.evolve(message, term=self.term)
        real(self, now, message)

    patch.setattr(Raft, "receive", receive)


@mutant(
    "L2 a new leader appends nothing by itself",
    tests=scripts("commit_L2_no_op_commits_older_entries"),
)
def _(patch: Patch) -> None:
    real = Raft.become_leader

    def become_leader(self: Raft, now: float) -> None:
        patch.setattr(Raft, "append", lambda self, entries: None)
        real(self, now)
        patch.setattr(Raft, "append", append)

    append = Raft.append
    patch.setattr(Raft, "become_leader", become_leader)


@mutant(
    "L3 a follower takes the leader's commit index as it is",
    world="core",
    tests=scripts("commit_L3_never_goes_back"),
)
def _(patch: Patch) -> None:
    patch.setattr(Raft, "commit_to", lambda self, index: setattr(self, "commit", index))


@mutant("L4 the match is taken from what was sent", world="core")
def _(patch: Patch) -> None:
    real = Progress.accepted

    def accepted(self: Progress, match: int, free_log_bytes: int | None = None) -> bool:
        return real(self, max(match, self.next - 1), free_log_bytes)

    patch.setattr(Progress, "accepted", accepted)


@mutant("L4 the last answer to come is believed", tests=scripts("commit_L4_acks_in_any_order"))
def _(patch: Patch) -> None:
    real = Progress.accepted

    def accepted(self: Progress, match: int, free_log_bytes: int | None = None) -> bool:
        is_news = real(self, match, free_log_bytes)
        self.match = match
        return is_news

    patch.setattr(Progress, "accepted", accepted)


@mutant(
    "L4 a write counts although a later one drops what it brought",
    tests=scripts("disk_tickets_and_truncation"),
)
def _(patch: Patch) -> None:
    real = Raft.stored

    def stored(self: Raft, now: float, ticket: Ticket) -> None:
        real(self, now, ticket)
        self.log.durable = max(self.log.durable, min(ticket.last_index, self.log.last_index))
        self.role.on_stored(now)

    patch.setattr(Raft, "stored", stored)


@mutant("L5 every append truncates, also where it matches", world="core")
def _(patch: Patch) -> None:
    def skip_known(self: Follower, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        if entries and self.raft.log.term_at(entries[0].index) is not None:
            first = max(entries[0].index, self.raft.commit + 1)
            if first <= self.raft.log.last_index:
                self.raft.truncate(first)
            return tuple(entry for entry in entries if entry.index >= first)
        return entries

    patch.setattr(Follower, "_skip_known", skip_known)


@mutant(
    "L5 a follower cuts its log behind every append",
    world="core",
    tests=scripts("replication_L5_old_append_after_commit", "replication_L5_duplicated_and_reordered"),
)
def _(patch: Patch) -> None:
    def skip_known(self: Follower, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        if entries and entries[0].index <= self.raft.log.last_index:
            self.raft.truncate(entries[0].index)
        return entries

    patch.setattr(Follower, "_skip_known", skip_known)


@mutant(
    "L6 a heartbeat commits up to the leader's commit, verified or not",
    world="core",
    tests=scripts("replication_L6_heartbeat_and_divergent_tail"),
)
def _(patch: Patch) -> None:
    real = Follower.on_heartbeat

    def on_heartbeat(self: Follower, now: float, message: Heartbeat) -> None:
        real(self, now, message)
        self.raft.commit_to(min(message.commit, self.raft.log.last_index))

    patch.setattr(Follower, "on_heartbeat", on_heartbeat)


@mutant(
    "L8 what a former self acknowledged counts",
    world="core",
    tests=scripts("incarnation_L8_new_disk_voids_acks"),
)
def _(patch: Patch) -> None:
    patch.setattr(Raft, "is_void", lambda self, message: False)


@mutant("L9 a rejected append is not answered by going back", world="core")
def _(patch: Patch) -> None:
    patch.setattr(Leader, "on_append_rejected", lambda self, now, message: None)


@mutant(
    "L9 the leader goes back one entry at a time",
    tests=scripts("replication_L9_long_divergent_tail"),
)
def _(patch: Patch) -> None:
    real = Progress.rejected

    def rejected(self: Progress, prev_index: int, next_index: int) -> None:
        real(self, prev_index, max(next_index, self.next - 1))

    patch.setattr(Progress, "rejected", rejected)


@mutant("L a conflicting tail is never truncated", world="core")
def _(patch: Patch) -> None:
    def skip_known(self: Follower, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        return tuple(entry for entry in entries if entry.index > self.raft.log.last_index)

    patch.setattr(Follower, "_skip_known", skip_known)


@mutant(
    "D2 the term is not written to the disk",
    world="core",
    tests=scenarios("test_D2_all_nodes_restart_one_after_the_other", file="core"),
)
def _(patch: Patch) -> None:
    real = Persistence.next_write

    def without_term(self: Persistence, now: float, hard_state: HardState) -> Write | None:
        write = real(self, now, hard_state)
        if write is not None and write.hard_state is not None and write.hard_state.vote is None:
            self._pending[-1] = attrs.evolve(self._pending[-1], write=attrs.evolve(write, hard_state=None))
            self.durable_term = hard_state.term
            return attrs.evolve(write, hard_state=None)
        return write

    patch.setattr(Persistence, "next_write", without_term)


@mutant(
    "L6 an append commits up to the leader's commit, verified or not", world="core", tests=APPEND_TESTS_L6
)
def _(patch: Patch) -> None:
    real = Follower.on_append_entries

    def on_append_entries(self: Follower, now: float, message: AppendEntries) -> None:
        real(self, now, message)
        self.raft.commit_to(min(message.commit, self.raft.log.last_index))

    patch.setattr(Follower, "on_append_entries", on_append_entries)


@mutant(
    "L7 a leader takes over a newer term and goes on appending in it",
    world="core",
    tests=scripts("replication_L7_term_of_a_message"),
)
def _(patch: Patch) -> None:
    real = Raft._enter_term_of

    def enter_term_of(self: Raft, now: float, message: Message) -> bool:
        if self.is_leader and not isinstance(message, RequestPreVote):
            self.enter(message.term)
            return False
        return real(self, now, message)

    patch.setattr(Raft, "_enter_term_of", enter_term_of)


@mutant("L an append is taken although its predecessor is another one", world="core")
def _(patch: Patch) -> None:
    patch.setattr(Log, "has", lambda self, index, term: self.term_at(index) is not None)
