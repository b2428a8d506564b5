"""What is known of a node: plain data, the same in this process and in another one."""

from enum import StrEnum

import attrs


class State(StrEnum):
    """The state of a node, as the protocol's `status` names it."""

    UP = "up"
    PAUSED = "paused"
    CRASHED = "crashed"
    STOPPED = "stopped"
    DAMAGED = "damaged"
    NEEDS_REBUILD = "needs_rebuild"


@attrs.define(eq=False)
class NodeStatus:
    """One node as last seen. Numbers of a node that is down are those it had when it went."""

    node: int
    state: State = State.STOPPED
    reason: str = ""
    is_gone: bool = False
    """Whether it is down because its directory is not where it was."""
    role: str | None = None
    """None while it is down."""
    term: int = 0
    leader: int | None = None
    commit: int = 0
    applied: int = 0
    log_first: int = 1
    log_last: int = 0
    digest: str = ""

    def as_reply(self) -> dict[str, object]:
        """Return the node's row of the protocol's status reply."""
        row: dict[str, object] = {
            "node": self.node,
            "role": self.role,
            "state": str(self.state),
            "term": self.term,
            "commit": self.commit,
            "applied": self.applied,
            "log_first": self.log_first,
            "log_last": self.log_last,
            "digest": self.digest,
        }
        if self.reason:
            row["reason"] = self.reason
        return row
