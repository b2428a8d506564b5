"""Whatever a client sends, in whatever pieces: a session does not raise, and answers each line in one line."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import fields

from tests.hostile import SEEDS, run_one
from trio_kv.wire.operations import OPERATIONS

WORDS = sorted(
    {each.encode_name for kind in OPERATIONS.values() for each in fields(kind)}
    | {"op", "id", "timeout", "consistency", "meta", "session", "seq", "done"}
)
"""All members that there are, as operations come."""
TEXTS = [
    *("null", "true", "0", "-0", "1", "60", "1.5", "1e999", "9223372036854775808", '""', '"a"', '"stale"'),
    *("[]", "{}", '["a"]', '{"key":"a"}', '[{"key":"a","equals":1}]', '[{"op":"set","key":"a","value":1}]'),
    *(
        '"\\ud800"',
        '"\u00e9"',
        "[" * 130 + "]" * 130,
        "nonsense",
        '{"key":"a","key":"b"}',
        '"' + "k" * 5000 + '"',
    ),
]
names = st.sampled_from(WORDS) | st.text(max_size=4)
values = st.sampled_from([*TEXTS, *(f'"{name}"' for name in OPERATIONS)])


def make_line(members: list[tuple[str, str]]) -> bytes:
    return ("{" + ",".join(f'"{name}":{text}' for name, text in members) + "}").encode(errors="surrogatepass")


@st.composite
def likely_lines(draw: Any) -> bytes:
    """Return a line of an operation that has most of its members, and perhaps others."""
    name = draw(st.sampled_from(sorted(OPERATIONS)))
    known = [each.encode_name for each in fields(OPERATIONS[name])]
    chosen = draw(st.lists(st.sampled_from(known or ["id"]), max_size=5, unique=True))
    others = draw(st.lists(st.tuples(names, values), max_size=2))
    return make_line([("op", f'"{name}"'), *((each, draw(values)) for each in chosen), *others])


lines = (
    likely_lines() | st.lists(st.tuples(names, values), max_size=5).map(make_line) | st.binary(max_size=40)
)
ends = st.sampled_from([b"\n", b"\n", b"\r\n", b"", b" \n\n"])
inputs = st.builds(
    lambda head, body: bytes(head) + b"".join(line + end for line, end in body),
    st.tuples(st.integers(0, 1), st.integers(0, 255)),
    st.lists(st.tuples(lines | st.sampled_from(SEEDS), ends), max_size=8),
)


@given(inputs)
@example(b"\x01\x05" + b"".join(SEEDS))
@example(b"\x00\x05" + b"".join(SEEDS))
@example(b"\x00\x0d" + SEEDS[0] + b'{"value0::0}\r\n')
def test_nothing_that_a_client_sends_raises(data: bytes) -> None:
    """With tokens and limits and without, cut anywhere; what is said does not depend on the cuts."""
    run_one(data)
