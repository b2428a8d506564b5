"""One run of one plan in the whole world."""

from collections.abc import Callable

from trio_kv.sim.plan import Plan
from trio_kv.sim.whole.house import House
from trio_kv.sim.whole.injector import ProcessesInjector, WholeInjector
from trio_kv.sim.whole.processes import ProcessesHouse


class WholeWorld(House):
    """A house to which happens what is planned."""

    def begin(self) -> None:
        """Plan the faults."""
        self.injector = WholeInjector(self)
        super().begin()


class ProcessesWorld(ProcessesHouse):
    """The same, in several processes."""

    def begin(self) -> None:
        """Plan the faults."""
        self.injector = ProcessesInjector(self)
        super().begin()


def make_world(plan: Plan, tell: Callable[[str], None] | None) -> House:
    """Make the world that a plan is for."""
    return (ProcessesWorld if plan.processes > 1 else WholeWorld)(plan, tell)
