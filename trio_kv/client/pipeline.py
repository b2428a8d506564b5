"""Many calls over one connection: which of them may go out, and whose reply is whose. Pure: no stream, no clock.

Replies come in the order of requests, so the oldest call that went out owns the next line. A call that nobody awaits
any more keeps its place until its reply has come, which is dropped then. Calls that wait together were begun by tasks
that wait for them together, so none of them is before another: writes go out first, for the store carries out in one go
what has no read in front of a write.

What a driver has to do, in this order:

1. `add` a call, and send what `take` returns, again and again until that is nothing.
2. Give what comes to `receive`, end the calls that it returns, and send what may go out then.
3. When the connection has ended, say so to `lose`, and end the calls that it returns.
4. At the time `deadline_s`, end the calls that `expire` returns.
"""

from collections import deque
from typing import Any, Final

from trio_kv.client.errors import NotConnectedError, OutcomeUnknownError, StoreError
from trio_kv.wire.operations import LINE_BYTES_LIMIT
from trio_kv.wire.replies import ReplyError, ReplyLine, parse_reply

REPLY_BYTES_MAX: Final = LINE_BYTES_LIMIT + (1 << 20)
"""A longer reply is not ours: the connection is given up. It is the longest line that any server can be told to take,
with room for what a reply says beside the value."""
IN_FLIGHT_MAX: Final = 1024
"""Calls that have gone out and have no reply; further ones wait here."""
BATCH_BYTES_MAX: Final = 1 << 18
"""So much goes out at once, if it is more than one call."""
STRIKES_MAX: Final = 3
"""So many times in a row a server says that it can't serve, before another is tried."""


CAN_NOT_SERVE: Final = frozenset({"unavailable", "timeout"})
"""Codes by which a server says so."""


class ClosedByServerError(ConnectionError):
    """The server closes the connection, and has read nothing of what has no reply."""


class Call:
    """A request on its way, and what came of it: a reply or an error."""

    __slots__ = ("deadline_s", "error", "is_over", "line", "may_write", "owner", "reply")

    def __init__(self, line: bytes, *, may_write: bool, deadline_s: float, owner: Any = None) -> None:
        """Be on no way yet.

        Args:
            line: the request, with its end.
            may_write: whether it may change something.
            deadline_s: until then there is an answer, or none is awaited any more.
            owner: whatever the driver needs to find who awaits it.

        """
        self.line = line
        self.may_write = may_write
        self.deadline_s = deadline_s
        self.owner = owner
        self.is_over = False
        """Whether it has ended, or nobody awaits it."""
        self.reply: ReplyLine | None = None
        self.error: StoreError | None = None


