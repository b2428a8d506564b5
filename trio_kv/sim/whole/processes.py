"""The house of the whole world in several processes: the real links between them, over twins of their connections.

A process is all that `cluster.process` joins: its nodes and their supervisor, a registry of all nodes, and links to the
other processes. The first one has the gateway and the door, and lives as long as the run. The others die and come back.
They share one data directory, as the processes of `serve --processes` do.

Each process has links of its own (`transport.links`), of which the first one's are operated; what is wrong with them is
told to the others over the wires, as in life. Slow links and stragglers are of the simulation, and are the same in all.
"""

from collections.abc import Callable, Mapping
from functools import partial
from random import Random

import attrs
import trio

from trio_kv.check.former_selves import Heard
from trio_kv.check.violation import Violation
from trio_kv.cluster.cluster import Cluster
from trio_kv.cluster.process import ClusterProcess
from trio_kv.raft.events import Event
from trio_kv.raft.messages import Message
from trio_kv.sim.plan import Plan
from trio_kv.sim.whole.disks import SimulatedDisks
from trio_kv.sim.whole.house import RESTART_S, House
from trio_kv.sim.whole.network import LatentLinks, SimulatedNetwork
from trio_kv.sim.whole.nodes import WatchedNode
from trio_kv.sim.whole.strangers import PATIENCE_S, Former, call, words_of, words_of_former
from trio_kv.sim.whole.wires import Wires, WireSecurity
from trio_kv.trace.processes import LinkFailed, LinkLost, LinkRefused
from trio_kv.trace.trace import Trace
from trio_kv.transport.peers import Layout
from trio_kv.wire.links import VERSIONS, Hello
from trio_kv.wire.node_status import State

FIRST = 0
"""The process with the door."""
SECRET = "known to all processes"  # noqa: S105 - of a world
REFUSALS = ("it did not say within", "which it does not have")
"""For which a process may be refused though all is well: it was slow, or a node of its has another disk since."""
LOSSES = ("nothing came for", "closed", "reset", "gone")
"""The same, for the loss of a connection."""


@attrs.define(eq=False)
class Life:
    """One process, from its start until it dies."""

    parts: ClusterProcess
    network: SimulatedNetwork
    layout: Layout
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ended: trio.Event = attrs.field(factory=trio.Event)
    is_alive: bool = True


class ProcessNetwork(SimulatedNetwork):
    """The network of one process, which judges what comes from others."""

    def __init__(self, world: "ProcessesHouse", layout: Layout, links: LatentLinks, random: Random) -> None:
        """Connect nobody yet."""
        super().__init__(links, random, world.after)
        self._world = world
        self._layout = layout
        self._heard = Heard()

    def deliver(self, message: Message) -> bool:
        """Give a message to its target; what comes over a link must not be of a former self that is known as one."""
        layout, source = self._layout, message.source
        is_from_elsewhere = message.target in layout.here and source not in layout.here
        if is_from_elsewhere and self._heard.note(layout.own, source, message.incarnation) < 0:
            self._world.fail(Violation(f"process {layout.own} takes {message} of a former self of n{source}"))
        return super().deliver(message)


class Networks:
    """The networks of all processes, as who breaks and judges them sees one."""

    def __init__(self, lives: Mapping[int, Life], random: Random) -> None:
        """Join them."""
        self._lives = lives
        self._random = random
        self.delivered_before = 0
        """By processes that are no more."""

    @property
    def delivered(self) -> int:
        """How many messages have reached a node, or a link to another process."""
        return self.delivered_before + sum(life.network.delivered for life in self._lives.values())

    @property
    def in_next_install(self) -> Callable[[], None] | None:
        """See `SimulatedNetwork`."""
        return self._lives[FIRST].network.in_next_install

    @in_next_install.setter
    def in_next_install(self, act: Callable[[], None] | None) -> None:
        def act_once() -> None:
            assert act is not None
            self.in_next_install = None
            act()

        for life in self._lives.values():
            life.network.in_next_install = None if act is None else act_once

    def replay(self, count: int) -> None:
        """Let messages of the past be on their way once more."""
        for _ in range(count):
            self._random.choice(list(self._lives.values())).network.replay(1)

    def detach(self, node: int) -> None:
        """Let messages to a node be lost."""
        for life in self._lives.values():
            if node in life.layout.here:
                life.network.detach(node)


