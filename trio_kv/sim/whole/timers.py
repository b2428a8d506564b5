"""What is to happen later: one task with a heap, however much it is."""

import heapq
from collections.abc import Callable
from typing import Any

import trio


class Timers:
    """Calls back when it is time. `run` must be running."""

    def __init__(self) -> None:
        """Have nothing to do."""
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._scope: trio.CancelScope | None = None

    def after(self, delay_s: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Let something happen later; of two that are due together the one that was asked for first."""
        at = trio.current_time() + delay_s
        self._order += 1
        heapq.heappush(self._heap, (at, self._order, callback, arguments))
        if self._scope is not None and at < self._scope.deadline:
            self._scope.deadline = at

    async def run(self) -> None:
        """Call back, until cancelled."""
        heap = self._heap
        while True:
            with trio.CancelScope(deadline=heap[0][0] if heap else float("inf")) as self._scope:
                await trio.sleep_forever()
            self._scope = None
            while heap and heap[0][0] <= trio.current_time():
                _, _, callback, arguments = heapq.heappop(heap)
                callback(*arguments)
