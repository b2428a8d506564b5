"""The state machines of one process: the one that has applied most lends the others what it holds.

Machines that applied the same entries hold the same; in one process they need the memory for it once. Of most entries
the first one foresees what comes of them, for all (`kv.outcomes`). A machine that comes later, as after a restart, asks
the one that is ahead. What it gets it compares: a machine that is wrong must stay so, and alone.
"""

from collections.abc import Callable, Sequence
from typing import Final
from weakref import ref

from trio_kv.kv.operations.operation import Change, State
from trio_kv.kv.outcomes import Outcomes
from trio_kv.kv.reply import Item

EXPIRED_KEPT_MAX: Final = 8
"""Entries of which it is kept what they let end. The other machines apply them within milliseconds."""


class Expired:
    """The changes of keys that the last `Expire` entries made, as one machine of the process made them."""

    __slots__ = ("_by_index",)

    def __init__(self) -> None:
        """Know none."""
        self._by_index: dict[int, Sequence[Change]] = {}

    def get(self, index: int) -> Sequence[Change] | None:
        """Return what an entry did, if that is known."""
        return self._by_index.get(index)

    def note(self, index: int, changes: Sequence[Change]) -> None:
        """Note what an entry did, in the place of what the oldest one did."""
        kept = self._by_index
        kept[index] = changes
        if len(kept) > EXPIRED_KEPT_MAX:
            del kept[next(iter(kept))]


class Siblings:
    """Which machine of a process has applied most. It is not kept alive by that."""

    __slots__ = ("_ahead", "applied", "expired", "outcomes")

    def __init__(self) -> None:
        """Know no machine."""
        self.applied = -1
        """How much it has applied."""
        self._ahead: Callable[[], State | None] = _no_machine
        self.outcomes = Outcomes()
        """What the one that was ahead foresaw."""
        self.expired = Expired()

    @property
    def is_led(self) -> bool:
        """Whether there is a machine that is ahead: the one that was may be gone."""
        return self._ahead() is not None

    def lead(self, machine: State) -> None:
        """Note that a machine has applied more than the others."""
        self.applied = machine.applied
        self._ahead = ref(machine)

    def find(self, key: str) -> Item | None:
        """Return what the machine that is ahead holds under a key."""
        machine = self._ahead()
        return None if machine is None else machine.items.get(key)


def _no_machine() -> None:
    return None
