"""What a client can ask for: each word as a request, and how its reply is read. Both clients speak with these.

A word checks what it is given before anything is sent. How requests go to the store, and come back, is told in `asker`
for the blocking client and in `link` for the one on Trio.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from trio_kv.client.answers import Page, read_count, read_page
from trio_kv.client.errors import error_of
from trio_kv.client.numbering import SessionReply, opening_of, read_session
from trio_kv.client.txns import Members, TxnReply, make_txn, read_txn
from trio_kv.client.values import encode_value
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
    WriteOperation,
)
from trio_kv.wire.replies import ReplyLine

T = TypeVar("T")


class _Nothing:
    """Stands for a member that is left out, where None is a value."""


NOTHING: Final = _Nothing()


class Word(NamedTuple, Generic[T]):
    """Something to ask the store for."""

    request: Request
    read: Callable[[ReplyLine], T]
    """Makes of a reply that is ok, or tells of a missing key, what the caller gets."""

    def finish(self, reply: ReplyLine) -> T:
        """Return what the caller gets.

        Raises:
            StoreError: the store did something else.

        """
        error = error_of(reply, may_write=may_write_of(self.request))
        if error is not None:
            raise error
        return self.read(reply)


def get(key: str, kind: Any, *, is_stale: bool, meta: bool) -> Word[Any]:
    """Read a key: as a value of a kind, None if it is missing; without a kind, the reply."""
    request = Request(Get(_key(key)), is_stale=is_stale, meta=meta)
    return Word(request, _itself) if kind is None else Word(request, lambda reply: reply.to(kind))


def set(
    key: str, value: object, *, if_revision: int | None, ttl_s: float | None, meta: bool
) -> Word[ReplyLine]:
    """Give a key a value."""
    operation = Set(_key(key), encode_value(value), _revision(if_revision), _ttl(ttl_s))
    return Word(Request(operation, meta=meta), _itself)


def delete(key: str, *, if_revision: int | None, meta: bool) -> Word[ReplyLine]:
    """Remove a key."""
    return Word(Request(Delete(_key(key), _revision(if_revision)), meta=meta), _itself)


def cas(key: str, value: object, *, expected: object, ttl_s: float | None, meta: bool) -> Word[ReplyLine]:
    """Give a key a value if it has the expected one."""
    old = UNSET if isinstance(expected, _Nothing) else encode_value(expected)
    return Word(Request(Cas(_key(key), encode_value(value), old, _ttl(ttl_s)), meta=meta), _itself)


def incr(key: str, by: int, *, ttl_s: float | None, meta: bool) -> Word[ReplyLine]:
    """Add to a whole number."""
    return Word(Request(Incr(_key(key), _whole(by, "what to add"), _ttl(ttl_s)), meta=meta), _itself)


def txn(
    then: Sequence[Members], *, conditions: Sequence[Members], otherwise: Sequence[Members]
) -> Word[TxnReply]:
    """Carry out operations together, under conditions."""
    return Word(Request(make_txn(conditions, then, otherwise)), read_txn)


def scan(
    prefix: str,
    *,
    after: str | None,
    limit: int | None,
    is_reversed: bool,
    has_values: bool,
    is_stale: bool,
) -> Word[Page]:
    """Read a page of keys."""
    beyond = UNSET if after is None else _key(after)
    operation = Scan(_key(prefix), beyond, reverse=is_reversed, values=has_values)
    if limit is not None:
        operation = msgspec.structs.replace(operation, limit=_whole(limit, "a limit"))
    return Word(Request(operation, is_stale=is_stale), read_page)


def count(prefix: str, *, is_stale: bool) -> Word[int]:
    """Count keys."""
    return Word(Request(Scan(_key(prefix), count=True), is_stale=is_stale), read_count)


def watch(prefix: str | None, *, key: str | None, first: int | None) -> Watch:
    """Be told of what changes."""
    if (prefix is None) == (key is None):
        raise TypeError("a watch takes either a prefix or a key")
    return Watch(
        key=UNSET if key is None else _key(key),
        prefix=UNSET if prefix is None else _key(prefix),
        first=_revision(first),
    )


def ping() -> Word[ReplyLine]:
    """Ask for a sign of life."""
    return Word(Request(Ping()), _itself)


def status() -> Word[ReplyLine]:
    """Ask for the state of the cluster."""
    return Word(Request(Status()), _itself)


def session(session: str | None) -> Word[SessionReply]:
    """Open a session, or renew one."""
    return Word(opening_of(session), read_session)


def may_write_of(request: Request | None) -> bool:
    """Return whether a request may change something; a newer server may understand one that we don't."""
    return request is None or isinstance(request.operation, WriteOperation)


def _itself(reply: ReplyLine) -> ReplyLine:
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
