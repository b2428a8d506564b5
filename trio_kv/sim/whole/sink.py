"""What the house tells in its trace, as the whole world hears it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from trio_kv.check.violation import Violation
from trio_kv.raft.events import DEBUG, INFO
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import ClientFailed, NodeCrashed

if TYPE_CHECKING:
    from trio_kv.sim.whole.world import WholeWorld


class WorldSink:
    """Ends the run when a part of the house fails that should not; tells a person.

    Args:
        world: the run.
        tell: takes a line for each event, for people.

    """

    def __init__(self, world: "WholeWorld", tell: Callable[[str], None] | None) -> None:
        """Hear nothing yet; see the class."""
        self.level = INFO if tell is None else DEBUG
        self._world = world

    def write(self, record: Record) -> None:
        """Take a record."""
        event, world = record.event, self._world
        if self.level == DEBUG:
            node = "" if record.node is None else f"n{record.node}@{record.term or 0} "
            world.say(f"{node}{event.name} {event}")
        match event:
            case NodeCrashed(is_injected=False) | ClientFailed():
                world.fail(Violation(f"it raised: {event.traceback}"))
            case _:
                pass
