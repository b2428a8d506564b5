"""Values on their way out: Python objects and typed texts to JSON, and nothing to something else in silence.

What goes in is what comes out again. So an object is taken only if JSON has the same thing; what some encoder
could make of it (null of nan, base64 of bytes, text of a date) is for the caller to say. And a text is JSON if it
is JSON for the store, whatever a number in it would be in Python. An instance of a class of attrs, msgspec or
dataclasses is an object with its members, for its class makes the same of it again (`ReplyLine.to`).
"""

import json
import math
from typing import Final, NoReturn

import msgspec

from trio_kv.wire.operations import NESTING_MAX, is_nested_deeper

BLANKS: Final = " \t\r\n"
"""White space around a JSON text. Other characters that look like it belong to a value."""

TOO_DEEP: Final = f"a value nests at most {NESTING_MAX} deep, and this one is deeper"

_HINTS: Final[dict[str, str]] = {
    "bytes": "decode it, or send base64 text",
    "bytearray": "decode it, or send base64 text",
    "memoryview": "decode it, or send base64 text",
    "set": "send a list, for example sorted(...)",
    "frozenset": "send a list, for example sorted(...)",
    "datetime": "send its isoformat()",
    "date": "send its isoformat()",
    "time": "send its isoformat()",
    "timedelta": "send its total_seconds()",
    "Decimal": "send msgspec.Raw(str(...).encode()) for the number with all its digits, or str(...)",
    "UUID": "send str(...)",
}
_OTHERWISE: Final = (
    "send dicts, lists, str, int, float, bool and None, an instance of a class of attrs, msgspec or dataclasses, "
    "or a msgspec.Raw with the JSON text"
)


class NotStorableError(ValueError):
    """Something that the store can't keep as it is; the message says why, and what would be right."""


class NotJsonError(NotStorableError, TypeError):
    """An object of a type that JSON has not. Encoders disagree on which of the two errors that is, so it is both."""


def encode_value(value: object) -> msgspec.Raw:
    """Return the JSON text of a value.

    Args:
        value: dicts with text as keys, lists (and tuples, which become lists), str, int, float, bool and None,
            at most 128 deep. A `msgspec.Raw` with JSON text may stand anywhere, and is sent as it is. So may an
            instance of a class of attrs, msgspec or dataclasses, as an object with its members.

    Raises:
        NotJsonError: JSON has no such thing; says where, and what would be right.
        ValueError: a float that is no number, a str with half a surrogate pair, something that is nested too
            deep, or a `msgspec.Raw` that holds something else than JSON.

    """
    try:
        return msgspec.Raw(msgspec.json.encode(_plain(value, "value", 0)))
    except UnicodeEncodeError as error:
        raise NotStorableError("a str in this value holds half a surrogate pair, which is no text") from error


def read_json(text: str) -> msgspec.Raw | None:
    """Return a text as the store would keep it, if it is JSON; None if it is not.

    Raises:
        UnicodeEncodeError: it can't be written in UTF-8.
        NotStorableError: it is JSON, but nested too deep or with half a surrogate pair.

    """
    data = text.encode()
    try:
        # As Raw a value is read over and not made: no number is too large, and no digit is lost.
        msgspec.json.decode(data, type=msgspec.Raw)
    except RecursionError:
        raise NotStorableError(TOO_DEEP) from None
    except ValueError:
        if _is_json_by_grammar(text):
            raise NotStorableError("it holds half a surrogate pair, which is no text") from None
        return None
    if is_nested_deeper(data, NESTING_MAX):
        raise NotStorableError(TOO_DEEP)
    return msgspec.Raw(data.strip(BLANKS.encode()))


def _is_json_by_grammar(text: str) -> bool:
    r"""Tell whether a text is JSON for a reader that minds no value: one that takes "\ud800", too."""
    try:
        _read(text.strip(BLANKS))
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


_read = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant).decode


def _plain(value: object, where: str, depth: int) -> object:
    """Return the value in the types that the encoder knows, after a look at all of it."""
    if isinstance(value, dict | list | tuple):
        if depth == NESTING_MAX:
            raise NotStorableError(TOO_DEEP)
        if isinstance(value, dict):
            return {
                _key(key, where): _plain(item, f"{where}[{_short(key)}]", depth + 1)
                for key, item in value.items()
            }
        return [_plain(item, f"{where}[{place}]", depth + 1) for place, item in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, msgspec.Raw):
        return _raw(value, where)
    for kind in (str, int, float):
        if isinstance(value, kind):
            # The encoder takes no subclasses, such as numpy.float64.
            return _finite(kind(value), where)
    if _is_record(value):
        return _plain(_members(value, where), where, depth)
    name = type(value).__name__
    raise NotJsonError(f"{where} is of the type {name}, which JSON has not: {_HINTS.get(name, _OTHERWISE)}")


def _is_record(value: object) -> bool:
    """Tell whether a value is an object with named members, as a JSON object is."""
    kind = type(value)
    return issubclass(kind, msgspec.Struct) or any(
        hasattr(kind, name) for name in ("__attrs_attrs__", "__dataclass_fields__")
    )


def _members(value: object, where: str) -> object:
    """Return the members of a record; inside it msgspec's rules hold, by which its class reads them back."""
    try:
        return msgspec.to_builtins(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJsonError(f"{where} is of the type {type(value).__name__}, and {error}") from error


def _finite(value: str | float, where: str) -> str | float:
    if isinstance(value, float) and not math.isfinite(value):
        raise NotStorableError(f"{where} is {value}, and JSON has no such number: send None or a str")
    return value


def _raw(value: msgspec.Raw, where: str) -> msgspec.Raw:
    text = read_json(bytes(value).decode())
    if text is None:
        raise NotStorableError(f"{where} is a msgspec.Raw that holds no JSON text")
    return text


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise NotJsonError(f"{where} has the key {key!r}: in JSON a key is a str, not {type(key).__name__}")
    return str(key)


def _short(key: object) -> str:
    text = repr(key)
    return text if len(text) <= 40 else f"{text[:40]}..."
