"""The synchronous client: one request at a time over one connection that comes back by itself.

What can be asked for stands in `client`. `ask` is the way below, for who wants to look at every answer: it raises only
for the way to the store, and keeps apart what a caller must keep apart: `NotConnectedError`, nothing happened and the
call may be repeated; `OutcomeUnknownError`, a write went out and no answer came, so that it may or may not take effect.

A request is sent a second time only if the first can't have been read: replies come in order and a server
answers all it took before it closes, so a close line in the place of a reply means that ours was not taken.
Reads have no effect, so they are repeated after any loss of the connection.

No answer is ever taken for another's. Only a connection that owes none is kept: it is taken away for an exchange
and put back when the whole reply is there, so whatever ends a call early, be it Ctrl-C, ends the connection, too. And a
process that was forked leaves its parent's connection alone and opens its own.
"""

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

import msgspec

from trio_kv.client.addresses import (
    DEFAULT_PORT,
    REPLY_GRACE_S,
    Address,
    check_addresses,
    check_timeout,
    format_address,
)
from trio_kv.client.connection import LineConnection
from trio_kv.client.errors import NotConnectedError, OutcomeUnknownError, error_of, explain
from trio_kv.client.numbering import Numbering, is_numbered
from trio_kv.client.pipeline import CAN_NOT_SERVE, STRIKES_MAX
from trio_kv.client.statistics import ClientStatistics
from trio_kv.client.words import may_write_of
from trio_kv.wire.operations import (
    TIMEOUT_S_DEFAULT,
    Auth,
    Ping,
    Request,
    Status,
)
from trio_kv.wire.operations import BadRequestError as NoRequestError
from trio_kv.wire.replies import ReplyError, ReplyLine, parse_reply
from trio_kv.wire.requests import encode_request, parse_line

if TYPE_CHECKING:
    from trio_kv.client.tls import Tls

ATTEMPTS_MAX = 3
"""Connections tried in a row, each of them lost or closed before a reply came."""


