"""Links that may be thin pipes, in both worlds."""

from collections.abc import Callable
from random import Random

import attrs

from trio_kv.raft.messages import Message
from trio_kv.transport.links import Links


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


class PipedLinks(Links):
    """Links of which some are pipes."""

    def __init__(self, random: Random) -> None:
        """Start with all links sound; arguments as for `Links`."""
        super().__init__(random)
        self.pipes: dict[tuple[int, int], Pipe] = {}
        """(source, target) -> what makes that link slow."""

    def carry(
        self, message: Message, now_s: float, after: Callable[..., None], go: Callable[[Message], None]
    ) -> None:
        """Let a message go on, at once or `after` it has left its pipe, or never."""
        pipe = self.pipes.get((message.source, message.target)) if self.pipes else None
        if pipe is None:
            go(message)
        elif (piped_s := pipe.take(now_s)) is not None:
            after(piped_s, self._leave, pipe, message, go)

    def _leave(self, pipe: Pipe, message: Message, go: Callable[[Message], None]) -> None:
        if self.pipes.get((message.source, message.target)) is pipe:
            go(message)

    def heal(self) -> None:
        """Make all links sound."""
        self.pipes.clear()
        super().heal()
