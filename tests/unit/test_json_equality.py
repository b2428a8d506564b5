"""Equality of JSON texts: the verdicts that the conditions of `cas` rest on."""

import json
from decimal import Context, Decimal, localcontext
from time import process_time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_kv.check.json_equality import are_equal
from trio_kv.kv.equality import COMPARED_BYTES_MAX, is_equal_json
from trio_kv.kv.nesting import NESTING_MAX, is_nested_deeper

LONG_EXPONENT = b"9" * 15_000


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


def spread(text: bytes, size_bytes: int) -> bytes:
    """Return a text with white space behind it, so many bytes long."""
    return text + b" " * (size_bytes - len(text))


def test_what_exceeds_the_budget_is_equal_only_byte_for_byte() -> None:
    """Up to 64 KiB, stored and expected together, are compared as JSON; a byte more only byte for byte."""
    half = COMPARED_BYTES_MAX // 2
    for text, same, other in ((b"1", b"1.0", b"2"), (b'{"a":1,"b":2}', b'{"b":2,"a":1}', b'{"b":2,"a":2}')):
        assert is_equal_json(spread(text, half), spread(same, half))
        assert not is_equal_json(spread(text, half), spread(other, half))
        assert not is_equal_json(spread(text, half + 1), spread(same, half))
        assert not is_equal_json(spread(text, half), spread(same, half + 1))
        assert is_equal_json(spread(text, half + 1), spread(text, half + 1))
        assert not is_equal_json(same, spread(text, COMPARED_BYTES_MAX))
    assert is_equal_json(msgspec.Raw(b"7" * 1_000_000), b"7" * 1_000_000)
    assert COMPARED_BYTES_MAX == 65_536


WORST = [
    b"[" + b"1," * 16_000 + b"%d]",
    b"[" + b"1.1," * 8_000 + b"%d]",
    b"[" + b",".join(b"%d.5" % number for number in range(4_500)) + b",%d]",
    b"[" + b"1e999999999," * 2_700 + b"%d]",
    b"[" + b"1e9999999999999999999," * 1_400 + b"%d]",
    b"[" + b"true," * 6_000 + b"%d]",
    b"[" + b'"a",' * 8_000 + b"%d]",
    b"[" + b'"\\u0061",' * 3_200 + b"%d]",
    b"[" + b"[]," * 10_000 + b"%d]",
    b"[" * 127 + b"[]," * 10_000 + b"%d" + b"]" * 127,
    b"[" + (b"[" * 120 + b"]" * 120 + b",") * 130 + b"%d]",
    b"{" + b",".join(b'"%d":1' % number for number in range(3_000)) + b',"a":%d}',
    b"{" + b'"a":1,' * 5_000 + b'"a":%d}',
    b"7" * 30_000 + b".%d",
    b"1e" + b"7" * 30_000 + b"%d",
    b"0." + b"0" * 30_000 + b"%d",
]
"""Texts that take the longest of their kind: many numbers, members, levels, digits."""


@pytest.mark.parametrize("text", WORST, ids=range(len(WORST)))
def test_the_worst_texts_take_milliseconds(text: bytes) -> None:
    """No two texts within the budget hold up a node; where they differ in the last place, too."""
    best_s = 1.0
    for number in range(3):
        first, same, other = (
            spread(text % each, 32_700 + number) for each in (100 + number, 100 + number, 200 + number)
        )
        begin = process_time()
        assert not is_equal_json(first, other)
        assert is_equal_json(first + b" ", same)
        best_s = min(best_s, process_time() - begin)
    # Two comparisons; 64 KiB of numbers take 4 ms, as a rule less than 2 ms.
    assert best_s < 0.04


