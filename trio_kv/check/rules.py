"""What a request does to keys and what it is to be told: the rules of the protocol, once more, on its own texts.

They are written from the protocol alone, on the JSON of requests and replies, and share nothing with the house but
`check.json_equality`. `check.reference` says the same of entries of the log.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from trio_kv.check.exchange import Exchange, Members, read, read_list
from trio_kv.check.json_equality import are_equal

DIGITS_MAX = 18
"""Of a whole number that is counted with."""
LIMIT_MAX = 1_000


@attrs.frozen
class Version:
    """What a key holds since some revision."""

    revision: int
    value: bytes | None
    """None: there is no such key."""
    due_s: float = math.inf
    """It does not vanish by itself before this moment."""
    ttl_s: float = math.inf
    """How long it was to live, as far as that is known."""
    others: frozenset[bytes] = frozenset()
    """What else it may hold, as it was added to something that may have been gone by then."""
    is_guess: bool = False
    """Whether it is not known since when it does: this is the last revision that may be."""


State = Mapping[str, Version]
"""The keys that exist."""


@attrs.frozen
class Limit:
    """When a key ends, see `Version`."""

    due_s: float = math.inf
    ttl_s: float = math.inf


FOR_GOOD = Limit()


@attrs.frozen
class Due:
    """What comes of a request."""

    told: Mapping[str, Any]
    """What the reply must say, in the shape that `normalize` gives it."""
    changes: Mapping[str, Version]
    """What keys hold from here on."""

    def find_difference(self, exchange: Exchange) -> str | None:
        """Return in what a reply differs, if it does. What a reply may leave out is not missed."""
        given = normalize(exchange)
        for name, due in self.told.items():
            if name == "revision" and name not in given:
                continue
            if given.get(name) != due:
                return f"{name} {_words(given.get(name))} instead of {_words(due)}"
        return None


class _CannotError(Exception):
    """An operation of a transaction can't be carried out, so none is."""


def carry_out(
    exchange: Exchange,
    state: State,
    revision: int,
    *,
    rate: float = 1.0,
    succeeded: bool | None = None,
) -> Due:
    """Return what comes of a request after a state.

    Args:
        exchange: the request.
        state: the keys that it names at least, as far as they exist; all keys for a scan.
        revision: of the entry; of a query, of the last entry before it.
        rate: seconds of the cluster's time that pass in a second at most.
        succeeded: whether the conditions of a transaction held; None: the state says so.

    """
    if exchange.op == "scan":
        return Due(_scan(exchange, state, revision), {})
    now_s = exchange.call_s
    held = {key: state[key] for key in exchange.keys if key in state}
    work = _Work(held, revision, lambda ttl_s: Limit(now_s + ttl_s / rate, ttl_s))
    if exchange.op == "txn":
        try:
            told = work.transact(exchange.asked, succeeded)
        except _CannotError:
            return Due({"code": "conflict"}, {})
    else:
        told = work.do(exchange.op, exchange.asked)
    return Due(told, work.changes)


def normalize(exchange: Exchange) -> Mapping[str, Any]:
    """Return what a reply tells, with texts as bytes and lists as tuples."""
    told = exchange.told
    found: dict[str, Any] = {"code": exchange.outcome}
    if exchange.revision is not None:
        found["revision"] = exchange.revision
    if exchange.outcome == "conflict" and exchange.op == "txn":
        return found
    if "value" in told:
        found["value"] = _value_of(told)
    if "items" in told:
        found["items"] = tuple(
            (read(item, "key"), bytes(item["value"]) if "value" in item else None, read(item, "revision"))
            for item in read_list(told, "items")
        )
    if "results" in told:
        found["results"] = tuple(
            (_code_of(result), read(result, "key"), _value_of(result))
            for result in read_list(told, "results")
        )
    return found | {name: read(told, name) for name in ("more", "count", "succeeded") if name in told}


def _code_of(result: Members) -> str:
    return "ok" if read(result, "status") == "ok" else str(read(result, "error", "missing"))


def _value_of(told: Members) -> bytes | None:
    """Return the text of a value. In what is no `ok`, null stands for no value."""
    text = bytes(told.get("value", b"null"))
    return None if text == b"null" and _code_of(told) != "ok" else text


