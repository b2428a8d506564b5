"""The log against a naive model: a plain list of entries that answers every question by looking."""

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trio_kv.raft.entry import Entry, make_entry
from trio_kv.raft.log import Log


@attrs.define
class Model:
    """All entries that were ever kept, the base included; nothing is indexed."""

    entries: list[Entry] = attrs.field(factory=list)
    base: int = 0
    durable: int = 0

    def kept(self) -> list[Entry]:
        return self.entries[self.base :]

    def term_at(self, index: int) -> int | None:
        if index == 0 and self.base == 0:
            return 0
        if self.base <= index <= len(self.entries):
            return self.entries[index - 1].term
        return None


class LogAgainstList(RuleBasedStateMachine):
    """Any sequence of appends, cuts, completions and compactions leaves the log equal to the list."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.model = Model()

    @rule(count=st.integers(1, 5), newer=st.integers(0, 2), time_us=st.integers(0, 3))
    def append(self, count: int, newer: int, time_us: int) -> None:
        first = len(self.model.entries) + 1
        term, now_us = max(1, self.log.last_term + newer), self.log.last_time_us + time_us
        entries = [make_entry(first + offset, term, now_us, None) for offset in range(count)]
        self.log.append(entries)
        self.model.entries += entries

    @precondition(lambda self: len(self.model.entries) > self.model.base)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(self.model.base + 1, len(self.model.entries)))
        self.log.truncate(first)
        del self.model.entries[first - 1 :]
        self.model.durable = min(self.model.durable, first - 1)

    @rule(data=st.data())
    def store(self, data: st.DataObject) -> None:
        self.model.durable = data.draw(st.integers(self.model.durable, len(self.model.entries)))
        self.log.durable = self.model.durable

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        self.model.base = data.draw(st.integers(self.model.base, self.model.durable))
        self.log.compact(self.model.base)

    @rule()
    def copy(self) -> None:
        original, self.log = self.log, self.log.copy()
        original.append(
            [make_entry(original.last_index + 1, original.last_term + 1, original.last_time_us, None)]
        )

    @invariant()
    def knows_the_same(self) -> None:
        log, model = self.log, self.model
        last = len(model.entries)
        assert (log.base_index, log.last_index, log.durable) == (model.base, last, model.durable)
        assert log.last_term == (model.entries[-1].term if model.entries else 0)
        assert log.last_time_us == (model.entries[-1].time_us if model.entries else 0)
        assert [log.term_at(index) for index in range(last + 3)] == [
            model.term_at(index) for index in range(last + 3)
        ]
        assert list(log.slice(model.base + 1, last)) == model.kept()

    @invariant()
    def knows_its_terms(self) -> None:
        log, model = self.log, self.model
        for entry in model.kept():
            same = [other.index for other in model.kept() if other.term == entry.term]
            assert log.first_index_of_term_at(entry.index) == min(same)
            assert log.last_index_of_term(entry.term) == max(same)
        if not any(entry.term == log.base_term for entry in model.kept()):
            assert log.last_index_of_term(log.base_term) == log.base_index
        assert log.last_index_of_term(log.last_term + 1) is None


TestLogAgainstList = LogAgainstList.TestCase
TestLogAgainstList.settings = settings(max_examples=80, stateful_step_count=25)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 5), max_size=30), st.lists(st.integers(1, 5), max_size=30))
def test_up_to_date_is_a_total_preorder(one: list[int], other: list[int]) -> None:
    """Of any two logs at least one is as up to date as the other, so that some node of a majority can win."""
    logs = [
        Log([make_entry(index, term, 0, None) for index, term in enumerate(sorted(terms), 1)])
        for terms in (one, other)
    ]
    first = logs[0].is_up_to_date(logs[1].last_index, logs[1].last_term)
    second = logs[1].is_up_to_date(logs[0].last_index, logs[0].last_term)
    assert first or second
    if first and second:
        assert (logs[0].last_index, logs[0].last_term) == (logs[1].last_index, logs[1].last_term)
