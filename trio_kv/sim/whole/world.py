"""One run of one plan in the whole world."""

from trio_kv.sim.whole.house import House
from trio_kv.sim.whole.injector import WholeInjector


class WholeWorld(House):
    """A house to which happens what is planned."""

    def begin(self) -> None:
        """Plan the faults."""
        self.injector = WholeInjector(self)
        super().begin()