class _Work:
    """Keys while a request changes them."""

    def __init__(self, state: dict[str, Version], revision: int, limit: Callable[[float], Limit]) -> None:
        self._state = state
        self._revision = revision
        self._limit = limit
        self.changes: dict[str, Version] = {}

    def do(self, op: str, members: Members) -> dict[str, Any]:
        """Carry out one operation on a key; return what it is told."""
        key = read(members, "key")
        held = self._state.get(key)
        if self._is_refused(op, members, held):
            value, revision = (None, 0) if held is None else (held.value, held.revision)
            return {"code": "conflict", "value": value, "revision": revision}
        match op:
            case "get" | "delete" if held is None:
                return {"code": "missing", "value": None}
            case "get":
                assert held is not None
                return {"code": "ok", "value": held.value, "revision": held.revision}
            case "delete":
                assert held is not None
                self._put(key, None)
                return {"code": "ok", "value": held.value, "revision": self._revision}
            case "incr":
                value = add(
                    b"0" if held is None or held.value is None else held.value, read(members, "by", 1)
                )
                limit = FOR_GOOD if held is None else Limit(held.due_s, held.ttl_s)
            case _:
                value, limit = bytes(members["value"]), FOR_GOOD
        if "ttl" in members:
            limit = self._limit(read(members, "ttl"))
        self._put(key, value, limit)
        return {"code": "ok", "value": value, "revision": self._revision}

    def transact(self, members: Members, succeeded: bool | None) -> dict[str, Any]:
        """Carry out a transaction; return what it is told.

        Raises:
            _CannotError: an operation can't be carried out.

        """
        if succeeded is None:
            succeeded = all(self._holds(condition) for condition in read_list(members, "if"))
        results = []
        for operation in read_list(members, "then" if succeeded else "else"):
            told = self.do(read(operation, "op", "set" if "value" in operation else "get"), operation)
            if told["code"] == "conflict":
                raise _CannotError
            results.append((told["code"], read(operation, "key"), told["value"]))
        return {
            "code": "ok",
            "succeeded": succeeded,
            "results": tuple(results),
            "revision": self._revision,
        }

    def _holds(self, condition: Members) -> bool:
        held = self._state.get(read(condition, "key"))
        if "exists" in condition:
            return bool(read(condition, "exists")) == (held is not None)
        if "revision" in condition:
            return bool(read(condition, "revision") == (0 if held is None else held.revision))
        return (
            held is not None and held.value is not None and are_equal(held.value, bytes(condition["equals"]))
        )

    def _is_refused(self, op: str, members: Members, held: Version | None) -> bool:
        if op == "cas":
            expected = members.get("expected")
            if held is None or expected is None:
                return (held is None) != (expected is None)
            return held.value is None or not are_equal(held.value, bytes(expected))
        if op == "incr":
            text = b"0" if held is None or held.value is None else held.value
            return add(text, read(members, "by", 1)) is None
        wanted = read(members, "if_revision")
        return wanted is not None and wanted != (0 if held is None else held.revision)

    def _put(self, key: str, value: bytes | None, limit: Limit = FOR_GOOD) -> None:
        version = self.changes[key] = Version(self._revision, value, limit.due_s, limit.ttl_s)
        if value is None:
            del self._state[key]
        else:
            self._state[key] = version


def add(text: bytes, by: int) -> bytes | None:
    """Return the text of a whole number plus so much; None if either is no whole number that may be counted with."""
    digits = text.removeprefix(b"-")
    if not (digits.isdigit() and len(digits) <= DIGITS_MAX and (digits == b"0" or digits[:1] != b"0")):
        return None
    total = int(text) + by
    return b"%d" % total if abs(total) < 10**DIGITS_MAX else None


def keys_of(scan: Exchange, state: State) -> list[str]:
    """Return the keys that a scan is about, in its order."""
    asked = scan.asked
    prefix, after = read(asked, "prefix", ""), read(asked, "after")
    is_reverse = bool(read(asked, "reverse", False))
    keys = sorted((key for key in state if key.startswith(prefix)), reverse=is_reverse)
    if after is not None:
        keys = [key for key in keys if (key < after if is_reverse else key > after)]
    return keys


def _scan(scan: Exchange, state: State, revision: int) -> dict[str, Any]:
    asked, keys = scan.asked, keys_of(scan, state)
    told = {"code": "ok", "revision": revision}
    if read(asked, "count", False):
        return told | {"count": len(keys)}
    page = keys[: min(read(asked, "limit", LIMIT_MAX), LIMIT_MAX)]
    has_values = read(asked, "values", True)
    items = tuple((key, state[key].value if has_values else None, state[key].revision) for key in page)
    return told | {"items": items, "more": len(page) < len(keys)}


def _words(told: Any) -> str:
    if isinstance(told, bytes):
        return told.decode(errors="replace")
    if isinstance(told, tuple):
        return "[" + ", ".join(_words(each) for each in told) + "]"
    return "nothing" if told is None else str(told)
