"""The network between nodes: the real one, over links on which each message takes its time."""

from collections.abc import Callable
from random import Random

import trio

from trio_kv.raft.messages import InstallSnapshot, Message
from trio_kv.sim.network import MESSAGES_KEPT_MAX, STRAGGLER_S
from trio_kv.sim.pipes import PipedLinks
from trio_kv.transport.memory import MemoryNetwork


class LatentLinks(PipedLinks):
    """Links on which a message takes between half and twice the latency, and sometimes much longer.

    Args:
        random: draws what each message meets.
        latency_s: see above.
        stragglers: share of the messages that take up to `STRAGGLER_S` longer.

    """

    def __init__(self, random: Random, latency_s: float, stragglers: float) -> None:
        """Start with all links sound; see the class."""
        super().__init__(random)
        self.stragglers = stragglers
        self._latency_s = latency_s
        self._look()

    def route(self, source: int, target: int) -> tuple[float, ...]:
        """Return after how many seconds each copy of a message arrives."""
        draw = self._random.random
        delays = [
            delay_s + self._latency_s * (0.5 + 1.5 * draw()) for delay_s in super().route(source, target)
        ]
        if self.stragglers:
            delays = [
                delay_s + STRAGGLER_S * draw() if draw() < self.stragglers else delay_s for delay_s in delays
            ]
        return tuple(delays)

    def _look(self) -> None:
        self.is_faulty = True  # Each message has to ask for its latency.


class SimulatedNetwork(MemoryNetwork):
    """Lets slow links be slow, and keeps some of what is sent for replays."""

    def __init__(self, links: LatentLinks, random: Random, after: Callable[..., None]) -> None:
        """Connect nobody yet.

        Args:
            links: what joins the nodes.
            random: draws what is replayed.
            after: lets something happen after some seconds.

        """
        super().__init__(links)
        self._latent = links
        self._random = random
        self._after = after
        self.past: list[Message] = []
        """Some of what was sent."""
        self.delivered = 0
        self.in_next_install: Callable[[], None] | None = None
        """What is to happen when the second chunk of a snapshot, or a later one, is on its way."""
        self._sent = 0

    def send_nowait(self, message: Message) -> None:
        """Send a message to its target."""
        if self.in_next_install is not None and isinstance(message, InstallSnapshot) and message.number:
            self.in_next_install()
            self.in_next_install = None
        if len(self.past) < MESSAGES_KEPT_MAX:
            self.past.append(message)
        else:
            self.past[self._sent % MESSAGES_KEPT_MAX] = message
        self._sent += 1
        self._latent.carry(message, trio.current_time(), self._after, super().send_nowait)

    def replay(self, count: int) -> None:
        """Let messages of the past be on their way once more."""
        for _ in range(count):
            if self.past:
                message = self._random.choice(self.past)
                self._after(self._random.random() * 0.2, super().send_nowait, message)

    def deliver(self, message: Message) -> bool:
        """Count what arrives."""
        self.delivered += 1
        return super().deliver(message)
