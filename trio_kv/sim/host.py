"""What the twin of a disk needs of the world it is in: both worlds are such a host."""

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from trio_kv.check.watch import Watch
from trio_kv.sim.coverage import Coverage
from trio_kv.sim.plan import Plan


class Host(Protocol):
    """Gives time and chance, and hears what becomes of it."""

    @property
    def plan(self) -> Plan:
        """All that the run depends on."""
        ...

    @property
    def random(self) -> Random:
        """Draws what is not in the plan."""
        ...

    @property
    def watch(self) -> Watch:
        """Shows what happens to the judges."""
        ...

    @property
    def coverage(self) -> Coverage:
        """Counts the situations that were reached."""
        ...

    def after(self, delay_s: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Let something happen later."""
        ...
