"""What a client sends for a Python object or for a typed text: the same thing, or nothing."""

import collections
import datetime as dt
import decimal
import enum
import math
import uuid
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_kv.client.values import NotStorableError, encode_value, read_json


class Color(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


class Exact(float):
    """As numpy.float64: a float by another name."""


class Name(str):
    __slots__ = ()


@attrs.frozen
class Point:
    x: Any


class Record(msgspec.Struct):
    x: Any


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@given(plain)
def test_what_json_has_comes_back_equal(value: object) -> None:
    """Dicts, lists, texts, numbers of any size, booleans and None survive the way there and back."""
    assert msgspec.json.decode(encode_value(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, (2,)), b"[1,[2]]"),
        (Exact(1.5), b"1.5"),
        (Level.HIGH, b"3"),
        ({Name("k"): Name("v")}, b'{"k":"v"}'),
        (collections.OrderedDict(b=1, a=2), b'{"b":1,"a":2}'),
        (Point(1), b'{"x":1}'),
        ({"a": [Record(1)]}, b'{"a":[{"x":1}]}'),
        (2**70, b"1180591620717411303424"),
        (msgspec.Raw(b" 1.10\n"), b"1.10"),
        ({"price": msgspec.Raw(b"1.10"), "big": msgspec.Raw(b"1e999")}, b'{"price":1.10,"big":1e999}'),
    ],
)
def test_what_is_the_same_by_another_name_is_sent(value: object, text: bytes) -> None:
    """Tuples become lists; subclasses are what they are made of; a Raw keeps its digits, wherever it stands."""
    assert bytes(encode_value(value)) == text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"x", "type bytes.*base64"),
        (bytearray(b"x"), "type bytearray.*base64"),
        (memoryview(b"x"), "type memoryview.*base64"),
        ({1, 2}, "type set.*sorted"),
        (frozenset(), "type frozenset.*sorted"),
        (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "type datetime.*isoformat"),
        (dt.date(2026, 1, 2), "type date.*isoformat"),
        (dt.time(3), "type time.*isoformat"),
        (dt.timedelta(1), "type timedelta.*total_seconds"),
        (decimal.Decimal("1.10"), "type Decimal.*msgspec.Raw"),
        (uuid.UUID(int=1), "type UUID.*str"),
        (Color.RED, "type Color.*send dicts"),
        (Point(object), "type Point, and .*"),
        (Record(object), "type Record, and .*"),
        (iter([1]), "type list_iterator.*send dicts"),
        (object, "type type.*send dicts"),
        ({1: 2}, "the key 1: in JSON a key is a str, not int"),
        ({None: 2}, "a key is a str, not NoneType"),
        ({True: 2}, "a key is a str, not bool"),
        ({"a": [1, {"b": b"x"}]}, r"value\['a'\]\[1\]\['b'\] is of the type bytes"),
    ],
)
def test_what_json_has_not_is_refused_with_a_hint(value: object, words: str) -> None:
    """Nothing is turned into something else in silence: the error says where it stands, and what to send."""
    with pytest.raises(TypeError, match=words) as caught:
        encode_value(value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "value is nan, and JSON has no such number"),
        ([1.5, math.inf], r"value\[1\] is inf"),
        ({"a": -math.inf}, r"value\['a'\] is -inf"),
        ("\ud800", "half a surrogate pair"),
        ({"\udfff": 1}, "half a surrogate pair"),
        ([10**5000], "limit"),
        (msgspec.Raw(b"{broken"), "holds no JSON"),
        (msgspec.Raw(b'1, "if_revision": 0'), "holds no JSON"),
        (msgspec.Raw(b"NaN"), "holds no JSON"),
        (msgspec.Raw(b"\xff"), "utf-8"),
        ([msgspec.Raw(b"")], r"value\[0\] is a msgspec.Raw that holds no JSON"),
    ],
)
def test_what_is_no_value_is_refused(value: object, words: str) -> None:
    """Floats that are no numbers, texts that are none, and a Raw that would say something else."""
    with pytest.raises(ValueError, match=words):
        encode_value(value)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_a_value_nests_so_deep_and_no_deeper() -> None:
    """128 levels are the store's limit; a list that holds itself has no end."""
    assert bytes(encode_value(nested(128))) == b"[" * 128 + b"]" * 128
    endless: list[Any] = []
    endless.append(endless)
    for value in (nested(129), endless):
        with pytest.raises(ValueError, match="at most 128 deep"):
            encode_value(value)


@pytest.mark.parametrize(
    "text",
    [
        "1e999",
        '{"limit": 1e400}',
        "9" * 5000,
        "-" + "9" * 5000,
        "1." + "0" * 400,
        "[" * 128 + "]" * 128,
        '"\u2028"',
    ],
)
def test_json_is_json_whatever_a_number_would_be_in_python(text: str) -> None:
    """A text that the store takes as JSON is kept as it stands."""
    value = read_json(f" {text}\r\n")
    assert value is not None
    assert bytes(value).decode() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "chips",
        "NaN",
        "[NaN]",
        "Infinity",
        "01",
        "+1",
        "1_000",
        "{broken",
        "'x'",
        "7 8",
        "\u00a07",
        "\ufeff7",
        '"\t"',
    ],
)
def test_what_is_no_json_is_told_so(text: str) -> None:
    """Also what Python's own reader takes, and what only looks like white space around a number."""
    assert read_json(text) is None


@pytest.mark.parametrize(
    "text", ["[" * 129 + "]" * 129, "[" * 100_000 + "]" * 100_000, '{"a":' * 200 + "1" + "}" * 200]
)
def test_json_that_is_nested_too_deep_is_no_string(text: str) -> None:
    """It is refused, however deep it is: as a string it would be another value."""
    with pytest.raises(NotStorableError, match="at most 128 deep"):
        read_json(text)


@pytest.mark.parametrize("text", [r'"\ud800"', r'{"a": "\udc00x"}', r'[1e999, "\ud800\ud800"]'])
def test_json_with_half_a_surrogate_pair_is_no_string(text: str) -> None:
    """JSON's grammar has it and the store has not, so it is neither."""
    with pytest.raises(NotStorableError, match="surrogate"):
        read_json(text)
