"""What a leader knows of one follower, and how it sends to it.

PROBE: the leader doesn't know where the logs part; one AppendEntries at a time looks for it.
REPLICATE: the logs join; AppendEntries follow one another without waiting, up to a window.
(etcd's tracker has the same two, and a third for snapshots.)
"""

from collections import deque


class Progress:
    """One follower, seen from the leader of one term.

    Invariants: `match < next`; `match` never decreases, and never passes what that follower has on disk.
    """

    __slots__ = (
        "acked_round",
        "commit_told",
        "heard_at",
        "in_flight",
        "is_probing",
        "match",
        "next",
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

    def has_room(self) -> bool:
        """Return whether another AppendEntries may be sent now."""
        return len(self.in_flight) < (1 if self.is_probing else self.window)

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
        self.rejected(next_index)

    def copy(self) -> "Progress":
        """Return an equal progress of its own."""
        twin = Progress(self.next, self.heard_at, self.window)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.in_flight = self.in_flight.copy()
        return twin
