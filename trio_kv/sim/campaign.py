"""Campaigns: many seeds, in one world or more, and one verdict over all of them.

Seeds are taken in order. With several worlds the next seed goes to the one that has used the least time so far, so that
each gets its share of the machine however slow it is. How many seeds there are in a given time depends on the machine;
what each seed does, never.
"""

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from enum import IntEnum
from typing import Any

import attrs

from trio_kv.sim.attempt import Failure, Outcome, Task, run_task
from trio_kv.sim.result import Result
from trio_kv.sim.worlds import ANY, Draw, WorldKind

FAILURES_MAX = 10
"""A campaign ends after so many seeds that failed: further ones say nothing new."""


class Verdict(IntEnum):
    """What a campaign came to: the exit codes of `sim`."""

    VALID = 0
    VIOLATION = 1
    USAGE = 2
    UNKNOWN = 4
    """Nothing was found, and that proves nothing: situations were not reached, or seeds not run to their end."""
    INTERRUPTED = 130
    """Nothing was found until then."""


@attrs.frozen
class Seeds:
    """The seeds from `first` to `last`; without `last` there is no end."""

    first: int = 1
    last: int | None = None

    def __str__(self) -> str:
        if self.first == self.last:
            return str(self.first)
        return f"{self.first}..{'' if self.last is None else self.last}"

    def __len__(self) -> int:
        assert self.last is not None
        return self.last - self.first + 1

    @property
    def is_one(self) -> bool:
        """Whether it is a single seed."""
        return self.first == self.last


def parse_seeds(text: str) -> Seeds:
    """Return the seeds that a text means.

    >>> parse_seeds("7"), parse_seeds("1..20"), parse_seeds("5..")
    (Seeds(first=7, last=7), Seeds(first=1, last=20), Seeds(first=5, last=None))

    Raises:
        ValueError: it means none.

    """
    found = re.fullmatch(r"([0-9]{1,19})(\.\.([0-9]{1,19})?)?", text, re.ASCII)
    if found is None:
        raise ValueError(f"{text!r} is no seeds: write one, as 7, or a range, as 1..100 or 1..")
    first_text, dots, last_text = found.groups()
    first = int(first_text)
    last = None if dots and not last_text else int(last_text or first_text)
    if last is not None and last < first:
        raise ValueError(f"there are no seeds in {text!r}")
    return Seeds(first, last)


@attrs.frozen(kw_only=True)
class Order:
    """What a campaign is to do."""

    worlds: tuple[str, ...] = ("core",)
    seeds: Seeds
    minutes: float = math.inf
    """No seed begins later than this."""
    draw: Draw = ANY
    is_bare: bool = False
    is_traced: bool = False


