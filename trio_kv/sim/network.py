"""The network of the core world: what becomes of a message on its way."""

from collections.abc import Callable

from trio_kv.raft.messages import InstallSnapshot, Message
from trio_kv.sim.host import Host
from trio_kv.sim.pipes import PipedLinks

MESSAGES_KEPT_MAX = 2000
"""Messages of the past from which a replay is drawn."""
STRAGGLER_S = 2.0
"""How much longer than others a straggling message takes at most."""


class Network:
    """All links between the nodes of a world.

    Args:
        world: gives time and chance.
        deliver: lets a message arrive.

    """

    def __init__(self, world: Host, deliver: Callable[[Message], None]) -> None:
        """Make sound links; see the class."""
        self._world = world
        self._deliver = deliver
        self.in_next_install: Callable[[], None] | None = None
        """What is to happen when the second chunk of a snapshot, or a later one, is on its way."""
        self.links = PipedLinks(world.random)
        self._past: list[Message] = []
        self._sent = 0

    def send(self, message: Message) -> None:
        """Let a message be on its way: lost, late, or twice."""
        past = self._past
        if self.in_next_install is not None and isinstance(message, InstallSnapshot) and message.number:
            self.in_next_install()
            self.in_next_install = None
        self._sent += 1
        if len(past) < MESSAGES_KEPT_MAX:
            past.append(message)
        else:
            past[self._sent % MESSAGES_KEPT_MAX] = message
        self.links.carry(message, self._world.now, self._world.after, self._go)

    def _go(self, message: Message) -> None:
        world = self._world
        draw, stragglers, latency_s = world.random.random, world.plan.stragglers, world.plan.latency_s
        for delay_s in self.links.route(message.source, message.target):
            took_s = delay_s + latency_s * (0.5 + 1.5 * draw())
            if stragglers and not world.is_healed and draw() < stragglers:
                world.after(took_s + STRAGGLER_S * draw(), self._deliver, message)
            else:
                world.after(took_s, self._arrive, message)

    def _arrive(self, message: Message) -> None:
        # A link that was cut meanwhile lets nothing through any more.
        if not self.links.is_cut(message.source, message.target):
            self._deliver(message)

    def replay(self, count: int) -> None:
        """Let messages of the past arrive once more, whatever was cut since they were sent."""
        world = self._world
        for _ in range(count):
            if self._past:
                world.after(world.random.random() * 0.2, self._deliver, world.random.choice(self._past))
