"""The driver of a simulated node, in both worlds: each of its passes is shown to the judges.

It also looks for the situations that runs must reach (see `sim.coverage`). It changes nothing.
"""

from collections.abc import Sequence

from trio_kv.raft.entry import LogPosition
from trio_kv.raft.events import (
    Event,
    LeaderElected,
    LeaderSteppedDown,
    LogTruncated,
    RebuildEnded,
    SnapshotInstalled,
    Told,
    TransferStarted,
)
from trio_kv.raft.leader import Leader
from trio_kv.raft.messages import Message
from trio_kv.replica.driver import Driver, Input, Work
from trio_kv.replica.jobs import AddChunk, CompactLog, Job, LogSpaceChanged, SnapshotStored
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import Turns
from trio_kv.sim.disk import TimedDisk
from trio_kv.sim.host import Host
from trio_kv.trace.vocabulary import SnapshotGivenUp


class WatchedDriver(Driver):
    """A driver with onlookers.

    Args:
        replica: the node's brain, as it starts.
        turns: whose turn it is to take a snapshot.
        world: who looks on.
        disk: hears what its node knows of the room on it.

    """

    def __init__(self, replica: Replica, turns: Turns, world: Host, disk: TimedDisk) -> None:
        """See the class."""
        super().__init__(replica, turns)
        self._world = world
        self._disk = disk
        self._asked_leader: int | None = None
        self._chunk_from: tuple[LogPosition, int | None] | None = None
        """(snapshot, leader) of the last chunk taken."""
        self._dropped = 0
        """The log was dropped up to here."""

    def step(self, now: float, shared_now: float, items: Sequence[Input]) -> Work:
        """Take a step, before everybody's eyes. Arguments as for `Driver`."""
        watch, replica = self._world.watch, self.replica
        for item in items:
            if isinstance(item, Message):
                watch.took(replica.id, item)
            elif isinstance(item, SnapshotStored):
                self._see_snapshot(LogPosition(item.index, item.term))
        work = super().step(now, shared_now, items)
        for message in work.messages:
            watch.sent(replica.id, message)
        if work.write is not None:
            watch.submitted(replica.id, work.write)
        watch.stepped(replica.id, replica.machine)
        for job in work.jobs:
            self._see_job(job)
        for told in work.events:
            self._see_event(told.event)
        self._see_state()
        return work

    def pass_on(self, now: float, item: Input) -> tuple[Sequence[Message], Sequence[Told]] | None:
        """Take what needs no step, before everybody's eyes."""
        passed = super().pass_on(now, item)
        if passed is not None:
            if isinstance(item, Message):
                self._world.watch.took(self.replica.id, item)
            for message in passed[0]:
                self._world.watch.sent(self.replica.id, message)
            self._world.stepped(self.replica, self.turns)
        return passed

    def _take_rare(self, now: float, item: Input) -> None:
        super()._take_rare(now, item)
        if isinstance(item, LogSpaceChanged):
            self._disk.log_space_heard(item.free_log_bytes, self.replica.raft.log.last_index)

    def _see_snapshot(self, place: LogPosition) -> None:
        """See that a snapshot is durable, before the node hears of it."""
        role = self.replica.raft.role
        if self.replica.snapshots.is_taking:
            self._world.coverage.reach("snapshot taken")
        if isinstance(role, Leader) and role.snapshots_sent() - {place}:
            self._world.coverage.reach("two snapshots back to back")

    def _see_job(self, job: Job) -> None:
        raft = self.replica.raft
        if isinstance(job, CompactLog) and job.index > self._dropped:
            self._dropped = job.index
            self._world.coverage.reach("log compacted")
        elif isinstance(job, AddChunk) and raft.incoming is not None:
            comes_from = raft.incoming.snapshot, raft.leader
            if job.number and self._chunk_from not in {None, comes_from}:
                self._world.coverage.reach("install resumed by another leader")
            self._chunk_from = comes_from

    def _see_event(self, event: Event) -> None:
        world, coverage = self._world, self._world.coverage
        match event:
            case LeaderElected() if self.replica.id in world.transfers:
                coverage.reach("leadership transferred")
                world.transfers.clear()
            case LogTruncated():
                coverage.reach("tail truncated")
            case TransferStarted(reason="the disk stands still"):
                coverage.reach("stalled leader handed over")
            case LeaderSteppedDown(reason="no majority answers"):
                coverage.reach("leader cut off from the majority stepped down")
            case RebuildEnded():
                world.watch.rebuilt(self.replica.id)
                coverage.reach("rebuild finished")
                coverage.reach("rebuild finished among hosts", int(world.plan.is_on_hosts))
            case SnapshotInstalled():
                coverage.reach("snapshot installed")
            case SnapshotGivenUp():
                coverage.reach("snapshot aborted by full disk")
            case _:
                pass

    def _see_state(self) -> None:
        """See what the step left."""
        raft, coverage = self.replica.raft, self._world.coverage
        if self.replica.snapshots.has_lost_turn:
            coverage.reach("snapshot lost its turn")
        if isinstance(raft.role, Leader) and raft.role.has_forsaken_install:
            coverage.reach("snapshot sent to a disk that hangs")
        if not (raft.pending_reads.asked or raft.pending_reads.waiting):
            self._asked_leader = None
        elif raft.leader is not None:
            if self._asked_leader not in {None, raft.leader}:
                coverage.reach("read pending over a leader change")
            self._asked_leader = raft.leader
