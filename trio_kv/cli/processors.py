"""Processors that processes are kept to, each to one of its own.

The threads of a process take turns at Python. A turn that goes to a thread on another processor waits until that one
has woken up, which takes several times as long as a switch; and a further process that shares a processor with the
first one takes it from those who wait for an answer (decision 0053).
"""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from random import Random
from typing import Literal

from trio_kv.trace.processes import ProcessPinned
from trio_kv.trace.trace import Trace

Pin = Literal["auto", "yes", "no"]
"""Whether each process is kept to a processor. `auto`: where there are several processes, and processors enough."""


def own_processors() -> list[int]:
    """Return the processors that this thread may use; none where the system keeps nobody to any, as macOS."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def choose_processors(pin: Pin, processes: int, random: Random) -> tuple[int, ...]:
    """Return a processor for each process, none of them twice; nothing if the processes are not kept to any.

    Args:
        pin: what was asked for.
        processes: how many there are.
        random: draws the first one, so that the servers of a machine don't all choose the same ones.

    """
    own = own_processors()
    if pin == "no" or (pin == "auto" and processes == 1) or len(own) < processes:
        return ()
    first = random.randrange(len(own))
    return tuple([*own[first:], *own[:first]][:processes])


@contextmanager
def kept_to(processor: int | None, trace: Trace) -> Iterator[None]:
    """Keep this thread, and those that it starts, to a processor as long as the context lasts; None: to none.

    Nothing depends on it, so one that was taken from this process since it was chosen is no error.
    """
    before = own_processors()
    if processor is None or not _keep_to({processor}):
        yield
        return
    trace.emit(ProcessPinned(processor))
    try:
        yield
    finally:
        _keep_to(before)


def _keep_to(processors: Collection[int]) -> bool:
    """Keep this thread to some processors; return whether they are there."""
    try:
        os.sched_setaffinity(0, processors)
    except OSError:
        return False
    return True
