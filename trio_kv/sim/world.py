"""The cluster of the core world: replicas, disks, links and clients, driven by one heap of events.

No Trio, no clock, no thread. One `random.Random(seed)` decides everything, and events of one moment happen in the order
in which they were made, so a seed always gives the same run. The judges of `check` look after each step.
"""

import heapq
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any, TypeVar

from trio_kv.check.exchange import Exchange
from trio_kv.check.history import Operation
from trio_kv.check.violation import Violation
from trio_kv.check.watch_order import WatchOrder
from trio_kv.raft.messages import Message
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import SNAPSHOT_LEASE_S, Turns
from trio_kv.sim.clients import Client, Port
from trio_kv.sim.core_injector import CoreInjector
from trio_kv.sim.histories import exchanges_of, operations_of
from trio_kv.sim.host import PACK
from trio_kv.sim.network import Network
from trio_kv.sim.node import NodeHost, SimulatedNode
from trio_kv.sim.plan import Plan
from trio_kv.sim.result import Result
from trio_kv.sim.watchers import WATCHERS, Watcher, WatcherPort
from trio_kv.trace.vocabulary import ClusterStarted
from trio_kv.wire.node_port import Answer, Propose, Read, ReplyTo

EVENTS_MAX = 400_000
"""A run with more events is a storm: something goes round in circles."""
_T = TypeVar("_T")


