"""One line of the client protocol, both ways: bytes to a request, a request to bytes.

A line is decoded by msgspec, which is fast and strict; what it leaves out is checked here: that the text
inside values is UTF-8 (a `msgspec.Raw` is skipped over, not read), that no member stands twice, how deep
values are nested, how long a key is. A line that fails anywhere is read a second time by `wire.refusals`, slowly and
as far as that takes no time to speak of, to tell a person what is wrong. So the verdict is always that of the fast way.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Union

import msgspec
from msgspec import UNSET, Meta, Raw
from msgspec.structs import asdict, fields

from trio_kv.kv.nesting import NESTING_MAX, is_nested_deeper
from trio_kv.kv.operations import Get, Set, Txn
from trio_kv.kv.operations.operation import KEY_BYTES_MAX, Operation, WriteOperation
from trio_kv.wire.client_sessions import NUMBERING, Numbered, OpenOrRenew, Seq
from trio_kv.wire.json_text import find_second
from trio_kv.wire.operations import (
    ABSENT,
    KEY_TEXTS,
    OPERATIONS,
    TIMEOUT_S_DEFAULT,
    CommonMembers,
    Consistency,
    Request,
    WriteMembers,
)
from trio_kv.wire.parts import PartError, read_parts
from trio_kv.wire.refusals import NUMBERS_WRITES, explain, with_article

GET_OVERHEAD_BYTES = len('{"key":""}')
SET_OVERHEAD_BYTES = len('{"key":"","value":}')
MEMBER_BYTES_MIN = len('"key":"",')
"""The shortest member that could stand in a base line a second time."""

LINE_NESTING_MAX = NESTING_MAX + 1
"""The request itself is one level around its values."""

NESTED_TOO_DEEP = f"nested too deep: at most {NESTING_MAX} levels"

NAME_BYTES_MAX = 256
"""Of an id that goes out again and again."""

KEY_CHARACTERS_SURE = KEY_BYTES_MAX // 4
"""A key of so many characters is within its limit, whichever they are."""


class _BaseLine(msgspec.Struct, forbid_unknown_fields=True):
    """The two requests that every client knows."""

    key: str
    value: Raw = ABSENT


class _PlainLine(msgspec.Struct, forbid_unknown_fields=True):
    """The same, with a key of which no more needs to be known, and what often stands beside it."""

    key: Annotated[str, Meta(min_length=1, max_length=KEY_CHARACTERS_SURE)]
    value: Raw = ABSENT
    id: Raw = ABSENT
    consistency: Consistency | msgspec.UnsetType = UNSET
    meta: bool | msgspec.UnsetType = UNSET
    session: str | msgspec.UnsetType = UNSET
    seq: Seq | msgspec.UnsetType = UNSET
    done: Seq | msgspec.UnsetType = UNSET


def _make_line(kind: type[Operation], needed: Collection[str], **tag: Any) -> Any:
    """Return the class of lines with the members of an operation and the common ones.

    A member that is left out has its default, or UNSET where the operation needs it.
    """
    members: list[Any] = []
    for each in fields(kind):
        if kind is Txn:
            members.append((each.encode_name, Raw, ABSENT))
        elif each.name in needed:
            members.append((each.encode_name, each.type))
        else:
            default = UNSET if each.required else each.default
            members.append((each.encode_name, each.type | msgspec.UnsetType, default))
    is_numbered = issubclass(kind, WriteOperation) and kind is not OpenOrRenew
    name, bases = (
        f"{kind.__name__}Line",
        (WriteMembers if is_numbered else CommonMembers,),
    )
    return msgspec.defstruct(name, members, bases=bases, kw_only=True, forbid_unknown_fields=True, **tag)


_KINDS: Mapping[type, type[Operation]] = {
    _make_line(kind, [each.name for each in fields(kind) if each.required], tag_field="op", tag=name): kind
    for name, kind in OPERATIONS.items()
}
"""What is asked for by a line with `op`, by the line's class."""

_ImplicitLine = _make_line(Set, ("key",))
"""A line without `op`: a set if it has a value, else a get, which takes no condition."""

_decode_base = msgspec.json.Decoder(_BaseLine).decode
_decode_plain = msgspec.json.Decoder(_PlainLine).decode_lines
_decode_implicit: Callable[[bytes], Any] = msgspec.json.Decoder(_ImplicitLine).decode
_decode_op: Callable[[bytes], Any] = msgspec.json.Decoder(Union[tuple(_KINDS)]).decode  # noqa: UP007 - made of a tuple
_encode = msgspec.json.Encoder().encode
_http = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI) ")
_OP_FIRST = (b'{"op"', b'{ "op"')


