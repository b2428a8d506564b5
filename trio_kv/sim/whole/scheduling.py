"""Trio from a seed: the same program is scheduled in the same way, in a time that passes only when all tasks wait.

The one place that knows Trio's two private names; `tests/sim/test_whole_world.py` guards that they do what is said
here. With the flag Trio sorts each batch of runnable tasks by their age, before it shuffles them by `_r`: without it
the order in which tasks were woken shows through, and with it that of sets and addresses.

What would break it is banned from a run: threads (virtual time runs on while they work), sockets, files, and any clock
or chance that is not the run's.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
import trio.testing
from trio._core import _run as trio_run
from trio.lowlevel import Task

_T = TypeVar("_T")
_FLAG = "_ALLOW_DETERMINISTIC_SCHEDULING"


class StormError(Exception):
    """A run took too many steps: something goes round in circles while time stands still."""


class _StepLimit(trio.abc.Instrument):
    """Ends a run that does not end.

    Trio only logs what an instrument raises, so this one keeps the error and cancels the run.
    """

    def __init__(self, steps_max: int) -> None:
        self.steps = 0
        self.error: Exception | None = None
        self.scope = trio.CancelScope()
        self._steps_max = steps_max

    def before_task_step(self, task: Task) -> None:
        self.steps += 1
        if self.steps == self._steps_max:
            self.error = StormError(
                f"{self.steps} steps by {trio.current_time():.6f} s, the last one of {task.name}"
            )
            self.scope.cancel()


def run_seeded(main: Callable[[], Awaitable[_T]], seed: int, *, steps_max: int) -> _T:
    """Run an async function in virtual time, scheduled as the seed says; return what it returns.

    Args:
        main: the program.
        seed: decides between tasks that could run.
        steps_max: a run with more steps of tasks is a storm.

    Raises:
        StormError: there were more.

    """
    limit = _StepLimit(steps_max)

    async def limited() -> _T:
        with limit.scope:
            return await main()
        assert limit.error is not None
        raise limit.error

    names = vars(trio_run)
    flag_before, state_before = names[_FLAG], trio_run._r.getstate()  # noqa: SLF001 - see the module
    names[_FLAG] = True
    trio_run._r.seed(seed)  # noqa: SLF001
    try:
        return trio.run(limited, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[limit])
    finally:
        names[_FLAG] = flag_before
        trio_run._r.setstate(state_before)  # noqa: SLF001
