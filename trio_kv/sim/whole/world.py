"""One run of one plan in the whole world.

What is real: the supervisor, the nodes and their registry, the network between them, the gateway, the door and its
connections, all as Trio tasks. What is a twin: the clock (Trio's own for tests), the disks, the client's sockets.
Beside them stand the judges of the core world, who see each pass of each node, and clients who write a history.

A crash is not a cancellation: a cancelled task still runs what it has to clean up. So the node is stopped first, then
its disk loses what power loss takes, and only then the task is cancelled.

**An event** is a pass of a node, a message that reached a node, a completion of a disk, or a line of a client, either
way. A step of a Trio task is cheaper than any of them, and isn't counted.
"""

import hashlib
import struct
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random
from typing import Any

import trio

from trio_kv.check.history import Operation, RisingClock
from trio_kv.check.state_machine_safety import outcome_of
from trio_kv.check.violation import Violation
from trio_kv.cluster.cluster import Cluster
from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.members import FaultError
from trio_kv.gateway.raft import RaftStore
from trio_kv.replica.replica import Replica
from trio_kv.sim.drive import START_AGAIN_S
from trio_kv.sim.judges import Judges, judge_answer, judge_waiting
from trio_kv.sim.plan import INBOX_MAX, Plan
from trio_kv.sim.result import Result, describe
from trio_kv.sim.whole.clients import Client
from trio_kv.sim.whole.coverage import WholeCoverage
from trio_kv.sim.whole.disks import SimulatedDisks
from trio_kv.sim.whole.door import Door
from trio_kv.sim.whole.drive import SimulatedDisk
from trio_kv.sim.whole.network import LatentLinks, SimulatedNetwork
from trio_kv.sim.whole.nodes import WatchedNode
from trio_kv.sim.whole.scheduling import run_seeded
from trio_kv.sim.whole.sink import WorldSink
from trio_kv.sim.whole.sockets import ClientNetwork
from trio_kv.sim.whole.starvation import Starvation
from trio_kv.sim.whole.timers import Timers
from trio_kv.trace.trace import Trace
from trio_kv.wire.node_port import Answer, Done, Read
from trio_kv.wire.node_status import State

STEPS_MAX = 1_000_000
"""A run with more steps of tasks goes round in circles."""
RESTART_S = 0.01
"""The least delay of what must happen after a node has ended."""
_PACK = struct.Struct("<dBBQQQ").pack


