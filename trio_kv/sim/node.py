"""One simulated node: the real replica and the real log on a disk in memory, joined as `cluster.node` joins them.

What differs from the real one: time comes from the world, sending and disk completions are events of its heap, and a
crash is not a cancellation: the node is simply no more, and its disk keeps what it keeps.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import attrs

from trio_kv.raft.events import RebuildEnded, Told
from trio_kv.raft.messages import Message
from trio_kv.raft.node import Raft
from trio_kv.replica.driver import Continue, Input, TimerFired, Transfer
from trio_kv.replica.replica import Replica
from trio_kv.replica.telling import node_started
from trio_kv.replica.turns import Turns
from trio_kv.sim.clock import Clock
from trio_kv.sim.drive import START_AGAIN_S, Drive
from trio_kv.sim.ending import PlannedWorld
from trio_kv.sim.network import Network
from trio_kv.sim.watched import WatchedDriver
from trio_kv.storage.errors import DamagedError
from trio_kv.storage.memory import MemoryFiles
from trio_kv.storage.opening import Opened, open_node
from trio_kv.storage.wal import Wal
from trio_kv.trace.vocabulary import RebuildStarted
from trio_kv.wire.frames import Identity
from trio_kv.wire.node_port import Answer, ReplyTo, Request

RECOVERY_STEPS_MAX = 8
"""Power fails at one of so many steps of a recovery."""
_TICK_S = 1e-6
"""A timer set for less than this is set for this: rounding between clocks must not stop the world."""


class NodeHost(PlannedWorld):
    """The core world, as its nodes see it."""

    cluster: str
    turns: Turns
    network: Network
    nodes: dict[int, "SimulatedNode"]

    @property
    def incarnations(self) -> dict[int, int]:
        """What a manifest that all nodes share says."""
        return {node.id: node.incarnation for node in self.nodes.values()}

    @abstractmethod
    def at(self, time_s: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Let something happen at a time."""

    @abstractmethod
    def crash(self, node: "SimulatedNode", for_s: float, *, is_answered: bool, interruptions: int) -> None:
        """Let power fail at a node, and come back later; nothing happens to one that is down."""

    @abstractmethod
    def restart_later(self, node: "SimulatedNode", for_s: float) -> None:
        """Let a node that is down come back."""

    @abstractmethod
    def answer(self, node: int, reply_to: ReplyTo, answer: Answer) -> None:
        """Let an answer be on its way."""


