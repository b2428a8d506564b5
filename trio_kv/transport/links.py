"""What can be wrong with the links between nodes: one table of faults, for the live cluster and the simulator.

Pure: it only decides what becomes of a message. Directions count: a link may be cut one way.
"""

from collections.abc import Iterable, Sequence
from random import Random

import attrs


@attrs.frozen
class LinkFault:
    """How a link treats what is sent over it."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Up to this much is added to the delay of each message, so that messages overtake one another."""
    drop: float = 0.0
    """Share of the messages that get lost, 0 to 1."""
    duplicate: float = 0.0
    """Share of the messages that arrive twice."""


_SOUND = LinkFault()


class Links:
    """The state of all links. `route` says when copies of a message arrive: not at all, once or twice."""

    def __init__(self, random: Random) -> None:
        """Start with all links sound; `random` draws losses, duplicates and jitter."""
        self._random = random
        self._cut: set[tuple[int, int]] = set()
        self._partition: dict[int, int] = {}
        self._faults: dict[tuple[int, int], LinkFault] = {}
        self._everywhere = _SOUND
        self.is_faulty = False
        """Whether any link has any fault: else messages need not ask."""

    def cut(self, source: int, target: int) -> None:
        """Lose all that goes from one node to the other; the way back is another link."""
        self._cut.add((source, target))
        self._note()

    def mend(self, source: int, target: int) -> None:
        """Let through again what a `cut` of this direction lost."""
        self._cut.discard((source, target))
        self._note()

    def partition(self, groups: Sequence[Iterable[int]]) -> None:
        """Cut all links between nodes of different groups, and no others. A node in no group is alone."""
        members = {node: number for number, group in enumerate(groups) for node in group}
        self._partition = members
        self._note()

    def set_fault(self, fault: LinkFault, link: tuple[int, int] | None = None) -> None:
        """Treat one link so, or all of them."""
        if link is None:
            self._everywhere = fault
        else:
            self._faults[link] = fault
        self._note()

    def fault(self) -> LinkFault:
        """Return how links are treated that have no fault of their own."""
        return self._everywhere

    def heal(self) -> None:
        """Make all links sound."""
        self._cut.clear()
        self._partition = {}
        self._faults.clear()
        self._everywhere = _SOUND
        self._note()

    def active_faults(self) -> list[tuple[str, dict[str, object]]]:
        """Return what is wrong with the links: the name of each fault, and its members.

        Links with faults of their own, which only simulators have, are left out.
        """
        faults: list[tuple[str, dict[str, object]]] = []
        if self._partition:
            groups: dict[int, list[int]] = {}
            for node, number in sorted(self._partition.items()):
                groups.setdefault(number, []).append(node)
            faults.append(("partition", {"groups": [groups[number] for number in sorted(groups)]}))
        faults += [("cut", {"link": link}) for link in sorted({tuple(sorted(cut)) for cut in self._cut})]
        everywhere = self._everywhere
        numbers = (
            ("delay", "ms", 1000 * everywhere.delay_s),
            ("reorder", "ms", 1000 * everywhere.jitter_s),
            ("drop", "percent", 100 * everywhere.drop),
            ("duplicate", "percent", 100 * everywhere.duplicate),
        )
        return faults + [(name, {unit: round(number, 6)}) for name, unit, number in numbers if number]

    def is_cut(self, source: int, target: int) -> bool:
        """Return whether nothing gets from one node to the other."""
        if (source, target) in self._cut:
            return True
        groups = self._partition
        return bool(groups) and groups.get(source, -source) != groups.get(target, -target)

    def route(self, source: int, target: int) -> tuple[float, ...]:
        """Return after how many seconds each copy of a message arrives."""
        if self.is_cut(source, target):
            return ()
        fault = self._faults.get((source, target), self._everywhere)
        if fault is _SOUND:
            return (0.0,)
        if fault.drop and self._random.random() < fault.drop:
            return ()
        copies = 2 if fault.duplicate and self._random.random() < fault.duplicate else 1
        return tuple(fault.delay_s + fault.jitter_s * self._random.random() for _ in range(copies))

    def _note(self) -> None:
        self.is_faulty = bool(self._cut or self._partition or self._faults or self._everywhere != _SOUND)
