"""What watches were told, judged by what clients know: a stream that can't be is found."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from tests.property.test_replay import Copy, run
from trio_kv.check.exchange import Exchange
from trio_kv.check.history import History, Operation
from trio_kv.check.streams import Line, Span, StreamOrder, judge_streams
from trio_kv.check.violation import Violation

LAST = 1 << 30


def line(watch: int, revision: int, *events: tuple[str, str, bytes | None]) -> Line:
    """Return what a watch is told of a revision."""
    return Line(
        watch, revision, tuple((kind, key, msgspec.Raw(value or b"null")) for kind, key, value in events)
    )


def lines_of(copy: Copy, watch: int) -> list[Line]:
    """Return what a watch would be told of all that a copy of the data did."""

    def event(revision: int, key: str, value: bytes | None) -> tuple[str, str, bytes | None]:
        gone = "expire" if revision in copy.expiries else "delete"
        return (gone if value is None else "set"), key, value

    return [
        line(watch, revision, *(event(revision, key, value) for key, value in sorted(changes.items())))
        for revision, changes in copy.changes.items()
    ]


def judge(told: Sequence[Exchange], lines: Sequence[Line], *watches: int) -> tuple[bool, list[str]]:
    """Judge watches that began before all was asked, and were told all."""
    spans = [Span(watch, 0, LAST, -1e9) for watch in watches]
    return judge_streams(History((), (), tuple(told)), lines, spans, LAST)


@pytest.mark.parametrize("seed", range(5))
def test_what_was_done_is_told(seed: int) -> None:
    """One watch or two, with writes of which nobody else knows what became of them."""
    told, copy = run(seed)
    assert judge(told, lines_of(copy, 0), 0) == (True, [])
    assert judge(told, lines_of(copy, 0) + lines_of(copy, 1), 0, 1) == (True, [])


def leave_out(lines: list[Line]) -> list[Line]:
    """Leave a revision out."""
    return lines[:40] + lines[41:]


def repeat(lines: list[Line]) -> list[Line]:
    """Tell of a revision once more, as of another one."""
    return [*lines, msgspec.structs.replace(lines[40], revision=lines[-1].revision + 1)]


def halve(lines: list[Line]) -> list[Line]:
    """Leave out one of the changes of a transaction."""
    place = next(place for place, each in enumerate(lines) if len(each.events) > 2)
    short = msgspec.structs.replace(lines[place], events=lines[place].events[1:])
    return [*lines[:place], short, *lines[place + 1 :]]


def end_early(lines: list[Line]) -> list[Line]:
    """Call a delete the end of the key's time."""
    place = next(place for place, each in enumerate(lines) if each.events[0][0] == "delete")
    (_, key, value), *rest = lines[place].events
    early = msgspec.structs.replace(lines[place], events=(("expire", key, value), *rest))
    return [*lines[:place], early, *lines[place + 1 :]]


@pytest.mark.parametrize("spoil", [leave_out, repeat, halve, end_early])
def test_a_stream_that_is_wrong_is_found(spoil: Callable[[list[Line]], list[Line]]) -> None:
    """By what clients were told, and by what another watch was told."""
    told, copy = run(3, lost_share=0.0)
    wrong = spoil(lines_of(copy, 0))
    if spoil is not end_early:
        assert judge(told, wrong, 0)[1]
    assert judge(told, wrong + lines_of(copy, 1), 0, 1)[1]


def test_a_watch_that_began_later_is_held_against_others_alone() -> None:
    """It does not know what was done before; in its span it is told the same as others."""
    told, copy = run(4)
    lines = lines_of(copy, 0)
    first = lines[30].revision
    late = [msgspec.structs.replace(each, watch=1) for each in lines[30:]]
    history = History((), (), tuple(told))
    span, other = Span(1, first - 1, LAST, 1e9), Span(0, 0, LAST, -1e9)
    assert judge_streams(history, late, [span], LAST) == (False, [])
    assert judge_streams(history, lines + late, [span, other], LAST) == (True, [])
    assert judge_streams(history, lines + late[:-1], [span, other], LAST)[1]


