"""Program order inside a run: a read sees the effects of all writes before it in its run, and of none behind it.

A run's writes stand in the log in a row, once for each attempt. The read between two of them tells the state between
their entries. Where a write behind the read had been applied before, by an earlier attempt, that state may hold its
effect already: then the read has no place any more, and must not be told anything.
"""

from collections.abc import Iterable, Iterator, Sequence

from trio_kv.check.state_machine_safety import StateMachineSafety, name_of, outcome_of
from trio_kv.check.violation import Violation
from trio_kv.kv.commands import Command, Write
from trio_kv.kv.operations import AnyQuery
from trio_kv.kv.reply import Reply

Place = tuple[int, Sequence[AnyQuery]]
"""Queries in a run, and how many of its commands stand before them."""

_NOT_APPLIED = frozenset({"session_expired", "overloaded", "bad_request"})
"""Answers of the state machine that don't tell whether an earlier attempt was applied, or which one."""


def take_apart(
    commands: int, places: Sequence[Place], replies: Sequence[Reply]
) -> tuple[list[Reply], list[Reply]]:
    """Return the replies to so many commands of a run, and those to the queries between them."""
    queries = dict(places)
    writes: list[Reply] = []
    reads: list[Reply] = []
    rest = iter(replies)
    for place in range(commands + 1):
        reads += [next(rest) for _ in queries.get(place, ())]
        if place < commands:
            writes.append(next(rest))
    return writes, reads


class RunOrder:
    """Judges the reads of runs."""

    def __init__(self, chronicle: StateMachineSafety) -> None:
        """Judge by what was committed."""
        self._chronicle = chronicle
        self.judged = 0
        """Reads that told the state of their place."""
        self.lost = 0
        """Reads that had no place any more."""

    def judge(
        self,
        commands: Sequence[Command],
        places: Sequence[Place],
        reads: Sequence[Reply],
        commit: int,
        applied: int,
    ) -> None:
        """Judge the replies to the reads of a run.

        Args:
            commands: the writes of the run, as they were proposed.
            places: the reads, as they were proposed.
            reads: the replies, in the order of the reads.
            commit: the highest index committed anywhere when it was asked.
            applied: the index up to which the node had applied when it answered.

        Raises:
            Violation: there is no attempt of this run whose places they tell the state of.

        """
        problems = []
        for first in self._attempts(commands, commit, applied):
            problem = self._find_problem(first, commands, places, reads)
            if problem is None:
                self.lost += sum([reply.code == "unavailable" for reply in reads])
                self.judged += sum([reply.code != "unavailable" for reply in reads])
                return
            problems.append(problem)
        raise Violation(
            "; ".join(problems) or f"the run {commands} was answered, and stands nowhere in the log"
        )

    def _attempts(self, commands: Sequence[Command], commit: int, applied: int) -> Iterator[int]:
        """Yield where the run begins in the log, behind all that was committed when it was asked."""
        entries, names = self._chronicle.entries, [_name(command) for command in commands]
        firsts: Iterable[int] = range(commit + 1, applied + 1)
        if isinstance(commands[0], Write):
            firsts = self._chronicle.places.get(name_of(commands[0]), ())
        for first in firsts:
            run = entries[first - 1 : first - 1 + len(names)]
            if (
                commit < first <= applied - len(names) + 1
                and [_name(entry.command) for entry in run] == names
            ):
                yield first

    def _find_problem(
        self, first: int, commands: Sequence[Command], places: Sequence[Place], reads: Sequence[Reply]
    ) -> str | None:
        told = iter(reads)
        for place, queries in places:
            behind = range(first + place, first + len(commands))
            has_place = all(self._is_new(index) for index in behind)
            may_be_lost = not has_place or any(self._is_refused(index) for index in behind)
            for query in queries:
                given = outcome_of(next(told))
                if given.code == "unavailable":
                    if may_be_lost:
                        continue
                    return f"{query} was said to have no place before {first + place}, which was new there"
                due = self._chronicle.reference.answer(query, first + place - 1)
                if given != due:
                    return f"{query} behind entry {first + place - 1} gave {given} instead of {due}"
                if not has_place:
                    return f"{query} was told {given} before {first + place}, but what is behind was applied before"
        return None

    def _is_new(self, index: int) -> bool:
        """Return whether an entry is the first with its (session, seq); no read tells of one that has none."""
        command = self._chronicle.entries[index - 1].command
        return not isinstance(command, Write) or self._chronicle.places[name_of(command)][0] == index

    def _is_refused(self, index: int) -> bool:
        command = self._chronicle.entries[index - 1].command
        return isinstance(command, Write) and any(
            outcome.code in _NOT_APPLIED for outcome in self._chronicle.outcomes[name_of(command)]
        )


def _name(command: object) -> object:
    """Return (session, seq); what opens or renews a session is its own name."""
    return name_of(command) if isinstance(command, Write) else command
