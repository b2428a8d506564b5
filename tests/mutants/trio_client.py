"""The client on Trio and its recipes: whose reply is whose, what is sent again, and who may write."""

from collections.abc import Sequence
from typing import Any

from tests.mutants.registry import Patch, mutant
from trio_kv.client import patience
from trio_kv.client.errors import StoreError
from trio_kv.client.following import Following, Revision
from trio_kv.client.numbering import Seqs
from trio_kv.client.patience import Patience
from trio_kv.client.pipeline import Call, Pipeline
from trio_kv.client.txns import Members
from trio_kv.recipes import Cache, Held, Taken
from trio_kv.wire.client_sessions import Numbered


def client_tests(*names: str) -> tuple[str, ...]:
    """Return tests of the client."""
    return tuple(f"tests/unit/test_trio_client.py::{name}" for name in names)


def recipe_tests(*names: str) -> tuple[str, ...]:
    """Return tests of the recipes."""
    return tuple(f"tests/sim/test_recipes.py::{name}" for name in names)


@mutant(
    "client: a call that is cancelled leaves its reply to the next one",
    tests=client_tests("test_calls_that_are_cancelled_mix_up_no_replies"),
)
def _(patch: Patch) -> None:
    def abandon(self: Pipeline, call: Call) -> None:
        call.is_over = True
        if call in self._in_flight:
            self._in_flight.remove(call)

    patch.setattr(Pipeline, "abandon", abandon)


@mutant(
    "client: a call that is cancelled goes out all the same",
    tests=client_tests("test_a_call_that_is_cancelled_before_it_goes_out_never_does"),
)
def _(patch: Patch) -> None:
    def take(self: Pipeline) -> bytes:
        batch, self._waiting = list(self._waiting), type(self._waiting)()
        self._in_flight += batch
        self.request_count += len(batch)
        return b"".join([call.line for call in batch])

    patch.setattr(Pipeline, "take", take)


@mutant(
    "C1 client: what is sent again has another seq",
    tests=client_tests("test_C1_a_write_takes_effect_once_though_its_connection_broke"),
)
def _(patch: Patch) -> None:
    patch.setattr("trio_kv.client.trio_client.is_numbered", lambda _: True)


@mutant(
    "C1 client: a write without a number is sent again",
    tests=client_tests("test_a_write_without_a_number_is_unknown_when_its_connection_breaks"),
)
def _(patch: Patch) -> None:
    real = Patience.__init__

    def begin(self: Patience, deadline_s: float, **options: bool) -> None:
        real(self, deadline_s, may_write=options["may_write"], is_repeatable=True)

    patch.setattr(Patience, "__init__", begin)


@mutant(
    "client: all below the newest seq is said to be answered",
    tests=client_tests("test_a_seq_that_is_awaited_is_not_given_up"),
)
def _(patch: Patch) -> None:
    real = Seqs.number

    def number(self: Seqs, operation: Any) -> Numbered:
        numbered = real(self, operation)
        return Numbered(operation, numbered.session, numbered.seq, numbered.seq)

    patch.setattr(Seqs, "number", number)


@mutant(
    "client: a definite error denies an earlier attempt",
    tests=client_tests("test_a_definite_error_does_not_deny_an_earlier_attempt"),
)
def _(patch: Patch) -> None:
    def weigh_error(self: Patience, error: StoreError, now_s: float) -> float:
        if now_s + self._pause_s > self.deadline_s:
            raise error
        return self._next_pause_s()

    patch.setattr(Patience, "weigh_error", weigh_error)
    patch.setattr(patience, "_OF_THIS_ATTEMPT", frozenset[str]())


@mutant(
    "client: a watch goes on with what it has told already",
    tests=client_tests("test_a_watch_goes_on_behind_what_it_has_told"),
)
def _(patch: Patch) -> None:
    real = Following.take

    def take(self: Following, line: bytes) -> Revision | None:
        before, told = self._operation, real(self, line)
        self._operation = before
        return told

    patch.setattr(Following, "take", take)


@mutant(
    "recipes: nobody looks whether a lock is held",
    tests=recipe_tests("test_a_lock_never_lets_two_write"),
)
def _(patch: Patch) -> None:
    patch.setattr(Held, "condition", {"key": "no such key", "exists": False})


@mutant(
    "recipes: who has taken a thing takes it out, whoever has it now",
    tests=recipe_tests("test_a_queue_loses_nothing_and_ends_each_thing_once"),
)
def _(patch: Patch) -> None:
    async def finish(self: Taken, also: Sequence[Members] = ()) -> None:
        await self.held._kv.txn([{"op": "delete", "key": self.item.key}, *also])
        self.is_finished = True

    patch.setattr(Taken, "finish", finish)


@mutant(
    "recipes: a cache takes from its watch what its pages have told",
    tests=recipe_tests("test_what_a_page_has_told_is_not_taken_back"),
)
def _(patch: Patch) -> None:
    patch.setattr(Cache, "_known_of", lambda self, key: 0)


@mutant(
    "recipes: what goes with the end of a thing is carried out again with each call",
    tests=("tests/unit/test_recipes.py::test_a_thing_is_finished_once",),
)
def _(patch: Patch) -> None:
    real = Held.txn

    async def txn(self: Held, then: Sequence[Members], **_conditions: Any) -> Any:
        return await real(self, then)

    patch.setattr(Held, "txn", txn)


@mutant(
    "client: what was refused keeps a session",
    tests=client_tests("test_what_was_refused_does_not_keep_a_session"),
)
def _(patch: Patch) -> None:
    applied = {
        "ok",
        "missing",
        "conflict",
        "unavailable",
        "timeout",
        "overloaded",
        "bad_request",
        "too_large",
    }
    patch.setattr("trio_kv.client.numbering._APPLIED", frozenset(applied))
