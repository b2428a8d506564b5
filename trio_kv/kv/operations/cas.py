"""`cas`: give a key a value if it now has the expected one (compare and set)."""

from collections.abc import Sequence

from msgspec import UNSET, Raw, UnsetType

from trio_kv.kv.equality import COMPARED_BYTES_MAX, is_equal_json
from trio_kv.kv.operations.operation import Context, KeyWrite, Ttl, Value, encode_key_and_value
from trio_kv.kv.reply import Item, Reply


class Cas(KeyWrite, frozen=True, gc=False, tag="cas"):
    """Give a key a value if it now has the expected one."""

    words = "[--ttl=TTL] KEY VALUE [EXPECTED]"
    purpose = "set, if the key now has EXPECTED, or does not exist"

    value: Value
    expected: Raw | UnsetType = UNSET
    """Any JSON value that the key must hold now, by JSON equality; left out, the key must not exist."""
    ttl: Ttl | UnsetType = UNSET
    """Seconds for which the key is kept; left out: for good."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its texts."""
        expected = self.expected
        return len(self.key) + len(self.value) + (0 if expected is UNSET else len(expected))

    def apply(self, context: Context) -> Reply:
        """Set the key, if the condition holds."""
        item = context.items.get(self.key)
        problem = self._find_problem(context, item)
        if problem:
            return context.refuse(self.key, item, problem)
        return context.put(self.key, self.value, item, context.end_of(self.ttl))

    def _find_problem(self, context: Context, item: Item | None) -> str:
        """Return why the condition does not hold; an empty text if it does."""
        expected = self.expected
        if item is None:
            return "" if expected is UNSET else "the key does not exist, but a value of it was expected"
        if expected is UNSET:
            return "the key exists, but was expected not to; say `expected` to change it"
        size_bytes = len(item.value) + len(expected)
        if size_bytes <= COMPARED_BYTES_MAX:
            context.compared_bytes += size_bytes
        is_equal = is_equal_json(item.value, expected)
        return "" if is_equal else "the key holds another value than the expected one"

    def encode_members(self, reply: Reply) -> Sequence[bytes | Raw]:  # noqa: ARG002 - as the other operations
        """Tell the key and what was written."""
        return encode_key_and_value(self.key, self.value)
