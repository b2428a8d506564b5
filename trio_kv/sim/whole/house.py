"""The house of the whole world.

What is real: the supervisor, the nodes and their registry, the network between them, the gateway, the door and its
connections, all as Trio tasks. What is a twin: the clock (Trio's own for tests), the disks, the client's sockets.
Beside them stand the judges of the core world, who see each pass of each node, and clients who write a history.

A crash is not a cancellation: a cancelled task still runs what it has to clean up. So the node is stopped first, then
its disk loses what power loss takes, and only then the task is cancelled.

**An event** is a pass of a node, a message that reached a node, a completion of a disk, or a line of a client, either
way. A step of a Trio task is cheaper than any of them, and isn't counted.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

import trio

from trio_kv.cluster.cluster import Cluster
from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.members import FaultError
from trio_kv.gateway.raft import RaftStore
from trio_kv.sim.drive import START_AGAIN_S
from trio_kv.sim.plan import Plan
from trio_kv.sim.result import Result
from trio_kv.sim.whole.clients import Client
from trio_kv.sim.whole.disks import SimulatedDisks
from trio_kv.sim.whole.door import Door
from trio_kv.sim.whole.drive import WholeDrive
from trio_kv.sim.whole.network import LatentLinks, SimulatedNetwork
from trio_kv.sim.whole.nodes import NodeHost, WatchedNode
from trio_kv.sim.whole.scheduling import run_seeded
from trio_kv.sim.whole.sink import WorldSink
from trio_kv.sim.whole.sockets import ClientNetwork
from trio_kv.sim.whole.starvation import Starvation
from trio_kv.sim.whole.watchers import WATCHERS, Watcher
from trio_kv.trace.trace import Trace
from trio_kv.wire.node_status import State

STEPS_MAX = 1_000_000
"""A run with more steps of tasks goes round in circles."""
RESTART_S = 0.01
"""The least delay of what must happen after a node has ended."""


class House(NodeHost):
    """The real house, over twins."""

    links: LatentLinks
    drives: Mapping[int, WholeDrive]

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None = None) -> None:
        """Prepare a run.

        Args:
            plan: what is to happen.
            tell: takes a line for each thing that happens, for people.

        """
        super().__init__(plan, tell)
        self._nursery: trio.Nursery | None = None
        self.starvation = Starvation(self)

    # One run

    def run(self) -> Result:
        """Run both phases.

        Raises:
            Violation: a judge found something.

        """
        return run_seeded(self._run, self.plan.seed, steps_max=STEPS_MAX)

    async def _run(self) -> Result:
        result: Result | None = None
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    await self._start(nursery)
                    result = await self.live()
                    nursery.cancel_scope.cancel()
        except* Exception as group:  # noqa: BLE001 - told at once below, as the first of them
            self.error = self.error or _first(group)
        if self.error is not None:
            raise self.error
        assert result is not None
        return result

    async def _start(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._build()
        nursery.start_soon(self.timers.run)
        self._start_cluster(nursery)
        await nursery.start(self.store.run)
        nursery.start_soon(self.door.run)
        for client in self.clients[1:]:
            nursery.start_soon(client.run)
        for watcher in self.watchers:
            nursery.start_soon(watcher.run)

    def _build(self) -> None:
        plan, random = self.plan, self.random
        sink = WorldSink(self)
        trace = Trace([sink], wall_s=trio.current_time, mono_s=trio.current_time)
        self._build_cluster(trace)
        self.store = RaftStore(
            self.cluster.registry,
            Random(random.getrandbits(64)),
            session_timeout_s=plan.session_timeout_us / 1_000_000,
            secrets=Random(f"{plan.seed}/secrets"),
            watch_window=self.draw_watch_window(),
        )
        self.network = ClientNetwork(self.after, Random(random.getrandbits(64)), plan.latency_s / 4)
        self.door = Door(self, self.store, trace, idle_timeout_s=random.choice((0.3, 2.0, 10.0)))
        self.clients = [
            Client(number, Random(random.getrandbits(64)), self) for number in range(plan.clients + 1)
        ]
        """Client 0 only probes."""
        self.watchers = [Watcher(number, self) for number in range(WATCHERS)]

    def _build_cluster(self, trace: Trace) -> None:
        plan, random = self.plan, self.random
        self.links = LatentLinks(Random(random.getrandbits(64)), plan.latency_s, plan.stragglers)
        self.node_network = SimulatedNetwork(self.links, self.random, self.after)
        self.disks = SimulatedDisks(self, self.members)
        self.drives = self.disks.drives
        self.cluster = Cluster(
            self.disks,
            self.draw_config(),
            trace,
            Random(random.getrandbits(64)),
            self.node_network,
            make_node=partial(WatchedNode, self),
        )

    def _start_cluster(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self.cluster.run)

    def draw_config(self) -> ClusterConfig:
        """Return the limits of a cluster."""
        return ClusterConfig(
            raft=self.plan.raft,
            # With the longest one the plan alone decides how long a node is down.
            restart_delay_min_s=self.random.choice((0.2, 1.0, 30.0)),
            restart_delay_max_s=30.0,
            inbox_peers_max=self.plan.inbox_max,
            inbox_requests_max=self.plan.inbox_max,
        )

    def draw_watch_window(self) -> int:
        """Return how many of the latest revisions the gateway tells watches of."""
        return Random(f"{self.plan.seed}/window").choice((16, 64, 8192))

    @property
    def events(self) -> int:
        """How many there were; see the module."""
        return self._passes + self.node_network.delivered + self.completions + self._lines

    def cluster_of(self, node: int) -> Cluster:
        """Return what operates a node."""
        del node
        return self.cluster

    def is_operable(self, node: int) -> bool:
        """Return whether the process lives that runs a node."""
        del node
        return True

    # Faults

    def is_paused(self, node: int) -> bool:
        """Return whether a node is paused, by whoever will let it go on."""
        return self.cluster_of(node).registry.nodes[node].state is State.PAUSED

    def crash(self, node: int, for_s: float, interruptions: int = 0) -> None:
        """Let power fail at a node, and come back later; nothing happens to one that is down."""
        if self._cut_power(node, interruptions):
            self.cluster_of(node).faults.crash(node)
            self.after(max(for_s, RESTART_S), self.restart, node, State.CRASHED)

    def _cut_power(self, node: int, interruptions: int = 0) -> bool:
        """Let all that a node does end at this moment; return whether it lived."""
        watched = self.running.get(node)
        if watched is None:
            return False
        self.crashes += 1
        self.coverage.reach("node crashed")
        # It may be about to run already: as if paused, it does nothing more before it is cancelled.
        watched.pause()
        drive = self.drives[node]
        drive.cut_power()
        drive.interruptions = interruptions
        self.node_network.detach(node)
        watched.end()
        return True

    def restart(self, node: int, state: State) -> None:
        """Let a node that is down in this state start again."""
        if self.cluster_of(node).registry.nodes[node].state is state and not self.is_up(node):
            try:
                self.cluster_of(node).restart(node)
            except FaultError as error:
                self.say(str(error))

    def resume(self, node: int) -> None:
        """Let a paused node go on, if it is one."""
        watched = self.running.get(node)
        if watched is not None and self.is_paused(node):
            if watched.replica.raft.is_leader:
                self.coverage.reach("paused leader resumed")
            self.cluster_of(node).faults.resume(node)

    def wipe(self, node: int, for_s: float) -> None:
        """Let a node lose its disk, and be rebuilt later."""
        self._take_down(node)
        self.drives[node].lose()
        self.after(max(for_s, RESTART_S), self._rebuild, node)

    def flip(self, node: int, for_s: float, part: str) -> None:
        """Let a node die, and its disk forget a bit; it starts again later, or tries to."""
        drive = self.drives[node]
        self._take_down(node)
        if not (drive.is_failed or drive.is_damaged):
            drive.flip(part)
            self.after(max(for_s, RESTART_S), self.restart, node, State.STOPPED)

    def _take_down(self, node: int) -> None:
        """Let a node die and stay down."""
        if self._cut_power(node) or self.cluster_of(node).registry.nodes[node].state is State.CRASHED:
            self.cluster_of(node).stop(node)

    def _rebuild(self, node: int) -> None:
        if self.is_up(node):
            return
        assert self._nursery is not None
        self._nursery.start_soon(self._rebuild_when_down, node)

    async def _rebuild_when_down(self, node: int) -> None:
        """Rebuild a node, as soon as it has noticed that its disk is gone, unless somebody else does."""
        drive = self.drives[node]
        while drive.is_failed or drive.is_damaged:
            if self.is_operable(node):
                try:
                    await self.cluster_of(node).rebuild(node)
                except FaultError as error:
                    self.say(str(error))
                else:
                    continue
            await trio.sleep(START_AGAIN_S)

    def transfer(self, leader: int, target: int) -> None:
        """Ask a leader, if it still is one, to hand over."""
        try:
            self.cluster_of(leader).transfer(target)
        except FaultError as error:
            self.say(str(error))
        else:
            self.transfers.add(target)

    def let_in(self, lines: Sequence[bytes]) -> None:
        """Let a stranger come to the door."""
        assert self._nursery is not None
        self._nursery.start_soon(self.door.meet_stranger, lines)

    def state(self, node: int) -> str:
        """Return in what state a node is that does not run."""
        return self.cluster_of(node).registry.nodes[node].state

    def is_slow(self, node: int) -> bool:
        """Return whether a node is so slow, or its disk is, that it may lose its followers again and again."""
        running = self.running.get(node)
        return running is not None and (
            node in self.starvation or running.clock.rate != 1.0 or self.drives[node].is_slow
        )

    # The end

    def mend(self) -> None:
        """Mend all that can be mended, and start what can be started."""
        self.say("all is healed")
        self.cluster.faults.heal()
        self.node_network.in_next_install = None
        self.links.stragglers = 0.0
        self.starvation.end_all()
        for node, drive in self.drives.items():
            drive.mend()
            self.cluster_of(node).faults.skew_clock(node, 1.0)
            self.resume(node)
            if not self.is_up(node) and not drive.is_lost:
                self.restart(node, State.CRASHED)
                self.restart(node, State.STOPPED)

    async def probe(self, within_s: float) -> None:
        """Write and read something, over a connection."""
        began_s = self.now
        for op in ("set", "get"):
            while not await self.clients[0].probe(op):
                self.require_in_time(f"a {op}", within_s, began_s)

    async def end_clients(self, within_s: float | None) -> None:
        """Let the clients end what they have begun: each of their requests has its own bound."""
        for client in self.clients:
            client.stop()
        for client in self.clients[1:]:
            await client.wait_left()
        if within_s is not None:
            await self.wait_until(
                "all is told to who watches",
                within_s,
                lambda: all(each.is_complete for each in self.watchers),
            )

    def is_at_rest(self) -> bool:
        """Return whether all nodes hold the same, and nothing is left to do."""
        are_up = all(self.is_up(node) or drive.is_lost for node, drive in self.drives.items())
        return are_up and super().is_at_rest()


def _first(group: BaseExceptionGroup[Any]) -> Exception:
    """Return the first exception of a group that is none itself."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, Exception)
    return found
