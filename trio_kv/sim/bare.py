"""The core world without its judges: the same run, and what it costs by itself."""

from collections.abc import Callable, Sequence

from trio_kv.check.answers import Answers
from trio_kv.check.watch import Watch
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


class BareWorld(World):
    """A world in which nobody looks."""

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None = None) -> None:
        """Prepare a run; arguments as for `World`."""
        super().__init__(plan, tell)
        self.watch = _Blind()
        self.answers = self.judges.answers = _Believer(self.chronicle, self.durability)

    def _judge_end(self) -> None:
        """Believe that all is well."""
