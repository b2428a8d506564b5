"""Disks that hang: who waits for one, since when, and what cuts a wait short.

A disk that hangs gives neither an answer nor an error, and no thread that waits for it can be ended. Whoever ends a
node must wait all the same: the thread may write when the disk moves again, and a new life of the node would find its
files changed under it. Only the end of the cluster does not wait: its threads end with the process, and until then it
keeps the lock of its directory, so that no other process writes there beside them.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

_T = TypeVar("_T")

HUNG_S = 2.0
"""A disk that gave no sign of life for so long hangs, as far as is told to people."""
END_S = 1.0
"""How long the end of a cluster waits for disks that it has to do with: one that works needs far less."""
_LOOK_S = 0.01


class DiskWaits:
    """The waits for disks of a cluster's nodes."""

    def __init__(self) -> None:
        """Wait for nothing yet."""
        self._since: dict[int, float] = {}
        """Who waits just now, and when its disk gave the last sign of life."""
        self._scopes: set[trio.CancelScope] = set()
        self._is_over = False
        self.is_abandoned = False
        """Whether a disk was left behind at the end, which may write as long as the process lives."""

    async def wait(self, node: int, work: Callable[[], Awaitable[_T]]) -> _T:
        """Wait for what a node's disk does, although the node may be cancelled meanwhile.

        Args:
            node: whose disk.
            work: what to wait for. It may be given up only when the process ends.

        """
        with trio.CancelScope(shield=True) as scope:
            if self._is_over:
                scope.cancel()
            self._scopes.add(scope)
            self.moved(node)
            try:
                return await work()
            finally:
                self._scopes.discard(scope)
                self.not_now(node)
        # The cluster ends: the cancellation that was kept away is all that there is to come.
        self.is_abandoned = True
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    def moved(self, node: int) -> None:
        """Note a sign of life."""
        self._since[node] = trio.current_time()

    def not_now(self, node: int) -> None:
        """Note that a node waits for something else than its disk."""
        self._since.pop(node, None)

    def hung_s(self, node: int) -> float:
        """Return for how long a node has been waiting for its disk, if that hangs; else 0."""
        waited_s = trio.current_time() - self._since.get(node, float("inf"))
        return waited_s if waited_s >= HUNG_S else 0.0

    async def end(self, is_ended: Callable[[], bool]) -> None:
        """Wait until this is cancelled, as the cluster is; then for all disks, but not for those that hang.

        Args:
            is_ended: tells whether all nodes have ended.

        """
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(END_S, shield=True):
                # Looked up, not told: it happens once, and takes milliseconds.
                while self._scopes or not is_ended():  # noqa: ASYNC110 - see above
                    await trio.sleep(_LOOK_S)
            self._is_over = True
            for scope in self._scopes:
                scope.cancel()
