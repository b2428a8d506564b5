"""What the core asks of its driver: one `Ready`, its fields in the order of the duties."""

from typing import Any

import attrs

from trio_kv.raft.entry import Entry, LogPosition
from trio_kv.raft.events import Told
from trio_kv.raft.messages import Message


@attrs.frozen
class HardState:
    """What must outlive a crash before anybody hears of it (paper figure 2)."""

    term: int = 0
    vote: int | None = None
    incarnations: tuple[tuple[int, int], ...] = ()
    """(node, incarnation) of all that were heard of, by node: what an earlier disk of a node said must stay void."""


@attrs.frozen
class Ticket:
    """Names one write. Tickets of one node complete in the order of their numbers."""

    number: int
    term: int
    """Term of the log's last entry once this write is done."""
    last_index: int

    def __str__(self) -> str:
        return f"#{self.number} {self.last_index}@{self.term}"


@attrs.frozen
class Write:
    """One write to the log: its parts are carried out in the order of the fields.

    Afterwards the log on disk is: what was there before `truncate_from` (nothing, with a `base`), then
    `entries`. All of it becomes durable together; `Raft.stored(ticket)` is called then, and not before.
    """

    ticket: Ticket
    hard_state: HardState | None = None
    truncate_from: int | None = None
    """Drop every entry with this index or a higher one."""
    entries: tuple[Entry, ...] = ()
    base: LogPosition | None = None
    """Before all else, drop the whole log: a durable snapshot up to this (index, term) has taken its place."""


@attrs.frozen
class ChunkRead:
    """Read a chunk of this node's newest snapshot, or of the one named, for a follower."""

    peer: int
    number: int
    snapshot: LogPosition | None
    """(index, term); None asks for the newest, from its first chunk."""


@attrs.frozen
class ChunkWasRead:
    """A chunk was read for a follower. No data: that snapshot is gone, or there is none yet (0, 0)."""

    index: int
    term: int
    data: bytes | None
    is_last: bool


@attrs.frozen
class Chunk:
    """A chunk of a leader's snapshot that came for this node."""

    index: int
    index_term: int
    number: int
    data: bytes
    is_last: bool


@attrs.frozen
class Ready:
    """A batch of effects. The driver carries it out field by field, in this order.

    1. `messages` may leave now.
    2. `write` goes to the disk. Writes are made durable in the order given. Report each by `Raft.stored`:
       the messages that had to wait for it come out of the next `Ready`.
    3. `committed` entries are applied, in order.
    4. `reads` are answered once the state machine has applied the index beside them.
    5. `chunks` are put into the snapshot that is being received; after each, `Raft.chunk_stored` is called. After the
       last one that snapshot is made durable, the state machine is restored from it, and `Raft.installed` is called.
    6. `chunk_reads` are read, and given to `Raft.chunk_read`.
    7. `events` are told to whoever listens.
    """

    messages: tuple[Message, ...] = ()
    write: Write | None = None
    committed: tuple[Entry, ...] = ()
    reads: tuple[tuple[Any, int], ...] = ()
    chunks: tuple[Chunk, ...] = ()
    chunk_reads: tuple[ChunkRead, ...] = ()
    events: tuple[Told, ...] = ()


@attrs.define
class Effects:
    """What the next `Ready` is going to hold, beside its write and the committed entries."""

    messages: list[Message] = attrs.field(factory=list)
    reads: list[tuple[Any, int]] = attrs.field(factory=list)
    chunks: list[Chunk] = attrs.field(factory=list)
    chunk_reads: list[ChunkRead] = attrs.field(factory=list)
    events: list[Told] = attrs.field(factory=list)

    def take_messages(self) -> list[Message]:
        """Return the messages, which leave now."""
        messages, self.messages = self.messages, []
        return messages

    def copy(self) -> "Effects":
        """Return equal effects for a copy of the node."""
        return Effects(*map(list.copy, attrs.astuple(self, recurse=False)))
