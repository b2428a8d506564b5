"""The synchronous client: its words. How they go to the store and come back is told in `asker`.

A method returns what the store did, or raises: see `trio_kv.client.errors`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

from trio_kv.client import words
from trio_kv.client.answers import Page
from trio_kv.client.asker import Asker
from trio_kv.client.following import Revision
from trio_kv.client.numbering import SessionReply
from trio_kv.client.txns import Members, TxnReply
from trio_kv.client.watch import follow
from trio_kv.client.words import NOTHING, Word
from trio_kv.wire.operations import Watch
from trio_kv.wire.replies import ReplyLine

T = TypeVar("T")


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

    @overload
    def get(self, key: str, *, is_stale: bool = False, meta: bool = False) -> ReplyLine: ...
    @overload
    def get(self, key: str, kind: type[T], *, is_stale: bool = False) -> T | None: ...
    def get(
        self, key: str, kind: Any = None, *, is_stale: bool = False, meta: bool = False
    ) -> ReplyLine | Any:
        """Read a key; if it is missing the reply has the code `missing`, and None for `data`.

        Args:
            key: what to read.
            kind: return the value as this, and None if the key is missing: a class of attrs, msgspec or dataclasses, or
                a type such as `int` or `list[str]`; see `ReplyLine.to`.
            is_stale: be content with what one follower has applied.
            meta: ask for the revision, too.

        Raises:
            ValueError: the value is none of that kind.

        """
        return self._done(words.get(key, kind, is_stale=is_stale, meta=meta))

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
        return self._done(words.set(key, value, if_revision=if_revision, ttl_s=ttl_s, meta=meta))

    def delete(self, key: str, *, if_revision: int | None = None, meta: bool = False) -> ReplyLine:
        """Remove a key; the reply carries its old value, and has the code `missing` if there was none.

        Args:
            key: what to remove.
            if_revision: only if the key has this revision.
            meta: ask for the revision, too.

        Raises:
            ConflictError: the key has another revision.

        """
        return self._done(words.delete(key, if_revision=if_revision, meta=meta))

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
        return self._done(words.cas(key, value, expected=expected, ttl_s=ttl_s, meta=meta))

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
        return self._done(words.incr(key, by, ttl_s=ttl_s, meta=meta))

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
        return self._done(words.txn(then, conditions=conditions, otherwise=otherwise))

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
        return self._done(
            words.scan(
                prefix,
                after=after,
                limit=limit,
                is_reversed=is_reversed,
                has_values=has_values,
                is_stale=is_stale,
            )
        )

    def count(self, prefix: str = "", *, is_stale: bool = False) -> int:
        """Return how many keys begin with this."""
        return self._done(words.count(prefix, is_stale=is_stale))

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
        operation = words.watch(prefix, key=key, first=first)
        return self._follow(operation)

    def _follow(self, operation: Watch) -> Iterator[Revision]:
        self.watch_count += 1
        try:
            yield from follow(self._open_connection, operation, timeout_s=self._timeout_s)
        finally:
            self.watch_count -= 1

    def ping(self) -> ReplyLine:
        """Ask for a sign of life of the client door; no node is asked."""
        return self._done(words.ping())

    def status(self) -> ReplyLine:
        """Ask for the state of the cluster; its members stand in the reply's `line`."""
        return self._done(words.status())

    def session(self, session: str | None = None) -> SessionReply:
        """Open a session, or renew one, for writes that are numbered by hand (`Numbered`, `send_line`).

        Args:
            session: the id of the one to renew; None: open one.

        Raises:
            SessionExpiredError: the store does not know it, or not any more.

        """
        return self._done(words.session(session))

    def _done(self, word: Word[T]) -> T:
        """Ask, and return what was asked for."""
        return word.finish(self.ask(word.request))
