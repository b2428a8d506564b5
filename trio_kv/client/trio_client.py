"""The client on Trio. Many tasks share it, and its one connection; cancel a call, and the others never notice.

A call is sent again while that can't do harm and its time is not over, see `patience`. Unless it was told not to, the
client numbers its writes, so that each takes effect once, however often it is sent.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec
import trio

from trio_kv.client import words
from trio_kv.client.addresses import (
    DEFAULT_PORT,
    REPLY_GRACE_S,
    Address,
    check_addresses,
    check_timeout,
)
from trio_kv.client.answers import Page
from trio_kv.client.background import running_beside
from trio_kv.client.dialler import Dialled, Dialler, OpenStream, open_tcp
from trio_kv.client.errors import OutcomeUnknownError, StoreError
from trio_kv.client.link import Link
from trio_kv.client.numbering import Seqs, SessionReply, is_numbered, no_session, opening_of, read_session
from trio_kv.client.patience import Patience
from trio_kv.client.statistics import ClientStatistics
from trio_kv.client.trio_watch import Watcher
from trio_kv.client.txns import Members, TxnReply
from trio_kv.client.words import NOTHING, Word, may_write_of
from trio_kv.wire.operations import TIMEOUT_S_DEFAULT, Auth, Ping, Request, Status
from trio_kv.wire.replies import ReplyLine
from trio_kv.wire.requests import encode_request

if TYPE_CHECKING:
    from trio_kv.client.tls import Tls

T = TypeVar("T")

TIMEOUT_STEP_S = 0.25
"""Time-outs on the wire are multiples of it: what is carried out together has one of them."""


class TrioClient:
    """Speaks to the client door, from any number of tasks. `open_client` makes one.

    Keys, values, replies and errors are those of `Client`, and so are the methods. A call ends when its cancel scope
    says so, and at the latest when `timeout_s` of the client is over. A write that was cancelled may or may not take
    effect, and its reply is nobody's.

    All methods that ask the store raise, beside what `Client` raises:
        trio.ClosedResourceError: the client is closed.

    """

    def __init__(self, dialler: Dialler, *, timeout_s: float, repeats_writes: bool) -> None:
        """Prepare a client whose connection somebody else keeps: see `open_client`."""
        self._dialler = dialler
        self._timeout_s = timeout_s
        self._link = Link(dialler, timeout_s)
        self._seqs = Seqs() if repeats_writes else None
        self._opening = trio.Lock()
        self._repetitions = 0
        self._watchers: set[Watcher] = set()

    # The words

    @overload
    async def get(self, key: str, *, is_stale: bool = False, meta: bool = False) -> ReplyLine: ...
    @overload
    async def get(self, key: str, kind: type[T], *, is_stale: bool = False) -> T | None: ...
    async def get(
        self, key: str, kind: Any = None, *, is_stale: bool = False, meta: bool = False
    ) -> ReplyLine | Any:
        """Read a key; with a `kind` return its value as that. See `Client.get`."""
        return await self._done(words.get(key, kind, is_stale=is_stale, meta=meta))

    async def set(
        self,
        key: str,
        value: object,
        *,
        if_revision: int | None = None,
        ttl_s: float | None = None,
        meta: bool = False,
    ) -> ReplyLine:
        """Give a key a value. See `Client.set`."""
        return await self._done(words.set(key, value, if_revision=if_revision, ttl_s=ttl_s, meta=meta))

    async def delete(self, key: str, *, if_revision: int | None = None, meta: bool = False) -> ReplyLine:
        """Remove a key; the reply carries its old value. See `Client.delete`."""
        return await self._done(words.delete(key, if_revision=if_revision, meta=meta))

    async def cas(
        self,
        key: str,
        value: object,
        *,
        expected: object = NOTHING,
        ttl_s: float | None = None,
        meta: bool = False,
    ) -> ReplyLine:
        """Give a key a value if it now has the expected one. See `Client.cas`."""
        return await self._done(words.cas(key, value, expected=expected, ttl_s=ttl_s, meta=meta))

    async def incr(
        self, key: str, by: int = 1, *, ttl_s: float | None = None, meta: bool = False
    ) -> ReplyLine:
        """Add to a whole number; the reply carries the sum. See `Client.incr`."""
        return await self._done(words.incr(key, by, ttl_s=ttl_s, meta=meta))

    async def txn(
        self,
        then: Sequence[Members],
        *,
        conditions: Sequence[Members] = (),
        otherwise: Sequence[Members] = (),
    ) -> TxnReply:
        """Carry out operations together or not at all, under conditions. See `Client.txn`."""
        return await self._done(words.txn(then, conditions=conditions, otherwise=otherwise))

    async def scan(
        self,
        prefix: str = "",
        *,
        after: str | None = None,
        limit: int | None = None,
        is_reversed: bool = False,
        has_values: bool = True,
        is_stale: bool = False,
    ) -> Page:
        """Read one page of keys, in the order of their bytes. See `Client.scan`."""
        return await self._done(
            words.scan(
                prefix,
                after=after,
                limit=limit,
                is_reversed=is_reversed,
                has_values=has_values,
                is_stale=is_stale,
            )
        )

    async def count(self, prefix: str = "", *, is_stale: bool = False) -> int:
        """Return how many keys begin with this."""
        return await self._done(words.count(prefix, is_stale=is_stale))

    def watch(
        self, prefix: str | None = None, *, key: str | None = None, first: int | None = None
    ) -> Watcher:
        """Return what changes, to iterate over. See `Client.watch`.

        It begins with the first iteration, over a connection of its own, and ends with the client, or earlier with
        `aclose` or `async with`. What is not taken waits at the server.
        """
        if self._link.is_closed:
            raise trio.ClosedResourceError("this client is closed")
        operation = words.watch(prefix, key=key, first=first)
        return Watcher(self._dialler, operation, timeout_s=self._timeout_s, watchers=self._watchers)

    async def ping(self) -> ReplyLine:
        """Ask for a sign of life of the client door; no node is asked."""
        return await self._done(words.ping())

    async def status(self) -> ReplyLine:
        """Ask for the state of the cluster; its members stand in the reply's `line`."""
        return await self._done(words.status())

    async def session(self, session: str | None = None) -> SessionReply:
        """Open a session, or renew one, for writes that are numbered by hand. See `Client.session`."""
        return await self._done(words.session(session))

    # The way

    async def ask(self, request: Request) -> ReplyLine:
        """Send a request and return the reply, whatever it says: look at its `code`.

        Args:
            request: it gets the client's time-out, or what is left of it when it is sent again.

        Raises:
            NotConnectedError: the store can't be reached; nothing was changed.
            OutcomeUnknownError: a write went out, and no answer came.
            trio.ClosedResourceError: the client is closed.

        """
        may_write = may_write_of(request)
        deadline_s = trio.current_time() + self._timeout_s
        if self._seqs is not None and may_write and not is_numbered(request):
            return await self._ask_numbered(self._seqs, request, deadline_s)
        is_repeatable = not may_write or is_numbered(request)
        return await self._repeat(
            request, Patience(deadline_s, may_write=may_write, is_repeatable=is_repeatable)
        )

    def statistics(self) -> ClientStatistics:
        """Return what the client has done so far."""
        pipeline = self._link.pipeline
        return ClientStatistics(
            address=self._link.address,
            calls_waiting=pipeline.waiting_count,
            calls_in_flight=pipeline.in_flight_count,
            connections=self._link.connection_count,
            requests=pipeline.request_count,
            replies=pipeline.reply_count,
            replies_dropped=pipeline.dropped_count,
            repetitions=self._repetitions,
            watches=len(self._watchers),
        )

    async def run(self, dialled: Dialled) -> None:
        """Keep the connection, beginning with this one, until cancelled. For `open_client`."""
        await self._link.run(dialled)

    async def aclose(self) -> None:
        """Close the connection, and all watches. Calls under way, and later ones, raise `trio.ClosedResourceError`."""
        self._link.close()
        for watcher in list(self._watchers):
            await watcher.aclose()
        await trio.lowlevel.checkpoint()

    async def _done(self, word: Word[T]) -> T:
        """Ask, and return what was asked for."""
        return word.finish(await self.ask(word.request))

    async def _ask_numbered(self, seqs: Seqs, request: Request, deadline_s: float) -> ReplyLine:
        """Send a write under a seq until it has its answer."""
        if not seqs.is_usable(trio.current_time()):
            refusal = await self._open_session(seqs, deadline_s)
            if refusal is not None:
                return refusal
        numbered = seqs.number(request.operation)
        begun_s, final = trio.current_time(), None
        try:
            patience = Patience(deadline_s, may_write=True, is_repeatable=True)
            final = await self._repeat(msgspec.structs.replace(request, operation=numbered), patience)
        finally:
            seqs.settle(numbered, begun_s, final)
        return final

    async def _open_session(self, seqs: Seqs, deadline_s: float) -> ReplyLine | None:
        """Open a session, unless another task has done so meanwhile; return what stands against it."""
        async with self._opening:
            if seqs.is_usable(trio.current_time()):
                return None
            patience = Patience(deadline_s, may_write=True, is_repeatable=True)
            try:
                reply = await self._repeat(opening_of(None), patience)
            except OutcomeUnknownError as error:
                raise no_session(error) from error
            if reply.code != "ok":
                return reply
            seqs.open(read_session(reply), trio.current_time())
            return None

    async def _repeat(self, request: Request, patience: Patience) -> ReplyLine:
        """Send a request until it has its answer, or it is too late."""
        while True:
            line = encode_request(self._time(request, patience.deadline_s))
            pause_s: float | None
            try:
                reply = await self._link.attempt(
                    line,
                    may_write=patience.may_write,
                    deadline_s=patience.deadline_s + REPLY_GRACE_S,
                )
            except StoreError as error:
                pause_s = patience.weigh_error(error, trio.current_time())
            else:
                pause_s = patience.weigh_reply(reply, trio.current_time())
                if pause_s is None:
                    return reply
            self._repetitions += 1
            await trio.sleep(pause_s)

    def _time(self, request: Request, deadline_s: float) -> Request:
        """Return a request with what time it has."""
        if isinstance(request.operation, Ping | Status | Auth):
            return request
        left_s = deadline_s - trio.current_time()
        steps = -(-left_s // TIMEOUT_STEP_S)
        timeout_s = min(self._timeout_s, max(steps, 1.0) * TIMEOUT_STEP_S)
        return (
            request if timeout_s == request.timeout else msgspec.structs.replace(request, timeout=timeout_s)
        )


@contextlib.asynccontextmanager
async def open_client(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    fallbacks: Sequence[Address] = (),
    timeout_s: float = TIMEOUT_S_DEFAULT,
    repeats_writes: bool = True,
    token: str | None = None,
    tls: "Tls | None" = None,
    open_stream: OpenStream = open_tcp,
) -> AsyncIterator[TrioClient]:
    """Connect to a store, and keep connected for as long as the context lasts.

    Args:
        host: of the server.
        port: of the server.
        fallbacks: hosts and ports of other servers of the same cluster. When a server can't be reached, does not
            answer, or says again and again that it can't serve, the next one is asked.
        timeout_s: for each call, in seconds: the longest that it takes, reconnecting and repeating included. Above 0,
            at most 60. A second more may pass while a server is given the last word. Use cancel scopes for less.
        repeats_writes: whether a write that has no answer is sent again. It goes out under a session of this client,
            so that it takes effect once.
        token: shown first on each connection, to a server that wants one.
        tls: how to know the server, and be known to it; None for plain streams.
        open_stream: opens a stream to a host and port; TCP by default. Raises OSError: nobody is there.

    Raises:
        NotConnectedError: no server is there.
        UnauthorizedError: the server does not know the token.
        ValueError: a port or the time-out can't be.

    """
    addresses = check_addresses(host, port, fallbacks)
    dialler = Dialler(
        addresses, timeout_s=check_timeout(timeout_s), token=token, tls=tls, open_stream=open_stream
    )
    dialled = await dialler.dial()
    client = TrioClient(dialler, timeout_s=timeout_s, repeats_writes=repeats_writes)
    async with running_beside(lambda: client.run(dialled)):
        try:
            yield client
        finally:
            with trio.CancelScope(shield=True):
                await client.aclose()
