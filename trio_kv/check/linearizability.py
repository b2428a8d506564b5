"""Is a history linearizable (Herlihy and Wing 1990), and if not, why?

Each operation must seem to take effect at one moment between its call and its return, in an order that fits the
rules of get, set, delete and cas. Keys are judged one by one: a history is linearizable if and only if each key's
part of it is (their theorem 1, locality; Horn and Kroening 2015 call it P-compositionality). All keys are missing at
the beginning, and equal values are equal bytes.

Each key goes through
- `effects`: operations become steps that need a state and leave one; what can't matter is dropped;
- `blocks` if each value that anybody saw was written once, which workloads take care of: no search, no limit;
- `search` otherwise: the verdict is unknown if there are too many configurations;
- `counterexample` and `reasons` if there is no order: the fewest operations that show it, and words for them.

Equal moments count as concurrent, see `history.RisingClock`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import attrs

from trio_kv.check import blocks, search
from trio_kv.check.counterexample import shrink
from trio_kv.check.effects import Step, drop_unseen, prepare
from trio_kv.check.history import Operation
from trio_kv.check.reasons import describe_text, explain

STEPS_MAX = 1_000_000
"""Configurations that are looked at for one key."""

SHRINKING_STEPS_MAX = 5_000
"""Configurations that are looked at for one part of a key's history, to find the smallest that has no order."""


@attrs.frozen
class BrokenKey:
    """A key whose operations have no order."""

    key: str
    kind: str
    """In a few words, like `stale read`; see `reasons`."""
    words: str
    """The first illegal step and what makes it illegal."""
    illegal: Operation
    """The first illegal step: up to its return, no order is left."""
    operations: tuple[Operation, ...]
    """The fewest operations that have no order, by call; `illegal` is one of them."""


@attrs.frozen
class Verdict:
    """What became of a history."""

    operations: int
    """How many were judged."""
    keys: int
    violations: tuple[BrokenKey, ...]
    """By key."""
    undecided: tuple[str, ...]
    """Keys for which the limit of steps was reached."""

    @property
    def outcome(self) -> str:
        """Return valid, violation or unknown."""
        if self.violations:
            return "violation"
        return "unknown" if self.undecided else "valid"

    @property
    def is_valid(self) -> bool:
        """Tell whether the history is linearizable."""
        return self.outcome == "valid"

    @property
    def words(self) -> str:
        """Return the verdict in sentences, one a line."""
        judged = f"{self.operations:,} operations on {self.keys:,} keys"
        lines = [
            f"{broken.kind} of {describe_text(broken.key)}: {broken.words}" for broken in self.violations
        ]
        lines += [f"undecided: {describe_text(key)} has too many orders to try" for key in self.undecided]
        head = {"valid": "linearizable", "violation": "not linearizable", "unknown": "not decided"}[
            self.outcome
        ]
        return "\n".join([f"{judged}: {head}", *lines])


def check_history(operations: Iterable[Operation], *, steps_max: int = STEPS_MAX) -> Verdict:
    """Judge a history.

    Args:
        operations: of all clients and keys, in any order.
        steps_max: how many configurations are looked at for one key whose values are not unique.

    """
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        by_key[operation.key].append(operation)
    violations = []
    undecided = []
    for key in sorted(by_key):
        steps = prepare(by_key[key])
        verdict = _has_order(steps, steps_max)
        if verdict is None:
            undecided.append(key)
        elif not verdict:
            violations.append(_show(key, by_key[key], steps))
    return Verdict(
        sum(len(each) for each in by_key.values()), len(by_key), tuple(violations), tuple(undecided)
    )


def _has_order(steps: Sequence[Step], steps_max: int) -> bool | None:
    if blocks.has_unique_values(steps):
        return blocks.is_in_order(steps)
    return search.find_order(steps, steps_max)


def _show(key: str, operations: Sequence[Operation], steps: Sequence[Step]) -> BrokenKey:
    def has_no_order(part: Sequence[Step]) -> bool:
        return _has_order(drop_unseen(part), SHRINKING_STEPS_MAX) is False

    minimal, illegal = shrink(steps, has_no_order)
    kind, words = explain(illegal, minimal, operations)
    return BrokenKey(key, kind, words, illegal.operation, tuple(step.operation for step in minimal))
