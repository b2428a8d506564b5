"""What the house tells in its trace, as the whole world hears it."""

from collections.abc import Callable

from trio_kv.check.violation import Violation
from trio_kv.raft.events import DEBUG, INFO
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import ClientFailed, NodeCrashed


class WorldSink:
    """Ends the run when a part of the house fails that should not; tells a person.

    Args:
        fail: ends the run with an error.
        say: takes a line for each event, for people; None: nobody reads them.

    """

    def __init__(self, fail: Callable[[Exception], None], say: Callable[[str], None] | None) -> None:
        """Hear nothing yet; see the class."""
        self.level = INFO if say is None else DEBUG
        self._fail = fail
        self._say = say

    def write(self, record: Record) -> None:
        """Take a record."""
        event = record.event
        if self._say is not None:
            node = "" if record.node is None else f"n{record.node}@{record.term or 0} "
            self._say(f"{node}{event.name} {event}")
        if isinstance(event, ClientFailed) or (isinstance(event, NodeCrashed) and not event.is_injected):
            self._fail(Violation(f"it raised: {event.traceback}"))
