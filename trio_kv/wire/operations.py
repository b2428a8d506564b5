"""What a client can ask for: the operations of the store and of the door, and what every request carries.

msgspec structs and not attrs classes: one is made for every request. The text of values and ids is kept as
it came (`msgspec.Raw`) and goes out again unchanged.

Clients know this room and nothing below it, so what they need of the store's operations is offered here.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from trio_kv.kv.nesting import NESTING_MAX, is_nested_deeper
from trio_kv.kv.operations import OPERATIONS as STORE_OPERATIONS
from trio_kv.kv.operations import AnyOperation, Cas, Delete, Get, Incr, Scan, Set, Txn
from trio_kv.kv.operations.operation import TTL_MAX_S, TTL_MIN_S, Operation, WriteOperation, name_of
from trio_kv.kv.reply import Reply
from trio_kv.wire.client_sessions import Numbered, OpenOrRenew, Seq
from trio_kv.wire.watches import Unwatch, Watch

__all__ = [
    "NESTING_MAX",
    "TTL_MAX_S",
    "TTL_MIN_S",
    "Cas",
    "Delete",
    "Get",
    "Incr",
    "Operation",
    "Scan",
    "Set",
    "Txn",
    "Watch",
    "WriteOperation",
    "is_nested_deeper",
]

LINE_BYTES_MAX: Final = 1 << 20
"""Bytes in one line without its end. A longer one hears `too_large` and its rest is skipped."""

LINE_BYTES_LIMIT: Final = 1 << 30
"""The most that a server can be told to take as `LINE_BYTES_MAX`. A client reads lines of that length."""

TIMEOUT_S_DEFAULT: Final = 5.0
TIMEOUT_S_MAX: Final = 60.0

ABSENT: Final = Raw()
"""The text of a member that was not sent: no bytes at all, which no JSON value has."""


KEY_TEXTS: Final = ("key", "prefix", "after")
"""Members that are no longer than a key may be."""


class Ping(Operation, frozen=True, gc=False, tag="ping"):
    """Ask whether the server is there."""

    purpose = "a sign of life of the server"

    def encode_members(self, reply: Reply) -> Sequence[bytes | Raw]:  # noqa: ARG002 - as the other operations
        """There is nothing to tell."""
        return ()


class Status(Operation, frozen=True, gc=False, tag="status"):
    """Ask what the cluster looks like. See `encode_status` for the answer."""

    purpose = "the nodes"


class Auth(Operation, frozen=True, gc=False, tag="auth"):
    """Show a token. The operation is never written anywhere, and says nothing of what it holds."""

    words = "TOKEN"
    purpose = "show a token to a server that wants one"

    token: Annotated[str, Meta(min_length=1, max_length=1024, examples=["a secret"])]

    def encode_members(self, reply: Reply) -> Sequence[bytes | Raw]:  # noqa: ARG002 - as the other operations
        """There is nothing to tell."""
        return ()

    def __repr__(self) -> str:
        return "Auth(...)"


_KINDS: Final[tuple[type[Operation], ...]] = (
    *STORE_OPERATIONS,
    OpenOrRenew,
    Watch,
    Unwatch,
    Ping,
    Status,
    Auth,
)
OPERATIONS: Final[Mapping[str, type[Operation]]] = MappingProxyType({name_of(kind): kind for kind in _KINDS})
"""All of them, by what stands in `op`."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """An operation, and what every request may carry."""

    operation: AnyOperation | Numbered | OpenOrRenew | Watch | Unwatch | Ping | Status | Auth
    id: Raw = ABSENT
    """Any JSON value, echoed first in the reply."""
    timeout: float = TIMEOUT_S_DEFAULT
    """Seconds until the client wants an answer of some kind."""
    is_stale: bool = False
    """Read at once from one follower (`consistency: "stale"`); no effect on anything but a query."""
    meta: bool = False
    """The reply also carries revision, node and term."""


Consistency = Literal["linearizable", "stale"]


class CommonMembers(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a line may hold beside `op` and the members of its operation."""

    id: Raw = ABSENT
    timeout: Annotated[float, Meta(gt=0, le=TIMEOUT_S_MAX)] = TIMEOUT_S_DEFAULT
    consistency: Consistency = "linearizable"
    meta: bool = False


class WriteMembers(CommonMembers, kw_only=True):
    """The same for a write, which may have a place in a session of its client."""

    session: str | UnsetType = UNSET
    seq: Seq | UnsetType = UNSET
    done: Seq | UnsetType = UNSET
    """The lowest seq whose answer the client still awaits."""


class BadRequestError(Exception):
    """A line that is not a request. Its reply is made of these four members."""

    def __init__(
        self,
        code: str,
        message: str,
        key: str | None = None,
        id: Raw = ABSENT,
    ) -> None:
        """Say what is wrong with a line.

        Args:
            code: `bad_request` or `too_large`.
            message: for a person: what was wrong, where in the line, what would be right.
            key: the key of the request, if it can be read.
            id: the text of its id, if it has one that can be read.

        """
        super().__init__(message)
        self.code = code
        self.message = message
        self.key = key
        self.id = id
