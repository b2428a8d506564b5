"""A watch, as an iterator: what changes, one revision after the other, over whatever connections that takes."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from trio_kv.client.connection import LineConnection
from trio_kv.client.errors import NotConnectedError, OverloadedError, UnavailableError, error_of
from trio_kv.wire.operations import ABSENT, Request, Watch
from trio_kv.wire.replies import ReplyError, parse_reply
from trio_kv.wire.requests import encode_request

PROGRESS_S: Final = 5.0
"""The server says so often that it is there; one that says nothing for three times as long is given up."""
ATTEMPTS_MAX: Final = 10
RETRY_S: Final = 0.3
"""So many connections are tried in a row, so long after one another."""
_ID: Final = Raw(b"1")


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


def follow(
    connect: Callable[[], LineConnection], operation: Watch, *, timeout_s: float
) -> Iterator[Revision]:
    """Yield what changes, without an end.

    A connection that is lost is no matter: the next one goes on behind the last revision. Nothing is left out, and
    nothing comes twice.

    Args:
        connect: opens a connection of its own.
        operation: what to watch, and from where on.
        timeout_s: for each connection, until the watch has begun.

    Raises:
        NotConnectedError: the server can't be reached any more.
        CompactedError: what comes next is gone; its reply tells the oldest revision to begin with.
        RefusedError: the server refuses for another reason.

    """
    operation = msgspec.structs.replace(operation, progress=PROGRESS_S)
    failures = 0
    while True:
        connection: LineConnection | None = None
        try:
            connection = connect()
            begun = _begin(connection, operation, timeout_s)
            if operation.first is UNSET:
                operation = msgspec.structs.replace(operation, first=begun + 1)
            while (line := _decode(connection.receive_line(timeout_s=3 * PROGRESS_S))).revision:
                failures = 0
                if line.event != "lost":
                    operation = msgspec.structs.replace(operation, first=line.revision + 1)
                if line.events:
                    yield Revision(line.revision, line.events)
                elif line.event == "lost":
                    break
        except (OSError, ReplyError, msgspec.DecodeError, UnavailableError, OverloadedError) as error:
            failures += 1
            if failures == ATTEMPTS_MAX:
                if isinstance(error, NotConnectedError | UnavailableError | OverloadedError):
                    raise
                raise NotConnectedError(f"the watch ended, and can't go on: {error}") from error
            time.sleep(RETRY_S)
        finally:
            if connection is not None:
                connection.close()


def _begin(connection: LineConnection, operation: Watch, timeout_s: float) -> int:
    """Let a watch begin; return up to where all was applied."""
    connection.send(encode_request(Request(operation, _ID, timeout_s)), timeout_s=timeout_s)
    reply = parse_reply(connection.receive_line(timeout_s=timeout_s + RETRY_S))
    if reply.close is not None:
        raise ReplyError(f"the server said {reply.close}")
    error = error_of(reply, may_write=False)
    if error is not None:
        raise error
    assert reply.revision is not None
    return reply.revision
