"""How long a leader's entries take until they are committed, one group of them after the other."""

from collections import deque

from trio_kv.meter.histogram import Histogram
from trio_kv.raft.node import Raft


class CommitTimes:
    """Times the entries of each term that a node leads. Those that it did not commit itself are not counted."""

    def __init__(self) -> None:
        """Have seen no entry."""
        self.durations = Histogram()
        """From the pass in which an entry was appended to the one in which it is committed, in seconds."""
        self._term = 0
        self._last = 0
        """The last entry that is timed."""
        self._groups: deque[tuple[int, int, float]] = deque()
        """(last index, how many entries, when) of entries on their way."""

    def note(self, now: float, raft: Raft) -> None:
        """Look at what a leader's pass has appended and committed.

        Args:
            now: the time of the pass.
            raft: the node, which leads.

        """
        last, commit, groups = raft.log.last_index, raft.commit, self._groups
        if raft.term != self._term:
            # What is in the log by now came from others, but for the no-op that it begins with.
            self._term, self._last = raft.term, last - 1
            groups.clear()
        if last > self._last:
            groups.append((last, last - self._last, now))
            self._last = last
        while groups and groups[0][0] <= commit:
            _, count, began_at = groups.popleft()
            self.durations.note(now - began_at, count)
