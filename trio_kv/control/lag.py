"""How late the event loop is: what runs too long without a pause, or a machine that is too busy, is seen here first."""

from collections import deque

import trio

from trio_kv.meter.histogram import Histogram

INTERVAL_S = 0.1
REMEMBERED = 100
"""So many of the last delays are remembered: those of ten seconds, and more where they are long."""


class LoopLag:
    """Sleeps again and again, and notes how much too late it is woken. All tasks are as late as it is."""

    def __init__(self) -> None:
        """Have seen nothing yet."""
        self.delays = Histogram()
        """In seconds."""
        self._latest: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def worst_s(self) -> float | None:
        """The longest of the last delays; None before the first one."""
        return max(self._latest, default=None)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            due_at = trio.current_time() + INTERVAL_S
            await trio.sleep_until(due_at)
            delay_s = max(0.0, trio.current_time() - due_at)
            self.delays.note(delay_s)
            self._latest.append(delay_s)
