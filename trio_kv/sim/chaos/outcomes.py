"""What a reply says of an operation: it took effect, it did not, or nobody can know.

A definite error code is only given for what was not applied (see the protocol), so the operation may be left out of
every explanation of the history. All else that a write can meet - no reply, a `timeout`, a word we don't know -
leaves its outcome open: it may have taken effect, or may do so later.
"""

from typing import Literal

from trio_kv.check.history import OUTCOMES, what_is_asked
from trio_kv.kv.operations import Get, KeyOperation
from trio_kv.kv.operations.operation import KeyWrite, Query
from trio_kv.wire.operations import Request
from trio_kv.wire.replies import ReplyLine

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


def operation_of(request: Request) -> KeyOperation:
    """Return the operation of a request, which is one on a key."""
    assert isinstance(request.operation, Get | KeyWrite), request
    return request.operation


def classify(request: Request, reply: ReplyLine | None) -> tuple[Outcome, bytes | None]:
    """Return what became of a request, and the value that came back, if one did.

    Args:
        request: what was asked; without a condition on a revision.
        reply: its answer; None if it was sent, and no answer came.

    Raises:
        NonsenseError: says what is wrong with the reply.

    """
    operation = operation_of(request)
    lost: Outcome = "failed" if isinstance(operation, Query) else "unknown"
    if reply is None:
        return lost, None
    if reply.key not in (None, operation.key):
        raise NonsenseError(f"a question about {operation.key!r} is answered with {reply.line!r}")
    if len(reply.id) and bytes(reply.id) != bytes(request.id):
        raise NonsenseError(f"{operation!r} is answered as if it were another one: {reply.line!r}")
    match reply.code:
        case "ok":
            return "ok", _ok_value(operation, reply)
        case "missing" | "conflict" as outcome:
            if outcome not in OUTCOMES[operation.name]:
                raise NonsenseError(f"{operation!r} can't be answered with {reply.line!r}")
            return outcome, _current_value(reply) if outcome == "conflict" else None
        case code:
            return ("failed" if code in DEFINITE_CODES else lost), None


def _ok_value(operation: KeyOperation, reply: ReplyLine) -> bytes | None:
    value = None if reply.value is None else bytes(reply.value)
    if value is None or reply.key is None:
        raise NonsenseError(f"{operation!r} is answered with {reply.line!r}, which lacks key or value")
    if operation.has_result:
        return value
    if value != what_is_asked(operation)["value"]:
        raise NonsenseError(f"{operation!r} is answered with another value: {reply.line!r}")
    return None


def _current_value(reply: ReplyLine) -> bytes | None:
    """Return the value that stood against a cas; the workload never writes null, so null is no value."""
    value = b"null" if reply.value is None else bytes(reply.value)
    return None if value == b"null" else value
