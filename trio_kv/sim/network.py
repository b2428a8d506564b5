"""The network of the core world: what becomes of a message on its way."""

from collections.abc import Callable
from typing import Protocol

import attrs

from trio_kv.raft.messages import InstallSnapshot, Message
from trio_kv.sim.host import Host
from trio_kv.transport.links import Links

MESSAGES_KEPT_MAX = 2000
"""Messages of the past from which a replay is drawn."""
STRAGGLER_S = 2.0
"""How much longer than others a straggling message takes at most."""


@attrs.define
class Pipe:
    """A link that takes one message at a time, and lets a few wait. When it is mended, what waits in it is lost."""

    message_s: float
    waiting_max: int
    free_at_s: float = 0.0

    def take(self, now_s: float) -> float | None:
        """Take a message; return how long it will be under way, or None: it is lost."""
        waits_s = max(0.0, self.free_at_s - now_s)
        if waits_s > self.waiting_max * self.message_s:
            return None
        self.free_at_s = now_s + waits_s + self.message_s
        return waits_s + self.message_s


class NetworkHost(Host, Protocol):
    """The world, as the network sees it."""

    now: float
    is_healed: bool

    def deliver(self, message: Message) -> None:
        """Let a message arrive."""
        ...


class Network:
    """All links between the nodes of a world."""

    def __init__(self, world: NetworkHost) -> None:
        """Make sound links."""
        self._world = world
        self.in_next_install: Callable[[], None] | None = None
        """What is to happen when the second chunk of a snapshot, or a later one, is on its way."""
        self.links = Links(world.random)
        self.pipes: dict[tuple[int, int], Pipe] = {}
        """(source, target) -> what makes that link slow."""
        self._past: list[Message] = []
        self._sent = 0

    def heal(self) -> None:
        """Make all links sound."""
        self.links.heal()
        self.pipes.clear()

    def send(self, message: Message) -> None:
        """Let a message be on its way: lost, late, or twice."""
        world, past = self._world, self._past
        if self.in_next_install is not None and isinstance(message, InstallSnapshot) and message.number:
            world.after(world.plan.latency_s * 4, self.in_next_install)
            self.in_next_install = None
        self._sent += 1
        if len(past) < MESSAGES_KEPT_MAX:
            past.append(message)
        else:
            past[self._sent % MESSAGES_KEPT_MAX] = message
        pipe = self.pipes.get((message.source, message.target)) if self.pipes else None
        if pipe is None:
            self._go(message)
        elif (piped_s := pipe.take(world.now)) is not None:
            world.after(piped_s, self._leave, pipe, message)

    def _leave(self, pipe: Pipe, message: Message) -> None:
        if self.pipes.get((message.source, message.target)) is pipe:
            self._go(message)

    def _go(self, message: Message) -> None:
        world = self._world
        draw, stragglers, latency_s = world.random.random, world.plan.stragglers, world.plan.latency_s
        for delay_s in self.links.route(message.source, message.target):
            took_s = delay_s + latency_s * (0.5 + 1.5 * draw())
            if stragglers and not world.is_healed and draw() < stragglers:
                world.after(took_s + STRAGGLER_S * draw(), world.deliver, message)
            else:
                world.after(took_s, self._arrive, message)

    def _arrive(self, message: Message) -> None:
        # A link that was cut meanwhile lets nothing through any more.
        if not self.links.is_cut(message.source, message.target):
            self._world.deliver(message)

    def replay(self, count: int) -> None:
        """Let messages of the past arrive once more, whatever was cut since they were sent."""
        world = self._world
        for _ in range(count):
            if self._past:
                world.after(world.random.random() * 0.2, world.deliver, world.random.choice(self._past))
