"""Is there an order? Decided by search, for keys whose values are not unique.

Wing and Gong 1993 ("Testing and verifying concurrent objects") as Lowe made it fast (2017, "Testing for
linearizability"): carry out, one after the other, steps that no open step must precede; go back where none fits; never
enter a configuration, what was carried out and the state that it left, for a second time. Three things make it
smaller, none of which changes the verdict:
- a step that needs the present state and keeps it is carried out at once: it can only be in the way later;
- a state that an open step of known outcome needs, and that no open step could bring back, is not left;
- states that no open step needs are all one: dead. Optional steps that are equal are used in the order of their calls.

The search stands on a stack of its own, and ends after a given number of configurations: then the verdict is unknown.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence

from trio_kv.check.effects import MISSING, NONE, Step

Configuration = tuple[int, int, int]
"""(the first step that is not carried out, those behind it that are, as bits, the state)"""

_DEAD = -3


def find_order(steps: Sequence[Step], steps_max: int) -> bool | None:
    """Tell whether a key's steps are linearizable from a missing key on.

    Args:
        steps: of one key, in the order of their calls.
        steps_max: how many configurations are looked at; with more the verdict is None.

    """
    search = _Search(steps)
    start = (0, 0, MISSING)
    stack = [start]
    seen = {start}
    for _ in range(steps_max):
        if not stack:
            return False
        configuration = stack.pop()
        if search.is_end(configuration):
            return True
        for follower in search.followers(configuration):
            if follower not in seen:
                seen.add(follower)
                stack.append(follower)
    return None if stack else False


class _Search:
    """The configurations of one key and what follows each."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._needing: dict[int, list[int]] = defaultdict(list)
        self._insisting: dict[int, list[int]] = defaultdict(list)
        self._leaving: dict[int, list[int]] = defaultdict(list)
        for number, step in enumerate(steps):
            self._needing[step.needs].append(number)
            if not step.is_optional:
                self._insisting[step.needs].append(number)
            self._leaving[step.leaves].append(number)

    def is_end(self, configuration: Configuration) -> bool:
        """Tell whether only optional steps are open."""
        return self._fitting(configuration)[1] == math.inf

    def followers(self, configuration: Configuration) -> Iterator[Configuration]:
        """Yield the configurations that may come next; the one to be looked at first comes last."""
        _, _, state = configuration
        fitting, _ = self._fitting(configuration)
        for number in fitting:
            if self._steps[number].needs == state and not self._steps[number].is_write:
                yield self._carry_out(configuration, number)
                return
        is_kept = self._is_open(configuration, self._insisting[state]) and not self._is_open(
            configuration, self._leaving[state]
        )
        optional: set[tuple[int, int]] = set()
        for number in reversed(self._without_twins(fitting, optional)):
            step = self._steps[number]
            if step.needs in (NONE, state) and not (is_kept and step.needs != state):
                yield self._carry_out(configuration, number)

    def _without_twins(self, fitting: Sequence[int], optional: set[tuple[int, int]]) -> list[int]:
        first = []
        for number in fitting:
            step = self._steps[number]
            if step.is_optional:
                if (step.needs, step.leaves) in optional:
                    continue
                optional.add((step.needs, step.leaves))
            first.append(number)
        return first

    def _fitting(self, configuration: Configuration) -> tuple[list[int], float]:
        """Return the open steps that no open step must precede, and the earliest return of an open step."""
        number, done, _ = configuration
        fitting = []
        bound_s = math.inf
        while number < len(self._steps) and self._steps[number].call_s <= bound_s:
            if not done & 1:
                fitting.append(number)
                bound_s = min(bound_s, self._steps[number].return_s)
            number += 1
            done >>= 1
        return fitting, bound_s

    def _carry_out(self, configuration: Configuration, number: int) -> Configuration:
        first, done, state = configuration
        step = self._steps[number]
        done |= 1 << (number - first)
        while done & 1:
            done >>= 1
            first += 1
        after = step.leaves if step.is_write else state
        if after > MISSING and not self._is_open((first, done, after), self._needing[after]):
            after = _DEAD
        return first, done, after

    @staticmethod
    def _is_open(configuration: Configuration, numbers: Sequence[int]) -> bool:
        first, done, _ = configuration
        return any(
            not done >> (numbers[place] - first) & 1
            for place in range(bisect_left(numbers, first), len(numbers))
        )
