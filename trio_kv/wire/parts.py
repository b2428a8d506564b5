"""The lists in a line that asks for a transaction: each operation in them is read as a line of its own would be."""

from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

import msgspec
from msgspec import UNSET, Raw
from msgspec.structs import astuple

from trio_kv.kv.nesting import NESTING_MAX, is_nested_deeper
from trio_kv.kv.operations.operation import KEY_BYTES_MAX, name_of
from trio_kv.kv.operations.txn import CONDITIONS_MAX, OPERATIONS_MAX, BranchOperation, Condition
from trio_kv.wire.client_sessions import Numbered
from trio_kv.wire.json_text import find_second
from trio_kv.wire.operations import BadRequestError, Request

PARTS: Final = ("if", "then", "else")

ELEMENTS_MAX: Final = max(CONDITIONS_MAX, OPERATIONS_MAX)

CONDITION_LOOKS_LIKE: Final = (
    'a condition looks like {"key": "snack", "equals": "chips"}, {"key": "snack", "revision": 7} or '
    '{"key": "snack", "exists": true}'
)

_ALLOWED: Final[tuple[type[Any], ...]] = get_args(BranchOperation)

_decode_list = msgspec.json.Decoder(list[Raw]).decode
_Longest = msgspec.defstruct(
    "_Longest", [(f"element_{place}", Raw, Raw()) for place in range(ELEMENTS_MAX + 1)], array_like=True
)
_decode_longest = msgspec.json.Decoder(_Longest).decode
"""Skips what is behind the first element too many: a line has room for half a million, each an object if it is kept."""

_decode_condition = msgspec.json.Decoder(Condition).decode


class PartError(ValueError):
    """A part of a transaction that can't be. The text says where it stands, what is wrong and what would be right."""

    def __init__(self, message: str, code: str = "bad_request") -> None:
        """Say it, and what to answer."""
        super().__init__(message)
        self.code = code


def read_parts(members: Mapping[str, Any], parse_line: Callable[[bytes], Request]) -> dict[str, Any]:
    """Return the members of a transaction with their lists read.

    Args:
        members: those of its line, in which the lists are texts, or empty where they were left out.
        parse_line: reads an operation as if it stood in a line alone.

    Raises:
        PartError: something in them can't be.

    """
    conditions = [_read_condition(each, f'"if"[{place}]') for place, each in _elements(members, "if")]
    branches = {
        name: tuple([_read_operation(each, f'"{name}"[{place}]', parse_line) for place, each in elements])
        for name, elements in ((name, _elements(members, name)) for name in ("then", "else"))
    }
    return {**members, "if": tuple(conditions), **branches}


def _elements(members: Mapping[str, Any], name: str) -> list[tuple[int, bytes]]:
    """Return the texts in a list, with their places."""
    text = members[name]
    if not len(text):
        return []
    try:
        if bytes(text).count(b",") < ELEMENTS_MAX:
            elements = _decode_list(text)
        else:
            elements = [each for each in astuple(_decode_longest(text)) if len(each)]
    except ValueError:
        raise PartError(f'"{name}" must be an array') from None
    most, what = (CONDITIONS_MAX, "conditions") if name == "if" else (OPERATIONS_MAX, "operations")
    if len(elements) > most:
        raise PartError(f'"{name}" has more than {most} {what}')
    return list(enumerate(map(bytes, elements)))


def _read_condition(text: bytes, where: str) -> Condition:
    try:
        condition = _decode_condition(text)
    except ValueError as error:
        raise PartError(f"{where}: {CONDITION_LOOKS_LIKE}: {error}") from None
    asked = [each for each in (condition.equals, condition.revision, condition.exists) if each is not UNSET]
    if len(asked) != 1:
        raise PartError(f'{where} needs one of "equals", "revision" and "exists": {CONDITION_LOOKS_LIKE}')
    second = find_second(text, {} if condition.equals is UNSET else {"equals": condition.equals})
    if second is not None:
        raise PartError(f"{where}: the member {second} stands twice")
    if is_nested_deeper(text, NESTING_MAX + 1):
        raise PartError(f'{where}: "equals" is nested too deep: at most {NESTING_MAX} levels')
    size = len(condition.key.encode())
    if not size:
        raise PartError(f'{where}: "key" is empty; it has 1 to {KEY_BYTES_MAX} bytes')
    if size > KEY_BYTES_MAX:
        raise PartError(f'{where}: "key" has {size} bytes; it may have {KEY_BYTES_MAX}', "too_large")
    return condition


def _read_operation(text: bytes, where: str, parse_line: Callable[[bytes], Request]) -> BranchOperation:
    try:
        request = parse_line(text)
    except BadRequestError as error:
        raise PartError(
            f"{where}: {error.message.replace('of the line', f'of {where}')}", error.code
        ) from None
    operation: Any = request.operation
    if type(operation) is Numbered:
        raise PartError(f'{where}: "session", "seq" and "done" belong to the whole txn')
    if type(operation) not in _ALLOWED:
        names = ", ".join(map(name_of, _ALLOWED))
        raise PartError(f'{where} is a "{operation.name}"; in a txn there may be {names}')
    if request != Request(operation):
        raise PartError(f'{where}: "id", "timeout", "consistency" and "meta" belong to the whole txn')
    found: BranchOperation = operation
    return found
