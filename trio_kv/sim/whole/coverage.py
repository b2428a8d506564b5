"""The situations of the whole world: those of the core world that are of its making too, and those of the door."""

from trio_kv.sim.coverage import SITUATIONS as CORE_SITUATIONS
from trio_kv.sim.coverage import Coverage

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
)


class WholeCoverage(Coverage):
    """How often each situation was reached."""

    def reach(self, situation: str, times: int = 1) -> None:
        """Count a situation of either list."""
        assert situation in DOOR_SITUATIONS or situation in CORE_SITUATIONS, situation
        if times:
            self[situation] += times

    def missing(self) -> list[str]:
        """Return the door's situations never reached, in the order of the list."""
        return [situation for situation in DOOR_SITUATIONS if not self[situation]]
