"""What the control door needs of a cluster: operating it, and breaking it.

Every method may be a coroutine function or a plain one. It raises `ValueError` with words for a person if what is asked
makes no sense now: a node that does not exist, or is already down.
"""

from collections.abc import Awaitable, Collection
from typing import Protocol


class Faults(Protocol):
    """What can be broken in a running cluster."""

    def crash(self, node: int) -> object:
        """Let a node die; it comes back by itself."""
        ...

    def pause(self, node: int) -> object:
        """Let a node do nothing."""
        ...

    def resume(self, node: int) -> object:
        """Let a paused node go on."""
        ...

    def partition(self, groups: list[list[int]]) -> object:
        """Cut all links between nodes of different groups."""
        ...

    def cut(self, a: int, b: int) -> object:
        """Cut one link."""
        ...

    def heal(self) -> object:
        """End all faults of links."""
        ...

    def delay(self, seconds: float) -> object:
        """Delay every message; 0 ends it."""
        ...

    def drop(self, fraction: float) -> object:
        """Lose this share of all messages; 0 ends it."""
        ...

    def slow_disk(self, node: int, seconds: float) -> object:
        """Let every sync of a node's disk take longer; 0 ends it."""
        ...

    def fail_disk(self, node: int) -> object:
        """Let a node's next write fail."""
        ...


class Cluster(Protocol):
    """A running cluster."""

    @property
    def faults(self) -> Faults:
        """What breaks it."""
        ...

    def leader(self) -> int:
        """Return the node that leads."""
        ...

    def stop(self, node: int) -> object:
        """Stop a node; it stays down."""
        ...

    def restart(self, node: int) -> object:
        """Start a node that is down, or let one that runs die and start again, at once."""
        ...

    def transfer(self, node: int) -> object:
        """Hand leadership to a node."""
        ...

    def snapshot(self, node: int) -> object:
        """Let a node take a snapshot."""
        ...

    def rebuild(self, node: int) -> object:
        """Give a node that is down a new directory, to be filled by the others.

        Returns, or gives when awaited, the members of the reply: where the old one was `moved_to`, or None.
        """
        ...

    def backup(self, without: Collection[int]) -> Awaitable[dict[str, object]]:
        """Take a snapshot of all that was acknowledged; return its `path`, `index`, `term` and `node`.

        Nodes that are named are left out.
        """
        ...

    def status(self) -> dict[str, object]:
        """Return the members of the protocol's status reply, but for `status` itself."""
        ...
