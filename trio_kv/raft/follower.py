"""The follower: takes the leader's log as its own (paper §5.2, §5.3)."""

from trio_kv.raft.entry import LogPosition
from trio_kv.raft.events import AppendRefused, LeaderLost
from trio_kv.raft.install import Incoming
from trio_kv.raft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    Heartbeat,
    HeartbeatReply,
    InstallReply,
    InstallSnapshot,
    Message,
    TimeoutNow,
)
from trio_kv.raft.ready import Chunk
from trio_kv.raft.role import Role, Stand, Transition
from trio_kv.raft.state import NodeState


class Follower(Role):
    """Answers leaders and candidates, and stands for election when it hears of neither for too long."""

    name = "follower"

    def __init__(self, raft: NodeState, now: float) -> None:
        """Wait for one election time-out from now."""
        super().__init__(raft)
        self.was_late = False
        self.restart_timer(now)

    def restart_timer(self, now: float) -> None:
        """Wait for another election time-out, drawn anew so that ties don't repeat (paper §5.2)."""
        config = self.raft.config
        spread_s = config.election_timeout_max_s - config.election_timeout_min_s
        self.deadline = now + config.election_timeout_min_s + self.raft.random.random() * spread_s
        self.was_late = False

    def on_timeout(self, now: float) -> Transition | None:
        """Stand for election, unless it was this process that slept and not the leader."""
        lateness_s = now - self.deadline
        if lateness_s > self.raft.config.heartbeat_interval_s / 2 and not self.was_late:
            # A stalled process must not look like a dead leader. Once only: a loop that is always late must elect too.
            self.was_late = True
            self.deadline = now + min(lateness_s, self.raft.config.election_timeout_min_s)
            return None
        if self.raft.leader is not None:
            self.raft.emit(LeaderLost(self.raft.leader))
            self.raft.leader = None
        if self.raft.is_rebuilding:
            # Its disk lacks entries that it once acknowledged. A leader without them could lose them for all.
            self.raft.pending_reads.give_up()
            self.restart_timer(now)
            return None
        return Stand("heard no leader", is_pre_vote=True)

    def is_answer_all(self, message: Message) -> bool:
        """See `Role`: so it is with a heartbeat that brings no news."""
        raft = self.raft
        return (
            isinstance(message, Heartbeat)
            and message.source == raft.leader
            and message.term == raft.term == raft.persistence.durable_term
            and message.commit <= raft.commit
            and raft.fresh_index is not None
            and not message.rebuilding
            and not raft.is_rebuilding
            and raft.are_incarnations_durable
        )

    def on_append_entries(self, now: float, message: AppendEntries) -> None:
        """Join the leader's entries to the log, or say where they don't join."""
        raft, log = self.raft, self.raft.log
        raft.heard_from_leader(now, message.source)
        raft.note_leader_commit(message.commit)
        # A rejected append counts as hearing from the leader too: a follower far behind must not
        # stand for election while the leader looks for the place where the logs join (scenario E6).
        self.restart_timer(now)
        entries, prev_index, prev_term = message.entries, message.prev_index, message.prev_term
        if prev_index < log.base_index:
            # What our snapshot covers is committed, hence equal.
            entries = entries[log.base_index - prev_index :]
            prev_index, prev_term = log.base_index, log.base_term
            if message.prev_index + len(message.entries) < log.base_index:
                # Told, for the leader may not know of that snapshot: its word of it was lost, say.
                self.accept(message.source, log.base_index)
                return
        if not log.has(prev_index, prev_term):
            self._reject(message)
            return
        if raft.incoming is not None and not raft.incoming.is_complete:
            raft.incoming = None  # The log goes on without a snapshot.
        entries = raft.persistence.fitting(entries)
        verified = prev_index + len(entries)
        if prev_index != log.last_index:
            entries = self._skip_known(entries)
        if entries:
            raft.append(entries)
        # Not min(commit, last index): what stands behind the verified part may conflict (scenario L6).
        raft.commit_to(min(message.commit, verified))
        self.accept(message.source, verified)

    def accept(self, leader: int, match: int) -> None:
        """Tell the leader that the logs are equal up to `match`, once that is durable."""
        raft = self.raft
        raft.send(
            AppendAccepted(*raft.header(leader), match, raft.persistence.free_log_bytes_left),
            waits_for_disk=True,
        )

    def on_install_snapshot(self, now: float, message: InstallSnapshot) -> None:
        """Take the next chunk of the leader's snapshot, or say which chunk is wanted (paper §7)."""
        raft = self.raft
        raft.heard_from_leader(now, message.source)
        self.restart_timer(now)
        if message.index <= raft.commit:
            # All of it is here already, and committed, hence equal.
            self.accept(message.source, message.index)
            return
        incoming = raft.incoming
        if incoming is not None and incoming.is_complete:
            return
        if incoming is not None and incoming.is_storing:
            # The last chunk is still being written. No other is taken, not even of another snapshot: they would pile up
            # where the disk hangs.
            return
        if incoming is None or incoming.snapshot != LogPosition(message.index, message.index_term):
            incoming = raft.incoming = Incoming(LogPosition(message.index, message.index_term))
        if message.number == incoming.next_number:
            incoming.is_storing, incoming.is_complete = True, message.is_last
            raft.effects.chunks.append(
                Chunk(message.index, message.index_term, message.number, message.data, message.is_last)
            )
        else:
            # A chunk was lost or came twice, or a new leader doesn't know how far the last one came.
            self.ask_chunk(message.source)

    def on_chunk_stored(self) -> None:
        """Ask for the next one, or say that this one is being worked on."""
        if self.raft.leader is not None:
            self.ask_chunk(self.raft.leader)

    def on_installed(self) -> None:
        """Tell the leader how far this log is now."""
        if self.raft.leader is not None:
            self.accept(self.raft.leader, self.raft.commit)

    def ask_chunk(self, leader: int) -> None:
        """Say which chunk is wanted next."""
        incoming = self.raft.incoming
        assert incoming is not None
        self.raft.send(InstallReply(*self.raft.header(leader), *incoming.snapshot, incoming.next_number))

    def _skip_known(self, entries: tuple) -> tuple:  # type: ignore[type-arg]
        """Return the entries that the log lacks; truncate it where it conflicts with them, and only there.

        An old append that comes late finds its entries in place, and must not undo the newer ones (scenario L5).
        """
        for position, entry in enumerate(entries):
            term = self.raft.log.term_at(entry.index)
            if term is None:
                return entries[position:]
            if term != entry.term:
                self.raft.truncate(entry.index)
                return entries[position:]
        return ()

    def _reject(self, message: AppendEntries) -> None:
        raft, log = self.raft, self.raft.log
        hint_term = log.term_at(message.prev_index) or 0
        hint_index = log.first_index_of_term_at(message.prev_index) if hint_term else log.last_index + 1
        if raft.wants_debug:
            raft.emit(AppendRefused(message.prev_index, hint_term, hint_index))
        reply = AppendRejected(*raft.header(message.source), message.prev_index, hint_term, hint_index)
        raft.send(reply, waits_for_disk=True)

    def on_heartbeat(self, now: float, message: Heartbeat) -> None:
        """Take note of the leader and, as far as it is verified, of its commit index."""
        raft = self.raft
        raft.heard_from_leader(now, message.source)
        raft.note_leader_commit(message.commit)
        self.note_incarnations(message.rebuilding)
        raft.hear_time((message.term, message.time_us))
        self.restart_timer(now)
        if raft.log.has(message.prev_index, message.prev_term):
            raft.commit_to(min(message.commit, message.prev_index))
        if message.round:
            header = raft.header(message.source)
            is_news = not raft.are_incarnations_durable
            if is_news:
                raft.send(HeartbeatReply(*header, 0))  # It follows, however slow its disk is.
            # Whoever answers a round that names a node tells with its votes which of that node's are void. A restart
            # must not make it forget that: the next candidate might count them (decision 0048).
            raft.send(HeartbeatReply(*header, message.round), waits_for_disk=is_news)

    def on_timeout_now(self, message: TimeoutNow) -> Transition | None:
        """Stand for election at once, without asking whether one would win: the leader wants it (thesis §3.10)."""
        if message.source == self.raft.leader and not self.raft.is_rebuilding:
            return Stand("leadership transfer", is_pre_vote=False, is_transfer=True)
        return None
