"""What should come of a transaction: its rules once more, as plainly as can be. Shares no code with `kv`."""

from collections.abc import Mapping

import attrs
import msgspec
from msgspec import UNSET

from trio_kv.check.json_equality import are_equal
from trio_kv.check.whole_numbers import add, is_whole
from trio_kv.kv.operations import Delete, Get, Incr, Set, Txn
from trio_kv.kv.operations.txn import BranchOperation, Condition

Held = tuple[bytes, int]
"""A value and its revision."""

COMPARED_BYTES_MAX = 64 * 1024
RESULTS_BYTES_MAX = 1024 * 1024


@attrs.define
class Transacted:
    """What came of a transaction."""

    code: str
    value: bytes | None = None
    """What is kept of the results; of a conflict what the key holds that can't be counted with."""
    source: tuple[str, int] = ("", 0)
    """The key that this is of, and its revision."""
    after: dict[str, Held | None] = attrs.field(factory=dict)
    """What became of keys; None: one is gone."""
    holds: bool = False
    """Whether all conditions held."""


def transact(items: Mapping[str, Held], txn: Txn, index: int) -> Transacted:
    """Return what comes of a transaction in entry `index`, applied to these keys."""
    holds = _do_all_hold(items, txn)
    branch = txn.then if holds else txn.otherwise
    done = Transacted("ok", source=("", index), holds=holds)
    kept: list[bytes] = []
    results_bytes = 0
    for operation in branch:
        key = operation.key
        held = done.after[key] if key in done.after else items.get(key)
        if isinstance(operation, Incr) and not _can_add(held, operation.by):
            assert held is not None
            return Transacted("conflict", held[0], (key, held[1]))
        code, told = _take_effect(operation, held, index, done.after)
        kept.append(b'["%b",%b]' % (code, told) if told is not None else b'["%b"]' % code)
        shown = bytes(operation.value) if isinstance(operation, Set) else told
        results_bytes += len(', {"key": , "value": , "status": ""}') + len(msgspec.json.encode(key))
        results_bytes += len(shown) + len("ok") if shown is not None else len("null") + len("error")
    if results_bytes > RESULTS_BYTES_MAX:
        return Transacted("too_large")
    done.value = b"[%b,[%b]]" % (b"true" if holds else b"false", b",".join(kept))
    return done


def _do_all_hold(items: Mapping[str, Held], txn: Txn) -> bool:
    left_bytes = COMPARED_BYTES_MAX
    for condition in txn.conditions:
        held = items.get(condition.key)
        if condition.equals is not UNSET and held is not None:
            size_bytes = len(held[0]) + len(condition.equals)
            if size_bytes > left_bytes:
                if held[0] != bytes(condition.equals):
                    return False
                continue
            left_bytes -= size_bytes
        if not _holds(condition, held):
            return False
    return True


def _holds(condition: Condition, held: Held | None) -> bool:
    if condition.exists is not UNSET:
        return condition.exists == (held is not None)
    if condition.revision is not UNSET:
        return condition.revision == (0 if held is None else held[1])
    assert condition.equals is not UNSET
    return held is not None and are_equal(held[0], bytes(condition.equals))


def _can_add(held: Held | None, by: int) -> bool:
    return held is None or (is_whole(held[0]) and is_whole(add(held[0], by)))


def _take_effect(
    operation: BranchOperation, held: Held | None, index: int, after: dict[str, Held | None]
) -> tuple[bytes, bytes | None]:
    """Return the code of a result, and the value that was found or made, if it has one."""
    key = operation.key
    match operation:
        case Get():
            return (b"missing", None) if held is None else (b"ok", held[0])
        case Set(value=value):
            after[key] = bytes(value), index
            return b"ok", None
        case Delete():
            if held is None:
                return b"missing", None
            after[key] = None
            return b"ok", held[0]
        case Incr(by=by):
            total = add(b"0" if held is None else held[0], by)
            after[key] = total, index
            return b"ok", total


def told_bytes_max(items: Mapping[str, Held], txn: Txn) -> int:
    """Return how many bytes the kept results may have, by the rule of the state machine."""
    both = (*txn.then, *txn.otherwise)
    telling = [each.key for each in both if not isinstance(each, Set)]
    conditions = [(each.key, b"" if each.equals is UNSET else bytes(each.equals)) for each in txn.conditions]
    writes = [(each.key, bytes(each.value) if isinstance(each, Set) else b"") for each in both]
    texts = sum(len(key) + len(text) for key, text in conditions + writes)
    held = sum(len(items[key][0]) for key in telling if key in items)
    return 16 * max(len(txn.then), len(txn.otherwise)) + held + (texts if telling else 0)
