"""What the clients of a core world asked and were told, as a history for the judges and for other checkers.

What was asked of a family becomes exchanges, as they would have gone over the wire. An operation on several registers
becomes one for each of them: they were under way at the same time. So does one of whose command others were sent under
the same number: nobody knows then which of them took effect.
"""

from collections.abc import Iterator
from itertools import zip_longest

from trio_kv.check import history
from trio_kv.check.exchange import Exchange
from trio_kv.kv.commands import Write
from trio_kv.kv.operations import AnyOperation, Get, KeyOperation, Txn
from trio_kv.kv.operations.operation import encode as encode_operation
from trio_kv.kv.reply import Reply
from trio_kv.sim.asked import Operation
from trio_kv.wire.operations import Request
from trio_kv.wire.replies import encode_reply

PLACES_MAX = 100
"""Lanes of a client, and keys of an operation, are numbered up to this: each is a client of the history's own."""
_OUTCOMES = {"ok", "missing", "conflict"}


def operations_of(name: int, asked: Operation) -> Iterator[history.Operation]:
    """Yield what a client asked of registers at once."""
    return _operations(name, asked) if asked.keys else iter(())


def exchanges_of(name: int, asked: Operation) -> list[Exchange]:
    """Return what a client asked of a family at once, and was told."""
    first = (name * PLACES_MAX + asked.lane) * PLACES_MAX
    commands = [*asked.templates, *asked.forged]
    queries = [*asked.queries, *(query for _, queries in asked.places for query in queries)]
    operations = [*(command.operation for command in commands if isinstance(command, Write)), *queries]
    replies: list[Reply | None] = [*(() if asked.forged else asked.replies), *asked.reads]
    if asked.forged or not asked.replies:
        # Of all that was sent under one number something took effect, or nothing: nobody knows what.
        replies = [None] * len(commands) + list(asked.reads)
    return [
        _exchange(first + place, asked, operation, reply)
        for place, (operation, reply) in enumerate(zip_longest(operations, replies[: len(operations)]))
    ]


def _exchange(client: int, asked: Operation, operation: AnyOperation, reply: Reply | None) -> Exchange:
    request = Request(operation, meta=True)
    line = None if reply is None else encode_reply(request, reply, asked.answered_by)
    ended_at_s = None if reply is None else asked.ended_at_s
    # A get and a set may leave out what they are: here they say it.
    return Exchange(client, encode_operation(operation), asked.began_at_s, ended_at_s, line)


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
