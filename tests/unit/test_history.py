"""Histories as JSON lines."""

import math
import re
from pathlib import Path

import pytest

from trio_kv.check.exchange import Exchange
from trio_kv.check.history import (
    Fault,
    History,
    HistoryError,
    Operation,
    RisingClock,
    decode_history,
    encode_history,
    encode_operation,
)
from trio_kv.check.linearizability import check_history
from trio_kv.check.replay_replies import judge_replies

HEADER = b'{"history":"trio_kv","version":2}\n'
SET = Operation(1, "set", "a", 0.5, 0.75, "ok", value=b'{"n": 1.0, "n": 2}', node=2)
CAS = Operation(2, "cas", "b", 0.6, None, "unknown", value=b'"new"', expected=b"null")
CONFLICT = Operation(1, "cas", "b", 0.8, 0.9, "conflict", value=b"1", expected=None, result=b'"x"')
GET = Operation(3, "get", "é\n", 1e-9, 0.1 + 0.2, "missing")


def test_round_trip() -> None:
    """Every operation and fault comes back as it was, its values byte by byte and its moments exactly."""
    operations, faults = (SET, CAS, CONFLICT, GET), (Fault("kill 2", 0.5, None), Fault("cut 1-2", 0, 1.5))
    history = decode_history(encode_history(operations, faults))
    assert history == History(operations, faults)


def test_lines_are_as_documented() -> None:
    """The format does not change by itself: others read it."""
    assert list(encode_history([SET, CAS], [Fault("kill 2", 0.5, 2)])) == [
        HEADER,
        b'{"fault":"kill 2","from_s":0.5,"to_s":2}\n',
        (
            b'{"client":1,"op":"set","key":"a","call_s":0.5,"return_s":0.75,"outcome":"ok","node":2,'
            b'"value":{"n": 1.0, "n": 2}}\n'
        ),
        (
            b'{"client":2,"op":"cas","key":"b","call_s":0.6,"return_s":null,"outcome":"unknown","node":0,'
            b'"value":"new","expected":null}\n'
        ),
    ]


def test_documented_lines() -> None:
    """The examples in the documentation are a history, and one without a fault of the store."""
    page = (Path(__file__).parents[2] / "docs" / "histories.md").read_bytes()
    lines = b"".join(re.findall(rb"```json\n(.*?)```", page, re.DOTALL)).splitlines()
    history = decode_history(lines)
    assert [each.op for each in history.operations] == ["set", "get", "cas", "delete"]
    assert [each.op for each in history.exchanges] == ["incr", "scan", "delete"]
    assert len(history.faults) == 1
    assert check_history(history.operations).is_valid
    assert judge_replies(history.exchanges).outcome == "valid"


