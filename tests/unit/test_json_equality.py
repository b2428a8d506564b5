"""Equality of JSON texts: the verdicts that the conditions of `cas` rest on."""

import json
from decimal import Decimal
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_kv.kv.equality import is_equal_json
from trio_kv.kv.nesting import NESTING_MAX, is_nested_deeper

LONG_EXPONENT = b"9" * 100_000


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"1", b"1.0"),
        (b"1", b"10e-1"),
        (b"1", b"0.001E+3"),
        (b"100", b"1e2"),
        (b"-0", b"0"),
        (b"0e999999999999999999999", b"-0.000"),
        (b"12345678901234567890123", b"12345678901234567890123.000"),
        (b"1e999999999", b"10e999999998"),
        (b"1e-999999999", b"0.1e-999999998"),
        (b"1e" + LONG_EXPONENT, b"0.1e1" + b"0" * len(LONG_EXPONENT)),
        (b"1e0000000000000000000000000001", b"10"),
        (b'"A"', b'"\\u0041"'),
        (b'"\xf0\x9f\x98\x80"', b'"\\ud83d\\ude00"'),
        (b'"/"', b'"\\/"'),
        (b'{"a":1,"b":[true,null]}', b'{ "b" : [ true , null ], "a" : 1.0 }'),
        (b'{"a":1,"a":2}', b'{"a":2}'),
        (b"[]", b" [ ] "),
        (b"null", b"null "),
    ],
)
def test_equal(first: bytes, second: bytes) -> None:
    """Texts that stand for the same value are equal, both ways round."""
    assert is_equal_json(first, second)
    assert is_equal_json(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"1", b"true"),
        (b"0", b"false"),
        (b"0", b"null"),
        (b"1", b'"1"'),
        (b"1", b"-1"),
        (b"10", b"1"),
        (b"0.1", b"1"),
        (b"12345678901234567890", b"12345678901234567891"),
        (b"0.1", b"0.1000000000000000055511151231257827"),
        (b"1e999999999", b"1e999999998"),
        (b"1e" + LONG_EXPONENT, b"1e" + LONG_EXPONENT[1:]),
        (b"1e" + LONG_EXPONENT, b"1e-" + LONG_EXPONENT),
        (b"1e" + LONG_EXPONENT, b"10e" + LONG_EXPONENT),
        (b"[1]", b"1"),
        (b"[]", b"{}"),
        (b'[false,"1",0]', b'[0,"1",0]'),
        (b"[1,2]", b"[2,1]"),
        (b'{"a":1}', b'{"a":1,"b":null}'),
        ('"é"'.encode(), '"e\u0301"'.encode()),
        (b'{"a":1,"a":2}', b'{"a":1}'),
    ],
)
def test_different(first: bytes, second: bytes) -> None:
    """Texts that stand for different values are not equal, both ways round."""
    assert not is_equal_json(first, second)
    assert not is_equal_json(second, first)


def test_number_is_equal_to_no_array() -> None:
    """The normal form of a number can't be written as a JSON array."""
    assert not is_equal_json(b"5", b'[false,"5",0]')


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b"[1,]", b'"\xff"', b"[" * 100_000])
def test_what_is_not_json_equals_only_itself(text: bytes) -> None:
    """A text that no door should have let in gets a verdict all the same: every node goes on."""
    assert is_equal_json(text, text)
    assert not is_equal_json(text, b"1")
    assert not is_equal_json(b"1", text)


def test_a_million_digits_are_compared_in_no_time() -> None:
    """The longest numbers that a line can hold cost milliseconds of processor time, not minutes."""
    digits = b"7" * 500_000
    begin = process_time()
    assert is_equal_json(digits + b".0", digits + b".00")
    assert not is_equal_json(b"1e" + digits, b"1e" + digits + b"1")
    assert process_time() - begin < 2


@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_nesting_is_counted_exactly(pair: str) -> None:
    """128 levels are not deeper than 128; 129 are; brackets inside strings don't count."""
    opening = pair[0] if pair == "[]" else '{"a":'
    deepest = opening * (NESTING_MAX - 1) + pair + pair[1] * (NESTING_MAX - 1)
    json.loads(deepest)
    assert not is_nested_deeper(deepest.encode(), NESTING_MAX)
    assert is_nested_deeper((opening + deepest + pair[1]).encode(), NESTING_MAX)
    wide = "[" + ",".join([deepest[len(opening) : -1]] * 50) + "]"
    assert not is_nested_deeper(wide.encode(), NESTING_MAX)
    text = json.dumps(["[{" * 1000, '\\"[[[' * 1000, {"}": "]"}])
    assert not is_nested_deeper(text.encode(), NESTING_MAX)


def test_deep_values_are_compared_whatever_the_stack() -> None:
    """The deepest value that the door lets in is compared as any other; a deeper one only byte for byte."""
    deepest = b"[" * NESTING_MAX + b"]" * NESTING_MAX
    assert is_equal_json(deepest, deepest.replace(b"[]", b"[ ]"))
    too_deep = b"[" + deepest + b"]"
    assert is_equal_json(too_deep, too_deep)
    assert not is_equal_json(too_deep, too_deep.replace(b"[]", b"[ ]"))


NUMBER = r"-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?"

numbers = st.from_regex(NUMBER, fullmatch=True)


@given(numbers, numbers)
def test_numbers_are_equal_when_their_decimals_are(first: str, second: str) -> None:
    """Two numbers are equal exactly when the decimal module says so."""
    assert is_equal_json(first.encode(), second.encode()) == (Decimal(first) == Decimal(second))


@given(numbers, st.integers(0, 30))
def test_moving_the_point_changes_nothing(number: str, places: int) -> None:
    """A number written with another exponent is the same number."""
    sign, digits, exponent = Decimal(number).as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)) + "0" * places
    moved = f"{'-' if sign else ''}{text.lstrip('0') or '0'}e{exponent - places}"
    assert is_equal_json(number.encode(), moved.encode())
