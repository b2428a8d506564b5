"""Claims about the parts of `chaos`: what a reply means, how a history is written down, when nodes are whole."""

from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from trio_kv.check.exchange import Exchange
from trio_kv.check.history import History, decode_history
from trio_kv.check.replay import Accusation, Replayed
from trio_kv.check.streams import Line, Span
from trio_kv.kv.operations import Cas, Delete, Get, Set
from trio_kv.sim.chaos import judge
from trio_kv.sim.chaos.judge import Question, form_opinion
from trio_kv.sim.chaos.outcomes import DEFINITE_CODES, NonsenseError, Outcome, classify
from trio_kv.sim.chaos.recorder import Group, Recorder
from trio_kv.sim.chaos.recovery import compare_nodes
from trio_kv.wire.operations import Request
from trio_kv.wire.replies import encode_error, parse_reply

GET = Request(Get("k"))
SET = Request(Set("k", msgspec.Raw(b'"a"')))
DELETE = Request(Delete("k"))
CAS = Request(Cas("k", msgspec.Raw(b'"a"'), msgspec.Raw(b'"b"')))


@pytest.mark.parametrize(
    ("request_", "line", "outcome"),
    [
        (GET, b'{"key":"k","value":"z","status":"ok"}', ("ok", b'"z"')),
        (GET, b'{"key":"k","value":null,"status":"error"}', ("missing", None)),
        (GET, b'{"key":"k","value":null,"status":"ok"}', ("ok", b"null")),
        (SET, b'{"key":"k","value":"a","status":"ok"}', ("ok", None)),
        (DELETE, b'{"key":"k","value":"z","status":"ok"}', ("ok", b'"z"')),
        (DELETE, b'{"key":"k","value":null,"status":"error"}', ("missing", None)),
        (CAS, b'{"key":"k","value":"a","status":"ok"}', ("ok", None)),
        (CAS, b'{"key":"k","value":"z","status":"error","error":"conflict"}', ("conflict", b'"z"')),
        (CAS, b'{"key":"k","value":null,"status":"error","error":"conflict"}', ("conflict", None)),
        (SET, b'{"close":"shutdown"}', ("failed", None)),
        (SET, b'{"key":"k","value":null,"status":"error","error":"timeout"}', ("unknown", None)),
        (CAS, b'{"key":"k","value":null,"status":"error","error":"session_expired"}', ("unknown", None)),
        (SET, b'{"key":"k","value":null,"status":"error","error":"new_code"}', ("unknown", None)),
        (GET, b'{"key":"k","value":null,"status":"error","error":"new_code"}', ("failed", None)),
        (SET, None, ("unknown", None)),
        (DELETE, None, ("unknown", None)),
        (CAS, None, ("unknown", None)),
        (GET, None, ("failed", None)),
    ],
)
def test_what_a_reply_means(request_: Any, line: bytes | None, outcome: tuple[str, bytes | None]) -> None:
    """Only what surely had no effect counts as failed; a write without a word of that kind is unknown."""
    assert classify(request_, None if line is None else parse_reply(line)) == outcome


@pytest.mark.parametrize("code", sorted(DEFINITE_CODES - {"conflict", "closed"}))
def test_definite_errors_are_failures(code: str) -> None:
    """The codes that the protocol gives only to what was not applied."""
    reply = parse_reply(encode_error(code, "words", "k"))
    assert classify(SET, reply) == classify(GET, reply) == ("failed", None)


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        (GET, b'{"key":"other","value":"z","status":"ok"}'),
        (GET, b'{"status":"ok"}'),
        (SET, b'{"key":"k","value":"z","status":"ok"}'),
        (SET, b'{"key":"k","value":null,"status":"error"}'),
        (GET, b'{"key":"k","value":"z","status":"error","error":"conflict"}'),
        (GET, b'{"id":1,"key":"k","value":"z","status":"ok"}'),
        (Request(Get("k"), id=msgspec.Raw(b"2")), b'{"id":1,"key":"k","value":"z","status":"ok"}'),
    ],
)
def test_nonsense_is_noticed(request_: Any, line: bytes) -> None:
    """Replies to another question, or that no state of the store explains."""
    with pytest.raises(NonsenseError):
        classify(request_, parse_reply(line))


def test_keys_are_replaced_and_their_groups_closed(tmp_path: Path) -> None:
    """A key is in use for some hundred operations; when its last one has ended, its group is whole in the file."""
    closed: list[Group] = []
    clock = iter(range(1_000_000))
    recorder = Recorder(
        tmp_path / "groups",
        Random(1),
        lambda: float(next(clock)),
        keys=2,
        prefix="x-",
        on_closed=closed.append,
    )
    random = Random(2)
    slow = recorder.call(1, Request(Get(first := recorder.draw_key(random))))
    calls = 0
    while len(closed) < 3:
        key = recorder.draw_key(random)
        number = recorder.call(2, Request(Set(key, msgspec.Raw(b'"v%d"' % calls))))
        recorder.end(number, "unknown" if calls % 10 == 0 else "ok", None, code="ok", node=3)
        calls += 1
    assert first not in recorder.groups, "an operation on it is under way"
    recorder.retire()
    assert recorder.end(slow, "missing", None, code="missing", node=0).client == 1
    assert sum(group.operations for group in recorder.groups.values()) == calls + 1 == recorder.recorded
    assert all(200 <= group.operations <= 500 for group in closed[:3])
    recorder.finish(tmp_path / "history", [])
    history = decode_history((tmp_path / "history").read_bytes().splitlines())
    assert [operation.op for operation in history.operations] == ["get"] + ["set"] * calls
    assert all((each.return_s is None) == (each.outcome == "unknown") for each in history.operations)


