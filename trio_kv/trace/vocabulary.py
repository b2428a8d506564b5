"""The events of everything around the consensus core: nodes, disks, links, clients, the server.

The core's own facts, and the base class `Event`, stand in `trio_kv.raft.events`; `schema` knows both.
An event's attributes must not be called like the members that the trace adds to each of them
(`schema.COMMON_MEMBERS`), and never hold a value that a client stored: that belongs to its owner, not into a log.
"""

from typing import Any, ClassVar

import attrs

from trio_kv.raft.events import DEBUG, ERROR, WARNING, Event


@attrs.frozen
class TraceStarted(Event):
    """The first line of a run in a trace file."""

    name: ClassVar[str] = "trace.started"
    schema: int
    version: str
    """Of trio_kv."""


@attrs.frozen
class TraceLost(Event):
    """Events were dropped here, because nobody took them as fast as they came: no verdict on what they told.

    In a log, `count` is the number of its own lines, and `seq` that of all events.
    """

    name: ClassVar[str] = "trace.lost"
    level: ClassVar[int] = WARNING
    count: int
    first: int
    """`seq` of the first event that was dropped."""
    last: int


@attrs.frozen
class TraceEnded(Event):
    """The last line of a run in a trace file, if the store was stopped and not killed."""

    name: ClassVar[str] = "trace.ended"
    lost: int
    """How many events were dropped in all."""


@attrs.frozen
class TraceFailed(Event):
    """The trace file can't be written: its events are lost until it can be again."""

    name: ClassVar[str] = "trace.failed"
    level: ClassVar[int] = WARNING
    file: str
    reason: str


@attrs.frozen
class UnknownEvent(Event):
    """An event of a newer version, as read from a file."""

    name: ClassVar[str] = "trace.unknown"
    level: ClassVar[int] = DEBUG
    original: str
    members: dict[str, Any]


@attrs.frozen
class ServerStarted(Event):
    """The store listens. With JSON lines, this is the line that says: ready."""

    name: ClassVar[str] = "server.started"
    host: str
    port: int
    control_port: int
    nodes: int
    data_dir: str
    """Empty if nothing is kept."""
    pid: int
    leader: int | None
    """The node that leads, or None if none was elected yet."""


@attrs.frozen
class ServerStopping(Event):
    """The store takes no new connections and answers what is left."""

    name: ClassVar[str] = "server.stopping"
    reason: str


@attrs.frozen
class ServerStopped(Event):
    """The store is down, as it was told."""

    name: ClassVar[str] = "server.stopped"


@attrs.frozen
class NodeStarted(Event):
    """A node runs, with what its disk held."""

    name: ClassVar[str] = "node.started"
    log_first: int
    log_last: int
    incarnation: int


@attrs.frozen
class NodeCrashed(Event):
    """A node died, alone. `is_injected`: because it was asked to."""

    name: ClassVar[str] = "node.crashed"
    level: ClassVar[int] = WARNING
    reason: str
    is_injected: bool
    restart_in_s: float | None
    """When it comes back; None if it stays down."""
    traceback: str = ""
    """Of the exception that killed it, unless it was injected."""


@attrs.frozen
class NodeStopped(Event):
    """A node was stopped and stays down until it is restarted."""

    name: ClassVar[str] = "node.stopped"


@attrs.frozen
class NodeRestarted(Event):
    """A node that was down is being started again."""

    name: ClassVar[str] = "node.restarted"
    attempt: int


@attrs.frozen
class NodePaused(Event):
    """A node does nothing for now, like a process under SIGSTOP."""

    name: ClassVar[str] = "node.paused"


@attrs.frozen
class NodeResumed(Event):
    """A paused node goes on."""

    name: ClassVar[str] = "node.resumed"
    paused_s: float


@attrs.frozen
class NodeDamaged(Event):
    """A node's files hold what no crash can have left: it stays down and says the way out."""

    name: ClassVar[str] = "node.damaged"
    level: ClassVar[int] = ERROR
    file: str
    offset: int
    reason: str
    way_out: str


@attrs.frozen
class NodeRebuildNeeded(Event):
    """A listed node's directory is missing or empty: it stays down until it is rebuilt from the others."""

    name: ClassVar[str] = "node.rebuild_needed"
    level: ClassVar[int] = ERROR
    reason: str


@attrs.frozen
class RebuildStarted(Event):
    """A node got a new, empty directory, and is filled by the others; its old one was moved to `aside`."""

    name: ClassVar[str] = "rebuild.started"
    aside: str


@attrs.frozen
class EntriesApplied(Event):
    """The state machine took the entries `first` to `last`; the two digests are those after `last`."""

    name: ClassVar[str] = "entries.applied"
    level: ClassVar[int] = DEBUG
    first: int
    last: int
    last_term: int
    entries_digest: int
    state_digest: int


