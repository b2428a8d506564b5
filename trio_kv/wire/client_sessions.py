"""What clients ask for under sessions of their own: a session, and writes that take effect once, however often asked.

The id of a session is an opaque text for clients: the index of the entry that opened it, and a secret.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from msgspec import UNSET, Meta, Raw, UnsetType

from trio_kv.kv.operations import AnyOperation, AnyWrite
from trio_kv.kv.operations.operation import REVISION_MAX, Context, WriteOperation
from trio_kv.kv.reply import Item, Reply

SECRET_BITS: Final = 64
"""Of an id, as 16 hexadecimal digits."""

Seq = Annotated[int, Meta(ge=0, le=REVISION_MAX)]

NUMBERING: Final = ("session", "seq", "done")
"""What a line may hold with a write, if that has a place in a session of its client."""


class _AskedOfStore(WriteOperation, frozen=True, gc=False):
    """What stands in no log as it is: the gateway makes another command of it."""

    def answer_bytes(self, items: Mapping[str, Item]) -> int:
        """Nobody asks for it."""
        raise NotImplementedError

    def apply(self, context: Context) -> Reply:
        """Nobody applies it."""
        raise NotImplementedError


class Numbered(_AskedOfStore, frozen=True, gc=False):
    """A write with its place in a session of its client."""

    operation: AnyWrite
    session: str
    seq: int
    done: int | UnsetType = UNSET

    @property
    def name(self) -> str:
        """What stands in `op`."""
        return self.operation.name

    @property
    def is_write(self) -> bool:
        """Whether the operation may change something."""
        return self.operation.is_write

    @property
    def key(self) -> str | None:
        """The key that is written; None if the operation has not one."""
        return getattr(self.operation, "key", None)

    @property
    def size_bytes(self) -> int:
        """Bytes of its texts."""
        return self.operation.size_bytes + len(self.session)

    def encode_members(self, reply: Reply) -> Sequence[bytes | Raw]:
        """Tell what the operation tells."""
        return self.operation.encode_members(reply)


class OpenOrRenew(_AskedOfStore, frozen=True, gc=False, tag="session"):
    """Open a session of the client's own, or use one without writing anything."""

    words = "[SESSION]"
    purpose = "open a session, or renew SESSION, print its id"
    has_result = True

    session: str | UnsetType = UNSET
    """The id of the one to renew; left out: open one."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its texts."""
        return 0 if self.session is UNSET else len(self.session)

    def encode_members(self, reply: Reply) -> Sequence[bytes | Raw]:
        """Tell the id and the time-out."""
        assert reply.value is not None, f"{reply} to {self} has no value"
        return bytes(reply.value).strip(b"{}"), b", "


OF_CLIENTS: Final = frozenset({Numbered, OpenOrRenew})


AnyAsked = AnyOperation | Numbered | OpenOrRenew
"""What a store is asked for."""


def make_id(session: int, secret: str) -> str:
    """Return the id of a session."""
    return f"{session}-{secret}"


def read_id(text: str) -> tuple[int, str] | None:
    """Return index and secret of a session; None if a server can't have given out such an id."""
    found = _id(text)
    return None if found is None else (int(found[1]), found[2])


_id = re.compile(r"([1-9][0-9]{0,17})-([0-9a-f]{16})", re.ASCII).fullmatch
