"""The replicated state machine: keys, client sessions, cluster time and two digests.

It is a function of the log and of nothing else: no clock, no randomness, no state of its node. So nodes that
applied the same entries hold the same, which the digests prove: `entries_digest` runs over the bytes of the
entries, `state_digest` over what each of them changed, or answered where it changed nothing. Two nodes with the
same `applied` and the same `entries_digest` but another `state_digest` have a state machine that diverged on an equal
log.

What an operation does is told in its own file, in `kv.operations`; here stands what goes for all of them: sessions,
cluster time, and the record of `changes`.

A snapshot is made beside the work: `freeze` keeps the state of one moment readable, `chunks` tells it bit by bit,
`thaw` and `settle` bring the machine back to where it was; `kv.restorer` goes the other way.

Nothing in a committed entry may raise here: an entry that did would fail again on every node and after every
restart. What a command asks in vain is told in its reply. The assertions are about the caller: entries come
without a gap, and cluster time never runs back.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Self

import msgspec
from crc32c import crc32c
from msgspec import Raw

from trio_kv.kv.commands import Expire, OpenSession, RenewSession, Write
from trio_kv.kv.entries import Asked, LogEntry
from trio_kv.kv.expiring import expire
from trio_kv.kv.expiry import Expiry
from trio_kv.kv.frozen import Frozen
from trio_kv.kv.image import Head
from trio_kv.kv.key_order import KeyOrder
from trio_kv.kv.layers import Layers
from trio_kv.kv.operations import AnyQuery
from trio_kv.kv.operations.operation import Change, Context, NoChange, SessionChange
from trio_kv.kv.reply import Item, Reply
from trio_kv.kv.sessions import FULL_OF_TEXTS, UNKNOWN_SESSION, Sessions
from trio_kv.kv.siblings import Siblings

NOTHING = Reply("ok")
"""The reply to an entry that answers nobody: the no-op of a term, an expiry."""

NOTED_BYTES_MAX = 4096
"""How much of the value of an answer runs over the state digest."""

QUERIES_IN_A_CALL_MAX = 16_384
"""Queries answered in one call of `apply`, in some milliseconds; once it is more, further entries wait for the next."""

_encode_lines = msgspec.json.Encoder().encode_lines


class Machine:
    """Keys and sessions after the first `applied` entries of the log.

    The driver gives every committed entry to `apply`, once, in the order of the log. A machine whose `apply`
    raised is half changed and must be thrown away.
    """

    __slots__ = (
        "__weakref__",
        "_context",
        "_frozen",
        "applied",
        "applied_term",
        "changes",
        "entries_digest",
        "expiry",
        "items",
        "key_order",
        "known_time_us",
        "repeated",
        "sessions",
        "siblings",
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
        self.expiry = Expiry()
        """Which of them end, and when."""
        self.known_time_us = 0
        """Cluster time as far as this node knows, for who asks how long a key still lives; no part of the state."""
        self.sessions = Sessions()
        self.changes: Sequence[Change | SessionChange | NoChange] = ()
        """What the last call of `apply` did, in order."""
        self.repeated: list[int] = []
        """Indexes of the entries of that call whose commands were not applied there, because their sessions may know
        them from before: they have their answers, or no session has them any more."""
        self.key_order: KeyOrder | None = None
        """None until somebody asked for an order of the keys."""
        self.siblings = Siblings()
        """The machines of this process, with which this one shares what it holds."""
        self._context = Context()
        self._frozen: Frozen | None = None

    @property
    def expires_at_us(self) -> int | None:
        """Earliest cluster time at which something is due; None if nothing ever is."""
        session_us, key = self.sessions.expires_at_us(), self.expiry.first
        if key is None:
            return session_us
        return key[0] if session_us is None else min(session_us, key[0])

    def get(self, key: str) -> Item | None:
        """Return what a key holds; None if it does not exist."""
        return self.items.get(key)

    def query(self, queries: Sequence[AnyQuery]) -> list[Reply]:
        """Answer queries from this state."""
        return [query.answer(self) for query in queries]

    def apply(
        self,
        entries: Sequence[LogEntry],
        compared_bytes_max: float = math.inf,
        asked: Sequence[Asked] = (),
    ) -> list[Reply]:
        """Apply the next entries of the log; return their replies, one an entry.

        Where a long run is cut into calls makes no difference to anything, digests included.

        Args:
            entries: what comes next.
            compared_bytes_max: bytes of JSON to compare in this call. Once it is more, the call ends: it returns fewer
                replies than there are entries, at least one, and the rest has to be given again.
            asked: what is asked in the midst of these entries, in the order of the indexes: from that of the last entry
                before them on, up to that of the last of them. A call also ends once these queries are too many. What
                is asked behind the last entry that it applies is not answered.

        Raises:
            AssertionError: an index is not the next one, or cluster time runs back.

        """
        replies: list[Reply] = []
        context, siblings = self._context, self.siblings
        context.begin(self.items, self.expiry, siblings.find if siblings.applied > self.applied else None)
        self.changes = context.changes
        self.repeated = []
        write = self._write
        index, time_us = self.applied, self.time_us
        for entry in self._ask_between(entries, asked) if asked else entries:
            if context.compared_bytes > compared_bytes_max:
                break
            assert entry.index == index + 1, f"entry {entry.index} applied after {index}"
            assert entry.time_us >= time_us, f"cluster time back from {time_us} to {entry.time_us} at {entry}"
            context.index, context.time_us = index, time_us = entry.index, entry.time_us
            context.entry = entry
            command = entry.command
            is_write = type(command) is Write
            replies.append(write(command, context) if is_write else self._control(command, context))
        if len(replies) < len(entries):
            entries = entries[: len(replies)]
        if replies:
            self.applied, self.time_us, self.applied_term = index, time_us, entries[-1].term
            encoded = [entry.encoded for entry in entries]
            self.entries_digest = crc32c(
                b"".join(encoded) if len(encoded) > 1 else encoded[0], self.entries_digest
            )
            self.state_digest = crc32c(_encode_lines(context.changes), self.state_digest)
            if index > siblings.applied:
                siblings.lead(self)
        if self.key_order is not None:
            self.key_order.note(context.changes)
        return replies

    def join(self, siblings: Siblings) -> None:
        """Share with the other machines of the process from here on."""
        self.siblings = siblings
        if self.applied > siblings.applied or not siblings.is_led:
            siblings.lead(self)

    def _ask_between(self, entries: Sequence[LogEntry], asked: Sequence[Asked]) -> Iterator[LogEntry]:
        """Yield entries to be applied, and answer before each of them, and behind the last, what is asked there."""
        done = count = 0
        for entry in entries:
            if done < len(asked) and asked[done].index < entry.index:
                self.applied = entry.index - 1
                while done < len(asked) and asked[done].index < entry.index:
                    each = asked[done]
                    each.replies.extend(self.query(each.queries))
                    done, count = done + 1, count + len(each.queries)
                if count > QUERIES_IN_A_CALL_MAX and entry is not entries[0]:
                    return
            yield entry
        if done < len(asked):
            self.applied = entries[-1].index
        for each in asked[done:]:
            each.replies.extend(self.query(each.queries))

    def order_keys(self, keys_max: int) -> bool:
        """Put at most so many keys in order; return whether all are, so that `key_order` may be asked.

        The first call begins the order, and from then on it is kept. It is no part of the state: copies and snapshots
        don't have it.
        """
        if self.key_order is None:
            self.key_order = KeyOrder(self.items)
        return self.key_order.settle(self.items, keys_max)

    def copy(self) -> Self:
        """Return a machine that changes on its own. Items and replies are immutable and stay shared.

        The copy is not frozen, and has nothing to settle.
        """
        twin = type(self)()
        twin.applied, twin.applied_term, twin.time_us = self.applied, self.applied_term, self.time_us
        twin.entries_digest, twin.state_digest = self.entries_digest, self.state_digest
        twin.items, twin.expiry = self.items.copy(), self.expiry.copy()
        twin.sessions = self.sessions.copy()
        return twin

    def freeze(self) -> Frozen:
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
        return not items and self.expiry.dismantle(items_max)

    def _head(self) -> Head:
        return Head(
            applied=self.applied,
            applied_term=self.applied_term,
            time_us=self.time_us,
            entries_digest=self.entries_digest,
            state_digest=self.state_digest,
        )

    def _write(self, command: Write, context: Context) -> Reply:
        """Apply an operation, unless its session has its answer already or it must not be applied."""
        sessions = self.sessions
        session = sessions.by_id.get(command.session)
        if session is None:
            self.repeated.append(context.index)
            return _note(context, UNKNOWN_SESSION)
        # Raised even by a repeated or refused command: what its owner has heard is true all the same.
        if command.done > session.done:
            freed_bytes = session.forget_below(command.done)
            if freed_bytes:
                sessions.held_bytes -= freed_bytes
        seq, replies = command.seq, session.replies
        known = replies.get(seq) or session.refuse(seq)
        if known is not None:
            self.repeated.append(context.index)
            return _note(context, known)
        operation = command.operation
        items = context.items
        # Mostly no answer holds a text, and then there is room for one.
        if sessions.held_bytes and not sessions.has_room(session, operation.answer_bytes(items)):
            # Kept as any other answer: whoever was told that nothing happened must not see it happen when the
            # command is repeated.
            replies[seq] = FULL_OF_TEXTS
            return _note(context, FULL_OF_TEXTS)
        session.used_us = context.time_us
        made = context.entry.made
        if made is not None and operation.is_of_one_item and items.get(made.item.key) is made.before:
            # The very same item, and not just the same revision: a machine that is wrong about it must stay so alone.
            items[made.item.key] = made.item
            if made.is_timed:
                context.expiry.replace(made.before, made.item)
            context.changes.append(made.change)
            reply: Reply = made.reply
            if reply.value is None:
                replies[seq] = reply
            else:
                sessions.keep(session, seq, reply, (made.item.key, made.item.revision))
            return reply
        reply = operation.apply(context)
        if reply.value is None:
            replies[seq] = reply
        else:
            sessions.keep(session, seq, reply, context.origin)
        return reply if reply.code == "ok" else _note(context, reply)

    def _control(self, command: object, context: Context) -> Reply:
        """Apply what belongs to no session: the no-op of a term and the life of the sessions."""
        index, time_us = context.index, context.time_us
        match command:
            case None:
                return NOTHING
            case OpenSession(timeout_us):
                change = SessionChange("open", index, timeout_us)
                reply = self.sessions.open(index, timeout_us, time_us)
            case RenewSession(session):
                change = SessionChange("renew", session)
                reply = self.sessions.renew(session, time_us, index)
            case Expire(at_most):
                expire(context, self.sessions, at_most)
                return NOTHING
            case _:
                raise AssertionError(f"entry {index} holds {command!r}, which is no command")
        if reply.code != "ok":
            return _note(context, reply)
        context.changes.append(change)
        return reply


def _note(context: Context, reply: Reply) -> Reply:
    """Note an answer to an entry that changed nothing; return the answer."""
    value = reply.value
    if value is not None and len(value) > NOTED_BYTES_MAX:
        # All of it ran over the digest when it was written. A client that asks in vain for a large value, again and
        # again, must not let every node run over it each time.
        value = Raw(memoryview(value)[:NOTED_BYTES_MAX])
    context.changes.append(NoChange(reply.code, reply.revision, value))
    return reply
