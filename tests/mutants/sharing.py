"""What the nodes of one process share: memory, and nothing else."""

from collections.abc import Callable
from typing import Any

from tests.mutants.registry import Patch, mutant
from trio_kv.kv import machine, outcomes
from trio_kv.kv.operations.operation import Context
from trio_kv.kv.outcomes import Outcome, Outcomes
from trio_kv.kv.reply import Item
from trio_kv.kv.restorer import Restorer
from trio_kv.raft.runs import Run, SharedReader


def machine_tests(*names: str) -> tuple[str, ...]:
    """Return tests of what machines share."""
    return tuple(f"tests/unit/test_sharing.py::{name}" for name in names)


def run_tests(*names: str) -> tuple[str, ...]:
    """Return tests of packed entries."""
    return tuple(f"tests/unit/test_runs.py::{name}" for name in names)


@mutant(
    "kv an item of the machine ahead is taken over without a look at it",
    tests=machine_tests("test_an_item_that_differs_is_not_shared"),
)
def _(patch: Patch) -> None:
    real = Context._make_item

    def share_item(self: Context, key: str, value: Any, before: Item | None, due_us: int | None) -> Item:
        known = None if self.known is None else self.known(key)
        return real(self, key, value, before, due_us) if known is None else known

    patch.setattr(Context, "_make_item", share_item)


@mutant(
    "kv a snapshot's item is whatever another machine holds",
    tests=machine_tests(
        "test_an_item_that_differs_is_not_shared",
        "test_what_is_ahead_of_the_snapshots_machine_is_not_taken_over",
    ),
)
def _(patch: Patch) -> None:
    real = Restorer._add_items

    def add_items(self: Restorer, records: Any, known: Callable[[str], Item | None] | None) -> None:
        real(self, records, known)
        for record in records:
            item = None if known is None else known(record.key)
            if item is not None:
                self._items[record.key] = item

    patch.setattr(Restorer, "_add_items", add_items)


@mutant(
    "kv what comes of a run is taken over whatever the machine held before",
    tests=machine_tests(
        "test_a_wrong_revision_shows_in_the_digest_of_a_plain_set",
        "test_a_run_is_not_taken_over_where_its_session_stands_otherwise",
    ),
)
def _(patch: Patch) -> None:
    patch.setattr(Outcome, "happens_in", lambda self, items, sessions: True)


@mutant(
    "kv what comes of a run is known by its place in the log, whatever stands there",
    tests=machine_tests("test_what_comes_of_other_entries_is_not_taken_over"),
)
def _(patch: Patch) -> None:
    patch.setattr(Outcomes, "find", lambda self, entries: self._by_first.get(entries[0].index))


@mutant(
    "kv a run goes on over a number that has its answer",
    tests=("tests/property/test_machine.py::test_a_run_does_what_its_entries_do_one_by_one",),
)
def _(patch: Patch) -> None:
    def look_ahead(entries: Any, items: Any, sessions: Any) -> Outcome | None:
        forgetful = sessions.copy()
        for session in forgetful.by_id.values():
            session.replies = dict.fromkeys(range(-len(session.replies), 0))
        return outcomes.foresee(entries, items, forgetful)

    patch.setattr(machine, "foresee", look_ahead)


@mutant(
    "raft runs are shared by their place in the log, whatever they hold",
    tests=run_tests("test_a_run_that_differs_in_one_entry_is_not_shared"),
)
def _(patch: Patch) -> None:
    patch.setattr(
        Run, "is_equal", lambda self, other: self.first == other.first and self.count == other.count
    )


@mutant(
    "raft an entry counts as read because another log had one of its index",
    tests=run_tests("test_an_entry_that_differs_is_decoded_and_so_found_unreadable"),
)
def _(patch: Patch) -> None:
    patch.setattr(
        SharedReader, "is_known", lambda self, index, _: getattr(self.shared.find(index), "count", 0) > 0
    )
