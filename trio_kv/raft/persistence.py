"""What must be on the disk before anybody hears of it: the term, the vote, the log (paper figure 2), and incarnations.

The core does no I/O: it gives out writes, and is told when they are durable. Here stands how far the disk is behind the
memory. A message that promises something is held until the write that backs it is durable.
"""

import copy
from collections import deque

import attrs

from trio_kv.raft.entry import Entry, LogPosition
from trio_kv.raft.log import Log
from trio_kv.raft.log_space import WRITE_BYTES_EXTRA, fitting
from trio_kv.raft.messages import Message
from trio_kv.raft.ready import HardState, Ticket, Write

WRITES_UNDER_WAY_MAX = 1024
"""Writes that are given out and not durable. What comes beyond them waits here, and becomes one write when one is done:
so the queue of a disk that hangs is bounded. A disk that works never has so many."""

HELD_MAX = 4096
"""Messages that wait for one write. Of more, the oldest are dropped, as a network may drop them: Raft sends again."""


@attrs.frozen
class _PendingWrite:
    """A write under way, and the messages that must not leave before it is done."""

    write: Write
    issued_at: float
    messages: list[Message]


class Persistence:
    """The way of one node's persistent state to its disk.

    Invariants: writes are given out, and become durable, in the order of their tickets; `log.durable` never counts an
    entry that a later write is going to drop; a message that is held leaves after the write it was bound to.
    """

    def __init__(self, log: Log, hard_state: HardState) -> None:
        """Begin with what the disk holds."""
        self.log = log
        self.durable_term = hard_state.term
        self.durable_incarnations = hard_state.incarnations
        self.free_log_bytes: int | None = None
        """How much zero-filled log space is left on a full disk; None: it is not full."""
        self.held: list[Message] = []
        """Messages that wait for the next write, or for the last one under way if there is nothing to write."""
        self._saved = hard_state
        self._unsaved_from = log.last_index + 1
        self._truncate_from: int | None = None
        self._base: LogPosition | None = None
        self.stored_issued_at = 0.0
        """When the write was given out that became durable last."""
        self._pending: deque[_PendingWrite] = deque()
        self._tickets = 0

    # The log

    def truncate(self, first: int) -> None:
        """Drop all entries from `first` on, here and with the next write."""
        self.log.truncate(first)
        if first < self._unsaved_from:
            self._truncate_from = first if self._truncate_from is None else min(first, self._truncate_from)
        self._unsaved_from = min(self._unsaved_from, first)

    def install(self, index: int, term: int, time_us: int) -> bool:
        """Let a durable snapshot take the place of the log up to `index`; return whether what follows is kept."""
        is_log_kept = self.log.has(index, term)
        if is_log_kept:
            # What follows agrees with the leader that took the snapshot, and may be acknowledged (paper §7).
            self.log.durable = max(self.log.durable, index)
            self.log.compact(index)
            if self._unsaved_from > index:
                return True
            # The entries up to it were not written yet, and are forgotten: the disk, too, goes on from the snapshot.
        else:
            # This log contradicts what is committed, so none of it may ever be replicated (scenarios N1, N2). The disk
            # drops it before this node says that it has the snapshot.
            self.log.reset(index, term, time_us)
        self._base, self._truncate_from, self._unsaved_from = LogPosition(index, term), None, index + 1
        return is_log_kept

    # Writes

    def next_write(self, now: float, hard_state: HardState) -> Write | None:
        """Return what brings the disk up to date; None if nothing has changed since the last write, or it must wait."""
        if self.is_backed_up:
            return None
        is_changed = hard_state != self._saved
        last = self.log.last_index
        if (
            not is_changed
            and self._unsaved_from > last
            and self._truncate_from is None
            and self._base is None
        ):
            return None
        self._tickets += 1
        entries = self.log.slice(self._unsaved_from, last) if self._unsaved_from <= last else ()
        write = Write(
            Ticket(self._tickets, self.log.last_term, last),
            hard_state if is_changed else None,
            self._truncate_from,
            entries,
            self._base,
        )
        self._saved = hard_state
        self._base = None
        self._unsaved_from = last + 1
        self._truncate_from = None
        self._pending.append(_PendingWrite(write, now, []))
        return write

    @property
    def is_backed_up(self) -> bool:
        """Whether so many writes are under way that no further one is given out."""
        return len(self._pending) >= WRITES_UNDER_WAY_MAX

    def release(self) -> list[Message]:
        """Bind the held messages to the last write under way; if there is none, return them: they may leave."""
        if self.is_backed_up:
            # The write that backs them may not be given out yet.
            del self.held[:-HELD_MAX]
            return []
        held, self.held = self.held, []
        if not self._pending:
            return held
        waiting = self._pending[-1].messages
        waiting.extend(held)
        del waiting[:-HELD_MAX]
        return []

    def stored(self, ticket: Ticket) -> list[Message]:
        """Note that this write, and all before it, are durable; return the messages that waited for them."""
        messages: list[Message] = []
        done = None
        while self._pending and self._pending[0].write.ticket.number <= ticket.number:
            done = self._pending.popleft()
            if done.write.hard_state is not None:
                self.durable_term = done.write.hard_state.term
                self.durable_incarnations = done.write.hard_state.incarnations
            messages.extend(done.messages)
        assert done is not None, f"{ticket} is not under way"
        self.stored_issued_at = done.issued_at
        # Entries that a later write is going to drop do not count, though they are on the disk now.
        durable = min(
            [
                done.write.ticket.last_index,
                *(
                    later.write.truncate_from - 1
                    for later in self._pending
                    if later.write.truncate_from is not None
                ),
                *(later.write.base[0] for later in self._pending if later.write.base is not None),
                *((self._truncate_from - 1,) if self._truncate_from is not None else ()),
                *((self._base[0],) if self._base is not None else ()),
            ]
        )
        self.log.durable = max(self.log.durable, durable)
        return messages

    @property
    def oldest_write_at(self) -> float | None:
        """When the oldest write that is not durable yet was given out."""
        return self._pending[0].issued_at if self._pending else None

    # Space on a full disk

    def has_log_space(self, size_bytes: int) -> bool:
        """Return whether the log has space for so many bytes more, beside all that is under way to the disk."""
        return self.free_log_bytes is None or size_bytes <= self._left_bytes(self.free_log_bytes)

    @property
    def free_log_bytes_left(self) -> int | None:
        """How much space a full disk has beside all that is under way to it; None: it is not full."""
        return None if self.free_log_bytes is None else max(0, self._left_bytes(self.free_log_bytes))

    def fitting(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """Return those of these entries that a full disk has space for; the leader sends the others again."""
        return (
            entries
            if self.free_log_bytes is None
            else fitting(entries, self._left_bytes(self.free_log_bytes))
        )

    def _left_bytes(self, free_log_bytes: int) -> int:
        """Return how much one more write may take, once all that is under way is written."""
        written = sum([len(entry.encoded) for each in self._pending for entry in each.write.entries])
        unsaved = self.log.size_bytes(self._unsaved_from, self.log.last_index)
        return free_log_bytes - written - unsaved - WRITE_BYTES_EXTRA * (len(self._pending) + 1)

    def copy(self, log: Log) -> "Persistence":
        """Return an equal one for a copy of the node, whose log this is."""
        twin = copy.copy(self)
        twin.log = log
        twin.held = self.held.copy()
        pending = [attrs.evolve(write, messages=write.messages.copy()) for write in self._pending]
        twin._pending = deque(pending)  # noqa: SLF001 - a twin of this class
        return twin
