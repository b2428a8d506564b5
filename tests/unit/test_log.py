"""The log of one node: terms, bounds, truncation and compaction at their edges."""

import pytest

from trio_kv.raft.entry import Entry, make_entry
from trio_kv.raft.log import Log


def make(index: int, term: int, time_us: int = 0) -> Entry:
    return make_entry(index, term, time_us, None)


def log_of(*terms: int) -> Log:
    """Return a log whose entries 1, 2, ... have these terms."""
    return Log([make(index, term) for index, term in enumerate(terms, 1)])


def test_an_empty_log_holds_the_entry_before_the_first() -> None:
    """(0, 0) stands before the first entry, so that a first append has something to join."""
    log = Log()
    assert (log.last_index, log.last_term, log.durable) == (0, 0, 0)
    assert log.has(0, 0)
    assert not log.has(1, 0)


def test_what_a_disk_held_is_durable() -> None:
    """A log made at a start counts as durable to its end; what is appended later does not."""
    log = log_of(1, 1)
    log.append([make(3, 2)])
    assert log.durable == 2


def test_terms_are_known_up_to_the_last_entry_and_not_beyond() -> None:
    """An index that the log doesn't hold has no term, so that no consistency check passes there (paper §5.3)."""
    log = log_of(1, 1, 3)
    assert [log.term_at(index) for index in range(-1, 5)] == [None, 0, 1, 1, 3, None]


def test_truncation_takes_the_durable_index_with_it() -> None:
    """What was cut away is not durable any more, even if the disk still has it."""
    log = log_of(1, 1, 2)
    log.truncate(2)
    assert (log.last_index, log.last_term, log.durable) == (1, 1, 1)
    log.append([make(2, 3)])
    assert log.durable == 1


def test_truncation_never_grows_the_durable_index() -> None:
    """A cut behind the durable part leaves it as it is."""
    log = log_of(1)
    log.append([make(2, 1), make(3, 1)])
    log.truncate(3)
    assert log.durable == 1


@pytest.mark.parametrize("entry", [make(4, 2), make(2, 2), make(3, 0)], ids=["gap", "overlap", "older term"])
def test_what_does_not_follow_is_refused(entry: Entry) -> None:
    """Indexes follow without a gap and terms never decrease: anything else is our own bug, and stops the node."""
    with pytest.raises(AssertionError):
        log_of(1, 1).append([entry])


def test_cluster_time_never_runs_back() -> None:
    """An entry older than the one before it is refused."""
    log = Log([make(1, 1, 50)])
    with pytest.raises(AssertionError):
        log.append([make(2, 1, 49)])


def test_compaction_in_the_middle_of_a_term_keeps_its_rest() -> None:
    """After compaction the base answers for its own term, and the same term's later entries for theirs."""
    log = log_of(1, 2, 2, 2, 3)
    log.compact(3)
    assert (log.base_index, log.base_term) == (3, 2)
    assert [log.term_at(index) for index in (2, 3, 4, 5)] == [None, 2, 2, 3]
    assert log.first_index_of_term_at(4) == 4
    assert log.last_index_of_term(2) == 4
    assert log.last_index_of_term(1) is None


def test_compaction_of_all_keeps_what_the_next_entry_joins() -> None:
    """A log compacted to its end still knows index, term and time of its last entry."""
    log = Log([make(1, 1, 5), make(2, 4, 9)])
    log.compact(2)
    assert (log.last_index, log.last_term, log.last_time_us, log.durable) == (2, 4, 9, 2)
    log.append([make(3, 4, 9)])
    assert log.term_at(3) == 4
    assert log.last_index_of_term(4) == 3


def test_what_is_not_durable_is_not_compacted() -> None:
    """A snapshot never passes the node's own durable index."""
    log = log_of(1)
    log.append([make(2, 1)])
    with pytest.raises(AssertionError):
        log.compact(2)


def test_a_copy_is_a_log_of_its_own() -> None:
    """What happens to a copy does not happen to the original."""
    log = log_of(1, 2)
    twin = log.copy()
    twin.truncate(1)
    twin.append([make(1, 5)])
    assert (log.last_index, log.last_term, log.durable) == (2, 2, 2)


@pytest.mark.parametrize(
    ("last_index", "last_term", "is_up_to_date"),
    [(2, 2, True), (3, 2, True), (1, 2, False), (9, 1, False), (1, 3, True)],
)
def test_a_vote_compares_term_before_index(last_index: int, last_term: int, is_up_to_date: bool) -> None:
    """A later last term wins however short its log; only within one term the longer log does (paper §5.4.1)."""
    assert log_of(1, 2).is_up_to_date(last_index, last_term) is is_up_to_date
