"""The real node, and who looks on: after each of its passes the judges see what it did."""

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from trio_kv.cluster.inbox import RoomChanged, SnapshotStored
from trio_kv.cluster.node import DiskFailedError, Node
from trio_kv.raft.events import RebuildEnded
from trio_kv.raft.messages import Message
from trio_kv.raft.ready import Ready
from trio_kv.replica.jobs import Job
from trio_kv.replica.requests import Answer, Propose, Read
from trio_kv.replica.turns import Turns
from trio_kv.sim.noticing import Noticing
from trio_kv.sim.whole.drive import SimulatedDisk

if TYPE_CHECKING:
    from trio_kv.sim.whole.world import WholeWorld


class Source(Protocol):
    """Who asked something of a node."""

    def deliver(self, answer: Answer) -> None:
        """Take the answer."""
        ...


class Tap:
    """Stands between a node and who asked it something, for one request.

    The gateway repeats a request under the same number, and its commands are the same objects: for the judges each
    attempt gets a number, and commands, of its own.
    """

    __slots__ = ("_number", "_own_number", "_source", "node")

    def __init__(self, node: "WatchedNode", own_number: int, source: Source, number: int) -> None:
        """Join them.

        Args:
            node: who was asked.
            own_number: the number of this attempt.
            source: who asked.
            number: its number for it.

        """
        self.node = node
        self._own_number = own_number
        self._source = source
        self._number = number

    def deliver(self, answer: Answer) -> None:
        """Hand an answer on; it is judged when the pass that gave it is over."""
        if self.node.is_alive:
            self.node.answers.append(answer)
        self._source.deliver(msgspec.structs.replace(answer, number=self._number))


class WatchedNode(Node):
    """A node whose passes are shown to the judges."""

    def __init__(self, world: "WholeWorld", disk: SimulatedDisk, **parts: Any) -> None:
        """Join the parts of a node, see `Node`, and show it to the judges."""
        super().__init__(disk=disk, **parts)
        self.world = world
        self.id = self.replica.id
        self.is_alive = True
        """Until its power is cut, or it ends."""
        self.answers: list[Answer] = []
        """Given in this pass."""
        self._memory_disk = disk
        self._noticing = Noticing(world.coverage)
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
    def turns(self) -> Turns:
        """Whose turn it is to take a snapshot."""
        return self._turns

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
        self._carry_out(now)

    def _take(self, now: float, items: list[object]) -> None:
        world = self.world
        try:
            for place, item in enumerate(items):
                if isinstance(item, Message):
                    world.watch.took(self.id, item)
                elif isinstance(item, Propose | Read):
                    # In place: this list is also what is answered if the node dies of it.
                    items[place] = self._tap(item)
            super()._take(now, items)
        except Exception as error:
            if _leaf(error) is not DiskFailedError:
                world.fail(error)
            raise

    def _take_rare(self, now: float, item: object) -> None:
        if isinstance(item, SnapshotStored):
            self._noticing.snapshot_stored(self.replica, (item.index, item.term))
        super()._take_rare(now, item)
        if isinstance(item, RoomChanged):
            self._memory_disk.timed.room_heard(item.room_bytes, self.replica.raft.log.last_index)

    def _tap(self, request: Propose | Read) -> Propose | Read:
        world = self.world
        number = world.next_number()
        tap = Tap(self, number, request.source, request.number)
        if isinstance(request, Propose):
            if request.number in world.proposed:
                world.coverage.reach("write retried by the gateway")
            world.proposed.add(request.number)
            commands = [msgspec.structs.replace(command) for command in request.commands]
            world.answers.asked_to_write(number, self.id, commands)
            world.answers.taken(number)
            return msgspec.structs.replace(request, source=tap, number=number, commands=commands)
        if request.is_stale:
            world.stale_reads[number] = request
        else:
            world.answers.asked_to_read(number, self.id, request.queries)
            world.answers.taken(number)
        return msgspec.structs.replace(request, source=tap, number=number)

    def _carry_out(self, now: float) -> None:
        world = self.world
        try:
            super()._carry_out(now)
            if not self.is_alive:
                return
            world.watch.stepped(self.id, self.replica.machine)
            self._noticing.stepped(self.replica)
            for answer in self.answers:
                world.judge_answer(self, answer)
            self.answers.clear()
            world.stepped(self)
        except Exception as error:
            world.fail(error)
            raise

    def _submit(self, job: Job) -> None:
        self._noticing.job_given(job)
        super()._submit(job)

    def _tell(self, ready: Ready) -> None:
        for event in ready.events:
            if isinstance(event, RebuildEnded):
                self.world.watch.rebuilt(self.id)
                self.world.coverage.reach("rebuild finished")
        super()._tell(ready)


def _leaf(error: BaseException) -> type[BaseException]:
    """Return the class of the one exception in a group; of several that of the group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return type(error)
