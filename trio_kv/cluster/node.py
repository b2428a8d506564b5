"""One node: the task that owns a replica, and joins it to its inbox, its disk, the network and the clock.

The task never waits for another node: it takes what its inbox holds, lets the replica think, carries out
what it wants, and waits for its inbox again. One pass of that loop is one run of requests.
"""

from collections.abc import Awaitable, Callable

import attrs
import trio

from trio_kv.cluster.inbox import Inbox
from trio_kv.meter.histogram import Histogram
from trio_kv.raft.events import RebuildEnded, Told
from trio_kv.raft.leader import Leader
from trio_kv.raft.messages import HeartbeatReply, Message
from trio_kv.replica.driver import Continue, Control, Driver, Input, TimerFired
from trio_kv.replica.patience import PATIENCE_S
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import Turns
from trio_kv.storage.disk import Storage
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import SnapshotTaken
from trio_kv.wire.node_port import Answer, Refused, ReplyTo, Request, Unknown
from trio_kv.wire.node_status import NodeStatus

ROUNDING_S = 1e-6
"""More than what is lost by converting between clocks."""


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
        replica: Replica,
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
            replica: what thinks; it was made just now, by `clock`.
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
        inbox.on_left_lying, inbox.pass_on = self._look_later, self._pass_on
        inbox.on_heartbeat_reply = self._note_round_trip
        self.replica = replica
        self.driver = Driver(replica, turns)
        self._disk, self._send, self._deliver = disk, send, deliver
        self._status, self._publish, self._rebuilt = status, publish, rebuilt
        self._nursery: trio.Nursery | None = None
        self._trace = trace
        self._resumed: trio.Event | None = None
        self._is_behind = False
        """Whether there was a pause, and no pass since: what came in it is still to be taken."""
        self._timer_scope = trio.CancelScope()
        self._timer_at = float("inf")
        self._set_at = float("-inf")
        """When the timer was last given a deadline, though it be the one that it had."""
        self._has_fired = False
        """Whether the timer has fired, and there was no pass since."""
        self._soon_s = 1.5 * replica.raft.config.heartbeat_interval_s
        """A leader has something to do more often than that."""
        self._look_at = float("inf")
        """When the inbox is to be looked into, by Trio's clock."""
        self._told: tuple[str, int, int | None] | None = None
        self._last_leader: int | None = None
        self.leader_changes = 0
        """How often it heard of a leader that was not the last one that it had heard of."""
        self.round_trips: dict[int, Histogram] = {}
        """From a heartbeat, while it leads, until the reply of each peer has arrived here, in seconds."""
        self._turns = 0
        """So many turns others have before the driver goes on with what it left."""
        self._batch: list[Input] = []
        """The items of this pass. Their askers are answered even if the pass kills the node."""

    def pause(self) -> None:
        """Do nothing more until resumed: messages and completions pile up, as with a stopped process."""
        if self._resumed is None:
            self._resumed = trio.Event()
            self._is_behind = True

    def resume(self) -> None:
        """Go on after a pause."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    @property
    def is_paused(self) -> bool:
        """Whether it does nothing until it is resumed."""
        return self._resumed is not None

    @property
    def is_disk_full(self) -> bool:
        """Whether the disk says that it has no room for more log than is reserved."""
        return self.replica.raft.persistence.free_log_bytes is not None

    def clock_changed(self) -> None:
        """Let the timer follow the clock, which runs at another rate now, or has jumped."""
        self._timer_scope.deadline = min(self.clock.to_trio(self._timer_at), self._look_at)

    async def run(self) -> None:
        """Be a node until cancelled.

        Raises:
            DiskFailedError: the disk failed.

        """
        try:
            async with trio.open_nursery() as self._nursery:
                self._pass(self.clock.now(), [])
                self._nursery.start_soon(self._run_timer)
                await self._run_inbox()
        finally:
            # From here on nothing is passed on: the disk may still tell of what it had begun.
            self._nursery = None
            self._answer_all()

    async def _run_inbox(self) -> None:
        while True:
            if self._turns:
                await self._give_turns()
            items = self._batch = await self.inbox.receive()
            if self._resumed is not None:
                await self._resumed.wait()
                items += self.inbox.drain()
            self._take(items)

    async def _give_turns(self) -> None:
        """Let others run, as often as the driver wanted, unless there is something to act on before."""
        while self._turns > 1 and not self.inbox.is_awake:
            self._turns -= 1
            await trio.lowlevel.checkpoint()
        if self._turns == 1:
            # To receive is a turn, too.
            self._turns = 0
            self.inbox.post(Continue())

    def _take(self, items: list[Input]) -> None:
        """Have a pass, with all that there is, and last with what the timer says if it is still due then."""
        self._batch, now = items, self.clock.now()
        if self._has_fired:
            self._has_fired = False
            if self.replica.deadline <= now:
                items.append(TimerFired())
        self._pass(now, items)
        self._batch = []
        self._is_behind = self._resumed is not None

    def _pass(self, now: float, items: list[Input]) -> None:
        """Let the driver take what came, and carry out what it wants."""
        work = self.driver.step(now, trio.current_time(), items)
        send, disk = self._send, self._disk
        # A message may be answered before `send` returns.
        self.inbox.patience = work.patience
        self._set_timer(now, work.deadline)
        for message in work.messages:
            send(message)
        if work.write is not None:
            disk.submit(work.write)
        self.inbox.uncommitted_bytes = self.replica.uncommitted_bytes
        for job in work.jobs:
            disk.submit(job)
        for told in work.events:
            self._emit(told)
        if work.turns:
            self._turns = work.turns
        self._note()
        if work.answers:
            # Last, for whoever is answered may ask anew at once.
            self._deliver(work.answers)

    def _emit(self, told: Told) -> None:
        event = told.event
        self._trace.emit(event, node=self.replica.id, term=told.term, role=told.role)
        if isinstance(event, RebuildEnded):
            assert self._nursery is not None
            self._nursery.start_soon(self._rebuilt)
        elif isinstance(event, SnapshotTaken):
            self._publish()

    def _note(self) -> None:
        """Keep the registry's view up to date; tell it aloud only when it matters to others."""
        raft = self.replica.raft
        told = (raft.role.name, raft.term, raft.leader)
        if told != self._told:
            self._told = told
            self._status.role, self._status.term, self._status.leader = told
            if raft.leader not in (None, self._last_leader):
                self._last_leader = raft.leader
                self.leader_changes += 1
            self._publish()

    def _note_round_trip(self, reply: HeartbeatReply) -> None:
        """Note how long a peer's reply took, whenever this node is going to take it."""
        raft = self.replica.raft
        if not isinstance(raft.role, Leader) or reply.term != raft.term:
            return
        began_at = raft.role.timed_rounds.get(reply.round)
        if began_at is not None:
            self.round_trips.setdefault(reply.source, Histogram()).note(self.clock.now() - began_at)

    @property
    def write_waits_s(self) -> float:
        """For how long the oldest write has been waiting for the disk, by the node's clock."""
        oldest_at = self.replica.raft.persistence.oldest_write_at
        return 0.0 if oldest_at is None else self.clock.now() - oldest_at

    def refresh_status(self) -> None:
        """Bring the numbers of the registry's view up to date: done when somebody asks, not at every step."""
        raft, machine, status = self.replica.raft, self.replica.machine, self._status
        status.is_rebuilding = raft.is_rebuilding
        status.commit = raft.commit
        status.applied = machine.applied
        status.log_first = raft.log.base_index + 1
        status.log_last = raft.log.last_index
        status.digest = f"{machine.entries_digest:08x}{machine.state_digest:08x}"

    # The timer: a task that sleeps in a cancel scope whose deadline follows the core's

    async def _run_timer(self) -> None:
        """Wake the node when something is due: an election, a heartbeat, a look at what was left lying."""
        while True:
            at = min(self.clock.to_trio(self._timer_at), self._look_at)
            with trio.CancelScope(deadline=at) as self._timer_scope:
                await trio.sleep_forever()
            if not self.replica.raft.is_leader:
                # Whoever else is late has its turn first: a leader in this process, say, that was to be heard by now.
                await trio.lowlevel.checkpoint()
            # The pass that follows sets it anew.
            self._timer_at = self._look_at = float("inf")
            self._has_fired = True
            self.inbox.wake()

    def _set_timer(self, now: float, deadline: float) -> None:
        """Let the timer fire in time. A deadline that moved on is told to it shortly before it would fire in vain.

        To tell it each time would cost a pass more than to wake in vain now and then; and in an idle process nothing
        costs as much as to wake. The next call is likely to come after as long a time as this one: a busy node has
        some hundred of them left when an idle one has its last.
        """
        soon, self._set_at = now + min(self._soon_s, 2 * (now - self._set_at)), now
        if deadline < self._timer_at or self._timer_at < soon <= deadline:
            self._timer_at = deadline
            self._timer_scope.deadline = min(self.clock.to_trio(deadline), self._look_at)

    def _pass_on(self, item: Control | Message) -> bool:
        """Let messages leave that waited for this alone, without waking the node; return whether that is all of it.

        Nothing overtakes what came in a pause. It is called in callbacks of the event loop, which nobody outlives if
        they raise: what goes wrong here is raised in the node's nursery.
        """
        nursery = self._nursery
        if nursery is None or self._is_behind:
            return False
        try:
            now = self.clock.now()
            passed = self.driver.pass_on(now, item)
            if passed is None:
                return False
            messages, events = passed
            self._set_timer(now, self.replica.deadline)
            for message in messages:
                self._send(message)
            for told in events:
                self._emit(told)
        except Exception as error:  # noqa: BLE001 - it ends this node
            nursery.start_soon(_raise, error)
        return True

    def _look_later(self) -> None:
        """See to it that what was left lying in the inbox does not lie for long."""
        self._look_at = trio.current_time() + PATIENCE_S
        self._timer_scope.deadline = min(self._timer_scope.deadline, self._look_at)

    def _answer_all(self) -> None:
        """Give the last answers: what was taken is unknown, what still lay in the inbox never happened."""
        node, answers = self._status.node, self.driver.stop()
        for item in self._batch:
            if isinstance(item, Request):
                answers.append((item.reply_to, Unknown(item.number, node)))
        for item in self.inbox.drain():
            if isinstance(item, Request):
                answers.append((item.reply_to, Refused(item.number, node, None)))
        self._deliver(answers)


async def _raise(error: Exception) -> None:
    """Let a nursery end by an error."""
    raise error