class SimulatedNode:
    """A node with its disk, from the first start over all crashes to the end of the world."""

    def __init__(self, world: NodeHost, id: int) -> None:
        """Make an empty, durable log; `start` it then."""
        random = world.random
        self.world = world
        self.id = id
        self.clock = Clock(random.uniform(0.0, 1000.0))
        self.incarnation = random.getrandbits(60)
        self.identity = Identity(world.cluster, id, self.incarnation)
        self.drive = Drive(world, id, self._make_files(), self._maybe_start)
        self.life = 0
        """Counts the starts: an event meant for an earlier life is void."""
        self._driver: WatchedDriver | None = None
        self.step_s = 0.0
        """The node is starved: it takes up what comes only so long after."""
        self.is_paused = False
        self._inbox: list[Input] = []
        self._is_thinking = False
        self._is_start_held = False
        """The node was to start, and its disk gives nothing."""
        self._timer_at = float("inf")
        self._timer_number = 0

    @property
    def replica(self) -> Replica | None:
        """The node's brain; None while it is down."""
        return None if self._driver is None else self._driver.replica

    @property
    def is_up(self) -> bool:
        """Whether the node lives, paused or not."""
        return self._driver is not None

    # Life and death

    def start(self, interruptions: int = 0) -> None:
        """Recover from the disk and begin a life; power fails some times before that is done."""
        assert self._driver is None
        assert not self.drive.is_failed
        world = self.world
        if self.drive.condition.is_stalled:
            world.coverage.reach("disk hung at a start")
            self._is_start_held = True
            return
        self._is_start_held = False
        try:
            opened = self.drive.recover(self._open, interruptions, RECOVERY_STEPS_MAX)
        except DamagedError as error:
            world.say(f"n{self.id} refuses to start: {error}")
            return
        except OSError as error:
            world.say(f"n{self.id} can't start: {error}")
            world.restart_later(self, START_AGAIN_S)
            return
        self.life += 1
        timed = self.drive.begin_life(opened, self.post, self.fail)
        replica = self._make_replica(opened)
        self._driver = WatchedDriver(replica, world.turns, world, timed)
        self._inbox = []
        self._is_thinking = False
        self._timer_at = float("inf")
        hard_state = opened.recovered.hard_state
        world.watch.started(replica.raft, replica.machine, hard_state, is_rebuilding=self.drive.is_rebuilding)
        world.tell_event(node_started(replica.raft, replica.machine), self.id, replica.raft.term)
        self._step()

    def _open(self) -> Opened:
        files = self.drive.files
        return open_node(files, files, self.identity, segment_bytes=self.world.plan.segment_bytes)

    def _make_replica(self, opened: Opened) -> Replica:
        """Make a replica of what the disk holds, as the supervisor does."""
        world, recovered = self.world, opened.recovered
        machine = self.drive.restore(opened)
        raft = Raft(
            id=self.id,
            peers={*world.members} - {self.id},
            config=world.plan.raft,
            random=Random(world.random.getrandbits(64)),
            incarnation=self.incarnation,
            incarnations={} if world.plan.is_on_hosts else world.incarnations,
            is_rebuilding=self.drive.is_rebuilding,
            now=self.clock.at(world.now),
            hard_state=recovered.hard_state,
            log=recovered.log(machine.time_us),
            near=world.plan.near(self.id, world.members),
            events_level=world.events_level,
        )
        return Replica(
            raft,
            machine,
            snapshot_bytes=recovered.snapshot_bytes,
            snapshot_log_bytes_min=world.plan.snapshot_log_bytes_min,
        )

    def crash(self, *, is_answered: bool) -> None:
        """Lose power. What a client hears is up to whoever crashes the node."""
        self._die(is_answered=is_answered)
        self.drive.cut_power()

    def fail(self, error: OSError) -> None:
        """Stop, for good or until somebody sees to it: the disk failed (scenario D11).

        Raises:
            Violation: nobody had planned that.

        """
        drive = self.drive
        drive.is_failed = drive.fail(error)
        drive.let_go()
        self._die(is_answered=True)
        if not drive.is_failed:
            self.world.restart_later(self, drive.outlive_failure())

    def wipe(self) -> None:
        """Get a new directory in place of the one that is lost: empty, of a higher incarnation, to be rebuilt."""
        self.incarnation += self.world.random.randint(1, 1 << 20)
        self.identity = attrs.evolve(self.identity, incarnation=self.incarnation)
        self.world.tell_event(RebuildStarted(""), self.id)
        self.drive.replace(self._make_files())
        self.life += 1

    def _make_files(self) -> MemoryFiles:
        files = MemoryFiles(f"n{self.id}")
        Wal.create(files, self.identity, segment_bytes=self.world.plan.segment_bytes)
        return files

    @property
    def may_start(self) -> bool:
        """Whether it is down, and its disk is not known to keep it from starting."""
        return not (self.is_up or self.drive.is_failed or self.drive.is_damaged)

    def _die(self, *, is_answered: bool) -> None:
        assert self._driver is not None
        answers = self._driver.stop()
        self._driver = None
        self.is_paused = False
        if is_answered:
            for reply_to, answer in answers:
                self.world.answer(self.id, reply_to, answer)
        self.world.say(f"n{self.id} dies")
        self.world.node_died(self.id)

    def pause(self) -> None:
        """Do nothing until resumed."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on with all that piled up."""
        if not self.is_paused:
            return
        self.is_paused = False
        if self.replica is None:
            return
        if self.replica.raft.is_leader:
            self.world.coverage.reach("paused leader resumed")
        self._step(*self._timer())

    # What comes in

    @property
    def has_room(self) -> bool:
        """Whether a message or a request would be taken; completions always are."""
        return self.replica is not None and len(self._inbox) < self.world.plan.inbox_max

    def post(self, item: Input) -> None:
        """Take a message, a request or a completion, or lose it."""
        if self._driver is None or (isinstance(item, Message | Request) and not self.has_room):
            return
        passed = (
            self._driver.pass_on(self.clock.at(self.world.now), item) if self._is_free_for(item) else None
        )
        if passed is not None:
            for message in passed[0]:
                self.world.network.send(message)
            self._tell(passed[1])
            self._set_timer(self._driver.replica.deadline)
            return
        self._inbox.append(item)
        if self.is_paused:
            return
        think_s = self.step_s or self.world.plan.think_s
        if think_s:
            self._think_later(think_s)
        elif not self._is_thinking:
            self._step()

    def _is_free_for(self, item: Input) -> bool:
        """Return whether something may be taken at once: a message only if it overtakes none, and costs no time."""
        if self.is_paused or not isinstance(item, Message):
            return not self.is_paused
        return not (self._inbox or self.step_s or self.world.plan.think_s)

    def transfer(self, target: int) -> None:
        """Let this leader hand over; another member or nobody."""
        replica = self.replica
        if replica is None or self.is_paused or not replica.raft.is_leader or target == self.id:
            return
        self._step(Transfer(target))

    def stand(self, *, is_pre_vote: bool) -> None:
        """Let this node stand for election although nothing is wrong; one that leads, or may not, does nothing."""
        replica = self.replica
        if replica is None or self.is_paused or replica.raft.is_leader or replica.raft.is_rebuilding:
            return
        now = self.clock.at(self.world.now)
        replica.raft.become_candidate(now, "it was told to", is_pre_vote=is_pre_vote)
        self._step()

    def jump(self, by_s: float) -> None:
        """Let the clock jump forward."""
        self.clock.jump(by_s)
        self.world.judges.expiry.clock_leapt()
        self._clock_changed()

    def set_rate(self, rate: float) -> None:
        """Let the clock run at another rate."""
        self.clock.set_rate(self.world.now, rate)
        self.world.judges.expiry.clock_may_run(rate)
        self._clock_changed()

    def _clock_changed(self) -> None:
        self._timer_at = float("inf")
        if self.replica is not None:
            self._set_timer(self.replica.deadline)

    def _think_later(self, delay_s: float) -> None:
        if not self._is_thinking:
            self._is_thinking = True
            self.world.after(delay_s, self._think, self.life)

    def _think(self, life: int) -> None:
        if life != self.life or self.replica is None:
            return
        self._is_thinking = False
        if not self.is_paused:
            self._step(*(self._timer() if self.step_s else ()))

    # The timer

    def _timer(self) -> tuple[TimerFired, ...]:
        """Return what a timer says that is due just now."""
        is_due = self.replica is not None and self.replica.deadline <= self.clock.at(self.world.now)
        return (TimerFired(),) if is_due else ()

    def _set_timer(self, deadline: float) -> None:
        if deadline == float("inf"):
            return
        at = max(self.clock.to_world(deadline), self.world.now + _TICK_S)
        if at < self._timer_at:
            self._timer_at = at
            self._timer_number += 1
            self.world.at(at, self._timer_fired, self._timer_number)

    def _timer_fired(self, number: int) -> None:
        replica = self.replica
        if number != self._timer_number or replica is None:
            return
        self._timer_at = float("inf")
        if self.is_paused:
            return
        if replica.deadline <= self.clock.at(self.world.now):
            if self.step_s:
                self._think_later(self.step_s)
            else:
                self._step(TimerFired())
        else:
            self._set_timer(replica.deadline)

    # One pass of the loop

    def _step(self, *items: Input) -> None:
        driver, disk, world = self._driver, self.drive.timed, self.world
        assert driver is not None
        assert disk is not None
        waiting, self._inbox = self._inbox, []
        work = driver.step(self.clock.at(world.now), world.now, [*items, *waiting])
        for message in work.messages:
            world.network.send(message)
        if work.write is not None:
            disk.submit(work.write)
        for reply_to, answer in work.answers:
            world.answer(self.id, reply_to, answer)
        for job in work.jobs:
            disk.submit(job)
        self._tell(work.events)
        if work.turns:
            world.after(_TICK_S, self._continue, self.life)
        world.stepped(driver.replica, world.turns)
        self._set_timer(work.deadline)

    def _tell(self, events: Sequence[Told]) -> None:
        for event, term, role in events:
            if isinstance(event, RebuildEnded):
                self.world.after(self.world.plan.disk_s, self._end_rebuild, self.life)
            self.world.tell_event(event, self.id, term, role)

    def _continue(self, life: int) -> None:
        if life == self.life:
            self.post(Continue())

    def _end_rebuild(self, life: int) -> None:
        """Forget durably that the node was to be rebuilt; a crash before that lets it begin once more."""
        if life == self.life:
            self.drive.is_new = False

    def _maybe_start(self) -> None:
        """Go on with a start for which the disk stood still."""
        if self._is_start_held and self.may_start:
            self.start()
