"""One run of one plan in the core world.

A run has two phases. In the first, faults happen as planned and only safety is judged. Then everything is healed, and
within bounds of simulated time the cluster must serve again (see `sim.ending`).
"""

from collections.abc import Callable

from trio_kv.sim.ending import heal, require_linearizable, require_order, require_service, run_aftermath
from trio_kv.sim.engine import Engine
from trio_kv.sim.injector import Injector
from trio_kv.sim.plan import Plan
from trio_kv.sim.result import Result


class World(Engine):
    """A cluster to which happens what is planned."""

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None = None) -> None:
        """Prepare a run; arguments as for `Engine`."""
        super().__init__(plan, tell)
        self.injector = Injector(self)

    def run(self) -> Result:
        """Run both phases.

        Raises:
            Violation: a judge found something.

        """
        self.begin()
        self.run_until(self.plan.fault_phase_s)
        return self.finish()

    def begin(self) -> None:
        """Start all nodes and clients, and plan the faults."""
        for node in self.nodes.values():
            node.start()
        self.clients[0].stop()
        for client in self.clients[1:]:
            client.start()
        for fault in self.plan.faults:
            self.at(fault.at_s, self.injector.happen, fault)

    def finish(self) -> Result:
        """Heal everything, and judge what comes of it.

        Raises:
            Violation: a judge found something.

        """
        plan, recovered_after_s = self.plan, 0.0
        self.injector.stop()
        heal(self)
        if plan.is_beyond_budget:
            run_aftermath(self)
        else:
            recovered_after_s = require_service(self)
        self._judge_end()
        self.judges.cover(self.coverage)
        return Result(
            plan.seed,
            self.trace_hash(),
            self.events,
            self.now,
            self.answers.judged,
            self.crashes,
            recovered_after_s,
            self.coverage,
        )

    def _judge_end(self) -> None:
        if not self.plan.is_beyond_budget:
            require_order(self)
        require_linearizable(self)
