"""The keys in the order of their UTF-8 bytes, which is that of Python's strings: both order code points.

The order is kept for who asks for ranges of keys, and exists from the first such question on. A change of a key only
notes the key, and only if it came or went. Noted keys are put in place later, some at a time: to sort a million of them
at once would hold up everybody else for a second.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sortedcontainers import SortedList  # type: ignore[import-untyped]

from trio_kv.kv.operations.operation import Change, NoChange, SessionChange
from trio_kv.kv.reply import Item


class KeyOrder:
    """Which keys there are, in order.

    Invariant: a key that is in place and not in `items`, or the other way round, is noted.

    Args:
        items: all keys. It may be another mapping of the same keys at each call.

    """

    __slots__ = ("_keys", "_noted")

    def __init__(self, items: Mapping[str, Item]) -> None:
        """Note all keys."""
        self._keys: Any = SortedList()
        self._noted = dict.fromkeys(items)

    def note(self, changes: Sequence[Change | SessionChange | NoChange]) -> None:
        """Note the keys that came or went by these changes."""
        for change in changes:
            if isinstance(change, Change) and (change.previous == 0 or change.value is None):
                self._noted[change.key] = None

    def settle(self, items: Mapping[str, Item], keys_max: int) -> bool:
        """Put at most so many noted keys in place; return whether none is left."""
        noted, keys = self._noted, self._keys
        for _ in range(min(keys_max, len(noted))):
            key, _ = noted.popitem()
            if (key in items) != (key in keys):
                if key in items:
                    keys.add(key)
                else:
                    keys.remove(key)
        return not noted

    def between(self, first: str, end: str | None) -> Iterator[str]:
        """Yield the keys from `first` on that come before `end`; all of them if that is None.

        Raises:
            AssertionError: keys are noted that are not in place.

        """
        assert not self._noted, "keys are noted that are not in place"
        found: Iterator[str] = self._keys.irange(first, end, inclusive=(True, False))
        return found
