"""Sessions and waiting writes: what takes effect once, and is told right (thesis §6.3)."""

from typing import Any

import msgspec

from tests.mutants.registry import Patch, mutant, scenarios
from trio_kv.kv.commands import Write
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations.operation import Context
from trio_kv.kv.reply import Reply
from trio_kv.kv.sessions import Session, Sessions
from trio_kv.raft.entry import Entry
from trio_kv.raft.leader import Leader
from trio_kv.replica.replica import Replica
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
    real = Sessions.expire
    patch.setattr(Sessions, "expire", lambda self, time_us: real(self, time_us + 1_000_000))


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
