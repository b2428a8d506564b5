"""Replies, both ways: what the server writes and what a client reads.

The spacing is part of the protocol: one space after `:` and `,`, members in the order shown there. Values go
out as the text that came in.
"""

import json
from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

import msgspec

from trio_kv.kv.reply import Reply, TimedReply
from trio_kv.wire.operations import ABSENT, Request

T = TypeVar("T")

CLOSE_OK: Final = b'{"close": "ok"}\n'
"""Said to a connection that was idle for too long."""

CLOSE_SHUTDOWN: Final = b'{"close": "shutdown"}\n'
"""Said to every connection by a server that stops."""

DEFAULT_MESSAGES: Final[Mapping[str, str]] = {
    "bad_request": "the request can't be understood",
    "too_large": "the line, key or result is over its limit",
    "unauthorized": "a token is needed",
    "unavailable": "no leader or no majority answered in time; nothing was changed",
    "overloaded": "a queue is full; nothing was changed, try again later",
    "conflict": "the condition does not hold; `value` is the current value",
    "read_only": "the disks of a majority of nodes are full; nothing was changed",
    "compacted": "the history asked for is gone",
    "session_expired": "this session or seq was forgotten; whether it took effect is not known",
    "timeout": "no answer in time; it may have taken effect, or still do so",
}
"""What an error says whose reply brings no words of its own."""

_encode = msgspec.json.Encoder().encode


def encode_reply(request: Request, reply: Reply, node: int = 0, term: int = 0) -> bytes:
    """Return the line that answers a request, with its end.

    Args:
        request: what was asked. A ping is answered with `Reply("ok")`; for a status see `encode_status`.
        reply: what the store said; the operation tells what of it stands in the line.
        node: id of the node that answered, for `meta`.
        term: its term, for `meta`.

    """
    if reply.code != "ok":
        return _encode_failure(request, reply, node, term)
    pieces = request.operation.encode_members(reply)
    if not request.meta and not len(request.id):
        return b"".join((b"{", *pieces, b'"status": "ok"}\n'))
    # Where nothing of the store is told, as to a ping, nobody but the door has answered.
    tail = request.operation.encode_tail(reply)
    if request.meta and (pieces or tail):
        tail = _encode_meta(request, reply, node, term)
    return b"".join((b"{", _lead_with(request.id), *pieces, b'"status": "ok"', tail, b"}\n"))


def encode_error(
    code: str,
    message: str,
    key: str | None = None,
    id: msgspec.Raw = ABSENT,
) -> bytes:
    """Return an error line, with its end: for a line that is no request, or one that was never asked."""
    return _encode_error(code, message, key, lead=_lead_with(id))


def encode_status(request: Request, status: Mapping[str, Any]) -> bytes:
    """Return the line that answers a status request; `status` holds its members without "status" itself."""
    members = json.dumps(status, ensure_ascii=False).encode()
    separator = b"}" if members == b"{}" else b", " + members[1:]
    return b"{" + _lead_with(request.id) + b'"status": "ok"' + separator + b"\n"


class _ReplyMembers(msgspec.Struct, frozen=True, kw_only=True):
    """The members of a reply. Others are ignored: the protocol grows by adding."""

    key: str | None = None
    status: str = ""
    """`ok`, `error`, or empty for a close line."""
    error: str | None = None
    """The code, where the protocol gives one."""
    message: str | None = None
    id: msgspec.Raw = ABSENT
    revision: int | None = None
    node: int | None = None
    term: int | None = None
    ttl: float | None = None
    """Seconds for which the key lives at least; None: for good, or it was not asked."""
    close: str | None = None
    """Why the server closes the connection: `ok` for an idle one, `shutdown`."""


class _Decoded(_ReplyMembers, frozen=True, kw_only=True):
    value: msgspec.Raw = ABSENT


