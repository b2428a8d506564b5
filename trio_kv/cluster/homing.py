"""Leadership goes to where the doors are, if they all are in one process (decision 0053).

What clients ask goes to the leader. If that one lives in another process, each write crosses to it and each answer
crosses back; so it hands over. It does nothing else than what `ctl transfer` does, so no rule of safety rests on it.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Final

import trio

from trio_kv.cluster.node import Node
from trio_kv.cluster.registry import Registry
from trio_kv.raft.leader import Leader
from trio_kv.replica.driver import Transfer
from trio_kv.wire.node_status import State

CALM_S: Final = 1.0
"""So long a leader leads before it hands over: what made it the leader may not be over yet."""
AGAIN_MAX_S: Final = 60.0
"""A try that fails costs writes some tenths of a second, so the next ones come later and later, up to this."""
REASON: Final = "the doors are in another process"


class Homing:
    """Watches for a leader in this process, which has no doors. `run` must be running.

    A leader that was handed over to leads on: somebody wanted it, or the disks beside the doors are the worse ones.

    Args:
        registry: all nodes.
        running: returns the nodes that run in this process.
        home: the nodes beside the doors.

    """

    def __init__(
        self, registry: Registry, running: Callable[[], Iterable[Node]], home: Collection[int]
    ) -> None:
        """Hand nothing over yet; see the class."""
        self._registry = registry
        self._running = running
        self._home = home

    async def run(self) -> None:
        """Hand over what leads here, until cancelled."""
        last, delay_s = None, CALM_S
        while True:
            leading = self._leading()
            if leading is None:
                await self._registry.wait_change()
                continue
            if leading is not last:
                last, delay_s = leading, CALM_S
            await trio.sleep(delay_s)
            if self._hand_over(leading):
                delay_s = min(2 * delay_s, AGAIN_MAX_S)

    def _leading(self) -> Leader | None:
        """Return who leads here of its own accord. Each term has a leader of its own."""
        for node in self._running():
            role = node.replica.raft.role
            if isinstance(role, Leader) and not role.is_successor:
                return role
        return None

    def _hand_over(self, leader: Leader) -> bool:
        """Ask a leader, if it still is one, to hand over to a node beside the doors; return whether there is one."""
        target = leader.successor([node for node in self._home if self._is_up(node)])
        for node in self._running():
            if node.replica.raft.role is leader and target is not None:
                node.inbox.post(Transfer(target, REASON))
                return True
        return False

    def _is_up(self, node: int) -> bool:
        handle = self._registry.handle(node)
        return handle is not None and handle.status.state is State.UP
