"""One simulated node: the real replica and the real log on a disk in memory, joined as `cluster.node` joins them.

What differs from the real one: time comes from the world, sending and disk completions are events of its heap, and a
crash is not a cancellation: the node is simply no more, and its disk keeps what it keeps.
"""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from trio_kv.kv.machine import Machine
from trio_kv.raft.log import Log
from trio_kv.raft.messages import Message
from trio_kv.raft.ready import Ready, Ticket
from trio_kv.replica.replica import Replica
from trio_kv.replica.requests import Propose, Read
from trio_kv.storage.memory import MemoryDisk, MemoryFiles, PowerLossError
from trio_kv.storage.wal import Wal
from trio_kv.wire.frames import Identity

if TYPE_CHECKING:
    from trio_kv.sim.world import World

INBOX_MAX = 4096
"""Messages and requests that wait for a paused node; what comes beyond it is lost."""
_TICK_S = 1e-6
"""A timer set for less than this is set for this: rounding between clocks must not stop the world."""


class Clock:
    """A node's clock: runs at its own rate."""

    def __init__(self, offset_s: float) -> None:
        """Show `offset_s` when the world begins."""
        self.rate = 1.0
        self._base = offset_s
        self._world_base = 0.0

    def at(self, world_s: float) -> float:
        """Return what the clock shows at a time of the world."""
        return self._base + (world_s - self._world_base) * self.rate

    def to_world(self, at: float) -> float:
        """Return the world's time at which the clock will show `at`."""
        return self._world_base + (at - self._base) / self.rate

    def set_rate(self, world_s: float, rate: float) -> None:
        """Go on from here at this rate."""
        self._base, self._world_base = self.at(world_s), world_s
        self.rate = rate


