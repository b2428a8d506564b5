"""The disks of the whole world: no thread, no file, and power that fails on purpose.

`SimulatedDisks` stands where `cluster.disks.RealDisks` stands. Behind it is the real code of a data directory on a disk
in memory (`sim.whole.root`), and for each node a `sim.whole.drive.WholeDrive`.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from random import Random

import trio

from trio_kv.cluster.disks import Decode, Found, Known, Loaded, Moved
from trio_kv.sim.whole.drive import WholeDrive
from trio_kv.sim.whole.host import WholeHost
from trio_kv.sim.whole.root import Root
from trio_kv.storage.rebuild import end_rebuild


class SimulatedDisks:
    """All drives of a world."""

    def __init__(self, host: WholeHost, nodes: tuple[int, ...]) -> None:
        """Make empty drives for all nodes."""
        self.nodes = nodes
        self.root = Root(host, nodes)
        self.drives = {node: WholeDrive(host, self.root, node) for node in nodes}
        self._host = host

    @property
    def cluster(self) -> str:
        """The id of their cluster."""
        return self.root.directory.manifest.cluster

    @property
    def incarnations(self) -> Mapping[int, int]:
        """Each node's incarnation, as it is now."""
        return self.root.directory.manifest.incarnations

    async def examine(self, node: int) -> Found:
        """See `cluster.disks.Disks`."""
        await trio.lowlevel.checkpoint()
        found = self.drives[node].examine()
        return Found(
            found,
            is_rebuilding=found.is_rebuilding,
            snapshot_log_bytes_min=self._host.plan.snapshot_log_bytes_min,
        )

    async def load(self, node: int, decode: Decode, known: Known | None, moved: Moved) -> Loaded:
        """See `cluster.disks.Disks`. A disk that stands still gives nothing."""
        await trio.sleep(self._host.plan.disk_s * (0.5 + 1.5 * self._host.random.random()))
        await self.drives[node].wait_moving()
        await moved()
        return self.drives[node].load(decode, known)

    async def rebuild(self, node: int, random: Random, running: Collection[int]) -> Path | None:
        """See `cluster.disks.Disks`."""
        await trio.sleep(self._host.plan.disk_s)
        del random
        moved = self.root.rebuild(node, running)
        self.drives[node].replace(self.root.content(node))
        return moved

    async def end_rebuild(self, node: int) -> None:
        """See `cluster.disks.Disks`."""
        await trio.sleep(self._host.plan.disk_s)
        drive = self.drives[node]
        try:
            end_rebuild(drive.directory)
        except OSError as error:
            # It is the disk that failed, whoever asked it for something.
            if drive.timed is not None:
                drive.timed.fail(error)

    async def wait_gone(self, node: int) -> OSError:
        """See `cluster.disks.Disks`: nobody moves directories here."""
        del node
        await trio.sleep_forever()
        raise AssertionError
