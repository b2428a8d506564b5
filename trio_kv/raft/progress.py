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

INSTALL_LEASE_ENTRIES = 4096
"""What is kept for a follower's snapshot is kept for so many entries at most without progress of its own: a disk that
takes longer for one chunk could not follow the log either."""


@attrs.define
class Install:
    """A snapshot on its way to a follower: one chunk in flight, which is all the back-pressure it needs.

    It is a lease on the snapshot and on the log behind it, which are kept for the follower as long as it gets on. When
    it does not, they are kept no more, but it is still asked now and then; what it lacks by then it gets from the
    newest snapshot.
    """

    snapshot: tuple[int, int] | None = None
    """(index, term), once it is known."""
    number: int = 0
    """The chunk that is being read or is in flight."""
    is_reading: bool = True
    """The chunk is being read from the leader's disk."""
    sent_at: float = 0.0
    moved_at: float = 0.0
    """When it got on last."""
    moved_last_index: int = 0
    """Where the leader's log ended then."""
    is_kept: bool = True
    """The lease runs."""

    def moved(self, now: float, last_index: int) -> None:
        """Renew the lease: the follower got on."""
        self.moved_at, self.moved_last_index, self.is_kept = now, last_index, True

    def maybe_end_lease(self, now: float, last_index: int, lease_s: float) -> None:
        """End it, if the follower got nowhere for too long, or while too much was written."""
        if now - self.moved_at >= lease_s or last_index - self.moved_last_index >= INSTALL_LEASE_ENTRIES:
            self.is_kept = False


class Progress:
    """One follower, seen from the leader of one term.

    Invariants: `match < next`; `match` never decreases, and never passes what that follower has on disk.
    """

    __slots__ = (
        "acked_round",
        "answered_at",
        "commit_told",
        "heard_at",
        "in_flight",
        "install",
        "is_probing",
        "is_rebuilding",
        "match",
        "next",
        "room_bytes",
        "sent_at",
        "waiting_since",
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
        self.waiting_since = now
        """When an append was sent while none waited for its answer."""
        self.heard_at = now
        self.answered_at = now
        """When an append was answered: then all that the follower had to write was on its disk."""
        self.acked_round = 0
        self.commit_told = 0
        self.install: Install | None = None
        self.is_rebuilding = False
        self.room_bytes: int | None = None
        """Log space that the follower has left while its disk is full; None as long as it is not."""

    def can_store(self, log: Log, size_bytes: int) -> bool:
        """Return whether the follower's disk has room for so many bytes more, beside all that it lacks of the log."""
        if self.is_rebuilding or self.is_probing or self.install is not None:
            return False  # It has not told yet, or lacks so much that it can't take this.
        if self.room_bytes is None:
            return True
        under_way = log.size_bytes(self.match + 1, log.last_index)
        # In the worst case each entry comes in an append, and so in a write, of its own.
        extra = (log.last_index - self.match + 1) * WRITE_BYTES_EXTRA
        return under_way + size_bytes + extra <= self.room_bytes

    @property
    def counted_match(self) -> int:
        """How far the follower counts for a commit: not at all while it is rebuilt."""
        return 0 if self.is_rebuilding else self.match

    @property
    def counted_heard_at(self) -> float:
        """When the follower was heard, for check-quorum."""
        return float("-inf") if self.is_rebuilding else self.heard_at

    def could_elect(self, now: float, durable: int, silence_s: float, stall_s: float) -> bool:
        """Return whether this follower, as far as is known, could vote, or lead: it is there, and its disk works.

        Args:
            now: the time.
            durable: how far the leader's own disk came, which stands still.
            silence_s: who was not heard for so long is gone.
            stall_s: whose disk answered nothing for so long stands still, too.

        """
        is_disk_silent = bool(self.in_flight) and now - max(self.waiting_since, self.answered_at) >= stall_s
        is_heard = now - self.counted_heard_at < silence_s
        return is_heard and self.match > durable and not self.is_probing and not is_disk_silent

    def has_room(self) -> bool:
        """Return whether another AppendEntries may be sent now."""
        return self.install is None and len(self.in_flight) < (1 if self.is_probing else self.window)

    def sent(self, last: int, now: float) -> None:
        """Note that entries up to `last` are on their way. A probe leaves `next` where it is: it may fail."""
        if not self.in_flight:
            self.waiting_since = now
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
