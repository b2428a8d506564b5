"""The disks of a cluster's nodes: the port that its supervisor knows, and the real ones behind it.

Whatever blocks happens in threads here, so a supervisor never waits for a disk without letting others run. The
simulator has another implementation of the port (`sim.whole.disks`): no thread, no file, and power that fails.
"""

import contextlib
import gc
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Protocol, TypeVar

import attrs
import trio

from trio_kv.kv.machine import Machine
from trio_kv.kv.reply import Item
from trio_kv.raft.entry import Command
from trio_kv.replica.jobs import Completion
from trio_kv.storage.data_directory import DataDirectory
from trio_kv.storage.disk import DiskThread, Storage
from trio_kv.storage.errors import GoneError, StorageError
from trio_kv.storage.node_directory import NodeDirectory
from trio_kv.storage.opening import Opened
from trio_kv.storage.place import Place
from trio_kv.storage.rebuild import end_rebuild, rebuild_node
from trio_kv.storage.recovery import Recovered
from trio_kv.storage.wal import Wal
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import NodeLoading

LOAD_MOVED_S = 0.1
"""How often a load tells that it gets on."""
LOADING_TOLD_S = 1.0
"""How often a node that reads a large snapshot tells how far it is."""

PLACE_CHECKED_S = 2.0
"""How often it is looked at whether a running node's directory is still where it was."""

_T = TypeVar("_T")
Decode = Callable[[bytes], Command]
Known = Callable[[str], Item | None]
"""Finds an item that is in memory already."""
Moved = Callable[[], Awaitable[None]]
"""Is told now and then that a load gets on, and lets it wait if it is not its turn any more."""


class Disk(Storage, Protocol):
    """The disk of a running node, and what can be made wrong with it."""

    delay_s: float
    """Fault: each batch, and each job, waits this long first."""

    @property
    def wal(self) -> Wal:
        """The log on it, for who reads what it has counted."""

    def fail_next(self) -> None:
        """Fault: the next batch fails with an input/output error."""

    def stall(self) -> None:
        """Fault: the disk stands still, from the next batch or job on."""

    def unstall(self) -> None:
        """End a stall."""

    def fill(self) -> None:
        """Fault: the disk is full. No segment and no snapshot can be made."""

    def unfill(self) -> None:
        """End it: soon the disk finds its space."""


