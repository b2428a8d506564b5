"""What the state machine should answer: its rules once more, as plainly as they can be written.

An independent second opinion: it shares no code with `kv`. Values are compared byte by byte, so it is right only
for workloads that write each JSON value in one way.
"""

import attrs

from trio_kv.kv.commands import Cas, Delete, Expire, OpenSession, RenewSession, Set
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
    done: int = 0
    outcomes: dict[int, Outcome] = attrs.field(factory=dict)


EXPIRED = Outcome("session_expired")


class Reference:
    """The state after the entries applied so far, and the history of each key."""

    def __init__(self) -> None:
        """Hold nothing."""
        self.items: dict[str, tuple[bytes, int]] = {}
        self.history: dict[str, list[tuple[int, tuple[bytes, int] | None]]] = {}
        """key -> (index, item since then or None), rising."""
        self._sessions: dict[int, _Session] = {}

    def apply(self, entry: Entry) -> Outcome:
        """Apply the next entry."""
        command, index, time_us = entry.command, entry.index, entry.time_us
        match command:
            case Set() | Delete() | Cas():
                return self._write(command, index, time_us)
            case OpenSession(timeout_us):
                self._sessions[index] = _Session(timeout_us, time_us)
                return Outcome("ok", None, index)
            case RenewSession(session_id):
                session = self._sessions.get(session_id)
                if session is None:
                    return EXPIRED
                session.used_us = time_us
                return Outcome("ok", None, index)
            case Expire():
                due = [
                    name for name, each in self._sessions.items() if each.used_us + each.timeout_us <= time_us
                ]
                for name in due:
                    del self._sessions[name]
                return Outcome("ok")
            case None:
                return Outcome("ok")
            case _:
                raise AssertionError(f"no rule for {command}")

    def at(self, key: str, index: int) -> tuple[bytes, int] | None:
        """Return what a key held after entry `index`."""
        held = None
        for since, item in self.history.get(key, ()):
            if since > index:
                break
            held = item
        return held

    def _write(self, command: Set | Delete | Cas, index: int, time_us: int) -> Outcome:
        session = self._sessions.get(command.session)
        if session is None:
            return EXPIRED
        if command.done > session.done:
            session.done = command.done
            session.outcomes = {
                seq: outcome for seq, outcome in session.outcomes.items() if seq >= session.done
            }
        if command.seq in session.outcomes:
            return session.outcomes[command.seq]
        if command.seq < session.done:
            return EXPIRED
        outcome = self._take_effect(command, index)
        session.outcomes[command.seq] = outcome
        session.used_us = time_us
        return outcome

    def _take_effect(self, command: Set | Delete | Cas, index: int) -> Outcome:
        key = command.key
        held = self.items.get(key)
        conflict = Outcome("conflict", *held) if held is not None else Outcome("conflict")
        if isinstance(command, Cas):
            expected = bytes(command.expected[0]) if command.expected else None
            if (held[0] if held is not None else None) != expected:
                return conflict
        elif command.if_revision is not None and command.if_revision != (held[1] if held is not None else 0):
            return conflict
        if isinstance(command, Delete):
            if held is None:
                return Outcome("missing")
            del self.items[key]
            self.history[key].append((index, None))
            return Outcome("ok", held[0], index)
        self.items[key] = bytes(command.value), index
        self.history.setdefault(key, []).append((index, self.items[key]))
        return Outcome("ok", None, index)
