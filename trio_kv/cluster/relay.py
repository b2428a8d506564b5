"""Lets the first process tell what happens in this one: in its log, and to whoever looks at it."""

from collections import deque
from typing import Final

import trio

from trio_kv.cluster.registry import FIRST_PROCESS
from trio_kv.trace.file import encode_line
from trio_kv.trace.lines import Gap, lost_record
from trio_kv.trace.trace import Record
from trio_kv.transport.tcp import TcpLinks

WAITING_MAX: Final = 4096
"""Records that wait until they can be told; further ones are lost, and counted."""
AGAIN_S: Final = 0.05
"""How long it waits where the link takes nothing."""


class Relay:
    """A sink of a process's trace. `run` must be running.

    Args:
        links: those of this process.
        level: the lowest level that the first process wants to hear.

    """

    def __init__(self, links: TcpLinks, level: int) -> None:
        """Have nothing to tell yet; see the class."""
        self.level = level
        self._links = links
        self._waiting: deque[Record] = deque()
        self._gap: Gap[Record] | None = None
        self._came = trio.Event()

    def write(self, record: Record) -> None:
        """Take a record, or count it as lost."""
        if len(self._waiting) < WAITING_MAX:
            self._waiting.append(record)
            self._came.set()
        elif self._gap is None:
            self._gap = Gap(1, record, record)
        else:
            self._gap.count += 1
            self._gap.last = record

    async def run(self) -> None:
        """Tell what waits, until cancelled."""
        while True:
            await self._came.wait()
            while self._waiting and self._tell(self._waiting[0]):
                self._waiting.popleft()
            if self._waiting:
                await trio.sleep(AGAIN_S)
            elif self._gap is not None:
                gap, self._gap = self._gap, None
                self.write(lost_record(gap))
            else:
                self._came = trio.Event()

    def _tell(self, record: Record) -> bool:
        return self._links.tell_event(FIRST_PROCESS, encode_line(record))
