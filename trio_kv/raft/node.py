"""The consensus core of one node: methods in, one `Ready` out.

It does no I/O, has no clock and no randomness of its own: `now` is an argument, the random source is
injected. What all roles share stands here: the term and the vote, the log, the commit index, and the batch
of effects. What is on its way to the disk stands in `persistence`; what depends on the role is asked of the role.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

import attrs
import crc32c

from trio_kv.raft.candidate import Candidate
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.entry import Command, Entry, make_entry
from trio_kv.raft.errors import NotLeader, ReadOnly
from trio_kv.raft.events import (
    DEBUG,
    ElectionStarted,
    EntriesAppended,
    EntriesCommitted,
    EntriesStored,
    Event,
    LeaderElected,
    LeaderFollowed,
    LeaderSteppedDown,
    LogCompacted,
    LogTruncated,
    PreVoteStarted,
    ReadsConfirmed,
    RebuildEnded,
    SnapshotInstalled,
    SnapshotRefused,
    TermAdvanced,
)
from trio_kv.raft.follower import Follower, Incoming
from trio_kv.raft.leader import Leader
from trio_kv.raft.log import Log
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
from trio_kv.raft.persistence import Persistence
from trio_kv.raft.reads import Asker
from trio_kv.raft.ready import Chunk, ChunkRead, HardState, Ready, Ticket
from trio_kv.raft.role import Role

_REBUILT = object()
"""The context of the read by which a node that is rebuilt learns what it must have before it counts again."""


class Raft:
    """One node of a consensus group of fixed membership.

    The driver, after any call that takes `now`:
    1. asks `ready(now)` and carries the batch out, field by field (see `Ready`);
    2. calls `timeout(now)` when its clock reaches `deadline`, having first delivered all messages that wait;
    3. calls `stored(now, ticket)` when a write is durable, in the order of the tickets.
    After a crash it makes a new `Raft` from what the disk holds, with a new `nonce`.

    Invariants: the term never decreases, and a vote is given once a term; `commit` never decreases and never
    passes the log; nothing that promises durability leaves before the write that backs it.
    """

    def __init__(
        self,
        *,
        id: int,
        peers: Iterable[int],
        config: RaftConfig,
        random: Random,
        incarnation: int,
        now: float,
        incarnations: Mapping[int, int] | None = None,
        is_rebuilding: bool = False,
        hard_state: HardState = HardState(),  # noqa: B008 - frozen
        log: Log | None = None,
        events_level: int = DEBUG,
    ) -> None:
        """Start as a follower.

        Args:
            id: this node's number.
            peers: the numbers of all others.
            config: time-outs and limits.
            random: draws election time-outs and this start's nonce, nothing else.
            incarnation: the random number made with this node's directory.
            now: the driver's clock, in seconds.
            incarnations: those of all nodes, as far as they are known: messages of lower ones are void.
            is_rebuilding: this node's directory was made anew in place of one that was lost. Until it has
                again what a majority of the *others* confirms was committed when this start began, it votes
                for nobody, stands for no election and counts for no majority: what its former self
                acknowledged must not be counted on.
            hard_state: what the disk held.
            log: what the disk held.
            events_level: events below this level are not made.

        """
        self.id = id
        self.peers = tuple(sorted(peers))
        self.config = config
        self.random = random
        self.incarnation = incarnation
        self.wants_debug = events_level <= DEBUG
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.votes: set[int] = set()
        """Who voted for this node in its term, itself included, as far as it knows."""
        self.standing_term: int | None = None
        """The last term in which this start of the node asked for votes, until it wins. Late votes are void after that:
        elected twice in a term, it would begin its rounds anew, and with a part of its log lost, its entries too."""
        self.log = Log() if log is None else log
        self.commit = self.log.base_index
        self.fresh_index: int | None = None
        """A commit index first learned since this node's start, of a leader that had committed in its term."""
        self.leader: int | None = None
        self.heard_leader_at = float("-inf")
        self.asker = Asker(random.getrandbits(63))

        self.persistence = Persistence(self.log, hard_state)
        self._delivered = self.log.base_index
        self._outbox: list[Message] = []
        self._reads: list[tuple[Any, int]] = []
        self._events: list[Event] = []
        self._incarnations: dict[int, int] = dict(incarnations or {})
        self.is_rebuilding = is_rebuilding
        self._rebuilt_index: int | None = None
        if is_rebuilding:
            self.asker.waiting.append(_REBUILT)
        self.incoming: Incoming | None = None
        self._chunks: list[Chunk] = []
        self._chunk_reads: list[ChunkRead] = []
        self.role: Role = Follower(self, now)

    # What the driver calls

    @property
    def deadline(self) -> float:
        """When to call `timeout`, in seconds of the driver's clock."""
        asker = self.asker
        if asker.asked:
            return min(self.role.deadline, asker.asked_at + self.config.heartbeat_interval_s)
        return self.role.deadline

    @property
    def has_more(self) -> bool:
        """Whether there are committed entries that the last `Ready` had no place for: call `ready` again soon."""
        return self.commit > self._delivered

    @property
    def is_leader(self) -> bool:
        """Whether this node leads its term, as far as it knows."""
        return isinstance(self.role, Leader)

    def time_us(self, now: float) -> int:
        """Return the cluster time that an entry proposed now would carry, in microseconds."""
        return self.role.time_us(now)

    def timeout(self, now: float) -> None:
        """Do what is due at `now`. Call it when `deadline` has passed; a call too early does nothing."""
        if self.asker.asked and now >= self.asker.asked_at + self.config.heartbeat_interval_s:
            self.asker.is_overdue = True  # The question or its answer got lost: `ready` asks again.
        if now >= self.role.deadline:
            self.role.on_timeout(now)

    def propose(self, now: float, commands: Sequence[Command]) -> tuple[int, int] | NotLeader | ReadOnly:
        """Append commands to the log, if this node leads.

        Returns:
            (term, index of the first command): the commands stand in a row from there. Whether they get
            committed is seen when they come out of `Ready.committed` with this term. `NotLeader` and
            `ReadOnly`: nothing was appended.

        """
        return self.role.propose(now, commands)

    def read(self, now: float, context: Any) -> None:
        """Ask for an index to read at. `Ready.reads` brings (context, index), whatever leader it takes."""
        del now
        self.asker.waiting.append(context)

    def unanswered_reads(self) -> list[Any]:
        """Return the contexts of all reads that did not come out of `ready` yet."""
        confirmed = [context for context, _ in self._reads]
        contexts = confirmed + self.role.own_reads() + self.asker.contexts() + self.asker.waiting
        return [context for context in contexts if context is not _REBUILT]

    def stored(self, now: float, ticket: Ticket) -> None:
        """Note that this write, and all before it, are durable."""
        durable = self.log.durable
        self._outbox.extend(self.persistence.stored(ticket))
        if self.log.durable > durable and self.wants_debug:
            self.tell(EntriesStored(self.log.durable))
        self.role.on_stored(now)

    def transfer(self, now: float, target: int) -> NotLeader | None:
        """Begin to hand leadership over to `target` (thesis §3.10).

        Raises:
            ValueError: the target is not another member, or a transfer is under way already.

        """
        if target not in self.peers:
            raise ValueError(f"cannot hand over to node {target}: the other nodes are {list(self.peers)}")
        return self.role.transfer(now, target)

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
        index = min(index, self.log.durable, self._delivered, self.log.base_index + entries_max)
        index = max(self.log.base_index, index)
        if index > self.log.base_index:
            self.log.compact(index)
            if self.wants_debug:
                self.tell(LogCompacted(index + 1))
        return index

    def installed(self, now: float, index: int, term: int, time_us: int) -> bool:
        """Go on from a leader's snapshot, which is durable: its state takes the place of the log up to `index`.

        Returns:
            whether it is news: else this node has all of it already, and keeps its own state machine.

        """
        del now
        self.incoming = None
        if index <= self.commit:
            self.role.on_installed()
            return False
        is_log_kept = self.persistence.install(index, term, time_us)
        self.commit = self._delivered = index
        self.tell(SnapshotInstalled(index, term, is_log_kept))
        self.role.on_installed()
        return True

    def chunk_stored(self, now: float, index: int, term: int, number: int) -> None:
        """Note that a chunk was taken up: ask for the next one. Not called after the last one."""
        del now
        incoming = self.incoming
        if incoming is None or incoming.snapshot != (index, term) or incoming.next_number != number:
            return
        incoming.next_number += 1
        incoming.is_storing = False
        self.role.on_chunk_stored()

    def chunk_failed(self) -> None:
        """Note that the disk has no room for the snapshot that is coming: it begins anew when it is sent again."""
        self.incoming = None

    def refuse_snapshot(self, reason: str) -> None:
        """Note that a chunk of the snapshot that is coming can't be read."""
        self.tell(SnapshotRefused(reason))
        self.incoming = None

    def chunk_read(
        self,
        now: float,
        read: ChunkRead,
        snapshot: tuple[int, int] | None,
        data: bytes | None,
        *,
        is_last: bool,
    ) -> None:
        """Take a chunk that `Ready.chunk_reads` asked for; no data says that the snapshot is gone."""
        self.role.on_chunk_read(now, read, snapshot, data, is_last=is_last)

    def set_room(self, room_bytes: int | None) -> None:
        """Note how much zero-filled log space is left on this node's full disk; None: it is not full."""
        self.persistence.room_bytes = room_bytes

    def receive(self, now: float, message: Message) -> None:  # noqa: C901, PLR0912 - one case a message is the point
        """Take a message from a peer."""
        if message.source not in self.peers or message.target != self.id or self._is_void(message):
            return
        self.role.peer_said(message)
        if message.term > self.term and not self._enter_term_of(now, message):
            return
        if message.term < self.term and not isinstance(message, PreVoteReply):
            self._answer_late(message)
            return
        role = self.role
        match message:
            case AppendEntries():
                role.on_append_entries(now, message)
            case AppendAccepted():
                role.on_append_accepted(now, message)
            case Heartbeat():
                role.on_heartbeat(now, message)
            case HeartbeatReply():
                role.on_heartbeat_reply(now, message)
            case ReadIndex():
                role.on_read_index(now, message)
            case ReadIndexReply():
                self.confirm_reads(self.asker.answered(message.nonce, message.counter), message.index)
            case InstallSnapshot():
                role.on_install_snapshot(now, message)
            case InstallReply():
                role.on_install_reply(now, message)
            case AppendRejected():
                role.on_append_rejected(now, message)
            case RequestPreVote():
                role.on_request_pre_vote(now, message)
            case PreVoteReply():
                role.on_pre_vote_reply(now, message)
            case RequestVote():
                role.on_request_vote(now, message)
            case VoteReply():
                role.on_vote_reply(now, message)
            case TimeoutNow():
                role.on_timeout_now(now, message)
            case _:
                raise AssertionError(f"no rule for {message}")

    def ready(self, now: float) -> Ready:
        """Return all that has to be done since the last call. Duties in the order of the fields."""
        if self.leader is not None and self.asker.is_due:
            self.role.ask_leader(now)
        self.role.make_messages(now)
        write = self.persistence.next_write(now, HardState(self.term, self.vote))
        if self.persistence.held:
            self._outbox.extend(self.persistence.release())
        committed: tuple[Entry, ...] = ()
        if self.commit > self._delivered:
            last = min(self.commit, self._delivered + self.config.committed_entries_max)
            committed = self.log.slice(self._delivered + 1, last)
            self._delivered = last
        if self.is_rebuilding:
            self._maybe_end_rebuild()
        ready = Ready(
            tuple(self._outbox),
            write,
            committed,
            tuple(self._reads),
            tuple(self._chunks),
            tuple(self._chunk_reads),
            tuple(self._events),
        )
        self._outbox, self._reads, self._events = [], [], []
        self._chunks, self._chunk_reads = [], []
        return ready

    def _maybe_end_rebuild(self) -> None:
        """Count and vote again, once all is durable here that was committed when the question was answered.

        That the log is long enough says nothing: its end may have come from a leader that was deposed. What is known
        here to be committed is what the others have committed.
        """
        if self._rebuilt_index is not None and min(self.commit, self.log.durable) >= self._rebuilt_index:
            self.is_rebuilding = False
            self.tell(RebuildEnded(self._rebuilt_index))

    def copy(self) -> "Raft":
        """Return a node of its own in the same state, to try what happens next. Entries are shared."""
        twin = copy.copy(self)
        twin.random = Random()
        twin.random.setstate(self.random.getstate())
        twin.log = self.log.copy()
        twin.persistence = self.persistence.copy(twin.log)
        twin.asker = self.asker.copy()
        twin.role = self.role.copy(twin)
        twin.incoming = None if self.incoming is None else attrs.evolve(self.incoming)
        for name in ("votes", "_outbox", "_reads", "_events", "_incarnations", "_chunks", "_chunk_reads"):
            setattr(twin, name, getattr(self, name).copy())
        return twin

    # What the roles call

    def header(self, target: int) -> tuple[int, int, int, int, bool]:
        """Return the members that every message begins with."""
        return self.id, target, self.term, self.incarnation, self.is_rebuilding

    def take_chunk(self, chunk: Chunk) -> None:
        """Let the driver store a chunk."""
        self._chunks.append(chunk)

    def want_chunk(self, read: ChunkRead) -> None:
        """Let the driver read a chunk for a follower."""
        self._chunk_reads.append(read)

    def send(self, message: Message, *, waits_for_disk: bool = False) -> None:
        """Send a message: now, or when what was to be written up to now is durable.

        A message in a term that is not durable yet always waits: after a crash this node would not know that it had
        been in that term, and might contradict itself (scenario D7).
        """
        if waits_for_disk or self.term != self.persistence.durable_term:
            self.persistence.held.append(message)
        else:
            self._outbox.append(message)

    def tell(self, event: Event) -> None:
        """Tell what happened."""
        self._events.append(event)

    def append(self, entries: Sequence[Entry]) -> None:
        """Put entries at the end of the log; the next write brings them to the disk."""
        self.log.append(entries)  # type: ignore[arg-type]
        if self.wants_debug and entries:
            last = entries[-1]
            self.tell(EntriesAppended(entries[0].index, last.index, last.term, _crc(entries)))

    def truncate(self, first: int) -> None:
        """Drop all entries from `first` on, as the leader's log has others there (paper §5.3)."""
        assert first > self.commit, f"entry {first} is committed"
        last = self.log.last_index
        self.persistence.truncate(first)
        self.tell(LogTruncated(first, last))

    def commit_to(self, index: int) -> None:
        """Move the commit index on to `index`, never back (scenario L3)."""
        if index <= self.commit:
            return
        assert index <= self.log.last_index
        if self.wants_debug:
            entries = self.log.slice(self.commit + 1, index)
            self.tell(EntriesCommitted(self.commit + 1, index, entries[-1].term, _crc(entries)))
        self.commit = index

    def note_leader_commit(self, index: int) -> None:
        """Note what a leader of this term says is committed, once that covers an entry of its own term.

        Before that its commit index may lag behind all that was ever acknowledged: after a restart of the whole
        cluster it even begins at the log's base (scenario R1).
        """
        if self.fresh_index is None and self.log.term_at(index) == self.term:
            self.fresh_index = index

    def confirm_reads(self, contexts: list[Any], index: int) -> None:
        """Let these reads be answered as soon as `index` is applied."""
        if _REBUILT in contexts:
            contexts = [context for context in contexts if context is not _REBUILT]
            self._rebuilt_index = index
        if contexts:
            self._reads.extend([(context, index) for context in contexts])
            if self.wants_debug:
                self.tell(ReadsConfirmed(index, len(contexts)))

    def heard_from_leader(self, now: float, leader: int) -> None:
        """Note that the term has a leader that is alive."""
        self.heard_leader_at = now
        if self.leader != leader:
            assert self.leader is None, f"two leaders in term {self.term}: {self.leader} and {leader}"
            self.leader = leader
            if self.wants_debug:
                self.tell(LeaderFollowed(leader))

    def become_follower(self, now: float, term: int, *, reason: str = "saw a newer term") -> None:
        """Follow, in this term or a newer one."""
        self.role.leave()
        if self.is_leader:
            self.tell(LeaderSteppedDown(reason))
        self._enter(term)
        self.leader = None
        self.heard_leader_at = float("-inf")
        self.asker.give_up()
        self.role = Follower(self, now)

    def become_candidate(
        self, now: float, *, reason: str, is_pre_vote: bool, is_transfer: bool = False
    ) -> None:
        """Stand for election, or ask whether one would win."""
        self.leader = None
        self.asker.give_up()
        if not is_pre_vote:
            self._enter(self.term + 1)
            self.vote = self.id
            self.standing_term = self.term
        self.tell(PreVoteStarted(reason) if is_pre_vote else ElectionStarted(reason))
        role = Candidate(self, now, is_pre_vote=is_pre_vote, is_transfer=is_transfer)
        self.role = role
        role.ask()
        role.maybe_stand(now)

    def become_leader(self, now: float) -> None:
        """Lead this term, and open it with a no-op (paper §8)."""
        assert isinstance(self.role, Candidate)
        assert self.vote == self.id
        assert self.standing_term == self.term
        self.standing_term = None
        first = self.log.last_index + 1
        role = Leader(self, now, first)
        self.tell(LeaderElected(tuple(sorted(self.votes)), first))
        self.role = role
        self.leader = self.id
        self.append([make_entry(first, self.term, role.time_us(now), None)])

    # Terms and votes

    def _enter(self, term: int) -> None:
        assert term >= self.term
        if term > self.term:
            if self.wants_debug:
                self.tell(TermAdvanced(self.term))
            self.term, self.vote = term, None
            self.votes = set()

    def _enter_term_of(self, now: float, message: Message) -> bool:
        """Enter the newer term of a message, unless it must not move us; return whether to go on with it."""
        if isinstance(message, RequestPreVote):
            return True  # A pre-vote changes nothing.
        if isinstance(message, RequestVote) and not message.is_transfer and self.role.hears_leader(now):
            # Or else a node that was cut off for a while would depose a leader that works (thesis §4.2.3).
            self.role.tell_refused(message, "hears a leader")
            return False
        self.become_follower(now, message.term)
        return True

    def _answer_late(self, message: Message) -> None:
        """Tell our term to a leader or an asker that is behind: else a node whose term ran ahead, which takes no
        append and gets no pre-vote, would stay out for ever (scenarios E3, E10)."""  # noqa: D209
        if isinstance(message, AppendEntries | Heartbeat | RequestPreVote):
            self.send(HeartbeatReply(*self.header(message.source), 0))

    def _is_void(self, message: Message) -> bool:
        """Return whether a message comes from a disk that is gone; note it when a new one appears.

        A node's incarnations rise, so that a late message of its former self is known as such, whichever comes first.
        """
        known = self._incarnations.get(message.source)
        if known is not None and message.incarnation < known:
            return True
        self.note_incarnation(message.source, message.incarnation)
        return False

    def note_incarnation(self, peer: int, incarnation: int) -> None:
        """Note a peer's incarnation. With a higher one its disk was replaced: what it said before is void."""
        known = self._incarnations.get(peer)
        if peer == self.id or (known is not None and incarnation <= known):
            return
        self._incarnations[peer] = incarnation
        if known is not None:
            self.votes.discard(peer)  # It may vote again, having forgotten for whom it did.
            self.role.peer_was_replaced(peer)

    def incarnations(self) -> tuple[tuple[int, int], ...]:
        """Return (node, incarnation) of all nodes that are known."""
        return tuple(sorted(self._incarnations.items()))

    def incarnation_of(self, peer: int) -> int:
        """Return the incarnation of a peer that was heard."""
        return self._incarnations[peer]


def _crc(entries: Sequence[Entry]) -> int:
    return int(crc32c.crc32c(b"".join([entry.encoded for entry in entries])))
