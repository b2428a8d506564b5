"""The session under which a gateway writes: which seqs it gives out, and whether the cluster may have forgotten it."""

from collections.abc import Sequence

from trio_kv.kv.commands import OpenSession, Write
from trio_kv.kv.operations import AnyWrite
from trio_kv.kv.reply import Reply
from trio_kv.kv.session import REPLIES_MAX
from trio_kv.kv.sessions import check_timeout


class OwnSession:
    """One session at a time. All that was given out under an earlier one keeps its seqs.

    Args:
        timeout_s: after how much cluster time without a write the cluster forgets a session.

    """

    def __init__(self, timeout_s: float) -> None:
        """Have none yet; see the class. Raises ValueError: the time-out is out of its range."""
        check_timeout(timeout_s)
        self.id = 0
        """0 as long as there is none."""
        self.seq = 0
        """The last one that was given out."""
        self._timeout_s = timeout_s
        self._used_at = float("-inf")

    @property
    def opening(self) -> OpenSession:
        """The command that opens the next one."""
        return OpenSession(round(self._timeout_s * 1_000_000))

    def is_old(self, now: float) -> bool:
        """Return whether there is none, or the cluster may have forgotten it: no write of it was answered for so long.

        One of which a write is under way is not forgotten yet.
        """
        return not self.id or now - self._used_at > self._timeout_s / 2

    def opened(self, id: int, used_at: float) -> None:
        """Go on under a new session, which was used then at the latest."""
        self.id, self.seq, self._used_at = id, 0, used_at

    def has_room(self, count: int, first_awaited: int) -> bool:
        """Return whether so many more writes may be under way.

        Beyond its window the session would refuse at apply, when a repeated attempt may already be under way.
        """
        return self.seq + count - first_awaited < REPLIES_MAX

    def number(self, writes: Sequence[AnyWrite], first_awaited: int) -> list[Write]:
        """Give out the next seqs; return the commands that carry them."""
        id, first = self.id, self.seq + 1
        self.seq += len(writes)
        return [Write(id, first + place, first_awaited, operation) for place, operation in enumerate(writes)]

    def heard(self, reply: Reply, used_at: float) -> None:
        """Learn from the reply to a write of this session, which was handed over then at the earliest."""
        if reply.code == "session_expired":
            # Whatever the clocks here say, the cluster has forgotten it: what comes next needs another one.
            self.id = 0
        elif reply.code != "overloaded":
            # Only what was applied keeps a session, and that was not before it was handed over.
            self._used_at = max(self._used_at, used_at)
