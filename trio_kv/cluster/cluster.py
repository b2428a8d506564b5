"""A cluster of one process: its nodes, the network between them, and how it is operated."""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from operator import attrgetter, itemgetter
from random import Random

import attrs
import trio

from trio_kv.cluster.backup import take_backup
from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.disks import Disks
from trio_kv.cluster.elsewhere import Look
from trio_kv.cluster.faults import Faults
from trio_kv.cluster.lives import KnownLives
from trio_kv.cluster.looks import look_at_absent, look_at_links, look_at_node
from trio_kv.cluster.members import FaultError, Member
from trio_kv.cluster.node import Node
from trio_kv.cluster.others import Others
from trio_kv.cluster.registry import FIRST_PROCESS, Registry
from trio_kv.cluster.statistics import ClusterStatistics, MemberStatistics, look_at
from trio_kv.cluster.supervisor import Supervisor
from trio_kv.raft.messages import Message
from trio_kv.replica import jobs
from trio_kv.replica.driver import TakeSnapshot, Transfer
from trio_kv.storage.errors import StorageError
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import ClusterStarted, DiskFailed, RebuildStarted
from trio_kv.transport.network import Network, Tap
from trio_kv.wire.node_status import State

REBUILD_S = 10.0
"""How long a command waits for a rebuild's first step, which takes milliseconds on a disk that works."""


START_BITS = 32
"""Of what tells the lives of a process from one another."""


