"""The disks of a cluster's nodes: the port that its supervisor knows, and the real ones behind it.

Whatever blocks happens in threads here, so a supervisor never waits for a disk without letting others run. The
simulator has another implementation of the port (`sim.whole.disks`): no thread, no file, and power that fails.
"""

import gc
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Literal, Protocol

import attrs
import trio

from trio_kv.cluster.inbox import (
    ChunkAdded,
    ChunkWasRead,
    Completion,
    DiskFailed,
    RoomChanged,
    SnapshotFailed,
    SnapshotStored,
    Stored,
)
from trio_kv.kv.machine import Machine
from trio_kv.kv.reply import Item
from trio_kv.kv.restorer import Restorer
from trio_kv.raft.entry import Command
from trio_kv.raft.ready import Ticket
from trio_kv.storage.disk import DiskThread, Storage
from trio_kv.storage.manifest import DataDirectory
from trio_kv.storage.opening import Opened
from trio_kv.storage.rebuild import end_rebuild, rebuild_node
from trio_kv.storage.recovery import Recovered
from trio_kv.storage.snapshots import SnapshotInfo
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import NodeLoading

LOADING_TOLD_S = 1.0
"""How often a node that reads a large snapshot tells how far it is."""

Decode = Callable[[bytes], Command]
Known = Callable[[str], Item | None]
"""Finds an item that is in memory already."""


class Disk(Storage, Protocol):
    """The disk of a running node, and what can be made wrong with it."""

    delay_s: float
    """Fault: each batch, and each job, waits this long first."""

    def fail_next(self) -> None:
        """Fault: the next batch fails with an input/output error."""
        ...  # pragma: no cover

    def stall(self) -> None:
        """Fault: the disk stands still, from the next batch or job on."""
        ...  # pragma: no cover

    def unstall(self) -> None:
        """End a stall."""
        ...  # pragma: no cover

    def fill(self) -> None:
        """Fault: the disk is full. No segment and no snapshot can be made."""
        ...  # pragma: no cover

    def unfill(self) -> None:
        """End it: soon the disk finds its space."""
        ...  # pragma: no cover


@attrs.frozen
class Found:
    """What there is of a node before it starts."""

    path: Path
    state: Literal["ok", "needs_rebuild", "damaged"]
    incarnation: int
    reason: str = ""
    """Why the state isn't ok, for people."""
    way_out: str = ""
    """What a person can do about it."""
    is_rebuilding: bool = False
    """Whether the others have to fill it before it counts."""
    snapshot_bytes: int = 0
    """Size of its largest snapshot."""
    snapshot_log_bytes_min: int = 0
    """A snapshot is due after so many bytes of log."""
    log_bytes: int = 0
    """Size of its log: what takes longest to read and to apply."""


@attrs.frozen
class Loaded:
    """What a node's disk held, and the disk itself, not yet at work."""

    recovered: Recovered
    machine: Machine
    """What the newest snapshot held."""
    start: Callable[[Callable[[Completion], object]], Disk]
    """Lets the disk work, given who takes its completions. To be called once, in Trio."""


class Disks(Protocol):
    """The disks of all nodes."""

    @property
    def nodes(self) -> tuple[int, ...]:
        """All nodes, in order."""
        ...  # pragma: no cover

    @property
    def incarnations(self) -> Mapping[int, int]:
        """Each node's incarnation, as it is now."""
        ...  # pragma: no cover

    async def examine(self, node: int) -> Found:
        """Look at a node that does not run.

        Raises:
            OSError: the disk refused.

        """
        ...  # pragma: no cover

    async def load(self, node: int, decode: Decode, known: Known | None) -> Loaded:
        """Read what a node's disk holds, and repair what an interruption left.

        Args:
            node: one that does not run, and whose state is "ok".
            decode: turns the bytes of a command into the command.
            known: finds items of another node, to share them.

        Raises:
            DamagedError: what is there can't be believed.
            OSError: the disk refused.

        """
        ...  # pragma: no cover

    async def rebuild(self, node: int, random: Random) -> Path | None:
        """Give a node that does not run a new, empty disk; return where the old one is, if there was one.

        Raises:
            StorageError: too few of the others are in order.
            OSError: the disk refused.

        """
        ...  # pragma: no cover

    async def end_rebuild(self, node: int) -> None:
        """Note that a rebuilt node counts again."""
        ...  # pragma: no cover


