"""The whole world, as its parts see it: virtual time, numbers, what clients tell, and how a run fails."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from trio_kv.check.exchange import Exchange
from trio_kv.check.history import Operation, RisingClock
from trio_kv.cluster.node import Node
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import Turns
from trio_kv.sim.ending import PlannedWorld
from trio_kv.sim.host import PACK
from trio_kv.sim.plan import Plan
from trio_kv.sim.whole.sockets import ClientNetwork
from trio_kv.sim.whole.timers import Timers
from trio_kv.wire.node_status import State


class WholeHost(PlannedWorld):
    """A world of Trio tasks."""

    network: ClientNetwork
    """How clients reach the door."""
    running: Mapping[int, Node]
    """The nodes that live, paused or not."""
    slack_s = 5.0
    are_values_unique = True
    """Whether no client writes a value twice; others than the world's own may."""

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None) -> None:
        """Let nothing happen yet; arguments as for `Host`."""
        super().__init__(plan, tell, are_values_unique=self.are_values_unique)
        self.history: list[Operation] = []
        self.exchanges: list[Exchange] = []
        """All that was asked of the family."""
        self.completions = 0
        """What disks have completed."""
        self.error: Exception | None = None
        self.scope = trio.CancelScope()
        """That of the run."""
        self.timers = Timers()
        self._moments = RisingClock()
        self._passes = self._lines = self._number = 0

    @property
    def now(self) -> float:
        """The world's time, in seconds."""
        return trio.current_time()

    def after(self, delay_s: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Let something happen later."""
        self.timers.after(delay_s, callback, *arguments)

    async def sleep(self, for_s: float) -> None:
        """Let time pass."""
        await trio.sleep(for_s)

    def stamp(self) -> float:
        """Return a moment that is later than all before."""
        return self._moments.stamp(trio.current_time())

    def fail(self, error: Exception) -> None:
        """End the run with an error: the first one counts."""
        if self.error is None:
            self.error = error
        self.scope.cancel()

    # Nodes

    def next_number(self) -> int:
        """Return a number for a request."""
        self._number += 1
        return self._number

    def replica(self, node: int) -> Replica | None:
        """Return a node's replica; None while the node is down."""
        running = self.running.get(node)
        return None if running is None else running.replica

    def is_up(self, node: int) -> bool:
        """Return whether a node lives, paused or not."""
        return node in self.running

    @abstractmethod
    def is_paused(self, node: int) -> bool:
        """Return whether a node is paused, by whoever will let it go on."""

    @abstractmethod
    def restart(self, node: int, state: State) -> None:
        """Let a node that is down in this state start again."""

    def stepped(self, replica: Replica, turns: Turns) -> None:
        """Put a pass into the trace, and judge what it left."""
        self._passes += 1
        super().stepped(replica, turns)

    # Clients

    def told(self) -> Sequence[Operation]:
        """Return what all clients asked and were told."""
        return self.history

    @property
    def operations(self) -> int:
        """How many operations of clients there were."""
        return len(self.history) + len(self.exchanges)

    def told_of_family(self) -> Sequence[Exchange]:
        """Return what all clients asked of the family and were told."""
        return self.exchanges

    def note_exchange(self, exchange: Exchange) -> None:
        """Note what came of a request for the family."""
        self.exchanges.append(exchange)
        self.family.learn(exchange)

    def line(self, client: int, arrow: str, line: bytes) -> None:
        """See a line pass, to a client or from it."""
        self._lines += 1
        self.trace.update(PACK(trio.current_time(), client, arrow == ">", 0, 0, 0) + line)
        if self.is_told:
            self.say(f"c{client} {arrow} {line[:200]!r}")
