"""Which requests go to the store together: a run, which it carries out in one go.

A run has reads and writes that follow each other. No read stands before a write that a client numbers itself: where
the client has repeated that write, the state before it may hold what it did (decision 0031). Stale reads are runs of
their own, for whoever answers them knows nothing of writes beside them. A run has one page of keys at most: it may be a
MiB, and is made when it is answered.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from trio_kv.kv.operations import Get
from trio_kv.kv.operations.operation import Query, WriteOperation
from trio_kv.proxy.states import READ, WATCH, WRITE, Step
from trio_kv.wire.client_sessions import OF_CLIENTS, Numbered
from trio_kv.wire.operations import OPERATIONS, Request
from trio_kv.wire.watches import Unwatch, Watch

STEP_OF_RUN: Final[Mapping[type, Step]] = {
    kind: READ if issubclass(kind, Query) else WRITE
    for kind in OPERATIONS.values()
    if issubclass(kind, (Query, WriteOperation))
} | {Numbered: WRITE, Watch: WATCH, Unwatch: WATCH}
"""What a run of each kind of operation asks for; the others need no store. One with a write in it is a write, and what
has to do with watches is a run alone."""


def cut_run(first: Request, items: Iterable[Any]) -> tuple[Step, bool, list[Any]]:
    """Cut a run.

    A request that has to do with a watch is a run alone.

    Args:
        first: the request with which it begins.
        items: that one, and what follows it: requests, and replies to lines that are none.

    Returns:
        its step, whether its reads are stale, and its operations.

    """
    step: Step = READ
    timeout_s, is_stale = first.timeout, first.is_stale and STEP_OF_RUN[type(first.operation)] is READ
    if STEP_OF_RUN[type(first.operation)] is WATCH:
        return WATCH, False, [first.operation]
    run: list[Any] = []
    has_reads = has_page = False
    for item in items:
        if type(item) is bytes:
            break
        operation = item.operation
        kind = STEP_OF_RUN.get(type(operation))
        # One time-out and one consistency a run, so that the store need know no more of it than that. To a write its
        # consistency means nothing.
        if item.timeout != timeout_s or is_stale != (item.is_stale and kind is READ):
            break
        if kind is WRITE:
            if has_reads and type(operation) in OF_CLIENTS:
                break
            step = WRITE
        elif kind is not READ:
            break
        else:
            if operation.has_page and has_page:
                break
            has_reads, has_page = True, has_page or operation.has_page
        run.append(operation)
    return step, is_stale, run


def take_plain(requests: Sequence[Request]) -> tuple[Step, list[Any]] | None:
    """Return the step and the operations of a run of requests that have neither a time-out nor a consistency.

    None: they are no run, for a read stands before a write that a client numbers.
    """
    run: list[Any] = [request.operation for request in requests]
    kinds = set(map(type, run))
    if Numbered in kinds and Get in kinds:
        order = [type(each) for each in run]
        if Get in order[: len(order) - order[::-1].index(Numbered)]:
            return None
    return (WRITE if WRITE in {STEP_OF_RUN[kind] for kind in kinds} else READ), run