def test_keys_of_ones_own_and_stale_reads(tmp_path: Path) -> None:
    """A key that was taken is drawn by nobody and whole when its owner leaves it; stale reads stand in no history."""
    closed: list[Group] = []
    clock = iter(range(1_000_000))
    recorder = Recorder(
        tmp_path / "groups",
        Random(1),
        lambda: float(next(clock)),
        keys=1,
        prefix="x-",
        on_closed=closed.append,
    )
    own = recorder.take_key()
    assert {recorder.draw_key(Random(seed)) for seed in range(10)} == {"x-k1"} != {own}
    for number in range(1000):
        request = Request(Set(own, msgspec.Raw(b"%d" % number)))
        recorder.end(recorder.call(1, request), "ok", None, code="ok", node=0)
    stale = recorder.call(1, Request(Get(own), is_stale=True))
    recorder.leave_key(own)
    assert not closed, "a read of it is under way"
    operation = recorder.end(stale, "ok", b"7", code="ok", node=2)
    assert (operation.op, operation.result, operation.node) == ("get", b"7", 2)
    assert [(group.key, group.operations) for group in closed] == [(own, 1000)]
    assert recorder.outcomes == {("set", "ok"): 1000, ("stale", "ok"): 1}
    assert recorder.recorded == 1000
    recorder.finish(tmp_path / "history", [])


def test_the_longest_gap(tmp_path: Path) -> None:
    """The longest time without an acknowledged write counts from the beginning to the end; reads don't count."""
    times: list[float] = [0.0]
    recorder = Recorder(
        tmp_path / "groups", Random(1), lambda: times[-1], keys=1, prefix="", on_closed=lambda _: None
    )
    outcomes: list[tuple[float, Outcome]] = [
        (2.0, "ok"),
        (3.0, "conflict"),
        (4.0, "failed"),
        (8.0, "ok"),
        (9.0, "unknown"),
    ]
    for at, outcome in outcomes:
        times.append(at)
        request = Request(Cas("k1", msgspec.Raw(b"1")))
        recorder.end(recorder.call(1, request), outcome, None, code="", node=0)
    assert (recorder.longest_gap_from_s, recorder.longest_gap_s) == (3.0, 5.0)
    times.append(20.0)
    recorder.retire()
    recorder.finish(tmp_path / "history", [])
    assert (recorder.longest_gap_from_s, recorder.longest_gap_s) == (8.0, 12.0)


def test_when_the_nodes_are_whole() -> None:
    """All run, and all hold the same at the same index."""
    up = {"node": 1, "state": "up", "applied": 7, "digest": "a"}
    assert compare_nodes({"nodes": [up, {**up, "node": 2}]}) == ""
    assert "n2 is crashed" in compare_nodes({"nodes": [up, {**up, "node": 2, "state": "crashed"}]})
    assert "applied up to 7, 8" in compare_nodes({"nodes": [up, {**up, "node": 2, "applied": 8}]})
    assert "different data" in compare_nodes({"nodes": [up, {**up, "node": 2, "digest": "b"}]})


def read_late(told: str) -> list[Exchange]:
    """A key that was to live for a second is read when the store has been whole for a minute."""
    asked = b'{"op":"set","key":"f/a","value":1,"ttl":1.0,"meta":true}'
    return [
        Exchange(1, asked, 0.0, 0.1, b'{"key":"f/a","value":1,"status":"ok","revision":5}'),
        Exchange(2, b'{"op":"get","key":"f/a","meta":true}', 60.0, 60.1, told.encode()),
    ]


@pytest.mark.parametrize("is_watched", [True, False])
def test_a_key_that_outlives_its_time_is_found(is_watched: bool) -> None:
    """By the log, as a watch was told of it, and by replies alone."""
    lines = [Line(0, 5, (("set", "f/a", msgspec.Raw(b"1")),))] if is_watched else []
    spans = [Span(0, 1, 9, -1.0)] if is_watched else []
    question = Question((), calm_from_s=1.0, spans=spans, last_revision=9)
    there = read_late('{"key":"f/a","value":1,"status":"ok","revision":5,"ttl":0.0}')
    opinion = form_opinion(History((), (), tuple(there)), lines, question)
    assert opinion.verdict == "violation"
    assert "was to be gone at" in opinion.reason
    gone = read_late('{"key":"f/a","value":null,"status":"error","revision":0}')
    lines += [Line(0, 7, (("expire", "f/a", msgspec.Raw(b"null")),))] if is_watched else []
    opinion = form_opinion(History((), (), tuple(gone)), lines, question)
    assert (opinion.verdict, opinion.is_watched) == ("valid", is_watched)


@pytest.mark.parametrize(
    ("spans", "doubts", "verdict"),
    [
        ([Span(0, 1, 9, -1.0)], (), "valid"),
        ([], (), "violation"),
        ([], ("36 lost increments of one key",), "unknown"),
    ],
)
def test_what_replies_leave_open_accuses_nobody(
    monkeypatch: pytest.MonkeyPatch, spans: list[Span], doubts: tuple[str, ...], verdict: str
) -> None:
    """Who knows the log need not guess from replies; and behind a guess that could not be made nothing is certain."""
    replayed = Replayed(2, (Accusation("an answer that can't be"),), doubts)
    monkeypatch.setattr(judge, "judge_replies", lambda exchanges, calm_from_s: replayed)
    told = read_late('{"key":"f/a","value":1,"status":"ok","revision":5,"ttl":0.5}')
    question = Question((), spans=spans, last_revision=9)
    lines = [Line(0, 5, (("set", "f/a", msgspec.Raw(b"1")),))] if spans else []
    assert form_opinion(History((), (), tuple(told)), lines, question).verdict == verdict
