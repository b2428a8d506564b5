"""Why a line is not a request, in words for the person who wrote it.

Runs only on lines that were refused already: it finds the reason, says at which byte it stands (the first is
1) and what would be right, and saves key and id for the reply where they can be read. The checks stand in the
order in which a person would want to hear of them.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import Raw, inspect

from trio_kv.kv.nesting import NESTING_MAX, is_nested_deeper
from trio_kv.kv.operations.operation import KEY_BYTES_MAX, WriteOperation
from trio_kv.wire.client_sessions import NUMBERING, OpenOrRenew
from trio_kv.wire.json_text import (
    Member,
    NumberText,
    Problem,
    byte_of,
    find_lone_surrogate,
    name_kind,
    read_members,
)
from trio_kv.wire.operations import (
    ABSENT,
    KEY_TEXTS,
    OPERATIONS,
    BadRequestError,
    CommonMembers,
    WriteMembers,
)

QUOTED_CHARACTERS_MAX: Final = 40
"""Characters of a client's own text that a message repeats."""

EXPLAINED_BYTES_MAX: Final = 8192
"""How much of a line is read to tell what is wrong with it: a key of any length is within that."""

EXPLAINED_MEMBERS_MAX: Final = 32
"""How many of its members: a request has a third of that."""

CAUSE_CHARACTERS_MAX: Final = 200
"""Characters that are told of what the fast reader said."""


