"""The nodes of a cluster as those see them who keep them running, operate them and break them."""

from collections.abc import Collection, Iterable, Mapping

import attrs
import trio

from trio_kv.cluster.disks import Disk, Found
from trio_kv.cluster.node import Clock, Node
from trio_kv.wire.node_status import NodeStatus


class FaultError(ValueError):
    """Something was asked of the cluster that makes no sense now. The text says why."""


@attrs.define(eq=False)
class Member:
    """A node, whether it runs or not."""

    status: NodeStatus
    is_wanted: bool = True
    is_living: bool = False
    """From before its disk is opened until after its disk has ended."""
    is_restarting: bool = False
    """It was killed only to come back at once."""
    is_being_replaced: bool = False
    """It gets a new directory just now, and must not start before that is there."""
    found: Found | None = None
    """What its disk looked like when it started last."""
    crashes: int = 0
    """In a row."""
    attempts: int = 0
    clock: Clock = attrs.field(factory=Clock)
    node: Node | None = None
    disk: Disk | None = None
    disk_delay_s: float = 0.0
    scope: trio.CancelScope | None = None
    paused_at: float = 0.0
    has_disk_failed: bool = False
    """It stopped because of its disk, and was not started since."""
    hung_reason: str = ""
    """What is told of its disk, while that hangs."""
    wake: trio.Event = attrs.field(factory=trio.Event)

    @property
    def has_all_data(self) -> bool:
        """Whether it runs, so that its disk was read, and is not being filled by the others."""
        return self.node is not None and not self.node.replica.raft.is_rebuilding

    def kill(self) -> None:
        """Let it die as if its power failed: unsynced writes are dropped."""
        if self.is_living and self.scope is not None:
            self.scope.cancel()

    async def wait_wake(self) -> None:
        """Wait until its supervisor should look at it anew."""
        await self.wake.wait()
        self.wake = trio.Event()


class Members:
    """The nodes of a cluster that run in this process.

    Args:
        statuses: what is known of all nodes; in their order.
        here: those that run here.

    """

    def __init__(self, statuses: Mapping[int, NodeStatus], here: Collection[int]) -> None:
        """Want all of them to run; see the class."""
        self.all = {node: Member(status) for node, status in statuses.items() if node in here}
        self._statuses = statuses

    def named(self, node: int) -> Member:
        """Return a node of this process that somebody has named.

        Raises:
            FaultError: there is none of that number, or it runs in another process.

        """
        self.check(node)
        if node not in self.all:
            raise FaultError(f"node {node} runs in another process")
        return self.all[node]

    def check(self, node: int) -> None:
        """Check that there is a node, in whichever process.

        Raises:
            FaultError: there is none of that number.

        """
        if node not in self._statuses:
            raise FaultError(f"there is no node {node}: the nodes are {', '.join(map(str, self._statuses))}")

    def named_running(self, node: int) -> tuple[Member, Node]:
        """Return a node that somebody has named, and that must run.

        Raises:
            FaultError: there is none of that number, or it does not run.

        """
        member = self.named(node)
        if member.node is None:
            hung = f", and {member.hung_reason}" if member.hung_reason else ""
            raise FaultError(f"node {node} does not run: it is {member.status.state}{hung}")
        return member, member.node

    def running(self) -> Iterable[Node]:
        """Return the nodes that run."""
        return [member.node for member in self.all.values() if member.node is not None]
