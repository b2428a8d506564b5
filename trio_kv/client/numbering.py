"""Writes that a client repeats: under a session of its own, so that each takes effect once, however often it is sent.

One write is under way at a time. Its seq is new, and says that all below has its answer. It is sent again, over further
connections, until the store has answered it or the client's time-out is over.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import UNSET

from trio_kv.client.errors import NotConnectedError, OutcomeUnknownError, UnauthorizedError, error_of
from trio_kv.wire.client_sessions import Numbered, OpenOrRenew
from trio_kv.wire.operations import Request
from trio_kv.wire.replies import ReplyLine

PAUSE_S: Final = 0.05
"""Before the second attempt; twice as long before each further one, up to `PAUSE_MAX_S`."""
PAUSE_MAX_S: Final = 1.0


class SessionReply(msgspec.Struct, frozen=True):
    """The members of an answer to who opens or renews a session."""

    session: str
    timeout: float
    """Seconds after which it is forgotten, if nobody uses it."""


class Numbering:
    """The session of a client, and which seq comes next. Its owner sees to it that one call is under way at a time.

    Args:
        exchange: sends a request once and returns the reply; raises as `Client.ask` does.
        timeout_s: how long a write is repeated.

    """

    def __init__(self, exchange: Callable[[Request], ReplyLine], timeout_s: float) -> None:
        """Have no session yet; see the class."""
        self._exchange = exchange
        self._timeout_s = timeout_s
        self._session: SessionReply | None = None
        self._used_s = 0.0
        self._seq = 0

    def forget(self) -> None:
        """Use another session from here on: this one is another process's."""
        self._session = None

    def ask(self, request: Request) -> ReplyLine:
        """Send a write until there is an answer, and return that, whatever it says.

        Raises:
            NotConnectedError, OutcomeUnknownError: as `Client.ask`; of the last attempt, and of all before it.

        """
        deadline_s = time.monotonic() + self._timeout_s
        session = self._session
        if session is None or time.monotonic() - self._used_s > session.timeout / 2:
            # It may be forgotten by now: and what is sent under a session that is gone has no known outcome.
            try:
                reply = self._repeat(opening_of(None), deadline_s)
            except OutcomeUnknownError as error:
                raise NotConnectedError(f"no session could be opened: {error}") from error
            if reply.code != "ok":
                return reply
            session = self._session = read_session(reply)
            self._used_s, self._seq = time.monotonic(), 0
        self._seq += 1
        operation: Any = request.operation
        numbered = Numbered(operation, session.session, self._seq, self._seq)
        begun_s = time.monotonic()
        reply = self._repeat(msgspec.structs.replace(request, operation=numbered), deadline_s)
        if reply.code == "session_expired":
            self._session = None
        else:
            self._used_s = begun_s
        return reply

    def _repeat(self, request: Request, deadline_s: float) -> ReplyLine:
        """Send a request until it has its answer, or it is too late."""
        pause_s, is_unknown = PAUSE_S, False
        while True:
            reply, error = None, None
            try:
                reply = self._exchange(request)
                error = error_of(reply, may_write=True)
            except (NotConnectedError, OutcomeUnknownError) as raised:
                error = raised
            except UnauthorizedError as raised:
                # The server does not take our token any more.
                if is_unknown:
                    raise OutcomeUnknownError(f"the write was sent, then: {raised}", raised.reply) from raised
                raise
            is_over = time.monotonic() + pause_s > deadline_s
            is_unknown = is_unknown or isinstance(error, OutcomeUnknownError)
            if reply is not None and (is_over or reply.code not in ("timeout", "unavailable")):
                if is_unknown and reply.code in ("unavailable", "overloaded", "read_only", "unauthorized"):
                    # That is true of the last attempt alone.
                    raise OutcomeUnknownError(f"the write was sent, then: {error}", reply)
                return reply
            if is_over:
                assert error is not None
                if is_unknown and not isinstance(error, OutcomeUnknownError):
                    raise OutcomeUnknownError(f"the write was sent, then: {error}") from error
                raise error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)


def is_numbered(request: Request) -> bool:
    """Return whether a request has a place in a session, or is about one."""
    return isinstance(request.operation, Numbered | OpenOrRenew)


def opening_of(session: str | None) -> Request:
    """Return the request that opens a session, or renews this one."""
    return Request(OpenOrRenew(UNSET if session is None else session))


def read_session(reply: ReplyLine) -> SessionReply:
    """Return what an answer that is ok says of a session."""
    return msgspec.json.decode(reply.line, type=SessionReply)
