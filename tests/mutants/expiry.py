"""Keys that end, and the time of the cluster (scenario C6)."""

from collections.abc import Sequence
from typing import Any

from tests.mutants.registry import Patch, mutant, scripts
from trio_kv.kv import image, machine
from trio_kv.kv.commands import Expire
from trio_kv.kv.expiring import expire
from trio_kv.kv.image import ItemRecord
from trio_kv.kv.operations import Get, Incr, Set
from trio_kv.kv.operations.operation import Change, Context
from trio_kv.kv.reply import Due, Item, Reply
from trio_kv.kv.sessions import Sessions
from trio_kv.raft.candidate import Candidate
from trio_kv.raft.leader import Leader
from trio_kv.raft.messages import TermTime
from trio_kv.raft.node import Raft
from trio_kv.raft.state import NodeState
from trio_kv.replica.replica import Replica


def unit_tests(*names: str) -> tuple[str, ...]:
    """Return tests of the state machine."""
    return tuple(f"tests/unit/test_expiry.py::{name}" for name in names)


def replica_tests(*names: str) -> tuple[str, ...]:
    """Return tests of one node's brain."""
    return tuple(f"tests/unit/test_replica.py::{name}" for name in names)


def world_tests(*names: str) -> tuple[str, ...]:
    """Return scenarios in the core world."""
    return tuple(f"tests/sim/test_expiry.py::{name}" for name in names)


OVER_REIGNS = "test_C6_a_key_ends_in_its_time_over_reigns_without_a_write"


@mutant(
    "C6 a key ends before its time",
    tests=unit_tests("test_a_key_ends_by_an_entry_at_its_time_or_later"),
)
def _(patch: Patch) -> None:
    def early(context: Context, sessions: Sessions, at_most: int | None, told: Sequence[Change]) -> list[int]:
        context.time_us += 1
        forgotten = expire(context, sessions, at_most, told)
        context.time_us -= 1
        return forgotten

    patch.setattr(machine, "expire", early)


@mutant(
    "C6 a key that is written again ends at its first time",
    tests=unit_tests(
        "test_the_last_write_decides", "test_a_machine_that_is_wrong_about_a_time_stays_so_alone"
    ),
)
def _(patch: Patch) -> None:
    def apply(self: Set, context: Context) -> Reply:
        item = context.items.get(self.key)
        kept = context.end_of(self.ttl, item) if item is None or item.due is None else item.due[0]
        return context.put(self.key, self.value, item, kept)

    patch.setattr(Set, "apply", apply)


@mutant(
    "C6 what was to end is forgotten with the key alone",
    tests=unit_tests("test_a_deleted_key_leaves_nothing_behind"),
)
def _(patch: Patch) -> None:
    def remove(self: Context, key: str, item: Item) -> Reply:
        del self.items[key]
        self.origin = key, item.revision
        return Reply("ok", item.value, self.index)

    patch.setattr(Context, "remove", remove)


@mutant("C6 incr keeps a key for good", world="core", tests=unit_tests("test_the_last_write_decides"))
def _(patch: Patch) -> None:
    real = Incr.apply

    def apply(self: Incr, context: Context) -> Reply:
        end_of = Context.end_of
        with Patch.context() as inner:
            inner.setattr(Context, "end_of", lambda self, ttl, _kept=None: end_of(self, ttl))
            return real(self, context)

    patch.setattr(Incr, "apply", apply)


@mutant(
    "C6 an entry lets end all that is due",
    tests=unit_tests("test_an_entry_ends_the_first_thousand_of_keys_and_sessions"),
)
def _(patch: Patch) -> None:
    patch.setattr(
        machine, "expire", lambda context, sessions, _at_most, told: expire(context, sessions, None, told)
    )


@mutant(
    "C6 a leader lets end all that is due by one proposal",
    tests=world_tests("test_writes_go_between_the_entries_that_end_many_keys"),
)
def _(patch: Patch) -> None:
    real = Raft.propose

    def propose(self: Raft, now: float, commands: Any) -> Any:
        return real(self, now, [*commands] * 4 if isinstance(commands[0], Expire) else commands)

    patch.setattr(Raft, "propose", propose)


