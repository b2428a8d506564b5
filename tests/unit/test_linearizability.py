"""The oracle's verdicts and its words, on histories written by hand."""

import attrs
import pytest

from trio_kv.check import blocks, search
from trio_kv.check.effects import prepare
from trio_kv.check.history import Operation
from trio_kv.check.linearizability import BrokenKey, check_history
from trio_kv.check.reasons import KINDS, VALUE_CHARACTERS_MAX, describe_operation, describe_value


def operation(
    client: int,
    op: str,
    span: tuple[float, float | None],
    outcome: str = "ok",
    *,
    value: str | None = None,
    expected: str | None = None,
    result: str | None = None,
) -> Operation:
    """Return an operation on the key `k`; values are given without their quotes."""
    texts = (None if each is None else f'"{each}"'.encode() for each in (value, expected, result))
    written, compared, met = texts
    return Operation(client, op, "k", *span, outcome, written, compared, met)


def write(client: int, call_s: float, return_s: float, value: str) -> Operation:
    return operation(client, "set", (call_s, return_s), value=value)


def read(client: int, call_s: float, return_s: float, value: str | None) -> Operation:
    return operation(client, "get", (call_s, return_s), "missing" if value is None else "ok", result=value)


def delete(client: int, call_s: float, return_s: float, value: str | None) -> Operation:
    return operation(client, "delete", (call_s, return_s), "missing" if value is None else "ok", result=value)


def cas(client: int, call_s: float, return_s: float, expected: str | None, value: str) -> Operation:
    return operation(client, "cas", (call_s, return_s), expected=expected, value=value)


def conflict(client: int, call_s: float, return_s: float, expected: str | None, met: str | None) -> Operation:
    span = (call_s, return_s)
    return operation(client, "cas", span, "conflict", expected=expected, value=f"new-{client}", result=met)


def unknown(each: Operation) -> Operation:
    return attrs.evolve(each, outcome="unknown", return_s=None, result=None)


def failed(each: Operation) -> Operation:
    return attrs.evolve(each, outcome="failed", result=None)


def broken(*operations: Operation) -> BrokenKey:
    """Return the one violation of a history."""
    verdict = check_history(operations)
    assert verdict.outcome == "violation"
    return verdict.violations[0]


