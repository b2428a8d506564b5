"""Where the members of one JSON object stand, and what is wrong with it if it is none.

This is the slow and exact reader: it says of a line why it was refused and tells duplicate members. The fast
one is msgspec, in `wire.requests`. Positions are characters from 0 in here; people are told bytes from 1.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import attrs
import msgspec


class NumberText(str):
    """A number as it is written: nothing of it is lost, and no length of it is refused."""

    __slots__ = ()


@attrs.frozen
class Member:
    """One member of the object, decoded, and where it stands."""

    name: str
    at: int
    """Place of the name's opening quote."""
    value: Any
    start: int
    end: int
    """The value's text is `text[start:end]`."""


@attrs.frozen
class Problem:
    """Why a text is not one JSON object."""

    message: str
    at: int
    code: str = "bad_request"


class _ConstantError(Exception):
    """A word like NaN, which Python's reader takes for a number and JSON does not know."""


def read_members(text: str, members_max: int) -> tuple[list[Member], Problem | None]:
    """Return the first members of one JSON object, as far as they can be read, and what ended it early."""
    members: list[Member] = []
    place = _skip_space(text, 0)
    if not text.startswith("{", place):
        return members, _not_an_object(text, place)
    while True:
        place = _skip_space(text, place + 1)
        if not members and text.startswith("}", place):
            break
        outcome = _read_member(text, place)
        if isinstance(outcome, Problem):
            return members, outcome
        members.append(outcome)
        place = _skip_space(text, outcome.end)
        if text.startswith("}", place):
            break
        if len(members) == members_max:
            return members, None
        if not text.startswith(",", place):
            return members, _expected(text, place, "`,` or `}` after a member")
    place = _skip_space(text, place + 1)
    if place < len(text):
        return members, Problem("one line holds one JSON object, but more follows", place)
    return members, None


def find_second(line: bytes, texts: Mapping[str, msgspec.Raw]) -> str | None:
    """Return the name, as it is spelled, of a member that stands twice at the top of an object; None if there is none.

    It goes from name to name and takes as long as there are different ones: what lies between is compared, not read.

    Args:
        line: one JSON object in UTF-8 that was decoded.
        texts: of each member that may be any value: the text that was decoded, which is that of its last one.

    """
    seen: set[str] = set()
    place = 0
    while (member := _member.match(line, place)) is not None:
        name: str = msgspec.json.decode(member[1])
        text = texts.get(name)
        place = member.end()
        if text is None:
            scalar = _scalar.match(line, place)
            assert scalar is not None, f"no value at byte {place} of a line that was decoded"
            place = scalar.end()
        elif line.startswith(bytes(text), place):
            place += len(text)
        else:
            # So it is not the last of its name.
            return bytes(member[1]).decode()
        if name in seen:
            return bytes(member[1]).decode()
        seen.add(name)
    return None


def byte_of(text: str, place: int) -> int:
    """Return which byte of the line stands at a character; the first byte is 1."""
    return len(text[:place].encode()) + 1


def name_kind(value: object) -> str:
    """Return what a decoded JSON value is, in words."""
    match value:
        case NumberText():
            return "a number"
        case str():
            return "a string"
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case list():
            return "an array"
        case _:
            return "an object"


def find_lone_surrogate(text: str) -> int | None:
    r"""Return where an escape like `\ud800` stands without its other half; None if there is none."""
    awaited_at = None
    place_after = -1
    for escape in _escapes.finditer(text):
        code = int(escape[1] or "0", 16)
        is_second = awaited_at is not None and escape.start() == place_after and 0xDC00 <= code < 0xE000
        if awaited_at is not None and not is_second:
            return awaited_at
        if not is_second and 0xDC00 <= code < 0xE000:
            return escape.start()
        awaited_at = escape.start() if 0xD800 <= code < 0xDC00 else None
        place_after = escape.end()
    return awaited_at


def _read_member(text: str, place: int) -> Member | Problem:
    if not text.startswith('"', place):
        return _expected(text, place, 'a member\'s name in double quotes, like "key"')
    name, end = _read_value(text, place)
    if isinstance(name, Problem):
        return name
    colon = _skip_space(text, end)
    if not text.startswith(":", colon):
        return _expected(text, colon, "`:` after a member's name")
    start = _skip_space(text, colon + 1)
    value, end = _read_value(text, start)
    if isinstance(value, Problem):
        return value
    return Member(name, place, value, start, end)


def _read_value(text: str, place: int) -> tuple[Any, int]:
    """Return the decoded value and its end, or a Problem and where it is."""
    try:
        return _read(text, place)
    except json.JSONDecodeError as error:
        return Problem(f"not JSON: {_lower_first(error.msg).removesuffix(' at')}", error.pos), error.pos
    except _ConstantError as error:
        return Problem(f"not JSON: {error} is not a number", place), place
    except RecursionError:
        return Problem("nested too deep", place), place


def _not_an_object(text: str, place: int) -> Problem:
    if place == len(text):
        return Problem("the line is empty", place)
    value, _ = _read_value(text, place)
    what = "not JSON" if isinstance(value, Problem) else name_kind(value)
    return Problem(f'a request is one JSON object, like {{"key": "snack"}}; this is {what}', place)


def _expected(text: str, place: int, what: str) -> Problem:
    found = "the line ends" if place == len(text) else f"stands {json.dumps(text[place])}"
    return Problem(f"not JSON: expected {what}, but here {found}", place)


def _lower_first(message: str) -> str:
    return message[:1].lower() + message[1:]


def _skip_space(text: str, place: int) -> int:
    found = _space.match(text, place)
    assert found is not None
    return found.end()


def _refuse_constant(text: str) -> None:
    raise _ConstantError(text)


_space = re.compile(r"[ \t\n\r]*")
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_member = re.compile(rb"[ \t\n\r]*[{,][ \t\n\r]*(%b)[ \t\n\r]*:[ \t\n\r]*" % _STRING, re.DOTALL)
_scalar = re.compile(rb"%b|[^ \t\n\r,}]++" % _STRING, re.DOTALL)
_escapes = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|.)", re.DOTALL)
_read = json.JSONDecoder(
    parse_int=NumberText, parse_float=NumberText, parse_constant=_refuse_constant
).raw_decode
