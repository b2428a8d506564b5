"""Pages of keys in their order: the order itself, kept from the first page on, and how many pages may be made now."""

from collections.abc import Mapping, Sequence
from typing import Final

from trio_kv.kv.key_order import KeyOrder
from trio_kv.kv.operations.operation import Change, NoChange, SessionChange
from trio_kv.kv.reply import Item

MANY: Final = 1 << 30
"""More pages than anybody asks for."""

Changes = Sequence[Change | SessionChange | NoChange]


class Paging:
    """What a machine needs for pages of its keys. It is no part of the state: copies and snapshots don't have it."""

    __slots__ = ("_changes", "_noted", "is_due", "left", "order")

    def __init__(self) -> None:
        """Begin without an order: it takes memory and time, and most stores never need one."""
        self.order: KeyOrder | None = None
        """None until somebody asked for a page."""
        self.left = MANY
        """How many pages may be made. To ask for a further one sets `is_due`, and gets none."""
        self.is_due = False
        self._changes: Changes = ()
        """Those that were looked at last: a list that may have grown since."""
        self._noted = 0
        """How many of these the order knows."""

    @property
    def is_ordered(self) -> bool:
        """Whether there is an order of the keys, and nothing left to be put in place."""
        return self.order is not None and not self.order.unsettled

    def take_order(self, items: Mapping[str, Item], changes: Changes) -> KeyOrder | None:
        """Return the order for a page, complete; None if there are no pages `left`.

        Who has many keys to put in place does so beforehand, in small steps: else it takes as long as it takes.

        Args:
            items: all keys.
            changes: what was done to them since the order was last told.

        """
        if not self.left:
            self.is_due = True
            return None
        self.left -= 1
        while not self.settle(items, changes, len(items) + 1):
            pass
        return self.order

    def settle(self, items: Mapping[str, Item], changes: Changes, keys_max: int) -> bool:
        """Put at most so many keys in order, or some more; return whether all are. The first call begins the order."""
        if self.order is None:
            self.order = KeyOrder(items)
        self.note(changes)
        return self.order.settle(items, keys_max)

    def note(self, changes: Changes) -> None:
        """Let the order know what was done since it was last told. There must be one."""
        assert self.order is not None
        if changes is not self._changes:
            self._changes, self._noted = changes, 0
        self.order.note(changes[self._noted :])
        self._noted = len(changes)
