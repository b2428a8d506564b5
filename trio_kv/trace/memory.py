"""A sink that keeps what it gets, for tests and for judges that look on."""

from typing import TypeVar

from trio_kv.raft.events import DEBUG, Event
from trio_kv.trace.trace import Record

E = TypeVar("E", bound=Event)


class MemorySink:
    """Keeps every record, without limit: for runs that end."""

    def __init__(self, level: int = DEBUG) -> None:
        self.level = level
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        """Keep a record."""
        self.records.append(record)

    def events(self, event_class: type[E]) -> list[E]:
        """Return the events of one class, in their order."""
        return [record.event for record in self.records if isinstance(record.event, event_class)]
