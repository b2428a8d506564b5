"""What the house tells in its trace, as the whole world hears it."""

from trio_kv.check.violation import Violation
from trio_kv.sim.whole.host import WholeHost
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import ClientFailed, NodeCrashed


class WorldSink:
    """Ends the run of a world when a part of the house fails that should not; tells a person."""

    def __init__(self, host: WholeHost) -> None:
        """Hear nothing yet."""
        self.level = host.events_level
        self._host = host

    def write(self, record: Record) -> None:
        """Take a record."""
        event = record.event
        try:
            self._host.tell_event(event, record.node, record.term, record.role)
        except Violation as violation:
            self._host.fail(violation)
        if isinstance(event, ClientFailed) or (isinstance(event, NodeCrashed) and not event.is_injected):
            self._host.fail(Violation(f"it raised: {event.traceback}"))