@attrs.define
class Totals:
    """What the seeds of one world came to together."""

    seeds: int = 0
    events: int = 0
    operations: int = 0
    crashes: int = 0
    simulated_s: float = 0.0
    used_s: float = 0.0
    """What these seeds took of a processor."""
    slowest_s: float = 0.0
    """The longest recovery: from healing until all followed one leader."""
    slowest_seed: int | None = None
    coverage: Counter[str] = attrs.field(factory=Counter)
    failures: list[tuple[int, Failure]] = attrs.field(factory=list)
    lost: list[tuple[int, str]] = attrs.field(factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome in."""
        seed = outcome.task.seed
        self.used_s += outcome.took_s
        if outcome.lost is not None:
            self.lost.append((seed, outcome.lost))
            return
        self.seeds += 1
        if outcome.failure is not None:
            self.failures.append((seed, outcome.failure))
        if outcome.figures is not None:
            self._add_figures(seed, outcome.figures)

    def _add_figures(self, seed: int, figures: Result) -> None:
        self.events += figures.events
        self.operations += figures.operations
        self.crashes += figures.crashes
        self.simulated_s += figures.simulated_s
        self.coverage.update(figures.coverage)
        if self.slowest_seed is None or figures.recovered_after_s > self.slowest_s:
            self.slowest_s, self.slowest_seed = figures.recovered_after_s, seed


Run = Callable[[Iterator[Task]], Generator[Outcome, None, None]]
"""Runs tasks and yields their outcomes in any order; takes a task when it has room for it, not before."""


def run_here(tasks: Iterator[Task]) -> Generator[Outcome, None, None]:
    """Run tasks in this process, one after the other."""
    for task in tasks:
        yield run_task(task)


def replay_command(task: Task) -> str:
    """Return the command that shows all that happens in the run of a seed."""
    draw = task.draw
    kinds = "" if draw.kinds is None else f" --kinds {','.join(draw.kinds)}"
    beyond = " --beyond-budget" if draw.is_beyond_budget else ""
    bare = " --bare" if task.is_bare else ""
    return f"python -m trio_kv sim --seed {task.seed} --world {task.world}{kinds}{beyond}{bare} --verbose"


class Campaign:
    """One campaign: what it has found so far, and at its end the verdict."""

    def __init__(
        self, order: Order, kinds: Mapping[str, WorldKind], now: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare a campaign.

        Args:
            order: what it is to do.
            kinds: the worlds, by name.
            now: a clock, s.

        """
        self.order = order
        self.totals = {name: Totals() for name in order.worlds}
        self.is_interrupted = False
        self._kinds = kinds
        self._now = now
        self._began_s = now()
        self._ended_s: float | None = None

    @property
    def took_s(self) -> float:
        """How long it has taken so far, or did take."""
        return (self._now() if self._ended_s is None else self._ended_s) - self._began_s

    @property
    def failures(self) -> list[tuple[str, int, Failure]]:
        """All failures as (world, seed, what), by world and seed."""
        return [
            (world, seed, failure)
            for world, totals in self.totals.items()
            for seed, failure in sorted(totals.failures, key=lambda each: each[0])
        ]

    @property
    def lost(self) -> list[tuple[str, int, str]]:
        """All seeds that did not come to an end, as (world, seed, why)."""
        return [(world, *lost) for world, totals in self.totals.items() for lost in sorted(totals.lost)]

    def carry_out(self, run: Run, on_outcome: Callable[[Outcome], None]) -> None:
        """Run the seeds; Ctrl-C ends it in order.

        Args:
            run: runs tasks.
            on_outcome: told each outcome, after it was counted in.

        """
        try:
            with closing(run(self._tasks())) as outcomes:
                for outcome in outcomes:
                    self.totals[outcome.task.world].add(outcome)
                    on_outcome(outcome)
        except KeyboardInterrupt:
            self.is_interrupted = True
        self._ended_s = self._now()

    def _tasks(self) -> Iterator[Task]:
        order = self.order
        following = dict.fromkeys(order.worlds, order.seeds.first)
        end_s = self._began_s + order.minutes * 60.0
        while self._now() < end_s and len(self.failures) < FAILURES_MAX:
            due = [
                name for name in following if order.seeds.last is None or following[name] <= order.seeds.last
            ]
            if not due:
                return
            # Seeds under way have used no time yet. Of worlds with equal times, the one with fewer seeds begun is next.
            world = min(due, key=lambda name: (self.totals[name].used_s, following[name]))
            yield Task(
                world=world,
                seed=following[world],
                draw=order.draw,
                is_bare=order.is_bare,
                is_traced=order.is_traced,
            )
            following[world] += 1

    def situations(self, world: str) -> Sequence[str]:
        """Return what many seeds of a world must have reached."""
        return self._kinds[world].situations

    def missing(self) -> dict[str, list[str]]:
        """Return the situations that should have been reached and were not, by world.

        They are expected of campaigns that are large enough, and neither confined to some kinds of faults nor bare.
        """
        if self.order.draw != ANY or self.order.is_bare:
            return {}
        missing = {
            world: [each for each in self.situations(world) if not totals.coverage[each]]
            for world, totals in self.totals.items()
            if totals.seeds >= self._kinds[world].seeds_for_coverage
        }
        return {world: situations for world, situations in missing.items() if situations}

    def verdict(self) -> Verdict:
        """Return what it came to."""
        if self.failures:
            return Verdict.VIOLATION
        if self.is_interrupted:
            return Verdict.INTERRUPTED
        if self.lost or self.missing() or not all(totals.seeds for totals in self.totals.values()):
            return Verdict.UNKNOWN
        return Verdict.VALID

    def summary(self) -> dict[str, Any]:
        """Return all figures, as JSON may hold them."""
        order = self.order
        return {
            "verdict": self.verdict().name.lower(),
            "seeds": str(order.seeds),
            "kinds": order.draw.kinds,
            "beyond_budget": order.draw.is_beyond_budget,
            "bare": order.is_bare,
            "took_s": round(self.took_s, 3),
            "worlds": {world: self._summary_of(world) for world in self.totals},
        }

    def _summary_of(self, world: str) -> dict[str, Any]:
        totals = self.totals[world]
        return {
            "seeds": totals.seeds,
            "events": totals.events,
            "operations": totals.operations,
            "crashes": totals.crashes,
            "simulated_hours": round(totals.simulated_s / 3600, 3),
            "used_s": round(totals.used_s, 3),
            "events_per_s_of_a_core": round(totals.events / totals.used_s) if totals.used_s else 0,
            "times_real_time": round(totals.simulated_s / self.took_s, 1) if self.took_s else 0.0,
            "longest_recovery_s": round(totals.slowest_s, 3),
            "longest_recovery_seed": totals.slowest_seed,
            "coverage": {each: totals.coverage[each] for each in self.situations(world)},
            "missing": self.missing().get(world, []),
            "failures": [
                {"seed": seed, "kind": failure.kind, "text": failure.text}
                for failed_in, seed, failure in self.failures
                if failed_in == world
            ],
            "lost": [{"seed": seed, "why": why} for seed, why in sorted(totals.lost)],
        }
