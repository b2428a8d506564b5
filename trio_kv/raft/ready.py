"""What the core asks of its driver: one `Ready`, its fields in the order of the duties."""

from typing import Any

import attrs

from trio_kv.raft.entry import Entry
from trio_kv.raft.events import Event
from trio_kv.raft.messages import Message


@attrs.frozen
class HardState:
    """What must outlive a crash before anybody hears of it (paper figure 2)."""

    term: int = 0
    vote: int | None = None


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

    Afterwards the log on disk is: what was there before `truncate_from`, then `entries`. All of it
    becomes durable together; `Raft.stored(ticket)` is called then, and not before.
    """

    ticket: Ticket
    hard_state: HardState | None = None
    truncate_from: int | None = None
    """Drop every entry with this index or a higher one."""
    entries: tuple[Entry, ...] = ()


@attrs.frozen
class Ready:
    """A batch of effects. The driver carries it out field by field, in this order.

    1. `messages` may leave now.
    2. `write` goes to the disk. Writes are made durable in the order given. Report each by `Raft.stored`:
       the messages that had to wait for it come out of the next `Ready`.
    3. `committed` entries are applied, in order.
    4. `reads` are answered once the state machine has applied the index beside them.
    5. `events` are told to whoever listens.
    """

    messages: tuple[Message, ...] = ()
    write: Write | None = None
    committed: tuple[Entry, ...] = ()
    reads: tuple[tuple[Any, int], ...] = ()
    events: tuple[Event, ...] = ()
