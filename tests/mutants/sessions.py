"""Sessions and waiting writes: what takes effect once, and is told right (thesis §6.3)."""

from collections.abc import Sequence
from typing import Any

import msgspec

from tests.mutants.registry import Patch, mutant, scenarios
from trio_kv.kv import machine
from trio_kv.kv.asking import Asked, Asking
from trio_kv.kv.commands import Write
from trio_kv.kv.expiring import expire
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations.operation import Change, Context
from trio_kv.kv.reply import Reply
from trio_kv.kv.session import Session
from trio_kv.kv.sessions import Sessions
from trio_kv.raft.entry import Entry
from trio_kv.raft.leader import Leader
from trio_kv.replica.replica import Replica
from trio_kv.replica.waiter import Waiter, asked_between
from trio_kv.wire.node_port import Refused


def session_tests(*names: str) -> tuple[str, ...]:
    """Return tests of sessions."""
    return tuple(f"tests/unit/test_sessions.py::{name}" for name in names)


def replica_tests(*names: str) -> tuple[str, ...]:
    """Return tests of one node's brain."""
    return tuple(f"tests/unit/test_replica.py::{name}" for name in names)


@mutant("C1 a repeated command is applied again", world="core")
def _(patch: Patch) -> None:
    real = Machine._write

    def write(self: Machine, command: Write, context: Context) -> Reply:
        session = self.sessions.by_id.get(command.session)
        if session is not None:
            session.replies.pop(command.seq, None)
        return real(self, command, context)

    patch.setattr(Machine, "_write", write)


@mutant("C10 a deposed leader says that its proposal was done", world="core")
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


@mutant("C1 sessions share one table of answers", world="core")
def _(patch: Patch) -> None:
    real = Machine._write

    def write(self: Machine, command: Write, context: Context) -> Reply:
        session = self.sessions.by_id.get(command.session)
        if session is not None:
            for _, other in self.sessions:
                session.replies.update(
                    {seq: other.replies[seq] for seq in other.replies if seq == command.seq}
                )
        return real(self, command, context)

    patch.setattr(Machine, "_write", write)


@mutant(
    "C1 a repeated command is answered anew",
    world="core",
    tests=session_tests("test_repeated_seq_gets_its_first_answer"),
)
def _(patch: Patch) -> None:
    real = Machine._write

    def write(self: Machine, command: Write, context: Context) -> Reply:
        reply = real(self, command, context)
        return Reply(reply.code, reply.value, context.index, reply.message) if reply.code == "ok" else reply

    patch.setattr(Machine, "_write", write)


@mutant(
    "C1 a command whose answer was forgotten is applied again",
    tests=session_tests("test_seq_below_done_is_not_applied"),
)
def _(patch: Patch) -> None:
    patch.setattr(Session, "refuse", lambda self, seq: None)


@mutant("C1 sessions that a snapshot shares are changed", world="core")
def _(patch: Patch) -> None:
    def freeze(self: Sessions) -> Any:
        return self.by_id

    patch.setattr(Sessions, "freeze", freeze)


@mutant(
    "C6 entries carry the clock of their leader",
    world="core",
    tests=scenarios("test_C6_C7_clocks_run_apart_and_all_nodes_forget_the_same_sessions", file="core"),
)
def _(patch: Patch) -> None:
    patch.setattr(Leader, "time_us", lambda self, now: int(now * 1_000_000))


@mutant(
    "C6 a session dies by another node's clock than that of the log",
    world="core",
    tests=session_tests("test_C6_session_dies_only_by_an_expire_entry_at_its_due_time"),
)
def _(patch: Patch) -> None:
    def early(context: Context, sessions: Sessions, at_most: int | None, told: Sequence[Change]) -> list[int]:
        context.time_us += 1_000_000
        forgotten = expire(context, sessions, at_most, told)
        context.time_us -= 1_000_000
        return forgotten

    patch.setattr(machine, "expire", early)


@mutant("C6 writing does not use a session", tests=session_tests("test_writes_and_renewals_use_a_session"))
def _(patch: Patch) -> None:
    real = Machine._write

    def write(self: Machine, command: Write, context: Context) -> Reply:
        session = self.sessions.by_id.get(command.session)
        used_us = None if session is None else session.used_us
        reply = real(self, command, context)
        if used_us is not None:
            self.sessions.by_id[command.session].used_us = used_us
        return reply

    patch.setattr(Machine, "_write", write)


