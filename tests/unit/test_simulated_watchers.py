"""Claims about the watchers of the core world."""

from random import Random

from trio_kv.check.state_machine_safety import StateMachineSafety
from trio_kv.check.watch_order import WatchOrder
from trio_kv.raft.entry import make_entry
from trio_kv.sim.coverage import Coverage
from trio_kv.sim.watchers import Watcher, WatcherPort
from trio_kv.wire.node_port import Gone, Pull


def test_a_node_that_is_down_for_good_keeps_no_watcher_from_a_jump() -> None:
    """Where all that answer have lost what comes next, nobody has it, whoever says nothing."""
    calls: list[tuple[float, object, tuple[object, ...]]] = []
    pulls: list[tuple[int, Pull]] = []
    chronicle = StateMachineSafety()
    chronicle.entries = [make_entry(index, 1, 0, None) for index in range(1, 41)]
    watcher = Watcher(
        1,
        nodes=3,
        latency_s=0.001,
        random=Random(1),
        port=WatcherPort(
            after=lambda delay_s, callback, *arguments: calls.append((delay_s, callback, arguments)),
            post=lambda node, pull: pulls.append((node, pull)),
            coverage=Coverage(),
        ),
        order=WatchOrder("w", "", is_prefix=True, chronicle=chronicle),
    )
    watcher.start()
    for _ in range(200):
        calls.sort(key=lambda call: call[0])
        _, callback, arguments = calls.pop(0)
        callback(*arguments)  # type: ignore[operator]
        while pulls:
            node, pull = pulls.pop()
            if node != 2:
                watcher.deliver(Gone(pull.number, node, 40))
        if watcher.order.position:
            break
    assert watcher.order.position == 40
