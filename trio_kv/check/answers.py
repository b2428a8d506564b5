"""What clients may be told: no lost write, no stale read, one answer a request.

Every answer tells the index up to which its node had applied. With it linearizability (Herlihy and Wing 1990) is judged
without search: commands take effect in the order of the log, so it is enough that
- a write stands behind everything that was committed anywhere when it was asked for, and its answer is
  the one that its (session, seq) got in the log;
- a read tells what the key held at an index, and that index covers everything that was committed anywhere when the read
  was asked for (thesis §6.4);
- a read beside writes of its run tells what the key held between them (`check.run_order`).
Beside it, without looking into nodes: revisions only rise (`check.revision_order`).
"""

from collections.abc import Sequence

import attrs

from trio_kv.check.durability import Durability
from trio_kv.check.reference import Outcome
from trio_kv.check.revision_order import RevisionOrder
from trio_kv.check.run_order import Place, RunOrder, take_apart
from trio_kv.check.state_machine_safety import (
    SessionSeq,
    StateMachineSafety,
    kind_of,
    name_of,
    outcome_of,
)
from trio_kv.check.violation import Violation
from trio_kv.kv.commands import Command, Write
from trio_kv.kv.operations import AnyQuery, Get
from trio_kv.kv.operations.operation import KeyWrite
from trio_kv.kv.reply import Reply


@attrs.frozen
class _Asked:
    """A request under way."""

    node: int
    commit: int
    """The highest index committed anywhere when it was asked."""
    queries: Sequence[AnyQuery] = ()
    revisions: tuple[int, ...] = ()
    """The highest revision of each key that anybody had been told of."""
    commands: Sequence[Command] = ()
    places: Sequence[Place] = ()
    """The queries between the commands, which are also in `queries`."""


class Answers:
    """Judges each answer at the moment at which a node gives it."""

    def __init__(self, chronicle: StateMachineSafety, durability: Durability) -> None:
        """Judge by what was committed and what is durable."""
        self._chronicle = chronicle
        self._durability = durability
        self._asked: dict[int, _Asked] = {}
        self._taken: set[int] = set()
        self._revisions = RevisionOrder()
        self.run_order = RunOrder(chronicle)
        self._first_asked: dict[SessionSeq, int] = {}
        """(session, seq) -> the highest index committed anywhere when it was first asked."""
        self.judged = 0

    def asked_to_write(
        self, number: int, node: int, commands: Sequence[Command], places: Sequence[Place] = ()
    ) -> None:
        """Note a request."""
        commit = self._chronicle.commit
        queries = [query for _, queries in places for query in queries]
        revisions = self._revisions.asked(_keys_of(queries))
        self._asked[number] = _Asked(node, commit, queries, revisions, commands, places)
        for command in commands:
            if isinstance(command, Write):
                self._first_asked.setdefault(name_of(command), commit)

    def asked_to_read(self, number: int, node: int, queries: Sequence[AnyQuery]) -> None:
        """Note a request."""
        revisions = self._revisions.asked(_keys_of(queries))
        self._asked[number] = _Asked(node, self._chronicle.commit, queries, revisions)

    def given_up(self, number: int) -> None:
        """Note that a request is not answered: it got lost, or its node died."""
        self._asked.pop(number, None)
        self._taken.discard(number)

    def taken(self, number: int) -> None:
        """Note that a node took a request: it owes an answer as long as it lives."""
        self._taken.add(number)

    def died(self, node: int) -> None:
        """Note that a node owes no answers any more."""
        for number in [number for number in self._taken if self._asked[number].node == node]:
            self.given_up(number)

    def no_answer(self, number: int, node: int, *, is_refused: bool) -> None:
        """Judge an answer that tells no outcome; one that refuses says that there is none and will be none.

        Raises:
            Violation: the request had its answer already, or took effect although it was refused.

        """
        asked = self._take(number, node)
        if is_refused:
            self._chronicle.refused(asked.commands)

    def answered(self, number: int, node: int, applied: int, replies: Sequence[Reply]) -> bool:
        """Judge an answer that tells an outcome; return whether it is the answer to a read.

        Raises:
            Violation: it is wrong, stale, or promises what a crash may take back.

        """
        asked = self._take(number, node)
        self.judged += 1
        if len(replies) != len(asked.commands) + len(asked.queries):
            raise Violation(f"{asked} got {len(replies)} replies from node {node}")
        if not asked.commands:
            self._judge_read(asked, applied, replies)
            return True
        writes, reads = take_apart(len(asked.commands), asked.places, replies)
        for command, reply in zip(asked.commands, writes, strict=True):
            self._judge_write(node, command, outcome_of(reply))
        if asked.places:
            self.run_order.judge(asked.commands, asked.places, reads, asked.commit, applied)
            self._judge_revisions(asked, reads)
        return False

    def _judge_write(self, node: int, command: Command, given: Outcome) -> None:
        if isinstance(command, Write):
            known = self._chronicle.outcomes.get(name_of(command), [])
            if given not in known:
                raise Violation(f"node {node} answered {command} with {given}; its entries got {known}")
            if given.code == "ok" and given.revision <= self._first_asked[name_of(command)]:
                raise Violation(f"node {node} answered {command} with an index older than the request")
        if given.code == "ok" and given.revision:
            entry = self._chronicle.entries[given.revision - 1]
            # That of the entry: a repetition may ask for another key in vain.
            if isinstance(entry.command, Write) and isinstance(entry.command.operation, KeyWrite):
                self._revisions.told(entry.command.operation.key, given.revision)
            self._durability.require(entry, f"node {node} told a client that {command} was done by it")

    def _judge_read(self, asked: _Asked, applied: int, replies: Sequence[Reply]) -> None:
        node = asked.node
        if applied < asked.commit:
            raise Violation(
                f"a read at node {node} saw index {applied}, though {asked.commit} was committed before it"
            )
        for query, reply in zip(asked.queries, replies, strict=True):
            due = self._chronicle.reference.answer(query, applied)
            given = outcome_of(reply)
            if given != due:
                raise Violation(f"{query} at node {node}, index {applied}, gave {given} instead of {due}")
        self._judge_revisions(asked, replies)

    def _judge_revisions(self, asked: _Asked, replies: Sequence[Reply]) -> None:
        for query, told, reply in zip(asked.queries, asked.revisions, replies, strict=True):
            self._chronicle.told[kind_of(query), reply.code] += 1
            if reply.code == "ok" and isinstance(query, Get):
                self._revisions.told(query.key, reply.revision, told)

    def under_way(self) -> dict[int, int]:
        """Return which requests at which nodes have no answer yet."""
        return {number: asked.node for number, asked in self._asked.items()}

    def _take(self, number: int, node: int) -> _Asked:
        asked = self._asked.pop(number, None)
        self._taken.discard(number)
        if asked is None or asked.node != node:
            raise Violation(f"node {node} answered request {number}, which has its answer or is not its own")
        return asked


def _keys_of(queries: Sequence[AnyQuery]) -> list[str]:
    """Return the key of each query; of a scan, which is of many, one that no key is called."""
    return [query.key if isinstance(query, Get) else "" for query in queries]
