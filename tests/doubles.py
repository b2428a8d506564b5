"""Twins of what the product needs, for tests: a store without a log, and a sink that keeps what it gets."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from trio_kv.gateway.calls import AwaitedCalls
from trio_kv.gateway.store import Answer, OnAnswer, View
from trio_kv.kv.expiry import Expiry
from trio_kv.kv.operations import AnyQuery, AnyWrite
from trio_kv.kv.operations.operation import Context, Query
from trio_kv.kv.reply import Item, Reply
from trio_kv.raft.events import DEBUG, Event
from trio_kv.trace.trace import Record

E = TypeVar("E", bound=Event)


class MemoryStore(AwaitedCalls):
    """A store that is one dictionary. It answers at once, or when its gate is opened.

    Args:
        is_gated: whether nothing is answered before `open_gate`.

    """

    def __init__(self, *, is_gated: bool = False) -> None:
        """Begin empty; see the class."""
        self.items: dict[str, Item] = {}
        self.applied = self.known_time_us = 0
        self.runs: list[tuple[str, tuple[str, ...]]] = []
        """What was asked: ("write" or "read", the keys of the run)."""
        self.timeouts_s: list[float] = []
        self._is_gated = is_gated
        self._waiting: dict[int, Callable[[], object]] = {}

    def start_write(
        self, operations: Sequence[AnyWrite | AnyQuery], *, timeout_s: float, done: OnAnswer
    ) -> Answer | object:
        """Carry out a run. See `Store`."""
        self._take("write", operations, timeout_s)
        return self._call(lambda: [self._carry_out(operation) for operation in operations], done)

    def start_read(
        self, queries: Sequence[AnyQuery], *, timeout_s: float, is_stale: bool, view: View, done: OnAnswer
    ) -> Answer | object:
        """Answer queries; stale ones are as good as others. See `Store`."""
        view.applied = self.applied
        self._take("stale read" if is_stale else "read", queries, timeout_s)
        return self._call(lambda: [query.answer(self) for query in queries], done)

    def cancel(self, call: int) -> None:
        """See `Store`."""
        del self._waiting[call]

    def open_gate(self) -> None:
        """Answer all that waits, and from now on at once."""
        self._is_gated = False
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer()

    def status(self) -> dict[str, object]:
        """Return the status of a cluster of one."""
        return {"leader": 1, "term": 1, "nodes": []}

    def _call(self, carry_out: Callable[[], list[Reply]], done: OnAnswer) -> Answer | int:
        if not self._is_gated:
            return self._answer(carry_out())
        call = len(self.runs)
        self._waiting[call] = lambda: done(self._answer(carry_out()))
        return call

    def _take(self, what: str, run: Sequence[AnyQuery | AnyWrite], timeout_s: float) -> None:
        self.runs.append((what, tuple(operation.key for operation in run)))
        self.timeouts_s.append(timeout_s)

    def _carry_out(self, operation: AnyWrite | AnyQuery) -> Reply:
        if isinstance(operation, Query):
            return operation.answer(self)
        context = Context()
        context.begin(self.items, Expiry())
        context.index = self.applied = self.applied + 1
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
