"""One line of the client protocol, both ways."""

import json
from collections.abc import Callable
from time import process_time

import msgspec
import pytest

from trio_kv.kv.nesting import NESTING_MAX
from trio_kv.kv.operations import Cas, Delete, Get, Incr, Scan, Set
from trio_kv.kv.operations.operation import KEY_BYTES_MAX, REVISION_MAX
from trio_kv.kv.reply import Reply
from trio_kv.wire.json_text import find_lone_surrogate
from trio_kv.wire.operations import OPERATIONS, BadRequestError, Ping, Request, Status
from trio_kv.wire.replies import (
    CLOSE_OK,
    CLOSE_SHUTDOWN,
    ReplyError,
    encode_error,
    encode_reply,
    encode_status,
    parse_reply,
)
from trio_kv.wire.requests import encode_request, is_http, parse_line

WEIRD_KEYS = ['"', "\\", "\n", "\u0000", "\u007f", "\u2028", "é", "😀", "a b", "\t\r", "k" * KEY_BYTES_MAX]


KNOWN_OPS = ", ".join(OPERATIONS)


def raw(text: str) -> msgspec.Raw:
    """Return a JSON text as requests hold it."""
    return msgspec.Raw(text)


def refusal(line: bytes | str) -> BadRequestError:
    """Return why a line is refused."""
    with pytest.raises(BadRequestError) as caught:
        parse_line(line.encode() if isinstance(line, str) else line)
    return caught.value