GOOD = {
    "nothing happened": [],
    "a missing key": [read(1, 0, 1, None), delete(1, 2, 3, None), conflict(1, 4, 5, "x", None)],
    "a read sees a write that is under way": [write(1, 0, 10, "a"), read(2, 1, 2, "a")],
    "or does not": [write(1, 0, 10, "a"), read(2, 1, 2, None), read(2, 3, 4, "a")],
    "a value is deleted and comes back": [
        write(1, 0, 1, "a"),
        delete(1, 2, 3, "a"),
        read(1, 4, 5, None),
        cas(2, 6, 7, None, "b"),
        conflict(1, 8, 9, "a", "b"),
    ],
    "an unknown set took effect later": [
        unknown(write(1, 0, 1, "a")),
        write(2, 2, 3, "b"),
        read(2, 4, 5, "b"),
        read(2, 6, 7, "a"),
    ],
    "or never": [unknown(write(1, 0, 1, "a")), write(2, 2, 3, "b"), read(2, 4, 5, "b")],
    "an unknown delete took effect much later": [
        write(1, 0, 1, "a"),
        operation(2, "delete", (2, None), "unknown"),
        read(1, 3, 4, "a"),
        read(1, 5, 6, None),
    ],
    "an unknown cas took effect, and what it expected was unknown, too": [
        unknown(write(1, 0, 1, "a")),
        unknown(cas(2, 2, 3, "a", "b")),
        read(3, 4, 5, None),
        read(3, 6, 7, "b"),
    ],
    "two unknown cas that could only feed each other": [
        unknown(cas(1, 0, 1, "a", "b")),
        unknown(cas(2, 0, 1, "b", "a")),
        read(3, 2, 3, None),
    ],
    "an unknown read": [write(1, 0, 1, "a"), operation(2, "get", (2, None), "unknown")],
    "a failed write": [write(1, 0, 1, "a"), failed(write(2, 2, 3, "b")), read(1, 4, 5, "a")],
    "moments that touch are concurrent": [write(1, 0, 1, "a"), write(2, 1, 2, "b"), read(1, 2, 3, "a")],
    "two deletes, of which one can wait": [
        write(1, -2, -1, "x"),
        write(2, 0, 100, "late"),
        delete(3, 0, 100, "late"),
        write(4, 0, 10, "early"),
        delete(5, 0, 10, "early"),
        read(1, 1, 2, None),
        write(1, 20, 21, "y"),
        read(1, 22, 23, "y"),
        read(1, 30, 31, None),
    ],
    "two cas that need a missing key, of which one can wait": [
        cas(1, 0, 100, None, "late"),
        cas(2, 0, 10, None, "early"),
        write(3, 20, 30, "x"),
        delete(4, 20, 30, "x"),
    ],
    "the same value again": [
        write(1, 0, 1, "a"),
        write(2, 2, 3, "b"),
        write(1, 4, 5, "a"),
        read(2, 6, 7, "a"),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_good_history(name: str) -> None:
    """There is an order, and both ways to judge find it."""
    verdict = check_history(GOOD[name])
    assert verdict.is_valid
    assert verdict.outcome == "valid"
    assert verdict.operations == len(GOOD[name])
    assert search.find_order(prepare(GOOD[name]), 1000) is True


BAD = [
    (
        "unfounded conflict",
        [write(1, 0, 1, "a"), conflict(2, 2, 3, "a", "a")],
        (
            'client 2 met "a" with a cas from "a" to "new-2" at 3.000 s (asked at 2.000 s), which is just '
            "what it expected"
        ),
    ),
    (
        "phantom value",
        [write(1, 0, 1, "a"), read(2, 2, 3, "b")],
        'client 2 read "b" at 3.000 s (asked at 2.000 s), but nobody ever wrote it',
    ),
    (
        "effect of a failed write",
        [failed(write(1, 0, 1, "a")), read(2, 2, 3, "a")],
        (
            'client 2 read "a" at 3.000 s (asked at 2.000 s), but client 1\'s set of it had failed, so '
            "it must never take"
            " effect"
        ),
    ),
    (
        "effect of a failed write",
        [write(2, 0, 1, "a"), conflict(1, 2, 3, "b", "a"), read(2, 4, 5, "new-1")],
        (
            'client 2 read "new-1" at 5.000 s (asked at 4.000 s), but client 1\'s cas of it met a '
            "conflict, so it must never"
            " take effect"
        ),
    ),
    (
        "value from the future",
        [read(2, 0, 1, "a"), write(1, 2, 3, "a")],
        (
            'client 2 read "a" at 1.000 s (asked at 0.000 s), but client 1\'s set of it was asked for only '
            "at 2.000 s"
        ),
    ),
    (
        "value used twice",
        [write(1, 0, 1, "a"), cas(1, 2, 6, "a", "b"), cas(2, 3, 7, "a", "c")],
        (
            'client 2 succeeded with a cas from "a" to "c" at 7.000 s (asked at 3.000 s), but client '
            '1\'s cas from "a" to '
            '"b" (2.000 s to 6.000 s) used up the same "a", which was written only once'
        ),
    ),
    (
        "value used twice",
        [write(1, 0, 1, "a"), delete(1, 2, 6, "a"), delete(2, 3, 7, "a")],
        (
            'client 2 deleted "a" at 7.000 s (asked at 3.000 s), but client 1\'s delete of "a" (2.000 s '
            "to 6.000 s) used up "
            'the same "a", which was written only once'
        ),
    ),
    (
        "stale read",
        [write(1, 1, 1.1, "c1-7"), write(2, 1.15, 1.198, "c2-9"), read(3, 1.2, 1.204, "c1-7")],
        (
            'client 3 read "c1-7" at 1.204 s (asked at 1.200 s), but client 2\'s set of "c2-9" had '
            "returned at 1.198 s and "
            'nothing wrote "c1-7" afterwards'
        ),
    ),
    (
        "stale read",
        [write(1, 0, 1, "a"), write(1, 2, 3, "b"), read(1, 4, 5, "a")],
        (
            'client 1 read "a" at 5.000 s (asked at 4.000 s), but its own set of "b" had returned at '
            "3.000 s and nothing "
            'wrote "a" afterwards'
        ),
    ),
    (
        "stale read",
        [
            write(1, 0, 20, "a"),
            write(2, 0, 20, "b"),
            read(3, 1, 2, "a"),
            read(3, 3, 4, "b"),
            read(4, 5, 6, "a"),
        ],
        (
            'client 4 read "a" at 6.000 s (asked at 5.000 s), but client 3\'s read of "a" had returned '
            "at 2.000 s, then "
            'client 3\'s read of "b" had returned at 4.000 s, and nothing wrote "a" again'
        ),
    ),
    (
        "stale read",
        [write(1, 0, 20, "a"), cas(2, 0, 20, "a", "b"), read(3, 1, 2, "b"), read(4, 5, 6, "a")],
        (
            'client 4 read "a" at 6.000 s (asked at 5.000 s), but client 3\'s read of "b" had returned '
            'at 2.000 s, after "a", '
            "and nothing wrote it again"
        ),
    ),
    (
        "stale read",
        [write(1, 0, 1, "a"), write(2, 0, 5, "b"), read(3, 3, 10, "b"), read(4, 6, 11, "a")],
        (
            'client 4 read "a" at 11.000 s (asked at 6.000 s), but client 2\'s set of "b" had returned '
            "at 5.000 s, and its "
            'value came after "a": client 3\'s read of "b" was asked for at 3.000 s, when client 1\'s '
            'set of "a" had '
            "returned at 1.000 s"
        ),
    ),
    (
        "lost update",
        [write(1, 0, 1, "a"), write(2, 2, 3, "b"), cas(3, 4, 5, "a", "c")],
        (
            'client 3 succeeded with a cas from "a" to "c" at 5.000 s (asked at 4.000 s), but client '
            '2\'s set of "b" had '
            'returned at 3.000 s and nothing wrote "a" afterwards'
        ),
    ),
    (
        "lost write",
        [write(1, 0, 1, "a"), read(2, 2, 3, None)],
        (
            'client 2 found no key at 3.000 s (asked at 2.000 s), but client 1\'s set of "a" had '
            "returned at 1.000 s and "
            "nothing deleted the key afterwards"
        ),
    ),
    (
        "lost write",
        [write(1, 0, 1, "a"), delete(1, 2, 3, "a"), write(2, 4, 5, "b"), cas(1, 6, 7, None, "c")],
        (
            'client 1 succeeded with a cas from no key to "c" at 7.000 s (asked at 6.000 s), but client '
            '2\'s set of "b" had '
            "returned at 5.000 s and nothing deleted the key afterwards"
        ),
    ),
    (
        "lost write",
        [write(1, 0, 1, "a"), delete(2, 2, 3, None)],
        (
            'client 2 found no key to delete at 3.000 s (asked at 2.000 s), but client 1\'s set of "a" '
            "had returned at "
            "1.000 s and nothing deleted the key afterwards"
        ),
    ),
    (
        "no order",
        [
            write(1, 0, 1, "a"),
            delete(2, 2, 6, "a"),
            cas(3, 2, 6, None, "b"),
            read(4, 3, 4, "b"),
            read(4, 5, 7, None),
        ],
        (
            "client 4 found no key at 7.000 s (asked at 5.000 s), which has no place in any order with "
            "client 1's set of "
            '"a" (0.000 s to 1.000 s) and client 2\'s delete of "a" (2.000 s to 6.000 s) and client 3\'s '
            'cas from no key to "b" '
            '(2.000 s to 6.000 s) and its own read of "b" (3.000 s to 4.000 s)'
        ),
    ),
]


@pytest.mark.parametrize(("kind", "operations", "words"), BAD)
def test_bad_history(kind: str, operations: list[Operation], words: str) -> None:
    """Each kind of violation is found and told in words, in the midst of what is right."""
    before = [write(9, -9, -8, "old"), read(9, -7, -6, "old"), delete(9, -5, -4, "old")]
    after = [write(8, 28, 29, "late"), read(8, 30, 31, "late")]
    found = broken(*before, *operations, *after)
    assert (found.kind, found.words) == (kind, words)


def test_every_kind_has_an_example() -> None:
    """No kind of violation goes without a test of its words."""
    assert {kind for kind, _, _ in BAD} == set(KINDS)


def test_smallest_part() -> None:
    """Of a long history only what has no order is shown, with the first illegal step."""
    history = []
    for number in range(200):
        history.append(write(1, number, number + 0.4, f"v{number}"))
        history.append(read(2, number + 0.5, number + 0.9, f"v{number - (number == 150)}"))
    found = broken(*history)
    assert found.illegal == read(2, 150.5, 150.9, "v149")
    assert found.operations == (write(1, 150, 150.4, "v150"), found.illegal)


def test_first_violation_is_shown() -> None:
    """Where much is wrong, the first that went wrong is told."""
    assert broken(read(2, 4, 5, "x"), write(1, 0, 1, "a"), read(1, 2, 3, None)).illegal.call_s == 2


def test_what_depends_on_a_write_is_not_shown_without_it() -> None:
    """No value looks like a phantom because its writer was left out."""
    found = broken(
        write(1, 0, 20, "a"),
        write(2, 0, 20, "b"),
        read(3, 1, 2, "a"),
        read(3, 3, 4, "b"),
        read(4, 5, 6, "a"),
    )
    assert len(found.operations) == 5


def test_keys_are_judged_one_by_one() -> None:
    """A broken key does not hide another one, and keys come in order."""
    ops = [write(1, 0, 1, "a"), read(1, 2, 3, None)]
    verdict = check_history(
        [attrs.evolve(each, key=key) for key in ("z", "good", "b") for each in ops[: 1 + (key != "good")]]
    )
    assert [each.key for each in verdict.violations] == ["b", "z"]
    assert verdict.keys == 3
    assert verdict.words.splitlines()[0] == "5 operations on 3 keys: not linearizable"
    assert verdict.words.splitlines()[1].startswith("lost write of b: client 1 found no key")


def twins(count: int) -> list[Operation]:
    """Return concurrent writes of few values, and a read that none of their orders explains."""
    writes = [write(client, 0, 10, f"v{client % 5}") for client in range(count)]
    return [*writes, read(count, 11, 12, "v1"), read(count, 13, 14, "v2")]


def test_verdict_is_unknown_at_the_limit() -> None:
    """A search that is given up says so, and does not guess."""
    verdict = check_history(twins(24), steps_max=50)
    assert verdict.outcome == "unknown"
    assert not verdict.is_valid
    assert verdict.undecided == ("k",)
    assert "undecided: k has too many orders to try" in verdict.words


def test_search_ends_where_orders_are_countless() -> None:
    """Ten concurrent writes have millions of orders, and far fewer configurations."""
    assert check_history(twins(10)).outcome == "violation"


def test_no_depth_limit() -> None:
    """A long history does not run out of stack, however it is judged."""
    history = []
    for number in range(1500):
        history.append(write(1, number, number + 0.4, f"v{number % 3}"))
        history.append(read(2, number + 0.5, number + 0.9, f"v{number % 3}"))
    assert not blocks.has_unique_values(prepare(history))
    assert check_history(history).is_valid


def test_many_unknown_deletes() -> None:
    """Operations that may take effect at any time do not make the work explode; one delete is missing "
    "or is not.
    """
    deletes = [operation(client, "delete", (0, None), "unknown") for client in range(50)]
    history = []
    for number in range(50):
        history.append(write(200, 2 * number, 2 * number + 0.4, f"v{number}"))
        history.append(read(200, 2 * number + 0.5, 2 * number + 0.9, f"v{number}"))
        history.append(read(200, 2 * number + 1, 2 * number + 1.4, None))
    assert check_history([*deletes, *history]).is_valid
    assert not check_history([*deletes[1:], *history]).is_valid


def test_told_values_are_short_and_visible() -> None:
    """A value from outside is neither endless nor invisible where it is told."""
    assert describe_value(b'"' + b"x" * 100) == '"' + "x" * (VALUE_CHARACTERS_MAX - 2) + "…"
    assert describe_value('"\u202e\x00"'.encode()) == '"\\u202e\\u0000"'
    assert describe_value(b"\xff") == "�"
    assert describe_value(None) == "no key"


@pytest.mark.parametrize(
    ("each", "words"),
    [
        (write(1, 0, 1, "a"), 'set "a"'),
        (read(1, 0, 1, "a"), 'get: "a"'),
        (read(1, 0, 1, None), "get: no key"),
        (delete(1, 0, 1, "a"), 'delete: "a"'),
        (cas(1, 0, 1, None, "a"), 'cas no key → "a"'),
        (conflict(1, 0, 1, "a", "b"), 'cas "a" → "new-1": conflict, "b"'),
        (unknown(write(1, 0, 1, "a")), 'set "a": unknown'),
        (failed(write(1, 0, 1, "a")), 'set "a": failed'),
    ],
)
def test_told_operation(each: Operation, words: str) -> None:
    """What was asked and what came of it is told in a few words."""
    assert describe_operation(each) == words
