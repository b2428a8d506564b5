"""What the state machine says to a command, and what it keeps of a key.

msgspec structs and not attrs classes: one of each is made for every write.
"""

from typing import Final

import msgspec

CODES: Final = frozenset({"ok", "missing", "conflict", "too_large", "session_expired", "overloaded"})
"""What the state machine answers, and a snapshot may hold."""

Origin = tuple[str, int]
"""Key and revision: what tells one text from another, on every node and after every restart."""

Due = tuple[int, str]
"""When a key ends, in microseconds of cluster time, and the key."""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """The answer to one operation, the same on every node that applies it."""

    code: str
    """One of `CODES` from the state machine; the gateway adds the error codes of the protocol that are decided before
    or after it."""
    value: msgspec.Raw | None = None
    """The JSON text that a read found, a delete removed or a condition met; None where there is none."""
    revision: int = 0
    """Index of the write, or the revision of the key that a read or failed condition met (0: no such key)."""
    message: str = ""
    """For people; set on errors."""

    def __repr__(self) -> str:
        value = "" if self.value is None else f" {bytes(self.value).decode(errors='replace')}"
        return f"{self.code}@{self.revision}{value}"


class TimedReply(Reply, frozen=True, gc=False, kw_only=True):
    """What a read found under a key that ends. A class of its own, for replies are made and kept for every write."""

    ttl_us: int
    """How long the key lives at least, as far as the node that answers knows."""


class Item(msgspec.Struct, frozen=True, gc=False):
    """What a key holds. The machines of one process share it."""

    value: msgspec.Raw
    revision: int
    """Index of the entry that gave it."""
    key: str
    """The key itself, so that whoever shares the item shares the text of its key, too."""
    due: Due | None = None
    """When it ends; None: never. Its place takes no memory: without it, 8 of an item's 48 bytes would be unused."""