class World(NodeHost):
    """A cluster and its clients."""

    now = 0.0
    events = 0

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None = None) -> None:
        """Let all nodes be down.

        Args:
            plan: all that the run depends on.
            tell: takes a line for each thing that happens, for people.

        """
        super().__init__(plan, tell)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._number = 0
        self.cluster = f"{self.random.getrandbits(128):032x}"
        self.turns = Turns(SNAPSHOT_LEASE_S)
        self.network = Network(self, self.deliver)
        self.links = self.network.links
        self.nodes = {id: SimulatedNode(self, id) for id in self.members}
        self.drives = {id: node.drive for id, node in self.nodes.items()}
        port = Port(lambda: self.now, self.after, self.request, self._next_number)
        self.clients = [
            Client(name, plan, Random(self.random.getrandbits(64)), port, self.family)
            for name in range(plan.clients + 1)
        ]
        """Client 0 only probes."""
        self.watchers = self._make_watchers()
        self.injector = CoreInjector(self)

    def _make_watchers(self) -> dict[int, Watcher]:
        """Return the watchers, by the process that each seems to be in."""
        plan = self.plan
        port = WatcherPort(self.after, lambda node, pull: self.nodes[node].post(pull), self.coverage)
        made: list[Watcher] = []
        for number in range(WATCHERS):
            order = WatchOrder(f"w{number}", "", is_prefix=True, chronicle=self.chronicle)
            random = Random(f"{plan.seed}/watch/{number}")
            watcher = Watcher(
                number, nodes=plan.nodes, latency_s=plan.latency_s, random=random, port=port, order=order
            )
            made.append(watcher)
        return {watcher.reply_to.process: watcher for watcher in made}

    def run(self) -> Result:
        """Run both phases.

        Raises:
            Violation: a judge found something.

        """
        return _outcome(self.live())

    def finish(self) -> Result:
        """Run the second phase, see `run`."""
        return _outcome(self.heal_and_judge())

    def run_until_true(self, what: str, within_s: float, is_true: Callable[[], bool]) -> float:
        """Go on until something is true; see `wait_until`."""
        return _outcome(self.wait_until(what, within_s, is_true))

    def begin(self) -> None:
        """Start all nodes and clients, and plan the faults."""
        self.tell_event(ClusterStarted(self.cluster, self.members, self.members))
        for node in self.nodes.values():
            node.start()
        self.clients[0].stop()
        for client in self.clients[1:]:
            client.start()
        for watcher in self.watchers.values():
            watcher.start()
        super().begin()

    # Time

    def at(self, time_s: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Let something happen at a time."""
        self._order += 1
        heapq.heappush(self._heap, (time_s, self._order, callback, arguments))

    def after(self, delay_s: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Let something happen later."""
        self.at(self.now + delay_s, callback, *arguments)

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

    async def sleep(self, for_s: float) -> None:
        """Let time pass: nobody waits for that, it is over when this returns."""
        self.run_until(self.now + for_s)

    def deliver(self, message: Message) -> None:
        """Let a message arrive."""
        if self.is_told:
            self.say(f"{message}")
        self.nodes[message.target].post(message)

    # Clients

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def request(self, target: int, request: Propose | Read) -> None:
        """Let a client's request be on its way."""
        if isinstance(request, Propose):
            self.answers.asked_to_write(request.number, target, request.commands, request.queries)
        else:
            self.answers.asked_to_read(request.number, target, request.queries)
        self.after(
            self.plan.latency_s * self.random.uniform(0.5, 2.0), self._deliver_request, target, request
        )

    def _deliver_request(self, target: int, request: Propose | Read) -> None:
        if self.is_told:
            self.say(f"c{request.reply_to.process} -> n{target} {request}")
        node = self.nodes[target]
        if node.has_room:
            self.answers.taken(request.number)
            node.post(request)
        else:
            self.answers.given_up(request.number)

    def answer(self, node: int, reply_to: ReplyTo, answer: Answer) -> None:
        """Judge an answer, and let it be on its way to the client or get lost."""
        watcher = self.watchers.get(reply_to.process)
        if watcher is not None:
            watcher.deliver(answer)
            return
        self.judge_answer(answer, node)
        self.trace.update(PACK(self.now, node, 255, answer.number, 0, 0))
        if self.is_told:
            self.say(f"n{node} -> c{reply_to.process} {answer}")
        if self.is_healed or self.random.random() >= self.plan.answer_loss:
            take = self.clients[reply_to.process].take
            self.after(self.plan.latency_s * self.random.uniform(0.5, 2.0), take, answer)

    @property
    def operations(self) -> int:
        """How many answers were judged."""
        return self.answers.judged

    def told(self) -> Sequence[Operation]:
        """Return what all clients asked and were told."""
        return [
            operation
            for client in self.clients
            for asked in client.history
            for operation in operations_of(client.name, asked)
        ]

    def told_of_family(self) -> Sequence[Exchange]:
        """Return what all clients asked of the family and were told."""
        return [
            exchange
            for client in self.clients
            for asked in client.history
            if asked.is_of_family
            for exchange in exchanges_of(client.name, asked)
        ]

    async def probe(self, within_s: float) -> None:
        """Write and read something at each node, in a new session."""
        prober, leader = self.clients[0], self.leader()
        assert leader is not None
        opened = prober.probe(leader.id, "", "open")
        await self.wait_until("a new session", within_s, lambda: opened.ended_at_s is not None)
        probes = [prober.probe(node.id, "k0", kind) for node in self.living() for kind in ("set", "get")]
        await self.wait_until(
            "a write and a read at each node",
            within_s,
            lambda: all(each.ended_at_s is not None for each in probes),
        )

    async def end_clients(self, within_s: float | None) -> None:
        """Let the clients end what they have begun, within so long if that is asked for."""
        for client in self.clients:
            client.stop()
        if within_s is None:
            await self.sleep(1.0)
        else:
            await self.wait_until(
                "all operations end", within_s, lambda: all(each.is_idle for each in self.clients)
            )
            await self.wait_until(
                "all is told to who watches",
                within_s,
                lambda: all(each.order.is_complete for each in self.watchers.values()),
            )
        for watcher in self.watchers.values():
            watcher.stop()

    # Nodes

    def replica(self, node: int) -> Replica | None:
        """Return a node's replica; None while the node is down."""
        return self.nodes[node].replica

    def leader(self) -> SimulatedNode | None:
        """Return the living leader of the highest term."""
        leader = self.leading()
        return None if leader is None else self.nodes[leader.id]

    def is_slow(self, node: int) -> bool:
        """Return whether a node is so slow, or its disk is, that it may lose its followers again and again."""
        slow = self.nodes[node]
        return slow.clock.rate != 1.0 or bool(slow.step_s) or slow.drive.is_slow

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

    def _restart(self, node: SimulatedNode, life: int, interruptions: int) -> None:
        if node.life == life and node.may_start:
            self.say(f"n{node.id} starts")
            self.terms.disturbed()
            node.start(interruptions)

    def mend(self) -> None:
        """Mend all that can be mended, and start what can be started."""
        self.links.heal()
        self.network.in_next_install = None
        for node in self.nodes.values():
            node.step_s = 0.0
            node.set_rate(1.0)
            node.drive.mend()
            node.resume()
            if node.may_start:
                node.start()

    def result(self, recovered_after_s: float) -> Result:
        """Return what the run came to; arguments as for `Host`."""
        for client in self.clients:
            for operation in client.history:
                self.trace.update(str(operation).encode())
        return super().result(recovered_after_s)


def _outcome(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Return what becomes of a coroutine that waits for nothing: in this world time passes while it runs."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        outcome: _T = end.value
        return outcome
    raise AssertionError("the core world waits for nobody")