def parse_line(line: bytes) -> Request:
    r"""Return the request that a line holds. Its texts are copies: the receive buffer may be reused.

    Args:
        line: one line, not blank, without its `\n`; the framing sees to its length.

    Raises:
        BadRequestError: the line is not a request; it says what to answer.

    """
    if not line.startswith(b'{"key"'):
        return _parse_any(line)
    try:
        base = _decode_base(line)
    except (ValueError, RecursionError):
        plain = parse_chunk(line + b"\n")
        return plain[0] if plain else _parse_any(line)
    key, value = base.key, base.value
    # What the line holds besides key and value is too short for a second `key` or `value` to stand in it.
    # Escapes and letters beyond ASCII only make the key shorter than its text: they never hide a member.
    is_set = len(value) > 0
    spare = len(line) - len(key) - len(value)
    least = SET_OVERHEAD_BYTES if is_set else GET_OVERHEAD_BYTES
    if not line.isascii():
        _check_encoding(line)
    if spare >= least + MEMBER_BYTES_MIN and line.count(b":") > 1 + is_set:
        _check_duplicates(line, {"value": value})
    if len(line) > 2 * LINE_NESTING_MAX and is_nested_deeper(line, LINE_NESTING_MAX):
        raise explain(line, NESTED_TOO_DEEP)
    if not key or len(key) > KEY_CHARACTERS_SURE:
        _check_key(line, key)
    return Request(Set(key, value.copy()) if is_set else Get(key))


def parse_chunk(chunk: bytes) -> list[Request] | None:
    r"""Return the requests of many whole lines, if each is a plain one; None: they have to be looked at one by one.

    It is there for speed alone, for pipelines of the two base requests, numbered ones among them: what `parse_line`
    makes of each line is always right. Texts are copies here as well.

    Args:
        chunk: some lines, each with its `\n`.

    """
    if not _has_an_object_a_line(chunk) or b"[" in chunk or b"\\" in chunk or not chunk.isascii():
        return None
    try:
        lines = _decode_plain(chunk)
    except (ValueError, RecursionError):
        return None
    requests, members = [], len(lines)
    for line in lines:
        key, value = line.key, line.value
        operation: Set | Get | Numbered
        if len(value):
            members += 1
            operation = Set(key, value.copy())
            if line.session is not UNSET and line.seq is not UNSET:
                members += 2 + (line.done is not UNSET)
                operation = Numbered(operation, line.session, line.seq, line.done)
        else:
            operation = Get(key)
        if line.consistency is UNSET and line.meta is UNSET and not len(line.id):
            requests.append(Request(operation))
        else:
            members += (line.consistency is not UNSET) + (line.meta is not UNSET) + bool(len(line.id))
            is_stale, meta = line.consistency == "stale", line.meta is True
            requests.append(Request(operation, line.id.copy(), TIMEOUT_S_DEFAULT, is_stale, meta))
    return requests if _has_members(chunk, lines, members) else None


def _has_an_object_a_line(chunk: bytes) -> bool:
    """Return whether objects begin where lines begin, and nowhere else. No string of JSON holds a line break."""
    count = chunk.count(b"\n")
    return chunk.startswith(b"{") and chunk.count(b"\n{") == count - 1 and chunk.count(b"{") == count


def _has_members(chunk: bytes, lines: Sequence[_PlainLine], members: int) -> bool:
    """Return whether lines without escapes have so many members, and none a second time, which no object shows."""
    colons = chunk.count(b":")
    if colons != members:
        texts = [line.value for line in lines] + [line.id for line in lines]
        colons -= sum([bytes(text).count(b":") for text in texts]) + sum(
            [line.key.count(":") for line in lines]
        )
    return colons == members


def encode_request(request: Request) -> bytes:
    """Return the line that asks for a request, with its end; `parse_line` reads back the same request.

    The texts of values must be JSON. A line break between the tokens of one becomes a space: in a line it
    would end the request.
    """
    operation, numbering = request.operation, []
    if isinstance(operation, Numbered):
        numbers = [(name, getattr(operation, name)) for name in NUMBERING]
        numbering = [
            b'"%b": %b' % (name.encode(), _encode(value)) for name, value in numbers if value is not UNSET
        ]
        operation = operation.operation
    pieces = [] if isinstance(operation, Get | Set) else [b'"op": ' + _encode(operation.name)]
    for member, name in zip(operation.__struct_fields__, operation.__struct_encode_fields__, strict=True):
        value = getattr(operation, member)
        if value is not UNSET:
            text = _one_line(value) if isinstance(value, Raw) else _encode(value)
            pieces.append(b'"%b": %b' % (name.encode(), text))
    pieces += numbering
    if len(request.id):
        pieces.append(b'"id": ' + _one_line(request.id))
    if request.timeout != TIMEOUT_S_DEFAULT:
        pieces.append(b'"timeout": ' + _encode(request.timeout))
    if request.is_stale:
        pieces.append(b'"consistency": "stale"')
    if request.meta:
        pieces.append(b'"meta": true')
    return b"{" + b", ".join(pieces) + b"}\n"


