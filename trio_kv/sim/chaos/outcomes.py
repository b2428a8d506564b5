"""What a reply says of an operation: it took effect, it did not, or nobody can know.

A definite error code is only given for what was not applied (see the protocol), so the operation may be left out of
every explanation of the history. All else that a write can meet - no reply, a `timeout`, a word we don't know -
leaves its outcome open: it may have taken effect, or may do so later.
"""

from typing import Literal

from trio_kv.wire.requests import (
    CasRequest,
    DeleteRequest,
    GetRequest,
    ReplyLine,
    SetRequest,
)

KeyRequest = SetRequest | GetRequest | DeleteRequest | CasRequest

Outcome = Literal["ok", "missing", "conflict", "unknown", "failed"]

DEFINITE_CODES = frozenset(
    {
        "bad_request",
        "too_large",
        "unauthorized",
        "unavailable",
        "overloaded",
        "conflict",
        "read_only",
        "closed",
    }
)
"""Codes that promise that nothing was applied.

`closed` stands for a close line in the place of the reply: a server answers what it took before it says one.
"""


class NonsenseError(Exception):
    """A reply that cannot be the answer to this request, whatever the store holds."""


def classify(request: KeyRequest, reply: ReplyLine | None) -> tuple[Outcome, bytes | None]:
    """Return what became of a request, and the value that came back, if one did.

    Args:
        request: what was asked.
        reply: its answer; None if it was sent, and no answer came.

    Raises:
        NonsenseError: says what is wrong with the reply.

    """
    lost: Outcome = "failed" if isinstance(request, GetRequest) else "unknown"
    if reply is None:
        return lost, None
    code = reply.code
    if reply.key not in (None, request.key):
        raise NonsenseError(f"a question about {request.key!r} is answered with {reply.line!r}")
    if len(reply.id) and bytes(reply.id) != bytes(request.id):
        raise NonsenseError(f"{request!r} is answered as if it were another one: {reply.line!r}")
    if code == "ok":
        return "ok", _ok_value(request, reply)
    if code == "missing":
        if not isinstance(request, GetRequest | DeleteRequest):
            raise NonsenseError(f"{request!r} can't find its key missing, yet hears {reply.line!r}")
        return "missing", None
    if code == "conflict":
        if not isinstance(request, CasRequest):
            raise NonsenseError(f"{request!r} has no condition, yet hears {reply.line!r}")
        return "conflict", _current_value(reply)
    return ("failed" if code in DEFINITE_CODES else lost), None


def _ok_value(request: KeyRequest, reply: ReplyLine) -> bytes | None:
    value = None if reply.value is None else bytes(reply.value)
    if value is None or reply.key is None:
        raise NonsenseError(f"{request!r} is answered with {reply.line!r}, which lacks key or value")
    if isinstance(request, SetRequest | CasRequest):
        if value != bytes(request.value):
            raise NonsenseError(f"{request!r} is answered with another value: {reply.line!r}")
        return None
    return value


def _current_value(reply: ReplyLine) -> bytes | None:
    """Return the value that stood against a cas; the workload never writes null, so null is no value."""
    value = b"null" if reply.value is None else bytes(reply.value)
    return None if value == b"null" else value
