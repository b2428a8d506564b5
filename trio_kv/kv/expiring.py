"""What an `Expire` entry does: keys and sessions end."""

from collections.abc import Sequence

from trio_kv.kv.operations.operation import Change, Context, SessionChange
from trio_kv.kv.sessions import Sessions

ALL = 1 << 62
"""More keys and sessions than there ever are."""


def expire(
    context: Context, sessions: Sessions, at_most: int | None, told: Sequence[Change] = ()
) -> list[int]:
    """Let end what is due at the entry's cluster time: the earliest first, of equals keys before sessions, by name.

    Args:
        context: where the entry stands, and the keys.
        sessions: all sessions.
        at_most: so many keys and sessions; None: all that is due.
        told: the changes of keys that another machine of the process made of this entry, as far as they are known.

    Returns:
        the sessions that ended.

    """
    forgotten: list[int] = []
    expiry, time_us = context.expiry, context.time_us
    left, ended = ALL if at_most is None else at_most, 0
    while left:
        session_due_us = sessions.expires_at_us()
        upto_us = time_us if session_due_us is None else min(time_us, session_due_us)
        dues = expiry.take(upto_us, left)
        context.expire(dues, told[ended : ended + len(dues)])
        ended += len(dues)
        left -= len(dues)
        if not left or session_due_us is None or session_due_us > time_us:
            break
        forgotten.append(sessions.forget_first())
        context.changes.append(SessionChange("forget", forgotten[-1]))
        left -= 1
    return forgotten
