"""Bugs around what nodes know of disks that were replaced (decisions 0009 and 0048)."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from tests.mutants.registry import Patch, mutant
from trio_kv.raft.follower import Follower
from trio_kv.raft.leader import Leader
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import HardState
from trio_kv.raft.state import NodeState
from trio_kv.storage import wal
from trio_kv.storage.shape import LogShape


def heard_tests(*names: str) -> tuple[str, ...]:
    """Return these tests of incarnations."""
    return tuple(f"tests/unit/test_incarnations.py::{name}" for name in names)


def believing(real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that takes all that was heard for durable."""

    def believe(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(NodeState, "are_incarnations_durable", True)
            return real(*arguments)

    return believe


@mutant(
    "D8 a round is answered before what it names is durable",
    world="core",
    tests=heard_tests(
        "test_D8_a_round_is_answered_when_what_it_names_is_durable", "test_only_what_is_news_is_written"
    ),
)
def _(patch: Patch) -> None:
    patch.setattr(Follower, "on_heartbeat", believing(Follower.on_heartbeat))


@mutant(
    "D8 a leader confirms a rebuild before it knows of it durably",
    tests=heard_tests("test_D8_a_leader_confirms_a_rebuild_when_it_knows_of_it_durably"),
)
def _(patch: Patch) -> None:
    patch.setattr(Leader, "_answer", believing(Leader._answer))


@mutant(
    "D8 a rebuild ends before what was told of incarnations is durable",
    tests=heard_tests("test_D8_a_rebuild_ends_when_what_came_with_the_answer_is_durable"),
)
def _(patch: Patch) -> None:
    patch.setattr(Raft, "maybe_end_rebuild", believing(Raft.maybe_end_rebuild))


@mutant(
    "D8 incarnations are heard and not written",
    world="core",
    tests=heard_tests(
        "test_D8_a_leader_that_confirmed_a_rebuild_still_knows_of_it_after_a_restart",
        "test_D8_a_voter_that_answered_the_round_still_knows_of_it_after_a_restart",
    ),
)
def _(patch: Patch) -> None:
    real = NodeState.note_incarnation

    def note_incarnation(self: NodeState, peer: int, incarnation: int) -> bool:
        before = self.heard_incarnations
        was_replaced = real(self, peer, incarnation)
        self.heard_incarnations = before
        return was_replaced

    patch.setattr(NodeState, "note_incarnation", note_incarnation)


@mutant(
    "D8 a start forgets the incarnations that its disk knows",
    world="core",
    tests=heard_tests(
        "test_the_greater_of_what_the_caller_and_the_disk_know_counts",
        "test_D8_a_voter_that_answered_the_round_still_knows_of_it_after_a_restart",
    ),
)
def _(patch: Patch) -> None:
    real = NodeState.__init__

    def init(self: NodeState, **given: Any) -> None:
        real(self, **given)
        self._incarnations = dict(given.get("incarnations") or {})

    patch.setattr(NodeState, "__init__", init)


@mutant(
    "D8 a start forgets the incarnations that it is given",
    tests=heard_tests("test_the_greater_of_what_the_caller_and_the_disk_know_counts"),
)
def _(patch: Patch) -> None:
    real = NodeState.__init__

    def init(self: NodeState, **given: Any) -> None:
        real(self, **given)
        self._incarnations |= dict(self.heard_incarnations)

    patch.setattr(NodeState, "__init__", init)


@mutant(
    "D8 a node that is rebuilt is not told of the others' incarnations",
    world="core",
    tests=heard_tests("test_D8_a_voter_that_was_rebuilt_itself_learned_what_its_former_self_knew"),
)
def _(patch: Patch) -> None:
    real = Leader._answer

    def answer(self: Leader, *arguments: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(NodeState, "incarnations", lambda self: ())
            real(self, *arguments)

    patch.setattr(Leader, "_answer", answer)


@mutant(
    "D8 a lower incarnation is taken for a later one",
    tests=heard_tests("test_a_hello_is_noted_if_it_is_of_a_higher_incarnation"),
)
def _(patch: Patch) -> None:
    real = NodeState.note_incarnation

    def note_incarnation(self: NodeState, peer: int, incarnation: int) -> bool:
        self._incarnations.pop(peer, None)
        return real(self, peer, incarnation)

    patch.setattr(NodeState, "note_incarnation", note_incarnation)


@mutant(
    "D8 the beginning of a segment has no space for incarnations",
    tests=("tests/unit/test_wal.py::test_D8_incarnations_stand_at_the_beginning_of_each_segment",),
)
def _(patch: Patch) -> None:
    patch.setattr(wal, "heard_bytes", lambda hard_state: 0)


@mutant(
    "D8 a log may forget incarnations",
    tests=("tests/unit/test_wal.py::test_D7_a_write_that_does_not_follow_is_a_bug",),
)
def _(patch: Patch) -> None:
    real = LogShape._vote

    def vote(self: LogShape, new: HardState) -> None:
        self.hard_state = attrs.evolve(self.hard_state, incarnations=())
        real(self, new)

    patch.setattr(LogShape, "_vote", vote)
