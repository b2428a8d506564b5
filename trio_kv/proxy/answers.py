"""What the door says to requests by itself: it is asked what is its own, or the store answers no more."""

from collections.abc import Callable, Mapping
from typing import Any

from trio_kv.kv.operations.operation import WriteOperation
from trio_kv.kv.reply import Reply
from trio_kv.proxy.runs import STEP_OF_RUN
from trio_kv.wire.operations import Request, Status
from trio_kv.wire.replies import encode_reply, encode_status


def answer_here(item: Request | bytes, status: Callable[[], Mapping[str, Any]], *, is_handed: bool) -> bytes:
    """Return the reply to what needs no run, or gets no result any more.

    Args:
        item: a request, or the reply to a line that is none.
        status: tells the members of a status reply.
        is_handed: whether the store has it.

    """
    if isinstance(item, bytes):
        return item
    operation = item.operation
    if isinstance(operation, Status):
        return encode_status(item, status())
    if isinstance(operation, WriteOperation) and is_handed:
        reply = Reply("timeout", message="the server stops; this write may still take effect")
    elif type(operation) in STEP_OF_RUN:
        reply = Reply("unavailable", message="the server stops; this request had no effect")
    else:
        reply = Reply("ok")
    return encode_reply(item, reply)
