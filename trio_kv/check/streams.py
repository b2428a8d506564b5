"""What watches were told, judged by what clients know: by itself, by other watches, and by what was acknowledged.

A simulated world knows what was committed (`check.watch_order`). On a live cluster a watch is what tells it: a stream
without a gap is the log, as far as anybody outside may know it. So whatever was asked is carried out once more by it
(`check.replay_log`), and nobody has to find out what lost writes did.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from trio_kv.check.exchange import Exchange
from trio_kv.check.history import History, Operation
from trio_kv.check.replay_log import judge_log
from trio_kv.check.violation import Violation

Event = tuple[str, str, bytes | None]
"""Kind, key and value."""
SET, DELETE, EXPIRE = "set", "delete", "expire"


class Line(msgspec.Struct, frozen=True):
    """What a watch was told of one revision."""

    watch: int
    revision: int
    events: tuple[tuple[str, str, msgspec.Raw], ...]
    """Kind, key and value; of a key that is gone null."""

    @property
    def changes(self) -> tuple[Event, ...]:
        """The events, without values where there are none."""
        return tuple((kind, key, bytes(value) if kind == SET else None) for kind, key, value in self.events)


class Span(msgspec.Struct):
    """A stretch of revisions of which a watch was told all."""

    watch: int
    after: int
    """It begins behind this revision,"""
    upto: int
    """and ends with this one."""
    began_s: float
    """When it had begun, on the clock of the run."""

    def holds(self, revision: int) -> bool:
        """Tell whether a revision is in it."""
        return self.after < revision <= self.upto


class StreamOrder:
    """Judges one watch by itself, over all its connections.

    Raises of all methods:
        Violation: what is told can't be.

    """

    def __init__(self, watch: int) -> None:
        """Be told nothing yet."""
        self.spans: list[Span] = []
        self._watch = watch

    @property
    def position(self) -> int | None:
        """All up to here was told; None before it has begun."""
        return self.spans[-1].upto if self.spans else None

    def begun(self, revision: int, first: int | None, now_s: float) -> None:
        """See the answer to a watch from a revision on, or from what comes next."""
        if first is None:
            self.spans.append(Span(self._watch, revision, revision, now_s))
        elif first > revision + 1:
            raise Violation(f"watch {self._watch} was begun at {revision}, and asked for {first} on")

    def told(self, revision: int, *, is_progress: bool) -> None:
        """See a line about a revision, or word that all was told up to there."""
        span = self.spans[-1]
        if revision < span.upto or (revision == span.upto and not is_progress):
            what = "how far it is" if is_progress else "a change"
            raise Violation(f"watch {self._watch} was told of {what} at {revision}, behind {span.upto}")
        span.upto = revision

    def lost(self, revision: int) -> None:
        """See the watch end: it may go on from a revision without a gap."""
        self.told(revision - 1, is_progress=True)

    def jumped(self, oldest: int, now_s: float) -> None:
        """See that nothing is known any more before a revision."""
        position = self.spans[-1].upto
        if oldest <= position + 1:
            raise Violation(
                f"watch {self._watch} stands at {position}, and was told that {oldest} on is there"
            )
        self.spans.append(Span(self._watch, oldest - 1, oldest - 1, now_s))


def judge_streams(
    history: History,
    lines: Iterable[Line],
    spans: Sequence[Span],
    last_revision: int,
    *,
    calm_from_s: float = math.inf,
) -> tuple[bool, list[str]]:
    """Judge what watches were told of a key or a family.

    Args:
        history: all that was asked of it, which was new then; without faults.
        lines: all that watches were told of it.
        spans: of the watches that it concerns.
        last_revision: of what was written when all else had been answered.
        calm_from_s: see `judge_log`.

    Returns:
        whether one of them was told all of it; what can't be, in words.

    """
    told: dict[int, dict[int, tuple[Event, ...]]] = {span.watch: {} for span in spans}
    for line in lines:
        told[line.watch][line.revision] = line.changes
    found = list(_compare(told, spans))
    asked: list[Operation | Exchange] = [*history.operations, *history.exchanges]
    first_s = min((each.call_s for each in asked), default=math.inf)
    for span in spans:
        if span.began_s < first_s and span.upto >= last_revision:
            changes = {
                revision: events for revision, events in told[span.watch].items() if span.holds(revision)
            }
            found += _judge_exchanges(history.exchanges, changes, calm_from_s)
            found += _judge_values(history.operations, changes)
            return True, found
    return False, found


def _compare(told: Mapping[int, Mapping[int, tuple[Event, ...]]], spans: Sequence[Span]) -> Iterable[str]:
    """Yield where one watch was told something else than another one, or nothing."""
    for span in spans:
        for other, lines in told.items():
            for revision, events in lines.items():
                given = told[span.watch].get(revision, ())
                if other != span.watch and span.holds(revision) and given != events:
                    yield (
                        f"watch {other} was told at revision {revision} of {_words(events)}, and watch"
                        f" {span.watch} of {_words(given)}"
                    )


def _judge_exchanges(
    exchanges: Sequence[Exchange], told: Mapping[int, tuple[Event, ...]], calm_from_s: float
) -> Iterable[str]:
    """Carry out once more what was asked of a family, by what a watch was told."""
    if not exchanges:
        return ()
    changes = {revision: {key: value for _, key, value in events} for revision, events in told.items()}
    expiries = [revision for revision, events in told.items() if any(kind == EXPIRE for kind, _, _ in events)]
    return judge_log(exchanges, changes, expiries, calm_from_s=calm_from_s).violations


def _judge_values(operations: Sequence[Operation], told: Mapping[int, tuple[Event, ...]]) -> Iterable[str]:
    """Judge by what a watch was told whether each write of a register took effect once, or not at all.

    Each value is written once, so it tells of its author.
    """
    if not operations:
        return
    events = [event for events in told.values() for event in events]
    times = Counter(value for kind, _, value in events if kind == SET)
    authors: dict[bytes | None, Operation] = {
        each.value: each for each in operations if each.value is not None
    }
    for value, count in times.items():
        author = authors.get(value)
        if author is None or author.outcome not in ("ok", "unknown"):
            yield f"a watch was told of {_text(value)}, which nobody wrote, or in vain: {author}"
        if count > 1:
            yield f"a watch was told {count} times that {_text(value)} was written, which was asked for once"
    for value, author in authors.items():
        if author.outcome == "ok" and value not in times:
            yield f"no watch was told of {_text(value)}, whose write was acknowledged: {author}"
    deletes = sum(kind == DELETE for kind, _, _ in events)
    done, lost = (
        sum(each.op == "delete" and each.outcome == outcome for each in operations)
        for outcome in ("ok", "unknown")
    )
    if not done <= deletes <= done + lost:
        yield f"a watch was told of {deletes} deletes; {done} were acknowledged, and of {lost} nobody knows"
    if any(kind == EXPIRE for kind, _, _ in events):
        yield "a watch was told that a key ended that was written for good"


def _text(value: bytes | None) -> str:
    return (value or b"nothing").decode(errors="replace")


def _words(events: Sequence[Event]) -> str:
    return ", ".join(f"{kind} {key} {_text(value)}" for kind, key, value in events) or "nothing"