@attrs.frozen
class DiskFailed(Event):
    """A write or sync failed. It is not tried again; the node stops."""

    name: ClassVar[str] = "disk.failed"
    level: ClassVar[int] = ERROR
    operation: str
    reason: str


@attrs.frozen
class DiskSlowed(Event):
    """Every sync of a node's disk takes longer, on request; 0 ends it."""

    name: ClassVar[str] = "disk.slowed"
    delay_s: float


@attrs.frozen
class DiskStalled(Event):
    """A node's disk stands still, on request."""

    name: ClassVar[str] = "disk.stalled"


@attrs.frozen
class DiskHung(Event):
    """A node's disk gives neither an answer nor an error; its node waits, and the others don't."""

    name: ClassVar[str] = "disk.hung"
    level: ClassVar[int] = WARNING
    reason: str
    for_s: float


@attrs.frozen
class DiskMoved(Event):
    """A node's disk that hung gave a sign of life."""

    name: ClassVar[str] = "disk.moved"


@attrs.frozen
class DiskRoomChanged(Event):
    """A node's disk is full and has so much log space left, or it has room again (null)."""

    name: ClassVar[str] = "disk.room_changed"
    level: ClassVar[int] = WARNING
    room_bytes: int | None


@attrs.frozen
class SnapshotTaken(Event):
    """A snapshot up to `index` is durable and was proved readable."""

    name: ClassVar[str] = "snapshot.taken"
    index: int
    index_term: int
    size_bytes: int


@attrs.frozen
class SnapshotGivenUp(Event):
    """A snapshot could not be written; what was written of it is gone."""

    name: ClassVar[str] = "snapshot.given_up"
    level: ClassVar[int] = WARNING
    reason: str


@attrs.frozen
class NodeLoading(Event):
    """A node reads its snapshot before it starts."""

    name: ClassVar[str] = "node.loading"
    percent: int
    snapshot_bytes: int


@attrs.frozen
class WalTornTailCut(Event):
    """The last write before a crash did not reach the disk whole, and was cut off: nobody had heard of it."""

    name: ClassVar[str] = "wal.torn_tail_cut"
    level: ClassVar[int] = WARNING
    detail: str
    """File, offset and how much was cut."""


@attrs.frozen
class LinkCut(Event):
    """No message passes between two nodes, in either direction."""

    name: ClassVar[str] = "link.cut"
    nodes: tuple[int, int]


@attrs.frozen
class LinksPartitioned(Event):
    """No message passes between nodes of different groups; a node in no group is alone."""

    name: ClassVar[str] = "link.partitioned"
    groups: tuple[tuple[int, ...], ...]


@attrs.frozen
class LinksHealed(Event):
    """All links are sound again."""

    name: ClassVar[str] = "link.healed"


@attrs.frozen
class LinkFaulted(Event):
    """All links behave so from now on; zeros are sound."""

    name: ClassVar[str] = "link.faulted"
    delay_s: float
    jitter_s: float
    drop_percent: float
    duplicate_percent: float


@attrs.frozen
class ClientConnected(Event):
    """A connection was accepted."""

    name: ClassVar[str] = "client.connected"
    level: ClassVar[int] = DEBUG
    client: int
    """Counts the connections of this process."""
    address: str


@attrs.frozen
class ClientDisconnected(Event):
    """A connection ended."""

    name: ClassVar[str] = "client.disconnected"
    level: ClassVar[int] = DEBUG
    client: int
    reason: str
    requests: int


@attrs.frozen
class ClientRefused(Event):
    """A connection was closed because of what came over it, or because there were too many."""

    name: ClassVar[str] = "client.refused"
    client: int
    address: str
    reason: str


@attrs.frozen
class ClientFailed(Event):
    """A connection was ended by a fault of ours: a bug, whose traceback this is."""

    name: ClassVar[str] = "client.failed"
    level: ClassVar[int] = ERROR
    client: int
    address: str
    traceback: str


@attrs.frozen
class AcceptFailed(Event):
    """The system gave no further connection; the door tries again."""

    name: ClassVar[str] = "accept.failed"
    level: ClassVar[int] = WARNING
    reason: str


@attrs.frozen
class ControlCommanded(Event):
    """A command came through the control door."""

    name: ClassVar[str] = "control.commanded"
    command: str
    detail: str
    """Its arguments as a person would write them, never the token."""


@attrs.frozen
class ControlFileDelayed(Event):
    """The disk is full: until there is room, commands find the control door by its port, and not by the directory."""

    name: ClassVar[str] = "control.file_delayed"
    level: ClassVar[int] = WARNING
    file: str
    address: str
