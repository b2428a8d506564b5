"""How a cluster is, in numbers: a copy, made when somebody asks, of what its nodes have counted.

Nothing here is kept for whoever looks; a cluster that nobody looks at does no more than to count.
"""

from collections.abc import Mapping

import attrs

from trio_kv.cluster.members import Member
from trio_kv.cluster.node import Node
from trio_kv.meter.histogram import Histogram
from trio_kv.raft.leader import Leader
from trio_kv.raft.voters import Voters
from trio_kv.transport.link import Link
from trio_kv.wire.node_status import State


@attrs.frozen(kw_only=True)
class NodeStatistics:
    """A node that runs. Counts begin anew when it starts again; durations are in seconds."""

    role: str
    leader: int | None
    """Whom it follows, itself if it leads; None if it knows nobody."""
    has_term_committed: bool
    """Whether it leads, and an entry of its own term is committed: only then it is sure of all before it."""
    is_rebuilding: bool
    term: int
    commit: int
    applied: int
    log_first: int
    log_last: int
    snapshot_index: int
    leader_changes: int
    proposals_pending: int
    proposals_failed: int
    reads_pending: int
    keys: int
    sessions: int
    messages_lost: int
    """Those of peers that found no room here."""
    is_disk_full: bool
    write_waits_s: float
    """For how long its oldest write has been waiting for the disk."""
    syncs: Histogram
    commits: Histogram
    """Of entries that it appended as leader, until they were committed."""
    round_trips: Mapping[int, Histogram]
    """Of heartbeats, by peer."""
    disk_bytes: int


@attrs.frozen
class MemberStatistics:
    """A node of the cluster, whether it runs or not."""

    node: int
    state: State
    reason: str
    """Why it does not run, or does not do all that it should; for a person."""
    is_loading: bool
    """Whether it is being started, and what its disk holds is not known yet."""
    running: NodeStatistics | None

    @property
    def leads(self) -> NodeStatistics | None:
        """What is known of the node if it runs, not paused, and leads."""
        is_up = self.state is State.UP and self.running is not None and self.running.role == Leader.name
        return self.running if is_up else None


@attrs.frozen(kw_only=True)
class LinkStatistics:
    """What one process has to say to another one, and how it gets there. Counts begin with the process."""

    source: int
    target: int
    is_up: bool
    reason: str
    """Why it is not."""
    connects: int
    bytes_sent: int
    bytes_received: int
    """Of answers, over the same connection."""
    messages_lost: int
    """Messages of Raft that found no room, or no connection."""
    round_trips: Histogram
    """Of pings, in seconds."""


@attrs.frozen
class ClusterStatistics:
    """All nodes of a cluster."""

    members: tuple[MemberStatistics, ...]
    voters: Voters
    """Who decides."""
    messages_lost: int
    """Those between nodes that did not arrive: cut, dropped, nobody there, or no room."""
    faults: int
    """How many things were made wrong on request, and are wrong still."""
    links: tuple[LinkStatistics, ...] = ()
    """Between processes; none where there is but one."""

    @property
    def leader(self) -> MemberStatistics | None:
        """The one that leads the highest term, of those that lead and are not paused."""
        leading = [(each.leads.term, each) for each in self.members if each.leads is not None]
        return max(leading, key=lambda pair: pair[0], default=(0, None))[1]


def look_at_link(source: int, link: Link, bulk: Link) -> LinkStatistics:
    """Return how a link is, with what its second connection has carried."""
    counts, further = link.counts, bulk.counts
    return LinkStatistics(
        source=source,
        target=link.target,
        is_up=link.is_up,
        reason=link.reason,
        connects=counts.connects,
        bytes_sent=counts.bytes_sent + further.bytes_sent,
        bytes_received=counts.bytes_received + further.bytes_received,
        messages_lost=counts.messages_lost + further.messages_lost,
        round_trips=counts.round_trips.copy(),
    )


def look_at(member: Member) -> MemberStatistics:
    """Return how a node is."""
    status, node = member.status, member.node
    is_loading = member.is_living and node is None
    running = None if node is None else _look_at_running(member, node)
    return MemberStatistics(status.node, status.state, status.reason, is_loading, running)


def _look_at_running(member: Member, node: Node) -> NodeStatistics:
    replica, wal = node.replica, None if member.disk is None else member.disk.wal
    raft, machine, role = replica.raft, replica.machine, replica.raft.role
    return NodeStatistics(
        role=role.name,
        leader=raft.leader,
        has_term_committed=isinstance(role, Leader) and raft.commit >= role.first_index,
        is_rebuilding=raft.is_rebuilding,
        term=raft.term,
        commit=raft.commit,
        applied=machine.applied,
        log_first=raft.log.base_index + 1,
        log_last=raft.log.last_index,
        snapshot_index=replica.snapshots.stored.index,
        leader_changes=node.leader_changes,
        proposals_pending=replica.proposals_waiting,
        proposals_failed=replica.proposals_failed,
        reads_pending=replica.requests_waiting - replica.proposals_waiting,
        keys=len(machine.items),
        sessions=len(machine.sessions),
        messages_lost=node.inbox.lost,
        is_disk_full=node.is_disk_full,
        write_waits_s=node.write_waits_s,
        syncs=Histogram() if wal is None else wal.syncs.copy(),
        commits=node.driver.commit_times.durations.copy(),
        round_trips={peer: trips.copy() for peer, trips in node.round_trips.items()},
        disk_bytes=0 if wal is None else wal.bytes_written,
    )
