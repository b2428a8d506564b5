"""The events of a cluster that has several processes: those that come and go, and the links between them."""

from trio_kv.raft.events import ERROR, WARNING, Event, event


@event("link.connected")
class LinkConnected(Event):
    """This process can speak to another one: both have said who they are."""

    to: int
    """The other process. Where each host has a node, it has the node's number."""
    times: int
    """How often that was, since this process started."""


@event("link.lost", WARNING)
class LinkLost(Event):
    """This process can't speak to another one any more. It tries again until it can."""

    to: int
    reason: str


@event("link.refused", WARNING)
class LinkRefused(Event):
    """Something that came to the port for the other processes was none of them, or was cut off as it spoke."""

    reason: str


@event("link.rejected", WARNING)
class LinkRejected(Event):
    """Another process refuses this one, or is not the one that was meant. It is told once; it is tried again."""

    by: int
    """The other process."""
    reason: str


@event("link.failed", ERROR)
class LinkFailed(Event):
    """A bug of trio_kv met what another process said. The connection ended by it, and nothing else."""

    traceback: str


@event("process.started")
class ProcessStarted(Event):
    """A further process was started, for some of the nodes."""

    started: int
    """Its number; the first process has number 0."""
    pid: int
    nodes: tuple[int, ...]


@event("process.pinned")
class ProcessPinned(Event):
    """This process keeps to one processor (`--pin`)."""

    processor: int


@event("process.ended", WARNING)
class ProcessEnded(Event):
    """A further process is gone, and its nodes with it until it is started again."""

    ended: int
    reason: str
    restart_in_s: float
