"""The events of everything around the consensus core: nodes, disks, links, clients, the server.

The core's own facts, and the base class `Event`, stand in `trio_kv.raft.events`; `schema` knows both.
An event's attributes must not be called like the members that the trace adds to each of them
(`schema.COMMON_MEMBERS`), and never hold a value that a client stored: that belongs to its owner, not into a log.
"""

from trio_kv.raft.events import DEBUG, ERROR, WARNING, Event, event


@event("server.started")
class ServerStarted(Event):
    """The store listens. With JSON lines, this is the line that says: ready."""

    host: str
    port: int
    control_port: int
    nodes: int
    data_dir: str
    """Empty if nothing is kept."""
    pid: int
    leader: int | None
    """The node that leads, or None if none was elected yet."""


@event("server.stopping")
class ServerStopping(Event):
    """The store takes no new connections and answers what is left."""

    reason: str


@event("server.stopped")
class ServerStopped(Event):
    """The store is down, as it was told."""


@event("cluster.started")
class ClusterStarted(Event):
    """A process begins to run nodes of a cluster."""

    cluster: str
    """Its id: drawn when the cluster was made, and kept over restarts."""
    nodes: tuple[int, ...]
    """All that have a vote."""
    here: tuple[int, ...]
    """Those that run in this process."""


@event("node.started")
class NodeStarted(Event):
    """A node runs, with what its disk held: a snapshot up to before `log_first`, and the log behind it."""

    log_first: int
    log_last: int
    incarnation: int
    log_terms: tuple[tuple[int, int], ...] = ()
    """(index, term): where each term begins in its log, and before them the place where its snapshot ends. Of the
    newest ones only, if there are very many."""
    entries_digest: int | None = None
    """Of the snapshot, as in `entries.applied`."""
    state_digest: int | None = None
    is_rebuilding: bool = False
    """It lost its disk, and neither votes nor counts until `rebuild.ended`."""


@event("node.crashed", WARNING)
class NodeCrashed(Event):
    """A node died, alone. `is_injected`: because it was asked to."""

    reason: str
    is_injected: bool
    restart_in_s: float | None
    """When it comes back; None if it stays down."""
    traceback: str = ""
    """Of the exception that killed it, unless it was injected."""


@event("node.stopped")
class NodeStopped(Event):
    """A node was stopped and stays down until it is restarted."""


@event("node.restarted")
class NodeRestarted(Event):
    """A node that was down is being started again."""

    attempt: int


@event("node.paused")
class NodePaused(Event):
    """A node does nothing for now, like a process under SIGSTOP."""


@event("node.resumed")
class NodeResumed(Event):
    """A paused node goes on."""

    paused_s: float


@event("node.damaged", ERROR)
class NodeDamaged(Event):
    """A node's files hold what no crash can have left: it stays down, and the event says what to do."""

    file: str
    offset: int
    reason: str
    way_out: str


@event("node.rebuild_needed", ERROR)
class NodeRebuildNeeded(Event):
    """A listed node's directory is missing or empty: it stays down until it is rebuilt from the others."""

    reason: str


@event("rebuild.started")
class RebuildStarted(Event):
    """A node got a new, empty directory, and is filled by the others; its old one was moved to `aside`."""

    aside: str


@event("entries.applied", DEBUG)
class EntriesApplied(Event):
    """The state machine took the entries `first` to `last`; the two digests are those after `last`."""

    first: int
    last: int
    last_term: int
    entries_digest: int
    state_digest: int


@event("writes.answered", DEBUG)
class WritesAnswered(Event):
    """Requests with writes are answered now: what stands in the log up to `last` has happened, and must last."""

    last: int
    count: int
    """Of the requests."""


@event("sessions.forgotten", DEBUG)
class SessionsForgotten(Event):
    """Sessions came to their end in the entries up to `index`: nobody had used them for as long as their time-outs."""

    index: int
    sessions: tuple[int, ...]


@event("disk.failed", ERROR)
class DiskFailed(Event):
    """A write or sync failed. It is not tried again; the node stops."""

    operation: str
    reason: str


@event("disk.slowed")
class DiskSlowed(Event):
    """Every sync of a node's disk takes longer, on request; 0 ends it."""

    delay_s: float


