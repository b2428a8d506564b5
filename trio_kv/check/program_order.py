"""Program order of one connection: each answer sees the writes before it on its connection, and none behind it.

It goes for any key, also for those that others write, and for stale reads. What a connection wrote itself is known by
its value: workloads write each value once. An answer that tells such a value was given behind that write, and not
behind a later write of the connection to the same key, for then somebody else's value could be there, but not this one.
`check.own_key` tells more, of keys that nobody else uses.
"""

from collections.abc import Hashable

from trio_kv.check.history import Operation
from trio_kv.check.violation import Violation


class ProgramOrder:
    """Judges the answers on one connection, in the order of its requests."""

    def __init__(self) -> None:
        """Know of no request."""
        self._numbers: dict[Hashable, int] = {}
        """Of the requests under way, in the order in which they were asked."""
        self._asked = 0
        self._writers: dict[bytes, int] = {}
        """By value: the number of the request that writes it."""
        self._done: dict[str, int] = {}
        """By key: the number of the last request that changed it."""
        self._known: set[int] = set()
        """The requests that changed something, for all we know."""

    def asked(self, request: Hashable, value: bytes | None) -> None:
        """Note the next request, and the value that it writes; pipelined ones are noted before the first answer."""
        self._asked += 1
        self._numbers[request] = self._asked
        if value is not None:
            self._writers[value] = self._asked

    def told(self, request: Hashable, operation: Operation) -> None:
        """Judge the answer to a request, the next one in order.

        Raises:
            Violation: it saw what stands behind it, or did not see what stands before it.

        """
        number = self._numbers.pop(request)
        writer = self._writers.get(operation.result) if operation.result is not None else None
        if writer is not None:
            if writer > number:
                raise Violation(f"{operation} saw a write that its connection asked for behind it")
            if writer in self._known and writer < self._done.get(operation.key, 0):
                raise Violation(f"{operation} did not see the last write before it on its connection")
        if operation.op != "get" and operation.outcome == "ok":
            self._done[operation.key] = number
            self._known.add(number)
