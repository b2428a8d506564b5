"""What is common to the watches of both clients: what is asked, what comes, and when to give up. Pure.

A connection that is lost is no matter: the next one goes on behind the last revision. Nothing is left out, and nothing
comes twice.
"""

from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Raw

from trio_kv.client.errors import NotConnectedError, OverloadedError, UnavailableError, error_of
from trio_kv.wire.operations import ABSENT, Request, Watch
from trio_kv.wire.replies import ReplyError, parse_reply, read_as
from trio_kv.wire.requests import encode_request

PROGRESS_S: Final = 5.0
"""The server says so often that it is there; one that says nothing for three times as long is given up."""
ATTEMPTS_MAX: Final = 10
RETRY_S: Final = 0.3
"""So many connections are tried in a row, so long after one another."""
SILENCE_S: Final = 3 * PROGRESS_S
_ID: Final = Raw(b"1")
T = TypeVar("T")


class Event(msgspec.Struct, frozen=True):
    """What a revision did to one key."""

    event: str
    """`set`, `delete` or `expire`."""
    key: str
    value: Raw = ABSENT
    """The JSON text of the value that was set; empty if the key is gone."""

    @property
    def data(self) -> Any:
        """The value as a Python object; None if the key is gone."""
        return msgspec.json.decode(self.value) if len(self.value) else None

    def to(self, kind: type[T]) -> T | None:
        """Return the value as one of a kind, see `ReplyLine.to`; None if the key is gone."""
        return read_as(self.value, kind) if len(self.value) else None


class Revision(msgspec.Struct, frozen=True):
    """All that one revision did to the watched keys."""

    revision: int
    events: tuple[Event, ...] = ()


class _Line(msgspec.Struct):
    """A line of a watch."""

    revision: int = 0
    events: tuple[Event, ...] = ()
    event: str = ""
    close: str = ""


_decode = msgspec.json.Decoder(_Line).decode


class Following:
    """One watch, over however many connections. Its driver does for each:

    1. Send `request`, and give the first line that comes to `begin`.
    2. Give each further line to `take`, and hand out what that returns, as long as `is_on` says so; then close it.
    3. Say to `fail` what went wrong with it, if something did, and wait for `RETRY_S`.

    Raises of all its methods:
        ReplyError, msgspec.DecodeError: this is no line of a watch; it is for `fail`, as errors of the connection are.

    """

    def __init__(self, operation: Watch) -> None:
        """Begin with this operation."""
        self._operation = msgspec.structs.replace(operation, progress=PROGRESS_S)
        self._failures = 0
        self.is_on = False
        """Whether the connection brings lines still."""

    def request(self, timeout_s: float) -> bytes:
        """Return the line that lets the watch begin, or go on."""
        return encode_request(Request(self._operation, _ID, timeout_s))

    def begin(self, line: bytes) -> None:
        """Look at the answer.

        Raises:
            CompactedError: what comes next is gone; its reply tells the oldest revision to begin with.
            RefusedError: the server refuses for another reason.

        """
        reply = parse_reply(line)
        if reply.close is not None:
            raise ReplyError(f"the server said {reply.close}")
        error = error_of(reply, may_write=False)
        if error is not None:
            raise error
        assert reply.revision is not None
        if self._operation.first is UNSET:
            self._operation = msgspec.structs.replace(self._operation, first=reply.revision + 1)
        self.is_on = True

    def take(self, line: bytes) -> Revision | None:
        """Return what a line tells of a revision, if it does; without events it says that there is no more up to it."""
        told = _decode(line)
        if not told.revision:
            self.is_on = False
            return None
        self._failures = 0
        if told.event == "lost":
            self.is_on = False
            return None
        self._operation = msgspec.structs.replace(self._operation, first=told.revision + 1)
        return Revision(told.revision, told.events)

    def fail(self, error: Exception) -> None:
        """Count what went wrong.

        Raises:
            NotConnectedError, UnavailableError, OverloadedError: it was too often.

        """
        self._failures += 1
        if self._failures < ATTEMPTS_MAX:
            return
        if isinstance(error, NotConnectedError | UnavailableError | OverloadedError):
            raise error
        raise NotConnectedError(f"the watch ended, and can't go on: {error}") from error


PASSING: Final = (OSError, ReplyError, msgspec.DecodeError, UnavailableError, OverloadedError)
"""What goes wrong with a connection, so that another is tried."""
