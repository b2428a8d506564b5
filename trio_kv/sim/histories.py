"""What the clients of a core world asked and were told, as a history for the oracle and for other checkers.

An operation on several keys becomes one for each of them: they were under way at the same time. So does one of whose
command others were sent under the same number: nobody knows then which of them took effect.
"""

from collections.abc import Iterable, Iterator

from trio_kv.check import history
from trio_kv.kv.commands import Write
from trio_kv.kv.operations import Get, KeyOperation, Txn
from trio_kv.kv.reply import Reply
from trio_kv.sim.clients import Client, Operation

PLACES_MAX = 100
"""Lanes of a client, and keys of an operation, are numbered up to this: each is a client of the history's own."""
_OUTCOMES = {"ok", "missing", "conflict"}


def history_of(clients: Iterable[Client]) -> list[history.Operation]:
    """Return all operations on keys, each client's in the order of their calls."""
    return [
        operation
        for client in clients
        for asked in client.history
        if asked.keys
        for operation in _operations(client.name, asked)
    ]


def _operations(name: int, asked: Operation) -> Iterator[history.Operation]:
    first = (name * PLACES_MAX + asked.lane) * PLACES_MAX
    if asked.kind == "get":
        for place, key in enumerate(asked.keys):
            reply = asked.replies[place] if asked.replies else None
            yield _operation(first + place, asked, Get(key), reply)
        return
    for place, command in enumerate((*asked.templates, *asked.forged)):
        assert isinstance(command, Write)
        if isinstance(command.operation, Txn):
            continue
        is_known = asked.replies and not asked.forged
        yield _operation(first + place, asked, command.operation, asked.replies[place] if is_known else None)
    queries = [query for _, queries in asked.places for query in queries]
    for place, (query, reply) in enumerate(zip(queries, asked.reads, strict=False)):
        if isinstance(query, Get):
            yield _operation(first + PLACES_MAX // 2 + place, asked, query, reply)


def _operation(
    client: int, asked: Operation, operation: KeyOperation, reply: Reply | None
) -> history.Operation:
    # A session that expired does not know any more whether it took the command before.
    is_known = reply is not None and reply.code in _OUTCOMES
    result = reply.value if reply is not None and is_known else None
    return history.Operation(
        client=client,
        call_s=asked.began_at_s,
        return_s=asked.ended_at_s if is_known else None,
        outcome=reply.code if reply is not None and is_known else "unknown",
        result=None if result is None else bytes(result),
        node=asked.answered_by if is_known else 0,
        **history.what_is_asked(operation),
    )
