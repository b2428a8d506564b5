"""The situations that a set of runs must have reached: a judge that never saw the danger has judged nothing."""

from collections import Counter

OUTCOMES = (
    "get ok",
    "get missing",
    "set ok",
    "delete ok",
    "delete missing",
    "cas ok",
    "cas conflict",
    "if_revision ok",
    "if_revision conflict",
    "incr ok",
    "incr conflict",
    "scan ok",
    "count ok",
    "txn ok",
    "txn conflict",
)
"""What the state machine must have been asked, and have answered: a workload that never asks is seen."""
SITUATIONS = (
    *OUTCOMES,
    "tail truncated",
    "old entries committed by a no-op",
    "retry answered from the session table",
    "torn tail cut",
    "unsynced data lost",
    "read pending over a leader change",
    "split vote",
    "paused leader resumed",
    "stalled leader handed over",
    "session expired",
    "recovery interrupted",
    "leadership transferred",
    "disk failed",
    "disk failed, node came back",
    "segment filled",
    "leader cut off from the majority stepped down",
    "read answered by a follower",
    "read between writes",
    "read lost its place",
    "snapshot taken",
    "snapshot installed",
    "snapshot installed over a conflicting log",
    "install resumed by another leader",
    "two snapshots back to back",
    "crash while a snapshot was written",
    "log compacted",
    "snapshot lost its turn",
    "snapshot sent to a disk that hangs",
    "disk hung at a start",
    "restart from snapshot",
    "rebuild finished",
    "rebuild finished among hosts",
    "read_only answered",
    "full disk recovered",
    "write found no room",
    "snapshot aborted by full disk",
    "damage refused",
    "changes told",
    "history gone at a node",
)
"""Those of the core world."""
RARE = frozenset(
    {
        "retry answered from the session table",
        "torn tail cut",
        "unsynced data lost",
        "split vote",
        "stalled leader handed over",
        "session expired",
        "read lost its place",
        "recovery interrupted",
        "leadership transferred",
        "rebuild finished among hosts",
        "snapshot installed over a conflicting log",
        "install resumed by another leader",
        "crash while a snapshot was written",
        "read_only answered",
        "snapshot lost its turn",
        "snapshot sent to a disk that hangs",
        "write found no room",
        "changes told",
        "history gone at a node",
    }
)
"""What the core world has to reach, with its longer and many more runs."""
DOOR_SITUATIONS = (
    "watch begun",
    "watch ended",
    "watch resumed",
    "watch lost",
    "watch compacted",
    "progress told",
    "request asked again under its seq",
    "answer told twice",
    "requests pipelined",
    "chain of requests judged",
    "stale read",
    "client left before its answer",
    "client lost its patience",
    "connection ended behind half a line",
    "reader was slow",
    "door said good-bye",
    "door restarted",
    "stranger answered",
    "write retried by the gateway",
    "node crashed",
    "first start interrupted",
    "rebuild interrupted",
)
PROCESS_SITUATIONS = (
    "process killed",
    "process frozen",
    "wire stuck",
    "connections reset",
    "former self called",
    "stranger called",
)
"""What the whole world must have met in those of its runs that have several processes."""
WHOLE_SITUATIONS = (
    *(situation for situation in SITUATIONS if situation not in RARE),
    *DOOR_SITUATIONS,
    *PROCESS_SITUATIONS,
)
"""What many runs of the whole world must have reached."""


class Coverage(Counter[str]):
    """How often each situation was reached."""

    def reach(self, situation: str, times: int = 1) -> None:
        """Count a situation of the lists."""
        assert situation in {*SITUATIONS, *DOOR_SITUATIONS, *PROCESS_SITUATIONS}, situation
        if times:
            self[situation] += times