def test_a_reply_gives_its_value_as_an_object() -> None:
    """`data` is the value decoded; None for no value and for null."""
    assert parse_reply(b'{"key": "a", "value": {"b": [1, null]}, "status": "ok"}').data == {"b": [1, None]}
    assert parse_reply(b'{"key": "a", "value": null, "status": "ok"}').data is None
    assert parse_reply(b'{"status": "ok"}').data is None


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ('{"key": "snack", "value": "chips"}', Request(Set("snack", raw('"chips"')))),
        ('{"key":"snack","value":null}', Request(Set("snack", raw("null")))),
        ('{"value":1.10,"key":"k"}\r', Request(Set("k", raw("1.10")))),
        (' { "key" : "k" , "value" :  [1,  2 ] } ', Request(Set("k", raw("[1,  2 ]")))),
        ('{"key": "snack"}', Request(Get("snack"))),
        ('{"key":"\\u0073nack"}', Request(Get("snack"))),
        ('{"k\\u0065y":"a","value":2}', Request(Set("a", raw("2")))),
        ('{"op":"set","key":"k","value":1,"if_revision":0}', Request(Set("k", raw("1"), 0))),
        ('{"key":"k","value":1,"if_revision":7}', Request(Set("k", raw("1"), 7))),
        (f'{{"key":"k","value":1,"if_revision":{REVISION_MAX}}}', Request(Set("k", raw("1"), REVISION_MAX))),
        ('{"op":"get","key":"k"}', Request(Get("k"))),
        ('{"key":"k","o\\u0070":"get"}', Request(Get("k"))),
        ('{"op":"delete","key":"k"}', Request(Delete("k"))),
        ('{"if_revision":3,"key":"k","op":"delete"}', Request(Delete("k", 3))),
        ('{"op":"cas","key":"k","expected":null,"value":2}', Request(Cas("k", raw("2"), raw("null")))),
        ('{"op":"cas","key":"k","value":2}', Request(Cas("k", raw("2")))),
        ('{"op":"incr","key":"k"}', Request(Incr("k"))),
        ('{"op":"incr","by":-999999999999999999,"key":"k"}', Request(Incr("k", -(10**18) + 1))),
        ('{"op":"scan"}', Request(Scan())),
        (
            '{"op":"scan","prefix":"","after":"a","limit":7,"reverse":true,"values":false,"count":true,"id":1}',
            Request(Scan("", "a", 7, True, False, True), id=raw("1")),
        ),
        ('{"op":"ping"}', Request(Ping())),
        ('{"op":"status","id":"x"}', Request(Status(), id=raw('"x"'))),
        ('{"key":"k","id":{"a": [1]},"meta":true}', Request(Get("k"), id=raw('{"a": [1]}'), meta=True)),
        ('{"key":"k","id":null}', Request(Get("k"), id=raw("null"))),
        ('{"key":"k","timeout":0.5,"consistency":"stale"}', Request(Get("k"), timeout=0.5, is_stale=True)),
        ('{"key":"k","timeout":60,"consistency":"linearizable"}', Request(Get("k"), timeout=60.0)),
        (
            '{"key":"k","value":{"key":1,"value":2,"op":"get"}}',
            Request(Set("k", raw('{"key":1,"value":2,"op":"get"}'))),
        ),
        ('{"key":"k","value":"\\"key\\":\\u0031"}', Request(Set("k", raw('"\\"key\\":\\u0031"')))),
    ],
)
def test_requests(line: str, request_: Request) -> None:
    """A line is the request that the protocol says, whichever way it is spelled."""
    assert parse_line(line.encode()) == request_


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the line is empty (byte 1 of the line)"),
        ("[1]", 'a request is one JSON object, like {"key": "snack"}; this is an array (byte 1 of the line)'),
        ("key=snack", "this is not JSON (byte 1 of the line)"),
        ('{"key":"a"', "expected `,` or `}` after a member, but here the line ends (byte 11 of the line)"),
        ("{'key':1}", "expected a member's name in double quotes"),
        ('{"key" "a"}', "expected `:` after a member's name"),
        ('{"key":"a",}', "expected a member's name in double quotes"),
        ('{"key":"a"} {}', "one line holds one JSON object, but more follows (byte 13 of the line)"),
        ('{"key":"a","value":NaN}', "not JSON: NaN is not a number (byte 20 of the line)"),
        ('{"key":"a","value":-Infinity}', "not JSON: -Infinity is not a number"),
        ('{"key":"a","value":tru}', "not JSON: expecting value (byte 20 of the line)"),
        ('{"key":"a","value":"a\tb"}', "not JSON: invalid control character (byte 22 of the line)"),
        ('{"ke\ty":"a"}', "not JSON: invalid control character"),
        ('{"é":"a","key":"b","value":01}', 'here stands "1" (byte 30 of the line)'),
        ('{"key":"a","key":"b"}', 'the member "key" stands twice (byte 12 of the line)'),
        ('{"key":"","key":""}', 'the member "key" stands twice'),
        ('{"key":"a","\\u006bey":"b"}', 'the member "key" stands twice'),
        ('{"key":"a","value":1,"value":1}', 'the member "value" stands twice'),
        ('{"op":"ping","op":"ping"}', 'the member "op" stands twice'),
        ('{"key":"a","timeout":5,"timeout":5}', 'the member "timeout" stands twice'),
        (
            '{"key":"a","vale":1}',
            'unknown member "vale"; a get takes key, id, timeout, consistency, meta (did',
        ),
        ('{"key":"a","vale":1}', 'did you mean "value"?) (byte 12 of the line)'),
        (
            '{"op":"sett","key":"a"}',
            f'unknown op "sett"; there are {KNOWN_OPS} (did you',
        ),
        ('{"op":7}', f'"op" must be a string, one of {KNOWN_OPS}, not a number'),
        (
            '{"op":"scan","limit":0}',
            '"limit" must be a whole number from 1 to 1000, in digits alone (byte 22',
        ),
        ('{"op":"scan","limit":1001}', '"limit" must be a whole number from 1 to 1000'),
        ('{"op":"scan","prefix":7}', '"prefix" must be a string, not a number'),
        ('{"op":"scan","after":null}', '"after" must be a string, not null'),
        ('{"op":"scan","count":1}', '"count" must be true or false, not a number'),
        ('{"op":"scan","key":"a"}', "not to scan"),
        ('{"key":"a","value":1,"session":5,"seq":1}', '"session" must be a string, not a number'),
        ('{"key":"a","value":1,"session":"s"}', '"seq" is missing: "session", "seq" and "done" number'),
        ('{"key":"a","value":1,"done":1}', '"session" is missing: "session", "seq" and "done" number'),
        ('{"key":"a","value":1,"session":"s","seq":-1}', '"seq" must be a whole number from 0'),
        ('{"key":"a","session":"s","seq":1}', 'number the writes of a session; a get takes no "session"'),
        ('{"op":"ping","seq":1}', 'number the writes of a session; a ping takes no "seq"'),
        ('{"op":"session","seq":1}', 'number the writes of a session; a session takes no "seq"'),
        ('{"op":"session","session":1}', '"session" must be a string, not a number'),
        ('{"key":"a","value":1,"ttl":"5"}', '"ttl" must be a number of seconds, not a string'),
        ('{"key":"a","value":1,"ttl":0.09}', '"ttl" must be 0.1 to 31536000 seconds (byte 28 of the line)'),
        ('{"op":"incr","key":"a","ttl":31536001}', '"ttl" must be 0.1 to 31536000 seconds'),
        ('{"op":"cas","key":"a","value":1,"ttl":1e999}', '"ttl" must be 0.1 to 31536000 seconds'),
        (
            '{"key":"a","ttl":5}',
            '"ttl" belongs to set, cas, incr, not to get; this is a get, as it has no "op"',
        ),
        ('{"op":"delete","key":"a","ttl":5}', '"ttl" belongs to set, cas, incr, not to delete'),
        ('{"op":"get","key":"a","value":1}', '"value" belongs to set, cas, not to get'),
        ('{"key":"a","expected":1,"value":2}', 'not to set; this is a set, as it has no "op"'),
        (
            '{"key":"a","if_revision":1}',
            '"if_revision" belongs to set, delete, not to get; this is a get, as',
        ),
        (
            '{"op":"cas","key":"a","value":1,"if_revision":1}',
            '"if_revision" belongs to set, delete, not to cas',
        ),
        ('{"op":"ping","key":"a"}', '"key" belongs to get, set, delete, cas, incr, watch, not to ping'),
        ("{}", '"key" is missing: a get looks like {"key": "snack"} (byte 2 of the line)'),
        ('{"value":1}', '"key" is missing: a set looks like {"key": "snack", "value": "chips"}'),
        ('{"op":"incr"}', '"key" is missing: an incr looks like {"op": "incr", "key": "snack"} (byte 13'),
        ('{"op":"cas","key":"a"}', 'looks like {"op": "cas", "key": "snack", "value": "chips"}'),
        ('{"key":5}', '"key" must be a string, not a number (byte 8 of the line)'),
        ('{"key":null}', '"key" must be a string, not null'),
        ('{"key":{}}', '"key" must be a string, not an object'),
        ('{"\\ud800":1,"key":"a"}', "\\ud800 is half of a surrogate pair"),
        ('{"ke\\y":"a"}', "not JSON: invalid \\escape"),
        ('{"key":}', "not JSON: expecting value (byte 8 of the line)"),
        ("{NaN:1}", "expected a member's name in double quotes"),
        ('{"key":""}', '"key" is empty; it has 1 to 4096 bytes'),
        ('{"key":"a","timeout":"5"}', '"timeout" must be a number of seconds, not a string'),
        ('{"key":"a","timeout":true}', '"timeout" must be a number of seconds, not true'),
        ('{"key":"a","timeout":0}', '"timeout" must be above 0 and at most 60 seconds'),
        ('{"key":"a","timeout":60.5}', '"timeout" must be above 0 and at most 60 seconds'),
        ('{"key":"a","timeout":1e999}', '"timeout" must be above 0 and at most 60 seconds'),
        ('{"key":"a","consistency":"sloppy"}', '"consistency" must be "linearizable" or "stale"'),
        ('{"key":"a","meta":1}', '"meta" must be true or false, not a number'),
        ('{"key":"a","value":1,"if_revision":-1}', "must be a whole number from 0 to 9223372036854775807"),
        ('{"key":"a","value":1,"if_revision":1.0}', '"if_revision" must be a whole number from 0'),
        ('{"key":"a","value":1,"if_revision":9223372036854775808}', "from 0 to 9223372036854775807"),
        ('{"key":"a","value":1,"if_revision":null}', '"if_revision" must be a whole number, not null'),
        (
            '{"op":"incr","key":"a","by":1.5}',
            "from -999999999999999999 to 999999999999999999, in digits alone",
        ),
        ('{"op":"incr","key":"a","by":1000000000000000000}', '"by" must be a whole number from -9'),
        ('{"op":"incr","key":"a","by":"1"}', '"by" must be a whole number, not a string'),
        ('{"key":"a","value":"\\ud800"}', "\\ud800 is half of a surrogate pair and no character"),
        ('{"key":"a","value":["\\\\","\\udc00x"]}', "\\udc00 is half of a surrogate pair"),
        ('{"key":"\\ud800\\ud800"}', "\\ud800 is half of a surrogate pair"),
    ],
)
def test_refusals_say_what_is_wrong_and_where(line: str, message: str) -> None:
    """A line that is no request is told so in words for a person, with the byte and what would be right."""
    error = refusal(line)
    assert error.code == "bad_request"
    assert message in error.message


