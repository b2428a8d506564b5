"""What an `Expire` entry does: keys and sessions end."""

from itertools import count

from trio_kv.kv.operations.operation import Context, SessionChange
from trio_kv.kv.sessions import Sessions


def expire(context: Context, sessions: Sessions, at_most: int | None) -> list[int]:
    """Let end what is due at the entry's cluster time: the earliest first, of equals keys before sessions, by name.

    Args:
        context: where the entry stands, and the keys.
        sessions: all sessions.
        at_most: so many keys and sessions; None: all that is due.

    Returns:
        the sessions that ended.

    """
    forgotten: list[int] = []
    expiry, time_us = context.expiry, context.time_us
    for _ in count() if at_most is None else range(at_most):
        key_due, session_due_us = expiry.first, sessions.expires_at_us()
        if key_due is not None and (session_due_us is None or key_due[0] <= session_due_us):
            if key_due[0] > time_us:
                break
            context.expire(key_due[1])
        else:
            if session_due_us is None or session_due_us > time_us:
                break
            forgotten.append(sessions.forget_first())
            context.changes.append(SessionChange("forget", forgotten[-1]))
    return forgotten
