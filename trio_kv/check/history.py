"""What clients asked and were told, as JSON lines: `docs/histories.md` describes the format.

A history is what a run leaves for those who judge it: `check.linearizability`, `check.picture`, and checkers that are
not ours. It holds one `Operation` for each request that is about one register, or one `check.exchange.Exchange` for a
request of any kind, with the moments of its call and its return on one clock, and what was done to the cluster
meanwhile, for people who look for a reason.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
import msgspec
from msgspec import UNSET

from trio_kv.check.exchange import Exchange, decode_exchange, encode_exchange
from trio_kv.kv.operations import KeyOperation, Set

FORMAT_VERSION = 2
"""Version 1 had no exchanges."""

_HEADER = {"history": "trio_kv", "version": FORMAT_VERSION}
_TEXTS = ("value", "expected", "result")

OUTCOMES: Mapping[str, frozenset[str]] = {
    "get": frozenset({"ok", "missing", "unknown", "failed"}),
    "set": frozenset({"ok", "unknown", "failed"}),
    "delete": frozenset({"ok", "missing", "unknown", "failed"}),
    "cas": frozenset({"ok", "conflict", "unknown", "failed"}),
}
"""Which outcomes each kind of operation can have."""


@attrs.frozen
class Operation:
    """One request and its outcome. Values are JSON text, compared byte by byte.

    A client has one operation under way at a time; one whose outcome is unknown is under way for ever, and the
    client goes on.

    Raises:
        ValueError: it contradicts itself; the message says what would be right.

    """

    client: int
    op: str
    """get, set, delete or cas."""
    key: str
    call_s: float
    """When it was asked, on the one clock of the history."""
    return_s: float | None
    """When it was answered; None if it never was."""
    outcome: str
    """ok; missing: there was no such key; conflict: the key held something else than `expected`; unknown: it may or
    may not have taken effect, or may yet; failed: it had no effect and never will."""
    value: bytes | None = None
    """What a set or cas writes."""
    expected: bytes | None = None
    """What a cas compares with; None: the key must not exist."""
    result: bytes | None = None
    """What came back: of a get the value, of a delete the old value, of a conflict the current value. None: nothing,
    and of a conflict: there is no such key."""
    node: int = 0
    """Who answered; 0 if that is not known."""

    @property
    def end_s(self) -> float:
        """Until when it is drawn."""
        return self.call_s if self.return_s is None else self.return_s

    def __attrs_post_init__(self) -> None:
        problem = _find_problem(self)
        if problem is not None:
            raise ValueError(problem)


@attrs.frozen
class Fault:
    """Something done to the cluster, for the picture; verdicts don't depend on it."""

    fault: str
    """In words, like `partition 1 2 | 3`."""
    from_s: float
    to_s: float | None
    """None: to the end."""


Drawn = Operation | Exchange
"""What has a call, an end and an outcome."""


@attrs.frozen
class History:
    """All operations and exchanges of a run, in any order, and its faults."""

    operations: tuple[Operation, ...]
    faults: tuple[Fault, ...] = ()
    exchanges: tuple[Exchange, ...] = ()


class HistoryError(ValueError):
    """A line is not of the format; the message names it and says what would be right."""


def what_is_asked(operation: KeyOperation) -> dict[str, Any]:
    """Return the members that say what an operation of the store asks for."""
    members = {"op": operation.name, "key": operation.key}
    if isinstance(operation, Set) and operation.if_revision == 0:
        # Only if there is no such key: a cas that expects nothing.
        members["op"] = "cas"
    texts = {name: getattr(operation, name, UNSET) for name in ("value", "expected")}
    return members | {name: bytes(text) for name, text in texts.items() if text is not UNSET}


class RisingClock:
    """Makes the moments of a history differ, so that no order between its events gets lost.

    A simulated clock stands still while much happens. Events with equal times count as concurrent, which is
    never wrong but lets stale answers pass. One instance is shared by all clients of a run.
    """

    def __init__(self) -> None:
        """Begin before every moment."""
        self._last_s = -math.inf

    def stamp(self, now_s: float) -> float:
        """Return `now_s`, or the next number above the last stamp if that is later."""
        self._last_s = max(now_s, math.nextafter(self._last_s, math.inf))
        return self._last_s


def encode_history(
    operations: Iterable[Operation | Exchange], faults: Iterable[Fault] = ()
) -> Iterator[bytes]:
    """Yield the lines of a history, each with its end of line.

    Raises:
        ValueError: a value holds an end of line, so it can't stand in one.

    """
    yield _line(_HEADER)
    for fault in faults:
        yield _line({"fault": fault.fault, "from_s": fault.from_s, "to_s": fault.to_s})
    for operation in operations:
        yield encode_operation(operation)


def encode_operation(operation: Operation | Exchange) -> bytes:
    """Return one line, with its end: for those who write while the run goes on. The header comes first.

    Raises:
        ValueError: a value holds an end of line.

    """
    if isinstance(operation, Exchange):
        return encode_exchange(operation)
    members: dict[str, Any] = {
        "client": operation.client,
        "op": operation.op,
        "key": operation.key,
        "call_s": operation.call_s,
        "return_s": operation.return_s,
        "outcome": operation.outcome,
        "node": operation.node,
    }
    for name in _TEXTS:
        text = getattr(operation, name)
        if text is not None:
            if b"\n" in text or b"\r" in text:
                raise ValueError(
                    f"the {name} of {operation} holds an end of line; write it as one line of JSON"
                )
            members[name] = msgspec.Raw(text)
    return _line(members)