def test_text_that_is_not_utf8_is_refused_everywhere() -> None:
    """Bytes that are not UTF-8 are refused inside values too, over which the decoder skips."""
    for line in (
        b'{"key":"a","value":"\xff"}',
        b'{"key":"\xc3"}',
        b'{"op":"cas","key":"a","value":[{"\xed\xa0\x80":1}]}',
    ):
        assert "the line is not UTF-8" in refusal(line).message
    assert "(byte 21 of the line)" in refusal(b'{"key":"a","value":"\xff"}').message
    assert "byte order mark" in refusal(b'\xef\xbb\xbf{"key":"a"}').message


@pytest.mark.parametrize("pair", ["[]", "{}"])
@pytest.mark.parametrize(
    "template",
    ['{"key":"a","value":%s}', '{"key":"a","id":%s}', '{"op":"cas","key":"a","value":1,"expected":%s}'],
)
def test_nesting_is_limited(template: str, pair: str) -> None:
    """A value of 128 levels is taken, one of 129 refused, and so are a thousand and a hundred thousand."""
    opening = "[" if pair == "[]" else '{"a":'
    deepest = opening * (NESTING_MAX - 1) + pair + pair[1] * (NESTING_MAX - 1)
    parse_line((template % deepest).encode())
    for depth in (1, 900, 100_000):
        assert "nested too deep" in refusal(template % (opening * depth + deepest + pair[1] * depth)).message
    assert refusal(template % ("[" * 100_000)).code == "bad_request"


