"""The replicated state machine: keys, client sessions, cluster time and two digests.

It is a function of the log and of nothing else: no clock, no randomness, no state of its node. So nodes that
applied the same entries hold the same, which the digests prove: `entries_digest` runs over the bytes of the
entries, `state_digest` over what each of them answered and changed. Two nodes with the same `applied` and the
same `entries_digest` but another `state_digest` have a state machine that diverged on an equal log.

A snapshot is made beside the work: `freeze` keeps the state of one moment readable, `chunks` tells it bit by bit,
`thaw` and `settle` bring the machine back to where it was; `Restorer` goes the other way.

Nothing in a committed entry may raise here: an entry that did would fail again on every node and after every
restart. What a command asks in vain is told in its reply. The assertions are about the caller: entries come
without a gap, and cluster time never runs back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

from crc32c import crc32c

from trio_kv.kv.commands import Expire, OpenSession, RenewSession
from trio_kv.kv.image import (
    FirstChunk,
    Head,
    ItemRecord,
    ReplyRecord,
    decode_first,
    decode_records,
    encode_chunks,
)
from trio_kv.kv.layers import Layers
from trio_kv.kv.reply import Item, Reply
from trio_kv.kv.sessions import UNKNOWN_SESSION, Session, Sessions
from trio_kv.kv.writes import CODE_NUMBERS, WRITES, Changes, Writer, note

NOTHING = Reply("ok")
"""The reply to an entry that answers nobody: the no-op of a term, an expiry."""


class LogEntry(Protocol):
    """What the state machine needs to know of an entry; `raft.entry.Entry` is one."""

    @property
    def index(self) -> int:
        """Place in the log; the first is 1."""

    @property
    def term(self) -> int:
        """Term of the leader that proposed it."""

    @property
    def time_us(self) -> int:
        """Cluster time in microseconds."""

    @property
    def command(self) -> Any:
        """A command of `kv.commands`, or None."""

    @property
    def encoded(self) -> bytes:
        """The entry's bytes."""


