"""What a leader knows of one follower, and how it sends to it.

PROBE: the leader doesn't know where the logs part; one AppendEntries at a time looks for it.
REPLICATE: the logs join; AppendEntries follow one another without waiting, up to a window.
INSTALL: what the follower needs next is gone from the log; it gets the snapshot, one chunk at a time.
(etcd's tracker has the same three.)
"""

from collections import deque

import attrs

from trio_kv.raft.log import Log
from trio_kv.raft.room import WRITE_BYTES_EXTRA


@attrs.define
class Install:
    """A snapshot on its way to a follower: one chunk in flight, which is all the back-pressure it needs."""

    snapshot: tuple[int, int] | None = None
    """(index, term), once it is known."""
    number: int = 0
    """The chunk that is being read or is in flight."""
    is_reading: bool = True
    """The chunk is being read from the leader's disk."""
    sent_at: float = 0.0
    tries: int = 0
    """How often the chunk was sent without an answer."""


class Progress:
    """One follower, seen from the leader of one term.

    Invariants: `match < next`; `match` never decreases, and never passes what that follower has on disk.
    """

    __slots__ = (
        "acked_round",
        "commit_told",
        "counts",
        "heard_at",
        "in_flight",
        "install",
        "is_probing",
        "match",
        "next",
        "room_bytes",
        "sent_at",
        "window",
    )

    def __init__(self, next_index: int, now: float, window: int) -> None:
        """Know nothing but where to begin."""
        self.match = 0
        """The follower's log equals ours up to here, and is durable there."""
        self.next = next_index
        self.is_probing = True
        self.in_flight: deque[int] = deque()
        """Last index of each AppendEntries that was sent and not yet answered."""
        self.window = window
        self.sent_at = float("-inf")
        self.heard_at = now
        self.acked_round = 0
        self.commit_told = 0
        self.install: Install | None = None
        self.counts = True
        """Whether a majority may be made with it: not while it is being rebuilt."""
        self.room_bytes: int | None = None
        """Log space that the follower has left while its disk is full; None as long as it is not."""

    def can_store(self, log: Log, size_bytes: int) -> bool:
        """Return whether the follower's disk has room for so many bytes more, beside all that it lacks of the log."""
        if not self.counts:
            return False
        if self.room_bytes is None:
            return True
        under_way = log.size_bytes(self.match + 1, log.last_index)
        # In the worst case each entry comes in an append, and so in a write, of its own.
        extra = (log.last_index - self.match + 1) * WRITE_BYTES_EXTRA
        return under_way + size_bytes + extra <= self.room_bytes

    def has_room(self) -> bool:
        """Return whether another AppendEntries may be sent now."""
        return self.install is None and len(self.in_flight) < (1 if self.is_probing else self.window)

    def sent(self, last: int, now: float) -> None:
        """Note that entries up to `last` are on their way. A probe leaves `next` where it is: it may fail."""
        # Asking again for the same position must not fill the window.
        if not self.in_flight or self.in_flight[-1] != last:
            self.in_flight.append(last)
        if not self.is_probing:
            self.next = last + 1
        self.sent_at = now

    def accepted(self, match: int) -> bool:
        """Note that the logs are equal up to `match`; return whether that is news."""
        while self.in_flight and self.in_flight[0] <= match:
            self.in_flight.popleft()
        is_news = match > self.match
        if is_news:
            self.match = match
        if self.install is not None and self.install.snapshot and match >= self.install.snapshot[0]:
            self.install = None
            self.is_probing = True
            self.next = self.match + 1
        if self.is_probing and (is_news or match >= self.next - 1):
            # The place where the logs join is found.
            self.is_probing = False
            self.in_flight.clear()
        self.next = max(self.next, self.match + 1)
        return is_news

    def rejected(self, next_index: int) -> None:
        """Look for the place where the logs join, from an earlier index."""
        self.is_probing = True
        self.in_flight.clear()
        self.next = max(self.match + 1, next_index)

    def reset(self, next_index: int) -> None:
        """Forget all: the follower came back with another disk."""
        self.match = 0
        self.acked_round = 0
        self.commit_told = 0
        self.install = None
        self.rejected(next_index)

    def copy(self) -> "Progress":
        """Return an equal progress of its own."""
        twin = Progress(self.next, self.heard_at, self.window)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.in_flight = self.in_flight.copy()
        twin.install = None if self.install is None else attrs.evolve(self.install)
        return twin
