"""What can be wrong with the links between nodes: one table of faults, for the live cluster and the simulator.

Pure: it only decides what becomes of a message. Directions count: a link may be cut one way.
"""

from collections.abc import Callable, Iterable, Sequence
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


@attrs.frozen
class LinksState:
    """What is wrong with all links, for other processes to have it, too."""

    version: int
    """Of two states the one with the higher version is the later one."""
    cut: tuple[tuple[int, int], ...] = ()
    partition: tuple[tuple[int, int], ...] = ()
    """(node, number of its group)."""
    faults: tuple[tuple[tuple[int, int], LinkFault], ...] = ()
    everywhere: LinkFault = _SOUND
    process: int = 0
    """Who made it so: of two states of one version, made at the same time, that of the higher one counts."""


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
        self.on_change: Callable[[], object] | None = None
        """Is called when somebody has made something wrong, or sound, here."""
        self.process = 0
        """This one, as others call it."""
        self._version = self._made_by = 0

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
        """Treat one link so, or all of them that have no fault of their own."""
        if link is None:
            self._everywhere = fault
        elif fault == self._everywhere:
            self._faults.pop(link, None)
        else:
            self._faults[link] = fault
        self._note()

    def fault(self, link: tuple[int, int] | None = None) -> LinkFault:
        """Return how a link is treated that is not cut; without one, how those are that have no fault of their own."""
        return self._everywhere if link is None else self._faults.get(link, self._everywhere)

    def heal_link(self, source: int, target: int) -> None:
        """Make one direction of a link sound. Of a partition the other cuts stay."""
        if self._partition:
            nodes = self._partition
            self._cut |= {(one, other) for one in nodes for other in nodes if self.is_cut(one, other)}
            self._partition = {}
        self._cut.discard((source, target))
        self.set_fault(_SOUND, (source, target))

    def heal(self) -> None:
        """Make all links sound."""
        self._cut.clear()
        self._partition = {}
        self._faults.clear()
        self._everywhere = _SOUND
        self._note()

    def state(self) -> LinksState:
        """Return what is wrong with all links."""
        return LinksState(
            self._version,
            tuple(sorted(self._cut)),
            tuple(sorted(self._partition.items())),
            tuple(sorted(self._faults.items())),
            self._everywhere,
            self._made_by,
        )

    def follow(self, state: LinksState) -> None:
        """Let be wrong what another process says is, unless what is known here is as late."""
        if (state.version, state.process) <= (self._version, self._made_by):
            return
        self._cut, self._partition = set(state.cut), dict(state.partition)
        self._faults, self._everywhere = dict(state.faults), state.everywhere
        self._look()
        self._version, self._made_by = state.version, state.process

    def active_faults(self) -> list[tuple[str, dict[str, object]]]:
        """Return what is wrong with the links: the name of each fault, and its members.

        A link has both directions here; what is wrong with one of them is told as if it were with both.
        """
        faults: list[tuple[str, dict[str, object]]] = []
        if self._partition:
            groups: dict[int, list[int]] = {}
            for node, number in sorted(self._partition.items()):
                groups.setdefault(number, []).append(node)
            faults.append(("partition", {"groups": [groups[number] for number in sorted(groups)]}))
        faults += [("cut", {"link": link}) for link in sorted({tuple(sorted(cut)) for cut in self._cut})]
        faults += _in_numbers(self._everywhere)
        own = {tuple(sorted(link)): fault for link, fault in sorted(self._faults.items())}
        for link, fault in own.items():
            faults += [(name, {**members, "link": link}) for name, members in _in_numbers(fault)]
        return faults

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
        if fault == _SOUND:
            return (0.0,)
        if fault.drop and self._random.random() < fault.drop:
            return ()
        copies = 2 if fault.duplicate and self._random.random() < fault.duplicate else 1
        return tuple(fault.delay_s + fault.jitter_s * self._random.random() for _ in range(copies))

    def _note(self) -> None:
        self._look()
        self._version, self._made_by = self._version + 1, self.process
        if self.on_change is not None:
            self.on_change()

    def _look(self) -> None:
        self.is_faulty = bool(self._cut or self._partition or self._faults or self._everywhere != _SOUND)


def _in_numbers(fault: LinkFault) -> list[tuple[str, dict[str, object]]]:
    """Return what is wrong in how messages are treated: the name of each fault, and its members."""
    numbers = (
        ("delay", "ms", 1000 * fault.delay_s),
        ("reorder", "ms", 1000 * fault.jitter_s),
        ("drop", "percent", 100 * fault.drop),
        ("duplicate", "percent", 100 * fault.duplicate),
    )
    return [(name, {unit: round(number, 6)}) for name, unit, number in numbers if number]
