"""The smallest part of a history that has no order.

A part without an order proves that the whole has none only if each order of the whole, cut down to the part, were one
of the part. A step that only needs a state may always be left out. A write may be left out if each kept step that needs
what the write left
- returned before the write was called, or
- was called after another kept write had returned, and that one was called after the write left out had returned: so
  the state that the step met was another one.

Proof: as for dropped writes in `effects`, the last write before each kept step that needs a state is kept.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import accumulate

from trio_kv.check.effects import NONE, Step, cut

Judge = Callable[[Sequence[Step]], bool]
"""Tells whether steps have no order, for sure."""

TAIL_MIN = 16
"""Steps that are tried first, the latest."""
TRIES_MAX = 500
"""So many parts are judged while steps are left out; then what is left is the answer."""
STEPS_JUDGED_MAX = 1_000_000
"""As `TRIES_MAX`: the steps of all these parts together."""


def shrink(steps: Sequence[Step], has_no_order: Judge) -> tuple[list[Step], Step]:
    """Return the smallest part, in the order of calls, and its step after whose return no order is left.

    Smallest means: no step can be left out, nor a row of them, with what depends on them. Where that takes too long,
    because hundreds of steps are needed, it may be larger.

    Args:
        steps: of one key, which have no order.
        has_no_order: the judge of a part.

    """
    returns = sorted({step.return_s for step in steps if not step.is_optional})
    first = bisect_left(returns, True, key=lambda end_s: has_no_order(cut(steps, end_s)))
    # A judge with a budget may find no part to be wrong, though the whole is.
    end_s = returns[min(first, len(returns) - 1)]
    part = cut(steps, end_s)
    if not has_no_order(part):
        part = list(steps)
    kept = _minimize(part, has_no_order)
    illegal = [step for step in kept if step.return_s == end_s and step.needs != NONE]
    return kept, (illegal or kept)[-1]


def _minimize(steps: Sequence[Step], has_no_order: Judge) -> list[Step]:
    """Leave out what is early, as most often only the last steps matter; then rows of steps; then single ones."""
    count = TAIL_MIN
    kept = list(steps)
    while count < len(steps):
        tail = _leave_out(steps, list(steps[-count:]))
        if has_no_order(tail):
            kept = tail
            break
        count *= 2
    tries, judged = 0, 0
    size = max(1, len(kept) // 2)
    place = 0
    is_smaller = False
    while tries < TRIES_MAX and judged < STEPS_JUDGED_MAX:
        if place >= len(kept):
            if size == 1 and not is_smaller:
                break
            place, is_smaller, size = 0, False, max(1, min(size, len(kept)) // 2)
        rest = _leave_out(steps, kept[:place] + kept[place + size :])
        tries, judged = tries + 1, judged + len(rest)
        if has_no_order(rest):
            kept, is_smaller = rest, True
        else:
            place += size
    return kept


def _leave_out(steps: Sequence[Step], kept: list[Step]) -> list[Step]:
    """Return what may be kept so that it proves something: without steps that need what was left out."""
    while True:
        meets_gap = _gaps(steps, kept)
        rest = [step for step in kept if not meets_gap(step)]
        if len(rest) == len(kept):
            return kept
        kept = rest


def _gaps(steps: Sequence[Step], kept: Sequence[Step]) -> Callable[[Step], bool]:
    """Return what tells whether a step may have met the state of a write that was left out."""
    kept_ids = {id(step) for step in kept}
    left_out: dict[int, list[Step]] = defaultdict(list)
    for step in steps:
        if step.is_write and id(step) not in kept_ids:
            left_out[step.leaves].append(step)
    latest = {
        state: list(accumulate((write.return_s for write in writes), max))
        for state, writes in left_out.items()
    }
    shields = [step for step in kept if step.is_write]
    calls = [step.call_s for step in shields]
    earliest = list(accumulate((step.return_s for step in reversed(shields)), min))[::-1]

    def meets_gap(step: Step) -> bool:
        writes = left_out.get(step.needs)
        if writes is None:
            return False
        count = bisect_right(writes, step.return_s, key=lambda write: write.call_s)
        if not count:
            return False
        shield = bisect_right(calls, latest[step.needs][count - 1])
        return shield == len(shields) or earliest[shield] >= step.call_s

    return meets_gap
