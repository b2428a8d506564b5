"""Twins of what the product needs, for tests: a store without a log, and a sink that keeps what it gets."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import trio

from trio_kv.gateway.calls import AwaitedCalls
from trio_kv.gateway.drawn import Drawn, Selector, draw
from trio_kv.gateway.store import Answer, Beginning, OnAnswer, View
from trio_kv.kv.commands import Write
from trio_kv.kv.expiry import Expiry
from trio_kv.kv.history import History
from trio_kv.kv.key_order import KeyOrder
from trio_kv.kv.operations import AnyQuery
from trio_kv.kv.operations.operation import Change, Context, Query
from trio_kv.kv.reply import Item, Reply
from trio_kv.raft.events import DEBUG, Event
from trio_kv.trace.trace import Record
from trio_kv.wire.client_sessions import AnyAsked

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
        self.history = History(0)
        self.watches: list[MemoryWatch] = []
        self._is_gated = is_gated
        self._waiting: dict[int, Callable[[], object]] = {}

    def start_write(
        self, operations: Sequence[AnyAsked], *, timeout_s: float, done: OnAnswer
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

    def start_watch(
        self,
        selector: Selector,
        *,
        first: int | None,
        progress_s: float,
        timeout_s: float,
        on_more: Callable[[], object],
        done: OnAnswer,
    ) -> Answer | Beginning:
        """Begin to watch, later: an answer at once would be an error. See `Store`."""
        beginning = MemoryBeginning()

        def begin() -> None:
            after = self.applied if first is None else first - 1
            beginning.watch = MemoryWatch(self, selector, after, on_more)
            self.watches.append(beginning.watch)
            done(self._answer([Reply("ok", None, self.applied)]))

        self._waiting[id(beginning)] = begin
        trio.lowlevel.current_trio_token().run_sync_soon(self.open_gate)
        return beginning

    def change(self, *changes: Change) -> None:
        """Let something change in one revision, and tell who watches."""
        self.applied += 1
        self.history.note(self.applied, changes, 0)
        for watch in list(self.watches):
            watch.on_more()

    def cancel(self, call: int) -> None:
        """See `Store`."""
        del self._waiting[call]

    def open_gate(self) -> None:
        """Answer all that waits, and from now on at once."""
        self._is_gated = False
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer()

    def take_order(self) -> KeyOrder:
        """Return the order of the keys."""
        order = KeyOrder(self.items)
        while not order.settle(self.items, 1000):
            pass
        return order

    def status(self) -> dict[str, object]:
        """Return the status of a cluster of one."""
        return {"leader": 1, "term": 1, "nodes": []}

    def _call(self, carry_out: Callable[[], list[Reply]], done: OnAnswer) -> Answer | int:
        if not self._is_gated:
            return self._answer(carry_out())
        call = len(self.runs)
        self._waiting[call] = lambda: done(self._answer(carry_out()))
        return call

    def _take(self, what: str, run: Sequence[Any], timeout_s: float) -> None:
        self.runs.append((what, tuple(getattr(operation, "key", operation.name) for operation in run)))
        self.timeouts_s.append(timeout_s)

    def _carry_out(self, operation: Any) -> Reply:
        if isinstance(operation, Query):
            return operation.answer(self)
        context = Context()
        context.begin(self.items, Expiry())
        context.index = self.applied = self.applied + 1
        reply: Reply = operation.apply(context)
        self.history.note(self.applied, [each for each in context.changes if isinstance(each, Change)], 0)
        for watch in list(self.watches):
            watch.on_more()
        return reply

    def _answer(self, replies: list[Reply]) -> Answer:
        return Answer(replies, node=1, term=1, applied=self.applied)


class MemoryBeginning:
    """A watch that is about to begin."""

    watch: "MemoryWatch | None" = None


class MemoryWatch:
    """A watch of a `MemoryStore`. It is lost when its test says so."""

    def __init__(
        self, store: MemoryStore, selector: Selector, after: int, on_more: Callable[[], object]
    ) -> None:
        self.on_more = on_more
        self.after = after
        self.is_lost = False
        self.drawn = 0
        """How often something was drawn from it."""
        self._store = store
        self._selector = selector

    def draw(self) -> Drawn | None:
        """See `gateway.store.Watch`."""
        if self.is_lost:
            self.end()
            return Drawn(self.after, self.after, is_lost=True)
        drawn = draw(self._store.history, self._selector, self.after, self._store.history.upto)
        self.after = drawn.upto
        self.drawn += bool(drawn.revisions)
        return drawn if drawn.revisions else None

    def end(self) -> None:
        """See `gateway.store.Watch`."""
        self._store.watches.remove(self)


def key_of(write: Write) -> str:
    """Return the key that a command writes."""
    key = getattr(write.operation, "key", None)
    assert isinstance(key, str)
    return key


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
