"""Snapshots and compaction (paper §7)."""

from typing import Any

from tests.mutants.registry import Patch, mutant, scenarios
from trio_kv.kv import frozen as frozen_module
from trio_kv.kv.image import encode_chunks
from trio_kv.kv.machine import Machine
from trio_kv.raft.follower import Follower
from trio_kv.raft.leader import Leader
from trio_kv.raft.log import Log
from trio_kv.raft.messages import (
    AppendAccepted,
)
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import Ready
from trio_kv.replica.replica import Replica
from trio_kv.replica.snapshots import Snapshots
from trio_kv.storage.snapshot_reading import Stored
from trio_kv.storage.snapshots import SnapshotStore

SNAPSHOT_TESTS_N4 = ("tests/unit/test_snapshots.py::test_N4_a_snapshot_that_is_sent_outlives_the_next_one",)


@mutant("N a snapshot lacks the sessions", world="core")
def _(patch: Patch) -> None:
    patch.setattr(
        frozen_module, "encode_chunks", lambda head, sessions, items: encode_chunks(head, {}, items)
    )


@mutant("N a snapshot holds what is written while it is made", world="core")
def _(patch: Patch) -> None:
    real = Machine.freeze

    def freeze(self: Machine) -> Any:
        frozen = real(self)
        frozen._items = self.items
        return frozen

    patch.setattr(Machine, "freeze", freeze)


@mutant(
    "N2 a conflicting log is dropped in memory, and not on the disk",
    world="core",
    tests=scenarios("test_N1_a_snapshot_replaces_a_conflicting_log"),
)
def _(patch: Patch) -> None:
    real = Raft.installed

    def installed(self: Raft, index: int, term: int, time_us: int) -> bool:
        is_news = real(self, index, term, time_us)
        self.persistence._base = None
        return is_news

    patch.setattr(Raft, "installed", installed)


@mutant("N2 an install is acknowledged before the disk has dropped the log", world="core")
def _(patch: Patch) -> None:
    def on_installed(self: Follower) -> None:
        raft = self.raft
        if raft.leader is not None:
            raft.effects.messages.append(
                AppendAccepted(*raft.header(raft.leader), raft.commit, raft.persistence.free_log_bytes)
            )

    patch.setattr(Follower, "on_installed", on_installed)


@mutant(
    "N6 the log is dropped when a snapshot is begun, not when it is durable",
    world="core",
    tests=scenarios("test_N6_a_crash_in_every_phase_of_a_snapshot_and_its_compaction"),
)
def _(patch: Patch) -> None:
    real = Snapshots.begin

    def begin(self: Snapshots, machine: Machine) -> None:
        real(self, machine)
        self._compact_to = machine.applied

    patch.setattr(Snapshots, "begin", begin)


@mutant(
    "N9 a state machine is installed before its snapshot is durable",
    world="core",
    tests=scenarios("test_N9_the_connection_is_lost_after_an_install_and_before_it_is_durable"),
)
def _(patch: Patch) -> None:
    real = Replica.apply

    def apply(self: Replica, ready: Ready) -> Any:
        answers = real(self, ready)
        receiving = self.snapshots._receiving
        if receiving is not None and receiving.machine is not None:
            self.snapshot_stored(receiving.snapshot, 0)
        return answers

    patch.setattr(Replica, "apply", apply)


@mutant(
    "N1 what stands at the snapshot's index is kept, whatever its term",
    tests=scenarios("test_N1_a_snapshot_ends_inside_a_conflicting_log"),
)
def _(patch: Patch) -> None:
    real_installed, real_has = Raft.installed, Log.has

    def installed(self: Raft, *arguments: Any) -> bool:
        patch.setattr(Log, "has", lambda self, index, term: self.term_at(index) is not None)
        is_news = real_installed(self, *arguments)
        patch.setattr(Log, "has", real_has)
        return is_news

    patch.setattr(Raft, "installed", installed)


@mutant(
    "N1 a snapshot that comes late moves the commit index back",
    tests=("tests/unit/test_replica_snapshots.py::test_an_install_never_moves_the_commit_index_back",),
)
def _(patch: Patch) -> None:
    real = Raft.installed

    def installed(self: Raft, index: int, term: int, time_us: int) -> bool:
        self.commit = min(self.commit, index - 1)
        return real(self, index, term, time_us)

    patch.setattr(Raft, "installed", installed)


@mutant("N3 a snapshot lacks the term of its last entry", world="core")
def _(patch: Patch) -> None:
    real = Raft.installed

    def installed(self: Raft, index: int, term: int, time_us: int) -> bool:
        return real(self, index, 0, time_us)

    patch.setattr(Raft, "installed", installed)


@mutant("N4 a snapshot is removed while it is being sent", tests=SNAPSHOT_TESTS_N4)
def _(patch: Patch) -> None:
    real = SnapshotStore.put

    def put(self: SnapshotStore, stored: Stored) -> None:
        self._held.clear()
        real(self, stored)

    patch.setattr(SnapshotStore, "put", put)


@mutant(
    "N8 a node that is down keeps the log from being dropped",
    tests=scenarios("test_N1_a_snapshot_replaces_a_conflicting_log"),
)
def _(patch: Patch) -> None:
    real = Leader.replicate

    def replicate(self: Leader, now: float) -> None:
        for progress in self.progress.values():
            progress.heard_at = now
            if progress.install is not None:
                progress.install.moved(now, self.raft.log.last_index)
        real(self, now)

    patch.setattr(Leader, "replicate", replicate)


@mutant(
    "N8 the log behind a snapshot is dropped while it is being sent",
    tests=scenarios("test_N8_a_slow_receiver_under_aggressive_compaction_converges"),
)
def _(patch: Patch) -> None:
    patch.setattr(Leader, "snapshots_sent", lambda self: set())