def test_wide_values_are_not_deep() -> None:
    """Many brackets beside each other, or inside strings, are no depth."""
    for value in (json.dumps([[]] * 1000), json.dumps("[" * 1000), json.dumps({"[": ['{"' * 500]})):
        assert parse_line(b'{"key":"a","value":%b}' % value.encode()) == Request(Set("a", raw(value)))


def test_length_of_keys() -> None:
    """A key has 1 to 4096 bytes of UTF-8; a longer one is too large, not malformed."""
    longest = "é" * (KEY_BYTES_MAX // 2)
    assert parse_line(json.dumps({"key": longest}).encode()) == Request(Get(longest))
    assert parse_line(json.dumps({"key": longest, "op": "delete"}).encode()) == Request(Delete(longest))
    for op in ({}, {"op": "delete"}):
        error = refusal(json.dumps({"key": longest + "x", **op}, ensure_ascii=False))
        assert error.code == "too_large"
        assert "has 4097 bytes; it may have 4096" in error.message


def test_length_of_what_keys_are_compared_with() -> None:
    """It may be empty, and is no longer than a key."""
    longest = "é" * (KEY_BYTES_MAX // 2)
    assert parse_line(json.dumps({"op": "scan", "prefix": longest}).encode()) == Request(Scan(longest))
    for name in ("prefix", "after"):
        error = refusal(json.dumps({"op": "scan", name: longest + "x"}, ensure_ascii=False))
        assert (error.code, error.key) == ("too_large", None)
        assert f'"{name}" has 4097 bytes; it may have 4096' in error.message


@pytest.mark.parametrize(
    ("line", "key", "id_text"),
    [
        (b'{"id": [1,  2], "key": "a", "vale": 1}', "a", "[1,  2]"),
        (b'{"id":7,"key":"a","value":1,oops}', "a", "7"),
        (b'{"key":"a","id":7,"value":"\xff"}', "a", "7"),
        (b'{"key":"a","id":"\xff"}', "a", ""),
        (b'{"key":"a","key":"b","id":1}', None, "1"),
        (b'{"id":1,"id":2,"key":5}', None, ""),
        (b'{"key":"\\ud800","id":"\\ud800"}', None, ""),
        (b'{"key":"","id":"\\u00e9"}', "", '"\\u00e9"'),
        (b'{"op":"bad","id":' + b"[" * 200 + b"]" * 200 + b"}", None, ""),
        (b"nonsense", None, ""),
    ],
)
def test_refusals_carry_key_and_id_where_they_can_be_read(line: bytes, key: str | None, id_text: str) -> None:
    """The error of a bad line can be told apart by its client, as far as the line lets it."""
    error = refusal(line)
    assert (error.key, bytes(error.id).decode()) == (key, id_text)
    json.loads(encode_error(error.code, error.message, error.key, error.id))


def test_long_names_are_not_repeated_in_full() -> None:
    """A message repeats no more than 40 characters of what a client sent."""
    error = refusal(json.dumps({"key": "a", "x" * 10_000: 1}))
    assert len(error.message) < 250
    assert '"' + "x" * 40 + '..."' in error.message


def filled(head: bytes, unit: bytes, tail: bytes) -> bytes:
    """Return a line of 1 MB."""
    return head + unit * ((1_000_000 - len(head) - len(tail)) // len(unit)) + tail


LONG_LINES = [
    (filled(b'{"member":1', b',"member":1', b"}"), 'the member "member" stands twice (byte 13 of the line)'),
    (
        b"{" + b",".join(b'"member%d":1' % number for number in range(60_000)) + b"}",
        'unknown member "member0"',
    ),
    (filled(b'{"key":"k","value":[', b"1,", b""), "the line ends too early"),
    (filled(b'{"key":"k",', b'"id":1,', b'"id":2}'), 'the member "id" stands twice (byte 19 of the line)'),
    (
        filled(b'{"op":"cas","key":"k","value":[', b'{"id":1},', b'0],"key":"j"}'),
        'the member "key" stands twice',
    ),
    (
        filled(b'{"op":"cas","key":"k","value":[', b'{"id":1},', b'0],"value":1}'),
        'the member "value" stands twice',
    ),
    (filled(b'{"key":"', b'\\"', b'","key":"b"}'), 'the member "key" stands twice'),
    (filled(b'{"key":"k","value":"', b"a", b'","vaule":1}'), 'unknown member "vaule"'),
    (filled(b'{"op":"set","key":"k","value":"', b"a", b'","vaule":1}'), 'unknown member "vaule"'),
    (filled(b'{"key":"k","value":"', b"a", b'","vaule":1,"op":"set"}'), 'unknown member "vaule"'),
    (filled(b'{"op":"cas","value":"', b"a", b'"}'), '"key" is missing'),
    (filled(b'{"key":"k","', b"a", b'":1}'), 'unknown member "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."'),
    (
        filled(b'{"key":"k","value":"', b"a", b'\xff"}'),
        "not UTF-8: invalid start byte (byte 999998 of the line)",
    ),
    (filled(b'{"key":"k","value":"', b"a", b'" 1}'), "(byte 999999 of the line)"),
    (
        filled(b'{"key":"k","value":"\\ud800', b"\\n", b'"}'),
        "not JSON: unexpected end of hex escape (byte 27 ",
    ),
    (filled(b'{"key":"k","value":', b"[", b"}"), "nested too deep: at most 128 levels"),
    (
        filled(b'{"key":"k","value":[', b"[" * 128 + b"]" * 128 + b",", b"0]}"),
        "nested too deep: at most 128 levels",
    ),
    (filled(b'{"key":"k","timeout":', b"9", b"}"), "Number out of range"),
    (filled(b'{"key":"k","value":1,"if_revision":', b"9", b"}"), "Integer value out of range"),
    (filled(b'{"op":"', b"9", b'"}'), "Invalid value '999"),
    (filled(b"[", b'"abc",', b"1]"), "a request is one JSON object"),
    (filled(b"", b"[", b""), "a request is one JSON object"),
    (filled(b"", b"x", b""), "not JSON: invalid character (byte 1 of the line)"),
    (filled(b'{"op":"txn","if":[', b"1,", b"1]}"), '"if" has more than 120 conditions'),
    (filled(b'{"op":"txn","then":[', b"{},", b"{}]}"), '"then" has more than 120 operations'),
    (filled(b'{"key":"k"', b",", b"}"), "not JSON: object keys must be strings (byte 12 of the line)"),
]


@pytest.mark.parametrize(("line", "message"), LONG_LINES, ids=range(len(LONG_LINES)))
def test_long_lines_are_refused_in_no_time(line: bytes, message: str) -> None:
    """Whatever is wrong with 1 MB, and wherever, it is told in few words, and nobody waits for them."""
    best_s, error = 1.0, refusal(line)
    for _ in range(3):
        begin = process_time()
        refusal(line)
        best_s = min(best_s, process_time() - begin)
    assert message in error.message
    assert len(error.message) < 250
    assert error.code == "bad_request"
    # As a rule less than 12 ms, most of them for finding out that it is no request.
    assert best_s < 0.06


LONG_REQUESTS = [
    filled(b'{"op":"cas","key":"k","value":[', b'{"id":1},', b"0]}"),
    filled(
        b'{"op": "cas", "expected": 1, "key": "k", "value": [', b'{"key":"\\"","op":[]},', b'0], "id": "k"}'
    ),
    filled(b'{"key":"k","value":[', b"[" * 127 + b"]" * 127 + b",", b"0]}"),
    filled(b'{"key":"k","value":[', b"[" * 5 + b"]" * 5 + b",", b"0]}"),
    filled(b'{"key":"k","value":[', b'["["],', b"0]}"),
    filled(b'{"key":"k","value":"', b'\\"[', b'"}'),
    filled(b'{"key":"k","id":"', b"\\\\", b'"}'),
]


@pytest.mark.parametrize("line", LONG_REQUESTS, ids=range(len(LONG_REQUESTS)))
def test_long_requests_are_read_in_no_time(line: bytes) -> None:
    """A request of 1 MB is read in milliseconds, also where its value is full of what looks like members."""
    best_s = 1.0
    for _ in range(3):
        begin = process_time()
        parse_line(line)
        best_s = min(best_s, process_time() - begin)
    assert best_s < 0.06


def test_a_key_that_is_too_long_is_told_by_its_code() -> None:
    """Also where it is longer than what is explained of a line."""
    for size in (4_097, 8_192, 900_000):
        for line in (b'{"key":"%b"}', b'{"op":"get","key":"%b"}'):
            error = refusal(line % (b"k" * size))
            assert (error.code, f'"key" has {size} bytes; it may have 4096' in error.message) == (
                "too_large",
                True,
            )


def test_a_long_line_that_is_cut_still_carries_key_and_id() -> None:
    """What stands before the place where it is cut is echoed."""
    error = refusal(filled(b'{"id":[1],"key":"snack","value":"', b"a", b'","vaule":1}'))
    assert (error.key, bytes(error.id)) == ("snack", b"[1]")


def test_values_are_copies() -> None:
    """A request does not keep the line in memory: its texts are cut out of it."""
    line = b'{"key":"k","value":"' + b"v" * 100 + b'","id":"' + b"i" * 50 + b'"}'
    request = parse_line(line)
    assert isinstance(request.operation, Set)
    for text, size in ((request.operation.value, 102), (request.id, 52)):
        view = memoryview(text)
        assert len(view) == size
        assert isinstance(view.obj, msgspec.Raw)


def test_the_three_base_replies_to_the_letter() -> None:
    """Members, order and spaces of these three are what every client relies on."""
    put, get = parse_line(b'{"key":"snack","value":"chips"}'), parse_line(b'{"key":"snack"}')
    chips = Reply("ok", raw('"chips"'), 4)
    assert encode_reply(put, Reply("ok", None, 4)) == b'{"key": "snack", "value": "chips", "status": "ok"}\n'
    assert encode_reply(get, chips) == b'{"key": "snack", "value": "chips", "status": "ok"}\n'
    assert encode_reply(get, Reply("missing")) == b'{"key": "snack", "value": null, "status": "error"}\n'
    assert (CLOSE_OK, CLOSE_SHUTDOWN) == (b'{"close": "ok"}\n', b'{"close": "shutdown"}\n')


@pytest.mark.parametrize(
    ("request_", "reply", "line"),
    [
        (Request(Delete("k")), Reply("ok", raw("[1]"), 9), '{"key": "k", "value": [1], "status": "ok"}'),
        (Request(Delete("k")), Reply("missing"), '{"key": "k", "value": null, "status": "error"}'),
        (Request(Cas("k", raw("2"))), Reply("ok", None, 9), '{"key": "k", "value": 2, "status": "ok"}'),
        (
            Request(Cas("k", raw("2"), raw("1"))),
            Reply("conflict", raw("3"), 8, "no"),
            '{"key": "k", "value": 3, "status": "error", "error": "conflict", "message": "no"}',
        ),
        (
            Request(Cas("k", raw("2")), meta=True),
            Reply("conflict", raw("3"), 8, "a"),
            (
                '{"key": "k", "value": 3, "status": "error", "error": "conflict", "message": "a", '
                '"revision": 8, "node": 2, "term": 5}'
            ),
        ),
        (
            Request(Set("k", raw("1")), id=raw('{"a":1}'), meta=True),
            Reply("ok", None, 9),
            '{"id": {"a":1}, "key": "k", "value": 1, "status": "ok", "revision": 9, "node": 2, "term": 5}',
        ),
        (
            Request(Get("k"), id=raw("null")),
            Reply("ok", raw("1"), 9),
            '{"id": null, "key": "k", "value": 1, "status": "ok"}',
        ),
        (
            Request(Get("k"), meta=True),
            Reply("missing"),
            '{"key": "k", "value": null, "status": "error", "revision": 0, "node": 2, "term": 5}',
        ),
        (
            Request(Set("k", raw("1")), meta=True),
            Reply("timeout", message='said "no"'),
            '{"key": "k", "value": null, "status": "error", "error": "timeout", "message": "said \\"no\\""}',
        ),
        (Request(Ping()), Reply("ok"), '{"status": "ok"}'),
        (Request(Ping(), id=raw("3")), Reply("ok"), '{"id": 3, "status": "ok"}'),
        (
            Request(Status(), id=raw("3")),
            Reply("timeout", message="no"),
            '{"id": 3, "key": null, "value": null, "status": "error", "error": "timeout", "message": "no"}',
        ),
    ],
)
def test_replies(request_: Request, reply: Reply, line: str) -> None:
    """Every reply has the protocol's members in its order, id first and meta last."""
    assert encode_reply(request_, reply, node=2, term=5).decode() == line + "\n"


def test_errors_without_words_get_some() -> None:
    """A message is there for a person even when whoever decided said none."""
    line = json.loads(encode_reply(Request(Get("k")), Reply("overloaded")))
    assert line["message"] == "a queue is full; nothing was changed, try again later"


def test_error_lines() -> None:
    """An error that answers no request has key null, as the protocol shows it."""
    expected = '{"key": null, "value": null, "status": "error", "error": "too_large", "message": "a\\nb"}\n'
    assert encode_error("too_large", "a\nb").decode() == expected
    assert encode_error("bad_request", "x", "k", raw("5")).startswith(
        b'{"id": 5, "key": "k", "value": null, '
    )


def test_status_replies() -> None:
    """The members of a status follow its own status, in their order."""
    status = {"leader": 2, "term": 5, "nodes": [{"node": 1, "reason": "é"}]}
    line = encode_status(Request(Status(), id=raw("1")), status).decode()
    assert (
        line == '{"id": 1, "status": "ok", "leader": 2, "term": 5, "nodes": [{"node": 1, "reason": "é"}]}\n'
    )
    assert encode_status(Request(Status()), {}) == b'{"status": "ok"}\n'


@pytest.mark.parametrize("key", WEIRD_KEYS)
def test_weird_keys_travel_unharmed(key: str) -> None:
    """A key is the same string after each leg: request, parse, reply, parse."""
    request = Request(Set(key, raw("1")))
    assert parse_line(encode_request(request)) == request
    line = encode_reply(request, Reply("ok", None, 1))
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"key": key, "value": 1, "status": "ok"}
    assert parse_reply(line).key == key
    assert json.loads(encode_error("bad_request", "m", key))["key"] == key


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        (Request(Set("k", raw("1.10"))), '{"key": "k", "value": 1.10}'),
        (Request(Set("k", raw("[1,\n2]"), 0)), '{"key": "k", "value": [1, 2], "if_revision": 0}'),
        (
            Request(Get("k"), is_stale=True, timeout=2.5),
            '{"key": "k", "timeout": 2.5, "consistency": "stale"}',
        ),
        (Request(Delete("k", 4), id=raw("1")), '{"op": "delete", "key": "k", "if_revision": 4, "id": 1}'),
        (
            Request(Cas("k", raw("2"), raw("null"))),
            '{"op": "cas", "key": "k", "value": 2, "expected": null}',
        ),
        (Request(Ping(), meta=True), '{"op": "ping", "meta": true}'),
        (Request(Status()), '{"op": "status"}'),
    ],
)
def test_encoded_requests(request_: Request, line: str) -> None:
    """A client says no more than it must, in one line."""
    assert encode_request(request_).decode() == line + "\n"


