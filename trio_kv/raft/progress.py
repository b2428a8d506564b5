"""What a leader knows of one follower, and how it sends to it.

PROBE: the leader doesn't know where the logs part; one AppendEntries at a time looks for it.
REPLICATE: the logs join; AppendEntries follow one another without waiting, up to a window.
INSTALL: what the follower needs next is gone from the log; it gets the snapshot (see `install`).
(etcd's tracker has the same three.)
"""

import copy
from collections import deque
from enum import Enum
from operator import attrgetter
from typing import NamedTuple

import attrs

from trio_kv.raft.config import RaftConfig
from trio_kv.raft.install import Outgoing
from trio_kv.raft.log import Log
from trio_kv.raft.log_space import WRITE_BYTES_EXTRA


class Sending(Enum):
    """How a leader sends to a follower."""

    PROBE = "probe"
    REPLICATE = "replicate"
    INSTALL = "install"


class InFlight(NamedTuple):
    """An AppendEntries that was sent and not yet answered."""

    last: int
    """Index of its last entry."""
    size_bytes: int
    """Of its entries."""


@attrs.define(eq=False)
class Progress:
    """One follower, seen from the leader of one term. Only its methods change it.

    Invariants: `match < next`; `match` never decreases, and never passes what that follower has on disk; `install` is
    there in the state INSTALL and in no other.
    """

    next: int
    heard_at: float
    config: RaftConfig
    match: int = 0
    """The follower's log equals ours up to here, and is durable there."""
    sending: Sending = Sending.PROBE
    in_flight: deque[InFlight] = attrs.field(factory=deque)
    sent_at: float = float("-inf")
    waiting_since: float = attrs.Factory(attrgetter("heard_at"), takes_self=True)
    """When an append was sent while none waited for its answer."""
    answered_at: float = attrs.Factory(attrgetter("heard_at"), takes_self=True)
    """When an append was answered: then all that the follower had to write was on its disk."""
    took_s: float = 0.0
    """How long the last append took to be answered that was."""
    acked_round: int = 0
    commit_sent: int = 0
    """The follower was sent a commit index of so much."""
    install: Outgoing | None = None
    counts: bool = True
    """Whether a majority may be made with it: not while it is being rebuilt."""
    free_log_bytes: int | None = None
    """Log space that the follower has left while its disk is full; None as long as it is not."""

    @property
    def is_replicating(self) -> bool:
        """Whether the logs are known to join."""
        return self.sending is Sending.REPLICATE

    def is_up_to_date(self, last_index: int) -> bool:
        """Return whether a reply to a heartbeat can ask for nothing more: it has all of the log, and room for more."""
        return self.match == last_index and self.install is None and self.free_log_bytes is None

    def is_window_open(self) -> bool:
        """Whether another AppendEntries may be sent now."""
        match self.sending:
            case Sending.PROBE:
                return not self.in_flight
            case Sending.REPLICATE:
                return not self.in_flight or self._has_room()
            case Sending.INSTALL:
                return False

    def _has_room(self) -> bool:
        """Return whether there is room behind what is in flight."""
        config, in_flight = self.config, self.in_flight
        return (
            len(in_flight) < config.append_window
            and self.next - 1 - self.match < config.append_window_entries
            and sum([each.size_bytes for each in in_flight]) < config.append_window_bytes
        )

    def can_store(self, log: Log, size_bytes: int) -> bool:
        """Return whether the follower's disk has space for so many bytes more, beside all that it lacks of the log."""
        if not (self.counts and self.is_replicating):
            return False  # Its free log space is not known yet, or it lacks entries that come before.
        if self.free_log_bytes is None:
            return True
        under_way = log.size_bytes(self.match + 1, log.last_index)
        # In the worst case each entry comes in an append, and so in a write, of its own.
        extra = (log.last_index - self.match + 1) * WRITE_BYTES_EXTRA
        return under_way + size_bytes + extra <= self.free_log_bytes

    def could_elect(self, now: float, durable: int, silence_s: float, stall_s: float) -> bool:
        """Return whether this follower could vote, or lead, as far as is known: it answers, and its disk works.

        Args:
            now: the time.
            durable: up to where the log is on the leader's own disk, which stands still.
            silence_s: a node that was not heard for so long is taken for gone.
            stall_s: a disk that stored nothing for so long is taken to stand still, too.

        """
        is_heard = self.counts and now - self.heard_at < silence_s
        is_disk_silent = self._waits_s(now) >= stall_s
        return is_heard and self.match > durable and self.is_replicating and not is_disk_silent

    def _waits_s(self, now: float) -> float:
        """For how long an append has been waiting for its answer."""
        return now - max(self.waiting_since, self.answered_at) if self.in_flight else 0.0

    def is_quick(self, now: float, commit: int, quick_s: float) -> bool:
        """Return whether this follower has all that is committed, has space, and answers appends within `quick_s`."""
        is_able = self.counts and self.is_replicating and self.free_log_bytes is None
        return is_able and self.match >= commit and max(self.took_s, self._waits_s(now)) < quick_s

    # How it is sent to

    def become_probe(self, next_index: int) -> None:
        """Look for the place where the logs join, from an earlier index or the same."""
        self.sending, self.install = Sending.PROBE, None
        self.in_flight.clear()
        self.next = max(self.match + 1, next_index)

    def become_replicate(self) -> None:
        """Send without waiting: the place where the logs join is found."""
        self.sending, self.install = Sending.REPLICATE, None
        self.in_flight.clear()
        self.next = max(self.next, self.match + 1)

    def become_install(self, now: float, last_index: int) -> Outgoing:
        """Send a snapshot, from its start; the leader's log ends at `last_index`."""
        self.sending, self.install = Sending.INSTALL, Outgoing(now, last_index)
        self.in_flight.clear()
        return self.install

    def give_up_install(self) -> None:
        """Send no snapshot any more, if one is being sent."""
        if self.install is not None:
            self.become_probe(self.next)

    # What is sent

    def sent(self, last: int, size_bytes: int, now: float) -> None:
        """Note that entries up to `last` are on their way. A probe leaves `next` where it is: it may fail."""
        if not self.in_flight:
            self.waiting_since = now
        # Asking again for the same position must not fill the window.
        if not self.in_flight or self.in_flight[-1].last != last:
            self.in_flight.append(InFlight(last, size_bytes))
        if self.is_replicating:
            self.next = last + 1
        self.sent_at = now

    def probe_was_lost(self) -> None:
        """Let the probe that is in flight be sent again."""
        self.in_flight.clear()

    def sent_commit(self, index: int) -> None:
        """Note that the follower was sent a commit index; of it counts what its log holds, as far as is known."""
        self.commit_sent = max(self.commit_sent, min(index, self.next - 1))

    def lacks_commit(self, commit: int) -> bool:
        """Return whether there is a commit index to be told that was not sent yet."""
        return self.is_replicating and self.commit_sent < min(commit, self.next - 1)

    # What it says

    def said(self, *, counts: bool) -> None:
        """Note what every message tells."""
        self.counts = counts

    def heard(self, now: float) -> None:
        """Note that it is there."""
        self.heard_at = now

    def answered(self, now: float) -> None:
        """Note that it answered an append: its disk works, too."""
        self.took_s = self._waits_s(now)
        self.heard_at = self.answered_at = now

    def was_unheard(self, lateness_s: float, now: float) -> None:
        """Don't count so much silence: the leader's own process slept."""
        self.heard_at = min(now, self.heard_at + lateness_s)
        self.answered_at = min(now, self.answered_at + lateness_s)
        if self.install is not None:
            self.install.was_unheard(lateness_s, now)

    def acked(self, round_number: int) -> bool:
        """Note that it replied to a heartbeat round; return whether that is news."""
        is_news = round_number > self.acked_round
        self.acked_round = max(round_number, self.acked_round)
        return is_news

    def accepted(self, match: int, free_log_bytes: int | None = None) -> bool:
        """Note that the logs are equal up to `match`, and the space on its disk; return whether `match` is news."""
        self.free_log_bytes = free_log_bytes
        while self.in_flight and self.in_flight[0].last <= match:
            self.in_flight.popleft()
        is_news = match > self.match
        self.match = max(match, self.match)
        if self.install is not None:
            if self.install.snapshot and match >= self.install.snapshot[0]:
                self.next = self.match + 1
                self.become_replicate()
        elif self.sending is Sending.PROBE and (is_news or match >= self.next - 1):
            self.become_replicate()
        self.next = max(self.next, self.match + 1)
        return is_news

    def rejected(self, prev_index: int, next_index: int) -> None:
        """Go back to `next_index`, as an append behind `prev_index` did not join.

        An answer to an append older than what is known by now says nothing; neither does one while a snapshot is on
        its way.
        """
        if self.match < prev_index < self.next and self.install is None:
            self.become_probe(min(next_index, prev_index))

    def reset(self, next_index: int) -> None:
        """Forget all: the follower came back with another disk."""
        self.match = 0
        self.acked_round = 0
        self.commit_sent = 0
        self.become_probe(next_index)

    def copy(self) -> "Progress":
        """Return an equal progress of its own."""
        twin = copy.copy(self)
        twin.in_flight = self.in_flight.copy()
        twin.install = None if self.install is None else attrs.evolve(self.install)
        return twin
