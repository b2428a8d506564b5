"""What is durable: the shadow of each node's disk, and all that must not be said before it holds.

Judged here:
- what a message promises is durable when it leaves: the sender's term, its vote, the log up to an acknowledged
  index (paper figure 2 "updated on stable storage before responding", scenarios D1, D3, D7);
- an entry that is committed anywhere is on the disks of a majority at that moment (paper §5.3);
- a disk gives back, after a crash, all that was durable, and at most what was on its way to it;
- the log is dropped only behind a snapshot that is durable (scenario N6);
- a node that lost its disk counts again only once it has all that was committed when it came back (scenario D8).

What a snapshot covers is durable like what stands in the log: snapshots hold nothing but what is committed. What a node
had on a disk that is lost still counts while the node is being rebuilt. It votes for nobody meanwhile, so nobody can be
elected without a node that still has the entry.

The shadow is made of the completed writes alone; the comparison with what a disk really gives back keeps it honest.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Self

import attrs

from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View
from trio_kv.raft.entry import LOG_START, Entry, LogPosition
from trio_kv.raft.messages import AppendAccepted, Message, RequestVote, VoteReply
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.raft.voters import Voters

"""(index, term)"""


@attrs.define
class Shadow:
    """What one disk holds for sure, and what is on its way to it."""

    hard_state: HardState = attrs.field(factory=HardState)
    base: LogPosition = LOG_START
    """The log begins behind this place. A log that is dropped behind a snapshot stays here: the snapshot covers it all
    the same."""
    entries: list[Entry] = attrs.field(factory=list)
    pending: deque[Write] = attrs.field(factory=deque)
    snapshot: LogPosition = LOG_START
    """The newest one."""
    is_flipped: bool = False
    """The disk forgot something: a snapshot may be given up if the log holds what is in it."""
    is_rebuilding: bool = False
    former: "Shadow | None" = None
    """While rebuilding: what the node had before."""
    due: int = 0
    """While rebuilding: what was committed when this life began."""

    @property
    def term(self) -> int:
        """The durable term."""
        return self.hard_state.term

    @property
    def end(self) -> int:
        """The index up to which it holds entries, or a snapshot of them."""
        return max(self.last_index, self.snapshot[0])

    @property
    def last_index(self) -> int:
        """Index of the log's last entry."""
        return self.base[0] + len(self.entries)

    def put(self, write: Write) -> None:
        """Carry a write out."""
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        if write.base is not None:
            self.base, self.entries = write.base, []
        if write.truncate_from is not None:
            del self.entries[write.truncate_from - self.base[0] - 1 :]
        self.entries.extend(write.entries)

    def parts(self, write: Write) -> Iterator[Self]:
        """Yield the parts of an interrupted write that may be there: a large one is cut between entries."""
        yield self._with(Write(write.ticket, write.hard_state))
        for count in range(len(write.entries) + 1):
            yield self._with(attrs.evolve(write, entries=write.entries[:count]))

    def _with(self, write: Write) -> Self:
        twin = attrs.evolve(self, entries=self.entries.copy())
        twin.put(write)
        return twin

    def gives(self, hard_state: HardState, base: LogPosition, entries: Sequence[Entry]) -> bool:
        """Return whether a start with the snapshot `base` may find this hard state, and these entries behind it."""
        index, term = base
        if index < self.base[0]:
            # An older snapshot, and a log that goes back to it: what is behind the newer one was never dropped.
            known = entries[self.base[0] - index :]
            return hard_state == self.hard_state and _is_equal(self.entries, known)
        due: Sequence[Entry] = []
        due_state = self.hard_state
        if self._term_at(index) == term:
            due = self.entries[index - self.base[0] :]
        elif term > due_state.term:
            # The log gave way to a snapshot that became durable before the term in which it came.
            due_state = attrs.evolve(due_state, term=term, vote=None)
        return hard_state == due_state and _is_equal(due, entries)

    def _term_at(self, index: int) -> int | None:
        if not self.base[0] <= index <= self.last_index:
            return None
        return self.base[1] if index == self.base[0] else self.entries[index - self.base[0] - 1].term

    def has(self, entry: Entry) -> bool:
        """Return whether a committed entry is durable."""
        index = entry.index
        if index <= max(self.base[0], self.snapshot[0]):
            return True
        return index <= self.last_index and self.entries[index - self.base[0] - 1].encoded == entry.encoded

    def counts(self, entry: Entry) -> bool:
        """Return whether the node counts as one that has this committed entry."""
        if self.is_rebuilding:
            return self.former is not None and self.former.counts(entry)
        return self.has(entry)


