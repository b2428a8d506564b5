"""Disks that were lost and are rebuilt, and disks that are full."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from tests.mutants.registry import Patch, mutant, scenarios, scripts
from trio_kv.raft.errors import NotLeader, ReadOnly
from trio_kv.raft.events import RebuildEnded
from trio_kv.raft.follower import Follower
from trio_kv.raft.leader import Leader
from trio_kv.raft.messages import (
    AppendAccepted,
    HeartbeatReply,
    RequestVote,
)
from trio_kv.raft.node import Raft
from trio_kv.raft.persistence import Persistence
from trio_kv.raft.role import Role


@mutant(
    "D8 a wiped node votes and stands as if nothing was",
    world="core",
    tests=scenarios("test_D8_a_wiped_node_does_not_vote_before_it_has_all_again"),
)
def _(patch: Patch) -> None:
    real = Raft.__init__

    def init(self: Raft, **arguments: Any) -> None:
        real(self, **{**arguments, "is_rebuilding": False})

    patch.setattr(Raft, "__init__", init)


@mutant("D8 a node that is being rebuilt votes", world="core")
def _(patch: Patch) -> None:
    real = Role.on_request_vote

    def on_request_vote(self: Role, now: float, message: RequestVote) -> None:
        was, self.raft.is_rebuilding = self.raft.is_rebuilding, False
        real(self, now, message)
        self.raft.is_rebuilding = was

    patch.setattr(Role, "on_request_vote", on_request_vote)


@mutant("D8 a node that is being rebuilt stands for election", world="core")
def _(patch: Patch) -> None:
    real = Raft.timeout

    def timeout(self: Raft, now: float) -> None:
        was, self.is_rebuilding = (
            self.is_rebuilding,
            self.is_rebuilding and not isinstance(self.role, Follower),
        )
        real(self, now)
        self.is_rebuilding = was

    patch.setattr(Raft, "timeout", timeout)


def _with_all_counted(work: Callable[[Leader], None]) -> Callable[[Leader], None]:
    """Return the same work, done as if no follower was being rebuilt."""

    def counting(self: Leader) -> None:
        counted = {peer: progress.counts for peer, progress in self.progress.items()}
        for progress in self.progress.values():
            progress.counts = True
        work(self)
        for peer, progress in self.progress.items():
            progress.counts = counted[peer]

    return counting


@mutant("D8 a node that is being rebuilt counts for commits", world="core")
def _(patch: Patch) -> None:
    patch.setattr(Leader, "_maybe_commit", _with_all_counted(Leader._maybe_commit))


@mutant("D8 a node that is being rebuilt counts for reads", world="core")
def _(patch: Patch) -> None:
    real = Leader.on_heartbeat_reply

    def on_heartbeat_reply(self: Leader, now: float, message: HeartbeatReply) -> None:
        real(self, now, attrs.evolve(message, is_rebuilding=False))

    patch.setattr(Leader, "on_heartbeat_reply", on_heartbeat_reply)
    patch.setattr(Leader, "_confirm_reads", _with_all_counted(Leader._confirm_reads))


@mutant("D8 a rebuild ends when nothing was asked yet", world="core")
def _(patch: Patch) -> None:
    real = Raft.maybe_end_rebuild

    def maybe_end_rebuild(self: Raft) -> None:
        if self._rebuilt_index is None and self.leader is not None:
            self._rebuilt_index = 0
        real(self)

    patch.setattr(Raft, "maybe_end_rebuild", maybe_end_rebuild)


@mutant("D8 a rebuild ends before what it took is durable", world="core")
def _(patch: Patch) -> None:
    def maybe_end_rebuild(self: Raft) -> None:
        if self._rebuilt_index is not None and self.log.last_index >= self._rebuilt_index:
            self.is_rebuilding = False
            self.emit(RebuildEnded(self._rebuilt_index))

    patch.setattr(Raft, "maybe_end_rebuild", maybe_end_rebuild)


@mutant("D8 a node that is being rebuilt does not say so", world="core")
def _(patch: Patch) -> None:
    patch.setattr(Raft, "header", lambda self, target: (self.id, target, self.term, self.incarnation, False))


@mutant("D8 a node that is being rebuilt is never done when its leader changes", world="core")
def _(patch: Patch) -> None:
    def confirm_reads(self: Raft, contexts: list[Any], index: int) -> None:
        contexts = [context for context in contexts if isinstance(context, list)]
        if contexts:
            self.effects.reads.extend([(context, index) for context in contexts])

    patch.setattr(Raft, "confirm_reads", confirm_reads)


@mutant(
    "D12 commands are taken whatever room there is",
    world="core",
    tests=scenarios("test_D12_full_disks_are_read_only_and_recover_by_themselves"),
)
def _(patch: Patch) -> None:
    patch.setattr(Leader, "_refuses_full", lambda self, now, size_bytes: None)


@mutant("D12 a follower that is busy counts as full", tests=scripts("disk_D12_one_full_disk"))
def _(patch: Patch) -> None:
    real = Leader._refuses_full

    def refuses_full(self: Leader, now: float, size_bytes: int) -> Any:
        answer = real(self, now, size_bytes)
        return ReadOnly() if answer == NotLeader(None) else answer

    patch.setattr(Leader, "_refuses_full", refuses_full)


@mutant(
    "D12 a leader waits for ever for followers that don't say that they are full",
    tests=scripts("disk_D12_one_full_disk"),
)
def _(patch: Patch) -> None:
    real = Leader._refuses_full

    def refuses_full(self: Leader, now: float, size_bytes: int) -> Any:
        self.refused_since = None
        return real(self, now, size_bytes)

    patch.setattr(Leader, "_refuses_full", refuses_full)


@mutant("D12 the room that commands need is not counted whole", world="core")
def _(patch: Patch) -> None:
    real = Leader._refuses_full
    patch.setattr(Leader, "_refuses_full", lambda self, now, size_bytes: real(self, now, 0))


@mutant("D12 a follower with a full disk takes all entries", world="core")
def _(patch: Patch) -> None:
    patch.setattr(Persistence, "fitting", lambda self, entries: entries)


@mutant("D12 commands that are refused take effect", world="core")
def _(patch: Patch) -> None:
    real = Raft.propose

    def propose(self: Raft, now: float, commands: Any) -> Any:
        answer = real(self, now, commands)
        if isinstance(answer, ReadOnly):
            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(Leader, "refuses", lambda self, now, commands: None)
                real(self, now, commands)
        return answer

    patch.setattr(Raft, "propose", propose)


@mutant("D12 nobody asks a full disk whether it has room again", world="core")
def _(patch: Patch) -> None:
    real = Leader.on_append_accepted

    def on_append_accepted(self: Leader, now: float, message: AppendAccepted) -> None:
        known = self.progress[message.source].free_log_bytes
        real(self, now, message)
        if known is not None:
            self.progress[message.source].free_log_bytes = known

    patch.setattr(Leader, "on_append_accepted", on_append_accepted)
