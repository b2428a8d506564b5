"""Writes of unknown outcome: which of them took effect, as far as others were told of it.

A client that hears nothing does not know whether its write took effect. Others tell: whoever is told of a version, with
its revision, tells of its author; and whoever is told a sum, or the value that it removed, tells what the key must have
held, though nobody saw that version itself. Each key of a lost write is looked at alone here, for one of them may have
been overwritten before anybody saw it.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from trio_kv.check.exchange import Exchange, Members, read, read_list
from trio_kv.check.rules import State, Version, add

SUMMANDS_MAX = 32
"""Of lost increments of one key; to find out which of more took effect takes too long."""


class UndecidedError(Exception):
    """There are too many possibilities to try."""


@attrs.frozen(eq=False)
class Part:
    """What a lost write may have done to one key."""

    exchange: Exchange
    op: str
    members: Members

    @property
    def due_s(self) -> float:
        """The moment from which on what it has written may vanish by itself."""
        return self.exchange.call_s + float(read(self.members, "ttl", math.inf))


class LostWrites:
    """Those that may have taken effect, and those of them that did for all we know."""

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        """Know of some, in any order."""
        self._parts: dict[str, list[Part]] = defaultdict(list)
        self._by_key: dict[str, list[Exchange]] = defaultdict(list)
        self._used: set[int] = set()
        self.places: dict[Exchange, int] = {}
        """The revisions of those whose revision somebody was told."""
        for exchange in sorted(exchanges, key=lambda each: each.call_s):
            for key in exchange.keys:
                self._by_key[key].append(exchange)
            for part in _parts(exchange):
                self._parts[read(part.members, "key")].append(part)

    def authors(self, keys: Iterable[str], before_s: float) -> list[Exchange]:
        """Return those that name all these keys, were asked before, and did not take effect yet."""
        first, *others = [self._by_key.get(key, []) for key in keys]
        return [
            each
            for each in first
            if each.call_s < before_s
            and each not in self.places
            and all(each in other for other in others)
            and not any(id(part) in self._used for key in each.keys for part in self._of(each, key))
        ]

    def use(self, exchange: Exchange, revision: int) -> None:
        """Note that one of them took effect, at this revision."""
        self.places[exchange] = revision
        self._used.update(id(part) for key in exchange.keys for part in self._of(exchange, key))

    @property
    def keys(self) -> Iterable[str]:
        """The keys that they may have changed."""
        return self._parts

    def may_touch(self, key: str, before_s: float) -> bool:
        """Tell whether one of them may have changed a key by then."""
        return any(part.exchange.call_s < before_s for part in self._parts.get(key, ()))

    def sums(
        self, key: str, held: Version | None, version: Version, before_s: float, but: Exchange
    ) -> Version:
        """Return what a lost write left of a counter that nobody saw: it may have begun with nothing."""
        if (
            held is None
            or held.value is None
            or add(held.value, 0) is None
            or add(version.value or b"", 0) is None
        ):
            return version
        assert version.value is not None
        by = int(version.value) - int(held.value)
        parts = [part for part in self._open(key, before_s) if part.exchange is not but]
        may_be_gone = held.due_s <= before_s or any(
            part.op == "delete" or part.due_s <= before_s for part in parts
        )
        bases = {*held.others, *([b"0"] if may_be_gone else [])}
        others = {total for base in bases if (total := add(base, by)) is not None}
        return attrs.evolve(version, others=frozenset(others))

    def lead_to(
        self, key: str, held: Version | None, target: bytes | None, before_s: float, but: Exchange
    ) -> list[Part] | None:
        """Return lost writes that make of what a key held what it must have held; None if none do.

        Args:
            key: the key.
            held: what it held for all that is known; None: there is no such key.
            target: what somebody was told that it held; None: it was missing.
            before_s: when that was told.
            but: whose work it was not.

        Raises:
            UndecidedError: there are too many possibilities.

        """
        parts = [part for part in self._open(key, before_s) if part.exchange is not but]
        removers = [part for part in parts if part.op == "delete"]
        # What was written in between may have vanished, too: it counts as open still, as it may do its work later.
        dues = [part.due_s for part in parts if part.due_s <= before_s]
        has_vanished = bool(dues) or (held is not None and held.due_s <= before_s)
        if target is None:
            return [] if has_vanished else removers[:1] or None
        for part in parts:
            if part.op in ("set", "cas") and bytes(part.members["value"]) == target:
                return [part]
        # A lost removal, or its time, may have let a counter begin anew.
        bases = [b"0"] if held is None else [held.value or b"0", *sorted(held.others)]
        bases += [b"0"] if removers or has_vanished else []
        summands = [part for part in parts if part.op == "incr"]
        for base in bases:
            if add(base, 0) is not None and add(target, 0) is not None:
                by = [read(part.members, "by", 1) for part in summands]
                found = _find_sum(by, int(target) - int(base))
                if found is not None:
                    return [summands[place] for place in found]
        return None

    def note(self, parts: Iterable[Part]) -> None:
        """Note that these took effect."""
        self._used.update(id(part) for part in parts)

    def _open(self, key: str, before_s: float) -> list[Part]:
        return [
            part
            for part in self._parts.get(key, ())
            if part.exchange.call_s < before_s and id(part) not in self._used
        ]

    def _of(self, exchange: Exchange, key: str) -> list[Part]:
        return [part for part in self._parts.get(key, ()) if part.exchange is exchange]


def told_before(exchange: Exchange) -> Mapping[str, bytes | None]:
    """Return what keys must have held just before a write, as its reply tells; None: they were missing."""
    if exchange.op != "txn":
        return _told_before(exchange.op, exchange.asked, exchange.told, exchange.outcome)
    found: dict[str, bytes | None] = {}
    branch = read_list(exchange.asked, "then" if read(exchange.told, "succeeded") else "else")
    seen: set[str] = set()
    for operation, told in zip(branch, read_list(exchange.told, "results"), strict=False):
        key = read(operation, "key")
        op = read(operation, "op", "set" if "value" in operation else "get")
        outcome = "ok" if read(told, "status") == "ok" else read(told, "error", "missing")
        if key not in seen:
            found |= _told_before(op, operation, told, outcome)
        seen.add(key)
    return found


def told_after(
    exchange: Exchange, after: Mapping[str, bytes], succeeded: bool | None
) -> Mapping[str, bytes | None]:
    """Return what keys must have held before a write that left them so, as far as it tells.

    Args:
        exchange: the write.
        after: what it left.
        succeeded: whether the conditions of a transaction held; None: of one that is not known.

    """
    found: dict[str, bytes | None] = {}
    branches = () if succeeded is None else ("then",) if succeeded else ("else",)
    for part in _parts(exchange, branches):
        key = read(part.members, "key")
        if key in after:
            if part.op == "incr":
                found[key] = add(after[key], -read(part.members, "by", 1))
            elif part.op == "cas":
                found[key] = bytes(part.members["expected"]) if "expected" in part.members else None
            elif read(part.members, "if_revision") == 0:
                found[key] = None
    return found


def must_be_gone(exchange: Exchange, state: State, succeeded: bool | None) -> Mapping[str, None]:
    """Return keys that hold no number, and must have been missing when a write added to them.

    Args:
        exchange: the write.
        state: what keys hold for all that is known.
        succeeded: see `told_after`.

    """
    branches = () if succeeded is None else ("then",) if succeeded else ("else",)
    keys = [read(part.members, "key") for part in _parts(exchange, branches) if part.op == "incr"]
    return {key: None for key in keys if key in state and add(state[key].value or b"", 0) is None}


def _told_before(op: str, asked: Members, told: Members, outcome: str) -> dict[str, bytes | None]:
    key = read(asked, "key")
    if outcome == "missing":
        return {key: None}
    value = bytes(told.get("value", b"null"))
    match op:
        case "get" | "delete" if outcome == "ok":
            return {key: value}
        case "incr" if outcome == "ok":
            return {key: add(value, -read(asked, "by", 1))}
        case "cas" if outcome == "ok":
            return {key: bytes(asked["expected"]) if "expected" in asked else None}
        case _:
            return {key: None} if outcome == "ok" and read(asked, "if_revision") == 0 else {}


def _parts(exchange: Exchange, branches: Sequence[str] = ("then", "else")) -> Iterator[Part]:
    if exchange.op != "txn":
        yield Part(exchange, exchange.op, exchange.asked)
        return
    for branch in branches:
        for operation in read_list(exchange.asked, branch):
            op = read(operation, "op", "set" if "value" in operation else "get")
            if op != "get":
                yield Part(exchange, op, operation)


def _find_sum(summands: Sequence[int], total: int) -> list[int] | None:
    """Return the places of summands that make a total; None if none do.

    Raises:
        UndecidedError: there are too many of them.

    """
    if len(summands) > SUMMANDS_MAX:
        raise UndecidedError(f"{len(summands)} lost increments of one key")
    half = len(summands) // 2
    first, second = (_sums(part) for part in (summands[:half], summands[half:]))
    for reached, places in sorted(first.items(), key=lambda each: each[1].bit_count()):
        rest = second.get(total - reached)
        if rest is not None:
            chosen = places | rest << half
            return [place for place in range(len(summands)) if chosen >> place & 1]
    return None


def _sums(summands: Sequence[int]) -> dict[int, int]:
    """Return each sum that some of them make, and which do, as bits."""
    sums = {0: 0}
    for place, summand in enumerate(summands):
        sums = {reached + summand: places | 1 << place for reached, places in sums.items()} | sums
    return sums
