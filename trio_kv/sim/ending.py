"""The two phases of a run in both worlds: faults happen as planned, and then the cluster must serve again.

In the first phase only safety is judged. Then everything is healed (invariants I21, I25, I26, I27). Within bounds of
simulated time all follow one leader, a write and a read succeed, every request has its answer, and all nodes hold the
same. Where majorities of the disks may be lost none of that is asked for. The run goes on for a while all the same, so
that the judges see what comes of what is left.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from trio_kv.check.boundedness import require_bounded
from trio_kv.check.convergence import has_converged, require_equal
from trio_kv.check.exchange import Exchange
from trio_kv.check.history import Operation
from trio_kv.check.linearizability import check_history
from trio_kv.check.queues import left_waiting
from trio_kv.check.replay_log import judge_log
from trio_kv.check.term_growth import require_quiet
from trio_kv.check.violation import Violation
from trio_kv.sim.drive import Drive
from trio_kv.sim.host import Host
from trio_kv.sim.injector import Injector
from trio_kv.sim.plan import Plan
from trio_kv.sim.result import Result

LEADER_WITHIN_ELECTIONS = 20
"""After healing a leader is followed by all within so many election time-outs."""
LEADER_WITHIN_ELECTIONS_TIED = 150
"""The same where time-outs are drawn nearer to each other than a message takes, against the paper's advice (§5.6), and
no vote may be missing: each election is a toss of dice that the nodes cast together."""
AFTERMATH_ELECTIONS = 20
"""So many election time-outs a run goes on that must not end well."""


class PlannedWorld(Host):
    """A world to which happens what is planned, and which is healed and judged in the end."""

    drives: Mapping[int, Drive]
    """Each node's, over all its lives."""
    injector: Injector
    slack_s = 0.0
    """How much longer than in the core world it may take until clients are served."""

    @abstractmethod
    def run(self) -> Result:
        """Run both phases, see `live`.

        Raises:
            Violation: a judge found something.

        """

    @abstractmethod
    def mend(self) -> None:
        """Mend all that can be mended, and start what can be started."""

    @abstractmethod
    async def probe(self, within_s: float) -> None:
        """Write and read something.

        Raises:
            Violation: it takes too long.

        """

    @abstractmethod
    async def end_clients(self, within_s: float | None) -> None:
        """Let the clients end what they have begun, within so long if that is asked for."""

    @abstractmethod
    def told(self) -> Sequence[Operation]:
        """Return what all clients asked of registers and were told."""

    @abstractmethod
    def told_of_family(self) -> Sequence[Exchange]:
        """Return what all clients asked of the family and were told."""

    def is_led(self) -> bool:
        """Return whether all nodes that live follow one leader, and are a majority."""
        leader, rafts = self.leading(), [each.raft for each in self.living()]
        if leader is None or not leader.raft.voters.has_majority([raft.id for raft in rafts]):
            return False
        return all((raft.term, raft.leader) == (leader.raft.term, leader.id) for raft in rafts)

    def is_at_rest(self) -> bool:
        """Return whether all nodes that live hold the same, and nothing is left to do, in them or their disks."""
        living = self.living()
        if any(drive.timed is not None and not drive.timed.is_idle for drive in self.drives.values()):
            return False
        if any(each.raft.is_rebuilding or each.snapshots.is_taking or each.has_more for each in living):
            return False
        nodes = [each.id for each in living]
        if any(left_waiting(each.raft, each.requests_waiting, nodes) for each in living):
            return False
        return has_converged([each.raft for each in living], [each.machine for each in living])

    def has_nothing_due(self) -> bool:
        """Return whether a node leads that holds no key and no session whose time has come."""
        leader = self.leading()
        if leader is None:
            return False
        due_us = leader.machine.expires_at_us
        return due_us is None or due_us > leader.machine.known_time_us

    def begin(self) -> None:
        """Plan the faults."""
        for fault in self.plan.faults:
            self.after(fault.at_s, self.injector.happen, fault)

    async def live(self) -> Result:
        """Let happen what is planned, then heal everything and judge what comes of it.

        Raises:
            Violation: a judge found something.

        """
        self.begin()
        await self.sleep(self.plan.fault_phase_s)
        return await self.heal_and_judge()

    async def heal_and_judge(self) -> Result:
        """Heal everything, and judge what comes of it.

        Raises:
            Violation: a judge found something.

        """
        recovered_after_s = 0.0
        self.is_healed = True
        self.injector.stop()
        self.terms.disturbed()
        self.mend()
        if self.plan.is_beyond_budget:
            await self.sleep(AFTERMATH_ELECTIONS * self.plan.raft.election_timeout_max_s)
            await self.end_clients(None)
        else:
            recovered_after_s = await self._require_service()
        self._judge_end()
        return self.result(recovered_after_s)

    async def _require_service(self) -> float:
        """Go on until the cluster serves again; return how long it took until all followed one leader."""
        plan = self.plan
        recovered_after_s = await self.wait_until("all follow one leader", leader_within_s(plan), self.is_led)
        leader = self.leading()
        assert leader is not None
        term = leader.raft.term
        work_s = 20 * plan.client_timeout_s + 200 * (plan.disk_s + plan.latency_s)
        within_s = 10 * plan.raft.election_timeout_max_s + work_s + self.slack_s
        await self.probe(within_s)
        await self.end_clients(2 * within_s)
        # Attempts that were given up may still be on their way; they too are answered by whoever takes them.
        await self.wait_until("all requests are answered", within_s, lambda: not self.answers.under_way())
        await self.wait_until("all nodes hold the same, and nothing waits in them", within_s, self.is_at_rest)
        # Keys end one after the other: at a moment when nothing is due, all nodes must know it.
        await self.wait_until(
            "what is due ends", 1.0 + within_s, lambda: self.has_nothing_due() and self.is_at_rest()
        )
        # Nobody deposes a leader that works, but for a transfer that was under way when all was healed. Where time-outs
        # are nearly equal on purpose, votes are split a few times.
        require_quiet([each.raft for each in self.living()], term, 8 if plan.is_tied else 2)
        return recovered_after_s

    def _judge_end(self) -> None:
        """Judge what every node holds in the end, and let two oracles judge what the clients saw.

        Raises:
            Violation: a node holds something else than it should, or too much; or no order explains the history.

        """
        if not self.plan.is_beyond_budget:
            living = self.living()
            require_equal([each.machine for each in living], self.chronicle.reference)
            for replica in living:
                files, raft = self.drives[replica.id].files, replica.raft
                sizes = {name: files.size(name) for name in files.names()}
                require_bounded(replica.id, sizes, raft.log, raft.term, self.plan.segment_bytes)
        verdict = check_history(self.told())
        if not verdict.is_valid:
            raise Violation(verdict.words)
        replayed = judge_log(
            self.told_of_family(),
            self.chronicle.changes_of(self.family.prefix),
            self.chronicle.expiries(),
            rate=self.judges.expiry.rate,
        )
        if replayed.outcome != "valid":
            raise Violation(replayed.words)


def leader_within_s(plan: Plan) -> float:
    """Return how long it may take, in seconds, until all follow one leader after everything was healed."""
    elections = LEADER_WITHIN_ELECTIONS_TIED if plan.is_tied else LEADER_WITHIN_ELECTIONS
    return elections * plan.raft.election_timeout_max_s + 50 * (plan.disk_s + plan.latency_s)
