"""Does the order of revisions agree with real time?

Each answer shows the state at a moment: that of a write at its own revision, that of a page at the page's. Any other
answer shows some state between what had been told to anybody when it was asked, and what was asked when it had been
told. It gets the earliest moment at which it is true. That is the best choice: a moment is a lower bound for whatever
is asked later, and the earliest one bounds least. So if an answer finds no moment, there is no order of all requests
that fits both the revisions and the clock: the history is not linearizable (Herlihy and Wing 1990).
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from trio_kv.check.exchange import Exchange
from trio_kv.check.rules import carry_out
from trio_kv.check.timeline import Timeline

ANSWERED = frozenset({"ok", "missing", "conflict"})


def find_moments(
    exchanges: Sequence[Exchange],
    timeline: Timeline,
    known: Mapping[Exchange, int],
    accuse: Callable[[Exchange, str], None],
    may_be_lost: Callable[[Exchange], bool],
) -> Mapping[Exchange, int]:
    """Return the moment of each answer: the revision behind which it shows the state.

    Args:
        exchanges: in the order of their calls.
        timeline: what all keys held at each moment.
        known: the moments of those that tell them.
        accuse: is told of an answer that has none, or one that contradicts the clock.
        may_be_lost: tells whether an answer without a moment may come of a write of which nobody knows the moment.

    """
    moments = dict(known)
    ceilings = _Ceilings(exchanges, known)
    floors = _floors(exchanges, moments)
    for each, (floor, source) in zip(exchanges, floors, strict=True):
        because = "" if source is None else f"; before it was asked {source} had been told"
        if each in known:
            if known[each] < floor or (known[each] == floor and not each.is_read):
                accuse(each, f"is of revision {known[each]}, which is too early{because}")
        elif each.outcome in ANSWERED and (each.is_read or each.outcome != "ok"):
            ceiling = ceilings.of(each)
            moment = _find_moment(each, timeline, floor, ceiling)
            if moment is not None:
                # Where it is a guess since when that holds, it bounds nothing that was asked later; nor does it if a
                # lost write, or time, may have made it true for a while before.
                if moment == floor or not (timeline.is_guess(each.keys, moment) or may_be_lost(each)):
                    moments[each] = moment
            elif not may_be_lost(each):
                end = "on" if ceiling == math.inf else f"to {ceiling}"
                accuse(each, f"is true of no state from revision {floor} {end}{because}")
    return moments


def _floors(
    exchanges: Sequence[Exchange], moments: Mapping[Exchange, int]
) -> Iterator[tuple[int, Exchange | None]]:
    """Yield the earliest moment that each may have, and whose answer says so. `moments` grows meanwhile."""
    ended = [each for each in exchanges if each.return_s is not None and each.outcome in ANSWERED]
    ended.sort(key=lambda each: each.return_s or 0.0)
    floor, source, place = 0, None, 0
    for each in exchanges:
        while place < len(ended) and (ended[place].return_s or 0.0) < each.call_s:
            other = ended[place]
            if not other.is_stale and moments.get(other, 0) > floor:
                floor, source = moments[other], other
            place += 1
        yield (0, None) if each.is_stale else (floor, source)


def _find_moment(each: Exchange, timeline: Timeline, floor: int, ceiling: float) -> int | None:
    """Return the earliest moment within bounds at which an answer is true."""
    keys = each.keys
    moment: int | None = floor
    while moment is not None and moment <= ceiling:
        if carry_out(each, timeline.state_at(keys, moment), moment).find_difference(each) is None:
            return moment
        moment = timeline.next_change(keys, moment)
    return None


class _Ceilings:
    """Up to which revision an answer may look: what was asked after it was told stands behind it."""

    def __init__(self, exchanges: Iterable[Exchange], moments: Mapping[Exchange, int]) -> None:
        """Go by those whose moments are known, in the order of their calls."""
        fixed = [each for each in exchanges if each in moments and not each.is_stale]
        self._calls = [each.call_s for each in fixed]
        self._lowest: list[float] = [math.inf] * (len(fixed) + 1)
        for place in range(len(fixed) - 1, -1, -1):
            each = fixed[place]
            highest = moments[each] if each.is_read else moments[each] - 1
            self._lowest[place] = min(self._lowest[place + 1], highest)

    def of(self, exchange: Exchange) -> float:
        """Return the last revision whose state an answer may show."""
        if exchange.return_s is None:
            return math.inf
        return self._lowest[bisect_right(self._calls, exchange.return_s)]
