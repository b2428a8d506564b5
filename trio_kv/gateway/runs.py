"""A run of one connection: its writes, and the queries between them; and what it hears if nothing comes of it."""

from collections.abc import Sequence
from typing import Any

import msgspec

from trio_kv.gateway.store import Answer
from trio_kv.kv.operations import OPERATIONS, AnyQuery, AnyWrite
from trio_kv.kv.operations.operation import Query, WriteOperation
from trio_kv.kv.reply import Reply
from trio_kv.wire.client_sessions import OF_CLIENTS, AnyAsked
from trio_kv.wire.node_port import Place

OPERATION_BYTES = 512
"""What an operation weighs besides its texts: objects of Python, here, in the log and in its answer."""

HEDGE_S = 0.02
"""A read not answered within this time is also given to another node; so often is looked after what is under way."""
GONE = (
    "the data directory is not where it was: nothing was done. Stop the server, put it back, and start again"
)

_QUERIES = frozenset([kind for kind in OPERATIONS if issubclass(kind, Query)])
_LATE_READ = Reply("unavailable", message="the writes beside this read were not answered in time: ask again")


class Run(msgspec.Struct, frozen=True):
    """Operations in their order, taken apart as `Propose` has them."""

    operations: Sequence[AnyAsked]
    writes: Sequence[Any]
    places: Sequence[Place]
    size_bytes: int
    last_write: int
    """Where the last write stands in the run that goes under the gateway's session; -1: there is none."""
    own: Sequence[AnyWrite]
    """The writes that do."""
    of_clients: Sequence[tuple[int, int]] = ()
    """Where in the run, and where among its writes, stands what clients ask under sessions of their own."""

    def reads_go_on(self, refusal: Reply) -> bool:
        """Whether there are queries, which are to be asked on their own when its writes hear this.

        They are if no write takes effect, and there may be time left.
        """
        return bool(self.places) and refusal.code in ("overloaded", "read_only")

    @property
    def queries(self) -> list[AnyQuery]:
        """All of them, in their order."""
        return [query for _, queries in self.places for query in queries]

    def end(self, refusal: Reply, answer: Answer | None = None) -> Answer:
        """Return the answer to a run whose writes came to nothing, or nobody knows to what.

        Args:
            refusal: what each write hears.
            answer: that to the queries, which were asked on their own; None: they were not.

        """
        if answer is None:
            read = refusal if refusal.code == "unavailable" else _LATE_READ
            answer = Answer([read] * (len(self.operations) - len(self.writes)))
        reads = iter(answer.replies)
        replies = [next(reads) if isinstance(each, Query) else refusal for each in self.operations]
        return msgspec.structs.replace(answer, replies=replies)


def refuse(code: str, message: str, count: int = 1) -> Answer:
    """Return the same error for each of so many operations."""
    return Answer([Reply(code, None, 0, message)] * count)


def take_apart(operations: Sequence[AnyAsked]) -> Run:
    """Return a run of these operations, at least one of which is a write."""
    if len(operations) == 1:
        # What each client sends that waits for each answer.
        (write,) = operations
        assert isinstance(write, WriteOperation)
        size_bytes = OPERATION_BYTES + write.size_bytes
        if type(write) in OF_CLIENTS:
            return Run(operations, [write], (), size_bytes, -1, (), [(0, 0)])
        writes: list[Any] = [write]
        return Run(operations, writes, (), size_bytes, 0, writes)
    writes, of_clients = [], []
    places: list[tuple[int, list[Any]]] = []
    size_bytes, last_write = OPERATION_BYTES * len(operations), -1
    queries: list[Any] = []
    operation: Any
    for number, operation in enumerate(operations):
        size_bytes += operation.size_bytes
        if type(operation) in _QUERIES:
            if not queries:
                places.append((len(writes), queries))
            queries.append(operation)
        else:
            if type(operation) in OF_CLIENTS:
                of_clients.append((number, len(writes)))
            else:
                last_write = number
            writes.append(operation)
            if queries:
                queries = []
    own = writes if not of_clients else [each for each in writes if type(each) not in OF_CLIENTS]
    return Run(operations, writes, places, size_bytes, last_write, own, of_clients)


OPENING = Run((), (), (), OPERATION_BYTES, 0, ())
"""Of the opening of a session."""
