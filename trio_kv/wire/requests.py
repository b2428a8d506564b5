"""One line of the client protocol, both ways: bytes to a request, a request to bytes.

A line is decoded by msgspec, which is fast and strict; what it leaves out is checked here: that the text
inside values is UTF-8 (a `msgspec.Raw` is skipped over, not read), that no member stands twice, how deep
values are nested, how long a key is. A line that fails anywhere is read a second time by `wire.refusals`, slowly and
as far as that takes no time to speak of, to tell a person what is wrong. So the verdict is always that of the fast way.

The rest of the room is offered here too: requests (`wire.operations`) and replies (`wire.replies`).
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Literal, TypedDict

import msgspec
from msgspec import Meta

from trio_kv.kv.nesting import NESTING_MAX, is_nested_deeper
from trio_kv.wire.json_text import find_second
from trio_kv.wire.operations import (
    ABSENT,
    KEY_BYTES_MAX,
    LINE_BYTES_LIMIT,
    LINE_BYTES_MAX,
    REVISION_MAX,
    TIMEOUT_S_DEFAULT,
    TIMEOUT_S_MAX,
    BadRequestError,
    CasRequest,
    DeleteRequest,
    GetRequest,
    PingRequest,
    Request,
    SetRequest,
    StatusRequest,
    WriteRequest,
)
from trio_kv.wire.refusals import explain
from trio_kv.wire.replies import (
    CLOSE_OK,
    CLOSE_SHUTDOWN,
    ReplyError,
    ReplyLine,
    encode_error,
    encode_reply,
    encode_status,
    parse_reply,
)

__all__ = [
    "ABSENT",
    "CLOSE_OK",
    "CLOSE_SHUTDOWN",
    "KEY_BYTES_MAX",
    "LINE_BYTES_LIMIT",
    "LINE_BYTES_MAX",
    "NESTING_MAX",
    "REVISION_MAX",
    "TIMEOUT_S_DEFAULT",
    "TIMEOUT_S_MAX",
    "BadRequestError",
    "CasRequest",
    "DeleteRequest",
    "GetRequest",
    "PingRequest",
    "ReplyError",
    "ReplyLine",
    "Request",
    "SetRequest",
    "StatusRequest",
    "WriteRequest",
    "encode_error",
    "encode_reply",
    "encode_request",
    "encode_status",
    "is_http",
    "is_nested_deeper",
    "parse_line",
    "parse_reply",
]

GET_OVERHEAD_BYTES = len('{"key":""}')
SET_OVERHEAD_BYTES = len('{"key":"","value":}')
MEMBER_BYTES_MIN = len('"key":"",')
"""The shortest member that could stand in a base line a second time."""

TEXT_MEMBERS = ("id", "value", "expected")
"""Members that may be any JSON value."""

LINE_NESTING_MAX = NESTING_MAX + 1
"""The request itself is one level around its values."""

NESTED_TOO_DEEP = f"nested too deep: at most {NESTING_MAX} levels"

KEY_CHARACTERS_SURE = KEY_BYTES_MAX // 4
"""A key of so many characters is within its limit, whichever they are."""


class _BaseLine(msgspec.Struct, forbid_unknown_fields=True):
    """The two requests that every client knows."""

    key: str
    value: msgspec.Raw = ABSENT


class _Common(TypedDict):
    """What every request carries, in the words of `Request`."""

    id: msgspec.Raw
    timeout: float
    is_stale: bool
    meta: bool


class _Line(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Any other line, as its members stand there; the classes below say what else may."""

    id: msgspec.Raw = ABSENT
    timeout: Annotated[float, Meta(gt=0, le=TIMEOUT_S_MAX)] = TIMEOUT_S_DEFAULT
    consistency: Literal["linearizable", "stale"] = "linearizable"
    meta: bool = False

    def texts(self) -> dict[str, msgspec.Raw]:
        """Return the members that may be any JSON value, by name."""
        return {name: text for name in TEXT_MEMBERS if len(text := getattr(self, name, ABSENT))}

    def common(self) -> _Common:
        return {
            "id": self.id.copy() if len(self.id) else ABSENT,
            "timeout": self.timeout,
            "is_stale": self.consistency == "stale",
            "meta": self.meta,
        }


class _KeyLine(_Line):
    key: str


_Revision = Annotated[int, Meta(ge=0, le=REVISION_MAX)] | msgspec.UnsetType


class _ImplicitLine(_KeyLine):
    """A line without `op`: a set if it has a value, else a get, which takes no condition."""

    value: msgspec.Raw = ABSENT
    if_revision: _Revision = msgspec.UNSET

    def to_request(self) -> Request | None:
        if len(self.value):
            return SetRequest(self.key, self.value.copy(), _or_none(self.if_revision), **self.common())
        return GetRequest(self.key, **self.common()) if self.if_revision is msgspec.UNSET else None


