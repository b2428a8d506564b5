"""Leadership goes to where the doors are, if they all are in one process (decision 0053).

What clients ask goes to the leader. If that one lives in another process, each write crosses to it and each answer
crosses back; so it hands over. It does nothing else than what `ctl transfer` does, so no rule of safety rests on it.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Final

import trio

from trio_kv.cluster.members import FaultError
from trio_kv.cluster.node import Node
from trio_kv.cluster.registry import Registry
from trio_kv.raft.leader import Leader
from trio_kv.wire.node_status import State

CALM_S: Final = 1.0
"""So long a leader leads before it hands over: what made it the leader may not be over yet."""
AGAIN_MAX_S: Final = 60.0
"""A try that fails costs writes some tenths of a second, so the next ones come later and later, up to this."""
BEHIND_MAX: Final = 1024
"""Entries that the next leader may lack: no write is taken until it has them."""
REASON: Final = "the doors are in another process"

Transfer = Callable[[int, str], None]
"""Asks the leader to hand over to a node, for a reason. Raises FaultError."""


class Homing:
    """Watches for a leader in this process, which has no doors. `run` must be running.

    A leader that was handed over to leads on: somebody wanted it, or the disks beside the doors are the worse ones.

    Args:
        registry: all nodes.
        running: returns the nodes that run in this process.
        transfer: carries it out.
        home: the nodes beside the doors.

    """

    def __init__(
        self,
        registry: Registry,
        running: Callable[[], Iterable[Node]],
        transfer: Transfer,
        home: Collection[int],
    ) -> None:
        """Hand nothing over yet; see the class."""
        self._registry = registry
        self._running = running
        self._transfer = transfer
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
            if self._leading() is leading and self._hand_over(leading):
                delay_s = min(2 * delay_s, AGAIN_MAX_S)

    def _leading(self) -> Leader | None:
        """Return who leads here of its own accord. Each term has a leader of its own."""
        for node in self._running():
            role = node.replica.raft.role
            if isinstance(role, Leader) and not role.is_successor:
                return role
        return None

    def _hand_over(self, leader: Leader) -> bool:
        """Hand over to the node beside the doors that has most of the log, if one has nearly all; return whether."""
        able = [node for node in self._home if self._is_able(node, leader)]
        if not able:
            return False
        target = max(able, key=lambda node: (leader.progress[node].match, -node))
        try:
            self._transfer(target, REASON)
        except FaultError:
            # It was deposed: there is nothing to hand over.
            return False
        return True

    def _is_able(self, node: int, leader: Leader) -> bool:
        handle, progress = self._registry.handle(node), leader.progress[node]
        return (
            handle is not None
            and handle.status.state is State.UP
            and progress.counts
            and leader.raft.log.last_index - progress.match <= BEHIND_MAX
        )
