"""Snapshots of one node: taken beside its work, received from a leader, sent to followers that are far
behind.

One snapshot is written at a time, chunk by chunk. Of our own snapshot each pass of the node makes a few chunks, as long
as few wait for the disk. That is the back-pressure, and it keeps each pass short. Of a leader's snapshot the next chunk
is asked for when the disk took the one before. A leader's snapshot goes before our own, as it holds more.
"""

from collections import deque
from collections.abc import Iterator

import attrs

from trio_kv.kv.frozen import Frozen
from trio_kv.kv.machine import Machine
from trio_kv.kv.restorer import Restorer
from trio_kv.raft.entry import LogPosition
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import Chunk, ChunkRead, ChunkWasRead
from trio_kv.replica.jobs import (
    AddChunk,
    BeginSnapshot,
    CompactLog,
    FinishSnapshot,
    Job,
    ReadChunk,
    ReleaseSnapshot,
)
from trio_kv.replica.turns import Turns

CHUNKS_WAITING_MAX = 16
"""Chunks of our own snapshot that wait for the disk."""
CHUNKS_MADE_MAX = 6
"""Chunks made in one pass of the node, in 2 ms at the most: a chunk takes a quarter of one."""
UNPACKED_ENTRIES = 16_384
"""The last applied entries of a log are not packed: other nodes are about to apply them too."""
PACKED_ENTRIES_MIN = 2048
"""So many are packed at a time: each time all that is not packed moves up in its list."""


@attrs.define
class _Taking:
    """A snapshot of our own state under way."""

    frozen: Frozen
    chunks: Iterator[bytes]
    number: int = 0
    added: int = 0
    """Chunks that the disk has taken."""
    is_finishing: bool = False
    has_turn: bool = True
    """Whether more may be made of it now. What the disk has already it goes on with in any case."""
    has_moved: bool = False
    """The disk got on with it since that was looked at last."""

    @property
    def has_room(self) -> bool:
        """Whether another chunk may be given to the disk."""
        return self.has_turn and not self.is_finishing and self.number - self.added < CHUNKS_WAITING_MAX


@attrs.define
class _Receiving:
    """A leader's snapshot under way: what came of it is fed to the state machine that will take the place of ours."""

    snapshot: LogPosition
    restorer: Restorer
    machine: Machine | None = None
    """The new state machine, once the last chunk came."""


