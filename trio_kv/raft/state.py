"""What every node keeps, whatever its role (paper figure 2): term, vote, log, commit index.

The roles hold a `NodeState` and move it on. What it says, asks and emits on the way collects in its `effects`. What is
on its way to the disk stands in `persistence`. The state knows no role: which one comes next stands in `node`.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any, Self

import attrs
import crc32c

from trio_kv.raft.config import RaftConfig
from trio_kv.raft.entry import Entry
from trio_kv.raft.events import (
    DEBUG,
    EntriesAppended,
    EntriesCommitted,
    Event,
    LeaderFollowed,
    LogTruncated,
    ReadsConfirmed,
    RebuildEnded,
    TermAdvanced,
    Told,
)
from trio_kv.raft.install import Incoming
from trio_kv.raft.log import Log
from trio_kv.raft.messages import NO_TIME, Message, TermTime
from trio_kv.raft.persistence import Persistence
from trio_kv.raft.reads import PendingReads
from trio_kv.raft.ready import Effects, HardState
from trio_kv.raft.voters import Voters

REBUILT = object()
"""The context of the read by which a node that is rebuilt learns what it must have before it counts again."""


class NodeState:
    """The state of one node of a consensus group, as its roles see it. `node.Raft` is what its driver sees.

    Invariants: the term never decreases, and a vote is given once a term; `commit` never decreases and never
    passes the log; nothing that promises durability leaves before the write that backs it.
    """

    heard_time: TermTime = NO_TIME
    """The highest cluster time heard of the leader of the log's last term, and that term; see `hear_time`."""
    heard_incarnations: tuple[tuple[int, int], ...]
    """What the hard state says of incarnations from now on. Made anew when one changes."""

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
        near: Iterable[int] = (),
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
            incarnations: those of all nodes, as far as the caller knows them for good. The hard state may know better.
            is_rebuilding: this node's directory was made anew in place of one that was lost. Until it has
                again what a majority of the *others* confirms was committed when this start began, it votes
                for nobody, stands for no election and counts for no majority: what its former self
                acknowledged must not be counted on.
            hard_state: what the disk held.
            log: what the disk held.
            near: peers that answer sooner than others, as those of the same process do.
            events_level: events below this level are not made.

        """
        self.id = id
        self.peers, self.near = tuple(sorted(peers)), frozenset(near)
        self.voters = Voters((id, *self.peers))
        self.config = config
        self.random = random
        self.incarnation = incarnation
        self.wants_debug = events_level <= DEBUG
        self.term, self.vote = hard_state.term, hard_state.vote
        self.heard_incarnations = hard_state.incarnations
        self.votes: set[int] = set()
        """Who voted for this node in its term, itself included, as far as it knows."""
        self.standing_term: int | None = None
        """The last term in which this start of the node asked for votes; None once it has won, so that late votes are
        void. Elected twice in one term, it would begin its heartbeat rounds anew. If it had lost a part of its log, it
        would also make other entries of the same index and term."""
        self.log = Log() if log is None else log
        self.commit = self.log.base_index
        self.fresh_index: int | None = None
        """A commit index first learned since this node's start, of a leader that had committed in its term."""
        self.leader: int | None = None
        self.heard_leader_at = float("-inf")
        self.pending_reads = PendingReads(random.getrandbits(63))
        self.persistence = Persistence(self.log, hard_state)
        self.delivered = self.log.base_index
        """How far committed entries were given to the driver, who applies them."""
        self.effects = Effects()
        """What the next `Ready` is going to hold."""
        self._incarnations = _greatest([*(incarnations or {}).items(), *hard_state.incarnations])
        self.is_rebuilding = is_rebuilding
        self._rebuilt_index: int | None = None
        if is_rebuilding:
            self.pending_reads.waiting.append(REBUILT)
        self.incoming: Incoming | None = None
        self.begin(now)

    def begin(self, now: float) -> None:
        """Take the first role. The state itself has none."""

    def copy(self) -> Self:
        """Return a node of its own in the same state, to try what happens next. Entries are shared."""
        twin = copy.copy(self)
        twin.random = Random()
        twin.random.setstate(self.random.getstate())
        twin.log = self.log.copy()
        twin.persistence = self.persistence.copy(twin.log)
        twin.pending_reads = self.pending_reads.copy()
        twin.incoming = None if self.incoming is None else attrs.evolve(self.incoming)
        twin.effects = self.effects.copy()
        twin.votes = self.votes.copy()
        twin._incarnations = self._incarnations.copy()  # noqa: SLF001 - a twin of this class
        return twin

    # What is said and told

    def header(self, target: int) -> tuple[int, int, int, int, bool]:
        """Return the members that every message begins with."""
        return self.id, target, self.term, self.incarnation, self.is_rebuilding

    def send(self, message: Message, *, waits_for_disk: bool = False) -> None:
        """Send a message: now, or when what was to be written up to now is durable.

        A message in a term that is not durable yet always waits: after a crash this node would not know that it had
        been in that term, and might contradict itself (scenario D7).
        """
        if waits_for_disk or self.term != self.persistence.durable_term:
            self.persistence.held.append(message)
        else:
            self.effects.messages.append(message)

    @property
    def role_name(self) -> str:
        """What this node is just now: follower, candidate, leader."""
        raise NotImplementedError

    def emit(self, event: Event) -> None:
        """Let listeners know what happened, in the term and the role that the node has now."""
        self.effects.events.append(self.told(event))

    def told(self, event: Event) -> Told:
        """Return an event as this node tells it now."""
        return Told(event, self.term, self.role_name)

    # The log and the commit index

    def append(self, entries: Sequence[Entry]) -> None:
        """Put entries at the end of the log; the next write brings them to the disk."""
        self.log.append(entries)  # type: ignore[arg-type]
        if self.wants_debug and entries:
            last = entries[-1]
            self.emit(EntriesAppended(entries[0].index, last.index, last.term, *_crc(entries)))

    def truncate(self, first: int) -> None:
        """Drop all entries from `first` on, as the leader's log has others there (paper §5.3)."""
        assert first > self.commit, f"entry {first} is committed"
        last = self.log.last_index
        self.persistence.truncate(first)
        self.emit(LogTruncated(first, last))

    def commit_to(self, index: int) -> None:
        """Move the commit index on to `index`, never back (scenario L3)."""
        if index <= self.commit:
            return
        assert index <= self.log.last_index
        if self.wants_debug:
            entries = self.log.slice(self.commit + 1, index)
            self.emit(EntriesCommitted(self.commit + 1, index, entries[-1].term, *_crc(entries)))
        self.commit = index

    def note_leader_commit(self, index: int) -> None:
        """Note what a leader of this term says is committed, once that covers an entry of its own term.

        Before that its commit index may lag behind all that was ever acknowledged: after a restart of the whole
        cluster it even begins at the log's base (scenario R1).
        """
        if self.fresh_index is None and self.log.term_at(index) == self.term:
            self.fresh_index = index

    # Cluster time

    def hear_time(self, heard: TermTime) -> None:
        """Note cluster time as a leader told it, or as another node has heard it, if it can be believed here.

        Only the leader of the term in which this log ends is believed. It had all of this log, so its time goes on from
        every entry here, and no key that was set by one can lose any of its time by it. The time of any other leader,
        also of a newer one whose entries did not come yet, may have run beside these entries: a leader that had heard
        nothing for an hour begins an hour behind, and what it writes must last.
        """
        term, time_us = heard
        if term == self.log.last_term and (term != self.heard_time[0] or time_us > self.heard_time[1]):
            self.heard_time = heard

    @property
    def known_time_us(self) -> int:
        """Cluster time as far as this node knows: that of its last entry, or what it heard since."""
        term, time_us = self.heard_time
        log = self.log
        return max(log.last_time_us, time_us) if term == log.last_term else log.last_time_us

    # Reads, and what a node that lost its disk learns by one

    def confirm_reads(self, contexts: list[Any], index: int) -> None:
        """Let these reads be answered as soon as `index` is applied."""
        if REBUILT in contexts:
            contexts = [context for context in contexts if context is not REBUILT]
            self._rebuilt_index = index
        if contexts:
            self.effects.reads.extend([(context, index) for context in contexts])
            if self.wants_debug:
                self.emit(ReadsConfirmed(index, len(contexts)))

    def maybe_end_rebuild(self) -> None:
        """Count and vote again, once all that was committed when the question was answered is durable here.

        A log that is long enough proves nothing: its end may have come from a leader that was deposed. What is known
        here to be committed is what the others have committed. What they know of incarnations came with the answer, and
        must be durable here too: the former self knew it, and may have told it to nobody yet.
        """
        if self._rebuilt_index is None or not self.are_incarnations_durable:
            return
        if min(self.commit, self.log.durable) >= self._rebuilt_index:
            self.is_rebuilding = False
            self.emit(RebuildEnded(self._rebuilt_index))

    # Terms

    def heard_from_leader(self, now: float, leader: int) -> None:
        """Note that the term has a leader that is alive."""
        self.heard_leader_at = now
        if self.leader != leader:
            assert self.leader is None, f"two leaders in term {self.term}: {self.leader} and {leader}"
            self.leader = leader
            if self.wants_debug:
                self.emit(LeaderFollowed(leader))

    def forget_leader(self) -> None:
        """Know of no leader; reads wait for the next one."""
        self.leader = None
        self.heard_leader_at = float("-inf")
        self.pending_reads.give_up()

    def enter(self, term: int) -> None:
        """Enter a term, in which no vote is given yet. For the own term there is nothing to do."""
        assert term >= self.term
        if term > self.term:
            previous, self.term, self.vote = self.term, term, None
            self.votes = set()
            if self.wants_debug:
                self.emit(TermAdvanced(previous))

    # Disks that are gone

    def is_void(self, message: Message) -> bool:
        """Return whether a message comes from a disk that is gone.

        A node's incarnations rise, so it does not matter in which order its messages come.
        """
        return message.incarnation < self.incarnation_of(message.source)

    def note_incarnation(self, peer: int, incarnation: int) -> bool:
        """Note a peer's incarnation; return whether its disk was replaced: what it said before is void then.

        The next write makes it durable. Until then this node must not answer a round that names it.
        """
        known = self._incarnations.get(peer)
        if peer not in self.peers or (known is not None and incarnation <= known):
            return False
        self._incarnations[peer] = incarnation
        self.heard_incarnations = self.incarnations()
        if known is None:
            return False
        self.votes.discard(peer)  # It may vote again, having forgotten for whom it did.
        return True

    def incarnations(self) -> tuple[tuple[int, int], ...]:
        """Return (node, incarnation) of all nodes that are known."""
        return tuple(sorted(self._incarnations.items()))

    def incarnation_of(self, peer: int) -> int:
        """Return the highest incarnation of a peer that was heard of, now or before a restart; 0: none was."""
        return self._incarnations.get(peer, 0)

    @property
    def are_incarnations_durable(self) -> bool:
        """Whether this node will still know all that it heard of incarnations when it is restarted (decision 0048)."""
        return self.heard_incarnations == self.persistence.durable_incarnations


def _greatest(incarnations: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Return each node's greatest incarnation; one of 0 is none."""
    known = dict(sorted(incarnations))
    return {node: incarnation for node, incarnation in known.items() if incarnation}


def _crc(entries: Sequence[Entry]) -> tuple[int, int]:
    data = b"".join([entry.encoded for entry in entries])
    return int(crc32c.crc32c(data)), len(data)
