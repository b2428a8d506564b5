"""`scan`: a range of keys, in their order, page by page."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from trio_kv.kv.operations.operation import KeyText, Order, Query, State, encode
from trio_kv.kv.reply import Reply

PAGE_ITEMS_MAX: Final = 1000
PAGE_BYTES_MAX: Final = 1 << 20
"""Bytes that the items of a page have in the answer. A page with one item may be larger."""

CHARACTER_MAX: Final = 0x10FFFF

WAITS: Final = Reply("unavailable", message="the keys are not in order yet: ask again")


class _FullItem(Struct, frozen=True, gc=False):
    """An item of a page."""

    key: str
    value: Raw
    revision: int


class _ItemWithoutValue(Struct, frozen=True, gc=False):
    key: str
    revision: int


class Scan(Query, frozen=True, gc=False, tag="scan"):
    """Read a range of keys in their order, or count them."""

    words = "[PREFIX] [AFTER] [LIMIT]"
    purpose = "keys that begin with PREFIX, in order"
    has_page = True
    tells_revision = True

    prefix: KeyText = ""
    """What the keys begin with."""
    after: KeyText | UnsetType = UNSET
    """Only keys beyond this one: above it, or below it if the order is reversed."""
    limit: Annotated[int, Meta(ge=1, le=PAGE_ITEMS_MAX)] = PAGE_ITEMS_MAX
    """Items on the page at most."""
    reverse: bool = False
    """The last key first."""
    values: bool = True
    """Whether items have their values."""
    count: bool = False
    """Tell how many keys there are, whatever the limit, and no items."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its texts."""
        return len(self.prefix) + (0 if self.after is UNSET else len(self.after))

    def answer(self, state: State) -> Reply:
        """Return what the answer tells besides the revision; `WAITS` if the keys are not in order yet."""
        order = state.take_order()
        if order is None:
            return WAITS
        first, end = self._find_range()
        if self.count:
            return Reply("ok", Raw(b'"count": %d, ' % order.count(first, end)), state.applied)
        items, is_more = self._make_page(self._keys(order, first, end), state)
        more = b"true" if is_more else b"false"
        return Reply("ok", Raw(b'"items": [%b], "more": %b, ' % (b", ".join(items), more)), state.applied)

    def encode_members(self, reply: Reply) -> Sequence[bytes | Raw]:
        """Tell the page and the state that it comes from."""
        assert reply.value is not None, f"{reply} to {self} has no page"
        return reply.value, b'"revision": %d, ' % reply.revision

    def _find_range(self) -> tuple[str, str | None]:
        """Return the first key that may be on the page, and the first one behind it; None: there is no end."""
        first, end = self.prefix, _first_beyond(self.prefix)
        if self.after is UNSET:
            return first, end
        if self.reverse:
            return first, self.after if end is None else min(self.after, end)
        # No text comes between one and the same with U+0000 behind it.
        return max(first, self.after + "\0"), end

    def _keys(self, order: Order, first: str, end: str | None) -> Iterator[str]:
        return order.between_reversed(first, end) if self.reverse else order.between(first, end)

    def _make_page(self, keys: Iterator[str], state: State) -> tuple[list[bytes], bool]:
        """Return the items of a page as JSON texts, and whether there are more."""
        items, size_bytes = state.items, 0
        texts: list[bytes] = []
        for key in keys:
            if len(texts) == self.limit:
                return texts, True
            item = items[key]
            told = _FullItem(key, item.value, item.revision) if self.values else None
            text = encode(told or _ItemWithoutValue(key, item.revision))
            size_bytes += len(text) + len(", ")
            if size_bytes > PAGE_BYTES_MAX and texts:
                return texts, True
            texts.append(text)
        return texts, False


def _first_beyond(prefix: str) -> str | None:
    """Return the first text behind all that begin so; None if there is none."""
    begin = prefix.rstrip(chr(CHARACTER_MAX))
    return begin[:-1] + chr(ord(begin[-1]) + 1) if begin else None