def operation(op: str, outcome: str, value: bytes | None = None) -> Operation:
    """Return what was asked of a register."""
    members: Mapping[str, Any] = {"result": b'"x"'} if (op, outcome) == ("delete", "ok") else {}
    return Operation(1, op, "k", 1.0, None if outcome == "unknown" else 2.0, outcome, value=value, **members)


@pytest.mark.parametrize(
    ("asked", "events", "words"),
    [
        ([operation("set", "ok", b"1")], [("set", b"1")], None),
        ([operation("set", "ok", b"1")], [], "whose write was acknowledged"),
        ([operation("set", "ok", b"1")], [("set", b"1"), ("set", b"1")], "told 2 times"),
        ([operation("set", "unknown", b"1")], [("set", b"1")], None),
        ([operation("set", "unknown", b"1")], [], None),
        ([operation("set", "failed", b"1")], [("set", b"1")], "nobody wrote, or in vain"),
        ([operation("cas", "conflict", b"1")], [("set", b"1")], "nobody wrote, or in vain"),
        ([operation("delete", "ok")], [("delete", None)], None),
        ([operation("delete", "ok")], [], "0 deletes; 1 were acknowledged"),
        ([operation("delete", "missing")], [("delete", None)], "1 deletes; 0 were acknowledged"),
        ([operation("delete", "unknown")], [("delete", None)], None),
        ([operation("delete", "missing")], [("expire", None)], "written for good"),
    ],
)
def test_each_write_of_a_register_is_told_once(
    asked: list[Operation], events: list[tuple[str, bytes | None]], words: str | None
) -> None:
    """What was acknowledged is told once, what failed is not, what nobody knows of may be."""
    lines = [line(0, number, (kind, "k", value)) for number, (kind, value) in enumerate(events, 5)]
    is_whole, found = judge_streams(History(tuple(asked)), lines, [Span(0, 1, LAST, 0.0)], LAST)
    assert is_whole
    assert (words is None) == (not found), found
    assert words is None or any(words in each for each in found), found


def told(order: StreamOrder, *what: tuple[str, int]) -> None:
    """Tell a watch something: changes, how far it is, that it is lost, or that something is gone."""
    for kind, revision in what:
        match kind:
            case "lost":
                order.lost(revision)
            case "gone":
                order.jumped(revision, 9.0)
            case _:
                order.told(revision, is_progress=kind == "progress")


def test_a_stream_is_followed_over_its_connections() -> None:
    """Lines, progress, a watch that is lost and begun anew where it stood, and a gap."""
    order = StreamOrder(0)
    assert order.position is None
    order.begun(7, None, 1.0)
    told(order, ("changes", 8), ("progress", 8), ("progress", 11), ("changes", 14), ("lost", 17))
    order.begun(30, 17, 2.0)
    told(order, ("changes", 18), ("gone", 40), ("changes", 40))
    assert [json.loads(msgspec.json.encode(span)) for span in order.spans] == [
        {"watch": 0, "after": 7, "upto": 18, "began_s": 1.0},
        {"watch": 0, "after": 39, "upto": 40, "began_s": 9.0},
    ]


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(("changes", 10), id="a revision twice"),
        pytest.param(("changes", 9), id="back in time"),
        pytest.param(("progress", 9), id="progress back in time"),
        pytest.param(("lost", 10), id="lost where it was told already"),
        pytest.param(("gone", 11), id="gone what is the next one"),
    ],
)
def test_what_one_watch_can_not_be_told(what: tuple[str, int]) -> None:
    """Nothing comes twice or out of order, by whatever line."""
    order = StreamOrder(0)
    order.begun(7, None, 1.0)
    told(order, ("changes", 10))
    with pytest.raises(Violation):
        told(order, what)