def test_parsed_replies() -> None:
    """A client reads every reply, and what it does not know is still in the line."""
    line = b'{"id":1,"key":"k","value":1.10,"status":"ok","revision":9,"node":2,"term":5,"new":0}\n'
    reply = parse_reply(line)
    assert (reply.code, reply.key, reply.value, reply.id) == ("ok", "k", raw("1.10"), raw("1"))
    assert (reply.revision, reply.node, reply.term, reply.line) == (9, 2, 5, line)
    assert parse_reply(b'{"key": "k", "value": null, "status": "error"}').code == "missing"
    error = parse_reply(encode_error("conflict", "no", "k"))
    assert (error.code, error.error, error.message, error.value) == (
        "conflict",
        "conflict",
        "no",
        raw("null"),
    )
    assert parse_reply(CLOSE_SHUTDOWN).code == "closed"
    assert parse_reply(CLOSE_SHUTDOWN).close == "shutdown"
    assert parse_reply(b'{"status": "ok"}').value is None


@pytest.mark.parametrize(
    "line", [b"", b"HTTP/1.1 400 Bad Request", b"[]", b"{}", b'{"status": "fine"}', b"[" * 100_000]
)
def test_what_is_no_reply_is_refused(line: bytes) -> None:
    """A client that reached something else hears so."""
    with pytest.raises(ReplyError, match="not a reply"):
        parse_reply(line)


