"""Writes down what the clients did, key by key, and forgets it: memory holds only the keys that are in use.

A key is in use for some hundred operations, then a fresh one takes its place, so that a checker, which looks at each
key by itself, never meets a long history. When the last operation on a key has ended its group goes to the file. The
same goes for families of keys, which are used together by requests of all kinds.
A connection can also have a key of its own for a time. Stale reads are counted, and stand in no history.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import cast

import attrs

from trio_kv.check.exchange import READS, Exchange
from trio_kv.check.history import Fault, Operation, encode_history, encode_operation, what_is_asked
from trio_kv.check.versions import Versions
from trio_kv.kv.operations import KeyOperation
from trio_kv.kv.operations.operation import Query
from trio_kv.sim.chaos.outcomes import Outcome, operation_of
from trio_kv.sim.families import Family, Members
from trio_kv.wire.operations import Request
from trio_kv.wire.replies import ReplyLine

KEY_OPERATIONS = (200, 500)
FAMILIES = 4
"""In use at a time."""
FAMILY_OPERATIONS = (300, 700)
ACKNOWLEDGED = frozenset({"ok", "missing", "conflict"})


def group_of(key: str) -> str:
    """Return the name of the group that a key is of: itself, or what the keys of its family begin with."""
    head, slash, _ = key.rpartition("/")
    return head + slash if slash else key


@attrs.frozen
class Group:
    """All operations on one key, or of one family, as they stand in the file of the groups."""

    key: str
    """The key; of a family what its keys begin with."""
    offset: int
    """Of its first line, in bytes."""
    size_bytes: int
    operations: int
    unknown: int
    """Operations without a known outcome."""
    is_family: bool = False


@attrs.define(eq=False)
class _OpenGroup:
    key: str
    limit: float
    """After so many operations it is not used any more."""
    started: int = 0
    under_way: int = 0
    operations: list[Operation] = attrs.field(factory=list)
    family: Family | None = None
    exchanges: list[Exchange] = attrs.field(factory=list)
    """Instead of operations, if it is a family."""
    known: bytes | None = None
    """The value that somebody saw last."""
    versions: Versions = attrs.field(factory=Versions)


@attrs.frozen(eq=False)
class Call:
    """An operation under way."""

    client: int
    request: Request
    call_s: float
    group: _OpenGroup

    @property
    def operation(self) -> KeyOperation:
        """What is asked of the store."""
        return operation_of(self.request)

    @property
    def name(self) -> str:
        """What is asked, as it is counted."""
        return "stale" if self.is_stale else self.operation.name

    @property
    def is_stale(self) -> bool:
        """Whether it may be answered with what was true once."""
        return isinstance(self.operation, Query) and self.request.is_stale


@attrs.frozen(eq=False)
class FamilyCall:
    """A request for a family that is under way."""

    client: int
    members: Members
    call_s: float
    group: _OpenGroup


class Recorder:
    """The history of a run, while it grows."""

    def __init__(
        self,
        path: Path,
        random: Random,
        now: Callable[[], float],
        *,
        keys: int,
        prefix: str,
        on_closed: Callable[[Group], None],
    ) -> None:
        """Begin a history.

        Args:
            path: of the file of the groups; it is made.
            random: draws for how long keys are used.
            now: the run's clock, in seconds.
            keys: how many are in use at a time.
            prefix: what their names begin with; no key with it may exist.
            on_closed: is told when all of a key's operations are in the file.

        """
        self.outcomes: Counter[tuple[str, Outcome]] = Counter()
        """Operations by what was asked and what became of it; reads that failed and those with the name `stale` are
        counted here and nowhere else."""
        self.chains = 0
        """Runs of pipelined requests for a key of a connection's own of which every answer was judged."""
        self.retried = 0
        """Writes with a place in a session that were asked more than once until there was an answer."""
        self.repeated = 0
        """Answers to such a write that had been answered before, and told the same."""
        self.codes: Counter[str] = Counter()
        """Replies by their code, `no reply` included."""
        self.longest_gap_s = 0.0
        """The longest time without an acknowledged write."""
        self.longest_gap_from_s = 0.0
        self.groups: dict[str, Group] = {}
        self._path = path
        self._file = path.open("wb")
        self._index: list[tuple[float, int, int]] = []
        """Of each line: when its operation was called, where it begins, how long it is."""
        self._offset = 0
        self._random = random
        self.now = now
        """The clock of the run, in seconds."""
        self._prefix = prefix
        self._on_closed = on_closed
        self._generation = 0
        self._open: dict[str, _OpenGroup] = {}
        """Those with operations to come or under way."""
        self._slots = [self._next_group(random.randint(*KEY_OPERATIONS)) for _ in range(keys)]
        """Those from which keys are drawn."""
        self._families = [self._next_family() for _ in range(FAMILIES)]
        self._acknowledged_s: float | None = None

    @property
    def recorded(self) -> int:
        """How many operations have ended and stand in the history, or will."""
        return sum(
            count
            for (name, outcome), count in self.outcomes.items()
            if name != "stale" and not (outcome == "failed" and name.removeprefix("stale ") in READS)
        )

    def draw_key(self, random: Random) -> str:
        """Return a key that is in use. Its operation must begin before the caller waits for anything."""
        return random.choice(self._slots).key

    def take_key(self) -> str:
        """Return a key that nobody else gets, for as many operations as its owner wants; see `leave_key`."""
        return self._next_group(math.inf).key

    def leave_key(self, key: str) -> None:
        """Note that the owner of a key has asked the last about it."""
        self._leave(self._open[key])

    def draw_known(self, key: str, random: Random) -> bytes | None:
        """Return a value that a key has, as far as anybody knows, or one that it has not; None: no value."""
        group = self._open[key]
        drawn = random.random()
        if drawn < 0.8 or not group.operations:
            return group.known
        return None if drawn < 0.9 else random.choice(group.operations).value

    def call(self, client: int, request: Request) -> Call:
        """Note that an operation begins."""
        operation = operation_of(request)
        group = self._open[operation.key]
        group.started += 1
        group.under_way += 1
        if group.started == group.limit:
            self._slots[self._slots.index(group)] = self._next_group(self._random.randint(*KEY_OPERATIONS))
        value = what_is_asked(operation).get("value")
        if value is not None:
            group.versions.asked(value)
        return Call(client, request, self.now(), group)

    def end(self, call: Call, outcome: Outcome, result: bytes | None, *, code: str, node: int) -> Operation:
        """Note what became of an operation; return it as a whole."""
        group = call.group
        return_s = self.now()
        self.outcomes[call.name, outcome] += 1
        self.codes[code] += 1
        is_read = isinstance(call.operation, Query)
        if not is_read and outcome in ACKNOWLEDGED:
            self._note_acknowledged(return_s)
        operation = Operation(
            client=call.client,
            call_s=call.call_s,
            return_s=None if outcome == "unknown" else return_s,
            outcome=outcome,
            result=result,
            node=node,
            **what_is_asked(call.operation),
        )
        if not call.is_stale and not (is_read and outcome == "failed"):
            group.operations.append(operation)
            if outcome == "ok" and operation.value is not None:
                group.known = operation.value
            elif outcome in ACKNOWLEDGED:
                group.known = result if operation.op != "delete" else None
        group.under_way -= 1
        self._close_if_done(group)
        return operation

    def call_of_family(self, client: int, random: Random, draw: Callable[[Family], Members]) -> FamilyCall:
        """Note that a request for one of the families begins, drawn for it then."""
        group = random.choice(self._families)
        assert group.family is not None
        group.started += 1
        group.under_way += 1
        if group.started == group.limit:
            self._families[self._families.index(group)] = self._next_family()
        return FamilyCall(client, draw(group.family), self.now(), group)

    def end_of_family(self, call: FamilyCall, reply: ReplyLine | None) -> Exchange:
        """Note what became of a request for a family; return it as a whole."""
        group, return_s = call.group, self.now()
        assert group.family is not None
        exchange = Exchange(
            call.client,
            json.dumps(call.members).encode(),
            call.call_s,
            None if reply is None else return_s,
            None if reply is None else reply.line,
        )
        outcome = cast("Outcome", exchange.outcome)
        self.outcomes[f"stale {exchange.op}" if exchange.is_stale else exchange.op, outcome] += 1
        self.codes["no reply" if reply is None else reply.code] += 1
        if not exchange.is_read and outcome in ACKNOWLEDGED:
            self._note_acknowledged(return_s)
        if not (exchange.is_read and outcome == "failed"):
            group.exchanges.append(exchange)
            if not exchange.is_stale:
                group.family.learn(exchange)
        group.under_way -= 1
        self._close_if_done(group)
        return exchange

    def retire(self) -> None:
        """Use no key any more; operations under way may still end."""
        for group in list(self._open.values()):
            self._leave(group)
        self._slots, self._families = [], []
        self._note_gap(self.now())

    def append(self, operations: Sequence[Operation | Exchange]) -> tuple[int, int]:
        """Write further operations into the file; return the offset and size of their lines in bytes."""
        begin = self._offset
        for operation in operations:
            line = encode_operation(operation)
            self._file.write(line)
            self._index.append((operation.call_s, self._offset, len(line)))
            self._offset += len(line)
        self._file.flush()
        return begin, self._offset - begin

    def finish(self, path: Path, faults: Sequence[Fault]) -> None:
        """Write the whole history into a file of its own, in the order of the calls, and remove that of the groups."""
        self._file.close()
        with self._path.open("rb") as groups, path.open("wb") as file:
            file.writelines(encode_history((), faults))
            for _, offset, size_bytes in sorted(self._index):
                groups.seek(offset)
                file.write(groups.read(size_bytes))
        self._path.unlink()

    def _next_group(self, limit: float) -> _OpenGroup:
        self._generation += 1
        group = _OpenGroup(f"{self._prefix}k{self._generation}", limit)
        self._open[group.key] = group
        return group

    def _next_family(self) -> _OpenGroup:
        self._generation += 1
        prefix = f"{self._prefix}f{self._generation}/"
        group = _OpenGroup(prefix, self._random.randint(*FAMILY_OPERATIONS), family=Family(prefix))
        self._open[prefix] = group
        return group

    def _leave(self, group: _OpenGroup) -> None:
        group.limit = 0
        self._close_if_done(group)

    def _close_if_done(self, group: _OpenGroup) -> None:
        if group.started < group.limit or group.under_way:
            return
        del self._open[group.key]
        operations = group.operations or group.exchanges
        if not operations:
            return
        offset, size_bytes = self.append(operations)
        unknown = sum(operation.outcome == "unknown" for operation in operations)
        is_family = group.family is not None
        closed = Group(group.key, offset, size_bytes, len(operations), unknown, is_family)
        self.groups[group.key] = closed
        self._on_closed(closed)

    def _note_acknowledged(self, at_s: float) -> None:
        self._note_gap(at_s)
        self._acknowledged_s = at_s

    def _note_gap(self, at_s: float) -> None:
        """Note how long no write was acknowledged, from the last one, or from the beginning, until now."""
        from_s = self._acknowledged_s or 0.0
        if at_s - from_s > self.longest_gap_s:
            self.longest_gap_s, self.longest_gap_from_s = at_s - from_s, from_s
