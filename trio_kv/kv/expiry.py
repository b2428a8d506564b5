"""The keys that end, in the order in which they do.

A key with a time to live has a `Due` beside its value. No key ends by itself, and no node decides it: an `Expire`
entry, which the leader proposes when something is due, removes what is due at the entry's cluster time. So a key lives
at least its time, and all nodes lose it at the same index.

The order is made of what the items hold and of nothing else. It is not told in snapshots: whoever restores a machine
gives it the items one by one. A `Due` is one object, shared by the item and by the orders of all machines of a process.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from sortedcontainers import SortedList  # type: ignore[import-untyped]

from trio_kv.kv.reply import Due, Item

EXPIRED_IN_AN_ENTRY_MAX: Final = 1_000
"""Keys and sessions that one `Expire` entry takes away, so that what else there is to do never waits for long. Where
more are due, the next entry follows at once."""


class Expiry:
    """Which keys end, and when.

    Invariant: it holds the `due` of each item of its machine that has one.
    """

    __slots__ = ("_dues",)

    def __init__(self, dues: Iterable[Due] = ()) -> None:
        """Hold what some items have."""
        # A list and not a heap: a key that is written again, or deleted, leaves nothing behind. A heap would keep what
        # is void until its time comes: a year for each lock that was taken for a year and given back after a second.
        self._dues: Any = SortedList(dues)

    def __len__(self) -> int:
        return len(self._dues)

    @property
    def first(self) -> Due | None:
        """What ends first, of equals the least key; None if nothing ever ends."""
        dues = self._dues
        first: Due | None = dues[0] if dues else None
        return first

    def take(self, upto_us: int, at_most: int) -> list[Due]:
        """Take out what ends at a cluster time or before: at most so much, in order."""
        dues = self._dues
        count = 0
        for due_us, _ in islice(dues, at_most):
            if due_us > upto_us:
                break
            count += 1
        return [dues.pop(0) for _ in range(count)]

    def replace(self, before: Item | None, after: Item | None) -> None:
        """Note that a key holds something else from here on; None: it does not exist."""
        if before is not None and before.due is not None:
            self._dues.remove(before.due)
        if after is not None and after.due is not None:
            self._dues.add(after.due)

    def dismantle(self, dues_max: int) -> bool:
        """Let go of at most so many keys; tell whether there are none left."""
        dues = self._dues
        for _ in range(min(dues_max, len(dues))):
            dues.pop()
        return not dues

    def copy(self) -> "Expiry":
        """Return an equal order that changes on its own."""
        return Expiry(self._dues)


class Unnoted(Expiry):
    """Takes note of nothing: for a draft, which may be thrown away."""

    __slots__ = ()

    def replace(self, before: Item | None, after: Item | None) -> None:
        """See `Expiry`; whoever makes the draft true tells the real one."""
