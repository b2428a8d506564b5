"""One node: the task that owns a replica, and joins it to its inbox, its disk, the network and the clock.

The task never waits for another node: it takes what its inbox holds, lets the replica think, carries out
what it wants, and waits for its inbox again. One pass of that loop is one run of requests.
"""

from collections.abc import Awaitable, Callable

import attrs
import trio

from trio_kv.cluster.inbox import (
    ChunkAdded,
    ChunkWasRead,
    DiskFailed,
    GoOn,
    Inbox,
    RoomChanged,
    SnapshotFailed,
    SnapshotMoved,
    SnapshotStored,
    Stored,
    TakeSnapshot,
    TimerFired,
    Transfer,
)
from trio_kv.raft.events import Event, RebuildEnded, TransferEnded
from trio_kv.raft.messages import Message
from trio_kv.raft.ready import Ready
from trio_kv.replica.jobs import (
    AddChunk,
    BeginSnapshot,
    CompactLog,
    FinishSnapshot,
    Job,
    ReadChunk,
    ReleaseSnapshot,
)
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import Turns
from trio_kv.storage.disk import Storage
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import DiskRoomChanged, SnapshotGivenUp, SnapshotTaken
from trio_kv.wire.node_port import Answer, Propose, Read, Refused, ReplyTo, Unknown
from trio_kv.wire.node_status import NodeStatus

SNAPSHOT_LEASE_S = 0.25
"""A node whose snapshot gets nowhere for so long gives its turn to the next one: its disk hangs, or it is paused. It
goes on when it moves again, so that a disk that was only slow loses little by it."""
ROUNDING_S = 1e-6
"""More than what is lost by converting between clocks."""


class DiskFailedError(Exception):
    """The node's disk failed a write or a sync: the node must stop, and nothing is retried (scenario D11)."""


@attrs.define
class Clock:
    """A node's clock: Trio's, unless a fault lets it run at another rate."""

    rate: float = 1.0
    _base: float = 0.0
    _trio_base: float = 0.0

    def now(self) -> float:
        """Return the node's time, in seconds."""
        return self._base + (trio.current_time() - self._trio_base) * self.rate

    def to_trio(self, at: float) -> float:
        """Return a time of Trio's at which it is `at` for this node, and not a rounding error before."""
        trio_at = self._trio_base + (at - self._base) / self.rate
        if self._base + (trio_at - self._trio_base) * self.rate < at:
            # Whoever slept until then would find that it is too early, and sleep for no time at all.
            trio_at += ROUNDING_S
        return trio_at

    def set_rate(self, rate: float) -> None:
        """Let the clock go on from where it is, at this rate."""
        self._base, self._trio_base = self.now(), trio.current_time()
        self.rate = rate

    def jump(self, by_s: float) -> None:
        """Show so much more from here on. A monotonic clock never goes back."""
        assert by_s >= 0
        self._base += by_s