class ProcessesHouse(House):
    """The real house, in several processes."""

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None = None) -> None:
        """Prepare a run; see `House`."""
        super().__init__(plan, tell)
        self._chance = Random(f"{plan.seed}/processes/chance")
        self.lives: dict[int, Life] = {}
        self.nodes_of = deal(self.members, plan.processes)
        self._formers: list[Former] = []
        self._refusals_until_s = 0.0

    node_network: Networks  # type: ignore[assignment]

    # One run

    def _build_cluster(self, trace: Trace) -> None:
        plan, chance = self.plan, self._chance
        self._trace = trace
        self.wires = Wires(self.after, Random(chance.getrandbits(64)), plan.latency_s / 4)
        # A wrong length is noticed when nothing is answered any more.
        self.wires.on_flip = partial(self.expect_refusals, 2 * plan.raft.election_timeout_max_s + PATIENCE_S)
        self.disks = SimulatedDisks(self, self.members)
        self.drives = self.disks.drives
        self._config = self.draw_config()
        for process in self.nodes_of:
            self.lives[process] = self._make(process)
        self.node_network = self._networks = Networks(self.lives, chance)
        first = self.lives[FIRST]
        self.cluster, self.links = first.parts.cluster, self._links_of(FIRST)

    def _links_of(self, process: int) -> LatentLinks:
        links = self.lives[process].network.links
        assert isinstance(links, LatentLinks)
        return links

    def _make(self, process: int) -> Life:
        """Make a life of a process."""
        plan, chance = self.plan, self._chance
        links = LatentLinks(Random(chance.getrandbits(64)), plan.latency_s, plan.stragglers)
        if process != FIRST:
            links.pipes = self._links_of(FIRST).pipes
            links.stragglers = self._links_of(FIRST).stragglers
        addresses = {each: (f"process-{each}", each) for each in self.nodes_of}
        layout = Layout(process, self.nodes_of, addresses)
        network = ProcessNetwork(self, layout, links, Random(chance.getrandbits(64)))
        parts = ClusterProcess.make(
            self.disks,
            layout,
            self._config,
            self._trace,
            Random(chance.getrandbits(64)),
            secret=SECRET,
            security=WireSecurity(self.wires, process),
            network=network,
            make_node=partial(WatchedNode, self),
        )
        return Life(parts, network, layout)

    def _start_cluster(self, nursery: trio.Nursery) -> None:
        for process in self.lives:
            nursery.start_soon(self._run_life, process)

    async def _run_life(self, process: int) -> None:
        life = self.lives[process]
        try:
            with life.scope:
                await life.parts.run([self.wires.listen_at(process)])
        finally:
            life.ended.set()

    # Processes that die

    def process_of(self, node: int) -> int:
        """Return the process that runs a node."""
        return next(process for process, nodes in self.nodes_of.items() if node in nodes)

    def cluster_of(self, node: int) -> Cluster:
        """Return what operates a node; of a process that is dead, what did."""
        return self.lives[self.process_of(node)].parts.cluster

    def is_operable(self, node: int) -> bool:
        """Return whether the process lives that runs a node."""
        return self.lives[self.process_of(node)].is_alive

    def kill(self, process: int, for_s: float, *, is_told: bool) -> None:
        """Let a process die, and come back later; nothing happens to one that is dead.

        Args:
            process: which one; not the first.
            for_s: how long it is dead.
            is_told: whether its connections end at once. Else its host lost power, and nobody is told.

        """
        life = self.lives[process]
        if not life.is_alive:
            return
        self.coverage.reach("process killed")
        life.is_alive = False
        for node in life.layout.here:
            self._cut_power(node)
        self.wires.kill(process, is_told=is_told)
        life.scope.cancel()
        self.after(max(for_s, RESTART_S), self.revive, process)

    def revive(self, process: int) -> None:
        """Let a dead process start again."""
        if not self.lives[process].is_alive:
            assert self._nursery is not None
            self._nursery.start_soon(self._revive, process)

    async def _revive(self, process: int) -> None:
        former = self.lives[process]
        await former.ended.wait()
        if self.lives[process] is former:
            self._networks.delivered_before += former.network.delivered
            self.lives[process] = self._make(process)
            await self._run_life(process)

    def restart(self, node: int, state: State) -> None:
        """Let a node that is down in this state start again; with its process, if that is dead."""
        if self.is_operable(node):
            super().restart(node, state)

    # Who has no business there

    def _rebuild(self, node: int) -> None:
        """Rebuild a node, and keep what there was of its process."""
        process, incarnations = self.process_of(node), self.disks.incarnations
        self._formers.append(
            Former(
                process,
                {each: incarnations[each] for each in self.nodes_of[process]},
                [message for message in self.lives[process].network.past if message.source == node],
            )
        )
        super()._rebuild(node)

    def let_former_call(self, target: int) -> None:
        """Let a process call of which a node was replaced since, if there is one."""
        incarnations = self.disks.incarnations
        for former in self._formers:
            is_former = any(incarnations[node] > each for node, each in former.incarnations.items())
            if is_former and former.process != target:
                self.coverage.reach("former self called")
                hello = self._hello(former.process, target, former.incarnations)
                said = [each for each in former.said if each.target in self.nodes_of[target]]
                self._let_call(target, words_of_former(hello, said))
                return

    def let_stranger_call(self, target: int, kind: str) -> None:
        """Let somebody call who is none of the cluster."""
        self.coverage.reach("stranger called")
        process = next(each for each in self.nodes_of if each != target)
        known = self.disks.incarnations
        hello = self._hello(process, target, {node: known[node] for node in self.nodes_of[process]})
        self._let_call(target, words_of(kind, hello, self._chance))

    def _hello(self, process: int, target: int, incarnations: Mapping[int, int]) -> Hello:
        return Hello(
            versions=VERSIONS,
            cluster=self.disks.cluster,
            process=process,
            target=target,
            incarnations=dict(incarnations),
            is_bulk=self._chance.random() < 0.2,
            nodes=self.plan.nodes,
            secret=SECRET,
        )

    def _let_call(self, target: int, words: bytes) -> None:
        assert self._nursery is not None
        self.expect_refusals(PATIENCE_S)
        self._nursery.start_soon(self._call, target, words)

    async def _call(self, target: int, words: bytes) -> None:
        life = self.lives[target]
        if not await call(self.wires, target, words) and life.is_alive:
            raise Violation(f"process {target} does not send a stranger away who says {words[:100]!r}")

    def expect_refusals(self, for_s: float) -> None:
        """Let processes tell for a while that they refused what somebody said."""
        self._refusals_until_s = max(self._refusals_until_s, self.now + for_s)

    def tell_event(
        self, event: Event, node: int | None = None, term: int | None = None, role: str | None = None
    ) -> None:
        """Tell and judge an event; see `House`."""
        if isinstance(event, LinkFailed):
            raise Violation(f"a connection between processes raised: {event.traceback}")
        if isinstance(event, LinkRefused | LinkLost) and self.now > self._refusals_until_s:
            expected = REFUSALS if isinstance(event, LinkRefused) else LOSSES
            if not any(reason in event.reason for reason in expected):
                raise Violation(f"{event.name}, and nobody said anything wrong: {event.reason}")
        super().tell_event(event, node, term, role)

    # The end

    def mend(self) -> None:
        """Mend all that can be mended, and start what can be started."""
        self.wires.mend()
        for process in self.lives:
            self.revive(process)
        for process in self.lives:
            self._links_of(process).stragglers = 0.0
        super().mend()


def deal(nodes: tuple[int, ...], processes: int) -> dict[int, tuple[int, ...]]:
    """Return which nodes each process runs, as `serve --processes` deals them."""
    return {process: nodes[process::processes] for process in range(processes)}
