"""Equality of two JSON texts, as the conditions of `cas` mean it.

Strings are equal by code point, whichever way they are escaped; objects by their members, in any order;
numbers by their exact decimal value, so `1`, `1.0` and `10e-1` are one number, while `1e999999999` is told
apart from `1e999999998` without either being written out. Where an object inside a value repeats a member,
the last one counts, as in nearly every JSON library.

Every node must come to the same verdict, whatever the texts: one that is not JSON, or is nested deeper than
the door lets in, equals only itself, byte for byte. So do two that have more than `COMPARED_BYTES_MAX` together:
comparing takes time in proportion to them, on every node, and everybody's entries wait meanwhile. The verdict depends
on the two texts alone, and neither on how deep the caller's stack is nor on any setting of the process.

The work is done in C, by the readers of `json` and `decimal`. A Decimal is exact and takes time in proportion to its
digits, however large its exponent is, up to a limit; numbers beyond that are brought into a form of our own.
"""

import json
import re
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact
from functools import lru_cache
from typing import Any

from trio_kv.kv.nesting import NESTING_MAX, is_nested_deeper

COMPARED_BYTES_MAX = 65_536
"""Bytes that two texts may have together to be compared as JSON. A rule of the state machine: no option changes it."""

EXPONENT_DIGITS_MAX = len(str(MAX_EMAX)) - 1
"""Digits of an exponent that a Decimal takes, whatever stands before it: 17, or 8 where the machine has 32 bits."""

POWER_MAX = 2 * 10**EXPONENT_DIGITS_MAX
"""A number whose last digit other than 0 stands for a power of ten up to here is a Decimal, however it is written:
far enough beyond any short exponent, and within what a Decimal takes."""

DECODED_TEXTS_MAX = 8
"""Texts kept as they were decoded last: nodes of one process compare the same ones, and so do clients who try again."""

Number = Decimal | tuple[bool, str, Decimal]
"""A Decimal; beyond `POWER_MAX` whether it is negative, its digits without zeros at either end, and the power of ten of
the last digit. One number is told in one of the two ways only, and no other JSON value is a tuple."""


def is_equal_json(first: bytes, second: bytes) -> bool:
    """Tell whether two JSON texts in UTF-8 stand for the same value; `msgspec.Raw` is welcome."""
    if len(first) + len(second) > COMPARED_BYTES_MAX:
        return len(first) == len(second) and bytes(first) == bytes(second)
    first, second = bytes(first), bytes(second)
    if first == second:
        return True
    try:
        is_equal = bool(_decode(first) == _decode(second))
    except ValueError:
        return False
    # To Python True equals 1. Without their numbers the texts differ where one has a boolean and the other a number.
    if is_equal and (_boolean.search(first) or _boolean.search(second)):
        return bool(_decode_shape(first.decode()) == _decode_shape(second.decode()))
    return is_equal


@lru_cache(DECODED_TEXTS_MAX)
def _decode(text: bytes) -> Any:
    """Return the value of a text, in a form in which equal values are equal objects, but for booleans.

    Raises:
        ValueError: it is not JSON, or nested too deep.

    """
    if is_nested_deeper(text, NESTING_MAX):
        raise ValueError("nested too deep")
    decode = _decode_any if _long_exponent.search(text) else _decode_usual
    return decode(text.decode())


def _read_number(text: str) -> Number:
    """Return a number whose exponent may be of any length."""
    mantissa, _, exponent = text.lower().partition("e")
    if len(exponent.lstrip("+-0")) <= EXPONENT_DIGITS_MAX:
        return Decimal(text)
    whole, _, fraction = mantissa.removeprefix("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    significant = digits.rstrip("0")
    if not significant:
        return Decimal(0)
    exact = Context(prec=len(exponent) + 20, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact])
    power = exact.add(Decimal(exponent), len(digits) - len(significant) - len(fraction))
    is_negative = mantissa.startswith("-")
    if power.copy_abs() > POWER_MAX:
        return is_negative, significant, power
    return Decimal(f"{'-' if is_negative else ''}{significant}e{power:f}")


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


_boolean = re.compile(rb"true|false")
_long_exponent = re.compile(rb"[eE][+-]?0*[1-9][0-9]{%d}" % EXPONENT_DIGITS_MAX)
_decode_usual = json.JSONDecoder(
    parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse_constant
).decode
_decode_any = json.JSONDecoder(
    parse_float=_read_number, parse_int=Decimal, parse_constant=_refuse_constant
).decode
_nothing: dict[str, None] = {}
_decode_shape = json.JSONDecoder(parse_float=_nothing.get, parse_int=_nothing.get).decode
"""Reads every number as None, so that only the rest counts. `dict.get` is a function in C that does that."""
