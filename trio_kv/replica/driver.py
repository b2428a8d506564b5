"""The one loop that drives a replica: a task of the cluster and the simulators all run it.

They differ only in where inputs come from and where outputs go. A pass of the loop takes all that came since the last
one, and returns one `Work`. Pure: both clocks are arguments.
"""

from collections.abc import Sequence
from typing import Final

import attrs
import msgspec

from trio_kv.raft.entry import LogPosition
from trio_kv.raft.events import ASKED_FOR, Told, TransferEnded
from trio_kv.raft.messages import Heartbeat, HeartbeatReply, Message
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import ChunkWasRead, Write
from trio_kv.replica.commit_times import CommitTimes
from trio_kv.replica.group import GATHER_TURNS
from trio_kv.replica.jobs import (
    ChunkAdded,
    Completion,
    DiskFailed,
    Job,
    LogSpaceChanged,
    SnapshotFailed,
    SnapshotMoved,
    SnapshotStored,
    Stored,
)
from trio_kv.replica.patience import Patience
from trio_kv.replica.replica import Replica
from trio_kv.replica.telling import applied_events
from trio_kv.replica.turns import Turns
from trio_kv.trace.vocabulary import (
    DiskRoomChanged,
    SnapshotGivenUp,
    SnapshotTaken,
)
from trio_kv.wire.node_port import Answer, Propose, Pull, Read, ReplyTo, Request


@attrs.frozen
class TimerFired:
    """The deadline of the last `Work` has passed."""


@attrs.frozen
class Continue:
    """A `Work` said that it left something undone, so that others could run, and they did."""


@attrs.frozen
class Transfer:
    """Hand leadership over."""

    target: int
    reason: str = ASKED_FOR


@attrs.frozen
class Heard:
    """A peer said in its hello of which incarnation it is. A lower one than was heard of before changes nothing."""

    node: int
    incarnation: int


@attrs.frozen
class TakeSnapshot:
    """Take a snapshot, whatever the size of the log."""


Control = Completion | TimerFired | Continue | Transfer | TakeSnapshot | Heard
Input = Message | Request | Control


MAY_NEED_NO_PASS: Final = frozenset({Heartbeat, HeartbeatReply})
"""Messages that bring no news most of the time."""


class DiskFailedError(Exception):
    """The node's disk failed a write or a sync: the node must stop, and nothing is retried (scenario D11)."""


class Work(msgspec.Struct, gc=False):
    """What one pass wants done. Its fields are carried out in this order."""

    messages: Sequence[Message]
    """They leave."""
    write: Write | None
    """It goes to the disk; writes become durable in the order in which they are given."""
    jobs: list[Job]
    """They go to the disk, behind the write."""
    events: Sequence[Told]
    """They are told to whoever listens."""
    answers: list[tuple[ReplyTo, Answer]]
    """(reply_to, answer): each goes to who asked, and who may ask anew at once."""
    turns: int
    """`Continue` is to be given when others who wait for the processor had so many turns; 0: it is not to be given."""
    deadline: float
    """When `TimerFired` is to be given, by the clock of the node."""
    patience: Patience
    """What of that which comes next may lie for a moment."""


def heard_and_done(raft: Raft, now: float, message: Message) -> Sequence[Message] | None:
    """Take a message if an answer, which leaves now, is all that comes of it; return that, or None: not taken."""
    if not raft.role.is_answer_all(message):
        return None
    raft.receive(now, message)
    return raft.effects.take_messages()


