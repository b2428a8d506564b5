"""Requests of all kinds for families of keys, as the clients of chaos ask them.

What becomes of them stands in the history as it went over the wire. All of a family is judged together, by
`check.replay_replies`; what one connection may count on is judged at once, by `check.connection_order`.

Some writes have a place in a session of their client (`session`, `seq`, `done`). One of those that gets no answer is
asked again, over the next connection, until there is one, and counts as one request all the while; some are asked twice
though they were answered, and must be told the same again.
"""

import json
from collections.abc import Callable
from random import Random

import attrs

from trio_kv.check.connection_order import ConnectionOrder
from trio_kv.check.exchange import READS, Exchange, decode_members, read
from trio_kv.check.revision_order import RevisionOrder
from trio_kv.check.violation import Violation
from trio_kv.sim.chaos.lines import LineStream, converse
from trio_kv.sim.chaos.recorder import FamilyCall, Recorder
from trio_kv.sim.families import Family, FamilyDraw, Members
from trio_kv.sim.numbering import ANSWERS, NUMBERED, Numbered, Numbering, repeat
from trio_kv.wire.replies import ReplyLine

PIPELINE_MAX = 6
"""Fewer at a time than for registers: what gets lost together has to be told apart afterwards."""
STALE = 0.2
REPLY_GRACE_S = 1.0
NONSENSE_CODES = frozenset({"bad_request", "too_large", "unauthorized", "compacted"})
"""No request here deserves these."""


@attrs.define(eq=False)
class _Asked:
    """A request."""

    call: FamilyCall
    numbered: Numbered | None
    """Its place in a session, if it has one."""


class FamilyClient:
    """What one client asks for families, over one connection after the other.

    Args:
        recorder: takes what came of it.
        random: draws what is asked.
        client: its number.
        on_nonsense: is told of a reply that can't be.

    """

    def __init__(
        self, recorder: Recorder, random: Random, client: int, on_nonsense: Callable[[str], None]
    ) -> None:
        """Have asked nothing; see the class."""
        self._recorder = recorder
        self._random = random
        self._client = client
        self._on_nonsense = on_nonsense
        self._values = 0
        self._draw = FamilyDraw(random, Random(random.getrandbits(64)), self._next_value)
        self._numbering = Numbering()
        self.begin()

    def begin(self) -> None:
        """Begin a connection."""
        self._order = ConnectionOrder(RevisionOrder())

    def end(self) -> None:
        """Ask nothing any more: what has no answer never gets one."""
        for asked in self._numbering.owed:
            self._recorder.end_of_family(asked.call, None)
        self._numbering.owed = []

    async def ask(self, stream: LineStream, count: int, timeout_s: float) -> bool:
        """Ask so many things at once, but for a limit; return whether the connection can still be used."""
        within_s = timeout_s + REPLY_GRACE_S
        if self._numbering.session is None and not await converse(
            stream, [b'{"op": "session"}\n'], within_s, lambda _, reply: self._open(reply)
        ):
            return False
        asked: list[_Asked] = [*self._numbering.owed]
        asked += [self._call(timeout_s) for _ in range(min(count, PIPELINE_MAX))]
        asked += repeat(asked, self._random)
        lines = [self._line(each, number) for number, each in enumerate(asked)]
        return await converse(
            stream, lines, within_s, lambda number, reply: self._end(asked[number], number, reply)
        )

    def _open(self, reply: ReplyLine | None) -> None:
        if reply is not None and reply.code == "ok":
            self._numbering.begin(read(decode_members(reply.line), "session"))

    def _next_value(self) -> str:
        self._values += 1
        return f"c{self._client}-{self._values}"

    def _call(self, timeout_s: float) -> _Asked:
        numbered: Numbered | None = None

        def draw(family: Family) -> Members:
            nonlocal numbered
            members = {**self._draw.request(family), "timeout": timeout_s}
            is_read = members["op"] in READS
            if is_read and self._random.random() < STALE:
                members["consistency"] = "stale"
            elif not is_read and self._numbering.session is not None and self._random.random() < NUMBERED:
                numbered, place = self._numbering.place()
                members |= place
            return members

        call = self._recorder.call_of_family(self._client, self._random, draw)
        return _Asked(call, numbered)

    def _line(self, asked: _Asked, number: int) -> bytes:
        return json.dumps({**asked.call.members, "id": number}).encode() + b"\n"

    def _end(self, asked: _Asked, number: int, reply: ReplyLine | None) -> None:
        is_wrong = reply is not None and reply.close is None and bytes(reply.id) != b"%d" % number
        if reply is not None and (reply.code in NONSENSE_CODES or is_wrong):
            self._on_nonsense(f"no such answer can be: {asked} was answered with {reply.line!r}")
        numbered = asked.numbered
        if numbered is None:
            self._note(self._recorder.end_of_family(asked.call, reply), reply)
        elif numbered.exchange is None:
            self._end_numbered(asked, numbered, reply)
        elif reply is not None and reply.code in ANSWERS and numbered.exchange.outcome in ANSWERS:
            self._recorder.repeated += 1
            if numbered.differs(reply.line):
                self._on_nonsense(f"{numbered.exchange} was told {reply.line!r} when it was asked again")

    def _end_numbered(self, asked: _Asked, numbered: Numbered, reply: ReplyLine | None) -> None:
        code, owed = "" if reply is None else reply.code, self._numbering.owed
        if code == "session_expired":
            self._numbering.session = None
        if not numbered.ends(code):
            if asked not in owed:
                owed.append(asked)
            return
        if asked in owed:
            owed.remove(asked)
        numbered.exchange = self._recorder.end_of_family(asked.call, reply)
        self._recorder.retried += numbered.attempts > 1
        if numbered.attempts == 1:
            self._note(numbered.exchange, reply)

    def _note(self, exchange: Exchange, reply: ReplyLine | None) -> None:
        """Judge an answer by those before it on its connection."""
        if reply is not None and reply.close is None:
            try:
                self._order.told(exchange)
            except Violation as violation:
                self._on_nonsense(str(violation))
