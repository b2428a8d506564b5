"""The parser of client lines against a plain reference, on generated and on spoiled lines."""

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET

from trio_kv.kv.operations import Cas, Delete, Get, Set
from trio_kv.kv.reply import Reply
from trio_kv.wire.operations import BadRequestError, Ping, Request, Status
from trio_kv.wire.replies import encode_error, encode_reply, parse_reply
from trio_kv.wire.requests import encode_request, parse_chunk, parse_line

COMMON = {"id", "timeout", "consistency", "meta"}
TAKEN = {
    "get": {"key"},
    "set": {"key", "value", "if_revision", "ttl"},
    "delete": {"key", "if_revision"},
    "cas": {"key", "value", "expected", "ttl"},
    "ping": set[str](),
    "status": set[str](),
}


class Number(str):
    """A number as it is written."""

    __slots__ = ()


class RefusedError(Exception):
    """The reference takes the line for no request."""


def refuse(reason: object) -> None:
    raise RefusedError(reason)


def without_surrogates(value: Any) -> bool:
    match value:
        case str():
            return re.search("[\ud800-\udfff]", value) is None
        case list() | tuple():
            return all(map(without_surrogates, value))
        case _:
            return True


def depth(value: Any) -> int:
    """Return how deep arrays and objects stand; an object is a list of pairs here."""
    match value:
        case Members():
            return 1 + max((depth(item) for _, item in value), default=0)
        case list():
            return 1 + max(map(depth, value), default=0)
        case _:
            return 0


class Members(list[Any]):
    """The members of an object, duplicates and all."""


def reference(line: bytes) -> dict[str, Any]:
    """Return the members of a request, or raise RefusedError: the protocol's page, step by step."""
    try:
        text = line.decode("utf-8", "strict")
        members = json.loads(
            text, object_pairs_hook=Members, parse_int=Number, parse_float=Number, parse_constant=refuse
        )
    except ValueError as error:
        raise RefusedError(error) from error
    if not isinstance(members, Members) or not without_surrogates(members):
        raise RefusedError("no object, or half a character")
    request = dict(members)
    if len(request) != len(members) or any(depth(value) > 128 for value in request.values()):
        raise RefusedError("duplicate member, or too deep")
    op = request.get("op", "set" if "value" in request else "get")
    if type(op) is not str or op not in TAKEN or not request.keys() <= TAKEN[op] | COMMON | {"op"}:
        raise RefusedError("unknown op or member")
    if not TAKEN[op] - {"if_revision", "expected", "ttl"} <= request.keys():
        raise RefusedError("a member is missing")
    checks: dict[str, Callable[[Any], object]] = {
        "key": lambda key: type(key) is str and 1 <= len(key.encode()) <= 4096,
        "timeout": lambda timeout: type(timeout) is Number and 0 < float(timeout) <= 60,
        "ttl": lambda ttl: type(ttl) is Number and 0.1 <= float(ttl) <= 31_536_000,
        "consistency": lambda word: type(word) is str and word in ("linearizable", "stale"),
        "meta": lambda meta: type(meta) is bool,
        "if_revision": lambda text: (
            type(text) is Number and re.fullmatch("-0|[0-9]{1,19}", text) and int(text) < 1 << 63
        ),
    }
    for name, check in checks.items():
        if name in request and not check(request[name]):
            raise RefusedError(name)
    return request | {"op": op}


space = st.sampled_from(["", "", "", " ", "  ", "\t", "\r"])
strings = st.text(max_size=8) | st.sampled_from(["key", "value", '":"', "[[", "\\"])
whole_strings = strings.filter(without_surrogates)
spelled_strings = whole_strings.map(json.dumps) | whole_strings.map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
number_texts = st.sampled_from(
    ["0", "-0", "1", "5", "60", "60.0", "61", "1.10", "1e2", "12345678901234567890", "-1"]
)
scalars = st.one_of(spelled_strings, number_texts, st.sampled_from(["null", "true", "false"]))


