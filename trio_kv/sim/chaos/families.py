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
from trio_kv.wire.replies import ReplyLine

PIPELINE_MAX = 6
"""Fewer at a time than for registers: what gets lost together has to be told apart afterwards."""
STALE = 0.2
NUMBERED = 0.5
"""Share of the writes with a place in a session."""
REPEATED = 0.1
"""Share of those that are asked twice."""
REPLY_GRACE_S = 1.0
SEQS_KEPT = 16
"""So many seqs below the next one are still awaited, as far as the server is told: they may be asked again."""
NONSENSE_CODES = frozenset({"bad_request", "too_large", "unauthorized", "compacted"})
"""No request here deserves these."""
ANSWERS = frozenset({"ok", "missing", "conflict"})
_REPEATED_MEMBERS = frozenset({"key", "value", "status", "error", "revision", "succeeded", "results"})
"""What an answer says every time."""


@attrs.define(eq=False)
class _Numbered:
    """A write with a place in a session, until it is answered."""

    call: FamilyCall
    attempts: int = 0
    exchange: Exchange | None = None
    """What came of it, once it was answered."""


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
        self._draw = FamilyDraw(random, self._next_value)
        self._session: str | None = None
        self._seq = 0
        self._owed: list[_Numbered] = []
        """Writes that had no answer yet: they are asked again."""
        self.begin()

    def begin(self) -> None:
        """Begin a connection."""
        self._order = ConnectionOrder(RevisionOrder())

    def end(self) -> None:
        """Ask nothing any more: what has no answer never gets one."""
        for numbered in self._owed:
            self._recorder.end_of_family(numbered.call, None)
        self._owed = []

    async def ask(self, stream: LineStream, count: int, timeout_s: float) -> bool:
        """Ask so many things at once, but for a limit; return whether the connection can still be used."""
        within_s = timeout_s + REPLY_GRACE_S
        if self._session is None and not await converse(
            stream, [b'{"op": "session"}\n'], within_s, lambda _, reply: self._open(reply)
        ):
            return False
        owed, self._owed = self._owed, []
        asked: list[FamilyCall | _Numbered] = [*owed]
        asked += [self._call(timeout_s) for _ in range(min(count, PIPELINE_MAX))]
        repeated = [
            each for each in asked if isinstance(each, _Numbered) and self._random.random() < REPEATED
        ]
        asked += repeated
        lines = [self._line(each, number) for number, each in enumerate(asked)]
        return await converse(
            stream, lines, within_s, lambda number, reply: self._end(asked[number], number, reply)
        )

    def _open(self, reply: ReplyLine | None) -> None:
        if reply is not None and reply.code == "ok":
            self._session, self._seq = read(decode_members(reply.line), "session"), 0

    def _next_value(self) -> str:
        self._values += 1
        return f"c{self._client}-{self._values}"

    def _call(self, timeout_s: float) -> FamilyCall | _Numbered:
        def draw(family: Family) -> Members:
            members = {**self._draw.request(family), "timeout": timeout_s}
            is_read = members["op"] in READS
            if is_read and self._random.random() < STALE:
                members["consistency"] = "stale"
            elif not is_read and self._session is not None and self._random.random() < NUMBERED:
                members |= {"session": self._session, "seq": self._seq, "done": self._done}
                self._seq += 1
            return members

        call = self._recorder.call_of_family(self._client, self._random, draw)
        return _Numbered(call) if "seq" in call.members else call

    @property
    def _done(self) -> int:
        """The lowest seq that may still be asked."""
        owed = [each.call.members["seq"] for each in self._owed]
        return int(max(0, min([self._seq - SEQS_KEPT, *owed])))

    def _line(self, asked: FamilyCall | _Numbered, number: int) -> bytes:
        call = asked if isinstance(asked, FamilyCall) else asked.call
        return json.dumps({**call.members, "id": number}).encode() + b"\n"

    def _end(self, asked: FamilyCall | _Numbered, number: int, reply: ReplyLine | None) -> None:
        is_wrong = reply is not None and reply.close is None and bytes(reply.id) != b"%d" % number
        if reply is not None and (reply.code in NONSENSE_CODES or is_wrong):
            self._on_nonsense(f"no such answer can be: {asked} was answered with {reply.line!r}")
        if isinstance(asked, FamilyCall):
            self._note(self._recorder.end_of_family(asked, reply), reply)
        elif asked.exchange is None:
            self._end_numbered(asked, reply)
        elif reply is not None and reply.code in ANSWERS and asked.exchange.outcome in ANSWERS:
            self._compare(asked.exchange, reply)

    def _end_numbered(self, asked: _Numbered, reply: ReplyLine | None) -> None:
        asked.attempts += 1
        code = "" if reply is None else reply.code
        if code == "session_expired":
            self._session = None
        # A definite error speaks of its own attempt: one before it may have taken effect, or may yet.
        elif code not in ANSWERS and (asked.attempts > 1 or code in ("", "timeout", "closed")):
            if asked not in self._owed:
                self._owed.append(asked)
            return
        if asked in self._owed:
            self._owed.remove(asked)
        asked.exchange = self._recorder.end_of_family(asked.call, reply)
        self._recorder.retried += asked.attempts > 1
        if asked.attempts == 1:
            self._note(asked.exchange, reply)

    def _note(self, exchange: Exchange, reply: ReplyLine | None) -> None:
        """Judge an answer by those before it on its connection."""
        if reply is not None and reply.close is None:
            try:
                self._order.told(exchange)
            except Violation as violation:
                self._on_nonsense(str(violation))

    def _compare(self, first: Exchange, reply: ReplyLine) -> None:
        """Judge the answer to a request that was answered before: it must be the same."""
        self._recorder.repeated += 1
        kept = {name: bytes(text) for name, text in first.told.items() if name in _REPEATED_MEMBERS}
        again = decode_members(reply.line)
        if kept != {name: bytes(text) for name, text in again.items() if name in _REPEATED_MEMBERS}:
            self._on_nonsense(f"{first} was told {reply.line!r} when it was asked again")
