"""Takes the frames, keeps them, and lets those who look have the newest.

While somebody looks there are ten frames a second. While nobody does there is one a second, and one soon after an
event: so the rewind shows an election that nobody saw, and costs next to nothing (decision 0040). Nobody is waited for:
who looks takes the newest frame when he has taken the last one, and whatever there was between is in no queue.
"""

import math
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import trio

from trio_kv.cluster.cluster import Cluster
from trio_kv.control.frames import Clients, EventTally, Frame, FrameTaker
from trio_kv.control.kept_frames import KeptFrames, pack, texts
from trio_kv.trace.trace import Trace, format_time

LOOKED_AT_S = 0.1
"""The time between two frames while somebody looks, and the least in any case."""
ALONE_S = 1.0
"""The time between two frames while nobody looks and nothing happens."""

T = TypeVar("T")


class FrameFeed:
    """The frames of one run of a server. `run` must be running.

    Args:
        cluster: nodes and links.
        clients: the client door, if there is one.
        trace: where events come from.
        kept: where frames are kept.

    """

    def __init__(
        self,
        cluster: Cluster,
        clients: Clients | None,
        trace: Trace,
        kept: KeptFrames | None = None,
    ) -> None:
        """Take none yet; see the class."""
        self.run_id = secrets.token_hex(8)
        """Tells this run of the server from all others."""
        self.kept = KeptFrames() if kept is None else kept
        self._cluster = cluster
        self._trace = trace
        self._tally = EventTally(self._stir)
        self._taker = FrameTaker(cluster, clients, tally=self._tally, trace=trace, run=self.run_id)
        self._newest: Frame | None = None
        self._looker_count = 0
        self._taken = trio.Event()
        self._due = trio.CancelScope()
        self._packer = trio.CapacityLimiter(1)
        """Packing and unpacking have a thread of their own: disks that hang may have all others."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take frames until cancelled."""
        self._trace.add_sink(self._tally)
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pack)
                taken_at = -math.inf
                while True:
                    await self._wait_due(taken_at)
                    await self._cluster.refresh()
                    taken_at = trio.current_time()
                    self._newest = frame = self._taker.take(taken_at)
                    self.kept.add(frame)
                    self._taken.set()
                    self._taken = trio.Event()
        finally:
            self._trace.remove_sink(self._tally)

    async def _wait_due(self, taken_at: float) -> None:
        await trio.sleep_until(taken_at + LOOKED_AT_S)
        if not self._looker_count and not self._tally.is_waiting:
            with trio.CancelScope(deadline=taken_at + ALONE_S) as self._due:
                await trio.sleep_forever()

    def _stir(self) -> None:
        """Let a frame be taken soon."""
        self._due.cancel()

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look, as long as the block lasts: messages are seen, and there are more frames."""
        self._looker_count += 1
        if self._looker_count == 1:
            self._cluster.add_tap(self._taker.sampler)
            self._stir()
        try:
            yield
        finally:
            self._looker_count -= 1
            if not self._looker_count:
                self._cluster.remove_tap(self._taker.sampler)

    async def wait_frame(self, after: int) -> Frame:
        """Wait for a frame with a higher number than `after`, and return the newest."""
        while self._newest is None or self._newest.number <= after:
            await self._taken.wait()
        return self._newest

    def kept_members(self) -> dict[str, object]:
        """Return which frames are kept, as JSON tells it."""
        kept = self.kept.kept()
        if kept is None:
            return {"run": self.run_id, "count": 0}
        return {
            "run": self.run_id,
            "first": kept.first,
            "last": kept.last,
            "first_time": format_time(kept.first_time_s),
            "last_time": format_time(kept.last_time_s),
            "count": kept.last - kept.first + 1,
            "bytes": self.kept.size_bytes,
        }

    def marks_members(self) -> dict[str, object]:
        """Return what stands out in the frames that are kept, as JSON tells it."""
        kept = self.kept.kept()
        return {"run": self.run_id, "marks": [] if kept is None else self._taker.marks.since(kept.first)}

    async def page(self, first: int, count: int, bytes_max: int) -> list[bytes]:
        """Return the JSON of kept frames.

        Args:
            first: number of the first one.
            count: how many at most.
            bytes_max: there are fewer if they are larger than this together, but one if there is one.

        """
        kept = self.kept.kept()
        first = first if kept is None else max(first, kept.first)
        pieces = self.kept.pieces(first, count)
        return await self._in_thread(partial(texts, pieces, first, count, bytes_max))

    async def _pack(self) -> None:
        while True:
            await self._taken.wait()
            while frames := self.kept.due():
                self.kept.replace(await self._in_thread(partial(pack, frames)))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._packer)
