"""The consensus core of one node: methods in, one `Ready` out.

It does no I/O, has no clock and no randomness of its own: `now` is an argument, the random source is injected. Here is
who gets what: a message or a timer goes to the role, which moves the `NodeState` on and may ask for another role, and
`ready` gathers the effects.
"""

from collections.abc import Sequence
from typing import Any, Self

from trio_kv.raft.candidate import Candidate
from trio_kv.raft.entry import Command, Entry, LogPosition, make_entry
from trio_kv.raft.errors import NotLeader, ReadOnly
from trio_kv.raft.events import (
    ElectionStarted,
    EntriesStored,
    LeaderElected,
    LeaderSteppedDown,
    LogCompacted,
    PreVoteStarted,
    SnapshotInstalled,
    SnapshotRefused,
    Told,
)
from trio_kv.raft.follower import Follower
from trio_kv.raft.leader import Leader
from trio_kv.raft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    Heartbeat,
    HeartbeatReply,
    InstallReply,
    InstallSnapshot,
    Message,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from trio_kv.raft.ready import ChunkRead, ChunkWasRead, Effects, HardState, Ready, Ticket
from trio_kv.raft.role import Follow, Lead, Role, Stand, Transition
from trio_kv.raft.state import REBUILT, NodeState


class Raft(NodeState):
    """A node, as its driver sees it: every call goes to the role, the disk's book-keeping or the log.

    The driver, after any call that takes `now`:
    1. asks `ready(now)` and carries the batch out, field by field (see `Ready`);
    2. calls `timeout(now)` when its clock reaches `deadline`, having first delivered all messages that wait;
    3. calls `stored(now, ticket)` when a write is durable, in the order of the tickets.
    After a crash it makes a new `Raft` from what the disk holds, with a new `nonce`.
    """

    # What comes in

    def receive(self, now: float, message: Message) -> None:  # noqa: C901, PLR0912 - one case a message is the point
        """Take a message from a peer."""
        if message.source not in self.peers or message.target != self.id:
            return
        if message.incarnation != self._incarnations.get(message.source):
            if self.is_void(message):
                return
            self.role.note_incarnations([(message.source, message.incarnation)])
        self.role.peer_said(message)
        if message.term > self.term and not self._enter_term_of(now, message):
            return
        if message.term < self.term and not isinstance(message, PreVoteReply):
            self._answer_late(message)
            return
        role = self.role
        match message:
            case AppendEntries():
                self._following(now, message).on_append_entries(now, message)
            case AppendAccepted():
                role.on_append_accepted(now, message)
            case Heartbeat():
                self._following(now, message).on_heartbeat(now, message)
            case HeartbeatReply():
                role.on_heartbeat_reply(now, message)
            case ReadIndex():
                role.on_read_index(now, message)
            case ReadIndexReply():
                role.note_incarnations(message.incarnations)
                if self.log.has(message.index, message.index_term):
                    self.commit_to(message.index)
                self.confirm_reads(self.pending_reads.answered(message.nonce, message.counter), message.index)
            case InstallSnapshot():
                self._following(now, message).on_install_snapshot(now, message)
            case InstallReply():
                role.on_install_reply(now, message)
            case AppendRejected():
                role.on_append_rejected(now, message)
            case RequestPreVote():
                role.on_request_pre_vote(now, message)
            case PreVoteReply():
                self._change_role(now, role.on_pre_vote_reply(message))
            case RequestVote():
                role.on_request_vote(now, message)
            case VoteReply():
                self._change_role(now, role.on_vote_reply(message))
            case TimeoutNow():
                self._change_role(now, role.on_timeout_now(message))
            case _:
                raise AssertionError(f"no rule for {message}")

    def _enter_term_of(self, now: float, message: Message) -> bool:
        """Enter the newer term of a message, unless it may not move this node; return whether to go on with it."""
        if isinstance(message, RequestPreVote):
            return True  # A pre-vote changes nothing.
        if isinstance(message, RequestVote) and not message.is_transfer and self.role.hears_leader(now):
            # Or else a node that was cut off for a while would depose a leader that works (thesis §4.2.3).
            self.role.emit_refused(message, "hears a leader")
            return False
        self.become_follower(now, message.term, "saw a newer term")
        return True

    def _answer_late(self, message: Message) -> None:
        """Tell our term to a leader or a pre-candidate that is behind (scenarios E3, E10).

        A node whose term ran ahead takes no append and gets no pre-vote: without this it would stay out for ever.
        """
        if isinstance(message, AppendEntries | Heartbeat | RequestPreVote):
            self.send(HeartbeatReply(*self.header(message.source), 0))

    @property
    def deadline(self) -> float:
        """When to call `timeout`, in seconds of the driver's clock."""
        reads = self.pending_reads
        if reads.asked:
            return min(self.role.deadline, reads.asked_at + self.config.heartbeat_interval_s)
        return self.role.deadline

    def timeout(self, now: float) -> None:
        """Do what is due at `now`. Call it when `deadline` has passed; a call too early does nothing."""
        if self.pending_reads.asked and now >= self.pending_reads.asked_at + self.config.heartbeat_interval_s:
            self.pending_reads.is_overdue = True  # The question or its answer got lost: `ready` asks again.
        if now >= self.role.deadline:
            self._change_role(now, self.role.on_timeout(now))

    def propose(self, now: float, commands: Sequence[Command]) -> LogPosition | NotLeader | ReadOnly:
        """Append commands to the log, if this node leads.

        Returns:
            The position of the first command: they stand in a row from there. Whether they get committed is
            seen when they come out of `Ready.committed` with this term. `NotLeader` and `ReadOnly`: nothing
            was appended.

        """
        return self.role.propose(now, commands)

    def read(self, context: Any) -> None:
        """Ask for an index to read at. `Ready.reads` brings (context, index), also if the leader changes meanwhile."""
        self.pending_reads.waiting.append(context)

    def transfer(self, now: float, target: int, *, reason: str) -> NotLeader | None:
        """Begin to hand leadership over to `target` (thesis §3.10). The reason stands in the event.

        Raises:
            ValueError: the target is not another member, or a transfer is under way already.

        """
        if target not in self.peers:
            raise ValueError(f"cannot hand over to node {target}: the other nodes are {list(self.peers)}")
        return self.role.transfer(now, target, reason=reason)

    # Roles (paper figure 4): each change of role happens here, after the handler that asked for it

    role: Role

    def begin(self, now: float) -> None:
        """Start as a follower."""
        self.role = Follower(self, now)

    @property
    def role_name(self) -> str:
        """What this node is just now: follower, candidate, leader."""
        return self.role.name

    @property
    def is_leader(self) -> bool:
        """Whether this node leads its term, as far as it knows."""
        return isinstance(self.role, Leader)

    @property
    def is_committing(self) -> bool:
        """Whether this node leads, and entries of its log are on their way to be committed: more may wait for that."""
        role = self.role
        return self.commit < self.log.last_index and isinstance(role, Leader) and role.transfer_target is None

    def copy(self) -> Self:
        """Return a node of its own in the same state, to try what happens next. Entries are shared."""
        twin = super().copy()
        twin.role = self.role.copy(twin)
        return twin

    def _change_role(self, now: float, transition: Transition | None) -> None:
        match transition:
            case None:
                pass
            case Follow(term, reason):
                self.become_follower(now, term, reason)
            case Stand(reason, is_pre_vote, is_transfer):
                self.become_candidate(now, reason, is_pre_vote=is_pre_vote, is_transfer=is_transfer)
            case Lead():
                self.become_leader(now)

    def _following(self, now: float, message: Message) -> Follower:
        """Return the role that hears the leader of this term, from whom a message came."""
        if isinstance(self.role, Candidate):
            self.become_follower(now, self.term, "another node leads")  # This one has lost (paper §5.2).
        role = self.role
        assert isinstance(role, Follower), f"two leaders in one term: {message} came to a {role.name}"
        return role

    def become_follower(self, now: float, term: int, reason: str) -> None:
        """Follow, in this term or a newer one."""
        self.role.leave()
        if self.is_leader:
            self.hear_time((self.term, self.role.time_us(now)))
            self.emit(LeaderSteppedDown(reason))
        self.role = Follower(self, now)
        self.enter(term)
        self.forget_leader()

    def become_candidate(
        self, now: float, reason: str, *, is_pre_vote: bool, is_transfer: bool = False
    ) -> None:
        """Stand for election, or ask first whether this node would win."""
        self.leader = None
        self.pending_reads.give_up()
        if not is_pre_vote:
            self.enter(self.term + 1)
            self.vote = self.id
            self.standing_term = self.term
        self.role = role = Candidate(self, now, reason, is_pre_vote=is_pre_vote, is_transfer=is_transfer)
        self.emit(PreVoteStarted(reason) if is_pre_vote else ElectionStarted(reason))
        role.ask()
        self._change_role(now, role.maybe_stand())

    def become_leader(self, now: float) -> None:
        """Lead this term, and open it with a no-op (paper §8)."""
        candidate = self.role
        assert isinstance(candidate, Candidate)
        assert self.vote == self.id
        assert self.standing_term == self.term
        self.standing_term = None
        first = self.log.last_index + 1
        self.role = role = Leader(self, now, first, is_successor=candidate.is_transfer)
        self.leader = self.id
        self.emit(LeaderElected(tuple(sorted(self.votes)), first))
        self.append([make_entry(first, self.term, role.time_us(now), None)])

    # What goes out

    def ready(self, now: float) -> Ready:
        """Return all that has to be done since the last call. Duties in the order of the fields."""
        if self.leader is not None and self.pending_reads.is_due:
            self.role.ask_leader(now)
        self.role.replicate(now)
        write = self.persistence.next_write(now, HardState(self.term, self.vote, self.heard_incarnations))
        if self.persistence.held:
            self.effects.messages.extend(self.persistence.release())
        committed: tuple[Entry, ...] = ()
        if self.commit > self.delivered:
            last = min(self.commit, self.delivered + self.config.committed_entries_max)
            committed = self.log.slice(self.delivered + 1, last)
            self.delivered = last
        if self.is_rebuilding:
            self.maybe_end_rebuild()
        effects, self.effects = self.effects, Effects()
        return Ready(
            tuple(effects.messages),
            write,
            committed,
            tuple(effects.reads),
            tuple(effects.chunks),
            tuple(effects.chunk_reads),
            tuple(effects.events),
        )

    @property
    def has_more(self) -> bool:
        """Whether there are committed entries or appends that the last `Ready` had no place for: call it again soon."""
        return self.commit > self.delivered or self.role.has_more

    def unanswered_reads(self) -> list[Any]:
        """Return the contexts of all reads that did not come out of `ready` yet."""
        confirmed = [context for context, _ in self.effects.reads]
        contexts = (
            confirmed + self.role.own_reads() + self.pending_reads.contexts() + self.pending_reads.waiting
        )
        return [context for context in contexts if context is not REBUILT]

    # What became of it on the disk

    def stored(self, now: float, ticket: Ticket) -> None:
        """Note that this write, and all before it, are durable."""
        durable = self.log.durable
        self.effects.messages.extend(self.persistence.stored(ticket))
        if self.log.durable > durable and self.wants_debug:
            self.emit(EntriesStored(self.log.durable))
        self._change_role(now, self.role.on_stored(now))

    def stored_and_done(self, ticket: Ticket) -> tuple[Sequence[Message], Sequence[Told]] | None:
        """Note that this write, and all before it, are durable, if that lets messages leave, and no more.

        So it is with most of a follower's writes. On a full disk they keep their place behind what was told before
        them: what they took counts as under way until it is known how much space is left.

        Returns:
            the messages, which leave now, and events. None: there is more to it, and nothing was noted.

        """
        is_follower = isinstance(self.role, Follower)
        is_full = self.persistence.free_log_bytes is not None
        if not is_follower or is_full or self.is_rebuilding or self.persistence.is_backed_up:
            return None
        durable = self.log.durable
        messages = self.persistence.stored(ticket)
        is_told = self.log.durable > durable and self.wants_debug
        return messages, (self.told(EntriesStored(self.log.durable)),) if is_told else ()

    def set_free_log_bytes(self, free_log_bytes: int | None) -> None:
        """Note how much zero-filled log space is left on this node's full disk; None: it is not full."""
        self.persistence.free_log_bytes = free_log_bytes

    # Snapshots

    def compact(self, snapshot_index: int, entries_max: int = 1 << 62) -> int:
        """Forget the log behind a durable snapshot of this node, but for what followers may still need soon.

        Kept are the last `log_entries_kept` entries, and what follows a snapshot that is being sent (scenario N8): its
        receiver would otherwise need the next one as soon as it has this one.

        Args:
            snapshot_index: the index of the snapshot.
            entries_max: forget no more entries than this in one call: to free millions takes long.

        Returns:
            the index up to which the log was forgotten; its disk may forget it too.

        """
        index = snapshot_index - self.config.log_entries_kept
        index = min([index, *(sent for sent, _ in self.role.snapshots_sent())])
        index = min(index, self.log.durable, self.delivered, self.log.base_index + entries_max)
        index = max(self.log.base_index, index)
        if index > self.log.base_index:
            self.log.compact(index)
            if self.wants_debug:
                self.emit(LogCompacted(index + 1))
        return index

    def chunk_read(self, now: float, read: ChunkRead, found: ChunkWasRead) -> None:
        """Take what `Ready.chunk_reads` asked for."""
        self.role.on_chunk_read(now, read, found)

    def chunk_stored(self, index: int, term: int, number: int) -> None:
        """Note that a chunk was taken up: ask for the next one. Not called after the last one."""
        incoming = self.incoming
        if incoming is not None and (*incoming.snapshot, incoming.next_number) == (index, term, number):
            incoming.next_number += 1
            incoming.is_storing = False
            self.role.on_chunk_stored()

    def chunk_moves(self, index: int, term: int) -> None:
        """Note that the disk gets on with the last chunk, which takes longer than others: tell the leader to wait."""
        if self.incoming is not None and self.incoming.snapshot == LogPosition(index, term):
            self.role.on_chunk_stored()

    def chunk_failed(self) -> None:
        """Note that the disk has no space for the snapshot that is coming: it begins anew when it is sent again."""
        self.incoming = None
        self.effects.chunks.clear()  # One that came just now would follow on nothing.

    def refuse_snapshot(self, reason: str) -> None:
        """Note that a chunk of the snapshot that is coming can't be read."""
        self.emit(SnapshotRefused(reason))
        self.incoming = None

    def installed(self, index: int, term: int, time_us: int) -> bool:
        """Go on from a leader's snapshot, which is durable: its state takes the place of the log up to `index`.

        Returns:
            whether it is news. If not, this node has all of it already, and keeps its own state machine.

        """
        self.incoming = None
        if index <= self.commit:
            self.role.on_installed()
            return False
        is_log_kept = self.persistence.install(index, term, time_us)
        self.commit = self.delivered = index
        self.emit(SnapshotInstalled(index, term, is_log_kept))
        self.role.on_installed()
        return True
