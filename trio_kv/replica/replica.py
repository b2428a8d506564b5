"""One node's brain: Raft and the state machine, joined. Synchronous, so that the simulator runs the real
thing.

What it owns: who waits for which entry, which reads wait for which index, when something is due to expire.
"""

from bisect import bisect_right
from collections import deque

from trio_kv.kv.commands import Command, Expire
from trio_kv.kv.expiry import EXPIRED_IN_AN_ENTRY_MAX
from trio_kv.kv.machine import Machine
from trio_kv.kv.paging import MANY
from trio_kv.kv.reply import Reply
from trio_kv.raft.entry import LOG_START, Entry, LogPosition
from trio_kv.raft.errors import NotLeader, ReadOnly
from trio_kv.raft.leader import Leader
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import Ready, Ticket
from trio_kv.replica.feed import Feed
from trio_kv.replica.group import Group
from trio_kv.replica.jobs import Job
from trio_kv.replica.pages import PAGES_IN_A_PASS_MAX, Pages, has_page
from trio_kv.replica.snapshots import Snapshots
from trio_kv.replica.turns import Turns
from trio_kv.replica.waiter import Waiter, asked_between
from trio_kv.wire.node_port import Answer, Done, Full, Propose, Read, Refused, ReplyTo, Unknown

SETTLE_ITEMS_MAX = 500
"""Keys put back in place in one pass after a snapshot: a millisecond at most."""
COMPACT_ENTRIES_MAX = 5000
"""Entries forgotten in one pass after a snapshot."""
COMPARED_IN_A_PASS_BYTES_MAX = 65_536
"""JSON compared in one pass, in some milliseconds; once it is more, further entries wait for the next pass."""
EXPIRY_RETRY_S = 1.0
"""What is due to expire waits so long when no entry could be appended: a transfer, or full disks."""
READS_WAITING_MAX = 16_384
"""Reads that wait here at a time, for a leader or for entries; a further one is refused, and asked elsewhere."""


