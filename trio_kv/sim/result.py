"""What a run came to, in numbers and in words."""

import attrs

from trio_kv.replica.replica import Replica


@attrs.frozen(kw_only=True)
class Result:
    """What a run came to."""

    trace_hash: str
    events: int
    operations: int
    crashes: int
    simulated_s: float
    recovered_after_s: float
    """From healing until all followed one leader."""
    coverage: dict[str, int]
    """How often each situation was reached."""
    text_hash: str = ""
    """SHA-256 of the trace's text, if it was asked for."""


def describe(replica: Replica) -> str:
    """Return where a node stands, in one line."""
    raft = replica.raft
    return (
        f"{raft.role.name}@{raft.term} leader={raft.leader} last={raft.log.last_index}@{raft.log.last_term}"
        f" durable={raft.log.durable} commit={raft.commit} applied={replica.machine.applied}"
    )
