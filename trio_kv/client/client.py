"""The synchronous client: one request at a time over one connection that comes back by itself.

What the store says, errors included, is a `ReplyLine`: look at its `code`. Exceptions tell of the way to the
store, and keep apart what a caller must keep apart: `NotConnectedError`, nothing happened and the call may be
repeated; `OutcomeUnknownError`, a write went out and no answer came, so that it may or may not take effect.

A request is sent a second time only if the first can't have been read: replies come in order and a server
answers all it took before it closes, so a close line in the place of a reply means that ours was not taken.
Reads have no effect, so they are repeated after any loss of the connection.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import msgspec

from trio_kv.client.connection import LineConnection
from trio_kv.wire.requests import (
    TIMEOUT_S_DEFAULT,
    BadRequestError,
    CasRequest,
    DeleteRequest,
    GetRequest,
    PingRequest,
    ReplyError,
    ReplyLine,
    SetRequest,
    StatusRequest,
    encode_request,
    parse_line,
    parse_reply,
)

DEFAULT_PORT = 3001

REPLY_GRACE_S = 1.0
"""How much longer than the request's time-out we wait: the server, whose clock it is, should speak first."""

ATTEMPTS_MAX = 3
"""Connections tried in a row, each of them lost or closed before a reply came."""


class NotConnectedError(ConnectionError):
    """The store can't be reached; the request was not taken."""


class OutcomeUnknownError(ConnectionError):
    """A write went out and its answer did not come: it may or may not take effect."""


class _Nothing:
    """Stands for a member that is left out, where None is a value."""


NOTHING: Final = _Nothing()


class Client:
    """Speaks to the client door. Not safe for threads.

    Values are anything that msgspec encodes, or a `msgspec.Raw` that holds JSON text; a reply's `value` is
    such a text, to be read with `msgspec.json.decode`. Keys are 1 to 4096 bytes of UTF-8. With `meta` the
    reply also has `revision`, `node` and `term`.

    All methods that ask the store raise:
        NotConnectedError: the store can't be reached; nothing was changed.
        OutcomeUnknownError: a write went out, no answer came.

    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        timeout_s: float = TIMEOUT_S_DEFAULT,
        on_reconnected: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare a client; it connects when it is first used.

        Args:
            host: of the server.
            port: of the server.
            timeout_s: for each request, connecting included; sent along with the request.
            on_reconnected: called with a word for people when a lost connection is back.

        """
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._on_reconnected = on_reconnected
        self._connection: LineConnection | None = None
        self._has_been_connected = False

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as we know."""
        return self._connection is not None

    def get(self, key: str, *, is_stale: bool = False, meta: bool = False) -> ReplyLine:
        """Read a key; a missing one has the code `missing`.

        Args:
            key: what to read.
            is_stale: be content with what one follower has applied.
            meta: ask for the revision, too.

        """
        request = GetRequest(key, timeout=self._timeout_s, is_stale=is_stale, meta=meta)
        return self._exchange(encode_request(request), may_write=False)

    def set(
        self, key: str, value: object, *, if_revision: int | None = None, meta: bool = False
    ) -> ReplyLine:
        """Give a key a value.

        Args:
            key: what to write.
            value: any JSON value.
            if_revision: only if the key has this revision, else the code is `conflict`; 0: must not exist.
            meta: ask for the revision, too.

        """
        request = SetRequest(key, _encode(value), if_revision, timeout=self._timeout_s, meta=meta)
        return self._exchange(encode_request(request), may_write=True)

    def delete(self, key: str, *, if_revision: int | None = None, meta: bool = False) -> ReplyLine:
        """Remove a key; the reply carries its old value, and has the code `missing` if there was none."""
        request = DeleteRequest(key, if_revision, timeout=self._timeout_s, meta=meta)
        return self._exchange(encode_request(request), may_write=True)

    def cas(self, key: str, value: object, *, expected: object = NOTHING, meta: bool = False) -> ReplyLine:
        """Give a key a value if it now has the expected one, else the code is `conflict`.

        Args:
            key: what to write.
            value: the new value.
            expected: the old one, compared as JSON; left out, the key must not exist.
            meta: ask for the revision, too.

        """
        old = () if isinstance(expected, _Nothing) else (_encode(expected),)
        request = CasRequest(key, _encode(value), old, timeout=self._timeout_s, meta=meta)
        return self._exchange(encode_request(request), may_write=True)

    def ping(self) -> ReplyLine:
        """Ask for a sign of life of the client door; no node is asked."""
        return self._exchange(encode_request(PingRequest()), may_write=False)

    def status(self) -> ReplyLine:
        """Ask for the state of the cluster; its members stand in the reply's `line`."""
        return self._exchange(encode_request(StatusRequest()), may_write=False)

    def send_line(self, line: bytes) -> ReplyLine:
        """Send a line of the protocol as it is, and return the reply.

        Raises:
            ValueError: it is blank, or more than one line.

        """
        if not line.strip() or b"\n" in line:
            raise ValueError("a request is one line that is not blank")
        return self._exchange(line + b"\n", may_write=_may_write(line))

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _exchange(self, line: bytes, *, may_write: bool) -> ReplyLine:
        lost: Exception | None = None
        for _ in range(ATTEMPTS_MAX):
            connection = self._ready_connection()
            try:
                connection.send(line, timeout_s=self._timeout_s)
                reply = parse_reply(connection.receive_line(timeout_s=self._timeout_s + REPLY_GRACE_S))
            except (OSError, ReplyError) as error:
                self.close()
                if may_write:
                    raise OutcomeUnknownError(
                        f"the write was sent, then: {explain(error)}. It may or may not take effect"
                    ) from error
                if isinstance(error, TimeoutError):
                    raise NotConnectedError(f"{self.address} does not answer") from error
                lost = error
                continue
            except BaseException:
                self.close()  # interrupted: the reply to this request must not answer the next
                raise
            if reply.close is None:
                return reply
            self.close()
        why = "it closes every connection" if lost is None else explain(lost)
        raise NotConnectedError(f"no answer from {self.address}: {why}") from lost

    def _ready_connection(self) -> LineConnection:
        if self._connection is not None and self._connection.has_news():
            # Nothing was asked, so this is a close line or the end: the server was tired of our silence.
            self.close()
        if self._connection is None:
            try:
                self._connection = LineConnection(self._host, self._port, timeout_s=self._timeout_s)
            except OSError as error:
                raise NotConnectedError(f"no server at {self.address}: {explain(error)}") from error
            if self._has_been_connected and self._on_reconnected is not None:
                self._on_reconnected(f"connected to {self.address} again")
            self._has_been_connected = True
        return self._connection


def explain(error: Exception) -> str:
    """Return what went wrong on the way to the store, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)


def _may_write(line: bytes) -> bool:
    """Return whether a request may change something: all that is not known to be a read."""
    try:
        request = parse_line(line)
    except BadRequestError:
        return True  # a newer server may understand what we don't
    return not isinstance(request, GetRequest | PingRequest | StatusRequest)


def _encode(value: object) -> msgspec.Raw:
    return value if isinstance(value, msgspec.Raw) else msgspec.Raw(msgspec.json.encode(value))