class Machine:
    """Keys and sessions after the first `applied` entries of the log.

    The driver gives every committed entry to `apply`, once, in the order of the log. A machine whose `apply`
    raised is half changed and must be thrown away.
    """

    __slots__ = (
        "_frozen",
        "applied",
        "applied_term",
        "entries_digest",
        "items",
        "sessions",
        "state_digest",
        "time_us",
    )

    def __init__(self) -> None:
        """Make the state before the first entry."""
        self.applied = 0
        """Index of the last applied entry."""
        self.applied_term = 0
        """Term of that entry."""
        self.time_us = 0
        """Cluster time of that entry."""
        self.entries_digest = 0
        self.state_digest = 0
        self.items: dict[str, Item] | Layers = {}
        """A plain dict, and two layers only from `freeze` until what changed since is settled."""
        self.sessions = Sessions()
        self._frozen: Frozen | None = None

    @property
    def expires_at_us(self) -> int | None:
        """Earliest cluster time at which something is due; None if nothing ever is."""
        return self.sessions.expires_at_us()

    def get(self, key: str) -> Item | None:
        """Return what a key holds; None if it does not exist."""
        return self.items.get(key)

    def apply(self, entries: Sequence[LogEntry]) -> list[Reply]:
        """Apply the next entries of the log; return their replies, one an entry.

        Where a long run is cut into calls makes no difference to anything, digests included.

        Raises:
            AssertionError: an index is not the next one, or cluster time runs back.

        """
        if not entries:
            return []
        replies: list[Reply] = []
        changes: Changes = []
        write = self._write
        index, time_us = self.applied, self.time_us
        for entry in entries:
            assert entry.index == index + 1, f"entry {entry.index} applied after {index}"
            assert entry.time_us >= time_us, f"cluster time back from {time_us} to {entry.time_us} at {entry}"
            index, time_us, command = entry.index, entry.time_us, entry.command
            kind = type(command)
            apply_write = WRITES.get(kind)
            if apply_write is not None:
                reply = write(apply_write, command, index, time_us, changes)
            else:
                reply = self._control(command, index, time_us, changes)
            replies.append(reply)
        self.applied, self.time_us, self.applied_term = index, time_us, entries[-1].term
        self.entries_digest = crc32c(b"".join([entry.encoded for entry in entries]), self.entries_digest)
        self.state_digest = crc32c(b"".join(changes), self.state_digest)
        return replies

    def copy(self) -> Self:
        """Return a machine that changes on its own. Items and replies are immutable and stay shared.

        The copy is not frozen, and has nothing to settle.
        """
        twin = type(self)()
        twin.applied, twin.applied_term, twin.time_us = self.applied, self.applied_term, self.time_us
        twin.entries_digest, twin.state_digest = self.entries_digest, self.state_digest
        twin.items = self.items.copy()
        twin.sessions = self.sessions.copy()
        return twin

    def freeze(self) -> "Frozen":
        """Return the state after `applied`, which stays as it is while more is applied here, until `thaw`.

        Takes the same short time whatever the machine holds: writes go to a second layer from here on.

        Raises:
            AssertionError: the last one is not thawed yet, or the machine has not settled since.

        """
        assert self._frozen is None, "a state is frozen already"
        assert isinstance(self.items, dict), "what changed since the last freeze is not settled yet"
        self._frozen = frozen = Frozen(self._head(), self.sessions.freeze(), self.items)
        self.items = Layers(self.items)
        return frozen

    def thaw(self) -> None:
        """Let go of the frozen state: nobody reads it any more. What changed since has to be settled then.

        Raises:
            AssertionError: no state is frozen.

        """
        frozen, self._frozen = self._frozen, None
        assert frozen is not None, "no state is frozen"
        assert isinstance(self.items, Layers)
        frozen.close()
        self.sessions.thaw()
        self.items.thaw()
        self.settle(0)

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing for `settle` to do: False between `thaw` and the last change put back."""
        return self._frozen is not None or isinstance(self.items, dict)

    def settle(self, items_max: int) -> bool:
        """Put at most so many of the keys that changed while frozen back in place; tell whether that was all.

        It may be called at any time, and does nothing when there is nothing to do. Keys that are new, or come
        back, go on to queue up behind the others meanwhile: it comes to an end if it is called more often, or for
        more keys, than such keys come.
        """
        items = self.items
        if self._frozen is None and isinstance(items, Layers):
            settled = items.settle(items_max)
            if settled is None:
                return False
            self.items = settled
        return True

    def dismantle(self, items_max: int) -> bool:
        """Let go of at most so many keys; tell whether there are none left.

        For a machine in whose place another one was put: to free a million keys at once takes a third of a second.

        Raises:
            AssertionError: its state is frozen.

        """
        assert self._frozen is None, "the state is frozen"
        if not self.settle(items_max):
            return False
        items = self.items
        for _ in range(min(items_max, len(items))):
            items.popitem()
        return not items

    def _head(self) -> Head:
        return Head(
            applied=self.applied,
            applied_term=self.applied_term,
            time_us=self.time_us,
            entries_digest=self.entries_digest,
            state_digest=self.state_digest,
        )

    def _write(self, apply_write: Writer, command: Any, index: int, time_us: int, changes: Changes) -> Reply:
        """Apply a command of a session, unless it has its answer already or must not be applied."""
        session = self.sessions.by_id.get(command.session)
        if session is None:
            reply = UNKNOWN_SESSION
        else:
            # Raised even by a repeated or refused command: what its owner has heard is true all the same.
            if command.done > session.done:
                session.forget_below(command.done)
            seq = command.seq
            known = session.replies.get(seq) or session.refuse(seq)
            if known is None:
                reply = session.replies[seq] = apply_write(self.items, command, index, changes)
                session.used_us = time_us
                return reply
            reply = known
        note(changes, reply)
        return reply

    def _control(self, command: object, index: int, time_us: int, changes: Changes) -> Reply:
        """Apply what belongs to no session: the no-op of a term and the life of the sessions."""
        match command:
            case None:
                return NOTHING
            case OpenSession():
                reply = self.sessions.open(index, command.timeout_us, time_us)
                changes.append(b"open %d" % command.timeout_us)
            case RenewSession():
                reply = self.sessions.renew(command.session, time_us, index)
                changes.append(b"renew %d" % command.session)
            case Expire():
                reply = NOTHING
                changes.extend(b"expire %d" % session_id for session_id in self.sessions.expire(time_us))
            case _:
                raise AssertionError(f"entry {index} holds {command!r}, which is no command")
        note(changes, reply)
        return reply


class Frozen:
    """A state machine as it was at one moment: what a snapshot is made of.

    It reads the layer that its machine must not change meanwhile, so it is of no use once that was thawed.
    """

    __slots__ = ("_is_open", "_items", "_sessions", "head")

    def __init__(self, head: Head, sessions: Mapping[int, Session], items: Mapping[str, Item]) -> None:
        """Hold what nobody changes before `close`."""
        self.head = head
        self._sessions = sessions
        self._items = items
        self._is_open = True

    @property
    def applied(self) -> int:
        """Index of the last entry in it."""
        return self.head.applied

    @property
    def applied_term(self) -> int:
        """Term of that entry."""
        return self.head.applied_term

    def chunks(self) -> Iterator[bytes]:
        """Yield the chunks of the snapshot, each made in a moment, as slowly as they are asked for.

        Raises:
            AssertionError: one is asked for after the machine was thawed.

        """
        for chunk in encode_chunks(self.head, self._sessions, self._items):
            yield chunk
            assert self._is_open, "the state was thawed before its snapshot was complete"

    def close(self) -> None:
        """Note that what it reads may change from here on."""
        self._is_open = False


class Restorer:
    """Makes a machine of the chunks of a snapshot, fed one by one in their order.

    The machine behaves as the one that was frozen from there on. A large snapshot makes millions of small objects,
    none of which Python's collector could ever free: whoever feeds all of it in one go should turn it off meanwhile.
    """

    __slots__ = ("_first", "_items", "_known", "_number", "_sessions")

    def __init__(self, known: Callable[[str], Item | None] | None = None) -> None:
        """Start before the first chunk.

        Args:
            known: asked for what another machine of this process holds under a key. An item that is equal
                to it is shared with it: nodes of one process then need the memory for their values once.

        """
        self._known = known
        self._first: FirstChunk | None = None
        self._number = 0
        self._sessions = Sessions()
        self._items: dict[str, Item] = {}

    @property
    def head(self) -> Head | None:
        """What the first chunk tells; None before it came."""
        return None if self._first is None else self._first.head

    @property
    def records(self) -> int:
        """Records that came so far."""
        return sum(self._came())

    @property
    def records_total(self) -> int:
        """Records that the snapshot holds; 0 before the first chunk came."""
        if self._first is None:
            return 0
        counts = self._first.counts
        return counts.sessions + counts.replies + counts.items

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk. After an error this restorer is of no use any more.

        Raises:
            ValueError: it is not the next chunk of a snapshot, or the snapshot has a format not known here.

        """
        if self._first is None:
            self._first = decode_first(chunk)
            return
        records = decode_records(chunk)
        self._number += 1
        if records.chunk != self._number:
            raise ValueError(f"chunk {records.chunk} came where chunk {self._number} was due")
        for session in records.sessions:
            self._sessions.add(session.session, Session(session.timeout_us, session.used_us, session.done))
        for answer in records.replies:
            self._add_reply(answer)
        if self._known is not None:
            self._add_items(records.items, self._known)
        else:
            # Copied, so that a value that stays does not keep the whole chunk in memory.
            self._items.update(
                {record.key: Item(record.value.copy(), record.revision) for record in records.items}
            )

    def finish(self) -> Machine:
        """Return the machine, when all chunks were fed. Call it once.

        Raises:
            ValueError: chunks are missing, or one told a record twice.

        """
        if self._first is None:
            raise ValueError("no chunk of the snapshot came")
        counts = self._first.counts
        came = self._came()
        if came != (counts.sessions, counts.replies, counts.items):
            raise ValueError(
                f"{came[0]} sessions, {came[1]} replies and {came[2]} items came, "
                f"but the snapshot has {counts.sessions}, {counts.replies} and {counts.items}"
            )
        head, machine = self._first.head, Machine()
        machine.applied, machine.applied_term, machine.time_us = head.applied, head.applied_term, head.time_us
        machine.entries_digest, machine.state_digest = head.entries_digest, head.state_digest
        machine.sessions, machine.items = self._sessions, self._items
        return machine

    def _add_items(self, records: list[ItemRecord], known: Callable[[str], Item | None]) -> None:
        """Add items, sharing those that are equal to one that is known."""
        for record in records:
            item = known(record.key)
            if item is None or item.revision != record.revision or item.value != record.value:
                item = Item(record.value.copy(), record.revision)
            self._items[record.key] = item

    def _add_reply(self, answer: ReplyRecord) -> None:
        session = self._sessions.by_id.get(answer.session)
        if session is None:
            raise ValueError(
                f"seq {answer.seq} belongs to session {answer.session}, which did not come before it"
            )
        if answer.code not in CODE_NUMBERS:
            raise ValueError(f"seq {answer.seq} of session {answer.session} was answered {answer.code!r}")
        value = answer.value.copy() if answer.has_value else None
        session.replies[answer.seq] = Reply(answer.code, value, answer.revision, answer.message)

    def _came(self) -> tuple[int, int, int]:
        """Count the sessions, replies and items that came so far."""
        replies = sum(len(session.replies) for _, session in self._sessions)
        return len(self._sessions), replies, len(self._items)
