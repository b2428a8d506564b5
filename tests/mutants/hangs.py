"""Disks that hang: whoever waits for one without limit, and whoever does not wait where he must."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.mutants.registry import Patch, mutant, scenarios, scripts
from trio_kv.cluster import hangs, loading
from trio_kv.cluster.hangs import DiskWaits
from trio_kv.raft import persistence as persistence_module
from trio_kv.raft.follower import Follower
from trio_kv.raft.install import Outgoing
from trio_kv.raft.leader import Leader
from trio_kv.raft.messages import InstallSnapshot, Message
from trio_kv.raft.persistence import Persistence
from trio_kv.raft.progress import Progress
from trio_kv.raft.voters import Voters
from trio_kv.replica.snapshots import Snapshots
from trio_kv.replica.turns import Turns

LIVE = "tests/integration/test_hung_disks.py::"
REPLICA = "tests/unit/test_replica_snapshots.py::"
PERSISTENCE = "tests/unit/test_persistence.py::"


@mutant(
    "N8 a turn has no end",
    world="core",
    tests=(
        "tests/unit/test_turns.py::test_who_gets_nowhere_loses_it_and_asks_anew",
        *scenarios("test_N8_a_disk_that_hangs_in_its_turn_keeps_no_other_node_from_taking_snapshots"),
        "tests/sim/test_whole_faults.py::test_disks_that_hang_at_a_start_keep_no_other_node_from_starting",
    ),
)
def _(patch: Patch) -> None:
    real = Turns.take

    def take(self: Turns, now: float, node: int, rank: int = 0) -> bool:
        self._until = float("inf")
        return real(self, now, node, rank)

    patch.setattr(Turns, "take", take)


@mutant(
    "N8 what is kept for a snapshot that is sent is kept for ever",
    tests=scenarios("test_N8_a_disk_that_hangs_while_it_is_sent_a_snapshot_is_kept_nothing_for"),
)
def _(patch: Patch) -> None:
    patch.setattr(Outgoing, "maybe_end_lease", lambda *_: None)


@mutant(
    "N8 what a slow disk gets on with renews nothing",
    tests=("tests/unit/test_progress.py::test_a_snapshot_is_kept_as_long_as_its_receiver_gets_on",),
)
def _(patch: Patch) -> None:
    patch.setattr(Outgoing, "moved", lambda *_: None)


@mutant(
    "N8 a follower takes each snapshot that is offered while its disk hangs",
    tests=(REPLICA + "test_of_a_disk_that_hangs_no_more_is_asked_than_one_chunk",),
)
def _(patch: Patch) -> None:
    real = Follower.on_install_snapshot

    def on_install_snapshot(self: Follower, now: float, message: InstallSnapshot) -> None:
        incoming = self.raft.incoming
        if incoming is not None and incoming.snapshot != (message.index, message.index_term):
            incoming.is_storing = False
        real(self, now, message)

    patch.setattr(Follower, "on_install_snapshot", on_install_snapshot)


@mutant(
    "snapshots: who lost the turn goes on as if it had it",
    tests=(REPLICA + "test_a_snapshot_goes_on_without_its_turn_only_as_far_as_the_disk_has_it",),
)
def _(patch: Patch) -> None:
    real = Snapshots.take_turn

    def take_turn(self: Snapshots, now: float, turns: Turns) -> None:
        real(self, now, turns)
        assert self._taking is not None
        self._taking.has_turn = True

    patch.setattr(Snapshots, "take_turn", take_turn)


@mutant(
    "supervisor: nodes are read one after the other, however long one takes",
    tests=(
        "tests/sim/test_whole_faults.py::test_disks_that_hang_at_a_start_keep_no_other_node_from_starting",
    ),
)
def _(patch: Patch) -> None:
    patch.setattr(loading, "LOAD_LEASE_S", float("inf"))


@mutant(
    "E1 a leader with a stalled disk takes any follower for one that could vote",
    tests=scripts("disk_E1_stalled_leader_stays"),
)
def _(patch: Patch) -> None:
    patch.setattr(Progress, "could_elect", lambda *_, **__: True)


@mutant(
    "E1 a leader with a stalled disk hands over though nobody could be elected",
    tests=(
        *scripts("disk_E1_stalled_leader_stays"),
        *scenarios("test_E1_a_leader_with_a_stalled_disk_stays_if_nobody_could_be_elected"),
    ),
)
def _(patch: Patch) -> None:
    real = Leader._maybe_hand_over_stalled

    def maybe_hand_over_stalled(self: Leader, now: float) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Voters, "has_majority", lambda _, nodes: bool(nodes))
            real(self, now)

    patch.setattr(Leader, "_maybe_hand_over_stalled", maybe_hand_over_stalled)


@mutant(
    "supervisor: a node is started while the thread of its former life may write",
    tests=(LIVE + "test_a_node_is_started_again_only_when_its_disk_has_ended",),
)
def _(patch: Patch) -> None:
    async def wait(self: DiskWaits, node: int, work: Callable[[], Awaitable[Any]]) -> Any:
        self.moved(node)
        return await work()

    patch.setattr(DiskWaits, "wait", wait)


@mutant(
    "supervisor: the end waits for a disk that hangs",
    tests=(LIVE + "test_the_end_does_not_wait_for_a_disk_that_hangs",),
)
def _(patch: Patch) -> None:
    patch.setattr(hangs, "END_S", 6.0)


@mutant(
    "supervisor: the end waits for no disk",
    tests=(LIVE + "test_the_end_waits_for_a_disk_that_works",),
)
def _(patch: Patch) -> None:
    patch.setattr(hangs, "END_S", 0.0)


@mutant(
    "persistence: a disk that hangs is given writes without end",
    tests=(PERSISTENCE + "test_a_disk_that_hangs_gets_no_queue_without_end",),
)
def _(patch: Patch) -> None:
    patch.setattr(persistence_module, "WRITES_UNDER_WAY_MAX", 1 << 30)


@mutant(
    "D7 a message leaves with a write that lacks its entry",
    tests=(PERSISTENCE + "test_what_waits_behind_them_promises_nothing_before_it_is_durable",),
)
def _(patch: Patch) -> None:
    def release(self: Persistence) -> list[Message]:
        held, self.held = self.held, []
        self._pending[-1].messages.extend(held)
        return []

    patch.setattr(Persistence, "release", release)
