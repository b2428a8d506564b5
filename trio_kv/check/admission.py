"""Admission: a node that knows how full its disk is takes no write of a client that does not fit.

Space is reserved before it is promised. What Raft itself must write, as a no-op or a vote, has space of its own.
"""

from collections.abc import Iterable

from trio_kv.check.violation import Violation
from trio_kv.raft.ready import Write


def require_none_of_clients(node: int, writes: Iterable[Write], free_log_bytes: int) -> None:
    """Judge writes that do not fit on a full disk, given by a node that knew how full it is.

    Args:
        node: whose disk it is.
        writes: what does not fit.
        free_log_bytes: how much would have.

    Raises:
        Violation: a client's command is among them.

    """
    commands = [entry for write in writes for entry in write.entries if entry.command is not None]
    if commands:
        raise Violation(
            f"n{node} took {commands[0]}..{commands[-1]} on a full disk with {free_log_bytes} bytes of room"
        )
