"""The events that one client of the control door listens to."""

from typing import Any

import trio

from trio_kv.raft.events import INFO
from trio_kv.trace.marks import TraceLost
from trio_kv.trace.text import encode_json
from trio_kv.trace.trace import Record


class EventQueue:
    """A sink of the trace that one task empties. When full it drops what comes, and counts it.

    Invariant: at most `events_max` records wait. What was dropped is told, as `trace.lost`, in the place
    where it is missing.

    Args:
        events_max: how many records may wait.

    """

    level = INFO

    def __init__(self, events_max: int) -> None:
        """Begin empty; see the class."""
        self._send, self._receive = trio.open_memory_channel[Record](events_max)
        self._lost: TraceLost | None = None

    def write(self, record: Record) -> None:
        """Take a record, or count it as lost."""
        try:
            self._send.send_nowait(record)
        except trio.WouldBlock:
            if self._lost is None:
                self._lost = TraceLost(0, record.seq, record.seq)
            self._lost = TraceLost(self._lost.count + 1, self._lost.first, record.seq)

    async def wait_messages(self) -> list[str]:
        """Return the next messages for the client: a record, and before it what is missing there."""
        record = await self._receive.receive()
        messages = []
        if self._lost is not None and self._lost.first < record.seq:
            members = {"event": TraceLost.name, "count": self._lost.count, "first": self._lost.first}
            messages.append(encode_event({**members, "last": self._lost.last}))
            self._lost = None
        return [*messages, encode_event(record.members())]


def encode_event(members: dict[str, Any]) -> str:
    """Return the message that tells an event."""
    return encode_json({"event": members}).decode()
