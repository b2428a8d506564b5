"""What a client of the door asks: a request, spelled in one of the ways in which it can be, and what came of it."""

import json
from random import Random
from typing import Any

import attrs

from trio_kv.check.exchange import READS, Exchange
from trio_kv.sim.families import Members
from trio_kv.sim.numbering import Numbered


@attrs.define(eq=False)
class Asked:
    """A request and what came of it."""

    op: str
    key: str = ""
    """Of a register."""
    value: bytes | None = None
    expected: bytes | None = None
    id: int | None = None
    timeout_s: float = 5.0
    is_stale: bool = False
    members: Members | None = None
    """All that is asked of a family of keys; None: it is about a register."""
    numbered: Numbered | None = None
    """Its place in a session of its client, if it has one."""
    lane: int = 0
    call_s: float = 0.0
    outcome: str = ""
    """Empty as long as there is none."""
    result: bytes | None = None

    @property
    def is_write(self) -> bool:
        """Whether it may change something."""
        return self.op not in READS

    def encode(self, random: Random) -> bytes:
        """Return its line."""
        members: dict[str, Any] = dict(self.members or ())
        is_plain = self.op in ("get", "set") and random.random() < 0.5
        if is_plain:
            members.pop("op", None)
        elif not members:
            members["op"] = self.op
        if self.members is None:
            members["key"] = self.key
        if self.id is not None:
            members["id"] = self.id
        members["timeout"] = self.timeout_s
        if self.is_stale:
            members |= {"consistency": "stale", "meta": True}
        texts = [json.dumps(members, ensure_ascii=False).encode()[:-1]]
        for name, text in (("value", self.value), ("expected", self.expected)):
            if text is not None:
                texts.append(b'"' + name.encode() + b'": ' + text)
        return b", ".join(texts) + random.choice((b"}\n", b"}\r\n", b"}\n\n"))

    def exchange(self, client: int, line: bytes | None, returned_s: float | None) -> Exchange:
        """Return what was asked of a family, with its reply."""
        asked = {**(self.members or {}), **({"consistency": "stale"} if self.is_stale else {})}
        return Exchange(client, json.dumps(asked).encode(), self.call_s, returned_s, line)