class Durability(Judge):
    """Follows the disks of all members."""

    def __init__(self, members: Sequence[int], committed: Sequence[Entry] = ()) -> None:
        """Begin with empty disks; `committed` is all that was ever committed, kept up to date by somebody else."""
        self.shadows = {node: Shadow() for node in members}
        self.voters = Voters(members)
        self.unsynced_lost = 0
        """Crashes after which something was gone that had been given to a disk."""
        self._committed = committed

    def submitted(self, node: int, write: Write) -> None:
        """Remember what is on its way."""
        self.shadows[node].pending.append(write)

    def stored(self, node: int, ticket: Ticket) -> None:
        """Carry out what is durable now."""
        shadow = self.shadows[node]
        while shadow.pending and shadow.pending[0].ticket.number <= ticket.number:
            shadow.put(shadow.pending.popleft())

    def snapshot_stored(self, node: int, place: LogPosition) -> None:
        """Note a snapshot."""
        self.shadows[node].snapshot = max(place, self.shadows[node].snapshot)

    def dropping(self, node: int, index: int) -> None:
        """Refuse to drop what no snapshot holds."""
        if index > self.shadows[node].snapshot[0]:
            raise Violation(
                f"n{node} drops its log up to {index}, its snapshot is {self.shadows[node].snapshot}"
            )

    def compacted(self, view: View) -> None:
        """Refuse to forget what no snapshot holds."""
        self.dropping(view.id, view.base)

    def flipped(self, node: int) -> None:
        """Note that a disk may refuse what it held."""
        self.shadows[node].is_flipped = True

    def wiped(self, node: int) -> None:
        """Begin with an empty disk; what was on the other one is remembered until the rebuild ends."""
        self.shadows[node] = Shadow(is_rebuilding=True, former=self.shadows[node])

    def rebuilt(self, node: int) -> None:
        """Refuse that a node counts that lacks something."""
        shadow = self.shadows[node]
        if shadow.end < shadow.due:
            raise Violation(
                f"n{node} ends its rebuild with {shadow.last_index} entries and the snapshot {shadow.snapshot}, but"
                f" {shadow.due} were committed when it began"
            )
        lacking = [entry for entry in self._committed[: shadow.due] if not shadow.has(entry)]
        if lacking:
            raise Violation(f"n{node} ends its rebuild with another entry in the place of {lacking[0]}")
        shadow.is_rebuilding, shadow.former = False, None

    def started(self, view: View, hard_state: HardState) -> None:
        """Compare what a disk gave back with what it had to hold."""
        shadow = self.shadows[view.id]
        base = LogPosition(view.base, view.raft.log.base_term)
        entries = view.entries[view.base :]
        if view.base < shadow.snapshot[0] and not shadow.is_flipped:
            raise Violation(f"{view}: its disk lost the snapshot {shadow.snapshot}")
        while not shadow.gives(hard_state, base, entries):
            if not shadow.pending:
                held = f"{shadow.last_index} entries in term {shadow.hard_state.term}"
                raise Violation(
                    f"{view}: its disk gave back something else than it took; it had to hold {held}"
                )
            write = shadow.pending.popleft()
            if any(part.gives(hard_state, base, entries) for part in shadow.parts(write)):
                break
            shadow.put(write)
        self.unsynced_lost += bool(shadow.pending)
        counted = None if shadow.is_rebuilding else attrs.evolve(shadow)
        self.shadows[view.id] = attrs.evolve(
            shadow,
            hard_state=hard_state,
            base=base,
            entries=list(entries),
            pending=deque(),
            snapshot=base,
            is_flipped=False,
        )
        if view.raft.is_rebuilding:
            shadow = self.shadows[view.id]
            shadow.is_rebuilding, shadow.due = True, len(self._committed)
            shadow.former = shadow.former or counted

    def committed(self, view: View, first: int, last: int) -> None:
        """Refuse a commit that no majority holds."""
        for entry in view.entries[first - 1 : last]:
            self.require(entry, f"{view} committed it")

    def require(self, entry: Entry, why: str) -> None:
        """Refuse that the loss of a minority of the disks loses this entry.

        Raises:
            Violation: no majority holds it.

        """
        holders = [node for node, shadow in self.shadows.items() if shadow.counts(entry)]
        if not self.voters.has_majority(holders):
            raise Violation(f"entry {entry} is durable on nodes {holders} only, but {why}")

    def sent(self, node: int, message: Message) -> None:
        """Refuse a promise that a crash would break."""
        shadow = self.shadows[node]
        durable = shadow.hard_state
        if shadow.is_rebuilding and not message.is_rebuilding:
            raise Violation(f"{message} left and does not say that its sender is being rebuilt")
        if message.term > durable.term:
            raise Violation(f"{message} left, but the durable term of its sender is {durable.term}")
        if message.term < durable.term:
            return  # The sender has gone on since; its promises of that term are covered by the newer state.
        if isinstance(message, AppendAccepted):
            if message.match > shadow.last_index:
                raise Violation(f"{message} left, but only {shadow.last_index} entries are durable")
        elif isinstance(message, RequestVote) or (isinstance(message, VoteReply) and message.is_granted):
            vote = node if isinstance(message, RequestVote) else message.target
            if durable.vote != vote:
                raise Violation(f"{message} left, but the durable vote of its sender is {durable.vote}")


def _is_equal(ours: Sequence[Entry], theirs: Sequence[Entry]) -> bool:
    return len(ours) == len(theirs) and all(
        mine is other or mine.encoded == other.encoded for mine, other in zip(ours, theirs, strict=True)
    )