class _SetLine(_KeyLine, tag_field="op", tag="set"):
    value: msgspec.Raw
    if_revision: _Revision = msgspec.UNSET

    def to_request(self) -> Request:
        return SetRequest(self.key, self.value.copy(), _or_none(self.if_revision), **self.common())


class _GetLine(_KeyLine, tag_field="op", tag="get"):
    def to_request(self) -> Request:
        return GetRequest(self.key, **self.common())


class _DeleteLine(_KeyLine, tag_field="op", tag="delete"):
    if_revision: _Revision = msgspec.UNSET

    def to_request(self) -> Request:
        return DeleteRequest(self.key, _or_none(self.if_revision), **self.common())


class _CasLine(_KeyLine, tag_field="op", tag="cas"):
    value: msgspec.Raw
    expected: msgspec.Raw = ABSENT

    def to_request(self) -> Request:
        expected = (self.expected.copy(),) if len(self.expected) else ()
        return CasRequest(self.key, self.value.copy(), expected, **self.common())


class _PingLine(_Line, tag_field="op", tag="ping"):
    def to_request(self) -> Request:
        return PingRequest(**self.common())


class _StatusLine(_Line, tag_field="op", tag="status"):
    def to_request(self) -> Request:
        return StatusRequest(**self.common())


def _or_none(revision: int | msgspec.UnsetType) -> int | None:
    return None if revision is msgspec.UNSET else revision


_OpLine = _SetLine | _GetLine | _DeleteLine | _CasLine | _PingLine | _StatusLine

_decode_base = msgspec.json.Decoder(_BaseLine).decode
_decode_implicit: Callable[[bytes], _ImplicitLine] = msgspec.json.Decoder(_ImplicitLine).decode
_decode_op: Callable[[bytes], _OpLine] = msgspec.json.Decoder(_OpLine).decode
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
        return _parse_any(line)
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
    return SetRequest(key, value.copy()) if is_set else GetRequest(key)


def encode_request(request: Request) -> bytes:
    """Return the line that asks for a request, with its end; `parse_line` reads back the same request.

    The texts of values must be JSON. A line break between the tokens of one becomes a space: in a line it
    would end the request.
    """
    match request:
        case SetRequest(key=key, value=value, if_revision=if_revision):
            pieces = [
                b'"key": ' + _encode(key),
                b'"value": ' + _one_line(value),
                *_tell_revision(if_revision),
            ]
        case GetRequest(key=key):
            pieces = [b'"key": ' + _encode(key)]
        case DeleteRequest(key=key, if_revision=if_revision):
            pieces = [b'"op": "delete"', b'"key": ' + _encode(key), *_tell_revision(if_revision)]
        case CasRequest(key=key, value=value, expected=expected):
            pieces = [b'"op": "cas"', b'"key": ' + _encode(key)]
            pieces += [b'"expected": ' + _one_line(text) for text in expected]
            pieces.append(b'"value": ' + _one_line(value))
        case PingRequest():
            pieces = [b'"op": "ping"']
        case StatusRequest():
            pieces = [b'"op": "status"']
        case _:
            raise TypeError(f"{request!r} is not a request of this protocol")
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
    _check_duplicates(line, decoded.texts())
    if is_nested_deeper(line, LINE_NESTING_MAX):
        raise explain(line, NESTED_TOO_DEEP)
    if isinstance(decoded, _KeyLine):
        _check_key(line, decoded.key)
    request = decoded.to_request()
    if request is None:
        raise explain(line, "a condition without a value")
    return request


def _decode_any(line: bytes) -> _OpLine | _ImplicitLine:
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


def _check_duplicates(line: bytes, texts: Mapping[str, msgspec.Raw]) -> None:
    """Refuse a line with a member twice at the top.

    Args:
        line: one JSON object, in UTF-8.
        texts: of its members that may be anything, those that were decoded.

    """
    second = find_second(line, texts)
    if second is not None:
        raise explain(line, f"the member {second} stands twice")


def _check_key(line: bytes, key: str) -> None:
    """Refuse a key that is empty or too long."""
    if not key:
        raise explain(line, f'"key" is empty; it has 1 to {KEY_BYTES_MAX} bytes')
    if len(key) > KEY_CHARACTERS_SURE and (size := len(key.encode())) > KEY_BYTES_MAX:
        raise explain(line, f'"key" has {size} bytes; it may have {KEY_BYTES_MAX}', "too_large")


def _one_line(text: msgspec.Raw) -> bytes:
    return bytes(text).replace(b"\n", b" ")


def _tell_revision(if_revision: int | None) -> list[bytes]:
    return [] if if_revision is None else [b'"if_revision": %d' % if_revision]