class ReplyLine(_ReplyMembers, frozen=True, kw_only=True):
    """One line from the server, as a client reads it."""

    line: bytes
    """The whole line, for members that are not named here."""
    value: msgspec.Raw | None = None
    """The text of the value; None if the line has no such member, the text `null` for the value null."""

    @property
    def data(self) -> Any:
        """The value as a Python object; None for no value, for null, and in an error.

        Raises:
            ValueError: it is a number that Python can't hold, such as 1e999; `value` has its text.

        """
        return None if self.value is None else msgspec.json.decode(self.value)

    def to(self, kind: type[T]) -> T | None:
        """Return the value as one of a kind; None for no value, and in an error.

        Args:
            kind: a class of attrs, msgspec or dataclasses, or a type such as `int` or `list[str]`.

        Raises:
            ValueError: it is none of that kind; says where.

        """
        return None if self.value is None or self.status != "ok" else read_as(self.value, kind)

    @property
    def code(self) -> str:
        """`ok`, `missing` for the error without a code, the code of an error, or `closed`."""
        if self.close is not None:
            return "closed"
        if self.status == "ok":
            return "ok"
        return self.error or "missing"


def read_as(text: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Return JSON text as one of a kind. Raises ValueError: it is none."""
    found: T = _decoder_of(cast(Hashable, kind)).decode(text)
    return found


@lru_cache(maxsize=256)
def _decoder_of(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


STRANGE_BYTES = 80
"""So much is shown of a line that is no reply."""


class ReplyError(ValueError):
    """A line that is no reply: the other side does not speak this protocol."""


_decode_members = msgspec.json.Decoder(_Decoded).decode


def parse_reply(line: bytes) -> ReplyLine:
    """Read one line from the server.

    Raises:
        ReplyError: the line is no reply of this protocol.

    """
    try:
        members = _decode_members(line)
    except (ValueError, RecursionError) as error:
        raise ReplyError(_describe_strange(line)) from error
    if members.status not in ("ok", "error") and members.close is None:
        raise ReplyError(_describe_strange(line))
    return ReplyLine(
        line=line,
        key=members.key,
        value=members.value.copy() if len(members.value) else None,
        status=members.status,
        error=members.error,
        message=members.message,
        id=members.id.copy() if len(members.id) else ABSENT,
        revision=members.revision,
        node=members.node,
        term=members.term,
        ttl=members.ttl,
        close=members.close,
    )


def _describe_strange(line: bytes) -> str:
    """Return what a person is told of a line that is no reply: who is there matters, and not where JSON ends."""
    start = line[:STRANGE_BYTES].decode(errors="replace").strip()
    return f"{start!r} is not a reply of trio_kv; is that its port for clients?"


def _encode_failure(request: Request, reply: Reply, node: int, term: int) -> bytes:
    key = getattr(request.operation, "key", None) or None
    lead = _lead_with(request.id)
    if reply.code == "missing":
        meta = _encode_meta(request, reply, node, term)
        return b'{%b"key": %b, "value": null, "status": "error"%b}\n' % (lead, _encode(key), meta)
    # Only what the store decided about the key has a revision and a node behind it.
    meta = _encode_meta(request, reply, node, term) if reply.code == "conflict" else b""
    if reply.code == "compacted":
        meta = b', "revision": %d' % reply.revision
    message = reply.message or DEFAULT_MESSAGES.get(reply.code, reply.code)
    return _encode_error(reply.code, message, key, value=reply.value, lead=lead, meta=meta)


def _encode_error(
    code: str,
    message: str,
    key: str | None,
    *,
    value: msgspec.Raw | None = None,
    lead: bytes = b"",
    meta: bytes = b"",
) -> bytes:
    text = b"null" if value is None else bytes(value)
    return b'{%b"key": %b, "value": %b, "status": "error", "error": %b, "message": %b%b}\n' % (
        lead,
        _encode(key),
        text,
        _encode(code),
        _encode(message),
        meta,
    )


def _lead_with(id_text: msgspec.Raw) -> bytes:
    """Return the member with which a reply begins whose request had an id."""
    return b'"id": %b, ' % bytes(id_text) if len(id_text) else b""


def _encode_meta(request: Request, reply: Reply, node: int, term: int) -> bytes:
    if not request.meta:
        return b""
    meta = b', "node": %d, "term": %d' % (node, term)
    if isinstance(reply, TimedReply):
        meta += b', "ttl": %b' % _encode(reply.ttl_us / 1_000_000)
    has_revision = getattr(request.operation, "operation", request.operation).tells_revision
    if has_revision and reply.code == "ok":
        return meta
    return b', "revision": %d' % reply.revision + meta
