"""Twins of what the product needs, for tests: a store without a log, and a sink that keeps what it gets."""

from collections.abc import Sequence
from typing import TypeVar

import trio

from trio_kv.gateway.store import Answer, View
from trio_kv.kv.operations import AnyQuery, AnyWrite
from trio_kv.kv.operations.operation import Context
from trio_kv.kv.reply import Item, Reply
from trio_kv.raft.entry import make_entry
from trio_kv.raft.events import DEBUG, Event
from trio_kv.trace.trace import Record

E = TypeVar("E", bound=Event)


class MemoryStore:
    """A store that is one dictionary. It answers at once, or when its gate is opened.

    Args:
        gate: nothing is answered before this event is set; None answers at once.

    """

    def __init__(self, gate: trio.Event | None = None) -> None:
        """Begin empty; see the class."""
        self.gate = gate
        self.items: dict[str, Item] = {}
        self.applied = 0
        self.runs: list[tuple[str, tuple[str, ...]]] = []
        """What was asked: ("write" or "read", the keys of the run)."""
        self.timeouts_s: list[float] = []

    async def write(self, operations: Sequence[AnyWrite], *, timeout_s: float) -> Answer:
        """Apply writes. See `Store`."""
        await self._take("write", operations, timeout_s)
        return self._answer([self._apply(operation) for operation in operations])

    async def read(
        self, queries: Sequence[AnyQuery], *, timeout_s: float, is_stale: bool, view: View
    ) -> Answer:
        """Answer queries; stale ones are as good as others. See `Store`."""
        view.applied = self.applied
        await self._take("stale read" if is_stale else "read", queries, timeout_s)
        return self._answer([query.answer(self) for query in queries])

    def status(self) -> dict[str, object]:
        """Return the status of a cluster of one."""
        return {"leader": 1, "term": 1, "nodes": []}

    async def _take(self, what: str, run: Sequence[AnyQuery | AnyWrite], timeout_s: float) -> None:
        self.runs.append((what, tuple(operation.key for operation in run)))
        self.timeouts_s.append(timeout_s)
        if self.gate is not None:
            await self.gate.wait()

    def _apply(self, operation: AnyWrite) -> Reply:
        context = Context()
        context.begin(self.items)
        context.index = self.applied = self.applied + 1
        context.entry = make_entry(self.applied, 1, 0, None)
        return operation.apply(context)

    def _answer(self, replies: list[Reply]) -> Answer:
        return Answer(replies, node=1, term=1, applied=self.applied)


class MemorySink:
    """Keeps every record, without limit: for runs that end."""

    def __init__(self, level: int = DEBUG) -> None:
        self.level = level
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        """Keep a record."""
        self.records.append(record)

    def events(self, event_class: type[E]) -> list[E]:
        """Return the events of one class, in their order."""
        return [record.event for record in self.records if isinstance(record.event, event_class)]