def _fields_of(kind: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    description = inspect.type_info(kind)
    assert isinstance(description, inspect.StructType)
    return description.fields


BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

COMMON: Final = CommonMembers.__struct_fields__
"""What every operation takes besides `op`."""

FIELDS: Final[Mapping[str, Mapping[str, inspect.Field]]] = MappingProxyType(
    {name: {each.encode_name: each for each in _fields_of(kind)} for name, kind in OPERATIONS.items()}
)
"""What each operation takes besides that."""

COMMON_FIELDS: Final = {each.name: each for each in _fields_of(CommonMembers)}
NUMBERING_FIELDS: Final = {each.name: each for each in _fields_of(WriteMembers) if each.name in NUMBERING}
NUMBERED: Final = frozenset(
    {
        name
        for name, kind in OPERATIONS.items()
        if issubclass(kind, WriteOperation) and kind is not OpenOrRenew
    }
)
"""The operations that a client may put into a session of its own."""
NUMBERS_WRITES: Final = '"session", "seq" and "done" number the writes of a session;'

ALL_MEMBERS: Final = (
    "op",
    *COMMON,
    *NUMBERING,
    *dict.fromkeys(name for names in FIELDS.values() for name in names),
)

OPS_TO_COME: Final[tuple[str, ...]] = ()
MEMBERS_TO_COME: Final[tuple[str, ...]] = ()


_unknown = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_missing = re.compile(r"Object missing required field `(\w+)`")
_other_kind = re.compile(r"Expected `object`, got `(\w+)`")
_malformed = re.compile(r"JSON is malformed: (.*) \(byte ([0-9]+)\)")


def explain(line: bytes, cause: str, code: str = "bad_request") -> BadRequestError:
    """Return the error that says why a refused line is no request.

    A line is looked into as far as `EXPLAINED_BYTES_MAX` and `EXPLAINED_MEMBERS_MAX`: everybody waits meanwhile. Where
    the reason lies behind that, it is told in the words of the fast reader.

    Args:
        line: the line.
        cause: what the fast reader said.
        code: what to answer if there is no more to tell than that.

    """
    text, encoding_problem = _decode(line)
    members, problem = read_members(text, EXPLAINED_MEMBERS_MAX)
    is_whole = len(line) <= EXPLAINED_BYTES_MAX and len(members) < EXPLAINED_MEMBERS_MAX
    if len(line) > EXPLAINED_BYTES_MAX:
        # It may be the cut that has broken it.
        problem = None
    problem = problem or next(_find_problems(text, members, is_whole=is_whole), None)
    if encoding_problem is not None:
        message = f"{encoding_problem.message} (byte {encoding_problem.at + 1} of the line)"
        return BadRequestError("bad_request", message, *_find_echo(text, members))
    if problem is None:
        return BadRequestError(code, _retell(cause), *_find_echo(text, members))
    message = f"{problem.message} (byte {byte_of(text, problem.at)} of the line)"
    return BadRequestError(problem.code, message, *_find_echo(text, members))


def _retell(cause: str) -> str:
    """Return what the fast reader said, in our words, and without repeating a client's own at length."""
    unknown = _unknown.fullmatch(cause)
    if unknown is not None:
        return f"unknown member {_quote(unknown[1])}"
    missing = _missing.fullmatch(cause)
    if missing is not None:
        return f'"{missing[1]}" is missing'
    other = _other_kind.fullmatch(cause)
    if other is not None:
        return f'a request is one JSON object, like {{"key": "snack"}}; this is of the kind {other[1]}'
    malformed = _malformed.fullmatch(cause)
    if malformed is not None:
        return f"not JSON: {malformed[1]} (byte {int(malformed[2]) + 1} of the line)"
    if cause == "Input data was truncated":
        return "not JSON: the line ends too early, or a string ends in half of a surrogate pair"
    is_long = len(cause) > CAUSE_CHARACTERS_MAX
    return f"not a request: {cause[:CAUSE_CHARACTERS_MAX]}{'...' if is_long else ''}"


def _decode(line: bytes) -> tuple[str, Problem | None]:
    """Return the text of a line, as far as it is UTF-8 and is explained; its problem stands at a byte."""
    if line.startswith(BYTE_ORDER_MARK):
        return "", Problem("the line begins with a byte order mark (EF BB BF); send UTF-8 without one", 0)
    valid, problem = line, None
    try:
        line.decode()
    except UnicodeDecodeError as error:
        valid = line[: error.start]
        problem = Problem(f"the line is not UTF-8: {error.reason}", error.start)
    # Only a character that the cut has broken is ignored.
    return valid[:EXPLAINED_BYTES_MAX].decode(errors="ignore"), problem


def _find_echo(text: str, members: Sequence[Member]) -> tuple[str | None, Raw]:
    """Return the key and the text of the id for the reply, where there is one that can be said again."""
    key: str | None = None
    id_text = ABSENT
    for name in ("key", "id"):
        found = [member for member in members if member.name == name]
        if len(found) != 1 or _find_value_problem(text, found[0]) is not None:
            continue
        if name == "id":
            id_text = Raw(text[found[0].start : found[0].end])
        elif type(found[0].value) is str:
            key = found[0].value
    return key, id_text


def _find_problems(text: str, members: Sequence[Member], *, is_whole: bool) -> Iterator[Problem]:
    """Yield what is wrong with a line that is a JSON object; of one that is cut, whatever may follow."""
    for member in members:
        problem = _find_value_problem(text, member)
        if problem is not None:
            yield problem
    given: dict[str, Member] = {}
    for member in members:
        if member.name in given:
            yield Problem(f"the member {_quote(member.name)} stands twice", member.at)
        given[member.name] = member
    op = given.pop("op", None)
    if op is not None:
        yield from _find_op_problems(op)
        name = str(op.value)
    elif is_whole:
        name = "set" if "value" in given else "get"
    else:
        # An `op` or a value may follow: only what no operation takes is known to be wrong.
        given = {each: member for each, member in given.items() if each not in ALL_MEMBERS}
        name = "set"
    if name not in FIELDS:
        return
    yield from _find_member_problems(name, op is not None, given)
    if is_whole:
        yield from _find_missing(name, given, len(text) - 1)
    for member in given.values():
        field = (
            FIELDS[name].get(member.name)
            or COMMON_FIELDS.get(member.name)
            or NUMBERING_FIELDS.get(member.name)
        )
        if field is not None:
            yield from _find_type_problems(member, field.type)


def _find_value_problem(text: str, member: Member) -> Problem | None:
    """Return what no JSON value of a request may be; None if this one is fine."""
    value_text = text[member.start : member.end]
    surrogate = find_lone_surrogate(text[member.at : member.end])
    if surrogate is not None:
        half = text[member.at + surrogate :][:6]
        return Problem(
            f"{half} is half of a surrogate pair and no character: send both halves, or the character itself",
            member.at + surrogate,
        )
    if is_nested_deeper(value_text.encode(), NESTING_MAX):
        return Problem(
            f"{_quote(member.name)} is nested too deep: at most {NESTING_MAX} levels", member.start
        )
    return None


def _find_op_problems(op: Member) -> Iterator[Problem]:
    known = ", ".join(OPERATIONS)
    if type(op.value) is not str:
        yield Problem(f'"op" must be a string, one of {known}, not {name_kind(op.value)}', op.start)
    elif op.value in OPERATIONS:
        return
    elif op.value in OPS_TO_COME:
        yield Problem(f"the op {_quote(op.value)} is not supported yet; there are {known}", op.start)
    else:
        guess = _guess(op.value, OPERATIONS)
        yield Problem(f"unknown op {_quote(op.value)}; there are {known}{guess}", op.start)


def _find_member_problems(name: str, is_explicit: bool, given: Mapping[str, Member]) -> Iterator[Problem]:
    """Yield members that this operation does not take."""
    allowed = (*FIELDS[name], *COMMON, *(NUMBERING if name in NUMBERED else ()))
    for member in given.values():
        if member.name in allowed:
            continue
        if member.name in NUMBERING:
            yield Problem(f"{NUMBERS_WRITES} {with_article(name)} takes no {_quote(member.name)}", member.at)
            continue
        takers = [op for op, taken in FIELDS.items() if member.name in taken]
        if takers:
            hint = "" if is_explicit else f'; this is {with_article(name)}, as it has no "op"'
            yield Problem(
                f"{_quote(member.name)} belongs to {', '.join(takers)}, not to {name}{hint}", member.at
            )
        elif member.name in MEMBERS_TO_COME:
            yield Problem(f"the member {_quote(member.name)} is not supported yet", member.at)
        else:
            hint = f"; {with_article(name)} takes {', '.join(allowed)}{_guess(member.name, ALL_MEMBERS)}"
            yield Problem(f"unknown member {_quote(member.name)}{hint}", member.at)


def _find_missing(name: str, given: Mapping[str, Member], at: int) -> Iterator[Problem]:
    """Yield members without which this operation can't be."""
    for wanted in FIELDS[name].values():
        if wanted.required and wanted.encode_name not in given:
            yield Problem(
                f'"{wanted.encode_name}" is missing: {with_article(name)} looks like {_show(name)}', at
            )
    if name in NUMBERED and any(member in given for member in NUMBERING):
        for member in ("session", "seq"):
            if member not in given:
                yield Problem(f'"{member}" is missing: {NUMBERS_WRITES} "done" alone may be left out', at)


def _find_type_problems(member: Member, kind: inspect.Type) -> Iterator[Problem]:
    """Yield what is wrong with the value of one member, which should be of this kind."""
    name, value, at = f'"{member.name}"', member.value, member.start
    match kind:
        case inspect.Metadata():
            yield from _find_type_problems(member, kind.type)
        case inspect.StrType() if type(value) is not str:
            yield Problem(f"{name} must be a string, not {name_kind(value)}", at)
        case inspect.StrType() if member.name in KEY_TEXTS:
            yield from _find_key_problems(member.name, value, at)
        case inspect.StrType(max_length=int(most)) if not 0 < len(value) <= most:
            yield Problem(f"{name} has {len(value)} characters; it has 1 to {most}", at)
        case inspect.FloatType() if type(value) is not NumberText:
            yield Problem(f"{name} must be a number of seconds, not {name_kind(value)}", at)
        case inspect.FloatType(ge=least, le=most):
            yield from _find_range_problems(name, float(value), least, most or 0, at)
        case inspect.LiteralType(values) if type(value) is not str or value not in values:
            yield Problem(f"{name} must be {' or '.join(map(_quote, map(str, values)))}", at)
        case inspect.BoolType() if type(value) is not bool:
            yield Problem(f"{name} must be true or false, not {name_kind(value)}", at)
        case inspect.IntType() if type(value) is not NumberText:
            yield Problem(f"{name} must be a whole number, not {name_kind(value)}", at)
        case inspect.IntType(ge=int(least), le=int(most)) if not _is_whole(value, least, most):
            yield Problem(f"{name} must be a whole number from {least} to {most}, in digits alone", at)
        case inspect.VarTupleType() if type(value) is not list:
            yield Problem(f"{name} must be an array, not {name_kind(value)}", at)
        case _:
            pass


def _find_range_problems(
    name: str, seconds: float, least: float | None, most: float, at: int
) -> Iterator[Problem]:
    if least is None and not 0 < seconds <= most:
        yield Problem(f"{name} must be above 0 and at most {most:g} seconds", at)
    if least is not None and not least <= seconds <= most:
        yield Problem(f"{name} must be {least:g} to {most:.15g} seconds", at)


def _find_key_problems(name: str, key: str, at: int) -> Iterator[Problem]:
    length = len(key.encode())
    if not length and name == "key":
        yield Problem(f'"key" is empty; it has 1 to {KEY_BYTES_MAX} bytes', at)
    if length > KEY_BYTES_MAX:
        yield Problem(f'"{name}" has {length} bytes; it may have {KEY_BYTES_MAX}', at, "too_large")


def _is_whole(text: str, least: int, most: int) -> bool:
    digits = text.removeprefix("-")
    return digits.isdecimal() and len(digits) <= len(str(most)) and least <= int(text) <= most


def with_article(name: str) -> str:
    """Return the name of an operation, with the article that it has in a sentence."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _show(name: str) -> str:
    """Return what a request of this operation looks like."""
    members = [f'"op": "{name}"'] if name not in ("get", "set") else []
    for each in FIELDS[name].values():
        if each.required:
            assert isinstance(each.type, inspect.Metadata), f"{each} has no example"
            example = (each.type.extra_json_schema or {})["examples"][0]
            members += [f'"{each.encode_name}": {json.dumps(example)}']
    return "{" + ", ".join(members) + "}"


def _quote(text: str) -> str:
    """Return a client's own text, shortened, as it would stand in JSON."""
    is_long = len(text) > QUOTED_CHARACTERS_MAX
    return json.dumps(text[:QUOTED_CHARACTERS_MAX] + ("..." if is_long else ""))


def _guess(text: str, known: Sequence[str] | Mapping[str, object]) -> str:
    close = get_close_matches(text[:QUOTED_CHARACTERS_MAX], list(known), n=1)
    return f" (did you mean {_quote(close[0])}?)" if close else ""