@attrs.frozen
class Completions:
    """Tells a node what its disk did, in the terms of its inbox."""

    post: Callable[[Completion], object]

    def stored(self, ticket: Ticket) -> None:
        """All writes up to this one are durable."""
        self.post(Stored(ticket))

    def failed(self, error: Exception) -> None:
        """The disk has ended."""
        self.post(DiskFailed(error))

    def room(self, room_bytes: int | None) -> None:
        """The disk is full, with so much left, or not any more."""
        self.post(RoomChanged(room_bytes))

    def snapshot_added(self, index: int, term: int, number: int) -> None:
        """A chunk was taken."""
        self.post(ChunkAdded(index, term, number))

    def snapshot_stored(self, info: SnapshotInfo) -> None:
        """A snapshot is durable."""
        self.post(SnapshotStored(info.index, info.term, info.total_bytes))

    def snapshot_failed(self, index: int, term: int, reason: str) -> None:
        """A snapshot was given up."""
        self.post(SnapshotFailed(f"snapshot {index}@{term}: {reason}"))

    def chunk_read(self, index: int, term: int, number: int, data: bytes | None, is_last: bool) -> None:
        """A chunk that was asked for was read, or is gone."""
        del number
        self.post(ChunkWasRead(index, term, data, is_last))


class RealDisks:
    """The disks of the nodes of one data directory: files, and a disk thread for each node that runs.

    Args:
        directory: where they are; open as long as this is used.
        trace: is told how far a load is that takes long.

    """

    def __init__(self, directory: DataDirectory, trace: Trace) -> None:
        """Read nothing yet; see the class."""
        self._directory = directory
        self._trace = trace
        self._replacing = trio.Lock()

    @property
    def nodes(self) -> tuple[int, ...]:
        """All nodes, in order."""
        return self._directory.nodes

    @property
    def incarnations(self) -> Mapping[int, int]:
        """Each node's incarnation, as it is now."""
        return self._directory.manifest.incarnations

    async def examine(self, node: int) -> Found:
        """See `Disks`."""
        return await trio.to_thread.run_sync(self._examine, node)

    async def load(self, node: int, decode: Decode, known: Known | None) -> Loaded:
        """See `Disks`."""
        return await trio.to_thread.run_sync(self._load, node, decode, known)

    async def rebuild(self, node: int, random: Random) -> Path | None:
        """See `Disks`."""
        # One after the other: two at a time would each count the other among those that have all of their data, and
        # each write a manifest without the other's new incarnation.
        async with self._replacing:
            return await trio.to_thread.run_sync(rebuild_node, self._directory, node, random)

    async def end_rebuild(self, node: int) -> None:
        """See `Disks`."""
        await trio.to_thread.run_sync(end_rebuild, self._directory.node(node))

    # What follows runs in threads.

    def _examine(self, node: int) -> Found:
        directory = self._directory.node(node)
        return Found(
            directory.path,
            directory.state,
            directory.incarnation,
            directory.reason,
            directory.way_out,
            directory.is_rebuilding,
            max((file.stat().st_size for file in directory.path.glob("*.snap")), default=0),
            directory.segment_bytes // 2,
            sum(file.stat().st_size for file in directory.path.glob("*.log")),
        )

    def _load(self, node: int, decode: Decode, known: Known | None) -> Loaded:
        """Open a node's log and restore its state machine from the newest snapshot.

        Millions of objects are made, of which Python's collector could free none: it would only walk
        over all of them again and again, so it rests meanwhile.
        """
        gc.disable()
        try:
            opened = self._directory.node(node).open(decode)
            machine = self._restore(node, opened, known)
        finally:
            gc.enable()
        return Loaded(opened.recovered, machine, partial(_start_thread, node, opened))

    def _restore(self, node: int, opened: Opened, known: Known | None) -> Machine:
        info = opened.recovered.snapshot
        if info is None:
            return Machine()
        restorer = Restorer(known)
        told_at, done_bytes = self._trace.mono_s(), 0
        for chunk in opened.snapshots.chunks(info):
            restorer.feed(chunk)
            done_bytes += len(chunk)
            if self._trace.mono_s() - told_at >= LOADING_TOLD_S:
                told_at = self._trace.mono_s()
                loading = NodeLoading(100 * done_bytes // info.total_bytes, info.total_bytes)
                trio.from_thread.run_sync(partial(self._trace.emit, loading, node=node))
        return restorer.finish()


def _start_thread(node: int, opened: Opened, post: Callable[[Completion], object]) -> DiskThread:
    told = Completions(post)
    return DiskThread(
        opened.wal,
        opened.snapshots,
        on_stored=told.stored,
        on_failed=told.failed,
        name=f"disk-{node}",
        on_snapshot_added=told.snapshot_added,
        on_snapshot_stored=told.snapshot_stored,
        on_snapshot_failed=told.snapshot_failed,
        on_chunk_read=told.chunk_read,
        on_room=told.room,
    )
