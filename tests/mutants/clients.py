"""What one client may cost: work and memory in proportion to what it sent, the same on every node."""

import re
from typing import Any

from tests.mutants.registry import Patch, mutant
from trio_kv.gateway.pending import PendingWrite
from trio_kv.gateway.store import Answer
from trio_kv.gateway.writes import Writes
from trio_kv.kv import equality
from trio_kv.kv.commands import Write
from trio_kv.kv.equality import COMPARED_BYTES_MAX, is_equal_json
from trio_kv.kv.image import ReplyRecord
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import cas
from trio_kv.kv.operations.operation import Context
from trio_kv.kv.reply import Item, Origin, Reply
from trio_kv.kv.restorer import Restorer
from trio_kv.kv.session import Session
from trio_kv.kv.sessions import FULL_OF_TEXTS
from trio_kv.proxy import session
from trio_kv.proxy.books import UnsentReplies
from trio_kv.proxy.states import Step
from trio_kv.replica import replica
from trio_kv.wire import refusals


def tests_of(file: str, *names: str) -> tuple[str, ...]:
    """Return tests of a file of the unit tests."""
    return tuple(f"tests/unit/test_{file}.py::{name}" for name in names)


@mutant(
    "C7 what a process has compared before counts against the budget of a condition",
    tests=tests_of("machine", "test_C7_verdicts_depend_on_the_log_alone"),
)
def _(patch: Patch) -> None:
    compared_bytes = 0

    def is_equal(first: bytes, second: bytes) -> bool:
        nonlocal compared_bytes
        compared_bytes += len(first) + len(second)
        return is_equal_json(first, second) if compared_bytes <= COMPARED_BYTES_MAX else first == second

    patch.setattr(cas, "is_equal_json", is_equal)


@mutant(
    "C7 a node has a larger budget for conditions than others",
    tests=tests_of("json_equality", "test_what_exceeds_the_budget_is_equal_only_byte_for_byte"),
)
def _(patch: Patch) -> None:
    patch.setattr(equality, "COMPARED_BYTES_MAX", COMPARED_BYTES_MAX + 1)


@mutant(
    "kv: a deleted key is not told among the changes",
    tests=(
        "tests/property/test_machine.py::test_changes_tell_all_that_happens_to_keys",
        *tests_of("machine", "test_changes_say_what_each_entry_did"),
    ),
)
def _(patch: Patch) -> None:
    real = Context.remove

    def remove(self: Context, key: str, item: Item) -> Reply:
        reply = real(self, key, item)
        self.changes.pop()
        return reply

    patch.setattr(Context, "remove", remove)


@mutant("kv: a boolean is a number", tests=tests_of("json_equality", "test_booleans_are_no_numbers"))
def _(patch: Patch) -> None:
    patch.setattr(equality, "_boolean", re.compile(rb"(?!)"))


@mutant(
    "N an answer that is restored has the value that its key holds now",
    world="core",
    tests=tests_of("image", "test_what_only_answers_hold_is_told_once"),
)
def _(patch: Patch) -> None:
    real = Restorer._find_text

    def find_text(self: Restorer, answer: ReplyRecord, origin: Origin) -> Any:
        item = self._items.get(origin[0])
        return real(self, answer, origin) if item is None else item.value

    patch.setattr(Restorer, "_find_text", find_text)


@mutant(
    "N an answer that is restored has no value",
    world="core",
    tests=tests_of("image", "test_snapshot_holds_everything"),
)
def _(patch: Patch) -> None:
    patch.setattr(ReplyRecord, "find_origin", lambda self: None)


@mutant(
    "N what restored answers hold is not counted",
    tests=tests_of("image", "test_counts_go_down_as_answers_are_forgotten"),
)
def _(patch: Patch) -> None:
    real = Restorer._add_reply

    def add_reply(self: Restorer, answer: ReplyRecord) -> None:
        real(self, answer)
        session = self._sessions.by_id[answer.session]
        self._sessions.held_bytes -= session.held_bytes
        session.held_bytes = 0

    patch.setattr(Restorer, "_add_reply", add_reply)


@mutant(
    "C1 values in answers are not counted",
    tests=tests_of(
        "sessions",
        "test_values_in_answers_are_limited",
        "test_values_in_answers_of_all_sessions_are_limited",
    ),
)
def _(patch: Patch) -> None:
    patch.setattr(Session, "hold", lambda self, seq, origin, size_bytes: 0)


@mutant(
    "C1 a value in an answer counts anew for each of them",
    tests=tests_of("sessions", "test_answers_share_what_a_key_holds"),
)
def _(patch: Patch) -> None:
    real = Session.hold

    def hold(self: Session, seq: int, origin: Origin, size_bytes: int) -> int:
        return real(self, seq, (f"{origin[0]} {seq}", origin[1]), size_bytes)

    patch.setattr(Session, "hold", hold)


@mutant(
    "C1 a command that was refused for want of room is applied when it is repeated",
    tests=tests_of("sessions", "test_what_was_refused_is_never_applied"),
)
def _(patch: Patch) -> None:
    real = Machine._write

    def write(self: Machine, command: Write, context: Context) -> Reply:
        reply = real(self, command, context)
        if reply is FULL_OF_TEXTS:
            del self.sessions.by_id[command.session].replies[command.seq]
        return reply

    patch.setattr(Machine, "_write", write)


@mutant(
    "C1 every client that waits for a session opens one",
    tests=tests_of("gateway", "test_time_outs_shorter_than_a_commit_open_one_session"),
)
def _(patch: Patch) -> None:
    real = Writes._take_in

    def take_in(self: Writes, now: float, write: PendingWrite) -> Answer | None:
        self._opening = None
        return real(self, now, write)

    patch.setattr(Writes, "_take_in", take_in)


@mutant(
    "replica: a pass compares whatever there is to compare",
    tests=tests_of("replica", "test_a_pass_compares_only_so_much"),
)
def _(patch: Patch) -> None:
    patch.setattr(replica, "COMPARED_IN_A_PASS_BYTES_MAX", float("inf"))


@mutant(
    "wire: a bad line is explained from end to end",
    tests=tests_of("requests", "test_long_lines_are_refused_in_no_time"),
)
def _(patch: Patch) -> None:
    patch.setattr(refusals, "EXPLAINED_BYTES_MAX", 1 << 30)
    patch.setattr(refusals, "EXPLAINED_MEMBERS_MAX", 1 << 30)


@mutant(
    "proxy: a chunk is answered without a pause", tests=tests_of("connection", "test_others_have_their_turn")
)
def _(patch: Patch) -> None:
    patch.setattr(session, "WORK_MAX", 1 << 30)


@mutant(
    "proxy: all of a chunk is decoded before the first reply is sent",
    tests=tests_of("connection", "test_error_replies_wait_for_the_client"),
)
def _(patch: Patch) -> None:
    patch.setattr(session, "REPLY_BYTES_MAX", 1 << 30)


@mutant(
    "proxy: what was not decoded gets no answer from a door that stops",
    tests=tests_of("connection", "test_a_stop_answers_what_was_not_even_decoded"),
)
def _(patch: Patch) -> None:
    real = session.Session.close

    def close(self: session.Session) -> Step | None:
        self._decoder.forget()
        self._decoder.is_in_block = False
        return real(self)

    patch.setattr(session.Session, "close", close)


@mutant(
    "proxy: replies that nobody takes are not counted",
    tests=tests_of("connection", "test_replies_that_nobody_takes_are_limited_over_all_connections"),
)
def _(patch: Patch) -> None:
    patch.setattr(UnsentReplies, "note", lambda self, holder, size, is_new: None)
