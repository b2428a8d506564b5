"""What a client raises because of the store: one class for each error code of the protocol, in three families.

They keep apart what a caller must keep apart:

| family | what happened | may the call be repeated? |
|---|---|---|
| `NotConnectedError` | the store was not reached | yes |
| `RefusedError` | the store said no, and changed nothing | when the reason is gone |
| `OutcomeUnknownError` | a write went out, and may or may not take effect | only if twice does no harm |
"""

from collections.abc import Mapping
from typing import Any, Final

from trio_kv.wire.replies import ReplyLine


class StoreError(Exception):
    """Whatever the store, or the way to it, stands in the way with."""

    def __init__(self, message: str, reply: ReplyLine | None = None) -> None:
        """Say what happened.

        Args:
            message: for a person.
            reply: what the store said; None if it said nothing.

        """
        super().__init__(message)
        self.reply = reply


class NotConnectedError(StoreError, ConnectionError):
    """The store can't be reached; the request was not taken."""


class RefusedError(StoreError):
    """The store refused: nothing was changed by this request."""


class OutcomeUnknownError(StoreError):
    """A write went out, and its outcome is not known: it may or may not take effect."""


class BadRequestError(RefusedError):
    """The request is not one that the store understands."""


class TooLargeError(RefusedError):
    """The request, its key or its result is over a limit."""


class UnauthorizedError(RefusedError):
    """The store wants a token, or one that may do more."""


class UnavailableError(RefusedError):
    """No leader, or no majority, answered in time."""


class OverloadedError(RefusedError):
    """A queue of the store is full: try again later."""


class ConflictError(RefusedError):
    """A condition did not hold: the key has another value or revision than was expected."""

    @property
    def data(self) -> Any:
        """The value that the key has instead, as a Python object; None if it does not exist."""
        return None if self.reply is None else self.reply.data


class ReadOnlyError(RefusedError):
    """The disks of a majority of the nodes are full."""


class CompactedError(RefusedError):
    """The history that was asked for is gone."""


class SessionExpiredError(OutcomeUnknownError):
    """The store has forgotten the session, and with it whether this write took effect."""


class TimedOutError(OutcomeUnknownError):
    """The write was handed to a leader, and no answer came in time."""


ERROR_CLASSES: Final[Mapping[str, type[StoreError]]] = {
    "bad_request": BadRequestError,
    "too_large": TooLargeError,
    "unauthorized": UnauthorizedError,
    "unavailable": UnavailableError,
    "overloaded": OverloadedError,
    "conflict": ConflictError,
    "read_only": ReadOnlyError,
    "compacted": CompactedError,
    "session_expired": SessionExpiredError,
    "timeout": TimedOutError,
}
"""The class for each error code."""


def error_of(reply: ReplyLine, *, may_write: bool) -> StoreError | None:
    """Return the exception that a reply deserves; None for `ok`, and for a key that is missing.

    Args:
        reply: what the store said.
        may_write: whether the request may have changed something. What a code means that only a newer server
            knows is not known then.

    """
    code = reply.code
    if code in ("ok", "missing"):
        return None
    error_class = ERROR_CLASSES.get(code, OutcomeUnknownError if may_write else RefusedError)
    return error_class(f"{code}: {reply.message or 'the store says no more'}", reply)


def explain(error: Exception) -> str:
    """Return what went wrong on the way to the store, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if is_of_tls(error):
        from trio_kv.client.tls import explain_tls  # noqa: PLC0415 - see `is_of_tls`

        return explain_tls(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)


def is_of_tls(error: BaseException) -> bool:
    """Return whether an error is an `ssl.SSLError`. To ask that needs no `ssl`, which takes long to import."""
    return any(kind.__name__ == "SSLError" for kind in type(error).__mro__)
