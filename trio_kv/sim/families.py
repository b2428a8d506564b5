"""Keys that are used together, by all kinds of requests: what clients ask of them.

A family has registers, whose values are written once, and counters, which are added to by amounts that hardly any two
requests share: so whoever is told a sum is told of its summands. `check.replay` judges all that was asked of a family.
Register keys that are asked for one by one, without revisions, are drawn elsewhere: the search of
`check.linearizability` judges those.

Requests are drawn as members of their JSON objects, as `docs/protocol.md` has them.
"""

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

import attrs

from trio_kv.check.exchange import Exchange, read, read_list
from trio_kv.kv.operations import AnyQuery, AnyWrite
from trio_kv.wire.requests import parse_line

Members = dict[str, Any]

REGISTERS: Final = ("a", "b", "c")
COUNTERS: Final = ("n", "m")
BY_MAX: Final = 10**14
"""A thousand additions of this stay within the 18 digits that can be counted with."""
TTL_SHORT_S: Final = 2.0
"""A key that lives no longer than this is to be seen to end."""
TTLS_S: Final = (0.1, 0.5, TTL_SHORT_S, 3600.0)
"""What keys live. The last one outlives every run: a key that has it must never be missed."""
LIMITED: Final = 0.25
"""Share of the writes that say how long their key lives."""
KINDS: Final[Mapping[str, int]] = {
    "get": 4,
    "set": 3,
    "delete": 2,
    "cas": 2,
    "if_revision": 2,
    "incr": 5,
    "scan": 4,
    "txn": 4,
}
"""What is asked, and how often."""


@attrs.define(eq=False)
class Family:
    """Some keys with a common prefix, and the versions of them of which somebody was told."""

    prefix: str
    known: dict[str, tuple[Any, int]] = attrs.field(factory=dict)
    """By key: value and revision, of the last one told. No key: it may be missing."""

    @property
    def keys(self) -> list[str]:
        """All of them, in their order."""
        return sorted(self.prefix + name for name in (*REGISTERS, *COUNTERS))

    def learn(self, exchange: Exchange) -> None:
        """Note what an answer tells of versions."""
        if exchange.op == "scan" and exchange.outcome == "ok":
            for item in read_list(exchange.told, "items"):
                if "value" in item:
                    self.known[read(item, "key")] = read(item, "value"), read(item, "revision")
        elif exchange.op == "get" or exchange.outcome == "missing":
            (key,) = exchange.keys
            if exchange.outcome == "ok" and exchange.revision:
                self.known[key] = read(exchange.told, "value"), exchange.revision
            elif exchange.outcome == "missing":
                self.known.pop(key, None)


