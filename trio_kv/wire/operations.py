"""What a client can ask for, as objects, and the limits of one line.

msgspec structs and not attrs classes: one is made for every request. The text of values and ids is kept as
it came (`msgspec.Raw`) and goes out again unchanged.
"""

from typing import Final

import msgspec

LINE_BYTES_MAX: Final = 1 << 20
"""Bytes in one line without its end. A longer one hears `too_large` and its rest is skipped."""

LINE_BYTES_LIMIT: Final = 1 << 30
"""The most that a server can be told to take as `LINE_BYTES_MAX`. A client reads lines of that length."""

KEY_BYTES_MAX: Final = 4096
"""Bytes of a key in UTF-8; it has at least one. A longer one hears `too_large`."""

TIMEOUT_S_DEFAULT: Final = 5.0
TIMEOUT_S_MAX: Final = 60.0

REVISION_MAX: Final = (1 << 63) - 1
"""The highest revision that a condition may name: what a log index can be, and what every reader can hold."""

ABSENT: Final = msgspec.Raw()
"""The text of a member that was not sent: no bytes at all, which no JSON value has."""


class Request(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What every request may carry."""

    id: msgspec.Raw = ABSENT
    """Any JSON value, echoed first in the reply."""
    timeout: float = TIMEOUT_S_DEFAULT
    """Seconds until the client wants an answer of some kind."""
    is_stale: bool = False
    """Read at once from one follower (`consistency: "stale"`); no effect on anything but a get."""
    meta: bool = False
    """The reply also carries revision, node and term."""


class SetRequest(Request, frozen=True, gc=False):
    """Give a key a value."""

    key: str
    value: msgspec.Raw
    if_revision: int | None = None


class GetRequest(Request, frozen=True, gc=False):
    """Read a key."""

    key: str


class DeleteRequest(Request, frozen=True, gc=False):
    """Remove a key."""

    key: str
    if_revision: int | None = None


class CasRequest(Request, frozen=True, gc=False):
    """Give a key a value if it now has the expected one."""

    key: str
    value: msgspec.Raw
    expected: tuple[msgspec.Raw, ...] = ()
    """One JSON text, or none: then the key must not exist."""


class PingRequest(Request, frozen=True, gc=False):
    """Ask whether the server is there."""


class StatusRequest(Request, frozen=True, gc=False):
    """Ask what the cluster looks like."""


KeyRequest = SetRequest | GetRequest | DeleteRequest | CasRequest
WriteRequest = SetRequest | DeleteRequest | CasRequest


class BadRequestError(Exception):
    """A line that is not a request. Its reply is made of these four members."""

    def __init__(
        self,
        code: str,
        message: str,
        key: str | None = None,
        id: msgspec.Raw = ABSENT,
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