class Node:
    """A running node. It lives as long as `run` does, and is never started again: a restart makes a new one."""

    def __init__(
        self,
        *,
        make_replica: Callable[[float], Replica],
        inbox: Inbox,
        disk: Storage,
        send: Callable[[Message], None],
        deliver: Callable[[list[tuple[ReplyTo, Answer]]], None],
        status: NodeStatus,
        publish: Callable[[], None],
        rebuilt: Callable[[], Awaitable[None]],
        trace: Trace,
        clock: Clock,
        turns: Turns,
    ) -> None:
        """Join the parts of a node.

        Args:
            make_replica: makes the replica, given the node's time.
            inbox: where the node is told everything, completions of `disk` included.
            disk: where its log goes.
            send: takes a message for a peer, at once.
            deliver: takes the answers of a pass, at once.
            status: what the registry knows of this node; kept up to date here.
            publish: is called after a change of role, term or leader.
            rebuilt: is called when a rebuilt node counts again.
            trace: takes events.
            clock: the node's clock.
            turns: whose turn it is to take a snapshot, by Trio's clock.

        """
        self.clock = clock
        self.inbox = inbox
        self.replica = make_replica(clock.now())
        self._disk = disk
        self._send = send
        self._deliver = deliver
        self._status = status
        self._publish = publish
        self._rebuilt = rebuilt
        self._nursery: trio.Nursery | None = None
        self._trace = trace
        self._turns = turns
        self._resumed: trio.Event | None = None
        self._timer_scope = trio.CancelScope()
        self._timer_at = 0.0
        self._timer_taken = trio.Event()
        self._wants_debug = self.replica.raft.wants_debug
        self._told: tuple[str, int, int | None] | None = None
        self._is_going_on = False
        self._batch: list[object] = []
        """What is being worked on: whoever asked is answered even if that kills the node."""

    def pause(self) -> None:
        """Do nothing more until resumed: messages and completions pile up, as with a stopped process."""
        if self._resumed is None:
            self._resumed = trio.Event()

    def resume(self) -> None:
        """Go on after a pause."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    @property
    def is_disk_full(self) -> bool:
        """Whether the disk says that it has no room for more log than is reserved."""
        return self.replica.raft.persistence.room_bytes is not None

    def clock_changed(self) -> None:
        """Let the timer follow the clock, which runs at another rate now, or has jumped."""
        self._timer_scope.deadline = self.clock.to_trio(self._timer_at)

    async def run(self) -> None:
        """Be a node until cancelled.

        Raises:
            DiskFailedError: the disk failed.

        """
        try:
            async with trio.open_nursery() as self._nursery:
                self._carry_out(self.clock.now())
                self._nursery.start_soon(self._run_timer)
                await self._run_inbox()
        finally:
            self._answer_all()

    async def _run_inbox(self) -> None:
        while True:
            self._batch = []
            items = self._batch = await self.inbox.receive()
            if self._resumed is not None:
                await self._resumed.wait()
                items += self.inbox.drain()
            now = self.clock.now()
            self._take(now, items)
            self._carry_out(now)

    def _take(self, now: float, items: list[object]) -> None:
        """Give the replica what came. A timer is believed only after all else that came (see the design)."""
        replica = self.replica
        receive, propose, read = replica.raft.receive, replica.propose, replica.read
        is_timer_due = False
        for item in items:
            if isinstance(item, Message):
                receive(now, item)
            elif isinstance(item, Propose):
                propose(item)
            elif isinstance(item, Read):
                read(item)
            elif isinstance(item, Stored):
                replica.stored(now, item.ticket)
            elif isinstance(item, TimerFired):
                is_timer_due = True
            elif isinstance(item, Transfer):
                self._transfer(now, item.target)
            else:
                self._take_rare(now, item)
        if is_timer_due:
            replica.timeout(now)
            self._timer_taken.set()

    def _take_rare(self, now: float, item: object) -> None:
        """Take what comes seldom."""
        replica = self.replica
        match item:
            case ChunkAdded():
                replica.snapshots.chunk_added(now, item.index, item.term, item.number)
            case ChunkWasRead():
                snapshot = (item.index, item.term)
                replica.snapshots.chunk_read(now, snapshot, item.data, is_last=item.is_last)
            case SnapshotMoved():
                replica.snapshots.moved(item.index, item.term)
            case SnapshotStored():
                replica.snapshot_stored(now, (item.index, item.term), item.size_bytes)
                self._emit(SnapshotTaken(item.index, item.term, item.size_bytes))
                self._publish()
            case SnapshotFailed():
                replica.snapshot_failed()
                self._emit(SnapshotGivenUp(item.reason))
            case RoomChanged():
                replica.raft.set_room(item.room_bytes)
                self._emit(DiskRoomChanged(item.room_bytes))
            case TakeSnapshot():
                replica.snapshots.ask()
            case GoOn():
                self._is_going_on = False
            case DiskFailed():
                raise DiskFailedError(str(item.error)) from item.error
            case _:
                raise AssertionError(f"no rule for {item!r}")

    def _emit(self, event: Event) -> None:
        raft = self.replica.raft
        self._trace.emit(event, node=raft.id, term=raft.term, role=raft.role.name)

    def _transfer(self, now: float, target: int) -> None:
        try:
            self.replica.raft.transfer(now, target)
        except ValueError as error:
            self._emit(TransferEnded(target, str(error)))

    def _carry_out(self, now: float) -> None:
        """Do what the replica wants, in the order that `Ready` prescribes."""
        ready = self.replica.ready(now)
        send = self._send
        for message in ready.messages:
            send(message)
        if ready.write is not None:
            self._disk.submit(ready.write)
        answers = self.replica.apply(ready)
        if answers:
            self._deliver(answers)
        self.inbox.uncommitted_bytes = self.replica.uncommitted_bytes
        self._look_after_snapshots()
        if ready.events or (self._wants_debug and self.replica.applied_now):
            self._tell(ready)
        self._note()
        self._set_timer()

    def _look_after_snapshots(self) -> None:
        """Take a snapshot in turn, give the disk its jobs, and see to it that what is left undone goes on."""
        replica = self.replica
        replica.take_turn(trio.current_time(), self._turns)
        for job in replica.take_jobs():
            self._submit(job)
        if replica.has_more and not self._is_going_on:
            self._is_going_on = True
            self.inbox.post(GoOn())

    def _submit(self, job: Job) -> None:
        disk = self._disk
        match job:
            case BeginSnapshot():
                disk.snapshot_begin(job.index, job.term)
            case AddChunk():
                disk.snapshot_add(job.number, job.data)
            case FinishSnapshot():
                disk.snapshot_finish()
            case CompactLog():
                disk.compact(job.index)
            case ReadChunk():
                disk.read_chunk(job.snapshot, job.number)
            case ReleaseSnapshot():
                disk.snapshot_release(job.index, job.term)

    def _tell(self, ready: Ready) -> None:
        for event in ready.events:
            self._emit(event)
            if isinstance(event, RebuildEnded):
                assert self._nursery is not None
                self._nursery.start_soon(self._rebuilt)
        if self._wants_debug and self.replica.applied_now:
            self._emit(self.replica.applied_event())

    def _note(self) -> None:
        """Keep the registry's view up to date; tell it aloud only when it matters to others."""
        raft = self.replica.raft
        told = (raft.role.name, raft.term, raft.leader)
        if told != self._told:
            self._told = told
            self._status.role, self._status.term, self._status.leader = told
            self._publish()

    @property
    def write_waits_s(self) -> float:
        """For how long the oldest write has been waiting for the disk, by the node's clock."""
        oldest_at = self.replica.raft.persistence.oldest_write_at
        return 0.0 if oldest_at is None else self.clock.now() - oldest_at

    def refresh_status(self) -> None:
        """Bring the numbers of the registry's view up to date: done when somebody asks, not at every step."""
        raft, machine, status = self.replica.raft, self.replica.machine, self._status
        status.commit = raft.commit
        status.applied = machine.applied
        status.log_first = raft.log.base_index + 1
        status.log_last = raft.log.last_index
        status.digest = f"{machine.entries_digest:08x}{machine.state_digest:08x}"

    # The timer: a task that sleeps in a cancel scope whose deadline follows the core's.

    def _set_timer(self) -> None:
        """Let the timer fire in time. A deadline that moved on is not told to it: it wakes, sees, sleeps again."""
        deadline = self.replica.deadline
        if deadline < self._timer_at:
            self._timer_at = deadline
            self._timer_scope.deadline = self.clock.to_trio(deadline)

    async def _run_timer(self) -> None:
        while True:
            self._timer_at = self.replica.deadline
            with trio.CancelScope(deadline=self.clock.to_trio(self._timer_at)) as self._timer_scope:
                await trio.sleep_forever()
            if self.replica.deadline <= self.clock.now():
                # Fired: nothing more is due until the node has taken note of it, which moves the deadline.
                self._timer_at = float("-inf")
                self._timer_taken = trio.Event()
                self.inbox.post(TimerFired())
                await self._timer_taken.wait()

    def _answer_all(self) -> None:
        """Give the last answers: what was taken is unknown, what still lay in the inbox never happened."""
        self._turns.give_back(self._status.node)
        node, answers = self._status.node, self.replica.stop()
        for item in self._batch:
            if isinstance(item, Propose | Read):
                answers.append((item.reply_to, Unknown(item.number, node)))
        for item in self.inbox.drain():
            if isinstance(item, Propose | Read):
                answers.append((item.reply_to, Refused(item.number, node, None)))
        self._deliver(answers)
