"""One attempt: a seed or a plan is run in a world, and what came of it is told in values that can be sent and kept."""

import hashlib
import time
import traceback
from pathlib import Path
from typing import BinaryIO

import attrs

from trio_kv.check.violation import Violation
from trio_kv.sim.plan import Plan
from trio_kv.sim.result import Result
from trio_kv.sim.worlds import ANY, Draw, SimulationFailedError, Tell, WorldKind, world_kind

FRAMES_TOLD = 14
"""How many of the innermost frames of a failure are told."""


@attrs.frozen(kw_only=True)
class Task:
    """A seed to be run in a world."""

    world: str
    seed: int
    draw: Draw = ANY
    is_bare: bool = False
    is_traced: bool = False
    """Whether the text of the trace is to be hashed, too."""


@attrs.frozen(kw_only=True)
class Failure:
    """What went wrong in a run."""

    kind: str
    """What was raised and where, without numbers: two runs that fail for one reason have one kind."""
    text: str
    frames: str
    """The innermost frames of the traceback."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of a task: one of the last three."""

    task: Task
    took_s: float
    """Of a processor; of wall time, if it is lost."""
    figures: Result | None = None
    failure: Failure | None = None
    lost: str | None = None
    """Why there is no result at all: the process that ran it died, or did not end."""


class TraceText:
    """The text of a trace: takes its lines, and hashes them as a file that holds them would be.

    A file that can't be written is no fault of what is run, so it raises nothing there: the error is kept.
    """

    def __init__(self, file: BinaryIO | None = None) -> None:
        """Write each line into `file`, too."""
        self.loss: OSError | None = None
        """Why the file does not hold all, if so."""
        self._file = file
        self._hash = hashlib.sha256()

    def tell(self, line: str) -> None:
        """Take a line."""
        data = line.encode() + b"\n"
        self._hash.update(data)
        if self._file is None or self.loss is not None:
            return
        try:
            self._file.write(data)
        except OSError as error:
            self.loss = error

    def digest(self) -> str:
        """Return the SHA-256 of all lines."""
        return self._hash.hexdigest()


def attempt(
    kind: WorldKind, plan: Plan, tell: Tell | None = None, *, is_bare: bool = False
) -> Result | Failure:
    """Run a plan and return what came of it, good or bad."""
    try:
        return kind.run(plan, tell, is_bare=is_bare)
    except Exception as error:  # noqa: BLE001 - whatever the code under test raises is what was looked for
        return _failure_of(error)


def run_task(task: Task) -> Outcome:
    """Run a seed and return what came of it, good or bad."""
    kind = world_kind(task.world)
    began_s = time.process_time()
    text = TraceText() if task.is_traced else None
    plan = kind.draw_plan(task.seed, task.draw)
    result = attempt(kind, plan, None if text is None else text.tell, is_bare=task.is_bare)
    took_s = time.process_time() - began_s
    if isinstance(result, Failure):
        return Outcome(task=task, took_s=took_s, failure=result)
    if text is not None:
        result = attrs.evolve(result, text_hash=text.digest())
    return Outcome(task=task, took_s=took_s, figures=result)


def _failure_of(error: BaseException) -> Failure:
    error = _heart_of(error)
    frames = traceback.extract_tb(error.__traceback__)
    raised_in = f"{Path(frames[-1].filename).stem}.{frames[-1].name}" if frames else "nowhere"
    name = type(error).__name__
    return Failure(
        kind=f"{name} in {raised_in}",
        text=f"{name}: {error}",
        frames="".join(traceback.format_list(frames[-FRAMES_TOLD:])),
    )


def _heart_of(error: BaseException) -> BaseException:
    """Return the error that began it: of a SimulationFailedError its cause, of a group the violation, if any."""
    while True:
        if isinstance(error, SimulationFailedError) and error.__cause__ is not None:
            error = error.__cause__
        elif isinstance(error, BaseExceptionGroup):
            # A violation says more than the errors that followed from it.
            error = min(error.exceptions, key=lambda each: not isinstance(each, Violation))
        else:
            return error