@attrs.frozen
class Found:
    """What there is of a node before it starts."""

    directory: NodeDirectory
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
    """The disks of all nodes.

    Each call takes as long as the disk does, which may be for ever. One that is cancelled returns at once, and what it
    began may still be carried out: whoever cancels it must not use that node's disk again.
    """

    @property
    def cluster(self) -> str:
        """The id of their cluster."""

    @property
    def nodes(self) -> tuple[int, ...]:
        """All nodes, in order."""

    @property
    def incarnations(self) -> Mapping[int, int]:
        """Each node's incarnation, as it is now."""

    async def examine(self, node: int) -> Found:
        """Look at a node that does not run. Raises OSError."""

    async def load(self, node: int, decode: Decode, known: Known | None, moved: Moved) -> Loaded:
        """Read what a node's disk holds, and repair what an interruption left.

        Args:
            node: one that does not run, and whose state is "ok".
            decode: turns the bytes of a command into the command.
            known: finds items of another node, to share them.
            moved: awaited between pieces that were read, every tenth of a second or so.

        Raises:
            DamagedError: what is there can't be believed.
            OSError: the disk refused.

        """

    async def rebuild(self, node: int, random: Random, running: Collection[int]) -> Path | None:
        """Give a node that does not run a new, empty disk; return where the old one is, if there was one.

        Args:
            node: which one.
            random: draws its new incarnation.
            running: nodes that have read their disks, and run with all of their data.

        Raises:
            StorageError: too few of the others are in order, or the disk refused.

        """

    async def wait_gone(self, node: int) -> OSError:
        """Wait until what a node writes would not be found by its next start; return why.

        It looks at a node that runs. One that does not is looked at when it starts.
        """

    async def end_rebuild(self, node: int) -> None:
        """Note that a rebuilt node counts again."""


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
        self._places: dict[int, Place | None] = {}
        """Where the directory was found of each node that runs, or ran last."""

    @property
    def cluster(self) -> str:
        """The id of their cluster."""
        return self._directory.manifest.cluster

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
        return await _in_thread(partial(self._examine, node))

    async def load(self, node: int, decode: Decode, known: Known | None, moved: Moved) -> Loaded:
        """See `Disks`."""
        moves = _Moves(moved)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(moves.let_collector_rest)
            loaded = await _in_thread(partial(self._load, node, decode, known, moves))
            nursery.cancel_scope.cancel()
        return loaded

    async def rebuild(self, node: int, random: Random, running: Collection[int]) -> Path | None:
        """See `Disks`."""
        # One after the other: two at a time would each count the other among those that have all of their data, and
        # each write a manifest without the other's new incarnation.
        async with self._replacing:
            return await _in_thread(partial(rebuild_node, self._directory, node, random, running))

    async def end_rebuild(self, node: int) -> None:
        """See `Disks`."""
        await _in_thread(partial(self._end_rebuild, node))

    async def wait_gone(self, node: int) -> OSError:
        """See `Disks`."""
        while True:
            # For all nodes at the same moments: an idle process is woken for them together.
            await trio.sleep_until((trio.current_time() // PLACE_CHECKED_S + 1) * PLACE_CHECKED_S)
            place = self._places.get(node)
            if place is None:
                continue
            # A disk that hangs holds up this look alone, and the end of the process not at all.
            gone = await _in_thread(partial(_find_gone, place))
            # Looked at was the directory of that life, and there may be another one since.
            if gone is not None and self._places.get(node) is place:
                return gone

    # What follows runs in threads.

    def _examine(self, node: int) -> Found:
        self._directory.refresh()
        with contextlib.suppress(StorageError):
            self._directory.settle(node)
        directory = self._directory.node(node)
        snapshot_bytes, log_bytes = directory.sizes()
        return Found(
            directory, directory.is_rebuilding, snapshot_bytes, directory.segment_bytes // 2, log_bytes
        )

    def _end_rebuild(self, node: int) -> None:
        end_rebuild(self._directory.node(node))

    def _load(self, node: int, decode: Decode, known: Known | None, moves: "_Moves") -> Loaded:
        """Open a node's log and restore its state machine from the newest snapshot."""
        opened = self._directory.node(node).open(decode, moves)
        self._places[node] = opened.place
        machine = self._restore(node, opened, known, moves)
        return Loaded(opened.recovered, machine, partial(_start_thread, node, opened))

    def _restore(self, node: int, opened: Opened, known: Known | None, moves: "_Moves") -> Machine:
        info = opened.recovered.snapshot
        told_at, done_bytes = self._trace.mono_s(), 0

        def on_chunk(chunk: bytes) -> None:
            nonlocal told_at, done_bytes
            assert info is not None
            moves()
            done_bytes += len(chunk)
            if self._trace.mono_s() - told_at >= LOADING_TOLD_S:
                told_at = self._trace.mono_s()
                loading = NodeLoading(100 * done_bytes // info.total_bytes, info.total_bytes)
                trio.from_thread.run_sync(partial(self._trace.emit, loading, node=node))

        return opened.restore(known, on_chunk)


def _find_gone(place: Place) -> OSError | None:
    try:
        place.check()
    except GoneError as error:
        return error
    return None


class _Moves:
    """Tells, from the thread of a load, that it gets on; not more often than is worth a hop between threads.

    A load makes millions of objects, of which Python's collector could free none: it would only walk over all of them
    again and again. So it rests as long as the load gets on, and no longer: the others need it.
    """

    def __init__(self, moved: Moved) -> None:
        self._moved = moved
        self._told_at = time.monotonic()
        self._count = 0

    def __call__(self) -> None:
        """Tell it, and wait as long as it is not this load's turn."""
        now = time.monotonic()
        if now - self._told_at >= LOAD_MOVED_S:
            self._count += 1
            trio.from_thread.run(self._moved)
            self._told_at = time.monotonic()

    async def let_collector_rest(self) -> None:
        """Do so until cancelled, in Trio."""
        count = -1
        try:
            while True:
                if self._count != count:
                    gc.disable()
                else:
                    gc.enable()
                count = self._count
                await trio.sleep(10 * LOAD_MOVED_S)
        finally:
            gc.enable()


async def _in_thread(work: Callable[[], _T]) -> _T:
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def _start_thread(node: int, opened: Opened, post: Callable[[Completion], object]) -> DiskThread:
    return DiskThread(opened.wal, opened.snapshots, post, name=f"disk-{node}")