def is_http(line: bytes) -> bool:
    """Tell whether a first line begins with an HTTP method: then it is a web page that is trying to write."""
    return _http.match(line) is not None


def _parse_any(line: bytes) -> Request:
    """Return the request of a line that is not one of the two plain ones."""
    _check_encoding(line)
    try:
        decoded = _decode_any(line)
    except RecursionError:
        raise explain(line, NESTED_TOO_DEEP) from None
    except ValueError as error:
        raise explain(line, str(error)) from None
    members = asdict(decoded)
    texts = {name: text for name, text in members.items() if type(text) is Raw and len(text)}
    kind = _KINDS.get(type(decoded))
    # Each member takes a colon. Where there are no more colons than members that were found, none stands twice.
    key = members.get("key")
    if line.count(b":") > len(texts) + (type(key) is str) + (kind is not None):
        _check_duplicates(line, texts)
    if kind is not Txn and is_nested_deeper(line, LINE_NESTING_MAX):
        raise explain(line, NESTED_TOO_DEEP)
    _check_key_texts(line, members)
    # Cut out of the line, which nothing has to keep in memory then.
    for name, text in texts.items():
        members[name] = text.copy()
    operation = _make_operation(line, kind, members)
    problem = operation.find_problem()
    if operation.needs_id and not 0 < len(members["id"]) <= NAME_BYTES_MAX:
        problem = f'{operation.name} needs an "id" of at most {NAME_BYTES_MAX} bytes, which names the watch'
    if problem is not None:
        raise explain(line, problem)
    if isinstance(decoded, WriteMembers):
        operation = _number(line, operation, decoded)
    is_stale = members["consistency"] == "stale"
    return Request(operation, members["id"], members["timeout"], is_stale, members["meta"])


def _make_operation(line: bytes, kind: type[Operation] | None, members: Mapping[str, Any]) -> Any:
    """Return the operation that has these members; without a kind it is a set or a get."""
    if kind is None:
        kind = Get if members["value"] is UNSET else Set
        if kind is Get and any(members[name] is not UNSET for name in Set.__struct_fields__[1:]):
            raise explain(line, "a condition without a value")
    if kind is Txn:
        try:
            members = read_parts(members, parse_line)
        except PartError as error:
            raise explain(line, str(error), error.code) from None
    return kind(*[members[name] for name in kind.__struct_encode_fields__])


def _number(line: bytes, operation: Any, members: WriteMembers) -> Any:
    """Return an operation in the session of its client, if the line says that it is of one."""
    session, seq, done = members.session, members.seq, members.done
    if session is UNSET and seq is UNSET and done is UNSET:
        return operation
    if not isinstance(operation, WriteOperation):
        raise explain(line, f"{NUMBERS_WRITES} {with_article(operation.name)} takes none")
    if session is UNSET or seq is UNSET:
        raise explain(line, "session and seq stand together")
    write: Any = operation
    return Numbered(write, session, seq, done)


def _decode_any(line: bytes) -> Any:
    """Return the decoded line. `op` may stand anywhere, spelled with escapes, so both ways are tried.

    Raises:
        ValueError: neither way; it says what is wrong in the way that fits the line better.

    """
    is_op_first = line.startswith(_OP_FIRST)
    try:
        return _decode_op(line) if is_op_first else _decode_implicit(line)
    except ValueError as error:
        first = error
    try:
        return _decode_implicit(line) if is_op_first else _decode_op(line)
    except ValueError as second:
        has_op = is_op_first or "`op`" in str(first)
        raise (first if has_op == is_op_first else second) from None


def _check_encoding(line: bytes) -> None:
    """Refuse a line that is not UTF-8 throughout."""
    if line.isascii():
        return
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise explain(line, str(error)) from None


def _check_duplicates(line: bytes, texts: Mapping[str, Raw]) -> None:
    """Refuse a line with a member twice at the top; see `find_second`."""
    second = find_second(line, texts)
    if second is not None:
        raise explain(line, f"the member {second} stands twice")


def _check_key_texts(line: bytes, members: Mapping[str, Any]) -> None:
    """Refuse what is too long for a key, or no key where one must be."""
    for name in KEY_TEXTS:
        if type(members.get(name)) is str:
            _check_key(line, members[name], name)


def _check_key(line: bytes, key: str, name: str = "key") -> None:
    """Refuse a key that is empty or too long, or what keys are compared with if it is too long."""
    if not key and name == "key":
        raise explain(line, f'"key" is empty; it has 1 to {KEY_BYTES_MAX} bytes')
    if len(key) > KEY_CHARACTERS_SURE and (size := len(key.encode())) > KEY_BYTES_MAX:
        raise explain(line, f'"{name}" has {size} bytes; it may have {KEY_BYTES_MAX}', "too_large")


def _one_line(text: Raw) -> bytes:
    return bytes(text).replace(b"\n", b" ")
