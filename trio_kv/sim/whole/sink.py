"""What the house tells in its trace, as the whole world hears it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from trio_kv.check.violation import Violation
from trio_kv.raft.events import (
    DEBUG,
    INFO,
    LeaderElected,
    LeaderSteppedDown,
    LogTruncated,
    SnapshotInstalled,
    TransferStarted,
)
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import ClientFailed, NodeCrashed, SnapshotGivenUp

if TYPE_CHECKING:
    from trio_kv.sim.whole.world import WholeWorld


class WorldSink:
    """Ends the run when a part of the house fails that should not; counts situations; tells a person.

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
            case LeaderElected() if record.node in world.transfers:
                world.coverage.reach("leadership transferred")
                world.transfers.clear()
            case LogTruncated():
                world.coverage.reach("tail truncated")
            case TransferStarted(reason="the disk stands still"):
                world.coverage.reach("stalled leader handed over")
            case LeaderSteppedDown(reason="no majority answers"):
                world.coverage.reach("leader cut off from the majority stepped down")
            case SnapshotInstalled():
                world.coverage.reach("snapshot installed")
            case SnapshotGivenUp():
                world.coverage.reach("snapshot aborted by full disk")
            case _:
                pass