class WholeWorld:
    """One run of one plan."""

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None = None) -> None:
        """Prepare a run.

        Args:
            plan: what is to happen.
            tell: takes a line for each thing that happens, for people.

        """
        self.plan = plan
        self.random = Random(plan.seed ^ 0x5EED)
        self.members = tuple(range(1, plan.nodes + 1))
        self.coverage = WholeCoverage()
        self.is_healed = False
        self.history: list[Operation] = []
        self.stale_reads: dict[int, Read] = {}
        self.proposed: set[int] = set()
        """The gateway's numbers of all proposals that a node took."""
        self._tell = tell
        self._timers = Timers()
        self.after = self._timers.after
        self._moments = RisingClock()
        self.stamp = lambda: self._moments.stamp(trio.current_time())
        self._hash = hashlib.blake2b(digest_size=16)
        self._passes = self._completions = self._lines = self._crashes = self._number = 0
        self._error: Exception | None = None
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self.now_s = 0.0
        """The time of the last pass of a node, for who looks at a run that is over."""

        judges = self._judges = Judges(
            self.members, is_tied=plan.is_tied, is_unsteady=self._is_unsteady, are_values_unique=True
        )
        self.chronicle, self.durability, self.terms = judges.chronicle, judges.durability, judges.terms
        self.answers, self.watch = judges.answers, judges.watch
        self.running: dict[int, WatchedNode] = {}
        self.starvation = Starvation(self)
        self.transfers: set[int] = set()
        """Nodes that were to take over, and did not yet."""

    # One run

    def run(self, live: "Callable[[WholeWorld], Awaitable[Result]]") -> Result:
        """Start everything, and run what is to be lived through, see `sim.whole.run`.

        Raises:
            Violation: a judge found something.

        """
        return run_seeded(partial(self._run, live), self.plan.seed, steps_max=STEPS_MAX)

    async def _run(self, live: "Callable[[WholeWorld], Awaitable[Result]]") -> Result:
        result: Result | None = None
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await self._start(nursery)
                    result = await live(self)
                    nursery.cancel_scope.cancel()
        except* Exception as group:  # noqa: BLE001 - told at once below, as the first of them
            self._error = self._error or _first(group)
        if self._error is not None:
            raise self._error
        assert result is not None
        return result

    async def _start(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._build()
        nursery.start_soon(self._timers.run)
        nursery.start_soon(self.cluster.run)
        await nursery.start(self.store.run)
        nursery.start_soon(self.door.run)
        for client in self.clients[1:]:
            nursery.start_soon(client.run)

    def _build(self) -> None:
        plan, random = self.plan, self.random
        sink = WorldSink(self.fail, None if self._tell is None else self.say)
        trace = Trace([sink], wall_s=trio.current_time, mono_s=trio.current_time)
        self.links = LatentLinks(Random(random.getrandbits(64)), plan.latency_s, plan.stragglers)
        self.node_network = SimulatedNetwork(self.links, self.after)
        self.disks = SimulatedDisks(self, self.members)
        self.cluster = Cluster(
            self.disks,
            ClusterConfig(
                raft=plan.raft,
                # With the longest one the plan alone decides how long a node is down.
                restart_delay_min_s=random.choice((0.2, 1.0, 30.0)),
                restart_delay_max_s=30.0,
                inbox_peers_max=plan.inbox_max,
                inbox_requests_max=plan.inbox_max,
            ),
            trace,
            Random(random.getrandbits(64)),
            self.node_network,
            make_node=partial(WatchedNode, self),
        )
        self.store = RaftStore(
            self.cluster.registry,
            Random(random.getrandbits(64)),
            session_timeout_s=plan.session_timeout_us / 1_000_000,
        )
        self.network = ClientNetwork(self.after, Random(random.getrandbits(64)), plan.latency_s / 4)
        self.door = Door(
            self.store,
            trace,
            self.network,
            self.coverage,
            self.after,
            idle_timeout_s=random.choice((0.3, 2.0, 10.0)),
        )
        self.clients = [
            Client(number, Random(random.getrandbits(64)), self) for number in range(plan.clients + 1)
        ]
        """Client 0 only probes."""

    def result(self, recovered_after_s: float) -> Result:
        """Return what came of the run.

        Args:
            recovered_after_s: how long it took, once all was mended, until all followed one leader.

        """
        self._judges.cover(self.coverage)
        return Result(
            self.plan.seed,
            self._trace_hash(),
            self.events,
            trio.current_time(),
            len(self.history),
            self._crashes,
            recovered_after_s,
            self.coverage,
        )

    @property
    def events(self) -> int:
        """How many there were; see the module."""
        return self._passes + self.node_network.delivered + self._completions + self._lines

    def fail(self, error: Exception) -> None:
        """End the run with an error: the first one counts."""
        if self._error is None:
            self._error = error
        self._scope.cancel()

    def say(self, line: str) -> None:
        """Tell a person what happens."""
        if self._tell is not None:
            self._tell(f"{trio.current_time():.6f} {line}")

    # What nodes tell

    def next_number(self) -> int:
        """Return a number for a request."""
        self._number += 1
        return self._number

    def node_started(self, node: WatchedNode, disk: SimulatedDisk) -> None:
        """Show a new life to the judges."""
        self.running[node.id] = node
        self.terms.disturbed()
        raft = node.replica.raft
        is_rebuilding = self.disks.drives[node.id].is_rebuilding
        self.watch.started(raft, node.replica.machine, disk.hard_state, is_rebuilding=is_rebuilding)

    def node_ended(self, node: WatchedNode) -> None:
        """Note that a node is no more; what it had taken gets no answer."""
        if not node.is_alive:
            return
        node.is_alive = False
        del self.running[node.id]
        self.terms.disturbed()
        self.watch.crashed(node.id)
        self.answers.died(node.id)

    def stepped(self, node: WatchedNode) -> None:
        """Put a pass into the trace."""
        self._passes += 1
        self.now_s = now = trio.current_time()
        raft = node.replica.raft
        self._hash.update(_PACK(now, node.id, raft.is_leader, raft.term, raft.log.last_index, raft.commit))
        judge_waiting(self._judges.overdue, now, node.replica, node.driver.turns, self.living())

    def judge_answer(self, node: WatchedNode, answer: Answer) -> None:
        """Judge an answer of a pass that is over."""
        stale = self.stale_reads.pop(answer.number, None)
        if stale is not None:
            if isinstance(answer, Done):
                self._judge_stale(node, stale, answer)
            return
        is_leader = node.replica.raft.is_leader
        judge_answer(self.answers, self.coverage, answer, node.id, is_leader=is_leader)

    def _judge_stale(self, node: WatchedNode, read: Read, answer: Done) -> None:
        """Judge a stale read: it tells what was once true, and nothing older than its reader has seen."""
        if answer.applied < read.applied_min:
            raise Violation(
                f"n{node.id} answered a stale read at {answer.applied}, seen was {read.applied_min}"
            )
        for query, reply in zip(read.queries, answer.replies, strict=True):
            due = self.chronicle.reference.answer(query, answer.applied)
            given = outcome_of(reply)
            if given != due:
                raise Violation(f"n{node.id}: a stale {query} at {answer.applied} gave {given}, not {due}")

    # What disks tell

    def completed(self) -> None:
        """Count a completion of a disk."""
        self._completions += 1

    # What clients tell

    def record(self, operation: Operation) -> None:
        """Put an operation into the history."""
        self.history.append(operation)

    def line(self, client: int, arrow: str, line: bytes) -> None:
        """See a line pass, to a client or from it."""
        self._lines += 1
        self._hash.update(_PACK(trio.current_time(), client, arrow == ">", 0, 0, 0) + line)
        if self._tell is not None:
            self._tell(f"{trio.current_time():.6f} c{client} {arrow} {line[:200]!r}")

    # Faults

    def is_up(self, node: int) -> bool:
        """Return whether a node lives, paused or not."""
        return node in self.running

    def is_paused(self, node: int) -> bool:
        """Return whether a node is paused, by whoever will let it go on."""
        return self.cluster.registry.nodes[node].state is State.PAUSED

    def crash(self, node: int, for_s: float, interruptions: int = 0) -> None:
        """Let power fail at a node, and come back later; nothing happens to one that is down."""
        if self._cut_power(node, interruptions):
            self.cluster.faults.crash(node)
            self.after(max(for_s, RESTART_S), self.restart, node, State.CRASHED)

    def _cut_power(self, node: int, interruptions: int = 0) -> bool:
        """Let all that a node does end at this moment; return whether it lived."""
        watched = self.running.get(node)
        if watched is None:
            return False
        self._crashes += 1
        self.coverage.reach("node crashed")
        # It may be about to run already: as if paused, it does nothing more before it is cancelled.
        watched.pause()
        drive = self.disks.drives[node]
        drive.cut_power()
        drive.interruptions = interruptions
        self.node_network.detach(node)
        self.node_ended(watched)
        return True

    def restart(self, node: int, state: State) -> None:
        """Let a node that is down in this state start again."""
        if self.cluster.registry.nodes[node].state is state and not self.is_up(node):
            try:
                self.cluster.restart(node)
            except FaultError as error:
                self.say(str(error))

    def resume(self, node: int) -> None:
        """Let a paused node go on, if it is one."""
        watched = self.running.get(node)
        if watched is not None and self.is_paused(node):
            if watched.replica.raft.is_leader:
                self.coverage.reach("paused leader resumed")
            self.cluster.faults.resume(node)

    def wipe(self, node: int, for_s: float) -> None:
        """Let a node lose its disk, and be rebuilt later."""
        self._take_down(node)
        self.disks.drives[node].lose()
        self.after(max(for_s, RESTART_S), self._rebuild, node)

    def flip(self, node: int, for_s: float, part: str) -> None:
        """Let a node die, and its disk forget a bit; it starts again later, or tries to."""
        drive = self.disks.drives[node]
        self._take_down(node)
        if not (drive.is_failed or drive.is_damaged):
            drive.flip(part)
            self.after(max(for_s, RESTART_S), self.restart, node, State.STOPPED)

    def _take_down(self, node: int) -> None:
        """Let a node die and stay down."""
        if self._cut_power(node) or self.cluster.registry.nodes[node].state is State.CRASHED:
            self.cluster.stop(node)

    def _rebuild(self, node: int) -> None:
        if self.is_up(node):
            return
        assert self._nursery is not None
        self._nursery.start_soon(self._rebuild_when_down, node)

    async def _rebuild_when_down(self, node: int) -> None:
        """Rebuild a node, as soon as it has noticed that its disk is gone, unless somebody else does."""
        drive = self.disks.drives[node]
        while drive.is_failed or drive.is_damaged:
            try:
                await self.cluster.rebuild(node)
            except FaultError as error:
                self.say(str(error))
            else:
                return
            await trio.sleep(START_AGAIN_S)

    def let_in(self, lines: Sequence[bytes]) -> None:
        """Let a stranger come to the door."""
        assert self._nursery is not None
        self._nursery.start_soon(self.door.meet_stranger, lines)

    def living(self) -> list[Replica]:
        """Return the replicas that are up."""
        return [self.running[node].replica for node in self.members if node in self.running]

    def leader(self) -> Replica | None:
        """Return the living leader of the highest term."""
        leaders = [replica for replica in self.living() if replica.raft.is_leader]
        return max(leaders, key=lambda replica: replica.raft.term, default=None)

    def describe(self) -> str:
        """Return where all nodes stand, in one line."""
        statuses = self.cluster.registry.nodes
        return "; ".join(
            f"n{node} {describe(self.running[node].replica) if self.is_up(node) else statuses[node].state}"
            for node in self.members
        )

    def _is_unsteady(self) -> bool:
        """Return whether messages, timers or disks are so late just now that elections follow on one another."""
        return not self.is_healed and (
            self.links.is_unsteady
            or self.plan.inbox_max < INBOX_MAX
            or any(
                node in self.starvation or running.clock.rate != 1.0 or self.disks.drives[node].is_slow
                for node, running in self.running.items()
            )
        )

    def _trace_hash(self) -> str:
        for replica in self.living():
            machine = replica.machine
            state = machine.applied, machine.entries_digest, machine.state_digest
            self._hash.update(_PACK(trio.current_time(), replica.id, 0, *state))
        return self._hash.hexdigest()


def _first(group: BaseExceptionGroup[Any]) -> Exception:
    """Return the first exception of a group that is none itself."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, Exception)
    return found
