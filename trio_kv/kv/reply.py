"""What the state machine says to a command, and what it keeps of a key.

msgspec structs and not attrs classes: one of each is made for every write.
"""

from typing import Final

import msgspec

CODES: Final = frozenset({"ok", "missing", "conflict", "too_large", "session_expired", "overloaded"})
"""What the state machine answers, and a snapshot may hold."""

Origin = tuple[str, int]
"""Key and revision: what tells one text from another, on every node and after every restart."""


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


class Item(msgspec.Struct, frozen=True, gc=False):
    """What a key holds. The machines of one process share it."""

    value: msgspec.Raw
    revision: int
    """Index of the entry that gave it."""
    key: str
    """The key itself, so that whoever shares the item shares the text of its key, too."""
