"""Votes, terms, and who leads when (paper §5.2, thesis §9.6)."""

from typing import Any, cast

from tests.mutants.registry import Patch, mutant, scenarios, scripts
from trio_kv.raft import candidate
from trio_kv.raft.candidate import Candidate
from trio_kv.raft.follower import Follower
from trio_kv.raft.leader import Leader
from trio_kv.raft.log import Log
from trio_kv.raft.messages import (
    AppendEntries,
    HeartbeatReply,
    Message,
    RequestPreVote,
    RequestVote,
    VoteReply,
)
from trio_kv.raft.node import Raft
from trio_kv.raft.persistence import Persistence
from trio_kv.raft.role import Role, Transition


@mutant(
    "E a candidate whose log is behind gets votes", world="core", tests=scripts("elections_log_behind_loses")
)
def _(patch: Patch) -> None:
    patch.setattr(Log, "is_up_to_date", lambda self, last_index, last_term: True)


@mutant(
    "E logs are compared by length alone",
    world="core",
    tests=("tests/unit/test_log.py::test_a_vote_compares_term_before_index",),
)
def _(patch: Patch) -> None:
    patch.setattr(Log, "is_up_to_date", lambda self, last_index, last_term: last_index >= self.last_index)


@mutant("E a node votes twice in a term", world="core")
def _(patch: Patch) -> None:
    real = Role.on_request_vote

    def on_request_vote(self: Role, now: float, message: RequestVote) -> None:
        if self.raft.vote not in {None, self.raft.id}:
            self.raft.vote = None
        real(self, now, message)

    patch.setattr(Role, "on_request_vote", on_request_vote)


@mutant("E a lost election is never begun anew", world="core")
def _(patch: Patch) -> None:
    patch.setattr(
        candidate.Candidate, "on_timeout", lambda self, now: setattr(self, "deadline", float("inf"))
    )


@mutant("E a leader that no majority answers leads on", tests=scripts("elections_check_quorum"))
def _(patch: Patch) -> None:
    patch.setattr(Leader, "_quorum_heard_at", lambda self, now: now)


@mutant("E a late timer is believed", tests=scripts("elections_late_timers"))
def _(patch: Patch) -> None:
    real = Follower.on_timeout

    def on_timeout(self: Follower, now: float) -> Transition | None:
        self.was_late = True
        return real(self, now)

    patch.setattr(Follower, "on_timeout", on_timeout)


@mutant(
    "E1 a leader with a stalled disk leads on",
    tests=(
        *scripts("disk_E1_stalled_leader_hands_over"),
        *scenarios("test_E1_E2_a_leader_with_a_stalled_disk_hands_over_and_its_late_writes_are_void"),
    ),
)
def _(patch: Patch) -> None:
    patch.setattr(Persistence, "oldest_write_at", None)


@mutant("E3 a lower term gets no answer", world="core")
def _(patch: Patch) -> None:
    patch.setattr(Raft, "_answer_late", lambda self, message: None)


@mutant(
    "E3 a pre-candidate never follows again in its term",
    tests=scripts("elections_E3_pre_candidate_inside_the_lease"),
)
def _(patch: Patch) -> None:
    patch.setattr(Raft, "_following", lambda self, now, message: self.role)
    for name in ("on_heartbeat", "on_append_entries", "on_install_snapshot"):
        patch.setattr(Candidate, name, lambda self, now, message: None, raising=False)


@mutant(
    "E4 a follower that heard a leader once refuses for ever",
    world="core",
    tests=scripts("elections_E4_followers_that_still_hear"),
)
def _(patch: Patch) -> None:
    real = Raft.heard_from_leader

    def heard_from_leader(self: Raft, now: float, leader: int) -> None:
        real(self, now, leader)
        self.__dict__["has_heard"] = True

    patch.setattr(Raft, "heard_from_leader", heard_from_leader)
    patch.setattr(Role, "hears_leader", lambda self, now: "has_heard" in self.raft.__dict__)


@mutant(
    "E6 an append that must be rejected does not count as hearing the leader",
    tests=scripts("elections_E6_far_behind_stays_quiet"),
)
def _(patch: Patch) -> None:
    real = Follower.on_append_entries

    def on_append_entries(self: Follower, now: float, message: AppendEntries) -> None:
        deadline, heard_at = self.deadline, self.raft.heard_leader_at
        is_joined = self.raft.log.has(message.prev_index, message.prev_term)
        real(self, now, message)
        if not is_joined:
            self.deadline, self.raft.heard_leader_at = deadline, heard_at

    patch.setattr(Follower, "on_append_entries", on_append_entries)


@mutant("E8 pre-votes are granted although a leader is heard", tests=scripts("elections_E8_bridge"))
def _(patch: Patch) -> None:
    patch.setattr(Role, "hears_leader", lambda self, now: False)
    patch.setattr(Leader, "hears_leader", lambda self, now: False)


@mutant("E9 commands are taken during a transfer", tests=scripts("transfer_E9"))
def _(patch: Patch) -> None:
    real = Leader.refuses

    def refuses(self: Leader, *arguments: Any) -> Any:
        target, self.transfer_target = self.transfer_target, None
        try:
            return real(self, *arguments)
        finally:
            self.transfer_target = target

    patch.setattr(Leader, "refuses", refuses)


@mutant(
    "E10 the term of a reply is ignored",
    world="core",
    tests=scripts("elections_E10_returning_node_with_higher_term"),
)
def _(patch: Patch) -> None:
    real = Raft._enter_term_of

    def enter_term_of(self: Raft, now: float, message: Message) -> bool:
        if isinstance(message, HeartbeatReply | VoteReply):
            return False
        return real(self, now, message)

    patch.setattr(Raft, "_enter_term_of", enter_term_of)


@mutant(
    "E3 a pre-vote advances the term of who hears it",
    tests=scripts("elections_pre_vote_refused_while_leader_lives"),
)
def _(patch: Patch) -> None:
    real = Role.on_request_pre_vote

    def on_request_pre_vote(self: Role, now: float, message: RequestPreVote) -> None:
        real(self, now, message)
        raft = cast(Raft, self.raft)
        if message.term >= raft.term:
            raft.become_follower(now, message.term + 1, "a mutant")

    patch.setattr(Role, "on_request_pre_vote", on_request_pre_vote)


@mutant("E2 a node wins with the votes of an earlier term", world="core")
def _(patch: Patch) -> None:
    real = Raft.enter

    def enter(self: Raft, term: int) -> None:
        votes = self.votes
        real(self, term)
        self.votes = votes

    patch.setattr(Raft, "enter", enter)
