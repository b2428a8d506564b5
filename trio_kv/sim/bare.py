"""The core world without its judges: the same run, and what it costs by itself."""

from collections.abc import Callable, Sequence

from trio_kv.check.answers import Answers
from trio_kv.check.watch import Watch
from trio_kv.check.watch_order import Event, WatchOrder
from trio_kv.kv.machine import Machine
from trio_kv.kv.reply import Reply
from trio_kv.raft.messages import Message
from trio_kv.sim.plan import Plan
from trio_kv.sim.world import World


class _Believer(Answers):
    """Keeps account of what is under way, and believes all that it is told."""

    def answered(self, number: int, node: int, applied: int, replies: Sequence[Reply]) -> bool:
        del node, applied, replies
        self.given_up(number)
        self.judged += 1
        return False

    def no_answer(self, number: int, node: int, *, is_refused: bool) -> None:
        del node, is_refused
        self.given_up(number)


class _Blind(Watch):
    """Shows nothing to nobody."""

    def __init__(self) -> None:
        super().__init__((), ())

    def started(self, *_arguments: object, **_members: object) -> None:
        pass

    def crashed(self, node: int) -> None:
        pass

    def took(self, node: int, message: Message) -> None:
        pass

    def stepped(self, node: int, machine: Machine) -> None:
        pass


class _Gullible(WatchOrder):
    """Notes how far a watch is told to be, and believes it."""

    def __init__(self, world: World) -> None:
        super().__init__("nobody", "", is_prefix=True, chronicle=world.chronicle)
        self._world = world

    @property
    def is_complete(self) -> bool:
        histories = [each.feed.history for each in self._world.living()]
        known = [each for each in histories if each.after <= self.position]
        return not any(each.read(self.position, 1)[1] for each in known)

    def told(self, revision: int, events: Sequence[Event]) -> None:
        self.position = revision
        self.told_count += len(events)

    def progressed(self, revision: int) -> None:
        self.position = revision

    def jumped(self, oldest: int) -> None:
        self.position = oldest - 1


class BareWorld(World):
    """A world in which nobody looks."""

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None = None) -> None:
        """Prepare a run; arguments as for `World`."""
        super().__init__(plan, tell)
        self.watch, self.jury = _Blind(), None
        self.answers = self.judges.answers = _Believer(self.chronicle, self.durability)
        for watcher in self.watchers.values():
            watcher.order = _Gullible(self)

    def _judge_end(self) -> None:
        """Believe that all is well."""
