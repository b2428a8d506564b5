"""What the state machine should answer: its rules once more, as plainly as they can be written.

An independent second opinion: it shares no code with `kv`.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import msgspec
from msgspec import UNSET

from trio_kv.check.json_equality import are_equal
from trio_kv.check.transactions import told_bytes_max, transact
from trio_kv.check.whole_numbers import add, is_whole
from trio_kv.kv.commands import UNSAID, ClientWrite, Expire, OpenSession, RenewSession, Write
from trio_kv.kv.operations import AnyQuery, AnyWrite, Cas, Delete, Get, Incr, Scan, Set, Txn
from trio_kv.raft.entry import Entry


@attrs.frozen
class Outcome:
    """What a command is answered with, apart from words for people."""

    code: str
    value: bytes | None = None
    revision: int = 0


@attrs.define
class _Session:
    timeout_us: int
    used_us: int
    secret: str = ""
    """Of one that a client opened."""
    done: int = 0
    outcomes: dict[int, Outcome] = attrs.field(factory=dict)
    sources: dict[int, tuple[str, int]] = attrs.field(factory=dict)
    """Key and revision that the value of an outcome comes from, by seq."""

    digests: dict[int, int] = attrs.field(factory=dict)
    """What each outcome answers, by seq; in the session of a client."""

    def use(self, time_us: int, index: int) -> Outcome:
        """Use it without writing; a client is told the time-out."""
        self.used_us = time_us
        return Outcome("ok", str(self.timeout_us).encode() if self.secret else None, index)

    def texts(self) -> dict[tuple[str, int], int]:
        """Return the sizes of the different values that outcomes hold."""
        return {source: len(self.outcomes[seq].value or b"") for seq, source in self.sources.items()}


EXPIRED = Outcome("session_expired")
OVERLOADED = Outcome("overloaded")

SESSION_TEXT_BYTES_MAX = 64 * 1024 * 1024
ALL_TEXT_BYTES_MAX = 256 * 1024 * 1024
"""What outcomes of one session, and of all, may hold before nothing that may tell a large value is applied any more."""
CLIENT_TEXT_BYTES_MAX = 192 * 1024 * 1024
"""What those of all may hold before that is so in the sessions of clients."""
SMALL_TEXT_BYTES_MAX = 512
PAGE_TEXT_BYTES_MAX = 1024 * 1024


class Reference:
    """The state after the entries applied so far, and the history of each key."""

    def __init__(self) -> None:
        """Hold nothing."""
        self.items: dict[str, tuple[bytes, int]] = {}
        self.history: dict[str, list[tuple[int, tuple[bytes, int] | None]]] = {}
        self.changes: list[tuple[int, str, tuple[bytes, int] | None]] = []
        """The same of all keys, in the order of the log."""
        """key -> (index, item since then or None), rising."""
        self.ends: dict[str, int] = {}
        """key -> cluster time at which it ends, in microseconds; those that are for good are not in it."""
        self._sessions: dict[int, _Session] = {}
        self._text_bytes_max = 0
        """What all outcomes hold at most: they are looked through only when it could be too much."""

    def apply(self, entry: Entry) -> Outcome:
        """Apply the next entry."""
        command, index, time_us = entry.command, entry.index, entry.time_us
        match command:
            case ClientWrite():
                return self._write_of_client(command, index, time_us)
            case Write():
                return self._write(command, index, time_us)
            case OpenSession(timeout_us, secret):
                known = [name for name, each in self._sessions.items() if secret and each.secret == secret]
                name = known[0] if known else index
                session = self._sessions.setdefault(name, _Session(timeout_us, time_us, secret))
                return session.use(time_us, name)
            case RenewSession(session_id, secret):
                found = self._find(session_id, secret)
                return EXPIRED if found is None else found.use(time_us, index)
            case Expire(at_most):
                for _, _, ended in self.due(time_us)[:at_most]:
                    if isinstance(ended, str):
                        self._note(ended, None, index, None)
                    else:
                        del self._sessions[ended]
                return Outcome("ok")
            case None:
                return Outcome("ok")
            case _:
                raise AssertionError(f"no rule for {command}")

    def due(self, time_us: int) -> list[tuple[int, bool, str | int]]:
        """Return (when it ended, whether it is a session, key or session) of all that may end at a cluster time."""
        due: list[tuple[int, bool, Any]] = [(end_us, False, key) for key, end_us in self.ends.items()]
        due += [(each.used_us + each.timeout_us, True, name) for name, each in self._sessions.items()]
        return sorted(each for each in due if each[0] <= time_us)

    def first_due_us(self, never_us: int) -> int:
        """Return the cluster time from which on something may end."""
        sessions = [each.used_us + each.timeout_us for each in self._sessions.values()]
        return min([*self.ends.values(), *sessions], default=never_us)

    def answer(self, query: AnyQuery, index: int) -> Outcome:
        """Return what a query is answered with after entry `index`."""
        match query:
            case Get(key=key):
                held = self._held(key, index)
                return Outcome("missing") if held is None else Outcome("ok", *held)
            case Scan():
                held_then = {key: self._held(key, index) for key in self.history}
                items = {key: item for key, item in held_then.items() if item is not None}
                return Outcome("ok", page_of(items, query), index)

    def _held(self, key: str, index: int) -> tuple[bytes, int] | None:
        """Return what a key held after entry `index`."""
        held = None
        for since, item in self.history.get(key, ()):
            if since > index:
                break
            held = item
        return held

    def _find(self, session_id: int, secret: str) -> _Session | None:
        session = self._sessions.get(session_id)
        return session if session is not None and session.secret == secret else None

    def _write_of_client(self, command: ClientWrite, index: int, time_us: int) -> Outcome:
        session, seq, done = self._find(command.session, command.secret), command.seq, command.done
        if session is None or not command.secret:
            return EXPIRED
        if done == UNSAID:
            done = max([seq, *session.outcomes]) - 1023
        if seq in session.outcomes and session.digests.get(seq, 0) != command.digest:
            return Outcome("bad_request")
        if seq > max(done, session.done) + 65_535:
            return OVERLOADED
        outcome = self._write(Write(command.session, seq, done, command.operation), index, time_us)
        if outcome == OVERLOADED:
            # The client may ask again.
            del session.outcomes[seq]
        elif seq in session.outcomes:
            session.digests[seq] = command.digest
        return outcome

    def _write(self, command: Write, index: int, time_us: int) -> Outcome:
        session = self._sessions.get(command.session)
        if session is None:
            return EXPIRED
        if command.done > session.done:
            session.done = command.done
            session.outcomes = {
                seq: outcome for seq, outcome in session.outcomes.items() if seq >= session.done
            }
            session.sources = {seq: source for seq, source in session.sources.items() if seq >= session.done}
        if command.seq in session.outcomes:
            return session.outcomes[command.seq]
        if command.seq < session.done:
            return EXPIRED
        operation = command.operation
        if self._told_bytes_max(operation) > SMALL_TEXT_BYTES_MAX and self._is_full(session):
            session.outcomes[command.seq] = OVERLOADED
            return OVERLOADED
        outcome, source = self._take_effect(operation, index, time_us)
        session.outcomes[command.seq] = outcome
        if outcome.value is not None:
            session.sources[command.seq] = source
            self._text_bytes_max += len(outcome.value)
        session.used_us = time_us
        return outcome

    def _told_bytes_max(self, operation: AnyWrite) -> int:
        """Return how many bytes of values the outcome may hold."""
        if isinstance(operation, Txn):
            return told_bytes_max(self.items, operation)
        if isinstance(operation, Set) and operation.if_revision is UNSET:
            return 0
        held = self.items.get(operation.key)
        return 0 if held is None else len(held[0])

    def _is_full(self, session: _Session) -> bool:
        all_max = CLIENT_TEXT_BYTES_MAX if session.secret else ALL_TEXT_BYTES_MAX
        if self._text_bytes_max < min(SESSION_TEXT_BYTES_MAX, all_max):
            return False
        self._text_bytes_max = _held_bytes(self._sessions.values())
        return _held_bytes([session]) >= SESSION_TEXT_BYTES_MAX or self._text_bytes_max >= all_max

    def _take_effect(self, operation: AnyWrite, index: int, time_us: int) -> tuple[Outcome, tuple[str, int]]:
        """Return the outcome, and the key and revision that its value comes from, if it has one."""
        if isinstance(operation, Txn):
            return self._transact(operation, index, time_us)
        key = operation.key
        held = self.items.get(key)
        source = key, 0 if held is None else held[1]
        if not _may_take_effect(operation, held):
            return Outcome("conflict") if held is None else Outcome("conflict", *held), source
        match operation:
            case Delete():
                if held is None:
                    return Outcome("missing"), source
                self._note(key, None, index, None)
                return Outcome("ok", held[0], index), source
            case Incr(by=by):
                total = add(b"0" if held is None else held[0], by)
                self._note(key, (total, index), index, self._end_of(operation, time_us))
                return Outcome("ok", total, index), (key, index)
            case Set(value=value) | Cas(value=value):
                self._note(key, (bytes(value), index), index, self._end_of(operation, time_us))
                return Outcome("ok", None, index), source

    def _end_of(self, write: Set | Cas | Incr, time_us: int) -> int | None:
        """Return when a key ends that is written so."""
        if write.ttl is not UNSET:
            return time_us + math.ceil(write.ttl * 1_000_000)
        return self.ends.get(write.key) if isinstance(write, Incr) else None

    def _transact(self, txn: Txn, index: int, time_us: int) -> tuple[Outcome, tuple[str, int]]:
        done = transact(self.items, txn, index)
        ends = {
            write.key: self._end_of(write, time_us)
            for write in (txn.then if done.holds else txn.otherwise)
            if isinstance(write, Set | Incr)
        }
        for key, item in done.after.items():
            if item is not None or key in self.items:
                self._note(key, item, index, None if item is None else ends[key])
        revision = 0 if done.value is None else done.source[1]
        return Outcome(done.code, done.value, revision), done.source

    def _note(self, key: str, item: tuple[bytes, int] | None, index: int, end_us: int | None) -> None:
        """Note what a key holds from entry `index` on, and when it ends."""
        self.history.setdefault(key, []).append((index, item))
        self.changes.append((index, key, item))
        self.ends.pop(key, None)
        if item is None:
            del self.items[key]
            return
        self.items[key] = item
        if end_us is not None:
            self.ends[key] = end_us

    def _remove(self, key: str, index: int) -> None:
        del self.items[key]
        self.ends.pop(key, None)
        self.history[key].append((index, None))
        self.changes.append((index, key, None))


def _may_take_effect(operation: Set | Delete | Cas | Incr, held: tuple[bytes, int] | None) -> bool:
    """Return whether the conditions of an operation hold."""
    match operation:
        case Cas(expected=expected):
            if held is None or expected is UNSET:
                return held is None and expected is UNSET
            return are_equal(held[0], bytes(expected))
        case Incr(by=by):
            number = b"0" if held is None else held[0]
            return is_whole(number) and is_whole(add(number, by))
        case Set(if_revision=wanted) | Delete(if_revision=wanted):
            return wanted is UNSET or wanted == (0 if held is None else held[1])


def page_of(items: Mapping[str, tuple[bytes, int]], query: Scan) -> bytes:
    """Return what a scan tells of these keys: their values and revisions."""
    keys = sorted([key for key in items if key.startswith(query.prefix)], key=str.encode)
    if query.reverse:
        keys.reverse()
    after = query.after
    if after is not UNSET:
        keys = [key for key in keys if (key < after if query.reverse else key > after)]
    if query.count:
        return b'"count": %d, ' % len(keys)
    texts: list[bytes] = []
    for key in keys[: query.limit]:
        value, revision = items[key]
        told = b'"value":%b,' % value if query.values else b""
        texts.append(b'{"key":%b,%b"revision":%d}' % (msgspec.json.encode(key), told, revision))
        if sum(len(text) + 2 for text in texts) > PAGE_TEXT_BYTES_MAX and len(texts) > 1:
            texts.pop()
            break
    is_more = b"true" if len(texts) < len(keys) else b"false"
    return b'"items": [%b], "more": %b, ' % (b", ".join(texts), is_more)


def _held_bytes(sessions: Iterable[_Session]) -> int:
    """Return what the outcomes of sessions hold; a text counts once a session."""
    return sum(sum(session.texts().values()) for session in sessions)
