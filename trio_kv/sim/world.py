"""One run of one plan in the core world."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from trio_kv.sim.core_injector import CoreInjector
from trio_kv.sim.engine import Engine
from trio_kv.sim.plan import Plan
from trio_kv.sim.result import Result

_T = TypeVar("_T")


class World(Engine):
    """A cluster to which happens what is planned."""

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None = None) -> None:
        """Prepare a run; arguments as for `Engine`."""
        super().__init__(plan, tell)
        self.injector = CoreInjector(self)

    def run(self) -> Result:
        """Run both phases.

        Raises:
            Violation: a judge found something.

        """
        return _outcome(self.live())

    def finish(self) -> Result:
        """Run the second phase, see `run`."""
        return _outcome(self.heal_and_judge())

    def run_until_true(self, what: str, within_s: float, is_true: Callable[[], bool]) -> float:
        """Go on until something is true; see `wait_until`."""
        return _outcome(self.wait_until(what, within_s, is_true))

    def begin(self) -> None:
        """Start all nodes and clients, and plan the faults."""
        for node in self.nodes.values():
            node.start()
        self.clients[0].stop()
        for client in self.clients[1:]:
            client.start()
        super().begin()


def _outcome(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Return what becomes of a coroutine that waits for nothing: in this world time passes while it runs."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        outcome: _T = end.value
        return outcome
    raise AssertionError("the core world waits for nobody")
