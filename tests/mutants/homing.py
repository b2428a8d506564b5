"""Where leadership goes, and whom a round asks (decision 0053)."""

from collections.abc import Collection, Mapping

from tests.mutants.registry import Patch, mutant
from trio_kv.cluster.homing import Homing
from trio_kv.raft import replicator, spares
from trio_kv.raft.leader import Leader
from trio_kv.raft.progress import Progress
from trio_kv.raft.spares import Spares

HOMING = "tests/integration/test_homing.py::"
SPARES = "tests/unit/test_spares.py::"
NEAR = "tests/unit/test_near.py::"


@mutant(
    "a leader away from the doors leads on",
    tests=(HOMING + "test_a_leader_that_chance_made_elsewhere_hands_over",),
)
def _(patch: Patch) -> None:
    patch.setattr(Homing, "_hand_over", lambda self, leader: False)


@mutant(
    "a leader that was handed over to hands back",
    tests=(HOMING + "test_a_leader_that_was_handed_over_to_leads_on",),
)
def _(patch: Patch) -> None:
    real = Leader.__init__

    def init(self: Leader, *arguments: object, is_successor: bool) -> None:
        real(self, *arguments, is_successor=False)  # type: ignore[arg-type]

    patch.setattr(Leader, "__init__", init)


@mutant(
    "a round asks one nearby that is dead",
    tests=(NEAR + "test_one_nearby_that_is_silent_is_no_better_than_others",),
)
def _(patch: Patch) -> None:
    patch.setattr(replicator, "NEAR_HEARTBEATS", 1000)


@mutant("a round asks whoever answered last", tests=(NEAR + "test_a_round_goes_to_those_nearby",))
def _(patch: Patch) -> None:
    patch.setattr(replicator, "NEAR_HEARTBEATS", -1000)


@mutant(
    "entries wait for nobody, though one nearby is dead",
    tests=(SPARES + "test_nobody_is_spare_where_a_commit_may_have_to_wait[one_is_silent]",),
)
def _(patch: Patch) -> None:
    patch.setattr(spares, "NEAR_HEARTBEATS", 1000)


@mutant(
    "entries wait for nobody, though one nearby is slow",
    tests=(SPARES + "test_nobody_is_spare_where_a_commit_may_have_to_wait[one_is_slow]",),
)
def _(patch: Patch) -> None:
    patch.setattr(Progress, "is_quick", lambda self, now, commit, delay_s: True)


@mutant(
    "who is to take over waits for its entries",
    tests=(SPARES + "test_who_is_to_take_over_gets_what_it_lacks_at_once",),
)
def _(patch: Patch) -> None:
    patch.setattr(Spares, "hurry", lambda self, now, peer: None)


@mutant(
    "entries for those further away wait for ever",
    tests=(SPARES + "test_those_further_away_get_together_what_has_gathered",),
)
def _(patch: Patch) -> None:
    real = Spares.look

    def look(self: Spares, now: float, progress: Mapping[int, Progress]) -> Collection[int]:
        self.due_at = float("inf")
        return real(self, now, progress)

    patch.setattr(Spares, "look", look)


@mutant(
    "a follower further away waits before each batch",
    tests=(SPARES + "test_who_is_far_behind_is_not_slowed_down",),
)
def _(patch: Patch) -> None:
    real = Spares.look

    def look(self: Spares, now: float, progress: Mapping[int, Progress]) -> Collection[int]:
        self._due_index = 0
        return real(self, now, progress)

    patch.setattr(Spares, "look", look)