@mutant(
    "C6 nobody is told that a key ends",
    world="whole",
    tests=unit_tests("test_get_tells_how_long_a_key_lives_at_least"),
)
def _(patch: Patch) -> None:
    def answer(self: Get, state: Any) -> Reply:
        item = state.items.get(self.key)
        return Reply("missing") if item is None else Reply("ok", item.value, item.revision)

    patch.setattr(Get, "answer", answer)


@mutant(
    "C6 a snapshot does not tell when keys end",
    world="core",
    tests=(
        *unit_tests("test_snapshots_tell_when_keys_end"),
        *world_tests("test_C6_snapshots_and_a_restart_of_all_nodes_keep_the_time"),
    ),
)
def _(patch: Patch) -> None:
    patch.setattr(
        image,
        "TimedItemRecord",
        lambda key, value, revision, _due_us: ItemRecord(key, value, revision),
    )


@mutant(
    "C6 a new leader begins where its log ends",
    tests=(
        *scripts("time_C6_goes_on_without_entries", "time_C6_a_vote_passes_it_on"),
        *replica_tests(OVER_REIGNS),
        *world_tests(OVER_REIGNS),
    ),
)
def _(patch: Patch) -> None:
    patch.setattr(NodeState, "hear_time", lambda _self, _heard: None)


@mutant(
    "C6 the greatest time that was heard counts",
    tests=scripts("time_C6_only_of_the_leader_of_the_last_entry"),
)
def _(patch: Patch) -> None:
    def hear_time(self: NodeState, heard: TermTime) -> None:
        self.heard_time = max(self.heard_time, heard, key=lambda each: each[1])

    patch.setattr(NodeState, "hear_time", hear_time)
    known = property(lambda self: max(self.log.last_time_us, self.heard_time[1]))
    patch.setattr(NodeState, "known_time_us", known)


@mutant("C6 votes pass no time on", tests=scripts("time_C6_a_vote_passes_it_on"))
def _(patch: Patch) -> None:
    real = Candidate.on_vote_reply

    def on_vote_reply(self: Candidate, message: Any) -> Any:
        heard_time = self.raft.heard_time
        transition = real(self, message)
        self.raft.heard_time = heard_time
        return transition

    patch.setattr(Candidate, "on_vote_reply", on_vote_reply)


@mutant(
    "C6 a leader counts what its clock leaps by",
    tests=(
        *replica_tests("test_C6_a_leader_whose_clock_leaps_counts_nothing_of_it"),
        *world_tests("test_C6_clocks_that_leap_or_run_apart_take_nothing_of_a_key"),
    ),
)
def _(patch: Patch) -> None:
    patch.setattr(Leader, "_led_until", property(lambda _self: float("inf")))


@mutant("C6 cluster time runs ahead of time", tests=world_tests(OVER_REIGNS))
def _(patch: Patch) -> None:
    real = Leader.time_us
    patch.setattr(
        Leader, "time_us", lambda self, now: self.time_base_us + 2 * (real(self, now) - self.time_base_us)
    )


@mutant(
    "C6 an entry is written while nothing is due",
    tests=(
        *replica_tests("test_an_expiry_is_never_tried_too_early"),
        *world_tests(OVER_REIGNS),
    ),
)
def _(patch: Patch) -> None:
    real = Leader.when
    patch.setattr(Leader, "when", lambda self, time_us: real(self, time_us) - 0.4)


@mutant(
    "C6 a new leader lets end what it knows of, before it knows all",
    tests=replica_tests("test_a_new_leader_lets_nothing_end_before_it_knows_the_state"),
)
def _(patch: Patch) -> None:
    real = Replica._expiry_deadline

    def deadline(self: Replica) -> float:
        applied = self.machine.applied
        self.machine.applied = 1 << 60
        try:
            return real(self)
        finally:
            self.machine.applied = applied

    patch.setattr(Replica, "_expiry_deadline", deadline)


@mutant(
    "kv: what another machine told of an expiry is believed",
    tests=("tests/unit/test_sharing.py::test_a_machine_that_lacks_a_key_does_not_say_that_it_ended",),
)
def _(patch: Patch) -> None:
    real = Context.expire

    def expire_as_told(self: Context, dues: Sequence[Due], told: Sequence[Change]) -> None:
        before = len(self.changes)
        real(self, dues, told)
        self.changes[before : before + len(told)] = told

    patch.setattr(Context, "expire", expire_as_told)
