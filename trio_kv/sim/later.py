"""What a fault does after the moment at which it happens: its later parts, and its end."""

from collections.abc import Callable
from typing import Any, Protocol


class Host(Protocol):
    """The world, as faults that last see it."""

    @property
    def is_healed(self) -> bool:
        """Whether no fault may happen any more."""
        ...

    def after(self, delay_s: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Let something happen later."""
        ...


class Later:
    """Keeps what is still to come of the faults of a run.

    Args:
        host: the world.
        before: is called before anything that happens late.

    """

    def __init__(self, host: Host, before: Callable[[], None] = lambda: None) -> None:
        """Have nothing to come; see the class."""
        self._host = host
        self._before = before
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
                self._before()
                act(*arguments)

        self._host.after(delay_s, maybe_act)

    def end(self, kind: str, node: int, for_s: float, end: Callable[..., None], *arguments: Any) -> None:
        """End a fault, unless one of its kind came meanwhile: then that one's end counts."""
        self._number += 1
        number = self._ends[kind, node] = self._number

        def maybe_end() -> None:
            if self._ends.get((kind, node)) == number:
                self._before()
                end(*arguments)

        self._host.after(for_s, maybe_end)