class FamilyDraw:
    """Draws requests for families.

    Args:
        random: by this.
        ttls: how long keys live by this: it changes nothing else that is drawn.
        next_value: returns a value that nobody has written.

    """

    def __init__(self, random: Random, ttls: Random, next_value: Callable[[], Any]) -> None:
        """See the class."""
        self._random = random
        self._ttls = ttls
        self._next_value = next_value
        self._makers: Mapping[str, Callable[[Family], Members]] = {
            "get": self._get,
            "set": self._set,
            "delete": self._delete,
            "cas": self._cas,
            "if_revision": self._if_revision,
            "incr": self._incr,
            "scan": self._scan,
            "txn": self._txn,
        }

    def request(self, family: Family) -> Members:
        """Return the members of a request, which asks for its revision, too."""
        (kind,) = self._random.choices(list(KINDS), list(KINDS.values()))
        members = self._makers[kind](family)
        for write in (members, *members.get("then", ()), *members.get("else", ())):
            if write["op"] in ("set", "cas", "incr") and self._ttls.random() < LIMITED:
                write["ttl"] = self._ttls.choice(TTLS_S)
        return {**members, "meta": True}

    def _register(self, family: Family) -> str:
        return family.prefix + self._random.choice(REGISTERS)

    def _counter(self, family: Family) -> str:
        return family.prefix + self._random.choice(COUNTERS)

    def _any(self, family: Family) -> str:
        return self._random.choice(family.keys)

    def _get(self, family: Family) -> Members:
        return {"op": "get", "key": self._any(family)}

    def _set(self, family: Family) -> Members:
        # Now and then a counter becomes a text, and can't be counted with until it is removed.
        key = self._register(family) if self._random.random() < 0.9 else self._counter(family)
        return {"op": "set", "key": key, "value": self._next_value()}

    def _delete(self, family: Family) -> Members:
        return {"op": "delete", "key": self._any(family)}

    def _cas(self, family: Family) -> Members:
        key = self._register(family)
        known = family.known.get(key)
        expected = {} if known is None else {"expected": known[0]}
        return {"op": "cas", "key": key, "value": self._next_value(), **expected}

    def _if_revision(self, family: Family) -> Members:
        key = self._register(family)
        condition = {"if_revision": self._revision(family, key)}
        if self._random.random() < 0.3:
            return {"op": "delete", "key": key, **condition}
        return {"op": "set", "key": key, "value": self._next_value(), **condition}

    def _revision(self, family: Family, key: str) -> int:
        return family.known[key][1] if key in family.known else 0

    def _incr(self, family: Family) -> Members:
        random = self._random
        by = {} if random.random() < 0.1 else {"by": random.choice((1, -1)) * random.randrange(1, BY_MAX)}
        key = self._counter(family) if random.random() < 0.9 else self._register(family)
        return {"op": "incr", "key": key, **by}

    def _scan(self, family: Family) -> Members:
        random = self._random
        scan: Members = {"op": "scan", "prefix": family.prefix}
        form = random.randrange(8)
        if form == 0:
            return {**scan, "count": True}
        if form == 1:
            scan["values"] = False
        if form in (2, 3):
            scan["limit"] = random.randint(1, 4)
        if random.random() < 0.3:
            scan["reverse"] = True
        if random.random() < 0.3:
            scan["after"] = self._any(family)
        return scan

    def _txn(self, family: Family) -> Members:
        random = self._random
        key = self._register(family)
        condition: Members = {"key": key}
        form = random.randrange(4)
        if form == 0 and key in family.known:
            condition["equals"] = family.known[key][0]
        elif form == 1:
            condition["revision"] = self._revision(family, key)
        else:
            condition["exists"] = random.random() < 0.7
        other = self._register(family)
        return {
            "op": "txn",
            "if": [condition] if random.random() < 0.8 else [],
            "then": random.choice((self._transfer, self._replace))(family, key),
            "else": random.choice(([], [{"op": "get", "key": other}], self._transfer(family, key))),
        }

    def _transfer(self, family: Family, key: str) -> list[Members]:
        """Move something from one counter to the other, and look at a register."""
        by = self._random.randrange(1, BY_MAX)
        source, target = (family.prefix + name for name in self._random.sample(COUNTERS, 2))
        return [
            {"op": "incr", "key": source, "by": -by},
            {"op": "incr", "key": target, "by": by},
            {"op": "get", "key": key},
        ]

    def _replace(self, family: Family, key: str) -> list[Members]:
        """Write two registers, and remove the third."""
        first, second, third = (family.prefix + name for name in self._random.sample(REGISTERS, 3))
        return [
            {"op": "set", "key": first, "value": self._next_value()},
            {"op": "get", "key": self._random.choice((key, first))},
            {"op": "set", "key": second, "value": self._next_value()},
            {"op": "delete", "key": third},
        ]


class FamilyRequests:
    """Draws what the core world's clients ask of a family: operations, as nodes take them.

    Args:
        random: by this.
        ttls: how long keys live by this.
        family: of it.
        name: of the client; its values begin with it.

    """

    def __init__(self, random: Random, ttls: Random, family: Family, name: str) -> None:
        """See the class."""
        self._family = family
        self._name = name
        self._values = 0
        self._draw = FamilyDraw(random, ttls, self._next_value)

    def query(self) -> AnyQuery:
        """Return something to read."""
        while not isinstance(operation := self._operation(), AnyQuery):
            pass
        return operation

    def write(self) -> AnyWrite:
        """Return something to write."""
        while not isinstance(operation := self._operation(), AnyWrite):
            pass
        return operation

    def _operation(self) -> Any:
        return parse_line(json.dumps(self._draw.request(self._family)).encode()).operation

    def _next_value(self) -> str:
        self._values += 1
        return f"{self._name}/{self._values}"
