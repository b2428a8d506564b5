"""What a leader and its followers say to one another (paper §5.3, §7): entries, heartbeats, snapshots, reads."""

from collections.abc import Callable, Collection
from operator import attrgetter
from typing import Any, Self

from trio_kv.raft.batches import Batches
from trio_kv.raft.entry import Entry, LogPosition
from trio_kv.raft.events import InstallStarted
from trio_kv.raft.install import Outgoing
from trio_kv.raft.messages import (
    AppendEntries,
    AppendRejected,
    Heartbeat,
    HeartbeatReply,
    InstallReply,
    InstallSnapshot,
    Message,
    ReadIndex,
    ReadIndexReply,
)
from trio_kv.raft.progress import Progress, Sending
from trio_kv.raft.reads import HeartbeatRounds, Question
from trio_kv.raft.ready import ChunkRead, ChunkWasRead
from trio_kv.raft.role import Role
from trio_kv.raft.spares import NEAR_HEARTBEATS, Spares
from trio_kv.raft.state import NodeState
from trio_kv.raft.voters import Ordered

_ACKED_ROUND: Callable[[Progress], int] = attrgetter("acked_round")

NEVER = 1 << 30
"""More messages than ever come."""
INSTALL_LEASE_HEARTBEATS = 20
"""A snapshot that is being sent, and the log behind it, are kept for so many heartbeats without progress."""
TIMED_ROUNDS_KEPT = 64
"""Of so many heartbeats it is remembered when they began: a reply that comes later is one of a node that was away."""
INSTALL_RETRY_HEARTBEATS = 10
"""A chunk without an answer is sent again after so many heartbeats: its receiver may have a slow disk."""


