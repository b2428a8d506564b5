"""What a fault does after the moment at which it happens: its later parts, and its end."""

from collections.abc import Callable
from typing import Any

from trio_kv.sim.host import Host


class Later:
    """Keeps what is still to come of the faults of a run.

    Args:
        host: the world.

    """

    def __init__(self, host: Host) -> None:
        """Have nothing to come; see the class."""
        self._host = host
        self._ends: dict[tuple[str, int], int] = {}
        """(kind, node) -> the fault that ends it; an earlier one of the kind ends nothing any more."""
        self._number = 0

    def stop(self) -> None:
        """End no fault any more: the world mends everything itself."""
        self._ends.clear()

    def do(self, delay_s: float, act: Callable[..., None], *arguments: Any) -> None:
        """Go on with a fault that has several parts, unless all was healed meanwhile."""

        def maybe_act() -> None:
            if not self._host.is_healed:
                self._host.terms.disturbed()
                act(*arguments)

        self._host.after(delay_s, maybe_act)

    def end(self, kind: str, node: int, for_s: float, end: Callable[..., None], *arguments: Any) -> None:
        """End a fault, unless one of its kind came meanwhile: then that one's end counts."""
        self._number += 1
        number = self._ends[kind, node] = self._number

        def maybe_end() -> None:
            if self._ends.get((kind, node)) == number:
                self._host.terms.disturbed()
                end(*arguments)

        self._host.after(for_s, maybe_end)
