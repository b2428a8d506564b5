"""What an operation asks of a key's state and makes of it: the sequential rules of get, set, delete and cas.

A key is a register that may hold nothing. Each step needs a certain state, or does not care, and leaves another, or
leaves it as it is. No step cares what the state is *not*: a conflict tells what it met. All that is proved in `blocks`,
`search` and `counterexample` rests on that.

Unknown outcomes (`prepare` drops them where that is sound):
- An unknown get tells nothing and changes nothing.
- An unknown set or cas is dropped unless its value is needed by a step of known outcome, or by an unknown cas that is
  kept for the same reason. Proof: take an order of the whole history and take out the dropped steps that take effect
  in it. The last write before each kept step that needs a state left that state, so it is kept, too, and is still
  the last one. The other way round, an order without the dropped steps is an order of the whole in which they never
  take effect.
- An unknown set or cas whose value somebody needs, and nobody else writes, did take effect.
- An unknown delete stays optional: "no such key" is no unique value, so nobody can tell whose work it was.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import attrs

from trio_kv.check.history import Operation

MISSING = 0
"""The state of a key that does not exist; states above are values."""
NONE = -1
"""As a need: any state will do. As what is left: the state as it was."""
IMPOSSIBLE = -2
"""As a need: no state will do."""


@attrs.frozen(eq=False)
class Step:
    """One operation as its key sees it."""

    operation: Operation
    call_s: float
    return_s: float
    """math.inf: it may take effect at any time after its call."""
    needs: int
    leaves: int
    is_optional: bool = False
    """It may also never take effect."""

    @property
    def is_write(self) -> bool:
        """Tell whether it changes the state."""
        return self.leaves != NONE


def prepare(operations: Iterable[Operation]) -> list[Step]:
    """Return the steps of one key in the order of their calls, without those that can't matter."""
    numbers: dict[bytes, int] = {}

    def number_of(value: bytes | None) -> int:
        return MISSING if value is None else numbers.setdefault(value, len(numbers) + 1)

    steps = []
    for operation in sorted(operations, key=lambda each: each.call_s):
        effect = effect_of(operation)
        if effect is None:
            continue
        needs, leaves = (part if isinstance(part, int) else number_of(part) for part in effect)
        is_unknown = operation.outcome == "unknown"
        return_s = operation.return_s if not is_unknown and operation.return_s is not None else math.inf
        steps.append(Step(operation, operation.call_s, return_s, needs, leaves, is_unknown))
    return drop_unseen(steps)


def cut(steps: Sequence[Step], end_s: float) -> list[Step]:
    """Return what was known at a moment: a write that had not returned by then may or may not take effect.

    A history is in order up to every moment, or it is not in order (linearizability is closed under prefixes).
    Hindsight is used where it tells that an operation had no effect.
    """
    known = []
    for step in steps:
        if step.call_s > end_s:
            break
        if step.return_s <= end_s:
            known.append(step)
        elif step.is_write:
            needs = NONE if step.operation.op == "delete" else step.needs
            known.append(attrs.evolve(step, return_s=math.inf, needs=needs, is_optional=True))
    return drop_unseen(known)


def drop_unseen(steps: Sequence[Step]) -> list[Step]:
    """Return the steps without unknown writes of values that nobody needs; the module's docstring proves it."""
    unknown: dict[int, list[Step]] = defaultdict(list)
    for step in steps:
        if step.is_optional and step.leaves > MISSING:
            unknown[step.leaves].append(step)
    if not unknown:
        return list(steps)
    wanted = [step.needs for step in steps if not step.is_optional]
    kept: set[int] = set()
    while wanted:
        for writer in unknown.pop(wanted.pop(), ()):
            kept.add(id(writer))
            wanted.append(writer.needs)
    return [step for step in steps if not step.is_optional or step.leaves == MISSING or id(step) in kept]


def effect_of(operation: Operation) -> tuple[int | bytes | None, int | bytes | None] | None:
    """Return what it needs and what it leaves; None if it tells nothing and changes nothing.

    A part is a value, None for no value, or one of the numbers above.
    """
    outcome = operation.outcome
    if outcome == "failed":
        return None
    if outcome == "conflict":
        is_unfounded = operation.result == operation.expected
        return IMPOSSIBLE if is_unfounded else operation.result, NONE
    match operation.op:
        case "get":
            return None if outcome == "unknown" else (operation.result, NONE)
        case "set":
            return NONE, operation.value
        case "delete":
            needs = NONE if outcome == "unknown" else operation.result
            return needs, NONE if outcome == "missing" else MISSING
        case _:
            return operation.expected, operation.value