def within(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return arrays and objects of inner values."""
    members = st.builds("{}: {}".format, spelled_strings, inner)
    arrays = st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]")
    return arrays | st.lists(members, max_size=3).map(lambda items: "{" + ",".join(items) + "}")


values = st.recursive(scalars, within, max_leaves=8)
NAMES = (*sorted(COMMON), "key", "value", "op", "expected", "if_revision", "ttl", "k\\u0065y")
names = st.sampled_from(NAMES).map('"{}"'.format)
words = st.sampled_from(
    ["get", "set", "delete", "cas", "ping", "status", "scan", "stale", "linearizable", "a", ""]
)
member_values = values | words.map(json.dumps) | number_texts


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Draw a line that is nearly a request, and often one."""
    members = [('"key"', draw(spelled_strings))] if draw(st.integers(0, 9)) else []
    members += draw(st.lists(st.tuples(names, member_values), max_size=3))
    members = draw(st.permutations(members)) if draw(st.booleans()) else members
    pieces = [
        f"{draw(space)}{name}{draw(space)}:{draw(space)}{value}{draw(space)}" for name, value in members
    ]
    return (draw(space) + "{" + ",".join(pieces) + "}" + draw(space)).encode()


SPOILERS = (
    *(
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b"\xff",
        b"\xc3",
        b"\x00",
        b"\t",
        b"0",
        b".",
        b"e",
        b"-",
    ),
    *(b"NaN", b"\\ud800", b"\\u0065", b"\xed\xa0\x80", b"\xef\xbb\xbf", b'"key":1,', b"null", b" ", b""),
)


@st.composite
def spoiled_lines(draw: st.DrawFn) -> bytes:
    """Draw a line with some bytes put in, taken out or replaced."""
    line = draw(lines())
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(line)))
        line = line[:place] + draw(st.sampled_from(SPOILERS)) + line[place + draw(st.integers(0, 2)) :]
    return line


def verdict_on(line: bytes) -> Request | BadRequestError:
    """Return the request that the parser reads, or why it reads none."""
    try:
        return parse_line(line)
    except BadRequestError as refusal:
        return refusal


PLAIN_LINES = [
    b'{"key":"a"}',
    b'{"key": "b", "value": 1}',
    b'{"value":"x","key":"c"}\r',
    b'{"key":"a:b","value":":"}',
    b'{ "key" : "a" }',
    b'{"key": "d", "value": 1, "session": "7-00c0ffee00c0ffee", "seq": 9, "done": 0}',
    b'{"value":2,"seq":3,"key":"e","session":"s"}',
]
STRANGE_LINES = [
    b'{"key":"a","key":"b"}',
    b'{"key":"a","value":1,"value":2}',
    b'{"key":"a"} {"key":',
    b'"b"}',
    b'{"key":"a"}{"key":"b"}',
    b"",
    b"{",
    b'{"key":"a","k\\u0065y":"b"}',
    b'{"key":"\\u003a"}',
    b'{"key":"a","value":[1]}',
    b'{"key":"a","value":{"b":1}}',
    b'{"key":"\xc3\xa9"}',
    b'{"key":""}',
    b'{"key":"' + b"k" * 1025 + b'"}',
    b'{"key":"a","op":"get"}',
    b'{"key":"a","session":"s","seq":1}',
    b'{"value":1,"key":"a","session":"s"}',
    b'{"value":1,"key":"a","seq":1}',
    b'{"value":1,"key":"a","session":"s","seq":1,"seq":2}',
    b'{"value":1,"key":"a","session":"a:b","seq":-1}',
    b'{"value":1,"key":"a","session":"a:b","seq":1}',
    b'{"key":"a","timeout":1}',
    b'{"key":"a","value":}',
    b'{"key":"a',
    b'b"}',
]


@given(
    st.lists(lines() | spoiled_lines() | st.sampled_from(PLAIN_LINES + STRANGE_LINES), min_size=1, max_size=6)
)
@example([b'{"key":"a"} {"key":', b'"b"}'])
@example([b'{"key":"a","key":"b"}', b'{"key":"a"}'])
@example([b'{"key":"a","key":"b"}', b'{"key":"\\u003a"}'])
@example([b'{"key":"a:"}', b'{"key":"a","value":1,"value":2}'])
@example([b'{"key":"a', b'{"}', b'{"key":"a"}'])
def test_lines_are_read_together_as_they_are_one_by_one(each: list[bytes]) -> None:
    """The short way reads what the long one reads, or leaves it to that one: also where one line hides in another."""
    text = b"".join(line.replace(b"\n", b" ") + b"\n" for line in each)
    requests = parse_chunk(text)
    if requests is not None:
        assert requests == [verdict_on(line) for line in text.split(b"\n")[:-1]]


@given(st.lists(st.sampled_from(PLAIN_LINES), min_size=1, max_size=6))
def test_plain_lines_are_read_together(each: list[bytes]) -> None:
    """What pipelines are made of goes the short way."""
    assert parse_chunk(b"\n".join(each) + b"\n") == [parse_line(line.rstrip(b"\r")) for line in each]


