"""The core world without its judges: the same run, and what it costs by itself."""

from collections.abc import Callable, Sequence
from typing import Any

from trio_kv.check.answers import Answers
from trio_kv.check.watch import Watch
from trio_kv.kv.reply import Reply
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


def _nothing(*_arguments: object, **_members: object) -> None:
    """See nothing."""


_Blind = type(
    "_Blind",
    (Watch,),
    {name: _nothing for name, member in vars(Watch).items() if callable(member) and not name.startswith("_")},
)


class BareWorld(World):
    """A world in which nobody looks."""

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None = None) -> None:
        """Prepare a run; arguments as for `World`."""
        super().__init__(plan, tell)
        watch: Any = _Blind((), ())
        self.watch = watch
        self.answers = _Believer(self.chronicle, self.durability)

    def _judge_end(self) -> None:
        """Believe that all is well."""