@event("disk.stalled")
class DiskStalled(Event):
    """A node's disk stands still, on request."""


@event("disk.healed")
class DiskHealed(Event):
    """A node's disk is made sound again, on request."""


@event("disk.hung", WARNING)
class DiskHung(Event):
    """A node's disk gives neither an answer nor an error; its node waits, and the others don't."""

    reason: str
    for_s: float


@event("disk.moved")
class DiskMoved(Event):
    """A node's disk that hung gave a sign of life."""


@event("disk.room_changed", WARNING)
class DiskRoomChanged(Event):
    """A node's disk is full and has so much log space left, or it has room again (null)."""

    room_bytes: int | None


@event("snapshot.taken")
class SnapshotTaken(Event):
    """A snapshot up to `index` is durable and was proved readable."""

    index: int
    index_term: int
    size_bytes: int


@event("snapshot.given_up", WARNING)
class SnapshotGivenUp(Event):
    """A snapshot could not be written; what was written of it is gone."""

    reason: str


@event("node.loading")
class NodeLoading(Event):
    """A node reads its snapshot before it starts."""

    percent: int
    snapshot_bytes: int


@event("wal.torn_tail_cut", WARNING)
class WalTornTailCut(Event):
    """The last write before a crash did not reach the disk whole, and was cut off: nobody had heard of it."""

    detail: str
    """File, offset and how much was cut."""


@event("link.cut")
class LinkCut(Event):
    """No message passes between two nodes, in either direction."""

    nodes: tuple[int, int]


@event("link.partitioned")
class LinksPartitioned(Event):
    """No message passes between nodes of different groups; a node in no group is alone."""

    groups: tuple[tuple[int, ...], ...]


@event("link.healed")
class LinksHealed(Event):
    """Links are sound again."""

    link: tuple[int, int] | None = None
    """The one that is; None: all of them."""


@event("link.faulted")
class LinkFaulted(Event):
    """Links behave so from now on; zeros are sound."""

    delay_s: float
    jitter_s: float
    drop_percent: float
    duplicate_percent: float
    link: tuple[int, int] | None = None
    """The one that does; None: all of them that have no fault of their own."""


@event("client.connected", DEBUG)
class ClientConnected(Event):
    """A connection was accepted."""

    client: int
    """Counts the connections of this process."""
    address: str


@event("client.disconnected", DEBUG)
class ClientDisconnected(Event):
    """A connection ended."""

    client: int
    reason: str
    requests: int


@event("client.refused")
class ClientRefused(Event):
    """A connection was closed because of what came over it, or because there were too many."""

    client: int
    address: str
    reason: str


@event("client.authenticated", DEBUG)
class ClientAuthenticated(Event):
    """A client showed a token that opens the door."""

    client: int
    address: str
    holder: str
    """The token's name, never the token."""
    access: str
    """`read` or `write`."""


@event("client.not_authenticated", WARNING)
class ClientNotAuthenticated(Event):
    """A client showed a token that opens nothing; the next one from its host has to wait."""

    client: int
    address: str
    tries: int
    """How many this connection has made so far."""


@event("client.failed", ERROR)
class ClientFailed(Event):
    """A connection was ended by a fault of ours: a bug, whose traceback this is."""

    client: int
    address: str
    traceback: str


@event("access.reloaded")
class AccessReloaded(Event):
    """Tokens and certificates were read anew, and are in force."""

    names: tuple[str, ...]
    """Whose tokens there are."""
    has_tls: bool


@event("access.reload_failed", ERROR)
class AccessReloadFailed(Event):
    """Tokens and certificates were to be read anew, and can't be used: what was in force stays so."""

    reason: str


@event("accept.failed", WARNING)
class AcceptFailed(Event):
    """The system gave no further connection; the door tries again."""

    reason: str


@event("control.commanded")
class ControlCommanded(Event):
    """A command came through the control door."""

    command: str
    detail: str
    """Its arguments as a person would write them, never the token."""


@event("control.file_delayed", WARNING)
class ControlFileDelayed(Event):
    """The disk is full: until there is room, commands find the control door by its port, and not by the directory."""

    file: str
    address: str