class Pipeline:
    """Calls that wait for a connection, and those that have gone out over it.

    Invariant: each line that has gone out over the connection and has no reply is that of one call in flight, and in
    their order.
    """

    def __init__(self) -> None:
        """Have neither calls nor a connection."""
        self._waiting: deque[Call] = deque()
        self._in_flight: deque[Call] = deque()
        self._received = bytearray()
        self._searched = 0
        self._strikes = 0
        self.problem: ReplyError | ClosedByServerError | None = None
        """Why the connection has to be given up, if it has."""
        self.request_count = 0
        """How many lines went out."""
        self.reply_count = 0
        """How many of them were answered."""
        self.dropped_count = 0
        """How many answers nobody awaited."""

    @property
    def waiting_count(self) -> int:
        """How many calls have not gone out."""
        return sum(not call.is_over for call in self._waiting)

    @property
    def in_flight_count(self) -> int:
        """How many replies the connection owes."""
        return len(self._in_flight)

    @property
    def is_wanted(self) -> bool:
        """Whether a call waits for a connection."""
        while self._waiting and self._waiting[0].is_over:
            self._waiting.popleft()
        return bool(self._waiting)

    @property
    def is_useless(self) -> bool:
        """Whether the server has said for some time that it can't serve."""
        return self._strikes >= STRIKES_MAX

    @property
    def deadline_s(self) -> float:
        """When the first call ends without an answer."""
        calls = (*self._waiting, *self._in_flight)
        return min((call.deadline_s for call in calls if not call.is_over), default=float("inf"))

    def add(self, call: Call) -> None:
        """Let a call wait to go out."""
        self._waiting.append(call)

    def abandon(self, call: Call) -> None:
        """Await a call no more: one that has not gone out never does, and the reply of another is dropped."""
        call.is_over = True

    def take(self) -> bytes:
        """Return what goes out next, which is in flight from now on; nothing if there is nothing, or too much is."""
        room, size = IN_FLIGHT_MAX - len(self._in_flight), 0
        writes: list[Call] = []
        reads: list[Call] = []
        while self._waiting and room > 0:
            call = self._waiting[0]
            if not call.is_over:
                size += len(call.line)
                if size > BATCH_BYTES_MAX and (writes or reads):
                    break
                (writes if call.may_write else reads).append(call)
                room -= 1
            self._waiting.popleft()
        batch = writes + reads
        self._in_flight += batch
        self.request_count += len(batch)
        return b"".join([call.line for call in batch])

    def receive(self, data: bytes) -> list[Call]:
        """Return the calls that have ended with what has come. Look at `problem` then."""
        received = self._received
        received += data
        end = received.rfind(b"\n", self._searched) + 1
        if not end:
            self._searched = len(received)
            if len(received) > REPLY_BYTES_MAX:
                self.problem = ReplyError(f"a reply of more than {REPLY_BYTES_MAX} bytes")
            return []
        lines = bytes(received[: end - 1]).split(b"\n")
        del received[:end]
        self._searched = 0
        ended: list[Call] = []
        try:
            for line in lines:
                self._pair(parse_reply(line), ended)
        except (ReplyError, ClosedByServerError) as error:
            self.problem = error
        return ended

    def _pair(self, reply: ReplyLine, ended: list[Call]) -> None:
        if reply.close is not None:
            self._waiting.extendleft(reversed(self._in_flight))
            self._in_flight.clear()
            raise ClosedByServerError(f"the server said {reply.close}")
        if not self._in_flight:
            raise ReplyError(f"nobody asked for this: {reply.message or reply.code}")
        call = self._in_flight.popleft()
        self.reply_count += 1
        self._strikes = self._strikes + 1 if reply.error in CAN_NOT_SERVE else 0
        if call.is_over:
            self.dropped_count += 1
        else:
            call.is_over, call.reply = True, reply
            ended.append(call)

    def lose(self, why: str) -> list[Call]:
        """Have no connection any more; return the calls that have ended with it: all that were in flight.

        Args:
            why: for a person.

        """
        in_flight, self._in_flight = self._in_flight, deque()
        self._received.clear()
        self._searched = self._strikes = 0
        self.problem = None
        unknown = f"the write was sent, then: {why}. It may or may not take effect"
        return [
            _end(call, OutcomeUnknownError(unknown) if call.may_write else NotConnectedError(why))
            for call in in_flight
            if not call.is_over
        ]

    def refuse(self, error: StoreError) -> list[Call]:
        """Return the calls that have ended because there is no connection: all that waited for one."""
        waiting, self._waiting = self._waiting, deque()
        return [_end(call, type(error)(str(error), error.reply)) for call in waiting if not call.is_over]

    def expire(self, now_s: float) -> list[Call]:
        """Return the calls that have ended because it is too late."""
        ended = []
        for call in self._in_flight:
            if not call.is_over and call.deadline_s <= now_s:
                unknown = "the write was sent, and no answer came in time. It may or may not take effect"
                error = (
                    OutcomeUnknownError(unknown) if call.may_write else NotConnectedError("no answer in time")
                )
                ended.append(_end(call, error))
        ended += [
            _end(call, NotConnectedError("no connection in time"))
            for call in self._waiting
            if not call.is_over and call.deadline_s <= now_s
        ]
        return ended

    def close(self) -> list[Call]:
        """Return all calls that have not ended: nobody ends them any more."""
        calls = [call for call in (*self._in_flight, *self._waiting) if not call.is_over]
        self._in_flight.clear()
        self._waiting.clear()
        for call in calls:
            call.is_over = True
        return calls


def _end(call: Call, error: StoreError) -> Call:
    call.is_over, call.error = True, error
    return call
