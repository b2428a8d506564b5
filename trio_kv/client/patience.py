"""How often one call is sent, and what its caller is told in the end: the rule that both clients have.

What came of an attempt is one of three things: a reply, a way to the store that could not be gone, or a request that
went out and has no answer. A read may be sent again after all of them, and so may a write that has a seq of a session:
it takes effect once. Another write may be sent again only as long as it never went out.
"""

from typing import Final

from trio_kv.client.errors import NotConnectedError, OutcomeUnknownError, StoreError, error_of
from trio_kv.wire.replies import ReplyLine

PAUSE_S: Final = 0.05
"""Before the second attempt; twice as long before each further one, up to `PAUSE_MAX_S`."""
PAUSE_MAX_S: Final = 1.0

_NOT_YET: Final = frozenset({"timeout", "unavailable"})
"""Codes of a store that may do better soon."""
_OF_THIS_ATTEMPT: Final = frozenset(
    {"unavailable", "overloaded", "read_only", "unauthorized", "bad_request", "too_large"}
)
"""Codes that say nothing of earlier attempts: those may have taken effect, or still do so. Another server, or the same
one after a restart, may have other tokens and other limits."""


class Patience:
    """Decides for one call, after each attempt, whether there is another.

    Args:
        deadline_s: no attempt begins after that, by the caller's clock.
        may_write: whether the call may change something.
        is_repeatable: whether it may be sent again after an attempt without an answer.

    """

    __slots__ = ("_is_repeatable", "_is_unknown", "_pause_s", "deadline_s", "may_write")

    def __init__(self, deadline_s: float, *, may_write: bool, is_repeatable: bool) -> None:
        """Have made no attempt; see the class."""
        self.deadline_s = deadline_s
        self.may_write = may_write
        self._is_repeatable = is_repeatable
        self._pause_s = PAUSE_S
        self._is_unknown = False
        """Whether an attempt went out that may have taken effect."""

    def weigh_reply(self, reply: ReplyLine, now_s: float) -> float | None:
        """Return in how many seconds to send the call again; None: the reply is the last word.

        Raises:
            OutcomeUnknownError: the reply is true of the last attempt alone.

        """
        code = reply.code
        if code not in _OF_THIS_ATTEMPT and code not in _NOT_YET:
            return None
        if self._is_repeatable and code in _NOT_YET:
            self._is_unknown = self._is_unknown or code == "timeout"
            if now_s + self._pause_s <= self.deadline_s:
                return self._next_pause_s()
        if self._is_unknown and code in _OF_THIS_ATTEMPT:
            error = error_of(reply, may_write=self.may_write)
            raise OutcomeUnknownError(f"the write was sent, then: {error}", reply)
        return None

    def weigh_error(self, error: StoreError, now_s: float) -> float:
        """Return in how many seconds to send the call again.

        Raises:
            StoreError: it is not sent again: this error, or one that says that the outcome is not known.

        """
        is_unknown = isinstance(error, OutcomeUnknownError)
        self._is_unknown = self._is_unknown or is_unknown
        may_go_on = isinstance(error, NotConnectedError) or (is_unknown and self._is_repeatable)
        if may_go_on and now_s + self._pause_s <= self.deadline_s:
            return self._next_pause_s()
        if self._is_unknown and not is_unknown:
            raise OutcomeUnknownError(f"the write was sent, then: {error}", error.reply) from error
        raise error

    def _next_pause_s(self) -> float:
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, PAUSE_MAX_S)
        return pause_s
