"""What comes of a run of plain sets, told at once for the whole run, and once for all machines of a process.

To apply an entry by itself costs a machine some twenty steps of the interpreter, and five machines of a process do the
same to the same entries. Most entries give a key a value, under no condition and under a new number of one session, so
what comes of them can be told beforehand (`foresee`): the items, the changes and the replies. A machine takes that over
in one step, and so does each other machine that stands where the first one stood. It looks first whether it does: it
must hold the very same item under each key of the run, and know as much of the session. Where it does not, it applies
the entries one by one: a machine that is wrong must stay so, and alone.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from itertools import islice
from operator import is_

import msgspec
from msgspec import UNSET, structs

from trio_kv.kv.commands import Write
from trio_kv.kv.entries import LogEntry
from trio_kv.kv.operations import Set
from trio_kv.kv.operations.operation import Change
from trio_kv.kv.reply import Item, Reply
from trio_kv.kv.session import REPLIES_MAX, Session
from trio_kv.kv.sessions import Sessions

RUN_ENTRIES_MAX = 128
"""Entries of one outcome. The others commit in other steps than the first one, so a long one may not fit in a step."""
KEPT_MAX = 256
"""Outcomes that are kept. The others apply within milliseconds, or are so far behind that they go one by one."""
KEPT_BYTES_MAX = 4 << 20
"""Bytes of entries that these hold, at most."""

Standing = tuple[int, int]
"""How a session stands: the highest `done` its owner ever said, and how many answers it keeps."""

_encode_lines = msgspec.json.Encoder().encode_lines


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What comes of a run of entries. All of them are plain sets of one session, under new numbers.

    No key of them ends, before the run or after it.
    """

    entries: Sequence[LogEntry]
    session: int
    stood: Standing
    """How the session stands before the run."""
    done: int
    """What its owner says in the run to have heard."""
    before: dict[str, Item | None]
    """What the keys hold before the run."""
    items: dict[str, Item]
    """What they hold after it, in the order in which the run names them first."""
    made: Sequence[Item]
    """What each entry put under its key."""
    changes: Sequence[Change]
    told: bytes
    """The changes as they run over the state digest."""
    encoded: bytes
    """The entries as they run over the entries' digest."""
    replies: dict[int, Reply]
    """The answers, by their numbers; in the order of the entries."""

    def happens_in(self, items: Mapping[str, Item], sessions: Sessions) -> bool:
        """Return whether just this comes of the run in this state."""
        session = sessions.by_id.get(self.session)
        if session is None or _standing_of(session) != self.stood:
            return False
        before = self.before
        # The very same items, and not just the same revisions.
        if not all(map(is_, map(items.get, before), before.values())):
            return False
        return session.replies.keys().isdisjoint(self.replies)

    def part(self, first: int, stop: int) -> "Outcome":
        """Return what comes of some of these entries, by their places, where that of those before them happened."""
        entries, changes, made = self.entries[first:stop], self.changes[first:stop], self.made[first:stop]
        return structs.replace(
            self,
            entries=entries,
            done=max([entry.command.done for entry in entries]),
            before={},
            items={item.key: item for item in made},
            made=made,
            changes=changes,
            told=_encode_lines(changes),
            encoded=b"".join([entry.encoded for entry in entries]),
            replies=dict(islice(self.replies.items(), first, stop)),
        )

    def take_over(self, items: MutableMapping[str, Item], sessions: Sessions) -> None:
        """Let it happen."""
        items.update(self.items)
        session = sessions.by_id[self.session]
        session.replies.update(self.replies)
        session.used_us = self.entries[-1].time_us
        if self.done > session.done:
            sessions.held_bytes -= session.forget_below(self.done)


def is_plain(command: object) -> bool:
    """Return whether a command gives a key a value, under no condition and for good."""
    return (
        type(command) is Write
        and type(operation := command.operation) is Set
        and operation.if_revision is UNSET
        and operation.ttl is UNSET
    )


def count_others(entries: Sequence[LogEntry]) -> int:
    """Return how many of these entries, the first one of them at least, stand before a plain set."""
    return next((place for place in range(1, len(entries)) if is_plain(entries[place].command)), len(entries))


def foresee(entries: Sequence[LogEntry], items: Mapping[str, Item], sessions: Sessions) -> Outcome | None:
    """Return what comes of the run of plain sets with which the next entries begin; None if they begin with none."""
    first = entries[0].command
    owner = sessions.by_id.get(first.session) if type(first) is Write else None
    if owner is None:
        return None
    done, known, room = owner.done, owner.replies, REPLIES_MAX - len(owner.replies)
    before: dict[str, Item | None] = {}
    after: dict[str, Item] = {}
    made: list[Item] = []
    changes: list[Change] = []
    replies: dict[int, Reply] = {}
    for entry in entries[:room]:
        command = entry.command
        if type(command) is not Write or command.session != first.session:
            break
        seq, operation = command.seq, command.operation
        done = max(done, command.done)
        # `is_plain`, spelled out: it is asked of every write.
        if type(operation) is not Set or operation.if_revision is not UNSET or operation.ttl is not UNSET:
            break
        if seq < done or seq in replies or seq in known:
            break
        key, value, index = operation.key, operation.value, entry.index
        item = after.get(key)
        if item is None:
            item = items.get(key)
            if item is not None and item.due is not None:
                break
            before[key] = item
        after[key] = new = Item(value.copy(), index, key if item is None else item.key)
        made.append(new)
        # With the text of the item: changes are kept for those who watch, and would hold the text of the entry, too.
        changes.append(Change("set", new.key, new.value, index, 0 if item is None else item.revision))
        replies[seq] = Reply("ok", None, index)
    if not replies:
        return None
    run = entries[: len(replies)]
    return Outcome(
        entries=run,
        session=first.session,
        stood=_standing_of(owner),
        done=max([entry.command.done for entry in run]),
        before=before,
        items=after,
        made=made,
        changes=changes,
        told=_encode_lines(changes),
        encoded=b"".join([entry.encoded for entry in run]),
        replies=replies,
    )


def _standing_of(session: Session) -> Standing:
    return session.done, len(session.replies)


class Outcomes:
    """The last outcomes that were foreseen in a process."""

    __slots__ = ("_by_first", "_kept_bytes")

    def __init__(self) -> None:
        """Know none."""
        self._by_first: dict[int, Outcome] = {}
        self._kept_bytes = 0

    def note(self, outcome: Outcome) -> None:
        """Keep an outcome, and no more of the oldest ones than there is room for."""
        kept = self._by_first
        kept[outcome.entries[0].index] = outcome
        self._kept_bytes += len(outcome.encoded)
        while self._kept_bytes > KEPT_BYTES_MAX or len(kept) > KEPT_MAX:
            self._kept_bytes -= len(kept.pop(next(iter(kept))).encoded)

    def find(self, entries: Sequence[LogEntry]) -> Outcome | None:
        """Return what comes of the first ones of these entries, if that is known."""
        outcome = self._by_first.get(entries[0].index)
        if outcome is None or outcome.entries != entries[: len(outcome.entries)]:
            return None
        return outcome

    def distance(self, index: int) -> int:
        """Return in how many entries the next outcome begins behind the one with this index; at most a run's length."""
        return min([first - index for first in self._by_first if first > index], default=RUN_ENTRIES_MAX)
