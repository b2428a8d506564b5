"""Loading: who reads next what its disk holds, when many nodes of a process start at once.

One is loaded after the other, for each takes the whole processor, and three of five can elect: so those with the
shortest logs go first, which are done first. A node whose disk gives nothing lets the others go on.
"""

from functools import partial
from operator import attrgetter

import trio

from trio_kv.cluster.disks import Disks, Found, Loaded
from trio_kv.cluster.hangs import DiskWaits
from trio_kv.cluster.members import Member, Members
from trio_kv.cluster.registry import Registry
from trio_kv.kv.commands import decode_command
from trio_kv.kv.siblings import Siblings
from trio_kv.raft.runs import SharedReader, SharedRuns
from trio_kv.replica.turns import Turns
from trio_kv.storage.errors import FULL
from trio_kv.storage.helper import FULL_RETRY_S

SERVING_FIRST_S = 10.0
"""At a start with much data the last nodes are read only when the first ones serve, or after this long."""
SERVING_CHECKED_S = 0.02
EXAMINED_S = 0.5
"""How long the first load waits until it is known of all nodes how much they have to read."""
LOAD_LEASE_S = 2.0
"""A node whose disk gives nothing for so long while it is read gives its turn to the next one."""
LOAD_ASKED_S = 0.2
"""How often a node that waits to be read asks whether its turn has come."""
LARGE_BYTES = 16 << 20
"""From this size of its snapshot on a node takes long to read."""

_applied = attrgetter("applied")


class Loader:
    """Loads nodes in turn.

    Args:
        disks: where the nodes live.
        disk_waits: waits for disks, which may hang.
        members: all nodes.
        registry: tells who leads.

    """

    def __init__(self, disks: Disks, disk_waits: DiskWaits, members: Members, registry: Registry) -> None:
        """Load nothing yet; see the class."""
        self._disks = disks
        self._disk_waits = disk_waits
        self._members = members
        self._registry = registry
        self._turns = Turns(LOAD_LEASE_S)
        self._ended = trio.lowlevel.ParkingLot()
        self._examined: set[int] = set()
        self._all_examined = trio.Event()
        self._loading: set[int] = set()
        """Nodes that are loaded or wait for it."""
        self._runs = SharedRuns(decode_command)
        self._siblings = Siblings()

    def __contains__(self, node: int) -> bool:
        """Return whether a node is loaded, or waits for it."""
        return node in self._loading

    @property
    def is_active(self) -> bool:
        """Whether nodes still read what their disks hold, and get on with it."""
        return any(not self._disk_waits.hung_s(node) for node in self._loading)

    def forget_shared(self) -> None:
        """Forget what the nodes share if all that are left hang: it is as large as a log, and may be for long."""
        if self._loading and not self.is_active:
            self._runs.forget_read()

    async def examine(self, node: int) -> Found:
        """Return what a node's disk looks like."""
        found = await self._disk_waits.wait(node, partial(self._disks.examine, node))
        self._examined.add(node)
        if len(self._examined) == len(self._members.all):
            self._all_examined.set()
        return found

    async def load(self, member: Member, found: Found) -> Loaded:
        """Load a node; where that takes room on a disk that is full, as seldom it does, wait for that."""
        while True:
            try:
                return await self._load_in_turn(member, found)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                member.status.reason = f"its disk is full: {error.strerror}"
            await trio.sleep(FULL_RETRY_S)

    async def _load_in_turn(self, member: Member, found: Found) -> Loaded:
        node = member.status.node
        self._loading.add(node)
        member.status.reason = "its disk is being read"
        self._turns.ask(trio.current_time(), node, found.log_bytes)
        try:
            with trio.move_on_after(EXAMINED_S):
                await self._all_examined.wait()
            await self._take_turn(node, found.log_bytes)
            if found.snapshot_bytes >= LARGE_BYTES:
                with trio.move_on_after(SERVING_FIRST_S):
                    await self._let_majority_serve(node)
            running = [each.replica.machine for each in self._members.running()]
            # The one whose state is nearest to an old snapshot's.
            known = min(running, key=_applied).get if running else None
            moved = partial(self._moved, node, found.log_bytes)
            load = partial(self._disks.load, node, SharedReader(self._runs), known, moved)
            loaded = await self._disk_waits.wait(node, load)
            loaded.machine.join(self._siblings)
            return loaded
        finally:
            self._loading.discard(node)
            self._runs.forget_read()
            self._turns.give_back(node)
            self._ended.unpark_all()

    async def _take_turn(self, node: int, log_bytes: int) -> None:
        """Wait until no other node is loaded, but for those whose disks hang, and none waits that has less to read."""
        while not self._turns.take(trio.current_time(), node, log_bytes):
            with trio.move_on_after(LOAD_ASKED_S):
                await self._ended.park()

    async def _moved(self, node: int, log_bytes: int) -> None:
        """Keep the turn of a node whose disk gave something, or let it wait for another one if it was too late."""
        self._disk_waits.not_now(node)
        await self._take_turn(node, log_bytes)
        self._disk_waits.moved(node)

    async def _let_majority_serve(self, node: int) -> None:
        """Once a majority runs, let it elect and apply its logs before further nodes take the processor."""
        replicas = [each.replica for each in self._members.running()]
        if not self._registry.voters.has_majority([replica.id for replica in replicas]):
            return
        # What it waits for is looked up, not told: it happens once, at a start with much data.
        while self._registry.leader() is None or any(  # noqa: ASYNC110 - see above
            replica.is_behind for replica in replicas
        ):
            self._turns.renew(trio.current_time(), node)
            await trio.sleep(SERVING_CHECKED_S)
