"""What is held for all connections together, in bytes, and who has to go when it is too much.

One client may hold a line open up to the limit of a line, or leave a reply of a megabyte where it is; a thousand may
not all do so. The books are kept here, in the order in which it began: the oldest is the first to go, because an honest
client ends a line soon after it began it, and takes what it asked for.
"""

from typing import Protocol


class Owner(Protocol):
    """A connection that is written down here."""

    def evict(self) -> None:
        """Drop the half line, say so and close."""
        ...

    def drop(self) -> None:
        """Drop the client, and the replies that it does not take."""
        ...


class _Books:
    """How many bytes are held, for whom, oldest first.

    Invariant: after every method `total_bytes` is the sum over the owners and at most `bytes_max`.

    Args:
        bytes_max: the limit over all owners; beyond it the oldest have to go.

    """

    def __init__(self, bytes_max: int) -> None:
        """Begin empty; see the class."""
        self.bytes_max = bytes_max
        self.total_bytes = 0
        self._sizes: dict[Owner, int] = {}

    def note(self, owner: Owner, size: int, *, is_new: bool) -> None:
        """Write down that `size` bytes are held for an owner now; `is_new`: it is something else than before."""
        if is_new or not size:
            self.forget(owner)
        if size:
            self.total_bytes += size - self._sizes.get(owner, 0)
            self._sizes[owner] = size
        while self.total_bytes > self.bytes_max:
            oldest = next(iter(self._sizes))
            self.forget(oldest)
            self._send_off(oldest)

    def forget(self, owner: Owner) -> None:
        """Write down that nothing is held for an owner any more."""
        self.total_bytes -= self._sizes.pop(owner, 0)

    def _send_off(self, owner: Owner) -> None:
        raise NotImplementedError


class HalfLines(_Books):
    """The half lines of all connections."""

    def _send_off(self, owner: Owner) -> None:
        owner.evict()


class UnsentReplies(_Books):
    """The replies that the kernel does not take, because their clients don't."""

    def _send_off(self, owner: Owner) -> None:
        owner.drop()