def test_http_is_recognised() -> None:
    """The first line of a web page's request, and nothing that a client would send, looks like HTTP."""
    for line in (
        b"GET / HTTP/1.1\r",
        b"POST /x HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"CONNECT a:1",
    ):
        assert is_http(line)
    for line in (b'{"key":"GET "}', b"GETX / HTTP/1.1", b"get / HTTP/1.1", b"GET", b""):
        assert not is_http(line)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (r"\ud83d\ude00", None),
        (r"\\ud800", None),
        (r"\\\ud800", 2),
        (r"a\ud800", 1),
        (r"\ud800 \udc00", 0),
        (r"\ud83d\ude00\udc00", 12),
        (r"\ud83d\ud83d\ude00", 0),
        (r"\ud800\n", 0),
        (r"\u0041", None),
    ],
)
def test_lone_surrogates_are_found(text: str, at: int | None) -> None:
    """Half of a pair is found wherever it stands; a whole pair or an escaped backslash is none."""
    assert find_lone_surrogate(text) == at


def test_both_parsers_of_base_lines_agree() -> None:
    """What stands first in a line decides only how fast it is read."""
    spellings: list[Callable[[str], str]] = [
        str,
        lambda line: " " + line,
        lambda line: line.replace('"key"', ' "key"', 1),
    ]
    for line in ('{"key":"k","value":1}', '{"key":"k"}', '{"key":"k","value":1,"id":2}'):
        assert len({encode_request(parse_line(spell(line).encode())) for spell in spellings}) == 1