class Driver:
    """Drives one replica.

    Args:
        replica: the node's brain.
        turns: whose turn it is to take a snapshot, of the nodes that share a processor.

    """

    def __init__(self, replica: Replica, turns: Turns) -> None:
        """Do nothing yet: the first call of `step` has no items."""
        self.replica = replica
        self.turns = turns
        self.commit_times = CommitTimes()
        self._is_continuing = False

    def step(self, now: float, shared_now: float, items: Sequence[Input]) -> Work:
        """Take what came; return what has to be done.

        Args:
            now: the time of the node's own clock.
            shared_now: the time that `turns` goes by: the nodes of a process share it, whatever their clocks show.
            items: what came, in that order.

        Raises:
            DiskFailedError: the disk failed. The node must end; `stop` gives its last answers.

        """
        replica = self.replica
        self._take(now, items)
        ready = replica.ready(now)
        replica.apply(ready)
        replica.take_turn(shared_now, self.turns)
        if replica.raft.is_leader:
            self.commit_times.note(now, replica.raft)
        events: Sequence[Told] = ready.events
        if replica.raft.wants_debug and replica.applied_now:
            events = [*events, *map(replica.raft.told, applied_events(replica))]
        turns, missing = 0, replica.group.missing
        if not self._is_continuing:
            turns = 1 if replica.has_more else GATHER_TURNS if missing else 0
            self._is_continuing = turns > 0
        return Work(
            ready.messages,
            ready.write,
            replica.take_jobs(),
            events,
            replica.take_answers(),
            turns,
            replica.deadline,
            Patience(replica.raft, missing),
        )

    def pass_on(self, now: float, item: Input) -> tuple[Sequence[Message], Sequence[Told]] | None:
        """Take what lets messages leave and asks for nothing else, without a pass.

        Args:
            now: the time of the node's own clock.
            item: a completion, or a message behind which no other one waits for a pass.

        Returns:
            the messages, which leave now, and events; `Replica.deadline` may be another one then. None if this is not
            such an item, or not now: it was not taken, and is to be given to `step`.

        """
        if isinstance(item, Stored):
            return self.replica.raft.stored_and_done(item.ticket)
        if isinstance(item, Heartbeat | HeartbeatReply):
            messages = heard_and_done(self.replica.raft, now, item)
            return None if messages is None else (messages, ())
        return None

    def stop(self) -> list[tuple[ReplyTo, Answer]]:
        """Give up the turn; return the last answers of a node that dies: what it had taken is unknown."""
        self.turns.give_back(self.replica.id)
        return self.replica.stop()

    def _take(self, now: float, items: Sequence[Input]) -> None:
        replica = self.replica
        receive, propose, read = replica.raft.receive, replica.propose, replica.read
        is_timer_due = False
        for item in items:
            if isinstance(item, Message):
                receive(now, item)
            elif isinstance(item, Propose):
                propose(now, item)
            elif isinstance(item, Read):
                read(item)
            elif isinstance(item, Stored):
                replica.stored(now, item.ticket)
            elif isinstance(item, TimerFired):
                is_timer_due = True
            else:
                self._take_rare(now, item)
        if is_timer_due:
            # It is believed only after all else that came: a process that slept is no dead leader.
            replica.timeout(now)

    def _take_rare(self, now: float, item: Input) -> None:  # noqa: C901, PLR0912 - one case an input is the point
        """Take what comes seldom."""
        replica = self.replica
        match item:
            case Pull():
                replica.feed.pull(now, item)
            case ChunkAdded():
                replica.snapshots.chunk_added(item.index, item.term, item.number)
            case ChunkWasRead():
                replica.snapshots.chunk_read(now, item)
            case SnapshotMoved():
                replica.snapshots.moved(item.index, item.term)
            case SnapshotStored():
                replica.snapshot_stored(LogPosition(item.index, item.term), item.size_bytes)
                replica.raft.emit(SnapshotTaken(item.index, item.term, item.size_bytes))
            case SnapshotFailed():
                replica.snapshot_failed(LogPosition(item.index, item.term))
                replica.raft.emit(SnapshotGivenUp(f"snapshot {item.index}@{item.term}: {item.reason}"))
            case LogSpaceChanged():
                replica.raft.set_free_log_bytes(item.free_log_bytes)
                replica.raft.emit(DiskRoomChanged(item.free_log_bytes))
            case Transfer():
                self._transfer(now, item)
            case TakeSnapshot():
                replica.snapshots.ask()
            case Heard():
                replica.raft.role.note_incarnations([(item.node, item.incarnation)])
            case Continue():
                self._is_continuing = False
                replica.group.close()
            case DiskFailed():
                raise DiskFailedError(str(item.error)) from item.error
            case _:
                raise AssertionError(f"no rule for {item!r}")

    def _transfer(self, now: float, transfer: Transfer) -> None:
        try:
            self.replica.raft.transfer(now, transfer.target, reason=transfer.reason)
        except ValueError as error:
            self.replica.raft.emit(TransferEnded(transfer.target, str(error)))