@mutant(
    "C7 the time of an entry depends on those that are applied along with it",
    world="core",
    tests=scenarios("test_C6_C7_clocks_run_apart_and_all_nodes_forget_the_same_sessions", file="core"),
)
def _(patch: Patch) -> None:
    real = Machine.apply

    def apply(self: Machine, entries: Any, *rest: Any) -> list[Reply]:
        # It is the last time of the run that counts, and each node cuts the log into runs in its own way.
        entries = [msgspec.structs.replace(entry, time_us=entries[-1].time_us) for entry in entries]
        return real(self, entries, *rest)

    patch.setattr(Machine, "apply", apply)


@mutant(
    "C10 what a deposed leader had taken is told to be refused",
    world="core",
    tests=replica_tests("test_C10_a_deposed_leaders_writes_are_unknown_at_once"),
)
def _(patch: Patch) -> None:
    def give_up_lost(self: Replica) -> None:
        while self._waiters and not (self.raft.is_leader and self._waiters[0].term == self.raft.term):
            waiter = self._end_first()
            self._answers.append((waiter.propose.reply_to, Refused(waiter.propose.number, self.id, None)))

    patch.setattr(Replica, "_give_up_lost", give_up_lost)


# Reads between the writes of a run


@mutant(
    "replica: the reads of a run are answered behind all of its writes",
    world="core",
    tests=replica_tests("test_a_read_sees_the_writes_before_it_in_its_run_and_none_behind_it"),
)
def _(patch: Patch) -> None:
    def answered_behind(waiters: Sequence[Waiter], last: int) -> list[Asked]:
        asked = []
        for each in asked_between(waiters, last):
            (waiter,) = [other for other in waiters if other.first - 1 <= each.index <= other.last][-1:]
            asked.append(Asked(min(waiter.last, last), each.queries, each.replies))
        return asked

    patch.setattr("trio_kv.replica.replica.asked_between", answered_behind)


@mutant(
    "replica: the reads of a run are answered from what is applied when it comes",
    world="core",
    tests=replica_tests(
        "test_a_read_sees_the_writes_before_it_in_its_run_and_none_behind_it",
        "test_the_first_read_of_a_run_sees_what_came_just_before",
    ),
)
def _(patch: Patch) -> None:
    real = Replica._append_proposals

    def append_proposals(self: Replica, now: float) -> None:
        before = len(self._waiters)
        real(self, now)
        for waiter in list(self._waiters)[before:]:
            waiter.answers = {place: self.machine.query(queries) for place, queries in waiter.propose.queries}

    patch.setattr(Replica, "_append_proposals", append_proposals)


@mutant(
    "replica: a read keeps its place though a write behind it was done before",
    world="core",
    tests=replica_tests(
        "test_a_read_before_a_write_that_was_done_before_has_lost_its_place",
        "test_a_retry_after_a_change_of_leaders_loses_places",
        "test_reads_of_an_unknown_session_have_no_place",
    ),
)
def _(patch: Patch) -> None:
    real = Waiter.all_replies

    def all_replies(self: Waiter) -> list[Reply]:
        self.repeated = 0
        return real(self)

    patch.setattr(Waiter, "all_replies", all_replies)


@mutant(
    "replica: every read of a run that is repeated has lost its place",
    world="core",
    tests=replica_tests("test_a_read_before_a_write_that_was_done_before_has_lost_its_place"),
)
def _(patch: Patch) -> None:
    real = Waiter.all_replies

    def all_replies(self: Waiter) -> list[Reply]:
        if self.repeated >= self.first:
            self.repeated = self.last + 1
        return real(self)

    patch.setattr(Waiter, "all_replies", all_replies)


@mutant(
    "kv: a condition that did not hold before is no repetition",
    world="core",
    tests=(
        "tests/property/test_machine.py::test_what_was_not_applied_for_its_first_time_is_told",
        *replica_tests("test_a_read_before_a_write_that_was_done_before_has_lost_its_place"),
    ),
)
def _(patch: Patch) -> None:
    real = Machine._write

    def write(self: Machine, command: Write, context: Context) -> Reply:
        reply = real(self, command, context)
        if reply.code != "ok" and self.repeated[-1:] == [context.index]:
            self.repeated.pop()
        return reply

    patch.setattr(Machine, "_write", write)


@mutant(
    "kv: what is asked in the midst of a run is answered behind it",
    tests=(
        "tests/property/test_machine.py::test_questions_between_entries_are_answered_there",
        *replica_tests("test_the_first_read_of_a_run_sees_what_came_just_before"),
    ),
)
def _(patch: Patch) -> None:
    patch.setattr(Asking, "entries_until", lambda self, machine, entries_max: entries_max)