def check_line(line: bytes) -> None:
    """Assert that parser and reference agree on one line, texts included."""
    request = verdict_on(line)
    try:
        expected = reference(line)
    except RefusedError as error:
        reason = error
    else:
        assert not isinstance(request, BadRequestError), f"{line!r} was refused: {request.message}"
        check_request(line, request, expected)
        return
    assert isinstance(request, BadRequestError), f"{line!r} was read as {request!r}, but: {reason}"
    answer = json.loads(encode_error(request.code, request.message, request.key, request.id))
    assert answer["error"] in ("bad_request", "too_large"), answer
    assert "not a request" not in request.message, f"no reason found for {line!r}: {request.message}"


def check_request(line: bytes, request: Request, expected: dict[str, Any]) -> None:
    """Assert that a request is what the reference read."""
    operation = request.operation
    assert operation.name == expected["op"]
    assert getattr(operation, "key", None) == expected.get("key")
    assert request.timeout == float(expected.get("timeout", 5))
    assert request.is_stale == (expected.get("consistency") == "stale")
    assert request.meta == expected.get("meta", False)
    revision = getattr(operation, "if_revision", UNSET)
    assert revision == (int(expected["if_revision"]) if "if_revision" in expected else UNSET)
    ttl = getattr(operation, "ttl", UNSET)
    assert ttl == (float(expected["ttl"]) if "ttl" in expected else UNSET)
    for name, text in (
        ("id", request.id),
        ("value", getattr(operation, "value", UNSET)),
        ("expected", getattr(operation, "expected", UNSET)),
    ):
        is_there = text is not UNSET and len(text) > 0
        assert is_there == (name in expected)
        if is_there:
            assert isinstance(text, msgspec.Raw)
            assert bytes(text) in line
            assert decode(bytes(text)) == expected[name]


def decode(text: bytes) -> Any:
    """Return a value as the reference holds it: numbers as written, objects as members."""
    return json.loads(text, object_pairs_hook=Members, parse_int=Number, parse_float=Number)


@given(lines())
@example(b'{"key":"","key":"a"}')
@example(b'{"key":"a","value":1,"key":"b"}')
@example(b'{"key":"\xf0\x9f\x98\x80","value":1,"value":2}')
@example(b'{"key":"\\ud83d\\ude00","key":"b"}')
def test_generated_lines_are_read_as_the_page_says(line: bytes) -> None:
    """Parser and reference agree on what is a request and on every member of it."""
    check_line(line)


@given(spoiled_lines())
def test_spoiled_lines_get_the_same_verdict(line: bytes) -> None:
    """However a line is spoiled, both say yes or both say no, and a no has a reason and a valid reply."""
    check_line(line)


@given(st.binary(max_size=60))
def test_garbage_never_escapes(line: bytes) -> None:
    """No bytes at all make the parser raise anything but its own error."""
    check_line(line)


raws = values.map(msgspec.Raw)
keys = st.text(min_size=1, max_size=20).filter(without_surrogates)
common: dict[str, st.SearchStrategy[Any]] = {
    "id": raws | st.just(msgspec.Raw()),
    "timeout": st.floats(0, 60, exclude_min=True),
    "is_stale": st.booleans(),
    "meta": st.booleans(),
}
revisions = st.just(UNSET) | st.integers(0, (1 << 63) - 1)
operations = st.one_of(
    st.builds(Set, keys, raws, revisions),
    st.builds(Get, keys),
    st.builds(Delete, keys, revisions),
    st.builds(Cas, keys, raws, raws | st.just(UNSET)),
    st.builds(Ping),
    st.builds(Status),
)
requests = st.builds(Request, operations, **common)


@given(requests)
def test_requests_survive_the_line(request: Request) -> None:
    """What a client asks is what the server understands, texts verbatim."""
    line = encode_request(request)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert parse_line(line[:-1]) == request


@given(keys, raws, common["id"], st.booleans())
def test_values_come_back_as_they_were_sent(
    key: str, value: msgspec.Raw, id_text: msgspec.Raw, meta: bool
) -> None:
    """Through request, server and reply a value's text stays the same to the byte."""
    request = parse_line(encode_request(Request(Set(key, value), id=id_text, meta=meta)))
    assert isinstance(request.operation, Set)
    read = Reply("ok", request.operation.value, 3)
    line = encode_reply(Request(Get(key), id=id_text, meta=meta), read, 1, 2)
    reply = parse_reply(line)
    assert (reply.code, reply.key, reply.value, reply.id) == ("ok", key, value, id_text)
    assert (reply.revision, reply.node, reply.term) == ((3, 1, 2) if meta else (None, None, None))
    names = ["id", "key", "value", "status", "revision", "node", "term"]
    assert list(json.loads(line)) == names[0 if len(id_text) else 1 : 7 if meta else 4]