class SimulatedNode:
    """A node with its disk, from the first start over all crashes to the end of the world."""

    def __init__(self, world: "World", id: int) -> None:
        """Make an empty, durable log; `start` it then."""
        random = world.random
        self.world = world
        self.id = id
        self.clock = Clock(random.uniform(0.0, 1000.0))
        self.incarnation = random.getrandbits(63)
        self.identity = Identity(f"{random.getrandbits(128):032x}", id, self.incarnation)
        self.files = MemoryFiles(f"n{id}")
        self.life = 0
        """Counts the starts: an event meant for an earlier life is void."""
        self.replica: Replica | None = None
        self.is_failed = False
        self.is_paused = False
        self.is_stalled = False
        self.disk_factor = 1.0
        self.in_next_batch: Callable[[], None] | None = None
        """What is to happen in the middle of the next batch."""
        self._disk: MemoryDisk | None = None
        self._inbox: list[object] = []
        self._is_thinking = False
        self._is_disk_busy = False
        self._batch = 0
        """How many writes the disk carries out just now, if it is busy."""
        self._batch_number = 0
        """Names the batch: a completion of another one is void."""
        self._is_batch_held = False
        """Whether a stalled disk should have finished its batch."""
        self._timer_at = float("inf")
        self._timer_number = 0
        self._asked_leader: int | None = None
        Wal.create(self.files, self.identity, segment_bytes=world.plan.segment_bytes)

    @property
    def is_up(self) -> bool:
        """Whether the node lives, paused or not."""
        return self.replica is not None

    # Life and death

    def start(self, interruptions: int = 0) -> None:
        """Recover from the disk and begin a life; power fails some times before that is done."""
        assert self.replica is None
        assert not self.is_failed
        world, random = self.world, self.world.random
        for _ in range(interruptions):
            self.files.fail_after(random.randrange(4), PowerLossError())
            try:
                Wal.open(self.files, self.identity, segment_bytes=world.plan.segment_bytes)
            except PowerLossError:
                world.coverage.reach("recovery interrupted")
            self.files.crash(random)
        wal, recovered = Wal.open(self.files, self.identity, segment_bytes=world.plan.segment_bytes)
        if any("interrupted" in warning for warning in recovered.warnings):
            world.coverage.reach("torn tail cut")
        self.life += 1
        self._disk = MemoryDisk(wal, self.files)
        self.replica = Replica(
            id=self.id,
            peers=tuple(other for other in world.members if other != self.id),
            config=world.plan.raft,
            random=Random(random.getrandbits(64)),
            incarnation=self.incarnation,
            now=self.clock.at(world.now),
            hard_state=recovered.hard_state,
            log=Log(recovered.entries),
            machine=Machine(),
            events_level=world.events_level,
        )
        self._inbox = []
        self._is_thinking = self._is_disk_busy = self._is_batch_held = False
        self._batch_number += 1
        self._timer_at = float("inf")
        self._asked_leader = None
        world.watch.started(self.replica.raft, self.replica.machine)
        self._step(is_timer=False)

    def crash(self, *, is_answered: bool) -> None:
        """Lose power. What a client hears is up to whoever crashes the node."""
        replica, disk = self.replica, self._disk
        assert replica is not None
        assert disk is not None
        if disk.wal.segment > 1:
            self.world.coverage.reach("segment filled")
        self._die(replica, is_answered=is_answered)
        disk.crash(self.world.random)

    def fail(self) -> None:
        """Stop for good: the disk failed (scenario D11)."""
        assert self.replica is not None
        self.is_failed = True
        self.world.coverage.reach("disk failed")
        self._die(self.replica, is_answered=True)

    def _die(self, replica: Replica, *, is_answered: bool) -> None:
        self.replica = self._disk = None
        self.is_paused = False
        answers = replica.stop()
        if is_answered:
            for source, answer in answers:
                self.world.answer(self, source, answer)
        self.world.node_died(self)

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
        self._step(is_timer=self.replica.deadline <= self.clock.at(self.world.now))

    # What comes in

    @property
    def has_room(self) -> bool:
        """Whether a message or a request would be taken; completions always are."""
        return self.replica is not None and len(self._inbox) < INBOX_MAX

    def post(self, item: object) -> None:
        """Take a message, a request or a completion, or lose it."""
        if self.replica is None or not (self.has_room or isinstance(item, Ticket)):
            return
        self._inbox.append(item)
        if self.is_paused or self._is_thinking:
            return
        think_s = self.world.plan.think_s
        if think_s:
            self._is_thinking = True
            self.world.after(think_s, self._think, self.life)
        else:
            self._step(is_timer=False)

    def transfer(self, target: int) -> None:
        """Let this leader hand over; another member or nobody."""
        replica = self.replica
        if replica is None or self.is_paused or not replica.raft.is_leader or target == self.id:
            return
        try:
            replica.raft.transfer(self.clock.at(self.world.now), target)
        except ValueError:
            return  # One is under way.
        self._step(is_timer=False)

    def set_rate(self, rate: float) -> None:
        """Let the clock run at another rate."""
        self.clock.set_rate(self.world.now, rate)
        self._timer_at = float("inf")
        if self.replica is not None:
            self._set_timer(self.replica)

    def _think(self, life: int) -> None:
        if life != self.life or self.replica is None:
            return
        self._is_thinking = False
        if not self.is_paused:
            self._step(is_timer=False)

    # The timer

    def _set_timer(self, replica: Replica) -> None:
        deadline = replica.deadline
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
            self._step(is_timer=True)
        else:
            self._set_timer(replica)

    # One pass of the loop

    def _step(self, *, is_timer: bool) -> None:
        replica, world = self.replica, self.world
        assert replica is not None
        now = self.clock.at(world.now)
        items, self._inbox = self._inbox, []
        for item in items:
            if isinstance(item, Message):
                world.watch.took(self.id, item)
                replica.receive(now, item)
            elif isinstance(item, Ticket):
                replica.stored(now, item)
            elif isinstance(item, Propose):
                replica.propose(item)
            else:
                assert isinstance(item, Read)
                replica.read(item)
        if is_timer:
            replica.timeout(now)
        ready = replica.ready(now)
        for message in ready.messages:
            world.watch.sent(self.id, message)
            world.send(message)
        if ready.write is not None:
            assert self._disk is not None
            world.watch.submitted(self.id, ready.write)
            self._disk.submit(ready.write)
            self._maybe_begin_batch()
        answers = replica.apply(ready)
        world.watch.stepped(self.id)
        for source, answer in answers:
            world.answer(self, source, answer)
        self._note(replica, ready)
        world.stepped(self, replica)
        self._set_timer(replica)

    def _note(self, replica: Replica, ready: Ready) -> None:
        """Count what this step reached."""
        for event in ready.events:
            self.world.told(self, event)
        raft = replica.raft
        if not (raft.asker.asked or raft.asker.waiting):
            self._asked_leader = None
        elif raft.leader is not None:
            if self._asked_leader not in {None, raft.leader}:
                self.world.coverage.reach("read pending over a leader change")
            self._asked_leader = raft.leader

    # The disk

    def _maybe_begin_batch(self) -> None:
        disk = self._disk
        if disk is None or self._is_disk_busy or not len(disk):
            return
        self._is_disk_busy = True
        plan, random = self.world.plan, self.world.random
        took_s = plan.disk_s * (0.5 + 1.5 * random.random()) * self.disk_factor
        self._batch = len(disk)
        self._batch_number += 1
        if self.in_next_batch is not None:
            self.world.after(took_s / 2, self.in_next_batch)
            self.in_next_batch = None
        self.world.after(took_s, self._batch_is_due, self._batch_number)

    def _batch_is_due(self, number: int) -> None:
        if number != self._batch_number:
            return
        if self.is_stalled:
            self._is_batch_held = True
        else:
            self._finish_batch()

    def _finish_batch(self) -> None:
        if self._disk is None or not self._is_disk_busy:
            return
        writes, self._is_batch_held = self._batch, False
        self._batch_number += 1
        try:
            ticket = self._disk.step(writes)
        except OSError:
            self.fail()
            return
        assert ticket is not None
        self._is_disk_busy = False
        self.world.watch.stored(self.id, ticket)
        self._maybe_begin_batch()
        self.post(ticket)

    def unstall(self) -> None:
        """Let the disk finish what it held back."""
        self.is_stalled = False
        if self._is_batch_held:
            self._finish_batch()

    def end_slowness(self) -> None:
        """Let the disk be as fast as others from its next batch on."""
        self.disk_factor = 1.0

    def mend_disk(self) -> None:
        """Let the disk be as fast as others, and finish at once what it does slowly just now."""
        self.disk_factor = 1.0
        self.is_stalled = False
        self._finish_batch()
