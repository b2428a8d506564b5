"""Is there an order? Decided without search, for keys whose values are unique. O(n log n).

Where each value that somebody needs has one writer, most of the order is forced (Gibbons and Korach 1997, "Testing
shared memories", for reads and writes; here with cas, deletes, and missing keys, of which there are many alike).

**Blocks.** All that needs a value stands between its writer and the next step that changes the state, with nothing
else in between. A cas or delete that needs the value ends that, and a cas begins the next. So steps join to blocks,
which stand in any order as a whole. A block must come before another if one of its steps returned before one of the
other's was called, so only its earliest return and its latest call count. Blocks differ in what they begin from
(anything, or a missing key) and in what they leave (a missing key, or a *dead* value, which nobody needs). A step
that only needs a missing key is a block, too.

**Choice.** An open block *fits* when no other open one must come before it. The next block is chosen by the rules
below. Each is right because an order of the open blocks that goes on in another way can be rearranged into one that
goes on in this way: the chosen block is moved to the front, where it fits, and where it stood the state stays as
it was. What can go on from a dead value can go on from a missing key as well.
1. The key is missing, and a block fits that begins from that and keeps it so: take it.
2. The key is missing, and a block fits that begins from that: take the one with the earliest return. Where it stood,
   the key stays missing. Two such may change places: the one with the later return fits where the other stood.
3. A block fits that begins from anything and leaves a dead value: take it. If the key is missing, nothing that fits
   needs that now, and a block that begins from anything and leaves the key missing can come right after it.
4. A block fits that begins from anything and leaves the key missing: take the one with the earliest return, as in 2.
5. The value is dead and an unknown delete was called: let it take effect. It is the last resort, as it can wait.
6. Nothing fits: there is no order.
"""

import heapq
from collections import defaultdict
from collections.abc import Sequence

import attrs

from trio_kv.check.effects import IMPOSSIBLE, MISSING, NONE, Step


@attrs.frozen(eq=False)
class Block:
    """Steps that follow one another in any order of the key."""

    call_s: float
    """The latest of its steps' calls: what had returned before must come first."""
    return_s: float
    """The earliest of its steps' returns: what was called after that must come later."""
    begins_missing: bool
    leaves_missing: bool


def has_unique_values(steps: Sequence[Step]) -> bool:
    """Tell whether each value that some step needs is written by one step at most."""
    needed = {step.needs for step in steps}
    written: set[int] = set()
    for step in steps:
        if step.leaves > MISSING and step.leaves in needed:
            if step.leaves in written:
                return False
            written.add(step.leaves)
    return True


def is_in_order(steps: Sequence[Step]) -> bool:
    """Tell whether a key's steps are linearizable from a missing key on.

    Args:
        steps: of one key, with unique values, without optional writes of values that nobody needs.

    """
    blocks = _build(steps)
    return blocks is not None and _Choice(blocks, _unknown_deletes(steps)).run()


def _unknown_deletes(steps: Sequence[Step]) -> list[float]:
    return sorted(step.call_s for step in steps if step.is_optional and step.leaves == MISSING)


def _build(steps: Sequence[Step]) -> list[Block] | None:
    """Return the blocks, or None if the steps of one can't follow one another."""
    readers: dict[int, list[Step]] = defaultdict(list)
    changers: dict[int, Step] = {}
    firsts: list[Step] = []
    for step in steps:
        if step.needs == IMPOSSIBLE:
            return None
        if step.needs <= MISSING:
            if not (step.is_optional and step.leaves == MISSING):
                firsts.append(step)
        elif not step.is_write:
            readers[step.needs].append(step)
        else:
            changers[step.needs] = step
    blocks: list[Block] = []
    used = 0
    for first in firsts:
        groups = _chain(first, readers, changers)
        used += sum(len(group) for group in groups)
        block = _join(groups)
        if block is None:
            return None
        blocks.append(block)
    # What is left over needs a value that no step writes, that only its own consequences write, or that another
    # step used up.
    is_all = used == len(steps) - len(_unknown_deletes(steps))
    return blocks if is_all else None


