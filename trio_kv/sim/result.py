"""What a run came to, in numbers and in words."""

import attrs

from trio_kv.replica.replica import Replica
from trio_kv.sim.coverage import Coverage


@attrs.frozen
class Result:
    """What a run came to."""

    seed: int
    trace_hash: str
    events: int
    simulated_s: float
    operations: int
    crashes: int
    recovered_after_s: float
    """From healing until all followed one leader."""
    coverage: Coverage


def describe(replica: Replica) -> str:
    """Return where a node stands, in one line."""
    raft = replica.raft
    return (
        f"{raft.role.name}@{raft.term} leader={raft.leader} last={raft.log.last_index}@{raft.log.last_term}"
        f" durable={raft.log.durable} commit={raft.commit} applied={replica.machine.applied}"
    )
