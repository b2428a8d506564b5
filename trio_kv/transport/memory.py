"""The network of a process: messages go from node to node through memory channels, or to a link that leads elsewhere.

A message is delivered or lost, and nobody waits for it: Raft is made for that. A delayed one waits
here, in a bounded heap, for the one task that delivers it.
"""

import heapq
import itertools
from collections.abc import Callable
from functools import partial

import trio

from trio_kv.raft.messages import Message
from trio_kv.transport.links import Links
from trio_kv.transport.network import Tap

DELAYED_MAX = 100_000
"""Messages on slow links at a time; what comes beyond it is lost and counted."""


class MemoryNetwork:
    """Connects the nodes of one process, and those that links lead to. `run` must be running for delayed messages."""

    def __init__(self, links: Links) -> None:
        """Connect nobody yet."""
        self.links = links
        self.lost = 0
        """Messages that did not arrive: cut, dropped, nobody there, or no room."""
        self.tap: Tap | None = None
        """Is told each message that is sent, and whether it is lost, as long as somebody looks."""
        self._doors: dict[int, Callable[[Message], bool]] = {}
        self._delayed: list[tuple[float, int, tuple[int, int], Callable[[], object]]] = []
        self._order = itertools.count()
        self._scope: trio.CancelScope | None = None
        self._wake = trio.Event()

    def attach(self, node: int, deliver: Callable[[Message], bool]) -> None:
        """Let messages to a node arrive at `deliver`, which says whether there was room."""
        self._doors[node] = deliver

    def detach(self, node: int) -> None:
        """Let messages to a node be lost."""
        self._doors.pop(node, None)

    def send_nowait(self, message: Message) -> None:
        """Send a message to its target."""
        is_lost = not (self._route(message) if self.links.is_faulty else self.deliver(message))
        if self.tap is not None:
            self.tap(message, is_lost)

    def arrive(self, message: Message) -> None:
        """Take a message from another process, where it was seen what is wrong with its link."""
        is_lost = not self.deliver(message)
        if self.tap is not None:
            self.tap(message, is_lost)

    async def run(self) -> None:
        """Deliver delayed messages when their time has come."""
        while True:
            if not self._delayed:
                self._wake = trio.Event()
                await self._wake.wait()
            with trio.CancelScope(deadline=self._delayed[0][0]) as self._scope:
                await trio.sleep_forever()
            self._scope = None
            while self._delayed and self._delayed[0][0] <= trio.current_time():
                _, _, link, arrive = heapq.heappop(self._delayed)
                # A link that was cut meanwhile lets nothing through any more.
                if not self.links.is_cut(*link):
                    arrive()

    def _route(self, message: Message) -> bool:
        """Send a message over links that have faults; return whether a copy of it was delivered or is under way."""
        delays = self.links.route(message.source, message.target)
        if not delays:
            self.lost += 1
        arrive = partial(self.deliver, message)
        sent = [self.later(delay_s, message.source, message.target, arrive) for delay_s in delays]
        return any(sent)

    def deliver(self, message: Message) -> bool:
        """Give a message to its target, whatever is wrong with the links; return whether it took it."""
        deliver = self._doors.get(message.target)
        is_delivered = deliver is not None and deliver(message)
        if not is_delivered:
            self.lost += 1
        return is_delivered

    def later(self, delay_s: float, source: int, target: int, arrive: Callable[[], object]) -> bool:
        """Let something arrive that is so long under way over a link; return whether it is, or was taken at once."""
        if delay_s <= 0:
            return arrive() is not False
        if len(self._delayed) >= DELAYED_MAX:
            self.lost += 1
            return False
        at = trio.current_time() + delay_s
        heapq.heappush(self._delayed, (at, next(self._order), (source, target), arrive))
        if self._scope is not None:
            self._scope.deadline = min(self._scope.deadline, at)
        self._wake.set()
        return True
