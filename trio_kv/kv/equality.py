"""Equality of two JSON texts, as the conditions of `cas` mean it.

Strings are equal by code point, whichever way they are escaped; objects by their members, in any order;
numbers by their exact decimal value, so `1`, `1.0` and `10e-1` are one number, while `1e999999999` is told
apart from `1e999999998` without either being written out. Where an object inside a value repeats a member,
the last one counts, as in nearly every JSON library.

Every node must come to the same verdict, whatever the text: one that is not JSON, or is nested deeper than
the door lets in, equals only itself, byte for byte. Nothing here depends on how deep the caller's stack is.
"""

import json
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact

from trio_kv.kv.nesting import NESTING_MAX, is_nested_deeper

EXPONENT_DIGITS_MAX = 18
"""A longer exponent is a Decimal and not an int: Python refuses to read ints of more than 4,300 digits, and
takes quadratic time for long ones."""

Number = tuple[bool, str, int | Decimal]
"""Is it negative, its digits without zeros at either end, the power of ten of the last digit. One number has
one such form; a JSON array is a list and no other JSON value is a tuple, so it equals nothing else."""

_ZERO: Number = (False, "", 0)


def is_equal_json(first: bytes, second: bytes) -> bool:
    """Tell whether two JSON texts in UTF-8 stand for the same value; `msgspec.Raw` is welcome."""
    first, second = bytes(first), bytes(second)
    if first == second:
        return True
    if is_nested_deeper(first, NESTING_MAX) or is_nested_deeper(second, NESTING_MAX):
        return False
    try:
        values = [_decode(text.decode()) for text in (first, second)]
    except ValueError:
        return False
    return bool(values[0] == values[1])


def _read_number(text: str) -> Number:
    mantissa, _, exponent_text = text.lower().partition("e")
    whole, _, fraction = mantissa.removeprefix("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    significant = digits.rstrip("0")
    if not significant:
        return _ZERO
    shift = len(digits) - len(significant) - len(fraction)
    return mantissa.startswith("-"), significant, _add(exponent_text, shift)


def _add(exponent_text: str, shift: int) -> int | Decimal:
    """Return exponent + shift, exactly; a Decimal only where an int would not do."""
    digits = exponent_text.lstrip("+-").lstrip("0")
    is_negative = exponent_text.startswith("-")
    if len(digits) <= EXPONENT_DIGITS_MAX:
        exponent = int(digits or "0")
        return shift + (-exponent if is_negative else exponent)
    exact = Context(prec=len(digits) + EXPONENT_DIGITS_MAX, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact])
    return exact.add(Decimal(("-" if is_negative else "") + digits), Decimal(shift))


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


_decode = json.JSONDecoder(
    parse_float=_read_number, parse_int=_read_number, parse_constant=_refuse_constant
).decode
