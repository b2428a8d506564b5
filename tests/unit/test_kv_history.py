"""The latest changes: what they are, how far they reach back, and where a piece of them ends."""

from random import Random

import msgspec
import pytest

from trio_kv.kv.history import BLOCKS, CHANGE_BYTES, History
from trio_kv.kv.operations.operation import Change


def change(revision: int, key: str = "k") -> Change:
    return Change("set", key, msgspec.Raw(b"1"), revision, 0)


def fill(history: History, upto: int) -> None:
    for revision in range(history.upto + 1, upto + 1):
        history.note(revision, [change(revision)], 0)


def test_it_tells_what_is_behind_a_revision() -> None:
    """All of it, whatever was noted together; a revision without a change counts as well."""
    history = History(10)
    history.note(13, [change(11), change(13)], 0)
    history.note(15, [], 0)
    assert history.read(10, 100) == (15, [change(11), change(13)])
    assert history.read(12, 100) == (15, [change(13)])
    assert history.read(13, 100) == (15, [])
    assert history.read(15, 100) == (15, [])
    assert history.read(20, 100) == (20, [])


def test_a_piece_ends_with_a_revision() -> None:
    """However many changes that one has."""
    history = History(0)
    many = [change(2, f"k{number}") for number in range(10)]
    history.note(3, [change(1), *many, change(3)], 0)
    assert history.read(0, 1) == (1, [change(1)])
    assert history.read(0, 2) == (2, [change(1), *many])
    assert history.read(1, 3) == (2, many)
    assert history.read(2, 3) == (3, [change(3)])


def test_it_forgets_the_oldest_and_keeps_what_it_promises() -> None:
    """The latest revisions are there, and not many more."""
    history = History(0, revisions_max=1000)
    fill(history, 5000)
    assert 3970 <= history.after <= 4000
    assert [each.revision for each in history.read(4000, 9999)[1]] == list(range(4001, 5001))
    with pytest.raises(AssertionError, match="is before"):
        history.read(history.after - 1, 1)


def test_bytes_are_limited_too() -> None:
    """One that is larger than all that is allowed is kept as long as it is the last."""
    history = History(0, bytes_max=100 * BLOCKS * CHANGE_BYTES)
    fill(history, 10_000)
    assert 100 * (BLOCKS - 2) <= 10_000 - history.after <= 100 * (BLOCKS + 2)
    history.note(10_001, [change(10_001)], 1 << 30)
    assert history.read(10_000, 9) == (10_001, [change(10_001)])
    fill(history, 10_002)
    assert history.read(10_001, 9) == (10_002, [change(10_002)])


@pytest.mark.parametrize("seed", range(20))
def test_it_is_like_a_list(seed: int) -> None:
    """Whatever is noted, and read in whatever pieces."""
    random = Random(seed)
    history = History(5, revisions_max=random.choice((50, 1000)))
    known: list[Change] = []
    upto = 5
    for _ in range(random.randint(1, 300)):
        begin, upto = upto, upto + random.randint(0, 5)
        changes = [
            change(revision, f"k{number}")
            for revision in range(begin + 1, upto + 1)
            for number in range(random.randint(0, 2))
        ]
        history.note(upto, changes, 0)
        known += changes
    at = random.randint(history.after, upto)
    due = [each for each in known if each.revision > at]
    found: list[Change] = []
    while at < upto:
        at, piece = history.read(at, random.randint(1, 20))
        found += piece
    assert (at, found) == (upto, due)
