"""The replicated state machine: keys, client sessions, cluster time and two digests.

It is a function of the log and of nothing else: no clock, no randomness, no state of its node. So nodes that
applied the same entries hold the same, which the digests prove: `entries_digest` runs over the bytes of the
entries, `state_digest` over what each of them answered and changed. Two nodes with the same `applied` and the
same `entries_digest` but another `state_digest` have a state machine that diverged on an equal log.

Nothing in a committed entry may raise here: an entry that did would fail again on every node and after every
restart. What a command asks in vain is told in its reply. The assertions are about the caller: entries come
without a gap, and cluster time never runs back.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, Self

from crc32c import crc32c

from trio_kv.kv import image
from trio_kv.kv.commands import Cas, Delete, Expire, OpenSession, RenewSession, Set
from trio_kv.kv.equality import is_equal_json
from trio_kv.kv.reply import Item, Reply
from trio_kv.kv.sessions import UNKNOWN_SESSION, Sessions

CODE_NUMBERS: Mapping[str, int] = MappingProxyType(
    {"ok": 0, "missing": 1, "conflict": 2, "session_expired": 3, "overloaded": 4}
)
"""How the state digest writes a reply's code. No number ever gets a new meaning: nodes compare digests."""

NOTHING = Reply("ok")
"""The reply to an entry that answers nobody: the no-op of a term, an expiry."""

_pack = struct.Struct("<BQQ").pack
"""A reply's code number and revision, and the revision that the key had before."""


Changes = list[bytes]
"""What the state digest will run over: pieces of bytes, joined once a run."""

Writer = Callable[[dict[str, Item], Any, int, Changes], Reply]
"""(keys, command, index, changes) -> reply: applies one kind of write."""


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

    __slots__ = ("applied", "applied_term", "entries_digest", "items", "sessions", "state_digest", "time_us")

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
        self.items: dict[str, Item] = {}
        self.sessions = Sessions()

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
            apply_write = _WRITES.get(kind)
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
        """Return a machine that changes on its own. Items and replies are immutable and stay shared."""
        twin = type(self)()
        twin.applied, twin.applied_term, twin.time_us = self.applied, self.applied_term, self.time_us
        twin.entries_digest, twin.state_digest = self.entries_digest, self.state_digest
        twin.items = self.items.copy()
        twin.sessions = self.sessions.copy()
        return twin

    def snapshot(self) -> bytes:
        """Return everything that `restore` needs; equal machines have equal snapshots."""
        return b"".join(self.snapshot_parts())

    def snapshot_parts(self) -> Iterator[bytes]:
        """Yield the snapshot in parts, each made in a millisecond or so unless values are large.

        Nothing may be applied between two parts: whoever takes his time takes them from a `copy`.
        """
        head = image.Head(
            applied=self.applied,
            applied_term=self.applied_term,
            time_us=self.time_us,
            entries_digest=self.entries_digest,
            state_digest=self.state_digest,
        )
        return image.encode_image(head, self.sessions, self.items)

    @classmethod
    def restore(cls, data: bytes) -> Self:
        """Make the machine that `snapshot` was called on; it behaves the same from there on.

        Raises:
            ValueError: these are not the bytes of a snapshot, or of one in a format that is not known here.

        """
        head, sessions, items = image.decode_image(data)
        machine = cls()
        machine.applied, machine.applied_term, machine.time_us = head.applied, head.applied_term, head.time_us
        machine.entries_digest, machine.state_digest = head.entries_digest, head.state_digest
        machine.sessions, machine.items = sessions, items
        return machine

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
        _note(changes, reply)
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
        _note(changes, reply)
        return reply


def _note(changes: Changes, reply: Reply, previous: int = 0) -> None:
    """Put a reply into what the state digest runs over."""
    changes.append(_pack(CODE_NUMBERS[reply.code], reply.revision, previous))
    if reply.value is not None:
        changes.append(reply.value)


def _conflict(item: Item | None, message: str) -> Reply:
    if item is None:
        return Reply("conflict", None, 0, message)
    return Reply("conflict", item.value, item.revision, message)


def _set(items: dict[str, Item], command: Set, index: int, changes: Changes) -> Reply:
    key, value, wanted = command.key, command.value, command.if_revision
    item = items.get(key)
    previous = 0 if item is None else item.revision
    if wanted is not None and wanted != previous:
        reply = _conflict(item, _tell_revisions(previous, wanted))
        _note(changes, reply, previous)
        return reply
    items[key] = Item(value, index)
    changes += (_pack(0, index, previous), key.encode(), value)
    return Reply("ok", None, index)


def _delete(items: dict[str, Item], command: Delete, index: int, changes: Changes) -> Reply:
    key, wanted = command.key, command.if_revision
    item = items.get(key)
    previous = 0 if item is None else item.revision
    if wanted is not None and wanted != previous:
        reply = _conflict(item, _tell_revisions(previous, wanted))
    elif item is None:
        reply = Reply("missing")
    else:
        del items[key]
        changes.append(key.encode())
        reply = Reply("ok", item.value, index)
    _note(changes, reply, previous)
    return reply


def _cas(items: dict[str, Item], command: Cas, index: int, changes: Changes) -> Reply:
    key, expected = command.key, command.expected
    item = items.get(key)
    if item is None:
        message = "the key does not exist, but a value of it was expected" if expected else ""
    elif not expected:
        message = "the key exists, but was expected not to; say `expected` to change it"
    elif not is_equal_json(item.value, expected[0]):
        message = "the key holds another value than the expected one"
    else:
        message = ""
    previous = 0 if item is None else item.revision
    if message:
        reply = _conflict(item, message)
    else:
        items[key] = Item(command.value, index)
        changes += (key.encode(), command.value)
        reply = Reply("ok", None, index)
    _note(changes, reply, previous)
    return reply


def _tell_revisions(is_at: int, wanted: int) -> str:
    if is_at == 0:
        return f"the key does not exist, but was expected at revision {wanted}"
    if wanted == 0:
        return f"the key exists, at revision {is_at}, but was expected not to (if_revision 0)"
    return f"the key is at revision {is_at}, not at {wanted}"


_WRITES: dict[type, Writer] = {Set: _set, Delete: _delete, Cas: _cas}
