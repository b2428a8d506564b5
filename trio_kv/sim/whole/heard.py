"""What a client of the door is told, judged as it comes in: by itself, and by what one connection may count on."""

import json
from collections.abc import Sequence
from typing import Any

from trio_kv.check.connection_order import ConnectionOrder
from trio_kv.check.history import Operation
from trio_kv.check.own_key import OwnKey
from trio_kv.check.program_order import ProgramOrder
from trio_kv.check.revision_order import RevisionOrder
from trio_kv.check.violation import Violation
from trio_kv.sim.numbering import ANSWERS, Numbered, Numbering
from trio_kv.sim.whole.asked import Asked
from trio_kv.sim.whole.host import WholeHost

FAILED = frozenset({"unavailable", "overloaded", "read_only"})
"""Codes that say that nothing happened and nothing will. A client here makes no bad request, and none too large."""
UNKNOWN = frozenset({"timeout", "session_expired"})
"""Codes that leave open whether a write took effect."""
_LANES_MAX = 16


class Heard:
    """What one client was told, over one connection after the other.

    Args:
        number: of the client.
        host: the world.

    """

    def __init__(self, number: int, host: WholeHost) -> None:
        """Have been told nothing; see the class."""
        self.numbering = Numbering()
        """The session of the client, and what it owes an answer to."""
        self.known: dict[str, bytes] = {}
        """What was last seen of each register: what a cas expects."""
        self._number = number
        self._host = host
        self._own_number = 0
        self._own = OwnKey(f"own{number}.0")
        self.begin()

    @property
    def own_key(self) -> str:
        """A key that nobody else uses."""
        return self._own.key

    def begin(self) -> None:
        """Begin a connection."""
        self._order, self._program = RevisionOrder(), ProgramOrder()
        self._pages = ConnectionOrder(self._order)

    def asked(self, asked: Asked) -> None:
        """Note the next request."""
        if asked.members is None:
            self._program.asked(asked, asked.value)

    def read(self, line: bytes) -> dict[str, Any]:
        """Return what a line says.

        Raises:
            Violation: nothing that a door may say.

        """
        try:
            reply: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise Violation(f"c{self._number} got {line!r}, which is not JSON") from error
        if reply.get("close", "ok") not in ("ok", "shutdown"):
            raise Violation(f"c{self._number} got {line!r}")
        return reply

    def told(self, asked: Asked, line: bytes, reply: dict[str, Any], returned_s: float) -> None:
        """Judge the reply to a request, the next one in order.

        Raises:
            Violation: it can't be.

        """
        if reply.get("id") != asked.id:
            raise Violation(f"the reply to another request: c{self._number} asked {asked} and got {reply}")
        if asked.members is None:
            self._judge_reply(asked, reply)
            self._record(asked, returned_s)
            return
        self._judge_code(asked, reply)
        code = "ok" if reply.get("status") == "ok" else reply.get("error", "missing")
        if asked.numbered is None or self._ends(asked, asked.numbered, code, line):
            self._record_exchange(asked, line, returned_s)

    def told_of_session(self, reply: dict[str, Any]) -> None:
        """Take the reply to who wants a session.

        Raises:
            Violation: it can't be.

        """
        if reply.get("status") == "ok":
            self.numbering.begin(reply["session"])
        elif reply.get("error") not in {*FAILED, *UNKNOWN}:
            raise Violation(f"no such answer can be: c{self._number} opened a session and got {reply}")

    def lost(self, asked: Asked) -> None:
        """Note that a request is not answered over this connection any more: most are never."""
        if asked.members is None:
            asked.outcome = "unknown" if asked.is_write else "failed"
            self._record(asked, None)
        elif asked.numbered is None or self._ends(asked, asked.numbered, "", None):
            self._record_exchange(asked, None, None)

    def end(self) -> None:
        """Note that nothing is asked again any more."""
        for asked in self.numbering.owed:
            self._record_exchange(asked, None, None)
        self.numbering.owed = []

    def _ends(self, asked: Asked, numbered: Numbered, code: str, line: bytes | None) -> bool:
        """Judge what an attempt of a write in a session was told; tell whether it is the last word.

        Raises:
            Violation: it was told something else before.

        """
        if numbered.exchange is not None:
            if line is not None and code in ANSWERS and numbered.exchange.outcome in ANSWERS:
                self._host.coverage.reach("answer told twice")
                if numbered.differs(line):
                    raise Violation(f"{numbered.exchange} was told {line!r} when it was asked again")
            return False
        owed = self.numbering.owed
        if code == "session_expired":
            self.numbering.session = None
        if not numbered.ends(code):
            if asked not in owed:
                owed.append(asked)
            return False
        if asked in owed:
            owed.remove(asked)
        if numbered.attempts > 1 and code in ANSWERS:
            self._host.coverage.reach("request asked again under its seq")
        return True

    def _judge_code(self, asked: Asked, reply: dict[str, Any]) -> None:
        """Refuse a code that a request for a family can't meet: the rest is for the judge of all of them."""
        code = reply.get("error", "conflict")
        if code not in {"conflict", *FAILED, *UNKNOWN} or (code in UNKNOWN and not asked.is_write):
            raise Violation(f"no such answer can be: c{self._number} asked {asked} and got {reply}")

    def _record_exchange(self, asked: Asked, line: bytes | None, returned_s: float | None) -> None:
        exchange = asked.exchange(self._number * _LANES_MAX + asked.lane, line, returned_s)
        asked.outcome = exchange.outcome
        if asked.numbered is None or asked.numbered.attempts == 1:
            self._pages.told(exchange)
        if asked.numbered is not None:
            asked.numbered.exchange = exchange
        self._host.note_exchange(exchange)

    def _judge_reply(self, asked: Asked, reply: dict[str, Any]) -> None:
        where = f"c{self._number} asked {asked} and got {reply}"
        if reply.get("key") != asked.key:
            raise Violation(f"the reply to another request: {where}")
        value = (
            None if reply.get("value") is None else json.dumps(reply["value"], ensure_ascii=False).encode()
        )
        if reply.get("status") == "ok":
            asked.outcome = "ok"
            if asked.op in ("get", "delete"):
                asked.result = value
            elif value != asked.value:
                raise Violation(f"another value than was written: {where}")
        elif "error" not in reply:
            if asked.op not in ("get", "delete") or value is not None:
                raise Violation(f"no such key, of a write: {where}")
            asked.outcome = "missing"
        elif reply["error"] == "conflict" and asked.op == "cas":
            asked.outcome, asked.result = "conflict", value
        elif reply["error"] in FAILED:
            asked.outcome = "failed"
        elif reply["error"] in UNKNOWN and asked.is_write:
            asked.outcome = "unknown"
        else:
            raise Violation(f"no such answer can be: {where}")
        if asked.is_stale:
            self._judge_stale(asked, reply)
        elif asked.outcome == "ok" and asked.op == "get" and value is not None:
            self.known[asked.key] = value

    def _judge_stale(self, asked: Asked, reply: dict[str, Any]) -> None:
        if asked.outcome != "ok":
            return
        self._order.follows(asked.key, reply["revision"])
        self._host.coverage.reach("stale read")

    def _record(self, asked: Asked, returned_s: float | None) -> None:
        operation = Operation(
            client=self._number * _LANES_MAX + asked.lane,
            op=asked.op,
            key=asked.key,
            call_s=asked.call_s,
            return_s=None if asked.outcome == "unknown" else returned_s,
            outcome=asked.outcome,
            value=asked.value,
            expected=asked.expected,
            result=asked.result,
        )
        if not asked.is_stale:
            self._host.history.append(operation)
        self._program.told(asked, operation)
        if asked.key == self._own.key:
            self._own.told(operation)

    def end_chain(self, burst: Sequence[Asked]) -> None:
        """Note that a chain of requests for the own key was judged, and take another key if it was not to its end."""
        if burst[0].key != self._own.key:
            return
        if any(asked.outcome in ("unknown", "failed") for asked in burst):
            self.renew_own()
        else:
            self._host.coverage.reach("chain of requests judged")

    def renew_own(self) -> None:
        """Take another key of its own, as it is not known what the last one holds."""
        self._own_number += 1
        self._own = OwnKey(f"own{self._number}.{self._own_number}")
