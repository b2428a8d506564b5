"""What both worlds are: one run of one plan, with its chance, its time, its judges and its trace."""

import hashlib
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from random import Random
from typing import Any

from trio_kv.check.told.jury import Jury
from trio_kv.check.violation import Violation
from trio_kv.raft.events import DEBUG, INFO, Event
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import Turns
from trio_kv.sim.coverage import Coverage
from trio_kv.sim.families import Family
from trio_kv.sim.judges import Judges
from trio_kv.sim.pipes import PipedLinks
from trio_kv.sim.plan import INBOX_MAX, Plan
from trio_kv.sim.result import Result
from trio_kv.trace.trace import Record
from trio_kv.transport.links import LinkFault
from trio_kv.wire.node_port import Answer

LOOK_S = 0.02
"""How often the end of a run looks whether something is true yet."""
PACK = struct.Struct("<dBBQQQ").pack
"""Packs one step for the hash of the trace."""


class Host(ABC):
    """A world, as its parts see it.

    Args:
        plan: all that the run depends on.
        tell: takes a line for each thing that happens, for people.
        are_values_unique: whether no client writes a value twice.

    """

    links: PipedLinks
    """Those between the nodes."""

    def __init__(
        self, plan: Plan, tell: Callable[[str], None] | None, *, are_values_unique: bool = False
    ) -> None:
        """Let nothing happen yet; see the class."""
        self.plan = plan
        self.random = Random(plan.seed ^ 0x5EED)
        """Draws what is not in the plan."""
        self.members = tuple(range(1, plan.nodes + 1))
        self.family = Family("s/")
        """Keys that all kinds of requests are about, those that take several keys at once among them."""
        self.coverage = Coverage()
        self.is_told = tell is not None
        """Whether a person is told what happens."""
        self.events_level = INFO if tell is None else DEBUG
        self.is_healed = False
        """Whether no fault may happen any more."""
        self.crashes = 0
        self.transfers: set[int] = set()
        """Nodes that were to take over, and did not yet."""
        self.reached_s = 0.0
        """The time of the last step of a node, also for who looks at a run that is over."""
        self.trace = hashlib.blake2b(digest_size=16)
        """Takes all steps."""
        self._tell = tell
        self.jury = None if tell is None else Jury()
        """Judges the events, where they are told."""
        self._events_told = 0
        judges = self.judges = Judges(
            self.members,
            is_tied=plan.is_tied,
            is_unsteady=self._is_unsteady,
            now=lambda: self.now,
            leap_s=plan.raft.heartbeat_interval_s + plan.raft.election_timeout_max_s,
            are_values_unique=are_values_unique,
        )
        self.chronicle, self.durability, self.terms = judges.chronicle, judges.durability, judges.terms
        self.answers, self.watch = judges.answers, judges.watch

    # Time

    @property
    @abstractmethod
    def now(self) -> float:
        """The world's time, in seconds."""

    @abstractmethod
    def after(self, delay_s: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Let something happen later."""

    @abstractmethod
    async def sleep(self, for_s: float) -> None:
        """Let time pass."""

    async def wait_until(self, what: str, within_s: float, is_true: Callable[[], bool]) -> float:
        """Go on until something is true; return how long that took.

        Raises:
            Violation: it takes too long.

        """
        began_s = self.now
        while not is_true():
            self.require_in_time(what, within_s, began_s)
            await self.sleep(LOOK_S)
        return self.now - began_s

    def require_in_time(self, what: str, within_s: float, began_s: float) -> None:
        """Require that something that began then has not taken too long yet.

        Raises:
            Violation: it has.

        """
        if self.now - began_s > within_s:
            raise Violation(f"{what}: not within {within_s:.2f} s after {began_s:.2f} s; {self.describe()}")

    def say(self, line: str) -> None:
        """Tell a person what happens."""
        if self._tell is not None:
            self._tell(f"{self.now:.6f} {line}")

    def tell_event(
        self, event: Event, node: int | None = None, term: int | None = None, role: str | None = None
    ) -> None:
        """Tell a person, and the judges of events, what the cluster tells of itself.

        Raises:
            Violation: it can't be.

        """
        if self._tell is None:
            return
        self._events_told += 1
        who = "" if node is None else f"n{node}@{term or 0} "
        self.say(f"{who}{event.name} {event}")
        if self.jury is not None:
            self.jury.hear(Record(self.now, self.now, self._events_told, event, node, term, role))

    # Nodes

    @abstractmethod
    def replica(self, node: int) -> Replica | None:
        """Return a node's replica; None while the node is down."""

    def living(self) -> list[Replica]:
        """Return the replicas that are up."""
        replicas = (self.replica(node) for node in self.members)
        return [replica for replica in replicas if replica is not None]

    def leading(self) -> Replica | None:
        """Return the living leader of the highest term."""
        leaders = [replica for replica in self.living() if replica.raft.is_leader]
        return max(leaders, key=lambda replica: replica.raft.term, default=None)

    def stepped(self, replica: Replica, turns: Turns) -> None:
        """Put a node's step into the trace, and judge what it left."""
        self.reached_s = now = self.now
        raft = replica.raft
        self.trace.update(PACK(now, raft.id, raft.is_leader, raft.term, raft.log.last_index, raft.commit))
        self.judges.judge_waiting(now, replica, turns, self.living())

    def judge_answer(self, answer: Answer, node: int) -> None:
        """Judge what a node answered."""
        replica = self.replica(node)
        is_leader = replica is not None and replica.raft.is_leader
        self.judges.judge_answer(answer, node, self.coverage, is_leader=is_leader)

    def node_died(self, node: int) -> None:
        """Note that what a node had taken gets no answer any more."""
        self.terms.disturbed()
        self.watch.crashed(node)
        self.answers.died(node)

    def describe(self) -> str:
        """Return where all nodes stand, in one line."""
        return "; ".join(f"n{node} {self._describe(node)}" for node in self.members)

    def _describe(self, node: int) -> str:
        replica = self.replica(node)
        if replica is None:
            return self.state(node)
        raft = replica.raft
        return (
            f"{raft.role.name}@{raft.term} leader={raft.leader} last={raft.log.last_index}@{raft.log.last_term}"
            f" durable={raft.log.durable} commit={raft.commit} applied={replica.machine.applied}"
        )

    def state(self, node: int) -> str:
        """Return in what state a node is that does not run."""
        del node
        return "down"

    @abstractmethod
    def is_slow(self, node: int) -> bool:
        """Return whether a node is so slow, or its disk is, that it may lose its followers again and again."""

    def _is_unsteady(self) -> bool:
        """Return whether messages, timers or disks are so late just now that elections follow on one another."""
        return not self.is_healed and (
            bool(self.plan.stragglers or self.links.pipes or self.plan.inbox_max < INBOX_MAX)
            or self.links.fault() != LinkFault()
            or any(self.is_slow(node) for node in self.members)
        )

    # The end

    @property
    @abstractmethod
    def events(self) -> int:
        """How many events there were."""

    @property
    @abstractmethod
    def operations(self) -> int:
        """How many operations of clients there were."""

    def result(self, recovered_after_s: float) -> Result:
        """Return what the run came to; it must be the last call.

        Args:
            recovered_after_s: how long it took, once all was mended, until all followed one leader.

        """
        self.judges.cover(self.coverage)
        for replica in self.living():
            machine = replica.machine
            state = machine.applied, machine.entries_digest, machine.state_digest
            self.trace.update(PACK(self.now, replica.id, 0, *state))
        return Result(
            trace_hash=self.trace.hexdigest(),
            events=self.events,
            operations=self.operations,
            crashes=self.crashes,
            simulated_s=self.now,
            recovered_after_s=recovered_after_s,
            coverage=self.coverage,
        )
