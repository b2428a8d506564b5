"""Disks in memory, for clusters that live no longer than a test: no file, no thread, and no time but the clock's.

`MemoryDisks` stands where `cluster.disks.RealDisks` stands. Behind it is the real code of data directory, log and
snapshots on the twin of a disk (`storage.memory`), so what a node wrote is there when it starts again. Each node that
runs has a `MemoryDisk` with one task, which works as `storage.disk.DiskThread` does: what waits becomes one batch.
"""

import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from random import Random

import trio

from trio_kv.cluster.disks import Decode, Found, Known, Loaded, Moved
from trio_kv.raft.ready import Write
from trio_kv.replica.jobs import Completion, DiskFailed, Job, Stored
from trio_kv.storage.data_directory import open_folder
from trio_kv.storage.manifest import check_nodes
from trio_kv.storage.memory import MemoryFiles
from trio_kv.storage.memory_disk import MemoryDisk as Twin
from trio_kv.storage.memory_folder import MemoryFolder
from trio_kv.storage.node_directory import node_name
from trio_kv.storage.opening import Opened
from trio_kv.storage.rebuild import end_rebuild, rebuild_node

SEGMENT_BYTES = 256 << 10
"""Of the log, which is made of zeros beforehand: small, for clusters that begin often and write little."""


class MemoryDisks:
    """The disks of all nodes of a new cluster. `run` must be running while nodes do.

    Args:
        nodes: how many.
        random: draws the ids of the cluster and of its nodes.

    """

    def __init__(self, nodes: int, random: Random) -> None:
        """Make the cluster's directory; see the class. Raises ValueError: no cluster can have so many nodes."""
        check_nodes(nodes)
        self._content = MemoryFiles("memory")
        self._directory = open_folder(
            MemoryFolder(self._content), random=random, nodes=nodes, segment_bytes=SEGMENT_BYTES
        )
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let the disks of nodes that run work, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    @property
    def cluster(self) -> str:
        """The id of their cluster."""
        return self._directory.cluster

    @property
    def nodes(self) -> tuple[int, ...]:
        """All nodes, in order."""
        return self._directory.nodes

    @property
    def incarnations(self) -> Mapping[int, int]:
        """Each node's incarnation, as it is now."""
        return self._directory.manifest.incarnations

    async def examine(self, node: int) -> Found:
        """See `cluster.disks.Disks`."""
        await trio.lowlevel.checkpoint()
        directory = self._directory.node(node)
        return Found(directory, directory.is_rebuilding, snapshot_log_bytes_min=SEGMENT_BYTES // 2)

    async def load(self, node: int, decode: Decode, known: Known | None, moved: Moved) -> Loaded:
        """See `cluster.disks.Disks`. A node that starts again finds its disk mended."""
        await moved()
        files = self._content.folders[node_name(node)]
        files.capacity_bytes = None
        files.clear_faults()
        opened = self._directory.node(node).open(decode)
        return Loaded(opened.recovered, opened.restore(known), partial(self._start, opened, files))

    def _start(
        self, opened: Opened, files: MemoryFiles, post: Callable[[Completion], object]
    ) -> "MemoryDisk":
        assert self._nursery is not None
        disk = MemoryDisk(opened, files, post)
        self._nursery.start_soon(disk.run)
        return disk

    async def rebuild(self, node: int, random: Random, running: Collection[int]) -> Path | None:
        """See `cluster.disks.Disks`."""
        await trio.lowlevel.checkpoint()
        return rebuild_node(self._directory, node, random, running)

    async def end_rebuild(self, node: int) -> None:
        """See `cluster.disks.Disks`."""
        await trio.lowlevel.checkpoint()
        end_rebuild(self._directory.node(node))

    async def wait_gone(self, node: int) -> OSError:
        """See `cluster.disks.Disks`: nobody moves directories here."""
        del node
        await trio.sleep_forever()
        raise AssertionError("unreachable")


class MemoryDisk:
    """The disk of one life of a node: a `cluster.disks.Disk`.

    Args:
        opened: what it holds.
        files: what that stands on.
        post: called with each completion.

    """

    def __init__(self, opened: Opened, files: MemoryFiles, post: Callable[[Completion], object]) -> None:
        """Have nothing to do yet; `run` works."""
        self.wal = opened.wal
        self._files = files
        self._post = post
        self._twin = Twin(opened.wal, files, opened.snapshots, post)
        self._delay_s = 0.0
        self._is_stalled = self._is_stopped = False
        self._changed = trio.Event()
        self._ended = trio.Event()

    # The port

    def submit(self, item: Write | Job) -> None:
        """Take a write or a job; after the end it is dropped."""
        if not self._ended.is_set():
            self._twin.submit(item)
            self._changed.set()

    async def stop(self, *, drop_queued: bool = True) -> None:
        """End; what waits is dropped."""
        assert drop_queued, "nobody asks for anything else"
        self._is_stopped = True
        self._changed.set()
        await self._ended.wait()

    # Faults

    @property
    def delay_s(self) -> float:
        """How long each batch, and each job, waits first."""
        return self._delay_s

    @delay_s.setter
    def delay_s(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._changed.set()

    def fail_next(self) -> None:
        """Let the next step fail."""
        self._files.fail_next()

    def stall(self) -> None:
        """Stand still."""
        self._is_stalled = True

    def unstall(self) -> None:
        """End that."""
        self._is_stalled = False
        self._changed.set()

    def fill(self) -> None:
        """Have no room for anything new."""
        self._files.capacity_bytes = self._files.used_bytes

    def unfill(self) -> None:
        """Have room."""
        self._files.capacity_bytes = None
        self._changed.set()

    # The work

    async def run(self) -> None:
        """Work until stopped."""
        try:
            # As with a thread: before the first write it is known whether there is room.
            self._twin.look_for_space()
            while not self._is_stopped:
                self._changed = trio.Event()
                if not await self._work():
                    await self._changed.wait()
        except OSError as error:
            self._post(DiskFailed(error))
        finally:
            self._ended.set()
            self.wal.close()

    async def _work(self) -> bool:
        """Carry out what waits: one batch, and one job; return whether there was something that could be done."""
        twin = self._twin
        has_writes = twin.writes_waiting > 0 or twin.is_waiting
        if not (has_writes or twin.ready_job is not None):
            twin.look_for_space()
            return False
        await self._pass_gate()
        if self._is_stopped:
            return False
        is_done = False
        if has_writes:
            ticket = twin.step()
            if ticket is not None:
                self._post(Stored(ticket))
                is_done = True
        job = twin.ready_job
        if job is not None:
            twin.step_job(job)
            is_done = True
        return is_done

    async def _pass_gate(self) -> None:
        """Wait as long as a fault says; others have their turn in any case."""
        began_s = trio.current_time()
        await trio.lowlevel.checkpoint()
        while not self._is_stopped and (self._is_stalled or trio.current_time() < began_s + self._delay_s):
            deadline = math.inf if self._is_stalled else began_s + self._delay_s
            self._changed = trio.Event()
            with trio.CancelScope(deadline=deadline):
                await self._changed.wait()