class Asker:
    """Sends requests, one at a time, and returns what is answered. See `Client`, which knows the words.

    Safe for threads, which wait for one another, and after a fork.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        fallbacks: Sequence[Address] = (),
        timeout_s: float = TIMEOUT_S_DEFAULT,
        on_reconnected: Callable[[str], None] | None = None,
        repeats_writes: bool = False,
        token: str | None = None,
        tls: "Tls | None" = None,
    ) -> None:
        """Prepare a client; it connects when it is first used.

        Args:
            host: of the server.
            port: of the server.
            fallbacks: hosts and ports of other servers of the same cluster. When a server can't be reached, or says
                again and again that it can't serve, the next one is asked.
            timeout_s: for each request, connecting included; sent along with the request. Above 0, at most 60.
            on_reconnected: called with a word for people when a lost connection is back.
            repeats_writes: whether a write that has no answer is sent again until the time-out is over. It goes out
                under a session of this client, so that it takes effect once.
            token: shown first on each connection, to a server that wants one.
            tls: how to know the server, and be known to it; None for plain TCP.

        Raises:
            ValueError: the port or the time-out can't be.

        """
        self._addresses = check_addresses(host, port, fallbacks)
        self._place = 0
        """Of the address that served last."""
        self._timeout_s = check_timeout(timeout_s)
        self._on_reconnected = on_reconnected
        self._token = token
        self._tls = tls
        self._connection: LineConnection | None = None
        self._has_been_connected = False
        self._strikes = 0
        self._connections = self._requests = self._replies = self._repetitions = 0
        self.watch_count = 0
        """How many watches are open."""
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._is_busy = False
        self._numbering = Numbering(self._ask_once, timeout_s) if repeats_writes else None

    @property
    def address(self) -> str:
        """Of the server that served last, or is asked next, for people."""
        return format_address(self._addresses[self._place])

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as we know."""
        return self._connection is not None

    def ask(self, request: Request) -> ReplyLine:
        """Send a request and return the reply, whatever it says: look at its `code`.

        Args:
            request: it gets the client's time-out.

        Raises:
            NotConnectedError: the store can't be reached; nothing was changed.
            OutcomeUnknownError: a write went out, and no answer came.

        """
        if self._numbering is None or not may_write_of(request) or is_numbered(request):
            return self._ask_once(request)
        self._notice_fork()
        with self._lock:
            return self._numbering.ask(request)

    def _ask_once(self, request: Request) -> ReplyLine:
        if not isinstance(request.operation, Ping | Status | Auth):
            request = msgspec.structs.replace(request, timeout=self._timeout_s)
        return self._exchange(encode_request(request), may_write=may_write_of(request))

    def send_line(self, line: bytes) -> ReplyLine:
        """Send a line of the protocol as it is, and return the reply, whatever it says.

        Raises:
            ValueError: it is blank, or more than one line.
            NotConnectedError: the store can't be reached; nothing was changed.
            OutcomeUnknownError: something that may be a write went out, and no answer came.

        """
        if not line.strip() or b"\n" in line:
            raise ValueError("a request is one line that is not blank")
        return self._exchange(line + b"\n", may_write=may_write_of(_read_line(line)))

    def close(self) -> None:
        """Close the connection, when no call is under way; the next request opens another."""
        self._notice_fork()
        with self._lock:
            self._drop_connection()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def statistics(self) -> ClientStatistics:
        """Return what the client has done so far; calls of other threads that wait for this one's are not counted."""
        numbering = self._numbering
        return ClientStatistics(
            address=self.address if self.is_connected or self._is_busy else None,
            calls_waiting=0,
            calls_in_flight=int(self._is_busy),
            connections=self._connections,
            requests=self._requests,
            replies=self._replies,
            replies_dropped=0,
            repetitions=self._repetitions + (0 if numbering is None else numbering.repeat_count),
            watches=self.watch_count,
        )

    def _exchange(self, line: bytes, *, may_write: bool) -> ReplyLine:
        self._notice_fork()
        with self._lock:
            if self._is_busy:
                raise RuntimeError(
                    "a client can't be used inside a call of its own, as from a signal handler"
                )
            self._is_busy = True
            try:
                return self._exchange_alone(line, may_write=may_write)
            finally:
                self._is_busy = False

    def _exchange_alone(self, line: bytes, *, may_write: bool) -> ReplyLine:
        lost: Exception | None = None
        for attempt in range(ATTEMPTS_MAX):
            connection = self._take_connection()
            is_sound = False
            self._requests += 1
            self._repetitions += attempt > 0
            try:
                connection.send(line, timeout_s=self._timeout_s)
                reply = parse_reply(connection.receive_line(timeout_s=self._timeout_s + REPLY_GRACE_S))
                is_sound = reply.close is None
                self._replies += is_sound
            except (OSError, ReplyError) as error:
                if may_write:
                    raise OutcomeUnknownError(
                        f"the write was sent, then: {explain(error)}. It may or may not take effect"
                    ) from error
                if isinstance(error, TimeoutError):
                    raise NotConnectedError(f"{self.address} does not answer") from error
                lost = error
                continue
            finally:
                if is_sound:
                    self._connection = connection
                else:
                    connection.close()
            if is_sound:
                self._weigh(reply)
                return reply
        why = "it closes every connection" if lost is None else explain(lost)
        raise NotConnectedError(f"no answer from {self.address}: {why}") from lost

    def _weigh(self, reply: ReplyLine) -> None:
        """Leave a server that has said for some time that it can't serve, if there is another."""
        self._strikes = self._strikes + 1 if reply.error in CAN_NOT_SERVE else 0
        if self._strikes >= STRIKES_MAX and len(self._addresses) > 1:
            self._drop_connection()
            self._turn()

    def _turn(self) -> None:
        self._place = (self._place + 1) % len(self._addresses)
        self._strikes = 0

    def _take_connection(self) -> LineConnection:
        """Return a connection that owes no reply. It is the caller's, to be put back or closed."""
        kept, self._connection = self._connection, None
        if kept is not None:
            if not kept.has_news():
                return kept
            # Nothing was asked, so this is a close line or the end: the server was tired of our silence.
            kept.close()
        connection = self._open_connection()
        if self._has_been_connected and self._on_reconnected is not None:
            self._on_reconnected(f"connected to {self.address} again")
        self._has_been_connected = True
        return connection

    def _open_connection(self) -> LineConnection:
        """Return a new connection to the first server that takes us."""
        reasons: list[str] = []
        while True:
            try:
                return self._open_one()
            except NotConnectedError as error:
                reasons.append(str(error))
                self._turn()
                if len(reasons) == len(self._addresses):
                    raise NotConnectedError("; ".join(reasons)) from error

    def _open_one(self) -> LineConnection:
        host, port = self._addresses[self._place]
        timeout_s = self._timeout_s / len(self._addresses)
        try:
            connection = LineConnection(host, port, timeout_s=timeout_s, tls=self._tls)
        except OSError as error:
            raise NotConnectedError(f"no server at {self.address}: {explain(error)}") from error
        self._introduce(connection)
        self._connections += 1
        return connection

    def _introduce(self, connection: LineConnection) -> None:
        """Show the token, and learn whether the server takes us: over TLS it may refuse behind its handshake.

        Raises:
            NotConnectedError: it does not, or does not answer.
            UnauthorizedError: it does not know the token.

        """
        if self._token is None and self._tls is None:
            return
        operation = Ping() if self._token is None else Auth(self._token)
        is_taken = False
        try:
            connection.send(encode_request(Request(operation)), timeout_s=self._timeout_s)
            # A wrong token that came before makes this one wait.
            reply = parse_reply(connection.receive_line(timeout_s=self._timeout_s + REPLY_GRACE_S))
            error = error_of(reply, may_write=False)
            if error is not None and self._token is not None:
                raise error
            is_taken = reply.close is None
        except (OSError, ReplyError) as error:
            raise NotConnectedError(f"no answer from {self.address}: {explain(error)}") from error
        finally:
            if not is_taken:
                connection.close()
        if not is_taken:
            raise NotConnectedError(f"{self.address} closes every connection")

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            # The connection is our parent's, and so may the lock be. Closing it here ends it for us alone.
            self._drop_connection()
            self._has_been_connected = self._is_busy = False
            self._pid, self._lock = os.getpid(), threading.RLock()
            if self._numbering is not None:
                self._numbering.forget()

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _read_line(line: bytes) -> Request | None:
    try:
        return parse_line(line)
    except NoRequestError:
        return None