class Snapshots:
    """The snapshots of one node. `jobs` collects what the disk has to do.

    Invariants: the log is compacted only up to a snapshot that was proved readable; the state machine is
    replaced only by one whose snapshot is durable here (scenario N9).
    """

    def __init__(self, raft: Raft, *, stored_bytes: int, log_bytes_min: int) -> None:
        """Go on from the newest snapshot of this node's disk, behind which its log begins.

        Args:
            raft: this node's core.
            stored_bytes: the size of that snapshot; 0 without one.
            log_bytes_min: a snapshot is due when this many bytes of log were applied since the last one, or
                half as many as the last one has, whichever is more: what is written for snapshots stays in
                proportion, and so does the log that a restart has to read.

        """
        self.stored = LogPosition(raft.log.base_index, raft.log.base_term)
        """The newest snapshot; `LOG_START` without one."""
        self.jobs: list[Job] = []
        self._compact_to: int | None = None
        self.replaced: Machine | None = None
        """The state machine that a leader's snapshot has taken the place of, until all of it is freed."""
        self._raft = raft
        self._stored_bytes = stored_bytes
        self._log_bytes_min = log_bytes_min
        self._log_bytes = 0
        self._packed_to = 0
        """Of the log, so far."""
        self._is_asked = False
        self._taking: _Taking | None = None
        self._receiving: _Receiving | None = None
        self._reads: deque[ChunkRead] = deque()
        self._read: set[LogPosition] = set()
        """Snapshots that were read for followers and not released."""

    @property
    def is_due(self) -> bool:
        """Whether a snapshot should be taken as soon as this node may."""
        if self._taking is not None or (
            self._receiving is not None and not self._is_forsaken(self._receiving)
        ):
            return False
        if not self.is_wanted:
            return False
        # The disk keeps the one before the newest while it is being sent, and none before that. A third one now would
        # let a follower that takes longer than two snapshots begin anew for ever (scenario N8).
        return not self._raft.role.snapshots_sent() - {self.stored}

    @property
    def is_wanted(self) -> bool:
        """Whether the log since the last snapshot is long enough for the next one, or somebody asked for it."""
        return self._is_asked or self._log_bytes >= max(self._log_bytes_min, self._stored_bytes // 2)

    @property
    def is_waiting(self) -> bool:
        """Whether a snapshot is wanted and not under way, of our own or a leader's."""
        return self._taking is None and self._receiving is None and self.is_wanted

    def _is_forsaken(self, receiving: _Receiving) -> bool:
        """Return whether nothing more will come of a leader's snapshot: the log goes on without it."""
        return self._raft.incoming is None and receiving.machine is None

    @property
    def is_taking(self) -> bool:
        """Whether a snapshot of our own is under way."""
        return self._taking is not None

    @property
    def has_lost_turn(self) -> bool:
        """Whether our own snapshot has lost its turn to another node, because our disk made no progress."""
        return self._taking is not None and not self._taking.has_turn

    @property
    def progress(self) -> tuple[int, int, bool] | None:
        """How far the snapshot of our own is that is under way: chunks made and chunks stored, and whether it ends."""
        taking = self._taking
        return None if taking is None else (taking.number, taking.added, taking.is_finishing)

    def applied(self, size_bytes: int) -> None:
        """Note that so many bytes of log were applied."""
        self._log_bytes += size_bytes
        old = self._raft.delivered - UNPACKED_ENTRIES
        if old - self._packed_to >= PACKED_ENTRIES_MIN:
            self._packed_to = old
            self._raft.log.pack(old)

    def ask(self) -> None:
        """Let a snapshot be due, whatever the size of the log."""
        self._is_asked = True

    def begin(self, machine: Machine) -> None:
        """Begin to take a snapshot of the state as it is now."""
        assert self.is_due
        self._is_asked = False
        self._log_bytes = 0
        self._receiving = None
        frozen = machine.freeze()
        self._taking = _Taking(frozen, frozen.chunks())
        self.jobs.append(BeginSnapshot(*self._taking_snapshot()))

    def chunk_added(self, index: int, term: int, number: int) -> None:
        """Go on: the disk took a chunk."""
        snapshot, receiving = LogPosition(index, term), self._receiving
        if self._taking is not None and snapshot == self._taking_snapshot():
            self._taking.added = number + 1
            self._taking.has_moved = True
        elif receiving is not None and receiving.snapshot == snapshot and receiving.machine is None:
            self._raft.chunk_stored(index, term, number)

    def moved(self, index: int, term: int) -> None:
        """Note that the disk makes progress with a long job: it syncs a snapshot, or reads it back."""
        if self._taking is not None and LogPosition(index, term) == self._taking_snapshot():
            self._taking.has_moved = True
        else:
            self._raft.chunk_moves(index, term)

    def take_turn(self, now: float, turns: Turns) -> None:
        """Keep the turn for the snapshot under way as long as the disk moves, and ask anew when it moves again.

        Args:
            now: the time that `turns` goes by.
            turns: whose turn it is.

        """
        taking, node = self._taking, self._raft.id
        assert taking is not None
        if taking.has_moved:
            taking.has_turn = turns.take(now, node)
            # Until it is its turn again it goes on asking.
            taking.has_moved = not taking.has_turn
        else:
            taking.has_turn = turns.holder == node

    def snapshot_stored(self, machine: Machine, snapshot: LogPosition, size_bytes: int) -> Machine:
        """Forget the log behind a snapshot that is durable; return the state machine to go on with."""
        self.stored, self._stored_bytes = snapshot, size_bytes
        if self._taking is not None and snapshot == self._taking_snapshot():
            self._taking = None
            machine.thaw()
        elif self._receiving is not None and self._receiving.snapshot == snapshot:
            received, self._receiving = self._receiving.machine, None
            assert received is not None
            if self._raft.installed(*snapshot, received.time_us):
                received.join(machine.siblings)
                self.replaced = machine
                machine = received
                self._log_bytes = 0
        self._compact_to = snapshot[0]
        return machine

    @property
    def is_compacting(self) -> bool:
        """Whether there is log left to forget."""
        return self._compact_to is not None

    def compact(self, entries_max: int) -> None:
        """Forget some of the log behind the newest snapshot; the disk follows when all of it is done."""
        if self._compact_to is None:
            return
        begin = self._raft.log.base_index
        reached = self._raft.compact(self._compact_to, entries_max)
        if reached - begin < entries_max:
            self._compact_to = None
            self.jobs.append(CompactLog(reached))

    def failed(self, machine: Machine, snapshot: LogPosition) -> None:
        """Give up what was being written, unless another one took its place already: the disk is full.

        One of our own is due again with more log, a leader's is sent again.
        """
        if self._taking is not None and snapshot == self._taking_snapshot():
            self._taking = None
            machine.thaw()
        elif self._receiving is not None and self._receiving.snapshot == snapshot:
            self._receiving = None
            self._raft.chunk_failed()

    def take(self, machine: Machine, chunk: Chunk) -> None:
        """Store a chunk of a leader's snapshot."""
        snapshot = LogPosition(chunk.index, chunk.index_term)
        if chunk.number == 0:
            if self._taking is not None:
                self._taking = None
                machine.thaw()
            self._receiving = _Receiving(snapshot, Restorer(machine.siblings.find))
            self.jobs.append(BeginSnapshot(*snapshot))
        receiving = self._receiving
        assert receiving is not None
        assert receiving.snapshot == snapshot
        try:
            receiving.restorer.feed(chunk.data)
            receiving.machine = receiving.restorer.finish() if chunk.is_last else None
        except ValueError as error:
            # Its bytes came as they were sent: a leader of another version, say, whose snapshot can't be
            # read here.
            self._receiving = None
            self._raft.refuse_snapshot(str(error))
            return
        self.jobs.append(AddChunk(chunk.number, chunk.data))
        if chunk.is_last:
            self.jobs.append(FinishSnapshot())

    def read(self, read: ChunkRead) -> None:
        """Let the disk read a chunk for a follower."""
        self._reads.append(read)
        self.jobs.append(ReadChunk(read.snapshot, read.number))

    def chunk_read(self, now: float, found: ChunkWasRead) -> None:
        """Send a chunk that was read. Chunks are read in the order in which they were asked for."""
        if found.data is not None:
            self._read.add(LogPosition(found.index, found.term))
        self._raft.chunk_read(now, self._reads.popleft(), found)

    def free_replaced(self, items_max: int) -> None:
        """Free some of the replaced state machine: all of a large one at once would take too long."""
        if self.replaced is not None and self.replaced.dismantle(items_max):
            self.replaced = None

    def release_unread(self) -> None:
        """Release the snapshots that no follower is being sent any more."""
        if not self._read or self._reads:
            return
        sent = self._raft.role.snapshots_sent()
        for snapshot in sorted(self._read - sent):
            self.jobs.append(ReleaseSnapshot(*snapshot))
        self._read &= sent

    def _taking_snapshot(self) -> LogPosition:
        assert self._taking is not None
        head = self._taking.frozen.head
        return LogPosition(head.applied, head.applied_term)

    @property
    def is_making(self) -> bool:
        """Whether the next chunks of our own snapshot can be made right now."""
        return self._taking is not None and self._taking.has_room

    def make_chunks(self) -> None:
        """Give the disk the next chunks of our own snapshot, or let it finish: as much as one pass has time for."""
        taking = self._taking
        for _ in range(CHUNKS_MADE_MAX):
            if taking is None or not taking.has_room:
                return
            chunk = next(taking.chunks, None)
            if chunk is None:
                taking.is_finishing = True
                self.jobs.append(FinishSnapshot())
            else:
                self.jobs.append(AddChunk(taking.number, chunk))
                taking.number += 1