def test_the_programs_of_the_documentation_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other, on the history that is shown there."""
    page = (Path(__file__).parents[2] / "docs" / "histories.md").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "history.jsonl").write_text("".join(re.findall(r"```json\n(.*?)```", page, re.DOTALL)))
    names: dict[str, object] = {}
    for program in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(program, names)
    assert capsys.readouterr().out == "4 operations on 1 keys: linearizable\n3 exchanges: one history\n"
    assert "<svg" in (tmp_path / "history.html").read_text()


EXCHANGE = Exchange(4, b'{"op":"incr","key":"n"}', 0.5, 0.75, b'{"key": "n", "value": 1, "status": "ok"}\n')


def test_exchanges_come_back() -> None:
    """Request and reply come back byte by byte; a request without a reply has none."""
    lost = Exchange(4, b'{"op":"scan"}', 0.5)
    history = decode_history(encode_history([SET, EXCHANGE, lost]))
    assert history.operations == (SET,)
    first, second = history.exchanges
    assert (first.client, first.call_s, first.return_s) == (4, 0.5, 0.75)
    assert (first.request, first.reply) == (EXCHANGE.request, b'{"key": "n", "value": 1, "status": "ok"}')
    assert (second.request, second.reply, second.return_s) == (lost.request, None, None)


def test_a_history_of_version_1_is_read() -> None:
    """It had no exchanges; all else was the same."""
    assert decode_history([b'{"history":"trio_kv","version":1}', encode_operation(SET)]).operations == (SET,)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            b'{"client":1,"call_s":1,"request":{},"op":"get"}',
            "there is no member op; known are client, call_s",
        ),
        (b'{"client":1,"request":{}}', "the member call_s is missing"),
        (b'{"client":1,"call_s":1,"request":[]}', "the request is no JSON object"),
        (b'{"client":1,"call_s":1,"return_s":2,"request":{}}', "a reply needs its return_s, and a return_s"),
        (
            b'{"client":1,"call_s":2,"return_s":1,"request":{},"reply":{}}',
            "return_s 1.0 is before call_s 2.0",
        ),
        (b'{"client":"x","call_s":2,"request":{}}', "client: Expected `int`, got `str`"),
    ],
)
def test_a_bad_exchange_is_named(line: bytes, words: str) -> None:
    """An error says what is wrong with it."""
    with pytest.raises(HistoryError, match=re.escape(words)):
        decode_history([HEADER, line])


def test_an_exchange_on_two_lines_is_refused() -> None:
    """It would be two lines of history."""
    with pytest.raises(ValueError, match="holds an end of line"):
        encode_operation(Exchange(1, b'{"op":\n"scan"}', 0.5))


def test_null_is_a_value() -> None:
    """A member that says null is the JSON value null; one that is absent is no value."""
    assert decode_history(encode_history([CAS])).operations[0].expected == b"null"
    assert decode_history(encode_history([CONFLICT])).operations[0].expected is None


def test_lines_may_be_text_and_spaced() -> None:
    """A history may be read from a text file, and blank lines in it are no operations."""
    lines = ["", HEADER.decode(), "  \n", encode_operation(SET).decode()]
    assert decode_history(lines).operations == (SET,)


def test_header_may_say_more() -> None:
    """Whoever writes a history may put more into its first line, like a seed."""
    assert decode_history([b'{"seed":7,"version":2,"history":"trio_kv"}']) == History(())


def test_value_on_two_lines_is_refused() -> None:
    """A value with an end of line would be two lines of history."""
    with pytest.raises(
        ValueError, match=r"the value of .* holds an end of line; write it as one line of JSON"
    ):
        encode_operation(Operation(1, "set", "a", 0, 1, "ok", value=b"[1,\n2]"))


GOOD = b'{"client":1,"op":"get","key":"a","call_s":1,"return_s":2,"outcome":"missing"}'


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], 'no line at all; a history begins with {"history":"trio_kv","version":2}'),
        ([GOOD], 'line 1: a history begins with {"history":"trio_kv","version":2}, but history is nothing'),
        ([b'{"history":"trio_kv","version":3}'], "line 1: .*, but version is 3"),
        ([HEADER, GOOD, b"nonsense"], "line 3: each line is one JSON object; JSON is malformed"),
        ([HEADER, b"[1]"], "line 2: each line is one JSON object; Expected `object`, got `array`"),
        ([HEADER, GOOD.replace(b"get", b"put")], "line 2: op is 'put', not one of get, set, delete, cas"),
        (
            [HEADER, GOOD.replace(b"missing", b"fine")],
            "line 2: the outcome of a get is 'fine', not one of failed, missing, ok",
        ),
        ([HEADER, GOOD.replace(b"missing", b"ok")], "line 2: a get that is ok needs its result"),
        (
            [HEADER, GOOD.replace(b'"return_s":2,', b"")],
            "line 2: return_s is missing, though the outcome missing",
        ),
        ([HEADER, GOOD.replace(b":2,", b":0,")], "line 2: return_s 0.0 is before call_s 1.0"),
        ([HEADER, GOOD.replace(b'"key":"a",', b"")], "line 2: the member key is missing"),
        ([HEADER, GOOD.replace(b'"client":1', b'"client":"x"')], "line 2: client: Expected `int`, got `str`"),
        (
            [HEADER, GOOD.replace(b'"key"', b'"kee"')],
            "line 2: there is no member kee; known are client, op, key",
        ),
        ([HEADER, b'{"fault":"kill"}'], "line 2: the member from_s is missing"),
    ],
)
def test_bad_line_is_named(lines: list[bytes], words: str) -> None:
    """An error says which line is bad, and what would be right."""
    with pytest.raises(HistoryError, match=words.replace("[", r"\[").replace("{", r"\{")):
        decode_history(lines)


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ({"op": "set"}, "a set needs a value"),
        ({"op": "get", "outcome": "missing", "value": b"1"}, "a get has no value"),
        ({"op": "set", "value": b"1", "expected": b"1"}, "a set has no expected"),
        ({"op": "set", "value": b"1", "result": b"1"}, "a set with outcome ok has no result"),
        ({"op": "set", "value": b"1", "outcome": "conflict"}, "the outcome of a set is 'conflict'"),
        ({"op": "delete"}, "a delete that is ok needs its result"),
        ({"op": "get", "result": b"1", "call_s": math.nan}, "call_s is nan, not a moment"),
        (
            {"op": "get", "result": b"1", "return_s": math.inf},
            "return_s inf is before call_s 0, or not a moment",
        ),
    ],
)
def test_contradiction_is_refused(operation: dict[str, object], words: str) -> None:
    """An operation that contradicts itself can't be made."""
    members: dict[str, object] = {"client": 1, "key": "a", "call_s": 0, "return_s": 1, "outcome": "ok"}
    with pytest.raises(ValueError, match=words):
        Operation(**members | operation)  # type: ignore[arg-type] # the claim is about what is not right


def test_rising_clock() -> None:
    """Moments of a clock that stands still differ and rise, and are kept as they are where they rise themselves."""
    clock = RisingClock()
    stamps = [clock.stamp(now_s) for now_s in (0.0, 0.0, 0.0, 5.0, 4.0, 6.0)]
    assert stamps == sorted(set(stamps))
    assert (stamps[0], stamps[3], stamps[5]) == (0.0, 5.0, 6.0)
    assert stamps[2] < 1e-300
