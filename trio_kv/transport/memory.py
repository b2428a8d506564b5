"""The network of one process: messages go from node to node through memory channels.

A message is delivered or lost, and nobody waits for it: Raft is made for that. A delayed one waits
here, in a bounded heap, for the one task that delivers it.
"""

import heapq
import itertools
from collections.abc import Callable

import trio

from trio_kv.raft.messages import Message
from trio_kv.transport.links import Links

DELAYED_MAX = 100_000
"""Messages on slow links at a time; what comes beyond it is lost and counted."""


class MemoryNetwork:
    """Connects the nodes of one process. `run` must be running for delayed messages to arrive."""

    def __init__(self, links: Links) -> None:
        """Connect nobody yet."""
        self.links = links
        self.lost = 0
        """Messages that did not arrive: cut, dropped, nobody there, or no room."""
        self._doors: dict[int, Callable[[Message], bool]] = {}
        self._delayed: list[tuple[float, int, Message]] = []
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
        if not self.links.is_faulty:
            self._deliver(message)
            return
        delays = self.links.route(message.source, message.target)
        if not delays:
            self.lost += 1
        for delay_s in delays:
            if delay_s <= 0:
                self._deliver(message)
            else:
                self._delay(message, delay_s)

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
                message = heapq.heappop(self._delayed)[2]
                # A link that was cut meanwhile lets nothing through any more.
                if not self.links.is_cut(message.source, message.target):
                    self._deliver(message)

    def _deliver(self, message: Message) -> None:
        deliver = self._doors.get(message.target)
        if deliver is None or not deliver(message):
            self.lost += 1

    def _delay(self, message: Message, delay_s: float) -> None:
        if len(self._delayed) >= DELAYED_MAX:
            self.lost += 1
            return
        at = trio.current_time() + delay_s
        heapq.heappush(self._delayed, (at, next(self._order), message))
        if self._scope is not None:
            self._scope.deadline = min(self._scope.deadline, at)
        self._wake.set()
