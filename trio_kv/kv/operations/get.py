"""`get`: read a key."""

from collections.abc import Sequence
from typing import Final

from msgspec import Raw

from trio_kv.kv.operations.operation import Key, Query, State, encode_key_and_value
from trio_kv.kv.reply import Reply, TimedReply

MISSING: Final = Reply("missing")


class Get(Query, frozen=True, gc=False, tag="get"):
    """Read a key."""

    words = "KEY"
    purpose = "the value of a key"
    has_result = True

    key: Key

    def answer(self, state: State) -> Reply:
        """Return what the key holds."""
        item = state.items.get(self.key)
        if item is None:
            return MISSING
        if item.due is None:
            return Reply("ok", item.value, item.revision)
        ttl_us = max(0, item.due[0] - state.known_time_us)
        return TimedReply("ok", item.value, item.revision, ttl_us=ttl_us)

    def encode_members(self, reply: Reply) -> Sequence[bytes | Raw]:
        """Tell the key and what it holds."""
        assert reply.value is not None, f"{reply} to {self} has no value"
        return encode_key_and_value(self.key, reply.value)