@pytest.mark.parametrize("digits", [0, 3, 9, 16, 17, 18, 19, 30, 5_000])
def test_exponents_of_any_length_are_told_apart(digits: int) -> None:
    """Also where a Decimal has no room for an exponent any more, and right before and behind that place."""
    for exponent in (10**digits, 10**digits - 1, 2 * 10**digits, -(10**digits), 2 * 10**digits + 1):
        written, above = str(Decimal(exponent)), str(Decimal(exponent) + 1)
        with localcontext(prec=digits + 9):
            moved = f"{Decimal(exponent) - 3:f}"
            above = f"{Decimal(exponent) + 1:f}"
            written = f"{Decimal(exponent):f}"
        assert is_equal_json(f"1.5e{written}".encode(), f"1500E{moved}".encode())
        assert is_equal_json(f"[0.0015e{written}]".encode(), f"[1.50e{moved} ]".encode())
        assert not is_equal_json(f"1.5e{written}".encode(), f"1.5e{above}".encode())
        assert not is_equal_json(f"1.5e{written}".encode(), f"-1.5e{written}".encode())
    assert is_equal_json(b"0e" + b"9" * (digits + 1), b"-0.0")


def test_numbers_do_not_depend_on_the_context_of_decimals() -> None:
    """Whatever precision and limits of exponents another part of the process has set for its own sums."""
    with localcontext(Context(prec=2, Emax=3, Emin=-3, traps=[])):
        assert is_equal_json(b"123456e100", b"1234.56e102")
        assert not is_equal_json(b"123456e100", b"123457e100")
        assert is_equal_json(b"12e1000000000000000000000", b"1.2e1000000000000000000001")


def test_booleans_are_no_numbers() -> None:
    """Also deep inside, and where names and strings look like them."""
    assert not is_equal_json(b'{"a":[1,true]}', b'{"a":[true,1]}')
    assert not is_equal_json(b'{"true":0}', b'{"true":false}')
    assert is_equal_json(b'{"true":[0,false]}', rb'{"tru\u0065":[0.0,false]}')


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


def write(value: Any, how: Any) -> str:
    """Return one of the texts of a value: numbers come as texts already, in tuples."""
    space = how.draw(st.sampled_from(["", "", " ", "\t", " \r\n"]))
    match value:
        case tuple():
            return str(value[0])
        case str():
            return "".join(
                f"\\u{ord(each):04x}"
                if how.draw(st.booleans()) and ord(each) < 65_536
                else json.dumps(each)[1:-1]
                for each in value
            ).join('""')
        case list():
            return "[" + ",".join(space + write(each, how) + space for each in value) + "]"
        case dict():
            members = how.draw(st.permutations(list(value.items())))
            if members and how.draw(st.booleans()):
                # The last one counts.
                members = [(members[-1][0], "other"), *members]
            return "{" + ",".join(f"{space}{write(k, how)}:{space}{write(v, how)}" for k, v in members) + "}"
        case _:
            return json.dumps(value)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.text('ab1"\\/\n\u00e9\U0001f600', max_size=3)
    | st.tuples(st.from_regex(r"-?(0|[1-9]0{0,2})(\.[01]{1,2})?([eE][+-]?[0-3]{1,2})?", fullmatch=True))
    | st.tuples(
        st.sampled_from(
            [
                "1e99999999999999999",
                "10e99999999999999998",
                "1e300000000000000000",
                "0.1e-7000000000000000000000",
            ]
        )
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.data(), values, values)
def test_same_verdicts_as_the_plain_rule(data: st.DataObject, first: Any, second: Any) -> None:
    """The rule as the judges have it comes to the same verdict, of a value written twice and of two values."""
    texts = [write(value, data).encode() for value in (first, first, second)]
    for one in texts:
        for other in texts:
            assert is_equal_json(one, other) == are_equal(one, other), (one, other)
    assert is_equal_json(texts[0], texts[1])


@given(st.text('[]{}",:1\\u0a tre', max_size=24), st.text('[]{}",:1\\u0a tre', max_size=24))
def test_same_verdicts_of_what_may_not_be_json(first: str, second: str) -> None:
    """So it does for texts that no door lets in."""
    for one, other in ((first, second), (first, first + " "), (first, first.replace("1", "1.0"))):
        assert is_equal_json(one.encode(), other.encode()) == are_equal(one.encode(), other.encode())
