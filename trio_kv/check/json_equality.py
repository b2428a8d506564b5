"""When two JSON texts are equal: the rule once more, as plainly as it can be written.

An independent second opinion for `kv.equality`, with which it shares no code: every value is brought into a form with
its kind beside it, every number digit by digit.
"""

import json
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact
from typing import Any

COMPARED_BYTES_MAX = 64 * 1024
"""What two texts may have together; beyond it only the same bytes are equal."""

DEPTH_MAX = 128


class _Number(str):
    __slots__ = ()


def are_equal(first: bytes, second: bytes) -> bool:
    """Tell whether two texts stand for the same JSON value; one that is not JSON, or too deep, equals only itself."""
    if first == second:
        return True
    if len(first) + len(second) > COMPARED_BYTES_MAX:
        return False
    try:
        forms = [_form_of(_read(text)) for text in (first, second)]
    except ValueError:
        return False
    return bool(forms[0] == forms[1])


def _read(text: bytes) -> Any:
    depth = 0
    is_inside_string = is_escaped = False
    for character in text.decode():
        if is_inside_string:
            is_inside_string = is_escaped or character != '"'
            is_escaped = not is_escaped and character == "\\"
        elif character == '"':
            is_inside_string = True
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        if depth > DEPTH_MAX:
            raise ValueError("too deep")
    return json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_refuse)


def _refuse(text: str) -> None:
    raise ValueError(text)


def _form_of(value: Any) -> Any:
    match value:
        case None:
            return ("null",)
        case bool():
            return "boolean", value
        case _Number():
            return "number", _form_of_number(value)
        case str():
            return "string", value
        case list():
            return "array", [_form_of(each) for each in value]
        case _:
            return "object", {name: _form_of(each) for name, each in value.items()}


def _form_of_number(text: str) -> tuple[str, str, Decimal]:
    """Return the sign, the digits without zeros at either end, and the power of ten of the last of them."""
    sign = "-" if text.startswith("-") else "+"
    mantissa, _, exponent = text.lower().lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "+", "", Decimal(0)
    significant = digits.rstrip("0")
    # Exact, or an error: `int` would not read an exponent of some thousand digits.
    exact = Context(prec=len(text) + 30, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact])
    power = exact.add(Decimal(exponent or "0"), len(digits) - len(significant) - len(fraction))
    return sign, significant, power
