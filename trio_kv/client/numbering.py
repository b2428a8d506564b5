"""Writes that a client repeats: under a session of its own, so that each takes effect once, however often it is sent.

Each write has a new seq, and says which is the oldest one that has no answer yet. It is sent again, over further
connections, until the store has answered it or the client's time-out is over.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import UNSET

from trio_kv.client.errors import NotConnectedError, OutcomeUnknownError, StoreError
from trio_kv.client.patience import Patience
from trio_kv.wire.client_sessions import Numbered, OpenOrRenew
from trio_kv.wire.operations import Request
from trio_kv.wire.replies import ReplyLine

_APPLIED: Final = frozenset({"ok", "missing", "conflict"})
"""Codes that only a write has that was applied: others may stand for one of which the session was not told."""


class SessionReply(msgspec.Struct, frozen=True):
    """The members of an answer to who opens or renews a session."""

    session: str
    timeout: float
    """Seconds after which it is forgotten, if nobody uses it."""


class Seqs:
    """A session of a client, and the seqs of its writes. It has no clock: its owner says what time it is."""

    def __init__(self) -> None:
        """Have no session yet."""
        self._session: SessionReply | None = None
        self._used_s = 0.0
        self._seq = 0
        self._awaited: OrderedDict[int, None] = OrderedDict()
        """In the order of their numbers."""

    def is_usable(self, now_s: float) -> bool:
        """Return whether there is a session that the store has for sure.

        After half of its time-out it may be forgotten; and what is sent under one that is gone has no known outcome.
        """
        session = self._session
        return session is not None and now_s - self._used_s <= session.timeout / 2

    def open(self, session: SessionReply, now_s: float) -> None:
        """Number writes under this session from here on."""
        self._session, self._used_s, self._seq = session, now_s, 0
        self._awaited = OrderedDict()

    def forget(self) -> None:
        """Use another session from here on."""
        self._session = None

    def number(self, operation: Any) -> Numbered:
        """Give a write the next seq, and say with it that all below the oldest one that is awaited has its answer."""
        assert self._session is not None
        self._seq += 1
        self._awaited[self._seq] = None
        return Numbered(operation, self._session.session, self._seq, next(iter(self._awaited)))

    def settle(self, numbered: Numbered, begun_s: float, reply: ReplyLine | None) -> None:
        """Await a write no more.

        Args:
            numbered: what was sent.
            begun_s: when it was sent for the first time.
            reply: the last word of the store; None if there is none.

        """
        if self._session is None or numbered.session != self._session.session:
            return
        self._awaited.pop(numbered.seq, None)
        if reply is None:
            return
        if reply.code == "session_expired":
            self._session = None
        elif reply.code in _APPLIED:
            self._used_s = max(self._used_s, begun_s)


class Numbering:
    """Repeats the writes of a blocking client. Its owner sees to it that one call is under way at a time.

    Args:
        exchange: sends a request once and returns the reply; raises as `Client.ask` does.
        timeout_s: how long a write is repeated.

    """

    def __init__(self, exchange: Callable[[Request], ReplyLine], timeout_s: float) -> None:
        """Have no session yet; see the class."""
        self._exchange = exchange
        self._timeout_s = timeout_s
        self._seqs = Seqs()
        self.repeat_count = 0
        """How often something was sent again."""

    def forget(self) -> None:
        """Use another session from here on: this one is another process's."""
        self._seqs.forget()

    def ask(self, request: Request) -> ReplyLine:
        """Send a write until there is an answer, and return that, whatever it says.

        Raises:
            NotConnectedError, OutcomeUnknownError: as `Client.ask`; of the last attempt, and of all before it.

        """
        deadline_s = time.monotonic() + self._timeout_s
        if not self._seqs.is_usable(time.monotonic()):
            try:
                reply = self._repeat(opening_of(None), deadline_s)
            except OutcomeUnknownError as error:
                raise no_session(error) from error
            if reply.code != "ok":
                return reply
            self._seqs.open(read_session(reply), time.monotonic())
        numbered = self._seqs.number(request.operation)
        begun_s, final = time.monotonic(), None
        try:
            final = self._repeat(msgspec.structs.replace(request, operation=numbered), deadline_s)
        finally:
            self._seqs.settle(numbered, begun_s, final)
        return final

    def _repeat(self, request: Request, deadline_s: float) -> ReplyLine:
        """Send a request until it has its answer, or it is too late."""
        patience = Patience(deadline_s, may_write=True, is_repeatable=True)
        while True:
            pause_s: float | None
            try:
                reply = self._exchange(request)
            except StoreError as error:
                pause_s = patience.weigh_error(error, time.monotonic())
            else:
                pause_s = patience.weigh_reply(reply, time.monotonic())
                if pause_s is None:
                    return reply
            self.repeat_count += 1
            time.sleep(pause_s)


def is_numbered(request: Request) -> bool:
    """Return whether a request has a place in a session, or is about one."""
    return isinstance(request.operation, Numbered | OpenOrRenew)


def opening_of(session: str | None) -> Request:
    """Return the request that opens a session, or renews this one."""
    return Request(OpenOrRenew(UNSET if session is None else session))


def read_session(reply: ReplyLine) -> SessionReply:
    """Return what an answer that is ok says of a session."""
    return msgspec.json.decode(reply.line, type=SessionReply)


def no_session(error: OutcomeUnknownError) -> NotConnectedError:
    """Return what it means for a write that the session for it could not be opened: nothing happened."""
    return NotConnectedError(f"no session could be opened: {error}")