def _chain(first: Step, readers: dict[int, list[Step]], changers: dict[int, Step]) -> list[list[Step]]:
    """Return a block's steps: groups, one after the other, with no order inside a group."""
    groups = [[first]]
    value = first.leaves
    while value > MISSING:
        if value in readers:
            groups.append(readers[value])
        if value not in changers:
            break
        changer = changers[value]
        groups.append([changer])
        value = changer.leaves
    return groups


def _join(groups: Sequence[Sequence[Step]]) -> Block | None:
    call_s, return_s = float("-inf"), float("inf")
    for group in groups:
        earliest_s = min(step.return_s for step in group)
        if earliest_s < call_s:
            return None
        return_s = min(return_s, earliest_s)
        call_s = max(call_s, *(step.call_s for step in group))
    first, last = groups[0][0], groups[-1][0]
    leaves_missing = last.leaves == MISSING or (first.needs == MISSING and first.leaves == NONE)
    return Block(call_s, return_s, first.needs == MISSING, leaves_missing)


class _Choice:
    """Chooses block after block. Those that fit wait in four heaps, by return."""

    def __init__(self, blocks: Sequence[Block], deletes: Sequence[float]) -> None:
        self._by_call = sorted(range(len(blocks)), key=lambda number: blocks[number].call_s)
        self._by_return = sorted(range(len(blocks)), key=lambda number: blocks[number].return_s)
        self._blocks = blocks
        self._deletes = deletes
        self._deletes_used = 0
        self._is_taken = [False] * len(blocks)
        self._fits = [False] * len(blocks)
        self._called = 0
        self._returned = 0
        self._heaps: dict[tuple[bool, bool], list[tuple[float, int]]] = {
            (begins, leaves): [] for begins in (False, True) for leaves in (False, True)
        }

    def run(self) -> bool:
        """Tell whether all blocks can be taken."""
        keep, use, kill, make = (
            self._heaps[kind] for kind in ((True, True), (True, False), (False, False), (False, True))
        )
        is_missing = True
        for _ in self._blocks:
            self._find_fitting()
            if not is_missing and not kill and not make:
                if not self._has_delete():
                    return False
                self._deletes_used += 1
                is_missing = True
            chosen = (keep or use or kill or make) if is_missing else (kill or make)
            if not chosen:
                return False
            is_missing = chosen is keep or chosen is make
            self._is_taken[heapq.heappop(chosen)[1]] = True
        return True

    def _has_delete(self) -> bool:
        """Tell whether an unknown delete, not used yet, was called before all open blocks had to be done."""
        if self._deletes_used == len(self._deletes):
            return False
        return self._deletes[self._deletes_used] <= self._blocks[self._by_return[self._returned]].return_s

    def _find_fitting(self) -> None:
        blocks, by_return, is_taken = self._blocks, self._by_return, self._is_taken
        while is_taken[by_return[self._returned]]:
            self._returned += 1
        head = by_return[self._returned]
        bound_s = blocks[head].return_s
        while self._called < len(blocks) and blocks[self._by_call[self._called]].call_s <= bound_s:
            self._put(self._by_call[self._called])
            self._called += 1
        # The block that bounds the others is not bound by itself but by the next one.
        if not self._fits[head]:
            place = self._returned + 1
            while place < len(blocks) and is_taken[by_return[place]]:
                place += 1
            if place == len(blocks) or blocks[head].call_s <= blocks[by_return[place]].return_s:
                self._put(head)

    def _put(self, number: int) -> None:
        if not self._fits[number]:
            self._fits[number] = True
            block = self._blocks[number]
            kind = block.begins_missing, block.leaves_missing
            heapq.heappush(self._heaps[kind], (block.return_s, number))
