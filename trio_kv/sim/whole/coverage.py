"""The situations of the whole world: those of the core world that its runs reach soon, too, and those of the door."""

from trio_kv.sim.coverage import SITUATIONS as CORE_SITUATIONS
from trio_kv.sim.coverage import Coverage

RARE = frozenset(
    {
        "retry answered from the session table",
        "torn tail cut",
        "unsynced data lost",
        "split vote",
        "stalled leader handed over",
        "session expired",
        "recovery interrupted",
        "leadership transferred",
        "snapshot installed over a conflicting log",
        "install resumed by another leader",
        "crash while a snapshot was written",
        "read_only answered",
        "snapshot lost its turn",
        "snapshot sent to a disk that hangs",
        "write found no room",
    }
)
"""What the core world has to reach, with its longer and many more runs."""
DOOR_SITUATIONS = (
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


WHOLE_SITUATIONS = (
    *(situation for situation in CORE_SITUATIONS if situation not in RARE),
    *DOOR_SITUATIONS,
)


class WholeCoverage(Coverage):
    """How often each situation was reached."""

    def reach(self, situation: str, times: int = 1) -> None:
        """Count a situation of either list."""
        assert situation in DOOR_SITUATIONS or situation in CORE_SITUATIONS, situation
        if times:
            self[situation] += times

    def missing(self) -> list[str]:
        """Return the situations never reached, in the order of the list."""
        return [situation for situation in WHOLE_SITUATIONS if not self[situation]]
