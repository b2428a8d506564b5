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
    role: str | None = None
    """None while it is down."""
    state: State = State.STOPPED
    term: int = 0
    commit: int = 0
    applied: int = 0
    log_first: int = 1
    log_last: int = 0
    digest: str = ""
    reason: str = ""
    leader: int | None = None
    is_gone: bool = False
    """Whether it is down because its directory is not where it was."""
    is_rebuilding: bool = False
    """Whether it is being filled by the others."""

    @property
    def has_all_data(self) -> bool:
        """Whether it runs, so that its disk was read, and is not being filled by the others."""
        return self.role is not None and not self.is_rebuilding

    def as_reply(self) -> dict[str, object]:
        """Return the node's row of the protocol's status reply."""
        row = attrs.asdict(self, filter=_is_told)
        if not self.reason:
            del row["reason"]
        return row


_is_told = attrs.filters.exclude("leader", "is_gone", "is_rebuilding")
