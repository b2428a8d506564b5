"""The leader: appends, replicates, commits, confirms reads (paper §5.3, §5.4, §8)."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from trio_kv.raft.entry import HEADER, Command, Entry, make_entry
from trio_kv.raft.errors import NotLeader, ReadOnly
from trio_kv.raft.events import InstallStarted, TransferEnded, TransferStarted
from trio_kv.raft.install import Outgoing
from trio_kv.raft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    Heartbeat,
    HeartbeatReply,
    InstallReply,
    InstallSnapshot,
    Message,
    ReadIndex,
    ReadIndexReply,
    TimeoutNow,
)
from trio_kv.raft.progress import Progress, Sending
from trio_kv.raft.reads import HeartbeatRounds, Question
from trio_kv.raft.ready import ChunkRead
from trio_kv.raft.role import Follow, Role, Transition
from trio_kv.raft.room import WRITE_BYTES_EXTRA, fitting
from trio_kv.raft.state import NodeState
from trio_kv.raft.voters import Ordered

_MATCH: Callable[[Progress], int] = attrgetter("match")
_ACKED_ROUND: Callable[[Progress], int] = attrgetter("acked_round")
_HEARD_AT: Callable[[Progress], float] = attrgetter("heard_at")

INSTALL_LEASE_HEARTBEATS = 20
"""A snapshot that is being sent, and the log behind it, are kept for so many heartbeats without progress."""
INSTALL_RETRY_HEARTBEATS = 10
"""A chunk without an answer is sent again after so many heartbeats: its receiver may have a slow disk."""


class Leader(Role):
    """Leads one term.

    Invariants: it only ever appends to its own log (Leader Append-Only, paper figure 3); it commits only by an entry
    of its own term (paper §5.4.2, scenario L1); it answers no read before it has committed one.
    """

    name = "leader"

    def __init__(self, raft: NodeState, now: float, first_index: int) -> None:
        """Lead from now on. `first_index` is that of the no-op that opens the term."""
        super().__init__(raft)
        self.first_index = first_index
        self.elected_at = now
        self.time_base_us = raft.log.last_time_us
        window = raft.config.append_window
        self.progress = {peer: Progress(first_index, now, window) for peer in raft.peers}
        self.rounds = HeartbeatRounds()
        self.transfer_target: int | None = None
        self.transfer_deadline = float("inf")
        self.is_transfer_sent = False
        self.was_transfer_sent = False
        self.stall_told_at = float("-inf")
        """When another was asked to take over because the own disk stands still."""
        self.refused_since: float | None = None
        """Since when commands are refused for want of room on the disks."""
        self.heartbeat_at = now
        self.deadline = now

    def time_us(self, now: float) -> int:
        """Return cluster time: the log's last time at election, and what this node's clock measured since."""
        return self.time_base_us + max(0, int((now - self.elected_at) * 1_000_000))

    def when(self, time_us: int) -> float:
        """Return when, on this node's clock, cluster time will be `time_us`, if this node leads until then."""
        # A microsecond more: `time_us` cuts fractions off, and what is due must be due then, else it is tried for ever.
        return self.elected_at + (time_us - self.time_base_us + 1) / 1_000_000

    # Timers

    def on_timeout(self, now: float) -> Transition | None:
        """Send heartbeats; step down if a majority is silent, hand over if the disk stands still; end a transfer."""
        raft, config = self.raft, self.raft.config
        if now >= self.transfer_deadline:
            self._end_transfer("not caught up in time")
        if now >= self.heartbeat_at:
            lateness_s = now - self.heartbeat_at
            if lateness_s > config.heartbeat_interval_s / 2:
                # This process slept; what the followers sent meanwhile could not be heard.
                for progress in self.progress.values():
                    progress.was_unheard(lateness_s, now)
            if now - self._quorum_heard_at(now) >= config.election_timeout_max_s:
                return Follow(raft.term, "no majority answers")
            self.heartbeat_at = now + config.heartbeat_interval_s
            # The request to take over may have been lost; it is asked again as long as the transfer lasts.
            self.is_transfer_sent = False
            self._maybe_finish_transfer(now)
            self._begin_round(is_timer=True)
            self._maybe_hand_over_stalled(now)
        self._set_deadline()
        return None

    def _set_deadline(self) -> None:
        self.deadline = min(self.heartbeat_at, self.transfer_deadline)

    def _reached(self, own: Ordered, of: Callable[[Progress], Ordered], nothing: Ordered) -> Ordered:
        """Return how far a majority of the voters is: this node, and each follower that counts."""
        values = {peer: of(progress) for peer, progress in self.progress.items() if progress.counts}
        values[self.raft.id] = own
        return self.raft.voters.reached(values, nothing)

    def _quorum_heard_at(self, now: float) -> float:
        return self._reached(now, _HEARD_AT, float("-inf"))

    def hears_leader(self, now: float) -> bool:
        """Return whether a majority answered this leader so lately that a vote would only disturb."""
        return now < self._quorum_heard_at(now) + self.raft.config.election_timeout_min_s

    def _maybe_hand_over_stalled(self, now: float) -> None:
        """Hand over what a disk that stands still keeps from being committed (scenario E1), if somebody can take it.

        Heartbeats flow although nothing gets durable, so nobody else would ever notice. But a leader needs no disk to
        confirm reads, and a vote does. So another is asked only as long as a majority *without this node* could elect
        it, and this node leads on until it hears of the new term. Were it wrong about a disk, it loses the one that it
        asked, and still has a majority with itself: a mistake ends no read.
        """
        raft, config = self.raft, self.raft.config
        oldest_at = raft.persistence.oldest_write_at
        if oldest_at is None or now - oldest_at < config.write_stall_s or self.transfer_target is not None:
            return
        if now - self.stall_told_at < config.write_stall_s:
            return
        progress, durable, silence_s = self.progress, raft.log.durable, config.election_timeout_max_s
        able = [
            peer
            for peer, each in progress.items()
            if each.could_elect(now, durable, silence_s, config.write_stall_s / 2)
        ]
        if raft.voters.has_majority(able):
            self.stall_told_at = now
            target = max(able, key=lambda peer: (progress[peer].match, progress[peer].heard_at, -peer))
            self.transfer(now, target, reason="the disk stands still")

    # Writing

    def propose(self, now: float, commands: Sequence[Command]) -> tuple[int, int] | NotLeader | ReadOnly:
        """Append commands to the log, all at one cluster time."""
        if (refusal := self.refuses(now, commands)) is not None:
            return refusal
        log, term, time_us = self.raft.log, self.raft.term, self.time_us(now)
        first = log.last_index + 1
        self.raft.append(
            [make_entry(first + offset, term, time_us, command) for offset, command in enumerate(commands)]
        )
        return term, first

    def refuses(self, now: float, commands: Sequence[Command]) -> NotLeader | ReadOnly | None:
        """Return why these commands are not taken now, or None."""
        if self.transfer_target is not None:
            return NotLeader(self.transfer_target)
        if self.raft.persistence.room_bytes is None and all(
            each.room_bytes is None for each in self.progress.values()
        ):
            self.refused_since = None
            return None
        # Only a full disk wants to know what they take; to encode them twice is cheap then, for most are refused.
        return self._refuses_full(now, sum(HEADER.size + len(command.encode()) for command in commands))

    def _refuses_full(self, now: float, size_bytes: int) -> NotLeader | ReadOnly | None:
        """Take a command only if a majority has zero-filled log space for it and for all that is under way.

        What is admitted never meets a full disk at its write: space is reserved before it is promised. A leader that is
        short alone hands over. A majority must have all of the log by then: a follower whose writes wait for room tells
        of none, and could not even write its vote.

        "The disks are full" is a verdict over a majority. It is not passed over followers that may only be busy, or
        have not answered in this term yet: for one election time-out the command is to be asked again. Then who is
        silent counts as full.
        """
        raft = self.raft
        able = {peer for peer, each in self.progress.items() if each.can_store(raft.log, size_bytes)}
        full = {peer for peer, each in self.progress.items() if each.room_bytes is not None} - able
        if raft.persistence.has_room(size_bytes):
            able.add(raft.id)
        else:
            full.add(raft.id)
            targets = {peer for peer in able if self.progress[peer].match == raft.log.last_index}
            if raft.voters.has_majority(targets):
                target = min(targets)
                self.transfer(now, target, reason="the disk is full")
                return NotLeader(target)
        if raft.id in able and raft.voters.has_majority(able):
            self.refused_since = None
            return None
        if self.refused_since is None:
            self.refused_since = now
        is_new = now - self.refused_since < raft.config.election_timeout_max_s
        if is_new and raft.voters.has_majority({raft.id, *self.progress} - full):
            return NotLeader(None)
        return ReadOnly()

    def on_stored(self, now: float) -> Transition | None:  # noqa: ARG002 - as the other roles
        """Count the own disk towards the majority (thesis §10.2.1: it writes beside its followers)."""
        self._maybe_commit()
        return None

    def on_append_accepted(self, now: float, message: AppendAccepted) -> None:
        """Count a follower's disk towards the majority."""
        progress = self.progress[message.source]
        progress.answered(now)
        assert message.match <= self.raft.log.last_index, f"{message} is ahead of the leader's log"
        if progress.accepted(message.match, message.room_bytes):
            self._maybe_commit()
            self._maybe_finish_transfer(now)

    def _maybe_commit(self) -> None:
        log = self.raft.log
        index = self._reached(log.durable, _MATCH, 0)
        # Only an entry of the own term proves, by a majority that holds it, that what lies before it can't be
        # overwritten any more (paper figure 8). Entries of older terms are committed along with it.
        if index > self.raft.commit and index >= self.first_index:
            self.raft.commit_to(index)
            self.raft.note_leader_commit(index)

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
        # Not even later: a node that is being rebuilt can't know whether it voted in a newer term.
        if not message.is_rebuilding and progress.acked(message.round) and self.rounds.pending:
            self._confirm_reads()
        silent_since = progress.sent_at + self.raft.config.heartbeat_interval_s
        if progress.install is not None:
            self._check_install(now, message.source, progress)
        elif (
            progress.match < self.raft.log.last_index or progress.room_bytes is not None
        ) and now >= silent_since:
            self._check_position(now, message.source, progress)

    def _check_position(self, now: float, peer: int, progress: Progress) -> None:
        """Ask a follower that stayed silent whether the last append came; a probe is simply sent again.

        One whose disk is full is asked without entries, which it might not take: it tells its room with the answer.
        """
        is_full = progress.room_bytes is not None
        is_probing = progress.sending is Sending.PROBE
        if is_probing and progress.next <= self.raft.log.last_index and not is_full:
            progress.probe_was_lost()
        elif progress.next > self.raft.log.base_index:
            # With a probe, too, that has nothing to send: a follower with a new disk, while nothing is written.
            self._send_append(now, peer, progress, ())

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

    def on_chunk_read(
        self,
        now: float,
        read: ChunkRead,
        snapshot: tuple[int, int] | None,
        data: bytes | None,
        *,
        is_last: bool,
    ) -> None:
        """Send a chunk that was read; with no data that snapshot is gone, and the newest one is sent from its start."""
        progress = self.progress[read.peer]
        install = progress.install
        if install is None or not install.waits_for(read.snapshot, read.number):
            return
        if data is None or snapshot is None:
            install.begin_anew()
            self._read_chunk(read.peer, install, 0)
            return
        install.sent(snapshot, now)
        header = self.raft.header(read.peer)
        self.raft.send(InstallSnapshot(*header, *snapshot, read.number, data, is_last))

    def on_install_reply(self, now: float, message: InstallReply) -> None:
        """Send the chunk that the follower wants next; it may also say that it still works on the last one."""
        progress = self.progress[message.source]
        progress.heard(now)
        install, snapshot = progress.install, (message.index, message.index_term)
        if install is None or not install.is_in_flight(snapshot):
            return
        install.moved(now, self.raft.log.last_index)
        if message.next_number != install.number:
            self._read_chunk(message.source, install, message.next_number)
        else:
            install.arrived(now)

    def snapshots_sent(self) -> set[tuple[int, int]]:
        """Return (index, term) of the snapshots that are kept for followers who get on with them."""
        installs = [progress.install for progress in self.progress.values()]
        return {
            install.snapshot
            for install in installs
            if install is not None and install.is_kept and install.snapshot is not None
        }

    @property
    def has_forsaken_install(self) -> bool:
        """Whether a follower gets on so badly with a snapshot that nothing is kept for it any more."""
        return any(each.install is not None and not each.install.is_kept for each in self.progress.values())

    # Sending

    def replicate(self, now: float) -> None:
        """Send entries, a commit index that nobody told yet, and a round for new questions."""
        log, config = self.raft.log, self.raft.config
        base, last, commit = log.base_index, log.last_index, self.raft.commit
        gone_s = config.election_timeout_max_s
        runs: dict[int, tuple[Entry, ...]] = {}
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
            while base < progress.next <= last and progress.is_window_open():
                entries = runs.get(progress.next)
                if entries is None:
                    entries = log.batch(progress.next, config.append_entries_max, config.append_bytes_max)
                    runs[progress.next] = entries
                if progress.room_bytes is not None:
                    # A full disk takes one append at a time, as far as there is room. More would only be rejected, as
                    # fast as it can be sent again.
                    left = progress.room_bytes - WRITE_BYTES_EXTRA
                    entries = () if progress.in_flight else fitting(entries, left)
                    if not entries:
                        break
                self._send_append(now, peer, progress, entries)
            if progress.commit_sent < commit and progress.is_replicating:
                self._send_commit(peer, progress)
        if self.rounds.new and self.raft.commit >= self.first_index:
            self._begin_round(is_timer=False)

    def _send_append(self, now: float, peer: int, progress: Progress, entries: tuple[Entry, ...]) -> None:
        raft = self.raft
        prev_index = progress.next - 1
        prev_term = raft.log.term_at(prev_index)
        assert prev_term is not None
        last = prev_index + len(entries)
        progress.sent(last, now)
        if progress.is_replicating:
            progress.sent_commit(min(raft.commit, last))
        raft.send(AppendEntries(*raft.header(peer), prev_index, prev_term, entries, raft.commit))

    def _send_commit(self, peer: int, progress: Progress) -> None:
        """Send a new commit index at once: the follower's readers wait for it."""
        raft = self.raft
        prev_index = progress.next - 1
        commit = min(raft.commit, prev_index)
        if commit > progress.commit_sent:
            progress.sent_commit(commit)
            self._send_heartbeat(peer, 0, prev_index)

    def _begin_round(self, *, is_timer: bool) -> None:
        raft = self.raft
        # While no entry of this term is committed, questions wait, but the heartbeat goes out (scenario R1).
        commit = raft.commit if raft.commit >= self.first_index else None
        round_number = self.rounds.begin(commit)
        for peer, progress in self.progress.items():
            if is_timer or not progress.is_replicating:
                # The match is known to be on the follower's disk; what was sent since may be lost.
                self._send_heartbeat(peer, round_number, progress.match)
            else:
                progress.sent_commit(min(raft.commit, progress.next - 1))
                self._send_heartbeat(peer, round_number, progress.next - 1)
        if not self.progress:
            self._confirm_reads()

    def _send_heartbeat(self, peer: int, round_number: int, prev_index: int) -> None:
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
        raft.send(Heartbeat(*raft.header(peer), round_number, prev_index, prev_term, raft.commit, rebuilding))

    # Reads

    def ask_leader(self, now: float) -> None:  # noqa: ARG002 - as the other roles
        """Take the own questions: they need no message."""
        for context in self.raft.pending_reads.take():
            self.rounds.add(Question(None, 0, 0, context))

    def own_reads(self) -> list[Any]:
        """Return the contexts of the own reads that are not confirmed yet."""
        return self.rounds.own_contexts()

    def on_read_index(self, now: float, message: ReadIndex) -> None:
        """Take a follower's question; it is answered after a round that begins now or later."""
        self.progress[message.source].heard(now)
        self.rounds.add(Question(message.source, message.nonce, message.counter))

    def _confirm_reads(self) -> None:
        raft = self.raft
        acked = self._reached(self.rounds.last, _ACKED_ROUND, 0)
        for index, questions in self.rounds.confirmed(acked):
            for question in questions:
                if question.source is None:
                    raft.confirm_reads([question.context], index)
                else:
                    reply = ReadIndexReply(
                        *raft.header(question.source), question.nonce, question.counter, index
                    )
                    raft.send(reply)

    def leave(self) -> None:
        """Hand the own reads on: they are asked of the next leader. Others ask again by themselves."""
        self.raft.pending_reads.put_back(self.own_reads())

    # Handing over

    def transfer(self, now: float, target: int, *, reason: str = "it was asked for") -> None:
        """Hand over to `target` once its log is complete; commands are refused meanwhile (thesis §3.10)."""
        if self.transfer_target is not None:
            raise ValueError(f"a transfer to node {self.transfer_target} is under way")
        self.transfer_target = target
        self.transfer_deadline = now + self.raft.config.election_timeout_max_s
        self.is_transfer_sent = self.was_transfer_sent = False
        self.raft.emit(TransferStarted(target, reason))
        self._set_deadline()
        self._maybe_finish_transfer(now)

    def peer_said(self, message: Message) -> None:
        """Note what every message of a follower tells."""
        self.progress[message.source].said(counts=not message.is_rebuilding)

    def _maybe_finish_transfer(self, now: float) -> None:
        target = self.transfer_target
        if target is None or self.is_transfer_sent:
            return
        if self.progress[target].match == self.raft.log.last_index:
            self.is_transfer_sent = True
            if not self.was_transfer_sent:
                # The target may depose us from now on: taking commands again too soon would only make it lose.
                self.was_transfer_sent = True
                self.transfer_deadline = now + self.raft.config.election_timeout_min_s
                self._set_deadline()
            self.raft.send(TimeoutNow(*self.raft.header(target)))

    def _end_transfer(self, reason: str) -> None:
        assert self.transfer_target is not None
        self.raft.emit(TransferEnded(self.transfer_target, reason))
        self.transfer_target = None
        self.transfer_deadline = float("inf")

    def peer_was_replaced(self, peer: int) -> None:
        """Forget what a follower acknowledged: it came back with another disk."""
        self.progress[peer].reset(self.raft.log.last_index + 1)

    def copy(self, raft: NodeState) -> "Leader":
        """Return an equal leader for a copy of the node."""
        twin = super().copy(raft)
        assert isinstance(twin, Leader)
        twin.progress = {peer: progress.copy() for peer, progress in self.progress.items()}
        twin.rounds = self.rounds.copy()
        return twin
