"""The page's console: one request to the store, as the client door would take it, and the way that it went."""

from typing import Any

import msgspec
import trio

from trio_kv.cluster.cluster import Cluster
from trio_kv.control.commands import CommandError, StoreRequest
from trio_kv.control.hops import Observer
from trio_kv.gateway.store import Store, View
from trio_kv.kv.operations.operation import Query, WriteOperation
from trio_kv.trace.trace import Trace
from trio_kv.wire.client_sessions import OF_CLIENTS
from trio_kv.wire.operations import BadRequestError
from trio_kv.wire.replies import encode_error, encode_reply
from trio_kv.wire.requests import parse_line


async def ask_store(command: StoreRequest, store: Store, cluster: Cluster, trace: Trace) -> dict[str, object]:
    """Carry out one request of a console; return the members of the reply: the store's `reply`, and the `hops`.

    Who has the token of the control door may do all that a client may.

    Raises:
        CommandError: it is no request of the store, or none that reads or writes keys.

    """
    line = bytes(command.request).replace(b"\n", b" ")
    try:
        request = parse_line(line)
    except BadRequestError as error:
        refusal = encode_error(error.code, error.message, error.key, error.id)
        return {"reply": msgspec.Raw(refusal.rstrip(b"\n")), "hops": []}
    operation: Any = request.operation
    is_write = isinstance(operation, WriteOperation) or type(operation) in OF_CLIENTS
    if not is_write and not isinstance(operation, Query):
        raise CommandError(
            f"{operation.name} is not for the console: it takes what reads or writes keys", command.id
        )
    leader = cluster.registry.leader()
    observer = Observer()
    trace.add_sink(observer)
    cluster.add_tap(observer)
    try:
        if is_write:
            answer = await store.write([operation], timeout_s=request.timeout)
        else:
            answer = await store.read(
                [operation], timeout_s=request.timeout, is_stale=request.is_stale, view=View()
            )
        # What the node told in the same pass comes before its answer; what waits for other tasks is let come, too.
        await trio.lowlevel.checkpoint()
        hops = observer.hops(answer, leader=leader.status.node if leader else None, is_write=is_write)
    finally:
        cluster.remove_tap(observer)
        trace.remove_sink(observer)
    line = encode_reply(request, answer.replies[0], answer.node, answer.term)
    return {"reply": msgspec.Raw(line.rstrip(b"\n")), "hops": hops}
