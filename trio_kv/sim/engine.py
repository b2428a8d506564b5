"""The cluster of the core world: replicas, disks, links and clients, driven by one heap of events.

No Trio, no clock, no thread. One `random.Random(seed)` decides everything, and events of one moment happen in the order
in which they were made, so a seed always gives the same run. The judges of `check` look after each step.
"""

import hashlib
import heapq
import struct
from collections.abc import Callable
from random import Random
from typing import Any

from trio_kv.check.violation import Violation
from trio_kv.raft.events import DEBUG, INFO, Event
from trio_kv.raft.messages import Message
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import SNAPSHOT_LEASE_S, Turns
from trio_kv.sim.clients import Client, Port
from trio_kv.sim.coverage import Coverage
from trio_kv.sim.judges import Judges, judge_answer, judge_waiting
from trio_kv.sim.network import Network
from trio_kv.sim.node import SimulatedNode
from trio_kv.sim.plan import INBOX_MAX, Plan
from trio_kv.sim.result import describe
from trio_kv.transport.links import LinkFault
from trio_kv.wire.node_port import Answer, Propose, Read, ReplyTo

EVENTS_MAX = 400_000
"""A run with more events is a storm: something goes round in circles."""
_PACK = struct.Struct("<dBBQQQ").pack
_LOOK_S = 0.02
"""How often the liveness phase looks whether it is there yet."""


