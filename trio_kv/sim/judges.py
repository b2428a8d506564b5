"""The judges of a run: the same in both worlds, wired to one another in one place."""

from collections.abc import Callable, Iterable, Sequence

from trio_kv.check.answers import Answers
from trio_kv.check.boundedness import Overdue
from trio_kv.check.commit_rule import CommitRule
from trio_kv.check.durability import Durability
from trio_kv.check.election_safety import ElectionSafety
from trio_kv.check.expiry import ExpiryRules
from trio_kv.check.former_selves import FormerSelves
from trio_kv.check.incarnations import Incarnations
from trio_kv.check.index_order import IndexOrder
from trio_kv.check.leader_append_only import LeaderAppendOnly
from trio_kv.check.leader_completeness import LeaderCompleteness
from trio_kv.check.log_matching import LogMatching
from trio_kv.check.match_index import MatchIndex
from trio_kv.check.monotonic import Monotonic
from trio_kv.check.read_rounds import ReadRounds
from trio_kv.check.state_machine_safety import StateMachineSafety
from trio_kv.check.term_growth import TermGrowth
from trio_kv.check.unique_values import UniqueValues
from trio_kv.check.up_to_date_vote import UpToDateVote
from trio_kv.check.watch import Judge, Watch
from trio_kv.raft.leader import Leader
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import Turns
from trio_kv.sim.coverage import OUTCOMES, Coverage
from trio_kv.wire.node_port import Answer, Done, Full, Refused

TERMS_MAX = 10
"""So many terms may begin after something was broken or mended."""
TERMS_MAX_TIED = 100
"""The same where votes are split again and again, as time-outs are nearly equal on purpose."""


class Judges:
    """All that look at a run step by step.

    Args:
        members: the nodes.
        is_tied: whether time-outs are nearly equal on purpose.
        is_unsteady: whether time-outs may be missed without end just now.
        now: the world's time, in seconds.
        leap_s: what cluster time may take of a leader's clock that leaps.
        are_values_unique: whether no client writes a value twice: then none may take effect twice.

    """

    def __init__(
        self,
        members: Sequence[int],
        *,
        is_tied: bool,
        is_unsteady: Callable[[], bool],
        now: Callable[[], float],
        leap_s: float,
        are_values_unique: bool = False,
    ) -> None:
        """Have seen nothing; see the class."""
        self._elections = ElectionSafety()
        self._commit_rule = CommitRule()
        self.chronicle = StateMachineSafety()
        """What was committed, and what came of it."""
        self.durability = Durability(members, self.chronicle.entries)
        self.answers = Answers(self.chronicle, self.durability)
        self._overdue = Overdue()
        self.expiry = ExpiryRules(now, leap_s)
        self.terms = TermGrowth(TERMS_MAX_TIED if is_tied else TERMS_MAX, is_unsteady)
        # Durability first: a promise that a crash would break is to be called that, and not what follows from it.
        judges: list[Judge] = [
            self.durability,
            self._elections,
            UpToDateVote(),
            Monotonic(),
            self.terms,
            LeaderAppendOnly(),
            LogMatching(),
            LeaderCompleteness(),
            MatchIndex(self.durability.shadows),
            Incarnations(self.durability.shadows),
            FormerSelves(),
            self._commit_rule,
            ReadRounds(members),
            self.chronicle,
            IndexOrder(self.chronicle.entries),
            self.expiry,
            *([UniqueValues(self.chronicle)] if are_values_unique else []),
        ]
        self.watch = Watch(judges, self.chronicle.entries)

    def cover(self, coverage: Coverage) -> None:
        """Count the situations that the judges came to see."""
        for (kind, code), count in self.chronicle.told.items():
            if f"{kind} {code}" in OUTCOMES:
                coverage.reach(f"{kind} {code}", count)
        coverage.reach("old entries committed by a no-op", self._commit_rule.old_term_commits)
        coverage.reach("retry answered from the session table", self.chronicle.retries_answered)
        coverage.reach("read between writes", self.answers.run_order.judged)
        coverage.reach("read lost its place", self.answers.run_order.lost)
        coverage.reach("unsynced data lost", self.durability.unsynced_lost)
        coverage.reach("split vote", self._elections.split_votes())
        coverage.reach("snapshot installed over a conflicting log", self.watch.conflicts_dropped)

    def judge_answer(self, answer: Answer, node: int, coverage: Coverage, *, is_leader: bool) -> None:
        """Judge what a node answered, and count what it shows.

        Raises:
            Violation: it can't be true.

        """
        if not isinstance(answer, Done):
            if isinstance(answer, Full):
                coverage.reach("read_only answered")
            self.answers.no_answer(answer.number, node, is_refused=isinstance(answer, Full | Refused))
            return
        is_read = self.answers.answered(answer.number, node, answer.applied, answer.replies)
        if is_read and not is_leader:
            coverage.reach("read answered by a follower")
        if any(reply.code == "session_expired" for reply in answer.replies):
            coverage.reach("session expired")

    def judge_waiting(self, now: float, replica: Replica, turns: Turns, living: Iterable[Replica]) -> None:
        """Judge after a step of a node whether a snapshot of it that is due waits for somebody who does nothing.

        Raises:
            Violation: it does.

        """
        if not replica.snapshots.is_waiting:
            self._overdue.stepped(now, replica.id, is_waiting=False, waits_for=())
        elif replica.snapshots.is_due:
            holder = next((each for each in living if each.id == turns.holder), None)
            turn = None if holder is None else (holder.snapshots.progress, holder.snapshots.stored)
            self._overdue.stepped(now, replica.id, is_waiting=True, waits_for=("turn", turns.holder, turn))
        else:
            role = replica.raft.role
            progress = role.progress if isinstance(role, Leader) else {}
            sent = [
                (peer, each.install.snapshot, each.install.number)
                for peer, each in progress.items()
                if each.install is not None
            ]
            self._overdue.stepped(now, replica.id, is_waiting=True, waits_for=("sent", *sent))
