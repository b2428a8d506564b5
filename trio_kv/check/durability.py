"""What is durable: the shadow of each node's disk, and all that must not be said before it holds.

Judged here:
- what a message promises is durable when it leaves: the sender's term, its vote, the log up to an acknowledged
  index (paper figure 2 "updated on stable storage before responding", scenarios D1, D3, D7);
- an entry that is committed anywhere is on the disks of a majority at that moment (paper §5.3);
- a disk gives back, after a crash, all that was durable, and at most what was on its way to it.

The shadow is made of the completed writes alone; the comparison with what a disk really gives back keeps it honest.
"""

from collections import deque
from collections.abc import Sequence

import attrs

from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View
from trio_kv.raft.entry import Entry
from trio_kv.raft.messages import AppendAccepted, Message, RequestVote, VoteReply
from trio_kv.raft.ready import HardState, Ticket, Write


@attrs.define
class Shadow:
    """What one disk holds for sure, and what is on its way to it."""

    hard_state: HardState = attrs.field(factory=HardState)
    entries: list[Entry] = attrs.field(factory=list)
    pending: deque[Write] = attrs.field(factory=deque)

    def put(self, write: Write) -> None:
        """Carry a write out."""
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        if write.truncate_from is not None:
            del self.entries[write.truncate_from - 1 :]
        self.entries.extend(write.entries)

    def has(self, entry: Entry) -> bool:
        """Return whether the entry is durable."""
        index = entry.index
        return len(self.entries) >= index and self.entries[index - 1].encoded == entry.encoded


class Durability(Judge):
    """Follows the disks of all members."""

    def __init__(self, members: Sequence[int]) -> None:
        """Begin with empty disks."""
        self.shadows = {node: Shadow() for node in members}
        self.majority = len(members) // 2 + 1
        self.unsynced_lost = 0
        """Crashes after which something was gone that had been given to a disk."""

    def submitted(self, node: int, write: Write) -> None:
        """Remember what is on its way."""
        self.shadows[node].pending.append(write)

    def stored(self, node: int, ticket: Ticket) -> None:
        """Carry out what is durable now."""
        shadow = self.shadows[node]
        while shadow.pending and shadow.pending[0].ticket.number <= ticket.number:
            shadow.put(shadow.pending.popleft())

    def started(self, view: View, hard_state: HardState) -> None:
        """Compare what a disk gave back with what it had to hold."""
        shadow = self.shadows[view.id]
        while not self._is(shadow, hard_state, view.entries):
            if not shadow.pending:
                held = f"{len(shadow.entries)} entries in term {shadow.hard_state.term}"
                raise Violation(
                    f"{view}: its disk gave back something else than it took; it had to hold {held}"
                )
            write = shadow.pending.popleft()
            if self._is_part(shadow, write, hard_state, view.entries):
                break
            shadow.put(write)
        self.unsynced_lost += bool(shadow.pending)
        shadow.pending.clear()
        shadow.hard_state = hard_state
        shadow.entries = list(view.entries)

    def committed(self, view: View, first: int, last: int) -> None:
        """Refuse a commit that no majority holds."""
        for entry in view.entries[first - 1 : last]:
            self.require(entry, f"{view} committed it")

    def require(self, entry: Entry, why: str) -> None:
        """Refuse that this entry is lost if a minority of the disks is.

        Raises:
            Violation: no majority holds it.

        """
        holders = [node for node, shadow in self.shadows.items() if shadow.has(entry)]
        if len(holders) < self.majority:
            raise Violation(f"entry {entry} is durable on nodes {holders} only, but {why}")

    def sent(self, node: int, message: Message) -> None:
        """Refuse a promise that a crash would break."""
        durable = self.shadows[node].hard_state
        if message.term > durable.term:
            raise Violation(f"{message} left, but the durable term of its sender is {durable.term}")
        if message.term < durable.term:
            return  # The sender has gone on since; its promises of that term are covered by the newer state.
        if isinstance(message, AppendAccepted):
            if message.match > len(self.shadows[node].entries):
                raise Violation(
                    f"{message} left, but only {len(self.shadows[node].entries)} entries are durable"
                )
        elif isinstance(message, RequestVote) or (isinstance(message, VoteReply) and message.is_granted):
            vote = node if isinstance(message, RequestVote) else message.target
            if durable.vote != vote:
                raise Violation(f"{message} left, but the durable vote of its sender is {durable.vote}")

    @staticmethod
    def _is(shadow: Shadow, hard_state: HardState, entries: Sequence[Entry]) -> bool:
        return shadow.hard_state == hard_state and _is_equal(shadow.entries, entries)

    @staticmethod
    def _is_part(shadow: Shadow, write: Write, hard_state: HardState, entries: Sequence[Entry]) -> bool:
        """Return whether only the beginning of a write reached the disk: it is cut between entries when it is large."""
        if hard_state != (write.hard_state or shadow.hard_state):
            return False
        base = len(shadow.entries) if write.truncate_from is None else write.truncate_from - 1
        count = len(entries) - base
        return 0 <= count <= len(write.entries) and _is_equal(
            [*shadow.entries[:base], *write.entries[:count]], entries
        )


def _is_equal(ours: Sequence[Entry], theirs: Sequence[Entry]) -> bool:
    return len(ours) == len(theirs) and all(
        mine is other or mine.encoded == other.encoded for mine, other in zip(ours, theirs, strict=True)
    )
