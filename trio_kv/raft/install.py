"""A snapshot on its way to a follower (paper §7), from both ends.

What a follower needs next may be gone from the leader's log. Then it gets the leader's snapshot, one chunk at a time::

    leader                                            follower
    Progress.become_install
    Ready.chunk_reads: the driver reads the chunk
    chunk_read     -> InstallSnapshot(number)     ->  Ready.chunks: the driver writes the chunk
                   <- InstallReply(number + 1)    <-  chunk_stored
    ...                                               ... the last one: the driver makes the snapshot durable
    Outgoing.moved     <- InstallReply(number)    <-  chunk_moves, as long as that takes
    Progress.accepted  <- AppendAccepted(index)   <-  installed

One chunk is in flight, which is all the back-pressure that it needs. The follower says which chunk it wants. It keeps
the chunks that it has when the leader changes, since all nodes make the same chunks of a snapshot. A chunk or an answer
that was lost is sent again by the leader; a snapshot that is gone at the leader gives way to its newest one. The leader
keeps its snapshot, and the log behind it, for the follower under a lease (see `Outgoing`): a follower's disk that hangs
must not fill the leader's.
"""

import attrs

from trio_kv.raft.entry import LogPosition

LEASE_ENTRIES = 4096
"""The lease ends when so many entries were appended without progress of the follower: a disk that takes longer for one
chunk could not follow the log either."""


@attrs.define
class Outgoing:
    """The leader's end. Either a chunk is being read from the leader's disk, or it is in flight.

    It is a lease on the snapshot and on the log behind it: both are kept as long as the follower makes progress.
    Without progress the lease ends, but the leader still sends the chunk again now and then. If the snapshot is gone
    when the follower answers at last, the newest one takes its place.
    """

    moved_at: float
    """When the follower got on last."""
    moved_last_index: int
    """Where the leader's log ended then."""
    is_kept: bool = True
    """The lease runs."""
    snapshot: LogPosition | None = None
    """(index, term), once the first chunk was read."""
    number: int = 0
    """The chunk that is being read or is in flight."""
    is_reading: bool = True
    sent_at: float = float("-inf")
    """When the chunk in flight was sent, or the follower said that it still works on it."""

    def want(self, number: int) -> None:
        """Note that a chunk is to be read, to send it."""
        self.number, self.is_reading = number, True

    def waits_for(self, snapshot: LogPosition | None, number: int) -> bool:
        """Return whether this chunk is the one that is being read."""
        return self.is_reading and (self.snapshot, self.number) == (snapshot, number)

    def begin_anew(self) -> None:
        """Note that the leader has this snapshot no more: the newest one takes its place, under the same lease."""
        self.snapshot = None

    def sent(self, snapshot: LogPosition, now: float) -> None:
        """Note that the chunk was read and is in flight."""
        self.snapshot, self.is_reading, self.sent_at = snapshot, False, now

    def arrived(self, now: float) -> None:
        """Note that the follower has the chunk in flight and works on it: it need not be sent again soon."""
        self.sent_at = now

    def is_in_flight(self, snapshot: LogPosition) -> bool:
        """Return whether a chunk of this snapshot is in flight."""
        return not self.is_reading and self.snapshot == snapshot

    def is_overdue(self, now: float, retry_s: float) -> bool:
        """Return whether the chunk has been in flight for so long that it, or its answer, must be lost."""
        return not self.is_reading and now >= self.sent_at + retry_s

    # The lease

    def moved(self, now: float, last_index: int) -> None:
        """Renew the lease: the follower wants another chunk, or works on the one that it has."""
        self.moved_at, self.moved_last_index, self.is_kept = now, last_index, True

    def was_unheard(self, lateness_s: float, now: float) -> None:
        """Don't count so much silence: the leader's own process slept."""
        self.moved_at = min(now, self.moved_at + lateness_s)

    def maybe_end_lease(self, now: float, last_index: int, lease_s: float) -> None:
        """End the lease if the follower made no progress for too long, or while too many entries came."""
        if now - self.moved_at >= lease_s or last_index - self.moved_last_index >= LEASE_ENTRIES:
            self.is_kept = False


@attrs.define
class Incoming:
    """The follower's end."""

    snapshot: LogPosition
    """(index, term)"""
    next_number: int = 0
    is_storing: bool = False
    """The chunk `next_number` is being written."""
    is_complete: bool = False
    """That is the last one: the snapshot is going to be installed, whatever else comes meanwhile."""
