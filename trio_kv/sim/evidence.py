"""What is kept of a failure: a folder with the plan that fails, the trace of its run, and the violation in words."""

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs

from trio_kv.sim.attempt import Failure, TraceText, attempt
from trio_kv.sim.plan import Plan
from trio_kv.sim.plan_file import write_plan
from trio_kv.sim.shrink import NotRepeatableError, Shrunk, shrink
from trio_kv.sim.words import describe_schedule
from trio_kv.sim.worlds import WorldKind

PLAN_NAME, TRACE_NAME, VIOLATION_NAME = "plan.json", "trace.txt", "violation.txt"


@attrs.frozen(kw_only=True)
class Evidence:
    """A failure, its smallest plan, and where both are kept."""

    folder: Path
    faults_drawn: int
    shrunk: Shrunk
    is_bare: bool

    @property
    def replay_command(self) -> str:
        """The command that repeats the run of the smallest plan."""
        bare = " --bare" if self.is_bare else ""
        plan = shlex.quote(str(self.folder / PLAN_NAME))
        return f"python -m trio_kv sim --plan {plan}{bare} --verbose"

    def __str__(self) -> str:
        plan, runs = self.shrunk.plan, self.shrunk.runs
        kept = f"{len(plan.faults)} of {self.faults_drawn} faults are left after {runs} runs"
        least = "none of them can be left out" if self.shrunk.is_minimal else "more might be left out"
        return (
            f"{kept}, {least}:\n{describe_schedule(plan)}\n  then {self.shrunk.failure.text}\n"
            f"kept in {self.folder}; replay it: {self.replay_command}"
        )


def gather(
    kind: WorldKind,
    plan: Plan,
    failure: Failure,
    out: Path,
    *,
    runs_max: int,
    is_bare: bool = False,
    on_run: Callable[[int, Plan], None] | None = None,
) -> Evidence:
    """Shrink a plan that failed, run what is left once more, and keep it all.

    Args:
        kind: the world in which it failed.
        plan: the plan that did.
        failure: how it did.
        out: where the folder is made.
        runs_max: how many runs may be made to shrink it.
        is_bare: whether it failed without judges.
        on_run: as `shrink` takes it.

    Raises:
        NotRepeatableError: it does not fail again.
        OSError: the folder can't be made, or what belongs there can't be written.

    """
    run = partial(attempt, kind, is_bare=is_bare)
    shrunk = shrink(plan, failure.kind, run, runs_max=runs_max, on_run=on_run)
    folder = out / f"{kind.name}-{plan.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PLAN_NAME).write_text(write_plan(kind.name, shrunk.plan))
    with (folder / TRACE_NAME).open("wb") as trace:
        text = TraceText(trace)
        again = run(shrunk.plan, text.tell)
    if text.loss is not None:
        raise text.loss
    if not isinstance(again, Failure) or again.kind != failure.kind:
        raise NotRepeatableError(
            f"seed {plan.seed} does not fail with {failure.kind} while it is told what happens"
        )
    evidence = Evidence(folder=folder, faults_drawn=len(plan.faults), shrunk=shrunk, is_bare=is_bare)
    (folder / VIOLATION_NAME).write_text(f"{evidence}\n\n{again.frames}\nas it was drawn:\n{plan}\n")
    return evidence
