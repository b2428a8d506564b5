"""The leader: appends, commits, steps down and hands over (paper §5.3, §5.4, §8; thesis §3.10)."""

from collections.abc import Callable, Collection, Sequence
from operator import attrgetter

from trio_kv.raft.entry import HEADER, Command, LogPosition, make_entry
from trio_kv.raft.errors import NotLeader, ReadOnly
from trio_kv.raft.events import TransferEnded, TransferStarted
from trio_kv.raft.messages import AppendAccepted, TimeoutNow
from trio_kv.raft.progress import Progress
from trio_kv.raft.replicator import Replicator
from trio_kv.raft.role import Follow, Transition
from trio_kv.raft.state import NodeState

SUCCESSOR_BEHIND_MAX = 1024
"""Entries that a follower may lack to whom is handed over without need: no command is taken until it has them."""

_MATCH: Callable[[Progress], int] = attrgetter("match")
_HEARD_AT: Callable[[Progress], float] = attrgetter("heard_at")


class Leader(Replicator):
    """Leads one term. What it sends to its followers stands in `Replicator`.

    Invariants: it only ever appends to its own log (Leader Append-Only, paper figure 3); it commits only by an entry
    of its own term (paper §5.4.2, scenario L1); it answers no read before it has committed one.
    """

    name = "leader"

    def __init__(self, raft: NodeState, now: float, first_index: int, *, is_successor: bool) -> None:
        """Lead from now on. `first_index` is that of the no-op that opens the term."""
        super().__init__(raft, now, first_index)
        self.is_successor = is_successor
        """Whether the leader before handed over to this node."""
        self.time_base_us = raft.known_time_us
        """Cluster time at `timed_from`."""
        self.timed_from = now
        self.transfer_target: int | None = None
        self.transfer_deadline = float("inf")
        self.is_transfer_sent = False
        self.was_transfer_sent = False
        self.stall_told_at = float("-inf")
        """When another was asked to take over because the own disk stands still."""
        self.refused_since: float | None = None
        """Since when commands are refused for want of space on the disks."""
        self.heartbeat_at = now
        self.deadline = now

    def time_us(self, now: float) -> int:
        """Return cluster time: what was known of it at election, and what this node's clock measured since.

        A stretch without a heartbeat counts for one election time-out at most. A node whose clock leaps was suspended,
        and did not lead meanwhile: without a leader cluster time stands still (scenario C6).
        """
        counted_s = min(now, self._led_until) - self.timed_from
        return self.time_base_us + max(0, int(counted_s * 1_000_000))

    @property
    def _led_until(self) -> float:
        """Until when this node can have led, unless it sends heartbeats."""
        return self.heartbeat_at + self.raft.config.election_timeout_max_s

    def when(self, time_us: int) -> float:
        """Return when, on this node's clock, cluster time will be `time_us`, if this node leads until then."""
        # One microsecond is added because `time_us` cuts fractions off. Without it something would not be due yet at
        # the time that was set for it, and would be tried for ever.
        return self.timed_from + (time_us - self.time_base_us + 1) / 1_000_000

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
                if now > self._led_until:
                    self.time_base_us, self.timed_from = self.time_us(now), now
            if now - self._quorum_heard_at(now) >= config.election_timeout_max_s:
                return Follow(raft.term, "no majority answers")
            self.heartbeat_at = now + config.heartbeat_interval_s
            # The request to take over may have been lost; it is asked again as long as the transfer lasts.
            self.is_transfer_sent = False
            self._maybe_finish_transfer(now)
            self._begin_round(now, is_timer=True)
            self._maybe_hand_over_stalled(now)
        self._set_deadline()
        return None

    def _set_deadline(self) -> None:
        self.deadline = min(
            self.heartbeat_at, self.transfer_deadline, self.tell_commit_at, self.spares.due_at
        )

    def replicate(self, now: float) -> None:
        """See `Replicator`; a commit index may be due to be told from now on, or not any more."""
        super().replicate(now)
        self._set_deadline()

    def _quorum_heard_at(self, now: float) -> float:
        return self._reached(now, _HEARD_AT, float("-inf"))

    def hears_leader(self, now: float) -> bool:
        """Return whether a majority answered this leader so lately that a vote would only disturb."""
        return now < self._quorum_heard_at(now) + self.raft.config.election_timeout_min_s

    def _maybe_hand_over_stalled(self, now: float) -> None:
        """Hand over if the own disk stands still, and somebody else could commit (scenario E1).

        Such a leader commits nothing, but it sends heartbeats, so no follower stands for election. It can still confirm
        reads, for which it needs no disk; a vote needs one. So it asks another node to take over only if a majority
        *without itself* could elect that one, and leads on until it hears of the new term. If it is wrong about a disk,
        it loses the node that it asked, and still has a majority with itself: the mistake ends no read.
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
            self.transfer(now, self._most_complete(able), reason="the disk stands still")

    # Writing

    def propose(self, now: float, commands: Sequence[Command]) -> LogPosition | NotLeader | ReadOnly:
        """Append commands to the log, all at one cluster time."""
        if (refusal := self.refuses(now, commands)) is not None:
            return refusal
        log, term, time_us = self.raft.log, self.raft.term, self.time_us(now)
        first = log.last_index + 1
        self.raft.append(
            [make_entry(first + offset, term, time_us, command) for offset, command in enumerate(commands)]
        )
        return LogPosition(first, term)

    def refuses(self, now: float, commands: Sequence[Command]) -> NotLeader | ReadOnly | None:
        """Return why these commands are not taken now, or None."""
        if self.transfer_target is not None:
            return NotLeader(self.transfer_target)
        if self.raft.persistence.free_log_bytes is None and all(
            each.free_log_bytes is None for each in self.progress.values()
        ):
            self.refused_since = None
            return None
        # Their size matters only while a disk is full. To encode them twice is cheap then, as most are refused.
        return self._refuses_full(now, sum(HEADER.size + len(command.encode()) for command in commands))

    def _refuses_full(self, now: float, size_bytes: int) -> NotLeader | ReadOnly | None:
        """Return why commands of this size are refused while a disk is full, or None.

        They are taken only if a majority has zero-filled log space for them and for all that is under way. So nothing
        that was taken meets a full disk when it is written.

        A leader whose own disk is too full hands over, but only if a majority already has all of its log. A follower
        that lacks some of it may be waiting for space itself, and then could not even store its vote.

        `ReadOnly` says that a majority is full. A follower that has not answered in this term may only be busy, so for
        one election time-out the answer is `NotLeader`, and the client asks again. After that, silence counts as full.
        """
        raft = self.raft
        able = {peer for peer, each in self.progress.items() if each.can_store(raft.log, size_bytes)}
        full = {peer for peer, each in self.progress.items() if each.free_log_bytes is not None} - able
        if raft.persistence.has_log_space(size_bytes):
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

    def on_stored(self, now: float) -> Transition | None:
        """Count the own disk towards the majority (thesis §10.2.1: it writes beside its followers)."""
        self.spares.own_disk_took(now - self.raft.persistence.stored_issued_at)
        self._maybe_commit()
        return None

    def on_append_accepted(self, now: float, message: AppendAccepted) -> None:
        """Count a follower's disk towards the majority."""
        progress = self.progress[message.source]
        progress.answered(now)
        assert message.match <= self.raft.log.last_index, f"{message} is ahead of the leader's log"
        if progress.accepted(message.match, message.free_log_bytes):
            self._maybe_commit()
            self._maybe_finish_transfer(now)

    def hasty_followers(self) -> frozenset[int]:
        """See `Replicator`; one that leadership is handed over to can be told so as soon as it has all of the log."""
        hasty = super().hasty_followers()
        return hasty if self.transfer_target is None else hasty | {self.transfer_target}

    def _maybe_commit(self) -> None:
        log = self.raft.log
        index = self._reached(log.durable, _MATCH, 0)
        # Only an entry of the own term proves, by a majority that holds it, that what lies before it can't be
        # overwritten any more (paper figure 8). Entries of older terms are committed along with it.
        if index > self.raft.commit and index >= self.first_index:
            self.raft.commit_to(index)
            self.raft.note_leader_commit(index)

    # Handing over

    def successor(self, peers: Collection[int]) -> int | None:
        """Return which of these followers could take over at once: it counts, and has nearly all of the log.

        Returns:
            the one that has most of it; None if there is none.

        """
        last = self.raft.log.last_index
        able = [
            peer
            for peer in peers
            if self.progress[peer].counts and last - self.progress[peer].match <= SUCCESSOR_BEHIND_MAX
        ]
        return self._most_complete(able) if able else None

    def _most_complete(self, peers: Collection[int]) -> int:
        progress = self.progress
        return max(peers, key=lambda peer: (progress[peer].match, progress[peer].heard_at, -peer))

    def transfer(self, now: float, target: int, *, reason: str) -> None:
        """Hand over to `target` once its log is complete; commands are refused meanwhile (thesis §3.10)."""
        if self.transfer_target is not None:
            raise ValueError(f"a transfer to node {self.transfer_target} is under way")
        self.transfer_target = target
        self.transfer_deadline = now + self.raft.config.election_timeout_max_s
        self.is_transfer_sent = self.was_transfer_sent = False
        self.spares.hurry(now, target)
        self.raft.emit(TransferStarted(target, reason))
        self._set_deadline()
        self._maybe_finish_transfer(now)

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
