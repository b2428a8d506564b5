"""Requests of all kinds for families of keys, as the clients of chaos ask them.

What becomes of them stands in the history as it went over the wire. All of a family is judged together, by
`check.replay_replies`; what one connection may count on is judged at once, by `check.connection_order`.
"""

import json
from collections.abc import Callable
from random import Random

from trio_kv.check.connection_order import ConnectionOrder
from trio_kv.check.exchange import READS
from trio_kv.check.revision_order import RevisionOrder
from trio_kv.check.violation import Violation
from trio_kv.sim.chaos.lines import LineStream, converse
from trio_kv.sim.chaos.recorder import FamilyCall, Recorder
from trio_kv.sim.families import Family, FamilyDraw, Members
from trio_kv.wire.replies import ReplyLine

PIPELINE_MAX = 6
"""Fewer at a time than for registers: what gets lost together has to be told apart afterwards."""
STALE = 0.2
REPLY_GRACE_S = 1.0
NONSENSE_CODES = frozenset({"bad_request", "too_large", "unauthorized", "compacted"})
"""No request here deserves these."""


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
        self.begin()

    def begin(self) -> None:
        """Begin a connection."""
        self._order = ConnectionOrder(RevisionOrder())

    async def ask(self, stream: LineStream, count: int, timeout_s: float) -> bool:
        """Ask so many things at once, but for a limit; return whether the connection can still be used."""
        calls = [self._call(number, timeout_s) for number in range(min(count, PIPELINE_MAX))]
        lines = [json.dumps(call.members).encode() + b"\n" for call in calls]
        return await converse(
            stream, lines, timeout_s + REPLY_GRACE_S, lambda number, reply: self._end(calls[number], reply)
        )

    def _next_value(self) -> str:
        self._values += 1
        return f"c{self._client}-{self._values}"

    def _call(self, number: int, timeout_s: float) -> FamilyCall:
        def draw(family: Family) -> Members:
            members = {**self._draw.request(family), "id": number, "timeout": timeout_s}
            if members["op"] in READS and self._random.random() < STALE:
                members["consistency"] = "stale"
            return members

        return self._recorder.call_of_family(self._client, self._random, draw)

    def _end(self, call: FamilyCall, reply: ReplyLine | None) -> None:
        exchange = self._recorder.end_of_family(call, reply)
        if reply is None or reply.close is not None:
            return
        if reply.code in NONSENSE_CODES or bytes(reply.id) != b"%d" % call.members["id"]:
            self._on_nonsense(f"no such answer can be: {exchange}")
            return
        try:
            self._order.told(exchange)
        except Violation as violation:
            self._on_nonsense(str(violation))