class Replicator(Role):
    """The half of a leader that knows its followers. It makes no entry, moves no commit index, and never steps down."""

    def __init__(self, raft: NodeState, now: float, first_index: int) -> None:
        """Know nothing of any follower but that it may lack what follows `first_index`, the no-op of this term."""
        super().__init__(raft)
        self.first_index = first_index
        self.progress = {peer: Progress(first_index, now, raft.config) for peer in raft.peers}
        self.spares = Spares(raft)
        self.rounds = HeartbeatRounds()
        self._addressed: set[int] = set()
        """Followers to whom this pass sends an append or an answer."""
        self.timed_rounds: dict[int, float] = {}
        """The last heartbeat rounds that went to all followers, and when each began: whoever sees a reply can tell how
        long it took."""
        self.tell_commit_at = float("inf")
        """When a commit index is told that has ridden on nothing until then."""

    def _reached(self, own: Ordered, of: Callable[[Progress], Ordered], nothing: Ordered) -> Ordered:
        """Return how far a majority of the voters is: this node, and each follower that counts."""
        values = {peer: of(progress) for peer, progress in self.progress.items() if progress.counts}
        values[self.raft.id] = own
        return self.raft.voters.reached(values, nothing)

    # What it waits for

    def acks_missing(self) -> int:
        """Return how many acknowledgements of the log, the own disk's among them, it takes at least to commit more."""
        raft = self.raft
        commit = raft.commit
        if commit == raft.log.last_index:
            return NEVER
        nodes = [
            peer for peer, progress in self.progress.items() if progress.match > commit and progress.counts
        ]
        if raft.log.durable > commit:
            nodes.append(raft.id)
        return max(1, raft.voters.missing(nodes))

    def replies_missing(self) -> int:
        """Return how many replies it takes at least to confirm a round for which questions wait."""
        if not self.rounds.pending:
            return NEVER
        first = self.rounds.pending[0][0]
        nodes = [
            peer
            for peer, progress in self.progress.items()
            if progress.acked_round >= first and progress.counts
        ]
        return max(1, self.raft.voters.missing([self.raft.id, *nodes]))

    def hasty_followers(self) -> frozenset[int]:
        """Return the followers to whom more can be sent as soon as they have answered."""
        last, spares = self.raft.log.last_index, self.spares.waiting
        return frozenset(
            [peer for peer, each in self.progress.items() if each.next <= last and peer not in spares]
        )

    def peer_said(self, message: Message) -> None:
        """Note what every message of a follower tells."""
        self.progress[message.source].said(counts=not message.is_rebuilding)

    def peer_was_replaced(self, peer: int) -> None:
        """Forget what a follower acknowledged: it came back with another disk."""
        self.progress[peer].reset(self.raft.log.last_index + 1)

    def is_answer_all(self, message: Message) -> bool:
        """See `Role`: so it is with a reply for which no question waits, of a follower that has all of the log."""
        raft, progress = self.raft, self.progress.get(message.source)
        return (
            isinstance(message, HeartbeatReply)
            and message.term == raft.term
            and not self.rounds.pending
            and progress is not None
            and progress.is_up_to_date(raft.log.last_index)
            and progress.counts
            and not message.is_rebuilding
            and message.incarnation == raft.incarnation_of(message.source)
        )

    # Sending

    def replicate(self, now: float) -> None:
        """Send entries, a round for new questions, and a commit index that has waited for one of them long enough."""
        log, config = self.raft.log, self.raft.config
        base, last = log.base_index, log.last_index
        gone_s = config.election_timeout_max_s
        batches = Batches(log, config)
        spares = self.spares.look(now, self.progress)
        for peer, progress in self.progress.items():
            if now - progress.heard_at >= gone_s:
                # A follower that is down must not keep the log, and a snapshot, from being dropped.
                progress.give_up_install()
            elif progress.install is not None:
                lease_s = INSTALL_LEASE_HEARTBEATS * config.heartbeat_interval_s
                progress.install.maybe_end_lease(now, last, lease_s)
            elif progress.next <= base:
                self.raft.emit(InstallStarted(peer, progress.next))
                self._read_chunk(peer, progress.become_install(now, last), 0)
            if peer not in spares:
                for entries, size_bytes in batches.of(progress):
                    self._send_append(now, peer, progress, entries, size_bytes)
        self.has_more = batches.has_more
        if self.rounds.is_due and self.raft.commit >= self.first_index:
            self._begin_round(now, is_timer=False)
        self._maybe_tell_commit(now)
        self._addressed.clear()

    def _send_append(
        self, now: float, peer: int, progress: Progress, entries: tuple[Entry, ...], size_bytes: int
    ) -> None:
        raft = self.raft
        prev_index = progress.next - 1
        prev_term = raft.log.term_at(prev_index)
        assert prev_term is not None
        last = prev_index + len(entries)
        progress.sent(last, size_bytes, now)
        if progress.is_replicating:
            progress.sent_commit(raft.commit)
        self._addressed.add(peer)
        raft.send(AppendEntries(*raft.header(peer), prev_index, prev_term, entries, raft.commit))

    def _maybe_tell_commit(self, now: float) -> None:
        """Tell a commit index that has ridden on no other message: no node is woken for it alone before that."""
        commit = self.raft.commit
        untold = [
            (peer, progress) for peer, progress in self.progress.items() if progress.lacks_commit(commit)
        ]
        if untold and self.tell_commit_at == float("inf"):
            self.tell_commit_at = now + self.raft.config.commit_delay_s
        if not untold or now >= self.tell_commit_at:
            self.tell_commit_at = float("inf")
            for peer, progress in untold:
                progress.sent_commit(commit)
                self._send_heartbeat(peer, 0, progress.next - 1, self.time_us(now))

    def _begin_round(self, now: float, *, is_timer: bool) -> None:
        raft = self.raft
        # While no entry of this term is committed, questions wait, but the heartbeat goes out (scenario R1).
        commit = raft.commit if raft.commit >= self.first_index else None
        round_number, time_us = self.rounds.begin(commit), self.time_us(now)
        if is_timer:
            self.timed_rounds[round_number] = now
            if len(self.timed_rounds) > TIMED_ROUNDS_KEPT:
                del self.timed_rounds[next(iter(self.timed_rounds))]
        for peer in self.progress if is_timer else self._enough_followers(now):
            progress = self.progress[peer]
            if is_timer or not progress.is_replicating:
                # The match is known to be on the follower's disk; what was sent since may be lost.
                self._send_heartbeat(peer, round_number, progress.match, time_us)
            else:
                progress.sent_commit(raft.commit)
                self._send_heartbeat(peer, round_number, progress.next - 1, time_us)
        if not self.progress:
            self._confirm_reads()

    def _enough_followers(self, now: float) -> Collection[int]:
        """Return followers who make a majority with this node, the most promising ones.

        These are, in this order, those whose logs are known to join ours, those nearby that live, those who are woken
        anyhow, and those heard last. Should one of them not answer, the next heartbeat begins a round that goes to all.
        """
        progress, near, addressed = self.progress, self.raft.near, self._addressed
        lives_since = now - NEAR_HEARTBEATS * self.raft.config.heartbeat_interval_s

        def promise(peer: int) -> tuple[bool, bool, bool, float]:
            each = progress[peer]
            is_near = peer in near and each.heard_at >= lives_since
            return each.is_replicating, is_near, peer in addressed, each.heard_at

        ranked = sorted(progress, key=promise, reverse=True)
        enough = [self.raft.id]
        for peer in ranked:
            if self.raft.voters.has_majority(enough):
                break
            if progress[peer].counts:
                enough.append(peer)
        return enough[1:]

    def _send_heartbeat(self, peer: int, round_number: int, prev_index: int, time_us: int) -> None:
        raft = self.raft
        prev_term = raft.log.term_at(prev_index)
        if prev_term is None:
            prev_index, prev_term = raft.log.base_index, raft.log.base_term
        rebuilding = tuple(
            [
                (node, raft.incarnation_of(node))
                for node, progress in self.progress.items()
                if not progress.counts
            ]
        )
        raft.send(
            Heartbeat(
                *raft.header(peer), round_number, prev_index, prev_term, raft.commit, rebuilding, time_us
            )
        )

    # Answers

    def on_append_rejected(self, now: float, message: AppendRejected) -> None:
        """Go back to where the logs may join, a whole term at a time (paper §5.3)."""
        progress = self.progress[message.source]
        progress.answered(now)
        next_index = message.hint_index
        if message.hint_term:
            ours = self.raft.log.last_index_of_term(message.hint_term)
            if ours is not None and ours < message.prev_index:
                next_index = ours + 1
        progress.rejected(message.prev_index, next_index)

    def on_heartbeat_reply(self, now: float, message: HeartbeatReply) -> None:
        """Count the reply to its round, and see whether an append got lost."""
        progress = self.progress[message.source]
        progress.heard(now)
        assert message.round <= self.rounds.last, f"{message} replies to a round that was not begun"
        # A reply of a node that is being rebuilt never counts: that node can't know whether it voted in a newer term.
        if not message.is_rebuilding and progress.acked(message.round) and self.rounds.pending:
            self._confirm_reads()
        is_silent = now >= progress.sent_at + self.raft.config.heartbeat_interval_s
        lacks_any = progress.match < self.raft.log.last_index and message.source not in self.spares.waiting
        if progress.install is not None:
            self._check_install(now, message.source, progress)
        elif is_silent and (lacks_any or progress.free_log_bytes is not None):
            self._check_position(now, message.source, progress)

    def _check_position(self, now: float, peer: int, progress: Progress) -> None:
        """Ask a follower that stayed silent whether the last append came; a probe is simply sent again.

        A follower whose disk is full is asked without entries, as it might not take them. Its answer tells how much
        free log space it has.
        """
        is_full = progress.free_log_bytes is not None
        is_probing = progress.sending is Sending.PROBE
        if is_probing and progress.next <= self.raft.log.last_index and not is_full:
            progress.probe_was_lost()
        elif progress.next > self.raft.log.base_index:
            # This also asks a follower in PROBE for which there is no entry: it has a new disk, and nothing is written.
            self._send_append(now, peer, progress, (), 0)

    # Snapshots for followers that are far behind

    def _check_install(self, now: float, peer: int, progress: Progress) -> None:
        """Send a chunk again if it stayed without an answer: it or the answer got lost."""
        install = progress.install
        assert install is not None
        if install.is_overdue(now, INSTALL_RETRY_HEARTBEATS * self.raft.config.heartbeat_interval_s):
            self._read_chunk(peer, install, install.number)

    def _read_chunk(self, peer: int, install: Outgoing, number: int) -> None:
        install.want(number)
        self.raft.effects.chunk_reads.append(ChunkRead(peer, number, install.snapshot))

    def on_chunk_read(self, now: float, read: ChunkRead, found: ChunkWasRead) -> None:
        """Send a chunk that was read. Without data that snapshot is gone, and the newest one is sent from its start."""
        progress = self.progress[read.peer]
        install = progress.install
        if install is None or not install.waits_for(read.snapshot, read.number):
            return
        if found.data is None:
            install.begin_anew()
            self._read_chunk(read.peer, install, 0)
            return
        install.sent(LogPosition(found.index, found.term), now)
        header = self.raft.header(read.peer)
        self.raft.send(
            InstallSnapshot(*header, found.index, found.term, read.number, found.data, found.is_last)
        )

    def on_install_reply(self, now: float, message: InstallReply) -> None:
        """Send the chunk that the follower wants next; it may also say that it still works on the last one."""
        progress = self.progress[message.source]
        progress.heard(now)
        install, snapshot = progress.install, LogPosition(message.index, message.index_term)
        if install is None or not install.is_in_flight(snapshot):
            return
        install.moved(now, self.raft.log.last_index)
        if message.next_number != install.number:
            self._read_chunk(message.source, install, message.next_number)
        else:
            install.arrived(now)

    def snapshots_sent(self) -> set[LogPosition]:
        """Return (index, term) of the snapshots that are kept for followers who get on with them."""
        installs = [progress.install for progress in self.progress.values()]
        return {
            install.snapshot
            for install in installs
            if install is not None and install.is_kept and install.snapshot is not None
        }

    @property
    def has_forsaken_install(self) -> bool:
        """Whether a follower made so little progress with a snapshot that its lease has ended."""
        return any(each.install is not None and not each.install.is_kept for each in self.progress.values())

    # Reads

    def ask_leader(self, now: float) -> None:  # noqa: ARG002 - as the other roles
        """Take the own questions: they need no message."""
        for context in self.raft.pending_reads.take():
            self.rounds.add(Question(None, 0, 0, context))

    def own_reads(self) -> list[Any]:
        """Return the contexts of the own reads that are not confirmed yet."""
        return self.rounds.own_contexts()

    def on_read_index(self, now: float, message: ReadIndex) -> None:
        """Take a follower's question; it is answered after a round that begins now or later.

        To ask it in this term is what a reply to a round would say, and was said after its reads came. Where the asker
        and this node are a majority, of three say, nobody else needs to be heard.
        """
        raft, progress = self.raft, self.progress[message.source]
        progress.heard(now)
        self.spares.hurry(now, message.source)
        question = Question(message.source, message.nonce, message.counter)
        is_majority = progress.counts and raft.voters.has_majority((raft.id, message.source))
        if is_majority and raft.commit >= self.first_index:
            self._answer(question, raft.commit)
        else:
            self.rounds.add(question)

    def _confirm_reads(self) -> None:
        acked = self._reached(self.rounds.last, _ACKED_ROUND, 0)
        for index, questions in self.rounds.confirmed(acked):
            for question in questions:
                self._answer(question, index)

    def _answer(self, question: Question, index: int) -> None:
        """Answer a question: its reads may be served as soon as `index` is applied."""
        raft, source = self.raft, question.source
        if source is None:
            raft.confirm_reads([question.context], index)
            return
        self._addressed.add(source)
        index_term = raft.log.term_at(index) or 0
        if index_term and self.progress[source].is_replicating:
            self.progress[source].sent_commit(index)
        # With this answer a node that is rebuilt votes again. It must know then all that its former self knew, and this
        # leader, who confirmed that, must not forget of whom it was (decision 0048).
        is_rebuilt = not self.progress[source].counts
        known = raft.incarnations() if is_rebuilt else ()
        reply = ReadIndexReply(
            *raft.header(source), question.nonce, question.counter, index, index_term, known
        )
        raft.send(reply, waits_for_disk=is_rebuilt and not raft.are_incarnations_durable)

    def leave(self) -> None:
        """Keep the own reads for the next leader. Followers ask again by themselves."""
        self.raft.pending_reads.put_back(self.own_reads())

    def copy(self, raft: NodeState) -> Self:
        """Return an equal one for a copy of the node."""
        twin = super().copy(raft)
        twin.progress = {peer: progress.copy() for peer, progress in self.progress.items()}
        twin.spares = self.spares.copy(raft)
        twin.rounds, twin.timed_rounds = self.rounds.copy(), self.timed_rounds.copy()
        twin._addressed = self._addressed.copy()  # noqa: SLF001 - a twin of this class
        return twin
