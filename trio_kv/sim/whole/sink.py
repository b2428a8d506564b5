"""What the house tells in its trace, as the whole world hears it."""

from collections.abc import Callable

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
from trio_kv.sim.coverage import Coverage
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import ClientFailed, NodeCrashed, SnapshotGivenUp


class WorldSink:
    """Ends the run when a part of the house fails that should not; counts situations; tells a person.

    Args:
        coverage: counts the situations.
        transfers: the nodes that were to take over, and did not yet.
        fail: ends the run with an error.
        say: takes a line for each event, for people; None: nobody reads them.

    """

    def __init__(
        self,
        coverage: Coverage,
        transfers: set[int],
        fail: Callable[[Exception], None],
        say: Callable[[str], None] | None,
    ) -> None:
        """Hear nothing yet; see the class."""
        self.level = INFO if say is None else DEBUG
        self._reach = coverage.reach
        self._transfers = transfers
        self._fail = fail
        self._say = say

    def write(self, record: Record) -> None:
        """Take a record."""
        event, reach = record.event, self._reach
        if self._say is not None:
            node = "" if record.node is None else f"n{record.node}@{record.term or 0} "
            self._say(f"{node}{event.name} {event}")
        match event:
            case NodeCrashed(is_injected=False) | ClientFailed():
                self._fail(Violation(f"it raised: {event.traceback}"))
            case LeaderElected() if record.node in self._transfers:
                reach("leadership transferred")
                self._transfers.clear()
            case LogTruncated():
                reach("tail truncated")
            case TransferStarted(reason="the disk stands still"):
                reach("stalled leader handed over")
            case LeaderSteppedDown(reason="no majority answers"):
                reach("leader cut off from the majority stepped down")
            case SnapshotInstalled():
                reach("snapshot installed")
            case SnapshotGivenUp():
                reach("snapshot aborted by full disk")
            case _:
                pass
