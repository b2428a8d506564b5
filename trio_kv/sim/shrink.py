"""Makes a plan that fails smaller, as long as it fails in the same way: what is left is the story of the failure.

The faults are cut down by delta debugging, then other numbers of the plan are tried at their simplest, and both again
until nothing changes any more (ddmin: Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", TSE
2002).
The result is 1-minimal in its faults: without any one of them the run does not fail, or fails in another way.

The same plan always shrinks to the same one: what is tried, and in which order, depends on nothing else.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import attrs

from trio_kv.sim.attempt import Failure
from trio_kv.sim.faults import Fault
from trio_kv.sim.plan import Plan
from trio_kv.sim.result import Result

RUNS_MAX = 400
"""Runs after which a plan is small enough."""

SIMPLEST: dict[str, int | float] = {
    "clients": 1,
    "lanes": 1,
    "keys": 1,
    "stragglers": 0.0,
    "answer_loss": 0.0,
    "think_s": 0.0,
}
"""Members of a plan at their simplest."""
PHASE_S_MIN = 1.0
"""A phase of faults that is shorter is not worth a run."""

Item = TypeVar("Item")
Attempt = Callable[[Plan], Result | Failure | None]
"""Runs a plan, and returns what came of it."""


@attrs.frozen
class Shrunk:
    """What is left of a plan."""

    plan: Plan
    failure: Failure
    runs: int
    is_minimal: bool
    """Whether it is certain that no fault can be left out. If not, there were no more runs."""


class NotRepeatableError(Exception):
    """A plan that failed does not fail again, or does so in another way: something in it is not decided by the seed."""


def shrink(
    plan: Plan,
    failure_kind: str,
    attempt: Attempt,
    *,
    runs_max: int = RUNS_MAX,
    on_run: Callable[[int, Plan], None] | None = None,
) -> Shrunk:
    """Return the smallest plan found that fails in the same way.

    `KeyboardInterrupt` ends it early, with the smallest found so far.

    Args:
        plan: one that fails.
        failure_kind: `Failure.kind` of the way in which it fails.
        attempt: runs a plan.
        runs_max: how often it may do so.
        on_run: told the number of each run, and the smallest plan before it.

    Raises:
        NotRepeatableError: it does not fail so when it is run again.

    """
    shrinking = _Shrinking(plan, failure_kind, attempt, runs_max, on_run)
    if not shrinking.fails(plan):
        raise NotRepeatableError(f"seed {plan.seed} did not fail again with {failure_kind}")
    is_minimal = False
    try:
        shrinking.shrink()
        is_minimal = True
    except (_NoMoreRunsError, KeyboardInterrupt):
        pass
    assert shrinking.failure is not None
    return Shrunk(shrinking.plan, shrinking.failure, shrinking.runs, is_minimal)


class _NoMoreRunsError(Exception):
    """As many runs were made as were allowed."""


@attrs.define
class _Shrinking:
    """The smallest plan so far, and the search for a smaller one. Members as the arguments of `shrink`."""

    plan: Plan
    _kind: str
    _attempt: Attempt
    _runs_max: int
    _on_run: Callable[[int, Plan], None] | None
    failure: Failure | None = None
    runs: int = 0

    def fails(self, plan: Plan) -> bool:
        """Run a plan; if it fails in the same way it is the smallest so far."""
        if self.runs >= self._runs_max:
            raise _NoMoreRunsError
        self.runs += 1
        if self._on_run is not None:
            self._on_run(self.runs, self.plan)
        failure = self._attempt(plan)
        if not isinstance(failure, Failure) or failure.kind != self._kind:
            return False
        self.plan, self.failure = plan, failure
        return True

    def shrink(self) -> None:
        """Shrink until nothing can be made smaller."""
        while True:
            minimize(self.plan.faults, self._fails_with)
            simplified = [self.fails(plan) for plan in self._simpler()]
            if not any(simplified):
                return

    def _fails_with(self, faults: Sequence[Fault]) -> bool:
        return self.fails(attrs.evolve(self.plan, faults=tuple(faults)))

    def _simpler(self) -> Iterator[Plan]:
        """Yield the smallest plan so far with one number simpler, for all that are not at their simplest."""
        for name, simplest in SIMPLEST.items():
            if getattr(self.plan, name) != simplest:
                changes: dict[str, Any] = {name: simplest}
                yield attrs.evolve(self.plan, **changes)
        # All that is planned has begun by then; what has not ended is healed at the end of the phase.
        last_s = max((fault.at_s for fault in self.plan.faults), default=0.0)
        for phase_s in (last_s + PHASE_S_MIN / 2, (last_s + self.plan.fault_phase_s) / 2):
            if self.plan.fault_phase_s - phase_s >= PHASE_S_MIN:
                yield attrs.evolve(self.plan, fault_phase_s=phase_s)


def minimize(items: Sequence[Item], fails: Callable[[Sequence[Item]], bool]) -> Sequence[Item]:
    """Return a part of `items` that fails, in their order, none of which can be left out (ddmin).

    Args:
        items: what fails as a whole.
        fails: whether a part fails.

    """
    if not items or fails(()):
        return ()
    parts = 2
    while len(items) > 1:
        failing = next((smaller for smaller in _smaller(items, parts) if fails(smaller)), None)
        if failing is not None:
            # A part of it is looked for in larger steps again; what is left of it, in steps of the same size.
            parts = 2 if len(failing) <= -(-len(items) // parts) else max(parts - 1, 2)
            items = failing
        elif parts < len(items):
            parts = min(2 * parts, len(items))
        else:
            break
    return items


def _smaller(items: Sequence[Item], parts: int) -> Iterator[Sequence[Item]]:
    """Yield each of so many parts alone, then all but each."""
    size = -(-len(items) // parts)
    cuts = range(0, len(items), size)
    yield from (items[at : at + size] for at in cuts)
    if len(cuts) > 2:
        yield from ([*items[:at], *items[at + size :]] for at in cuts)