class Replica:
    """One node: its parts, and what joins them. `replica.driver` calls it, and nobody else.

    Invariants: a write is answered only once its entry is applied here; a linearizable read is answered
    from a state that holds every write which was answered anywhere before the read came (thesis §6.4).
    """

    def __init__(
        self,
        raft: Raft,
        machine: Machine | None = None,
        *,
        snapshot_bytes: int = 0,
        snapshot_log_bytes_min: int = 4 << 20,
    ) -> None:
        """Start from what the disk held.

        Args:
            raft: this node's core, which did nothing yet. Its log begins behind the newest snapshot.
            machine: what that snapshot held; None: there is none.
            snapshot_bytes: its size.
            snapshot_log_bytes_min: see `Snapshots`.

        """
        self.id, self.raft = raft.id, raft
        self.machine = Machine() if machine is None else machine
        self.feed = Feed(raft, self.machine.applied)
        self.snapshots = Snapshots(raft, stored_bytes=snapshot_bytes, log_bytes_min=snapshot_log_bytes_min)
        self._expiry_retry_at = float("-inf")
        self.group = Group()
        self._new_reads: list[Read] = []
        self._waiters: deque[Waiter] = deque()
        self.uncommitted_bytes = 0
        """What the proposals weigh that this node has taken and that are not committed yet."""
        self.proposals_failed = 0
        """How many were refused, or given up without a result."""
        self.applied_now: tuple[Entry, ...] = ()
        self.answered_now = (0, 0)
        """The entries that the last call of `apply` applied; up to where it answered writes, and how many requests."""
        self._unapplied: tuple[Entry, ...] = ()
        """Committed entries that wait for a pass with time for them."""
        self._reads: list[tuple[int, list[Read]]] = []
        """Confirmed reads that wait for an index to be applied."""
        self._stale_reads: list[Read] = []
        self._reads_waiting = 0
        self._pages = Pages()
        self._answers: list[tuple[ReplyTo, Answer]] = []
        self._expire = LOG_START
        """The Expire entry under way: no second one is proposed in that term meanwhile."""

    @property
    def deadline(self) -> float:
        """When to call `timeout`, in seconds of the driver's clock."""
        return min(self.raft.deadline, self._expiry_deadline(), self.feed.deadline, self.group.deadline)

    @property
    def is_fresh(self) -> bool:
        """Whether all is applied here that a leader said was committed when this node first heard one."""
        return self.raft.fresh_index is not None and self.machine.applied >= self.raft.fresh_index

    def stored(self, now: float, ticket: Ticket) -> None:
        """Note that a write is durable."""
        self.raft.stored(now, ticket)

    def timeout(self, now: float) -> None:
        """Do what is due."""
        self.raft.timeout(now)
        self._answers += self.feed.timeout(now)
        if now >= self._expiry_deadline():
            appended = self.raft.propose(now, [Expire(EXPIRED_IN_AN_ENTRY_MAX)])
            if isinstance(appended, LogPosition):
                self._expire = appended
            else:
                self._expiry_retry_at = now + EXPIRY_RETRY_S

    def propose(self, now: float, propose: Propose) -> None:
        """Take commands. All that wait at a `ready` are appended together, if it is time for that."""
        self.uncommitted_bytes += propose.size_bytes
        if (
            propose.queries
            and has_page(propose)
            and self.raft.is_leader
            and not self.machine.pages.is_ordered
        ):
            # Entries behind it would have to wait for it, were it in the log already.
            self._pages.proposals.append(propose)
            return
        self.group.add(now, propose)

    def read(self, read: Read) -> None:
        """Take a read. All that come before the next `ready` share one question to the leader."""
        if self._reads_waiting >= READS_WAITING_MAX:
            self._answers.append((read.reply_to, Refused(read.number, self.id, self.raft.leader)))
            return
        self._reads_waiting += 1
        if read.is_stale:
            self._stale_reads.append(read)
        else:
            self._new_reads.append(read)

    def ready(self, now: float) -> Ready:
        """Return what has to be done since the last call."""
        if self.group.proposals and self.group.is_due(now, self.raft, len(self._waiters)):
            self._append_proposals(now)
        if self._new_reads:
            self.raft.read(self._new_reads)
            self._new_reads = []
        self.machine.known_time_us = self.raft.role.time_us(now)
        return self.raft.ready(now)

    def apply(self, ready: Ready) -> None:
        """Apply what is committed, and go on with snapshots as far as a pass has time for it."""
        # First, for they are among the last answers only as long as they wait here.
        self._reads.extend([(index, reads) for reads, index in ready.reads])
        committed = self._unapplied + ready.committed if self._unapplied else ready.committed
        if committed:
            asked = asked_between(self._waiters, committed[-1].index) if self._waiters else ()
            replies = self.machine.apply(committed, COMPARED_IN_A_PASS_BYTES_MAX, asked)
            self.answered_now = (0, 0)
            if self._unapplied or len(replies) < len(committed):
                committed, self._unapplied = committed[: len(replies)], committed[len(replies) :]
            size_bytes = sum([len(entry.encoded) for entry in committed])
            self.snapshots.applied(size_bytes)
            self.feed.applied(self.machine, len(committed), size_bytes)
            if self._waiters:
                self._answer_writes(committed, replies)
        self.applied_now = committed
        if self._waiters:
            self._give_up_lost()
        if self._reads or self._stale_reads:
            self._answer_reads()
        if self._pages.is_waiting:
            self._go_on_with_pages(len(committed))
        if self.feed.is_asked:
            self._answers += self.feed.answers()
        for chunk in ready.chunks:
            self.snapshots.take(self.machine, chunk)
        for read in ready.chunk_reads:
            self.snapshots.read(read)
        self.snapshots.release_unread()
        if not self.machine.is_settled:
            self.machine.settle(SETTLE_ITEMS_MAX)
        self.snapshots.make_chunks()
        self.snapshots.free_replaced(SETTLE_ITEMS_MAX)
        self.snapshots.compact(COMPACT_ENTRIES_MAX)

    def take_answers(self) -> list[tuple[ReplyTo, Answer]]:
        """Return the (reply_to, answer) pairs since the last call."""
        answers, self._answers = self._answers, []
        return answers

    @property
    def requests_waiting(self) -> int:
        """How many requests have no answer yet."""
        return self.proposals_waiting + self._reads_waiting

    @property
    def proposals_waiting(self) -> int:
        """How many of these are proposals."""
        return len(self.group.proposals) + len(self._pages.proposals) + len(self._waiters)

    @property
    def has_more(self) -> bool:
        """Whether there is work left that needs no input, for a further pass."""
        return self.is_behind or self._pages.is_waiting or self.snapshots.is_making or not self.is_cleaned_up

    @property
    def is_behind(self) -> bool:
        """Whether there are committed entries, or appends for followers, that the last pass had no time for."""
        return self.raft.has_more or bool(self._unapplied)

    @property
    def is_cleaned_up(self) -> bool:
        """Whether nothing is left to put back, to free or to forget of the last snapshot."""
        snapshots = self.snapshots
        return self.machine.is_settled and snapshots.replaced is None and not snapshots.is_compacting

    def take_jobs(self) -> list[Job]:
        """Return what the disk has to do besides writes, since the last call."""
        jobs, self.snapshots.jobs = self.snapshots.jobs, []
        return jobs

    @property
    def is_snapshot_due(self) -> bool:
        """Whether a snapshot should be begun as soon as it is this node's turn."""
        if not (self.snapshots.is_due and self.machine.is_settled):
            return False
        # One may be stored that goes further than what is applied: a leader's that came beside the log.
        return self.machine.applied >= self.snapshots.stored.index

    def take_turn(self, now: float, turns: Turns) -> None:
        """Begin a snapshot that is due, or go on with one, if it is this node's turn; else give the turn back.

        Args:
            now: the time that `turns` goes by: the nodes of a process share it, whatever their own clocks show.
            turns: whose turn it is to take a snapshot.

        """
        if self.is_snapshot_due:
            if turns.take(now, self.id):
                self.snapshots.begin(self.machine)
        elif self.snapshots.is_taking:
            self.snapshots.take_turn(now, turns)
        elif not self.is_cleaned_up:
            # Cleaning up takes the processor as well: were it beside the next node's snapshot, clients would feel it.
            turns.renew(now, self.id)
        else:
            turns.give_back(self.id)

    def snapshot_stored(self, snapshot: LogPosition, size_bytes: int) -> None:
        """Note that a snapshot is durable and was proved readable."""
        machine = self.snapshots.snapshot_stored(self.machine, snapshot, size_bytes)
        if machine is not self.machine:
            # Only what goes beyond all that was committed here is put in the place of what there is.
            assert not self._unapplied or self._unapplied[-1].index <= machine.applied
            self.machine, self._unapplied = machine, ()
            self.feed.restart(machine.applied)

    def snapshot_failed(self, snapshot: LogPosition) -> None:
        """Note that the disk had no room for a snapshot."""
        self.snapshots.failed(self.machine, snapshot)

    def stop(self) -> list[tuple[ReplyTo, Answer]]:
        """Return the last answers of a node that dies: what it had taken is unknown."""
        requests: list[Propose | Read] = [*self.group.proposals, *self._new_reads, *self._stale_reads]
        requests += [*self._pages.proposals, *self._pages.reads]
        requests += [waiter.propose for waiter in self._waiters]
        requests += [read for _, reads in self._reads for read in reads]
        requests += [read for reads in self.raft.unanswered_reads() for read in reads]
        unknown = [(request.reply_to, Unknown(request.number, self.id)) for request in requests]
        return [*self._answers, *unknown, *self.feed.stop()]

    def _append_proposals(self, now: float) -> None:
        proposals = self.group.take()
        commands: list[Command] = []
        for propose in proposals:
            commands.extend(propose.commands)
        appended = self.raft.propose(now, commands)
        if isinstance(appended, LogPosition):
            first, term = appended
            for propose in proposals:
                last = first + len(propose.commands) - 1
                self._waiters.append(Waiter(propose, term, first, last))
                first = last + 1
        else:
            self.proposals_failed += len(proposals)
            for propose in proposals:
                self.uncommitted_bytes -= propose.size_bytes
                self._answers.append((propose.reply_to, self._refusal(propose, appended)))

    def _refusal(self, propose: Propose, why: NotLeader | ReadOnly) -> Refused | Full:
        if isinstance(why, ReadOnly):
            return Full(propose.number, self.id)
        return Refused(propose.number, self.id, why.hint)

    def _answer_writes(self, committed: tuple[Entry, ...], replies: list[Reply]) -> None:
        """Answer the proposals whose entries were applied, as long as it was they that were applied there."""
        base, last_applied = committed[0].index, committed[-1].index
        while self._waiters and self._waiters[0].first <= last_applied:
            waiter = self._waiters[0]
            begin, end = max(waiter.first, base) - base, min(waiter.last, last_applied) - base + 1
            if begin < end and committed[end - 1].term != waiter.term:
                # Another term has this index: the commands may have been dropped (scenario C10). The
                # last entry is the one to look at: a newer leader may have kept the first ones and put
                # others behind them.
                self._give_up_first()
                continue
            waiter.replies.extend(replies[begin:end])
            repeated = self.machine.repeated
            if repeated:
                place = bisect_right(repeated, waiter.last)
                waiter.repeated = max(waiter.repeated, repeated[place - 1] if place else 0)
            if waiter.last > last_applied:
                return
            self._end_first()
            done = Done(waiter.propose.number, self.id, waiter.term, last_applied, waiter.all_replies())
            self._answers.append((waiter.propose.reply_to, done))
            self.answered_now = waiter.last, self.answered_now[1] + 1

    def _give_up_lost(self) -> None:
        """Answer *unknown* at once to what was proposed in a term that this node no longer leads."""
        while self._waiters and not (self.raft.is_leader and self._waiters[0].term == self.raft.term):
            self._give_up_first()

    def _give_up_first(self) -> None:
        """Let the oldest proposal wait no more, as nobody here can know what becomes of it."""
        propose = self._end_first().propose
        self.proposals_failed += 1
        self._answers.append((propose.reply_to, Unknown(propose.number, self.id)))

    def _end_first(self) -> Waiter:
        """Let the oldest proposal wait no more; return it."""
        waiter = self._waiters.popleft()
        self.uncommitted_bytes -= waiter.propose.size_bytes
        return waiter

    def _answer_reads(self) -> None:
        applied = self.machine.applied
        if self._reads:
            waiting = []
            for index, reads in self._reads:
                if index <= applied:
                    self._answer(reads)
                else:
                    waiting.append((index, reads))
            self._reads = waiting
        if self._stale_reads and self.is_fresh:
            self._answer([read for read in self._stale_reads if read.applied_min <= applied])
            self._stale_reads = [read for read in self._stale_reads if read.applied_min > applied]

    def _answer(self, reads: list[Read], pages_max: int = 0) -> None:
        """Answer reads from what is applied. Those with more pages than are to be made now wait for a further pass."""
        term, query, applied = self.raft.term, self.machine.query, self.machine.applied
        pages = self.machine.pages
        pages.left = pages_max
        self._reads_waiting -= len(reads)
        for read in reads:
            replies = query(read.queries)
            if pages.is_due:
                pages.is_due = False
                self._pages.reads.append(read)
                self._reads_waiting += 1
                continue
            self._answers.append((read.reply_to, Done(read.number, self.id, term, applied, replies)))

    def _go_on_with_pages(self, applied_count: int) -> None:
        pages, left = self._pages, PAGES_IN_A_PASS_MAX
        if not pages.settle(self.machine, applied_count):
            return
        while pages.reads and left > 0:
            self._answer([pages.reads.popleft()], MANY)
            left -= MANY - self.machine.pages.left
        if pages.proposals:
            self.group.add_late(pages.proposals)
            pages.proposals = []

    def _expiry_deadline(self) -> float:
        role = self.raft.role
        # A leader that has not applied all that others wrote before its term does not know yet what is due.
        if not isinstance(role, Leader) or self.machine.applied < role.first_index:
            return float("inf")
        due_us = self.machine.expires_at_us
        if due_us is None:
            return float("inf")
        if self._expire.term == self.raft.term and self._expire.index > self.machine.applied:
            return float("inf")
        return max(role.when(due_us), self._expiry_retry_at)
