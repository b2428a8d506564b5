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
from collections.abc import Sequence

import msgspec
from crc32c import crc32c

from trio_kv.kv.asking import Asked, Asking
from trio_kv.kv.commands import ClientWrite, Expire, OpenSession, RenewSession, Write
from trio_kv.kv.entries import LogEntry
from trio_kv.kv.expiring import expire
from trio_kv.kv.key_order import KeyOrder
from trio_kv.kv.operations import AnyQuery
from trio_kv.kv.operations.operation import Change, Context, NoChange, SessionChange
from trio_kv.kv.outcomes import RUN_ENTRIES_MAX, Outcome, count_others, foresee
from trio_kv.kv.paging import Paging
from trio_kv.kv.reply import Reply
from trio_kv.kv.sessions import FULL_OF_TEXTS, UNKNOWN_SESSION
from trio_kv.kv.siblings import Siblings
from trio_kv.kv.state import MachineState

NOTHING = Reply("ok")
"""The reply to an entry that answers nobody: the no-op of a term, an expiry."""

_encode_lines = msgspec.json.Encoder().encode_lines


class Machine(MachineState):
    """Keys and sessions after the first `applied` entries of the log.

    The driver gives every committed entry to `apply`, once, in the order of the log. A machine whose `apply`
    raised is half changed and must be thrown away.
    """

    __slots__ = ("_context", "changes", "forgotten", "pages", "repeated", "siblings")

    def __init__(self) -> None:
        """Make the state before the first entry."""
        super().__init__()
        self.changes: Sequence[Change | SessionChange | NoChange] = ()
        """What the last call of `apply` did, in order."""
        self.repeated: list[int] = []
        """Indexes of the entries of that call whose commands were not applied there, because their sessions may know
        them from before: they have their answers, or no session has them any more."""
        self.forgotten: list[int] = []
        """The sessions that came to their end in that call."""
        self.pages = Paging()
        """The order of the keys, for who asks for it."""
        self.siblings = Siblings()
        """The machines of this process, with which this one shares what it holds."""
        self._context = Context()

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
        context = self._context
        known = self.siblings.find if self.siblings.applied > self.applied else None
        context.begin(self.items, self.expiry, known)
        self.changes, self.repeated = context.changes, []
        if self.forgotten:
            self.forgotten = []
        asking = Asking(asked) if asked else None
        while len(replies) < len(entries):
            if asking is not None and not asking.answer(self) and replies:
                break
            rest = entries[len(replies) : len(replies) + RUN_ENTRIES_MAX] if len(entries) > 1 else entries
            outcome = self._outcome_of(rest)
            if outcome is not None:
                is_over = not self._take_over(outcome, asking, replies)
            else:
                run = self._until_outcome(rest)
                if asking is not None:
                    run = run[: asking.entries_until(self, len(run))]
                is_over = not self._apply_each(run, compared_bytes_max, replies)
            if is_over:
                break
        if asking is not None:
            asking.answer(self)
        if self.applied > self.siblings.applied:
            self.siblings.lead(self)
        if self.pages.order is not None:
            self.pages.note(context.changes)
        return replies

    def _outcome_of(self, entries: Sequence[LogEntry]) -> Outcome | None:
        """Return what comes of the first ones of these entries, if that can be told at once."""
        outcomes = self.siblings.outcomes
        if len(entries) == 1:
            return None
        outcome = outcomes.find(entries)
        if outcome is not None:
            return outcome if outcome.happens_in(self.items, self.sessions) else None
        if self.siblings.applied > self.applied:
            return None
        outcome = foresee(entries, self.items, self.sessions)
        if outcome is not None:
            outcomes.note(outcome)
        return outcome

    def _until_outcome(self, entries: Sequence[LogEntry]) -> Sequence[LogEntry]:
        """Return the first ones of these entries, at least one, behind which an outcome may be known."""
        if len(entries) == 1:
            return entries
        siblings, index = self.siblings, entries[0].index
        is_ahead = siblings.applied <= self.applied
        return entries[: count_others(entries) if is_ahead else siblings.outcomes.distance(index)]

    def _take_over(self, outcome: Outcome, asking: Asking | None, replies: list[Reply]) -> bool:
        """Let what comes of the next entries happen, and add their replies; return whether there is time for more."""
        done, count = 0, len(outcome.entries)
        while done < count:
            stop = count
            if asking is not None:
                if done and not asking.answer(self):
                    return False
                stop = done + asking.entries_until(self, count - done)
            self._let_happen(outcome if stop - done == count else outcome.part(done, stop), replies)
            done = stop
        return True

    def _let_happen(self, outcome: Outcome, replies: list[Reply]) -> None:
        first, last = outcome.entries[0], outcome.entries[-1]
        assert first.index == self.applied + 1, f"entry {first.index} applied after {self.applied}"
        assert last.index == self.applied + len(outcome.entries), f"a gap between {first} and {last}"
        assert first.time_us >= self.time_us, (
            f"cluster time back from {self.time_us} to {first.time_us} at {first}"
        )
        outcome.take_over(self.items, self.sessions)
        self._context.changes += outcome.changes
        replies += outcome.replies.values()
        self._note_applied(last, outcome.encoded, outcome.told)

    def _apply_each(
        self, entries: Sequence[LogEntry], compared_bytes_max: float, replies: list[Reply]
    ) -> bool:
        """Apply entries one by one, and add their replies; return whether there is time for more."""
        context, write = self._context, self._write
        index, time_us, changed = self.applied, self.time_us, len(context.changes)
        encoded: list[bytes] = []
        is_over, last = True, None
        for entry in entries:
            is_over = context.compared_bytes > compared_bytes_max
            if is_over:
                break
            assert entry.index == index + 1, f"entry {entry.index} applied after {index}"
            assert entry.time_us >= time_us, f"cluster time back from {time_us} to {entry.time_us} at {entry}"
            context.index, context.time_us = index, time_us = entry.index, entry.time_us
            command = entry.command
            is_write = type(command) is Write
            replies.append(write(command, context) if is_write else self._control(command, context))
            encoded.append(entry.encoded)
            last = entry
        if last is not None:
            changes = context.changes[changed:] if changed else context.changes
            data = b"".join(encoded) if len(encoded) > 1 else encoded[0]
            self._note_applied(last, data, _encode_lines(changes))
        return not is_over

    def _note_applied(self, last: LogEntry, encoded: bytes, told: bytes) -> None:
        """Note that entries were applied, given the last one, their bytes, and those of what they did."""
        self.applied, self.time_us, self.applied_term = last.index, last.time_us, last.term
        self.entries_digest = crc32c(encoded, self.entries_digest)
        self.state_digest = crc32c(told, self.state_digest)

    def join(self, siblings: Siblings) -> None:
        """Share with the other machines of the process from here on."""
        self.siblings = siblings
        if self.applied > siblings.applied or not siblings.is_led:
            siblings.lead(self)

    def take_order(self) -> KeyOrder | None:
        """Return the order of the keys for a page, if one may be made now: see `Paging`."""
        return self.pages.take_order(self.items, self._context.changes)

    def order_keys(self, keys_max: int) -> bool:
        """Put at most so many keys in order, or some more; return whether all are."""
        return self.pages.settle(self.items, self._context.changes, keys_max)

    def _write(self, command: Write, context: Context) -> Reply:
        """Apply an operation, unless its session has its answer already or it must not be applied."""
        sessions = self.sessions
        session = sessions.by_id.get(command.session)
        if session is None:
            self.repeated.append(context.index)
            return context.note(UNKNOWN_SESSION)
        # Raised even by a repeated or refused command: what its owner has heard is true all the same.
        if command.done > session.done:
            freed_bytes = session.forget_below(command.done)
            if freed_bytes:
                sessions.held_bytes -= freed_bytes
        seq, replies = command.seq, session.replies
        known = replies.get(seq) or session.refuse(seq)
        if known is not None:
            self.repeated.append(context.index)
            return context.note(known)
        operation = command.operation
        items = context.items
        # Mostly no answer holds a text, and then there is room for one.
        if sessions.held_bytes and not sessions.has_room(session, operation.answer_bytes(items)):
            # Kept as any other answer: whoever was told that nothing happened must not see it happen when the
            # command is repeated.
            replies[seq] = FULL_OF_TEXTS
            return context.note(FULL_OF_TEXTS)
        session.used_us = context.time_us
        reply = operation.apply(context)
        if reply.value is None:
            replies[seq] = reply
        else:
            sessions.keep(session, seq, reply, context.origin)
        return reply if reply.code == "ok" else context.note(reply)

    def _client_write(self, command: ClientWrite, context: Context) -> Reply:
        """Apply an operation of a client's session, as one of any session if there is nothing against it."""
        taken = self.sessions.take(command)
        if isinstance(taken, Reply):
            self.repeated.append(context.index)
            return context.note(taken)
        reply = self._write(taken, context)
        self.sessions.applied(command, reply)
        return reply

    def _expire(self, context: Context, at_most: int | None) -> None:
        """Let keys and sessions end."""
        expired, changes = self.siblings.expired, context.changes
        begin, told = len(changes), expired.get(context.index)
        self.forgotten += expire(context, self.sessions, at_most, told or ())
        if told is None:
            expired.note(context.index, [each for each in changes[begin:] if isinstance(each, Change)])

    def _control(self, command: object, context: Context) -> Reply:
        """Apply what no gateway writes for itself: the no-op of a term, the life of the sessions, writes of clients."""
        index, time_us = context.index, context.time_us
        match command:
            case None:
                return NOTHING
            case ClientWrite():
                return self._client_write(command, context)
            case OpenSession(timeout_us, secret):
                reply = self.sessions.open(index, timeout_us, time_us, secret)
                change = SessionChange("open", index, timeout_us)
                if reply.revision != index:
                    change = SessionChange("renew", reply.revision)
            case RenewSession(session, secret):
                change = SessionChange("renew", session)
                reply = self.sessions.renew(session, time_us, index, secret)
            case Expire(at_most):
                self._expire(context, at_most)
                return NOTHING
            case _:
                raise AssertionError(f"entry {index} holds {command!r}, which is no command")
        if reply.code != "ok":
            return context.note(reply)
        context.changes.append(change)
        return reply
