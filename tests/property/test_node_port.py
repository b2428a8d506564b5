"""The bytes in which requests go to a node of another process, and its answers come back."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drawn_commands import COMMANDS, NUMBERS, TEXTS, VALUES
from trio_kv.kv.operations import Get
from trio_kv.kv.operations.operation import Change
from trio_kv.kv.reply import Reply, TimedReply
from trio_kv.wire.node_port import (
    Answer,
    Batch,
    Done,
    Full,
    Gone,
    NodePortError,
    Propose,
    Pull,
    Read,
    Refused,
    ReplyTo,
    Request,
    Unknown,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)

GET = b'{"op":"get","key":"k"}'
ASKERS = st.builds(ReplyTo, NUMBERS, st.integers(0, 2**64 - 1))
QUERIES = st.lists(st.builds(Get, TEXTS), min_size=1)


@st.composite
def proposals(draw: st.DrawFn) -> Propose:
    """Draw a run, with or without queries in it."""
    commands = draw(st.lists(COMMANDS, min_size=1))
    places = draw(st.sets(st.integers(0, len(commands))))
    queries = tuple((place, draw(QUERIES)) for place in sorted(places))
    return Propose(draw(ASKERS), draw(NUMBERS), commands, draw(NUMBERS), queries)


REQUESTS: st.SearchStrategy[Request] = (
    proposals()
    | st.builds(Read, ASKERS, NUMBERS, QUERIES | st.just([]), st.booleans(), NUMBERS)
    | st.builds(Pull, ASKERS, NUMBERS, NUMBERS)
)
REPLIES = st.builds(
    Reply, st.sampled_from(["ok", "missing", "conflict"]), st.none() | VALUES, NUMBERS, TEXTS
) | st.builds(TimedReply, st.just("ok"), VALUES, NUMBERS, ttl_us=NUMBERS)
CHANGES = st.builds(
    Change, st.sampled_from(["set", "delete", "expire"]), TEXTS, st.none() | VALUES, NUMBERS, NUMBERS
)
ANSWERS: st.SearchStrategy[Answer] = st.one_of(
    st.builds(Done, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.lists(REPLIES)),
    st.builds(Refused, NUMBERS, NUMBERS, st.none() | NUMBERS),
    st.builds(Full, NUMBERS, NUMBERS),
    st.builds(Unknown, NUMBERS, NUMBERS),
    st.builds(Batch, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.lists(CHANGES)),
    st.builds(Gone, NUMBERS, NUMBERS, NUMBERS),
)


@given(REQUESTS)
def test_a_request_comes_out_as_it_went_in(request: Request) -> None:
    """All of it, and each command has in between the bytes that it has in the log."""
    data = encode_request(request)
    decoded = decode_request(data)
    assert decoded == request
    if isinstance(request, Propose):
        assert all(command.encode() in data for command in request.commands)


@given(ASKERS, ANSWERS)
def test_an_answer_comes_out_as_it_went_in(reply_to: ReplyTo, answer: Answer) -> None:
    """All of it, with its values spelled as they were, and to whom it goes."""
    decoded_reply_to, decoded = decode_answer(encode_answer(reply_to, answer))
    assert {decoded_reply_to: decoded} == {reply_to: answer}


@given(
    st.binary()
    | REQUESTS.map(encode_request)
    | st.tuples(ASKERS, ANSWERS).map(lambda each: encode_answer(*each))
)
def test_bytes_are_a_message_or_refused(data: bytes) -> None:
    """Whatever comes, it is a message of the kind that is expected, or a clear error: nothing else is raised."""
    for decode in (decode_request, decode_answer):
        with contextlib.suppress(NodePortError):
            decode(data)


@given(REQUESTS, ASKERS, ANSWERS, st.data())
def test_half_a_message_is_refused(
    request: Request, reply_to: ReplyTo, answer: Answer, data: st.DataObject
) -> None:
    """A message that was cut, or has something behind it, is none."""
    for whole, decode in (
        (encode_request(request), decode_request),
        (encode_answer(reply_to, answer), decode_answer),
    ):
        for wrong in (whole[: data.draw(st.integers(0, len(whole) - 1))], whole + b"\x00"):
            with pytest.raises(NodePortError):
                decode(wrong)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ((1, 2, 3, [b"nonsense"], 0, []), "JSON is malformed"),
        ((1, 2, 3, [b'["grow",1]'], 0, []), "Invalid value 'grow'"),
        ((1, 2, 3, [], 0, []), "length >= 1"),
        ((1, 2, 3, [b'["open",1]'], -1, []), ">= 0"),
        ((1, 2, 3, [b'["open",1]'], 0), "length 6"),
        ((1, 2, "3", [b'["open",1]'], 0, []), "Expected `int`, got `str`"),
        ((1, 2, 3, [b'["open",1]'], 0, [(0, [])]), "length >= 1"),
        ((1, 2, 3, [b'["open",1]'], 0, [(0, [b'{"op":"set"}'])]), "Invalid value 'set'"),
        ((1, 2, 3, [b'["open",1]'], 0, [(2, [GET])]), r"places \[2\] of queries among 1 commands"),
        ((1, 2, 3, [b'["open",1]'], 0, [(1, [GET]), (0, [GET])]), r"places \[1, 0\]"),
        ((1, 2, 3, [b'["open",1]'], 0, [(1, [GET]), (1, [GET])]), r"places \[1, 1\]"),
    ],
)
def test_a_malformed_proposal_says_what_is_wrong(body: tuple[Any, ...], why: str) -> None:
    """A peer of another version, or a bug of ours, is told by the text of the error."""
    with pytest.raises(NodePortError, match=why):
        decode_request(b"P" + msgspec.msgpack.encode(body))
