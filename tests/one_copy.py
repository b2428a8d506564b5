"""One state machine that answers requests by itself: what it says can always be explained, unless it is spoiled."""

from trio_kv.kv.commands import Expire, OpenSession, Write
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations.operation import Query, WriteOperation
from trio_kv.kv.reply import Reply
from trio_kv.raft.entry import make_entry
from trio_kv.wire.client_sessions import OpenOrRenew
from trio_kv.wire.operations import Request


class OneCopy:
    """A store without a cluster."""

    def __init__(self) -> None:
        """Hold nothing, and have a session for all."""
        self.machine = Machine()
        self.machine.apply([make_entry(1, 1, 0, OpenSession(1 << 60))])
        self.requests = 0
        self.time_us = 0
        """Cluster time; it stands still until `pass_time`."""

    def answer(self, request: Request) -> Reply:
        """Return what becomes of a request."""
        self.requests += 1
        operation = request.operation
        if isinstance(operation, OpenOrRenew):
            return Reply("bad_request", message="there are no sessions here")
        if isinstance(operation, WriteOperation):
            return self.write(operation)
        if isinstance(operation, Query):
            return self.read(operation)
        return Reply("bad_request", message="nobody has to know that here")

    def pass_time(self, to_s: float) -> None:
        """Let it be then, and let end what is due."""
        self.time_us = self.machine.known_time_us = int(to_s * 1_000_000)
        due_us = self.machine.expires_at_us
        if due_us is not None and due_us <= self.time_us:
            self.machine.apply([make_entry(self.machine.applied + 1, 1, self.time_us, Expire())])

    def write(self, operation: WriteOperation) -> Reply:
        """Append and apply a write."""
        index = self.machine.applied + 1
        write = Write(1, index, index, operation)  # type: ignore[arg-type]
        (reply,) = self.machine.apply([make_entry(index, 1, self.time_us, write)])
        return reply

    def read(self, query: Query) -> Reply:
        """Answer a query from what is applied."""
        (reply,) = self.machine.query([query])  # type: ignore[list-item]
        return reply
