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

from msgspec import Raw

from trio_kv.kv.nesting import NESTING_MAX, is_nested_deeper
from trio_kv.wire.json_text import (
    Member,
    NumberText,
    Problem,
    byte_of,
    find_lone_surrogate,
    name_kind,
    read_members,
)
from trio_kv.wire.operations import ABSENT, KEY_BYTES_MAX, REVISION_MAX, TIMEOUT_S_MAX, BadRequestError

QUOTED_CHARACTERS_MAX: Final = 40
"""Characters of a client's own text that a message repeats."""

EXPLAINED_BYTES_MAX: Final = 8192
"""How much of a line is read to tell what is wrong with it: a key of any length is within that."""

EXPLAINED_MEMBERS_MAX: Final = 32
"""How many of its members: a request has a third of that."""

CAUSE_CHARACTERS_MAX: Final = 200
"""Characters that are told of what the fast reader said."""

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

COMMON: Final = ("id", "timeout", "consistency", "meta")
"""What every operation takes besides `op`."""

MEMBERS: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "get": ("key",),
        "set": ("key", "value", "if_revision"),
        "delete": ("key", "if_revision"),
        "cas": ("key", "value", "expected"),
        "ping": (),
        "status": (),
    }
)
"""What each operation takes besides that."""

ALL_MEMBERS: Final = ("op", *COMMON, *dict.fromkeys(name for names in MEMBERS.values() for name in names))

OPTIONAL: Final = ("if_revision", "expected")

OPS_TO_COME: Final = ("scan", "txn", "watch", "unwatch", "session", "auth")
MEMBERS_TO_COME: Final = (
    *("session", "seq", "done", "ttl"),
    *("prefix", "after", "limit", "if", "then", "else", "from", "token"),
)


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
    if name not in MEMBERS:
        return
    yield from _find_member_problems(name, op is not None, given)
    if is_whole:
        for wanted in MEMBERS[name]:
            if wanted not in given and wanted not in OPTIONAL:
                yield Problem(f'"{wanted}" is missing: a {name} looks like {_show(name)}', len(text) - 1)
    for member in given.values():
        yield from _find_type_problems(member)


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
    known = ", ".join(MEMBERS)
    if type(op.value) is not str:
        yield Problem(f'"op" must be a string, one of {known}, not {name_kind(op.value)}', op.start)
    elif op.value in OPS_TO_COME:
        yield Problem(f"the op {_quote(op.value)} is not supported yet; there are {known}", op.start)
    elif op.value not in MEMBERS:
        yield Problem(
            f"unknown op {_quote(op.value)}; there are {known}{_guess(op.value, MEMBERS)}", op.start
        )


def _find_member_problems(name: str, is_explicit: bool, given: Mapping[str, Member]) -> Iterator[Problem]:
    """Yield members that this operation does not take."""
    allowed = (*MEMBERS[name], *COMMON)
    for member in given.values():
        if member.name in allowed:
            continue
        takers = [op for op, taken in MEMBERS.items() if member.name in taken]
        if takers:
            hint = "" if is_explicit else f'; this is a {name}, as it has no "op"'
            yield Problem(
                f"{_quote(member.name)} belongs to {', '.join(takers)}, not to {name}{hint}", member.at
            )
        elif member.name in MEMBERS_TO_COME:
            yield Problem(f"the member {_quote(member.name)} is not supported yet", member.at)
        else:
            hint = f"; a {name} takes {', '.join(allowed)}{_guess(member.name, ALL_MEMBERS)}"
            yield Problem(f"unknown member {_quote(member.name)}{hint}", member.at)


def _find_type_problems(member: Member) -> Iterator[Problem]:
    """Yield what is wrong with the value of one member that the operation takes."""
    name, value, at = member.name, member.value, member.start
    match name:
        case "key" if type(value) is not str:
            yield Problem(f'"key" must be a string, not {name_kind(value)}', at)
        case "key" if not value:
            yield Problem(f'"key" is empty; it has 1 to {KEY_BYTES_MAX} bytes', at)
        case "key":
            length = len(value.encode())
            if length > KEY_BYTES_MAX:
                yield Problem(f'"key" has {length} bytes; it may have {KEY_BYTES_MAX}', at, "too_large")
        case "timeout" if type(value) is not NumberText:
            yield Problem(f'"timeout" must be a number of seconds, not {name_kind(value)}', at)
        case "timeout" if not 0 < float(value) <= TIMEOUT_S_MAX:
            yield Problem(f'"timeout" must be above 0 and at most {TIMEOUT_S_MAX:g} seconds', at)
        case "consistency" if value not in ("linearizable", "stale") or type(value) is not str:
            yield Problem('"consistency" must be "linearizable" or "stale"', at)
        case "meta" if type(value) is not bool:
            yield Problem(f'"meta" must be true or false, not {name_kind(value)}', at)
        case "if_revision" if type(value) is not NumberText:
            yield Problem(f'"if_revision" must be a whole number, not {name_kind(value)}', at)
        case "if_revision" if not _is_revision(value):
            yield Problem(
                f'"if_revision" must be a whole number from 0 to {REVISION_MAX}, in digits alone', at
            )
        case _:
            pass


def _is_revision(text: str) -> bool:
    digits = text.removeprefix("-") if text == "-0" else text
    return digits.isdecimal() and len(digits) <= len(str(REVISION_MAX)) and int(digits) <= REVISION_MAX


def _show(name: str) -> str:
    """Return what a request of this operation looks like."""
    examples = {"key": '"snack"', "value": '"chips"'}
    members = [f'"op": "{name}"'] if name not in ("get", "set") else []
    members += [f'"{member}": {examples[member]}' for member in MEMBERS[name] if member in examples]
    return "{" + ", ".join(members) + "}"


def _quote(text: str) -> str:
    """Return a client's own text, shortened, as it would stand in JSON."""
    is_long = len(text) > QUOTED_CHARACTERS_MAX
    return json.dumps(text[:QUOTED_CHARACTERS_MAX] + ("..." if is_long else ""))


def _guess(text: str, known: Sequence[str] | Mapping[str, object]) -> str:
    close = get_close_matches(text[:QUOTED_CHARACTERS_MAX], list(known), n=1)
    return f" (did you mean {_quote(close[0])}?)" if close else ""
