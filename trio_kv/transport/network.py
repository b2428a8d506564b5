"""What a cluster needs of whatever joins its nodes."""

from collections.abc import Callable
from typing import Protocol

from trio_kv.raft.messages import Message
from trio_kv.transport.links import Links

Tap = Callable[[Message, bool], object]
"""Is told a message that is sent, and whether it is known to be lost. It must neither raise nor wait."""


class Network(Protocol):
    """Carries messages of Raft: each arrives or is lost, and nobody waits for it. `run` must be running."""

    @property
    def links(self) -> Links:
        """What is wrong with the links."""
        ...

    tap: Tap | None
    """Told all that is sent, as long as it is there."""

    @property
    def lost(self) -> int:
        """How many messages did not arrive."""
        ...

    def attach(self, node: int, deliver: Callable[[Message], bool]) -> None:
        """Let messages to a node arrive at `deliver`, which says whether there was room."""
        ...

    def detach(self, node: int) -> None:
        """Let messages to a node be lost."""
        ...

    def send_nowait(self, message: Message) -> None:
        """Send a message to its target."""
        ...

    async def run(self) -> None:
        """Carry what takes its time."""
        ...
