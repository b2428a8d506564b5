"""A snapshot on its way to a follower (paper §7), from both ends.

What a follower needs next may be gone from the leader's log. Then it gets the leader's snapshot, one chunk at a time::

    leader                                            follower
    Progress.become_install
    Ready.chunk_reads: the driver reads the chunk
    chunk_read     -> InstallSnapshot(number)     ->  Ready.chunks: the driver writes the chunk
                   <- InstallReply(number + 1)    <-  chunk_stored
    ...                                               ... the last one: the driver makes the snapshot durable
    Progress.accepted  <- AppendAccepted(index)   <-  installed

One chunk is in flight, which is all the back-pressure that it needs. The follower says which chunk it wants: what it
has of a snapshot stays when the leader changes, since all nodes make the same chunks of it. A chunk or an answer that
was lost is sent again by the leader; a snapshot that is gone at the leader gives way to its newest one.
"""

import attrs

TRIES_MAX = 20
"""A chunk that was sent so often without an answer is given up, and the snapshot with it: it can be begun anew."""


@attrs.define
class Outgoing:
    """The leader's end. Either a chunk is being read from the leader's disk, or it is in flight."""

    snapshot: tuple[int, int] | None = None
    """(index, term), once the first chunk was read."""
    number: int = 0
    """The chunk that is being read or is in flight."""
    is_reading: bool = True
    sent_at: float = 0.0
    tries: int = 0
    """How often the chunk was sent without an answer."""

    def want(self, number: int) -> None:
        """Note that a chunk is to be read, to send it."""
        self.number, self.is_reading, self.tries = number, True, 0

    def retry(self) -> bool:
        """Note that the chunk in flight is to be read once more; return False if it was sent often enough."""
        self.tries += 1
        self.is_reading = self.tries < TRIES_MAX
        return self.is_reading

    def waits_for(self, snapshot: tuple[int, int] | None, number: int) -> bool:
        """Return whether this chunk is the one that is being read."""
        return self.is_reading and (self.snapshot, self.number) == (snapshot, number)

    def sent(self, snapshot: tuple[int, int], now: float) -> None:
        """Note that the chunk was read and is in flight."""
        self.snapshot, self.is_reading, self.sent_at = snapshot, False, now

    def is_asked_for(self, snapshot: tuple[int, int], number: int) -> bool:
        """Return whether a follower's answer asks for another chunk than the one in flight."""
        return not self.is_reading and self.snapshot == snapshot and self.number != number

    def is_overdue(self, now: float, retry_s: float) -> bool:
        """Return whether the chunk has been in flight for so long that it, or its answer, must be lost."""
        return not self.is_reading and now >= self.sent_at + retry_s


@attrs.define
class Incoming:
    """The follower's end."""

    snapshot: tuple[int, int]
    """(index, term)"""
    next_number: int = 0
    is_storing: bool = False
    """The chunk `next_number` is being written."""
    is_complete: bool = False
    """That is the last one: the snapshot is going to be installed, whatever else comes meanwhile."""
