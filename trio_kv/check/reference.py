"""What the state machine should answer: its rules once more, as plainly as they can be written.

An independent second opinion: it shares no code with `kv`.
"""

import math
from collections.abc import Iterable
from typing import Any

import attrs
from msgspec import UNSET

from trio_kv.check.json_equality import are_equal
from trio_kv.kv.commands import UNSAID, ClientWrite, Expire, OpenSession, RenewSession, Write
from trio_kv.kv.operations import AnyQuery, AnyWrite, Cas, Delete, Incr, Set
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
SMALL_TEXT_BYTES_MAX = 512


class Reference:
    """The state after the entries applied so far, and the history of each key."""

    def __init__(self) -> None:
        """Hold nothing."""
        self.items: dict[str, tuple[bytes, int]] = {}
        self.history: dict[str, list[tuple[int, tuple[bytes, int] | None]]] = {}
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
                        self._remove(ended, index)
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
        held = None
        for since, item in self.history.get(query.key, ()):
            if since > index:
                break
            held = item
        return Outcome("missing") if held is None else Outcome("ok", *held)

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
        held = self.items.get(operation.key)
        may_tell_value = not isinstance(operation, Set) or operation.if_revision is not UNSET
        is_large = held is not None and len(held[0]) > SMALL_TEXT_BYTES_MAX
        if may_tell_value and is_large and self._is_full(session):
            session.outcomes[command.seq] = OVERLOADED
            return OVERLOADED
        outcome = self._take_effect(operation, index, time_us)
        session.outcomes[command.seq] = outcome
        if outcome.value is not None:
            is_removed = isinstance(operation, Delete) and outcome.code == "ok"
            session.sources[command.seq] = (
                operation.key,
                held[1] if is_removed and held is not None else outcome.revision,
            )
            self._text_bytes_max += len(outcome.value)
        session.used_us = time_us
        return outcome

    def _is_full(self, session: _Session) -> bool:
        if self._text_bytes_max < min(SESSION_TEXT_BYTES_MAX, ALL_TEXT_BYTES_MAX):
            return False
        self._text_bytes_max = _held_bytes(self._sessions.values())
        return _held_bytes([session]) >= SESSION_TEXT_BYTES_MAX or self._text_bytes_max >= ALL_TEXT_BYTES_MAX

    def _take_effect(self, operation: AnyWrite, index: int, time_us: int) -> Outcome:
        key = operation.key
        held = self.items.get(key)
        if not _may_take_effect(operation, held):
            return Outcome("conflict") if held is None else Outcome("conflict", *held)
        match operation:
            case Delete():
                if held is None:
                    return Outcome("missing")
                self._remove(key, index)
                return Outcome("ok", held[0], index)
            case Incr(by=by, ttl=ttl):
                total, end_us = _add(held, by), self.ends.get(key) if held is not None else None
                self._put(key, total, index, end_us if ttl is UNSET else _end_of(ttl, time_us))
                return Outcome("ok", total, index)
            case Set(value=value, ttl=ttl) | Cas(value=value, ttl=ttl):
                self._put(key, bytes(value), index, None if ttl is UNSET else _end_of(ttl, time_us))
                return Outcome("ok", None, index)

    def _put(self, key: str, value: bytes, index: int, end_us: int | None) -> None:
        self.items[key] = value, index
        self.ends.pop(key, None)
        if end_us is not None:
            self.ends[key] = end_us
        self.history.setdefault(key, []).append((index, self.items[key]))

    def _remove(self, key: str, index: int) -> None:
        del self.items[key]
        self.ends.pop(key, None)
        self.history[key].append((index, None))


def _may_take_effect(operation: AnyWrite, held: tuple[bytes, int] | None) -> bool:
    """Return whether the conditions of an operation hold."""
    match operation:
        case Cas(expected=expected):
            if held is None or expected is UNSET:
                return held is None and expected is UNSET
            return are_equal(held[0], bytes(expected))
        case Incr(by=by):
            return (held is None or _is_whole(held[0])) and _is_whole(_add(held, by))
        case Set(if_revision=wanted) | Delete(if_revision=wanted):
            return wanted is UNSET or wanted == (0 if held is None else held[1])


def _end_of(ttl_s: float, time_us: int) -> int:
    """Return when a key ends that lives so long from a cluster time on."""
    return time_us + math.ceil(ttl_s * 1_000_000)


def _is_whole(text: bytes) -> bool:
    """Return whether a text is that of a whole number of up to 18 digits."""
    digits = text.removeprefix(b"-")
    return digits.isdigit() and len(digits) <= 18 and (digits == b"0" or not digits.startswith(b"0"))


def _add(held: tuple[bytes, int] | None, by: int) -> bytes:
    """Return the text of the sum."""
    return b"%d" % (by if held is None else int(held[0]) + by)


def _held_bytes(sessions: Iterable[_Session]) -> int:
    """Return what the outcomes of sessions hold; a text counts once a session."""
    return sum(sum(session.texts().values()) for session in sessions)