def decode_history(lines: Iterable[bytes | str]) -> History:
    """Read a history back; empty lines are passed over.

    Raises:
        HistoryError: a line is not of the format; the message names it and says what would be right.

    """
    records: list[Operation | Exchange | Fault] = []
    is_begun = False
    for number, line in enumerate(lines, 1):
        text = line.encode() if isinstance(line, str) else line
        if not text.strip():
            continue
        try:
            if not is_begun:
                _read_header(_read_members(text))
                is_begun = True
                continue
            records.append(_read_record(_read_members(text)))
        except ValueError as error:
            raise HistoryError(f"line {number}: {error}") from error
    if not is_begun:
        raise HistoryError(f"no line at all; a history begins with {_line(_HEADER).decode().strip()}")
    return History(
        tuple(record for record in records if isinstance(record, Operation)),
        tuple(record for record in records if isinstance(record, Fault)),
        tuple(record for record in records if isinstance(record, Exchange)),
    )


_MEMBERS = {
    "client": int,
    "op": str,
    "key": str,
    "call_s": float,
    "return_s": float | None,
    "outcome": str,
    "node": int,
}
_FAULT_MEMBERS = {"fault": str, "from_s": float, "to_s": float | None}
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _line(members: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(members) + b"\n"


def _read_members(text: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _decode_members(text)
    except msgspec.DecodeError as error:
        raise ValueError(f"each line is one JSON object; {error}") from error


def _read_header(members: Mapping[str, msgspec.Raw]) -> None:
    """Check the first line. More members may stand in it, for whoever wrote the history."""
    for name, due in _HEADER.items():
        found = bytes(members.get(name, b"nothing")).decode(errors="replace")
        if (name, found) != ("version", "1") and found != msgspec.json.encode(due).decode():
            header = _line(_HEADER).decode().strip()
            raise ValueError(f"a history begins with {header}, but {name} is {found}")


def _read_record(members: Mapping[str, msgspec.Raw]) -> Operation | Exchange | Fault:
    if "fault" in members:
        return Fault(**_read_plain(members, _FAULT_MEMBERS, optional=("to_s",)))
    if "request" in members:
        return decode_exchange(members)
    texts = {name: bytes(members[name]) for name in _TEXTS if name in members}
    rest = {name: raw for name, raw in members.items() if name not in texts}
    found = _read_plain(rest, _MEMBERS, optional=("return_s", "node"))
    return Operation(**found | texts)


def _read_plain(
    members: Mapping[str, msgspec.Raw], kinds: Mapping[str, Any], optional: tuple[str, ...]
) -> dict[str, Any]:
    strange = sorted(set(members) - set(kinds))
    if strange:
        known = ", ".join((*kinds, *(_TEXTS if kinds is _MEMBERS else ())))
        raise ValueError(f"there is no member {strange[0]}; known are {known}")
    found: dict[str, Any] = {"return_s": None} if kinds is _MEMBERS else {"to_s": None}
    for name, kind in kinds.items():
        if name in members:
            try:
                found[name] = msgspec.json.decode(members[name], type=kind)
            except msgspec.DecodeError as error:
                raise ValueError(f"{name}: {error}") from error
        elif name not in optional:
            raise ValueError(f"the member {name} is missing")
    return found


def _find_problem(operation: Operation) -> str | None:
    """Return how an operation contradicts itself, and what would be right."""
    op, outcome = operation.op, operation.outcome
    outcomes = OUTCOMES.get(op)
    if outcomes is None:
        return f"op is {op!r}, not one of {', '.join(OUTCOMES)}"
    if outcome not in outcomes:
        return f"the outcome of a {op} is {outcome!r}, not one of {', '.join(sorted(outcomes))}"
    if (operation.value is not None) != (op in ("set", "cas")):
        return f"a {op} {'needs a' if operation.value is None else 'has no'} value"
    if operation.expected is not None and op != "cas":
        return f"a {op} has no expected"
    return _find_problem_of_answer(operation)


def _find_problem_of_answer(operation: Operation) -> str | None:
    op, outcome, result = operation.op, operation.outcome, operation.result
    if outcome == "ok" and op in ("get", "delete"):
        if result is None:
            return f"a {op} that is ok needs its result; of a missing key the outcome is missing"
    elif result is not None and outcome != "conflict":
        return f"a {op} with outcome {outcome} has no result"
    if not math.isfinite(operation.call_s):
        return f"call_s is {operation.call_s}, not a moment"
    if operation.return_s is None:
        if outcome not in ("unknown", "failed"):
            return f"return_s is missing, though the outcome {outcome} is known"
    elif not operation.call_s <= operation.return_s < math.inf:
        return f"return_s {operation.return_s} is before call_s {operation.call_s}, or not a moment"
    return None