class Engine:
    """A cluster and its clients, to whom nothing happens yet but time."""

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None = None) -> None:
        """Let all nodes be down.

        Args:
            plan: all that the run depends on.
            tell: takes a line for each thing that happens, for people.

        """
        self.plan = plan
        self.random = Random(plan.seed ^ 0x5EED)
        self.now = 0.0
        self.events = 0
        self.members = tuple(range(1, plan.nodes + 1))
        self.coverage = Coverage()
        self.events_level = INFO if tell is None else DEBUG
        self._tell = tell
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._hash = hashlib.blake2b(digest_size=16)
        self.crashes = 0
        self._number = 0
        self.transfers: set[int] = set()
        """Nodes that were to take over, and did not yet."""
        self.is_healed = False
        self.cluster = f"{self.random.getrandbits(128):032x}"
        self.turns = Turns(SNAPSHOT_LEASE_S)

        judges = self.judges = Judges(self.members, is_tied=plan.is_tied, is_unsteady=self._is_unsteady)
        self.chronicle, self.durability, self.terms = judges.chronicle, judges.durability, judges.terms
        self.answers, self.watch = judges.answers, judges.watch
        self.network = Network(self)
        self.links = self.network.links
        self.nodes = {id: SimulatedNode(self, id) for id in self.members}
        port = Port(lambda: self.now, self.after, self.request, self._next_number)
        self.clients = [
            Client(name, plan, Random(self.random.getrandbits(64)), port) for name in range(plan.clients + 1)
        ]
        """Client 0 only probes."""

    # Time

    def at(self, time_s: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Let something happen at a time."""
        self._order += 1
        heapq.heappush(self._heap, (time_s, self._order, callback, arguments))

    def after(self, delay_s: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Let something happen later."""
        self.at(self.now + delay_s, callback, *arguments)

    def say(self, line: str) -> None:
        """Tell a person what happens."""
        if self._tell is not None:
            self._tell(f"{self.now:.6f} {line}")

    def run_until(self, end_s: float) -> None:
        """Let happen what is due until then."""
        heap = self._heap
        pop = heapq.heappop
        while heap and heap[0][0] <= end_s:
            self.now, _, callback, arguments = pop(heap)
            self.events += 1
            if self.events > EVENTS_MAX:
                raise Violation(f"a storm: {self.events} events by {self.now:.3f} s; {self.describe()}")
            callback(*arguments)
        self.now = end_s

    def run_until_true(self, what: str, within_s: float, is_true: Callable[[], bool]) -> float:
        """Go on until something is true; return how long that took.

        Raises:
            Violation: it takes too long.

        """
        began_s = self.now
        while not is_true():
            if self.now - began_s > within_s:
                raise Violation(
                    f"{what}: not within {within_s:.2f} s after {began_s:.2f} s; {self.describe()}"
                )
            self.run_until(self.now + _LOOK_S)
        return self.now - began_s

    def describe(self) -> str:
        """Return where all nodes stand."""
        return "; ".join(
            f"n{node.id} {'down' if node.replica is None else describe(node.replica)}"
            for node in self.nodes.values()
        )

    def deliver(self, message: Message) -> None:
        """Let a message arrive."""
        if self._tell is not None:
            self._tell(f"{self.now:.6f} {message}")
        self.nodes[message.target].post(message)

    # Clients

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def request(self, target: int, request: Propose | Read) -> None:
        """Let a client's request be on its way."""
        if isinstance(request, Propose):
            self.answers.asked_to_write(request.number, target, request.commands)
        else:
            self.answers.asked_to_read(request.number, target, request.queries)
        self.after(
            self.plan.latency_s * self.random.uniform(0.5, 2.0), self._deliver_request, target, request
        )

    def _deliver_request(self, target: int, request: Propose | Read) -> None:
        if self._tell is not None:
            self._tell(f"{self.now:.6f} c{request.reply_to.process} -> n{target} {request}")
        node = self.nodes[target]
        if node.has_room:
            self.answers.taken(request.number)
            node.post(request)
        else:
            self.answers.given_up(request.number)

    def answer(self, node: SimulatedNode, reply_to: ReplyTo, answer: Answer) -> None:
        """Judge an answer, and let it be on its way to the client or get lost."""
        is_leader = node.replica is not None and node.replica.raft.is_leader
        judge_answer(self.answers, self.coverage, answer, node.id, is_leader=is_leader)
        self._hash.update(_PACK(self.now, node.id, 255, answer.number, 0, 0))
        if self._tell is not None:
            self._tell(f"{self.now:.6f} n{node.id} -> c{reply_to.process} {answer}")
        if self.is_healed or self.random.random() >= self.plan.answer_loss:
            take = self.clients[reply_to.process].take
            self.after(self.plan.latency_s * self.random.uniform(0.5, 2.0), take, answer)

    # What nodes tell

    def stepped(self, node: SimulatedNode, replica: Replica) -> None:
        """Put a step into the trace."""
        raft = replica.raft
        self._hash.update(
            _PACK(self.now, node.id, raft.is_leader, raft.term, raft.log.last_index, raft.commit)
        )
        judge_waiting(self.judges.overdue, self.now, replica, self.turns, self.living())

    def told(self, node: SimulatedNode, event: Event) -> None:
        """Hear of an event of the core."""
        if self._tell is not None:
            assert node.replica is not None
            self._tell(f"{self.now:.6f} n{node.id}@{node.replica.raft.term} {event.name} {event}")

    def node_died(self, node: SimulatedNode) -> None:
        """Note that what a node had taken gets no answer any more."""
        self.say(f"n{node.id} dies")
        self.terms.disturbed()
        self.watch.crashed(node.id)
        self.answers.died(node.id)

    # Faults

    def leader(self) -> SimulatedNode | None:
        """Return the living leader of the highest term."""
        best: SimulatedNode | None = None
        best_term = -1
        for node in self.nodes.values():
            if (
                node.replica is not None
                and node.replica.raft.is_leader
                and node.replica.raft.term > best_term
            ):
                best, best_term = node, node.replica.raft.term
        return best

    def crash(self, node: SimulatedNode, for_s: float, *, is_answered: bool, interruptions: int) -> None:
        """Let power fail at a node, and come back later; nothing happens to one that is down."""
        if not node.is_up:
            return
        self.crashes += 1
        node.crash(is_answered=is_answered)
        self.restart_later(node, for_s, interruptions)

    def restart_later(self, node: SimulatedNode, for_s: float, interruptions: int = 0) -> None:
        """Let a node that is down come back."""
        self.after(for_s, self._restart, node, node.life, interruptions)

    def incarnations(self) -> dict[int, int]:
        """Return the incarnations of all nodes, as the manifest has them."""
        return {node.id: node.incarnation for node in self.nodes.values()}

    def _restart(self, node: SimulatedNode, life: int, interruptions: int) -> None:
        if node.life == life and node.may_start:
            self.say(f"n{node.id} starts")
            self.terms.disturbed()
            node.start(interruptions)

    # The end

    def living(self) -> list[Replica]:
        """Return the replicas that are up."""
        return [node.replica for node in self.nodes.values() if node.replica is not None]

    def _is_unsteady(self) -> bool:
        """Return whether messages, timers or disks are so late just now that elections follow on one another."""
        network, nodes = self.network, self.nodes.values()
        return not self.is_healed and (
            bool(self.plan.stragglers or network.pipes or self.plan.inbox_max < INBOX_MAX)
            or network.links.fault() != LinkFault()
            or any(node.is_unsteady for node in nodes)
        )

    def trace_hash(self) -> str:
        """Return the hash over all steps, once; it must be the last call."""
        for client in self.clients:
            for operation in client.history:
                self._hash.update(str(operation).encode())
        for replica in self.living():
            machine = replica.machine
            state = machine.applied, machine.entries_digest, machine.state_digest
            self._hash.update(_PACK(self.now, replica.id, 0, *state))
        return self._hash.hexdigest()
