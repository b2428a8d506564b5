"""`set`: give a key a value."""

from collections.abc import Mapping, Sequence

from msgspec import UNSET, Raw, UnsetType

from trio_kv.kv.operations.operation import (
    Context,
    KeyWrite,
    Revision,
    Ttl,
    Value,
    encode_key_and_value,
    explain_revisions,
)
from trio_kv.kv.reply import Item, Reply


class Set(KeyWrite, frozen=True, gc=False, tag="set"):
    """Give a key a value."""

    words = "[--ttl=TTL] KEY VALUE"
    purpose = "VALUE is JSON; what is no JSON is taken as a string, spaces included"

    value: Value
    if_revision: Revision | UnsetType = UNSET
    """Only if this is the key's revision; 0: only if the key does not exist."""
    ttl: Ttl | UnsetType = UNSET
    """Seconds for which the key is kept; left out: for good."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its texts."""
        return len(self.key) + len(self.value)

    def answer_bytes(self, items: Mapping[str, Item]) -> int:
        """Only a condition that does not hold tells a value."""
        return 0 if self.if_revision is UNSET else super().answer_bytes(items)

    def apply(self, context: Context) -> Reply:
        """Set the key."""
        item = context.items.get(self.key)
        previous = 0 if item is None else item.revision
        wanted = self.if_revision
        if wanted is not UNSET and wanted != previous:
            return context.refuse(self.key, item, explain_revisions(previous, wanted))
        due_us = None if self.ttl is UNSET else context.end_of(self.ttl)
        return context.put(self.key, self.value, item, due_us)

    def encode_members(self, reply: Reply) -> Sequence[bytes | Raw]:  # noqa: ARG002 - as the other operations
        """Tell the key and what was written."""
        return encode_key_and_value(self.key, self.value)
