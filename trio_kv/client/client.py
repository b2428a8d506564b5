"""The synchronous client: its words. How they go to the store and come back is told in `asker`.

A method returns what the store did, or raises: see `trio_kv.client.errors`.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from trio_kv.client.answers import Page, read_count, read_page
from trio_kv.client.asker import Asker, may_write_of
from trio_kv.client.errors import error_of
from trio_kv.client.numbering import SessionReply, opening_of, read_session
from trio_kv.client.txns import Members, TxnReply, make_txn, read_txn
from trio_kv.client.values import encode_value
from trio_kv.client.watch import Revision, follow
from trio_kv.wire.operations import (
    TTL_MAX_S,
    TTL_MIN_S,
    Cas,
    Delete,
    Get,
    Incr,
    Ping,
    Request,
    Scan,
    Set,
    Status,
    Watch,
)
from trio_kv.wire.replies import ReplyLine


class _Nothing:
    """Stands for a member that is left out, where None is a value."""


NOTHING: Final = _Nothing()


class Client(Asker):
    """Speaks to the client door. Safe for threads, which wait for one another, and after a fork.

    Keys are text of 1 to 4096 bytes in UTF-8. Values are what JSON has: dicts with text as keys, lists, str, int,
    float, bool and None, at most 128 deep; a `msgspec.Raw` holds JSON text that is sent as it is. In a reply `data` is
    the value as a Python object, and `value` its text; with `meta` there are `revision`, `node` and `term`, too, and
    `ttl` of a key that is not kept for good.

    All methods that ask the store raise:
        NotConnectedError: the store can't be reached; nothing was changed.
        RefusedError: the store said no, for a reason with a class of its own; nothing was changed.
        OutcomeUnknownError: a write went out, and whether it takes effect is not known.
        TypeError, ValueError: a key, a value or a revision is none; nothing was sent.

    """

    def get(self, key: str, *, is_stale: bool = False, meta: bool = False) -> ReplyLine:
        """Read a key; if it is missing the reply has the code `missing`, and None for `data`.

        Args:
            key: what to read.
            is_stale: be content with what one follower has applied.
            meta: ask for the revision, too.

        """
        return self._done(Request(Get(_key(key)), is_stale=is_stale, meta=meta))

    def set(
        self,
        key: str,
        value: object,
        *,
        if_revision: int | None = None,
        ttl_s: float | None = None,
        meta: bool = False,
    ) -> ReplyLine:
        """Give a key a value.

        Args:
            key: what to write.
            value: any JSON value; see the class.
            if_revision: only if the key has this revision; 0: must not exist.
            ttl_s: for how many seconds the key is kept at least; None: for good.
            meta: ask for the revision, too.

        Raises:
            ConflictError: the key has another revision.

        """
        revision = _revision(if_revision)
        return self._done(Request(Set(_key(key), encode_value(value), revision, _ttl(ttl_s)), meta=meta))

    def delete(self, key: str, *, if_revision: int | None = None, meta: bool = False) -> ReplyLine:
        """Remove a key; the reply carries its old value, and has the code `missing` if there was none.

        Args:
            key: what to remove.
            if_revision: only if the key has this revision.
            meta: ask for the revision, too.

        Raises:
            ConflictError: the key has another revision.

        """
        return self._done(Request(Delete(_key(key), _revision(if_revision)), meta=meta))

    def cas(
        self,
        key: str,
        value: object,
        *,
        expected: object = NOTHING,
        ttl_s: float | None = None,
        meta: bool = False,
    ) -> ReplyLine:
        """Give a key a value if it now has the expected one.

        Args:
            key: what to write.
            value: the new value.
            expected: the old one, compared as JSON; left out, the key must not exist.
            ttl_s: for how many seconds the key is kept at least; None: for good.
            meta: ask for the revision, too.

        Raises:
            ConflictError: the key has another value, which the error carries.

        """
        old = UNSET if isinstance(expected, _Nothing) else encode_value(expected)
        return self._done(Request(Cas(_key(key), encode_value(value), old, _ttl(ttl_s)), meta=meta))

    def incr(self, key: str, by: int = 1, *, ttl_s: float | None = None, meta: bool = False) -> ReplyLine:
        """Add to a whole number; the reply carries the sum. A missing key counts as 0.

        Args:
            key: what to change.
            by: how much to add; it may be negative.
            ttl_s: for how many seconds the key is kept at least from now on; None: as long as before.
            meta: ask for the revision, too.

        Raises:
            ConflictError: the key holds something else than a whole number of at most 18 digits, or the sum is none.

        """
        return self._done(Request(Incr(_key(key), _whole(by, "what to add"), _ttl(ttl_s)), meta=meta))

    def txn(
        self,
        then: Sequence[Members],
        *,
        conditions: Sequence[Members] = (),
        otherwise: Sequence[Members] = (),
    ) -> TxnReply:
        """Carry out operations together or not at all, under conditions.

        Args:
            then: the operations, get, set, delete and incr, as the protocol has them: `{"op": "incr", "key": "a"}`.
            conditions: what must hold of keys: `{"key": "a", "equals": 1}`, `{"key": "a", "revision": 7}` or
                `{"key": "a", "exists": True}`.
            otherwise: the operations if one of the conditions does not hold.

        Raises:
            ConflictError: an `incr` can't be: nothing was changed.
            TooLargeError: the results would be larger than 1 MiB: nothing was changed.
            ValueError: an element of a list can't be; nothing was sent.

        """
        return read_txn(self._done(Request(make_txn(conditions, then, otherwise))))

    def scan(
        self,
        prefix: str = "",
        *,
        after: str | None = None,
        limit: int | None = None,
        is_reversed: bool = False,
        has_values: bool = True,
        is_stale: bool = False,
    ) -> Page:
        """Read a range of keys in the order of their UTF-8 bytes: one page of them.

        Args:
            prefix: what the keys begin with.
            after: only keys above this one, such as the last one of the page before; below it if reversed.
            limit: items on the page at most; 1 to 1,000, which is also what there is without it.
            is_reversed: the last key first.
            has_values: whether values are asked for.
            is_stale: be content with what one follower has applied.

        """
        beyond = UNSET if after is None else _key(after)
        scan = Scan(_key(prefix), beyond, reverse=is_reversed, values=has_values)
        if limit is not None:
            scan = msgspec.structs.replace(scan, limit=_whole(limit, "a limit"))
        return read_page(self._done(Request(scan, is_stale=is_stale)))

    def count(self, prefix: str = "", *, is_stale: bool = False) -> int:
        """Return how many keys begin with this."""
        scan = Scan(_key(prefix), count=True)
        return read_count(self._done(Request(scan, is_stale=is_stale)))

    def watch(
        self, prefix: str | None = None, *, key: str | None = None, first: int | None = None
    ) -> Iterator[Revision]:
        """Return an iterator over what changes, without an end, over a connection of its own.

        It outlives lost connections and restarts of the server: nothing is left out, and nothing comes twice.

        Args:
            prefix: which keys: all that begin so.
            key: one key instead.
            first: the first revision to be told of; left out: what comes next.

        Raises:
            TypeError: there must be either a prefix or a key.
            CompactedError: of the iterator: what comes next is gone; its `reply.revision` is the oldest to begin with.

        """
        if (prefix is None) == (key is None):
            raise TypeError("a watch takes either a prefix or a key")
        operation = Watch(
            key=UNSET if key is None else _key(key),
            prefix=UNSET if prefix is None else _key(prefix),
            first=_revision(first),
        )
        return follow(self._open_connection, operation, timeout_s=self._timeout_s)

    def ping(self) -> ReplyLine:
        """Ask for a sign of life of the client door; no node is asked."""
        return self._done(Request(Ping()))

    def status(self) -> ReplyLine:
        """Ask for the state of the cluster; its members stand in the reply's `line`."""
        return self._done(Request(Status()))

    def session(self, session: str | None = None) -> SessionReply:
        """Open a session, or renew one, for writes that are numbered by hand (`Numbered`, `send_line`).

        Args:
            session: the id of the one to renew; None: open one.

        Raises:
            SessionExpiredError: the store does not know it, or not any more.

        """
        return read_session(self._done(opening_of(session)))

    def _done(self, request: Request) -> ReplyLine:
        """Return the reply to a request that was carried out."""
        reply = self.ask(request)
        error = error_of(reply, may_write=may_write_of(request))
        if error is not None:
            raise error
        return reply


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key is a str, not {type(key).__name__}")
    return key


def _revision(revision: object) -> int | UnsetType:
    return UNSET if revision is None else _whole(revision, "a revision")


def _ttl(ttl_s: object) -> float | UnsetType:
    if ttl_s is None:
        return UNSET
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float):
        raise TypeError(f"ttl_s is a number of seconds, not {type(ttl_s).__name__}")
    if not TTL_MIN_S <= ttl_s <= TTL_MAX_S:
        raise ValueError(
            f"ttl_s is {ttl_s}: a key is kept for {TTL_MIN_S:g} to {TTL_MAX_S} seconds, or for good"
        )
    return ttl_s


def _whole(number: object, name: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{name} is an int, not {type(number).__name__}")
    return number
