"""The real node, and who looks on: after each of its passes the judges see what it did."""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from trio_kv.check.answers import Answers
from trio_kv.cluster.node import Node
from trio_kv.cluster.registry import OWN_PROCESS
from trio_kv.replica.driver import DiskFailedError, Input
from trio_kv.sim.watched import Onlooker, WatchedDriver
from trio_kv.sim.whole.drive import SimulatedDisk
from trio_kv.wire.node_port import Answer, Propose, Read, ReplyTo

Deliver = Callable[[list[tuple[ReplyTo, Answer]]], None]


class NodeHost(Onlooker, Protocol):
    """The world, as its nodes see it."""

    answers: Answers
    stale_reads: dict[int, Read]
    proposed: set[int]

    def next_number(self) -> int:
        """Return a number for a request."""
        ...

    def node_started(self, node: "WatchedNode", disk: SimulatedDisk) -> None:
        """Show a new life to the judges."""
        ...

    def node_ended(self, node: "WatchedNode") -> None:
        """Note that a node is no more."""
        ...

    def stepped(self, node: "WatchedNode") -> None:
        """Put a pass into the trace."""
        ...

    def judge_answer(self, node: "WatchedNode", answer: Answer) -> None:
        """Judge an answer of a pass that is over."""
        ...

    def fail(self, error: Exception) -> None:
        """End the run with an error."""
        ...


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
            self.world.node_ended(self)

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
                world.judge_answer(self, answer)
            self.answers.clear()
            world.stepped(self)
        except Exception as error:
            if _leaf(error) is not DiskFailedError:
                world.fail(error)
            raise

    def _tap(self, request: Propose | Read) -> Propose | Read:
        world = self.world
        number = world.next_number()
        tap = Tap(OWN_PROCESS, number, request.reply_to, request.number)
        if isinstance(request, Propose):
            if request.number in world.proposed:
                world.coverage.reach("write retried by the gateway")
            world.proposed.add(request.number)
            commands = [msgspec.structs.replace(command) for command in request.commands]
            world.answers.asked_to_write(number, self.id, commands)
            world.answers.taken(number)
            return msgspec.structs.replace(request, reply_to=tap, number=number, commands=commands)
        if request.is_stale:
            world.stale_reads[number] = request
        else:
            world.answers.asked_to_read(number, self.id, request.queries)
            world.answers.taken(number)
        return msgspec.structs.replace(request, reply_to=tap, number=number)

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
