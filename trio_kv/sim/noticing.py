"""What a node's steps reach of the situations that runs must reach (see `sim.coverage`)."""

from typing import TYPE_CHECKING

from trio_kv.raft.leader import Leader
from trio_kv.raft.messages import InstallSnapshot
from trio_kv.replica.jobs import CompactLog, Job
from trio_kv.replica.replica import Replica

if TYPE_CHECKING:
    from trio_kv.sim.coverage import Coverage


class Noticing:
    """Looks at one node, over one life of it or more; changes nothing."""

    def __init__(self, coverage: "Coverage") -> None:
        """Have seen nothing."""
        self._coverage = coverage
        self._asked_leader: int | None = None
        self._chunk_from: tuple[tuple[int, int], int] | None = None
        """(snapshot, leader) of the last chunk taken."""
        self._dropped = 0
        """The log was dropped up to here."""

    def started(self) -> None:
        """Forget what an earlier life was in the middle of."""
        self._asked_leader = self._chunk_from = None

    def chunk_taken(self, replica: Replica, message: InstallSnapshot) -> None:
        """See a chunk of a snapshot being stored."""
        incoming = replica.raft.incoming
        assert incoming is not None
        if message.number and self._chunk_from not in {None, (incoming.snapshot, message.source)}:
            self._coverage.reach("install resumed by another leader")
        self._chunk_from = incoming.snapshot, message.source

    def snapshot_stored(self, replica: Replica, place: tuple[int, int]) -> None:
        """See that a snapshot is durable, before the node hears of it."""
        role = replica.raft.role
        if replica.snapshots.is_taking:
            self._coverage.reach("snapshot taken")
        if isinstance(role, Leader) and role.snapshots_sent() - {place}:
            self._coverage.reach("two snapshots back to back")

    def job_given(self, job: Job) -> None:
        """See the disk get a job."""
        if isinstance(job, CompactLog) and job.index > self._dropped:
            self._dropped = job.index
            self._coverage.reach("log compacted")

    def stepped(self, replica: Replica) -> None:
        """See what a step left."""
        raft = replica.raft
        if replica.snapshots.has_lost_turn:
            self._coverage.reach("snapshot lost its turn")
        if isinstance(raft.role, Leader) and raft.role.has_forsaken_install:
            self._coverage.reach("snapshot sent to a disk that hangs")
        if not (raft.pending_reads.asked or raft.pending_reads.waiting):
            self._asked_leader = None
        elif raft.leader is not None:
            if self._asked_leader not in {None, raft.leader}:
                self._coverage.reach("read pending over a leader change")
            self._asked_leader = raft.leader
