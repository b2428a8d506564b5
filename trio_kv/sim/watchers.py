"""Watchers of the core world: each draws all changes from the nodes, as a gateway does, and never from one alone.

They take turns among the nodes, so that what one of them tells has to join what another one told. Each has a random
source of its own: they change nothing that the other clients draw.
"""

from collections.abc import Callable
from itertools import groupby
from random import Random

import attrs

from trio_kv.check.violation import Violation
from trio_kv.check.watch_order import WatchOrder
from trio_kv.sim.coverage import Coverage
from trio_kv.wire.node_port import Answer, Batch, Gone, Pull, ReplyTo

WATCHERS = 2
FIRST_PROCESS = 1_000_000
"""As the first of them names itself."""
PATIENCE_S = 1.0
STAY = 0.7
"""How often one that was answered asks the same node again."""
LOSS = 0.05
"""How many pulls and answers get lost."""


@attrs.frozen
class WatcherPort:
    """What a watcher can do."""

    after: Callable[..., None]
    """(delay_s, callback, *arguments)."""
    post: Callable[[int, Pull], None]
    """Gives a pull to a node that runs, if it has room."""
    coverage: Coverage


class Watcher:
    """Draws all changes, behind the ones that it knows."""

    def __init__(
        self,
        number: int,
        *,
        nodes: int,
        latency_s: float,
        random: Random,
        port: WatcherPort,
        order: WatchOrder,
    ) -> None:
        """Know nothing; `start` begins."""
        self.order = order
        self.reply_to = ReplyTo(FIRST_PROCESS + number, 1)
        self._nodes = nodes
        self._latency_s = latency_s
        self._random = random
        self._port = port
        self._number = 0
        self._node = 1
        self._gone: set[int] = set()
        """Nodes that don't have what comes next."""
        self._silent: set[int] = set()
        """Nodes that were asked for it and said nothing: they may be down for good."""
        self._is_stopping = False

    def start(self) -> None:
        """Begin soon."""
        self._port.after(self._random.random(), self._pull)

    def stop(self) -> None:
        """Ask for nothing more."""
        self._is_stopping = True

    def deliver(self, answer: Answer) -> None:
        """Let an answer be on its way, or get lost."""
        if self._random.random() >= LOSS:
            self._port.after(self._draw_latency_s(), self._take, answer)

    def _pull(self) -> None:
        if self._is_stopping:
            return
        self._number += 1
        if self._random.random() >= STAY:
            self._node = self._random.randint(1, self._nodes)
        if self._random.random() >= LOSS:
            pull = Pull(self.reply_to, self._number, self.order.position)
            self._port.after(self._draw_latency_s(), self._port.post, self._node, pull)
        self._port.after(PATIENCE_S, self._retry, self._number)

    def _retry(self, number: int) -> None:
        if number == self._number:
            self._silent.add(self._node)
            self._node = self._node % self._nodes + 1
            self._pull()

    def _take(self, answer: Answer) -> None:
        if answer.number != self._number:
            return
        order = self.order
        if isinstance(answer, Batch):
            if answer.after != order.position:
                raise Violation(f"n{answer.node} told of what is behind {answer.after}, not {order.position}")
            for revision, group in groupby(answer.changes, lambda each: each.revision):
                events = [
                    (each.kind, each.key, None if each.value is None else bytes(each.value)) for each in group
                ]
                order.told(revision, sorted(events, key=lambda event: event[1]))
            order.progressed(answer.upto)
            self._forget()
            if answer.changes:
                self._port.coverage.reach("changes told")
        elif isinstance(answer, Gone):
            if answer.after <= order.position:
                raise Violation(
                    f"n{answer.node} has all behind {answer.after}, and not behind {order.position}"
                )
            self._port.coverage.reach("history gone at a node")
            self._gone.add(answer.node)
            self._node = self._node % self._nodes + 1
            if len(self._gone | self._silent) == self._nodes:
                order.jumped(answer.after + 1)
                self._forget()
        else:
            self._node = self._node % self._nodes + 1
        # Not at once: what comes in the meantime goes together.
        self._port.after(self._random.expovariate(20.0), self._pull_behind, self._number)

    def _forget(self) -> None:
        """Ask all nodes anew for what comes next."""
        self._gone.clear()
        self._silent.clear()

    def _pull_behind(self, number: int) -> None:
        if number == self._number:
            self._pull()

    def _draw_latency_s(self) -> float:
        return self._latency_s * self._random.uniform(0.5, 2.0)
