"""Keys in two layers: those of a moment, which a snapshot is made of, and what changed since.

While a snapshot is made, the lower layer stays as it is and every write goes to the upper one, where None stands
for a key that is gone. Afterwards the upper layer is put back into the lower one, some keys at a time, and the
lower one alone goes on as the machine's plain dict: no key is ever copied, and a machine without a snapshot under
way pays nothing.

The order of the keys is that of one dict which took the same writes: an overwritten key stays where it was, a key
that was deleted and comes back goes to the end. Snapshots tell keys in that order, so that machines which applied
the same entries write the same bytes, whether and whenever they were frozen on the way.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator, MutableMapping

from trio_kv.kv.reply import Item


class Layers(MutableMapping[str, Item]):
    """What looks like one dict and is two, from the freezing of a machine until its changes are settled.

    Invariants: a None in `_changed` stands for a key of `_below`; a key in `_returned` is in both, has an item in
    `_changed`, and was deleted in between; of the keys that stand at the end of the order, `_changed` has the order.
    """

    __slots__ = ("_below", "_changed", "_is_frozen", "_len", "_returned")

    def __init__(self, below: dict[str, Item]) -> None:
        """Freeze `below`: it stays as it is until `thaw`."""
        self._below = below
        # Not a plain dict: taking the first keys out of a large one again and again takes ever longer.
        self._changed: OrderedDict[str, Item | None] = OrderedDict()
        self._returned: set[str] = set()
        self._is_frozen = True
        self._len = len(below)

    def __getitem__(self, key: str) -> Item:
        changed = self._changed
        item = changed[key] if key in changed else self._below.get(key)
        if item is None:
            raise KeyError(key)
        return item

    def get(self, key: str, default: Item | None = None) -> Item | None:  # type: ignore[override]
        """Return what a key holds. Not the inherited one, which raises and catches at every miss."""
        changed = self._changed
        if key in changed:
            item = changed[key]
            return default if item is None else item
        return self._below.get(key, default)

    def __setitem__(self, key: str, item: Item) -> None:
        changed = self._changed
        if key in changed:
            if changed[key] is None:
                changed.move_to_end(key)
                self._returned.add(key)
                self._len += 1
            changed[key] = item
        elif key not in self._below:
            changed[key] = item
            self._len += 1
        elif self._is_frozen:
            changed[key] = item
        else:
            # It keeps its place, so it need not wait: this is what lets settling end under a load of overwrites.
            self._below[key] = item

    def __delitem__(self, key: str) -> None:
        changed, below = self._changed, self._below
        if key in changed:
            if changed[key] is None:
                raise KeyError(key)
            self._returned.discard(key)
            if key in below:
                changed[key] = None
            else:
                del changed[key]
        elif key not in below:
            raise KeyError(key)
        elif self._is_frozen:
            changed[key] = None
        else:
            del below[key]
        self._len -= 1

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[str]:
        changed, below, returned = self._changed, self._below, self._returned
        for key in below:
            if key not in changed or (changed[key] is not None and key not in returned):
                yield key
        for key, item in changed.items():
            if item is not None and (key not in below or key in returned):
                yield key

    @property
    def layers(self) -> tuple[Collection[str], Collection[str]]:
        """The keys of the lower layer, and those of which it may tell something else than this whole does."""
        return self._below, self._changed

    def copy(self) -> dict[str, Item]:
        """Return all keys as one plain dict."""
        return {key: self[key] for key in self}

    def thaw(self) -> None:
        """Let the lower layer change again: nobody reads it any more."""
        self._is_frozen = False

    def settle(self, items_max: int) -> dict[str, Item] | None:
        """Put back at most so many of the changed keys; return the one dict when that were the last ones."""
        assert not self._is_frozen, "the lower layer is still read"
        changed, below, returned = self._changed, self._below, self._returned
        # In their order: nothing that is still to come belongs before what is put back.
        for _ in range(min(items_max, len(changed))):
            key, item = changed.popitem(last=False)
            if item is None:
                del below[key]
                continue
            if key in returned:
                returned.discard(key)
                del below[key]
            below[key] = item
        return None if changed else below