class Cluster:
    """All nodes of one process. `run` keeps them going; everything else may be called meanwhile.

    What operates it is here, what breaks it in `faults`.
    """

    def __init__(
        self,
        disks: Disks,
        config: ClusterConfig,
        trace: Trace,
        random: Random,
        network: Network,
        *,
        make_node: Callable[..., Node] = Node,
        here: Collection[int] | None = None,
        process: int = FIRST_PROCESS,
    ) -> None:
        """Make a cluster of the nodes that have disks.

        Args:
            disks: where they live.
            config: time-outs and limits.
            trace: takes all events.
            random: seeds what the nodes draw.
            network: joins the nodes.
            make_node: makes a node of its parts, which are the arguments of `Node`.
            here: the nodes that run in this process; None: all of them.
            process: the number of this process.

        """
        nodes = disks.nodes
        # A process that starts again must not hear what its former self had asked for.
        start = 0 if here is None else random.getrandbits(START_BITS)
        self.registry = Registry(list(nodes), process=process, start=start)
        self._network = network
        self._disks = disks
        self._trace = trace
        self._random = random
        self._supervisor = Supervisor(
            disks=disks,
            registry=self.registry,
            network=network,
            config=config,
            trace=trace,
            random=random,
            make_node=make_node,
            here=nodes if here is None else here,
        )
        self._members = self._supervisor.members
        self.lives = KnownLives(disks, self._members)
        """Which incarnations are known here."""
        self.others: Others | None = None
        """The nodes of other processes, if there are any."""
        self._nursery: trio.Nursery | None = None
        self._taps: tuple[Tap, ...] = ()
        self.faults = Faults(self._supervisor, network.links, trace, nodes)
        self.registry.faults = self.faults.active

    async def run(self) -> None:
        """Run all nodes until cancelled."""
        self._trace.emit(ClusterStarted(self._disks.cluster, self._disks.nodes, (*self._members.all,)))
        self._trace.on_level.append(self._supervisor.tell_level)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._network.run)
                nursery.start_soon(self._supervisor.run)
                for node in self._members.all:
                    nursery.start_soon(self._watch_place, node)
        finally:
            self._trace.on_level.remove(self._supervisor.tell_level)

    async def _watch_place(self, node: int) -> None:
        """Stop a node whose directory is not where it was: as a disk that failed, it would keep nothing."""
        while True:
            error = await self._disks.wait_gone(node)
            running = self._members.all[node].node
            if running is not None:
                running.inbox.post(jobs.DiskFailed(error))

    async def wait_leader(self) -> int:
        """Wait until a node leads; return it."""
        while (leader := self.registry.leader()) is None:
            await self.registry.wait_change()
        return leader.status.node

    @property
    def is_disk_abandoned(self) -> bool:
        """Whether `run` ended without a disk that hangs: that may write as long as the process lives."""
        return self._supervisor.disk_waits.is_abandoned

    @property
    def is_loading(self) -> bool:
        """Whether nodes still read what their disks hold."""
        return self._supervisor.loader.is_active

    def status(self) -> dict[str, object]:
        """Return the members of the protocol's status reply."""
        return self.registry.status()

    async def refresh(self) -> None:
        """Look anew at nodes of other processes, if there are any."""
        if self.others is not None:
            await self.others.refresh()

    def look_here(self) -> Look:
        """Return what is to be seen of the nodes of this process, for another one."""
        members = self._members.all.values()
        return Look(
            [self.registry.nodes[node] for node in self._members.all],
            [look_at_node(member, self.faults) for member in members],
            tuple([look_at(member) for member in members]),
            () if self.others is None else self.others.look_at_links(),
            self._network.lost,
        )

    def _look_elsewhere(self) -> tuple[Look, ...]:
        return () if self.others is None else tuple(self.others.looks.values())

    def look(self) -> dict[str, object]:
        """Return what is to be seen of nodes and links just now; see `looks`. Other processes' as of `refresh`."""
        leader = self.registry.leader()
        nodes = [look_at_node(member, self.faults) for member in self._members.all.values()]
        nodes += [each for look in self._look_elsewhere() for each in look.nodes]
        seen = {each["node"] for each in nodes}
        nodes += [look_at_absent(status) for node, status in self.registry.nodes.items() if node not in seen]
        return {
            "leader": leader.status.node if leader else None,
            "term": max(status.term for status in self.registry.nodes.values()),
            "majority": self.registry.voters.majority_size(),
            "nodes": sorted(nodes, key=itemgetter("node")),
            "links": look_at_links(self._network.links, self.registry.nodes),
            "faults": self.faults.active(),
        }

    def add_tap(self, tap: Tap) -> None:
        """Tell each message between nodes that is sent from now on to `tap`, too."""
        self._set_taps((*self._taps, tap))

    def remove_tap(self, tap: Tap) -> None:
        """Tell it no more."""
        self._set_taps(tuple(other for other in self._taps if other is not tap))

    def _set_taps(self, taps: tuple[Tap, ...]) -> None:
        # With one of them, or with none, nothing stands between it and the network.
        self._taps = taps
        self._network.tap = partial(_tell_all, taps) if len(taps) > 1 else taps[0] if taps else None

    def statistics(self) -> ClusterStatistics:
        """Return how all nodes are, in numbers."""
        looks = (self.look_here(), *self._look_elsewhere())
        members = [each for look in looks for each in look.members]
        seen = {each.node for each in members}
        members += [
            MemberStatistics(node, status.state, status.reason, is_loading=False, running=None)
            for node, status in self.registry.nodes.items()
            if node not in seen
        ]
        members.sort(key=attrgetter("node"))
        lost = sum(look.messages_lost for look in looks)
        links = tuple([link for look in looks for link in look.links])
        return ClusterStatistics(tuple(members), self.registry.voters, lost, len(self.faults.active()), links)

    def leader(self) -> int:
        """Return the node that leads.

        Raises:
            FaultError: none does just now.

        """
        leader = self.registry.leader()
        if leader is None:
            raise FaultError("no node leads just now")
        return leader.status.node

    def stop(self, node: int) -> None:
        """Let a node die and stay down until `restart`."""
        member = self._members.named(node)
        if not member.is_living and member.status.state is not State.CRASHED:
            raise FaultError(f"node {node} does not run: it is {member.status.state}")
        member.is_wanted = False
        member.wake.set()
        # Also one whose disk is still being read: it would run all the same.
        member.kill()

    def restart(self, node: int) -> None:
        """Start a node that is down, or let one that runs die and start again: at once, whatever its back-off was.

        Raises:
            FaultError: it is being rebuilt just now, or its disk hangs, and it starts by itself after that.

        """
        member = self._members.named(node)
        if member.is_being_replaced:
            raise FaultError(f"node {node} is just given a new directory, and starts by itself then")
        if member.node is None:
            member.is_wanted = True
            member.wake.set()
            self._supervisor.watch_disk(member)
            if member.is_living and member.hung_reason:
                raise FaultError(f"node {node} starts by itself as soon as it can: {member.hung_reason}")
        else:
            member.is_restarting = True
            member.kill()

    def snapshot(self, node: int) -> None:
        """Let a node take a snapshot now."""
        self._members.named_running(node)[1].inbox.post(TakeSnapshot())

    async def rebuild(self, node: int) -> dict[str, object]:
        """Give a node that is down a new directory, and start it to be filled by the others.

        Returns:
            where the old one was `moved_to`, or None if there was none.

        Raises:
            FaultError: it runs, or too few of the others have all of their data, or a disk hangs.

        """
        member = self._members.named(node)
        if member.is_living:
            if member.node is None and member.hung_reason:
                raise FaultError(f"node {node} can't be rebuilt now: {member.hung_reason}")
            raise FaultError(f"node {node} runs: stop it first")
        if member.is_being_replaced:
            raise FaultError(f"node {node} is being rebuilt already")
        # It must not come back, by itself or because somebody asks for it, while its directory is replaced.
        rebuilding = _Rebuilding(node, member.is_wanted)
        member.is_wanted, member.is_being_replaced = False, True
        member.wake.set()
        assert self._nursery is not None
        # In a task of its own: it must not be left half done when the asker leaves, and the asker waits for no disk.
        self._nursery.start_soon(self._rebuild, member, rebuilding)
        with trio.move_on_after(REBUILD_S):
            await rebuilding.ended.wait()
            if rebuilding.error is not None:
                raise rebuilding.error
            return {"moved_to": rebuilding.moved_to}
        rebuilding.is_awaited = False
        raise FaultError(
            f"the rebuild of node {node} waits for a disk that hangs; it goes on by itself when that moves again"
        )

    async def _rebuild(self, member: Member, rebuilding: "_Rebuilding") -> None:
        node = rebuilding.node
        try:
            await self.refresh()
            running = {*self.sound_nodes()}
            rebuild = partial(self._disks.rebuild, node, self._random, running)
            aside = await self._supervisor.disk_waits.wait(node, rebuild)
        except Exception as error:  # noqa: BLE001 - whoever asked is told, and else everybody
            # Nothing was done: it goes on as it would have.
            rebuilding.error = FaultError(str(error)) if isinstance(error, StorageError) else error
            if not rebuilding.is_awaited:
                self._trace.emit(DiskFailed("rebuild", str(error)), node=node)
            member.is_wanted, member.is_being_replaced = rebuilding.was_wanted, False
            member.wake.set()
        else:
            rebuilding.moved_to = None if aside is None else str(aside.absolute())
            member.is_being_replaced = False
            self._trace.emit(RebuildStarted(str(aside or "")), node=node)
            self.restart(node)
        finally:
            rebuilding.ended.set()

    def sound_nodes(self) -> Iterator[int]:
        """Yield the nodes that run with all of their data, in whichever process."""
        for node, status in self.registry.nodes.items():
            member, handle = self._members.all.get(node), self.registry.handle(node)
            if member.has_all_data if member is not None else handle is not None and status.has_all_data:
                yield node

    async def backup(self, without: Collection[int] = ()) -> dict[str, object]:
        """Take a snapshot that holds every write acknowledged before this call, for somebody to copy.

        A node that does not hear a leader, dies, or does not get its snapshot done costs some seconds: then another
        is asked, too, and the first snapshot that will do is taken.

        Args:
            without: nodes whose snapshots are of no use.

        Returns:
            its `path`, the `index` and `term` up to which it goes, and the `node` that took it. The file stays until
            the node's next snapshot.

        Raises:
            FaultError: no node could take it in time.

        """
        return await take_backup(self.registry, self._members.all, without)

    def running(self) -> Iterable[Node]:
        """Return the nodes that run in this process."""
        return self._members.running()

    def transfer(self, node: int) -> None:
        """Ask the leader to hand over to a node."""
        self._members.check(node)
        if self.registry.handle(node) is None:
            raise FaultError(f"node {node} does not run: it is {self.registry.nodes[node].state}")
        leader = self.leader()
        if leader == node:
            raise FaultError(f"node {node} leads already")
        self._members.named_running(leader)[1].inbox.post(Transfer(node))


@attrs.define(eq=False)
class _Rebuilding:
    """A rebuild whose first step is under way: who asked for it waits for what comes of it."""

    node: int
    was_wanted: bool
    ended: trio.Event = attrs.field(factory=trio.Event)
    is_awaited: bool = True
    moved_to: str | None = None
    error: Exception | None = None


def _tell_all(taps: tuple[Tap, ...], message: Message, is_lost: bool) -> None:
    for tap in taps:
        tap(message, is_lost)
