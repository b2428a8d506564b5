"""Where leadership goes, and whom a round asks (decision 0053)."""

from tests.mutants.registry import Patch, mutant
from trio_kv.cluster.homing import Homing
from trio_kv.raft import replicator
from trio_kv.raft.leader import Leader

HOMING = "tests/integration/test_homing.py::"
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
