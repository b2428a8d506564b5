"""`delete`: remove a key."""

from collections.abc import Sequence

from msgspec import UNSET, Raw, UnsetType

from trio_kv.kv.operations.get import MISSING
from trio_kv.kv.operations.operation import (
    Context,
    KeyWrite,
    Revision,
    encode_key_and_value,
    explain_revisions,
)
from trio_kv.kv.reply import Reply


class Delete(KeyWrite, frozen=True, gc=False, tag="delete"):
    """Remove a key."""

    words = "KEY"
    purpose = "remove a key, print what it held"
    has_result = True

    if_revision: Revision | UnsetType = UNSET
    """Only if this is the key's revision."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its texts."""
        return len(self.key)

    def apply(self, context: Context) -> Reply:
        """Remove the key."""
        item = context.items.get(self.key)
        previous = 0 if item is None else item.revision
        wanted = self.if_revision
        if wanted is not UNSET and wanted != previous:
            return context.refuse(self.key, item, explain_revisions(previous, wanted))
        return MISSING if item is None else context.remove(self.key, item)

    def encode_members(self, reply: Reply) -> Sequence[bytes | Raw]:
        """Tell the key and what it held."""
        assert reply.value is not None, f"{reply} to {self} has no value"
        return encode_key_and_value(self.key, reply.value)
