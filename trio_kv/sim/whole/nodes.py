"""The real node, and who looks on: after each of its passes the judges see what it did."""

from collections.abc import Callable
from typing import Any

import msgspec

from trio_kv.check.state_machine_safety import outcome_of
from trio_kv.check.violation import Violation
from trio_kv.cluster.node import Node
from trio_kv.cluster.registry import FIRST_PROCESS
from trio_kv.replica.driver import DiskFailedError, Input
from trio_kv.sim.plan import Plan
from trio_kv.sim.watched import WatchedDriver
from trio_kv.sim.whole.drive import SimulatedDisk
from trio_kv.sim.whole.host import WholeHost
from trio_kv.wire.node_port import Answer, Done, Propose, Read, ReplyTo

Deliver = Callable[[list[tuple[ReplyTo, Answer]]], None]


class NodeHost(WholeHost):
    """A world whose nodes are watched."""

    running: dict[int, "WatchedNode"]

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None) -> None:
        """Let no node live yet; arguments as for `WholeHost`."""
        super().__init__(plan, tell)
        self.running = {}
        self.proposed: set[int] = set()
        """The gateway's numbers of all proposals that a node took."""
        self._stale_reads: dict[int, Read] = {}

    def node_started(self, node: "WatchedNode", disk: SimulatedDisk) -> None:
        """Show a new life to the judges."""
        self.running[node.id] = node
        self.terms.disturbed()
        replica, is_rebuilding = node.replica, self.drives[node.id].is_rebuilding
        self.watch.started(replica.raft, replica.machine, disk.hard_state, is_rebuilding=is_rebuilding)

    def node_died(self, node: int) -> None:
        """Note that a node is no more; what it had taken gets no answer."""
        del self.running[node]
        super().node_died(node)

    def asked(self, number: int, node: int, request: Propose | Read) -> None:
        """Note that a node takes a request, under a number of the judges' own."""
        if isinstance(request, Propose):
            self.answers.asked_to_write(number, node, request.commands, request.queries)
        elif request.is_stale:
            self._stale_reads[number] = request
            return
        else:
            self.answers.asked_to_read(number, node, request.queries)
        self.answers.taken(number)

    def judge_answer(self, answer: Answer, node: int) -> None:
        """Judge an answer of a pass that is over."""
        stale = self._stale_reads.pop(answer.number, None)
        if stale is None:
            super().judge_answer(answer, node)
        elif isinstance(answer, Done):
            self._judge_stale(node, stale, answer)

    def _judge_stale(self, node: int, read: Read, answer: Done) -> None:
        """Judge a stale read: it tells what was once true, and nothing older than its reader has seen."""
        if answer.applied < read.applied_min:
            raise Violation(f"n{node} answered a stale read at {answer.applied}, seen was {read.applied_min}")
        for query, reply in zip(read.queries, answer.replies, strict=True):
            due = self.chronicle.reference.answer(query, answer.applied)
            given = outcome_of(reply)
            if given != due:
                raise Violation(f"n{node}: a stale {query} at {answer.applied} gave {given}, not {due}")


class Tap(ReplyTo, frozen=True, gc=False):
    """Stands between a node and who asked it something, for one attempt.

    The gateway repeats a request under the same number, and its commands are the same objects: for the judges each
    attempt gets a number, and commands, of its own.
    """

    asker: ReplyTo
    number: int
    """The asker's."""


class WatchedNode(Node):
    """A node whose passes are shown to the judges."""

    def __init__(self, world: NodeHost, disk: SimulatedDisk, deliver: Deliver, **parts: Any) -> None:
        """Join the parts of a node, see `Node`, and show it to the judges."""
        super().__init__(disk=disk, deliver=self._show_answers, **parts)
        self._deliver_on = deliver
        self.driver = WatchedDriver(self.replica, self.driver.turns, world, disk.timed)
        self.world = world
        self.id = self.replica.id
        self.is_alive = True
        """Until its power is cut, or it ends."""
        self.answers: list[Answer] = []
        """Given in this pass."""
        world.node_started(self, disk)

    async def run(self) -> None:
        """Be a node until cancelled."""
        try:
            await super().run()
        except Exception as error:
            if _leaf(error) is not DiskFailedError:
                self.world.fail(error)
            raise
        finally:
            self.end()

    def end(self) -> None:
        """Give no answer any more: the power is cut, or the task is over."""
        if self.is_alive:
            self.is_alive = False
            self.world.node_died(self.id)

    @property
    def is_held(self) -> bool:
        """Whether it does nothing just now, paused or starved."""
        return self._resumed is not None

    def stand(self, *, is_pre_vote: bool) -> None:
        """Let this node stand for election although nothing is wrong; one that leads, or may not, does nothing."""
        raft = self.replica.raft
        if self._nursery is None or self.is_held or raft.is_leader or raft.is_rebuilding:
            return
        now = self.clock.now()
        raft.become_candidate(now, "it was told to", is_pre_vote=is_pre_vote)
        self._pass(now, [])

    def _pass(self, now: float, items: list[Input]) -> None:
        world = self.world
        try:
            for place, item in enumerate(items):
                if isinstance(item, Propose | Read):
                    # In place: this list is also what is answered if the node dies of it.
                    items[place] = self._tap(item)
            super()._pass(now, items)
            if not self.is_alive:
                return
            for answer in self.answers:
                world.judge_answer(answer, self.id)
            self.answers.clear()
            world.stepped(self.replica, self.driver.turns)
        except Exception as error:
            if _leaf(error) is not DiskFailedError:
                world.fail(error)
            raise

    def _tap(self, request: Propose | Read) -> Propose | Read:
        world = self.world
        number = world.next_number()
        tap = Tap(FIRST_PROCESS, number, request.reply_to, request.number)
        members: dict[str, Any] = {"reply_to": tap, "number": number}
        if isinstance(request, Propose):
            if request.number in world.proposed:
                world.coverage.reach("write retried by the gateway")
            world.proposed.add(request.number)
            members["commands"] = [msgspec.structs.replace(command) for command in request.commands]
        tapped = msgspec.structs.replace(request, **members)
        world.asked(number, self.id, tapped)
        return tapped

    def _show_answers(self, answers: list[tuple[ReplyTo, Answer]]) -> None:
        """Hand answers on; they are judged when the pass that gave them is over."""
        told: list[tuple[ReplyTo, Answer]] = []
        for reply_to, answer in answers:
            if not isinstance(reply_to, Tap):
                told.append((reply_to, answer))
                continue
            if self.is_alive:
                self.answers.append(answer)
            told.append((reply_to.asker, msgspec.structs.replace(answer, number=reply_to.number)))
        self._deliver_on(told)


def _leaf(error: BaseException) -> type[BaseException]:
    """Return the class of the one exception in a group; of several that of the group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return type(error)
