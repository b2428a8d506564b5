"""The whole state machine once more, as plainly as it can be written, and a machine that is held against it.

The model is a dict of values, one of the times at which keys end, and one of sessions. It was written from the
protocol, and shares no code with the state machine nor with the judges: of `kv` it knows the words in which something
is asked, and nothing else.

Left out: the limits of sessions (how many, how much they hold), which no random run comes near.

    python -m tests.reference_model --operations 1000000 --seed 1
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from decimal import ROUND_CEILING, Decimal
from random import Random
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from trio_kv.kv import commands
from trio_kv.kv.asking import Asked
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import AnyQuery, AnyWrite, Cas, Delete, Get, Incr, Scan, Set, Txn
from trio_kv.kv.operations.txn import BranchOperation, Condition
from trio_kv.kv.reply import Reply
from trio_kv.kv.restorer import Restorer
from trio_kv.kv.siblings import Siblings
from trio_kv.raft.entry import Entry, make_entry

Told = tuple[str, bytes | None, int]
"""Code, value and revision of an answer."""
Held = tuple[bytes, int]

EXPIRED: Told = ("session_expired", None, 0)


class Session:
    """What is known of a session."""

    def __init__(self, timeout_us: int, used_us: int, secret: str) -> None:
        self.timeout_us, self.used_us, self.secret = timeout_us, used_us, secret
        self.done = self.highest = 0
        self.answers: dict[int, tuple[Told, int]] = {}
        """By seq: the answer, and the digest of what was asked."""


class Model:
    """Keys and sessions after the entries applied so far."""

    def __init__(self) -> None:
        self.items: dict[str, Held] = {}
        self.ends: dict[str, int] = {}
        """Cluster times at which keys end, in microseconds."""
        self.sessions: dict[int, Session] = {}
        self.ended = 0
        """How many keys have ended because their time was over."""

    def apply(self, entry: Entry) -> Told:  # noqa: PLR0911 - one a command
        """Return what the next entry is answered with; of the use of a session, no value."""
        command, index, now_us = entry.command, entry.index, entry.time_us
        match command:
            case commands.ClientWrite():
                return self._client_write(command, index, now_us)
            case commands.Write(session):
                found = self.sessions.get(session)
                return EXPIRED if found is None else self._write(found, command, command.done, index, now_us)
            case commands.OpenSession(timeout_us, secret):
                same = [name for name, each in self.sessions.items() if secret and each.secret == secret]
                if not same:
                    self.sessions[index] = Session(timeout_us, now_us, secret)
                    return ("ok", None, index)
                self.sessions[same[0]].used_us = now_us
                return ("ok", None, same[0])
            case commands.RenewSession(session, secret):
                found = self.sessions.get(session)
                if found is None or found.secret != secret:
                    return EXPIRED
                found.used_us = now_us
                return ("ok", None, index)
            case commands.Expire(at_most):
                self._expire(at_most, now_us)
            case _:
                pass
        return ("ok", None, 0)

    def next_end(self) -> int | None:
        """Return when the next thing ends."""
        sessions = [each.used_us + each.timeout_us for each in self.sessions.values()]
        return min([*self.ends.values(), *sessions], default=None)

    def _expire(self, at_most: int | None, now_us: int) -> None:
        """Let end what is due: the earliest first, of equals keys before sessions, by name."""
        due = [(end_us, 0, key, 0) for key, end_us in self.ends.items()]
        due += [(each.used_us + each.timeout_us, 1, "", name) for name, each in self.sessions.items()]
        for _, kind, key, session in sorted(each for each in due if each[0] <= now_us)[:at_most]:
            if kind:
                del self.sessions[session]
            else:
                del self.items[key], self.ends[key]
                self.ended += 1

    def answer(self, query: AnyQuery, applied: int) -> Told:
        """Return what a query is answered with now."""
        if isinstance(query, Get):
            held = self.items.get(query.key)
            return ("missing", None, 0) if held is None else ("ok", *held)
        keys = sorted(key for key in self.items if key.startswith(query.prefix))
        if query.reverse:
            keys.reverse()
        if query.after is not UNSET:
            keys = [key for key in keys if (key < query.after if query.reverse else key > query.after)]
        if query.count:
            return ("ok", b'"count": %d, ' % len(keys), applied)
        texts = []
        for key in keys[: query.limit]:
            members: dict[str, object] = {"key": key}
            if query.values:
                members["value"] = msgspec.Raw(self.items[key][0])
            texts.append(msgspec.json.encode(members | {"revision": self.items[key][1]}))
        more = b"true" if len(texts) < len(keys) else b"false"
        return ("ok", b'"items": [' + b", ".join(texts) + b'], "more": ' + more + b", ", applied)

    def _client_write(self, command: commands.ClientWrite, index: int, now_us: int) -> Told:
        session, seq, done = self.sessions.get(command.session), command.seq, command.done
        if session is None or not command.secret or session.secret != command.secret:
            return EXPIRED
        if done == commands.UNSAID:
            done = max(seq, session.highest) - 1023
        if seq in session.answers and session.answers[seq][1] != command.digest:
            return ("bad_request", None, 0)
        if seq > max(done, session.done) + 65_535:
            return ("overloaded", None, 0)
        told = self._write(session, command, done, index, now_us)
        if seq in session.answers:
            session.highest = max(session.highest, seq)
        return told

    def _write(self, session: Session, command: commands.Write, done: int, index: int, now_us: int) -> Told:
        seq, digest = command.seq, command.digest if isinstance(command, commands.ClientWrite) else 0
        session.done = max(session.done, done)
        session.answers = {each: told for each, told in session.answers.items() if each >= session.done}
        if seq < session.done:
            return EXPIRED
        if seq not in session.answers:
            session.used_us = now_us
            session.answers[seq] = (self._carry_out(command.operation, index, now_us), digest)
        return session.answers[seq][0]

    def _carry_out(self, operation: AnyWrite, index: int, now_us: int) -> Told:
        if isinstance(operation, Txn):
            return self._transact(operation, index, now_us)
        held = self.items.get(operation.key)
        if isinstance(operation, Cas):
            expected = operation.expected
            if held is None or expected is UNSET:
                is_met = held is None and expected is UNSET
            else:
                is_met = is_same(held[0], bytes(expected))
        else:
            wanted = getattr(operation, "if_revision", UNSET)
            is_met = wanted is UNSET or wanted == (0 if held is None else held[1])
        if not is_met:
            return ("conflict", None, 0) if held is None else ("conflict", *held)
        told = do(self.items, operation, index)
        if told[0] == "ok":
            self._note_end(operation, now_us)
        return told

    def _note_end(self, operation: BranchOperation | Cas, now_us: int) -> None:
        """Note when a key ends that was used by an operation that could be carried out."""
        if isinstance(operation, Get):
            return
        # Whoever counts leaves the time as it was, unless he says another one.
        if not isinstance(operation, Incr):
            self.ends.pop(operation.key, None)
        if not isinstance(operation, Delete) and operation.ttl is not UNSET:
            # Times are whole microseconds here, and a key lives no less than its time.
            exact = Decimal(str(operation.ttl)) * 1_000_000
            self.ends[operation.key] = now_us + int(exact.to_integral_value(ROUND_CEILING))

    def _transact(self, txn: Txn, index: int, now_us: int) -> Told:
        holds = all(self._holds(condition) for condition in txn.conditions)
        after = dict(self.items)
        results: list[list[object]] = []
        for operation in txn.then if holds else txn.otherwise:
            code, value, revision = do(after, operation, index)
            if code == "conflict":
                return (code, value, revision)
            results.append([code] if value is None else [code, msgspec.Raw(value)])
        for key, held in after.items():
            # One by one, as a key that is written keeps its place among the others.
            if self.items.get(key) != held:
                self.items[key] = held
        for key in [key for key in self.items if key not in after]:
            del self.items[key]
            self.ends.pop(key, None)
        for operation in txn.then if holds else txn.otherwise:
            if operation.key in self.items:
                self._note_end(operation, now_us)
        return ("ok", msgspec.json.encode([holds, results]), index)

    def _holds(self, condition: Condition) -> bool:
        held = self.items.get(condition.key)
        if condition.exists is not UNSET:
            return condition.exists == (held is not None)
        if condition.revision is not UNSET:
            return condition.revision == (0 if held is None else held[1])
        assert condition.equals is not UNSET
        return held is not None and is_same(held[0], bytes(condition.equals))


def do(items: dict[str, Held], operation: BranchOperation | Cas, index: int) -> Told:
    """Carry out an operation under no condition; return the answer to it."""
    held = items.get(operation.key)
    match operation:
        case Get():
            return ("missing", None, 0) if held is None else ("ok", *held)
        case Delete():
            if held is None:
                return ("missing", None, 0)
            del items[operation.key]
            return ("ok", held[0], index)
        case Incr():
            number = 0 if held is None else whole(held[0])
            if number is None or abs(number + operation.by) >= 10**18:
                assert held is not None
                return ("conflict", *held)
            items[operation.key] = (str(number + operation.by).encode(), index)
            return ("ok", items[operation.key][0], index)
        case _:
            items[operation.key] = (bytes(operation.value), index)
            return ("ok", None, index)


def whole(text: bytes) -> int | None:
    """Return the whole number that a text is, if it is one that can be counted with."""
    digits = text.decode().lstrip("-")
    is_spelled = text.decode() in (digits, f"-{digits}") and digits.isdecimal()
    return int(text) if is_spelled and len(digits) <= 18 and str(int(digits)) == digits else None


def is_same(first: bytes, second: bytes) -> bool:
    """Return whether two small texts are equal as JSON."""
    return bool(plain(first) == plain(second))


def plain(text: bytes) -> Any:
    """Return a JSON value in which equal is equal, and true is not 1."""

    def tell(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: tell(each) for name, each in value.items()}
        return [tell(each) for each in value] if isinstance(value, list) else (type(value).__name__, value)

    return tell(json.loads(text, parse_int=Decimal, parse_float=Decimal))


KEYS = ("a", "a/1", "a/2", "a/\u00e9", "b", "b\U0001f600", "n", "n1", "n2")
VALUES = (
    "1",
    "1.0",
    "10e-1",
    "true",
    "null",
    '"x"',
    '"\\u0078"',
    "[1, 2]",
    '{"b":1,"a":2}',
    '{"a":2.0, "b":1}',
)
NUMBERS = ("0", "-0", "41", "-7", "9" * 18, "01".lstrip("0"), "-" + "9" * 18)


SESSIONS_USED = 6
"""So many of the last sessions are used; the others come to their end."""


class Drawing:
    """Draws a log, entry by entry, and questions between the entries."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.index = self.time_us = 0
        self.sessions: dict[int, str] = {}
        """Index and secret of those that were opened."""

    def entry(self) -> Entry:
        """Return the next entry."""
        self.index += 1
        self.time_us += self.random.choice((0, 0, 0, 1, 5))
        return make_entry(self.index, 1, self.time_us, self._command())

    def query(self) -> AnyQuery:
        """Return a question."""
        random = self.random
        if random.random() < 0.5:
            return Get(random.choice(KEYS))
        return Scan(
            random.choice(("", "", "a", "a/", "b", "n", "x")),
            random.choice((UNSET, UNSET, *KEYS, "a/10", "zz")),
            random.choice((1, 2, 3, 1000)),
            random.random() < 0.5,
            random.random() < 0.7,
            random.random() < 0.2,
        )

    def _command(self) -> commands.Command | None:
        random = self.random
        drawn = random.random()
        if len(self.sessions) < 3 or drawn < 0.005:
            # Some live long, or little else would happen.
            secret = random.choice(("", f"s{random.randrange(50)}"))
            self.sessions[self.index] = secret
            while len(self.sessions) > SESSIONS_USED:
                del self.sessions[next(iter(self.sessions))]
            return commands.OpenSession(random.choice((3_000, 200_000)), secret)
        if drawn < 0.01:
            return None
        if drawn < 0.02:
            return commands.Expire(random.choice((None, None, 1, 3)))
        session, secret = random.choice(list(self.sessions.items()))
        if drawn < 0.03:
            return commands.RenewSession(session, secret)
        seq, done = self.index // 8 + random.randrange(-6, 30), self.index // 8 - random.choice((3, 5, 60))
        if not secret:
            return commands.Write(session, max(seq, 0), max(done, 0), self._write())
        operation = self._write()
        secret = secret if random.random() < 0.98 else "another"
        done = random.choice((max(done, 0), commands.UNSAID))
        if done >= 0 and random.random() < 0.01:
            seq += 70_000
        digest = len(operation.name)
        return commands.ClientWrite(session, max(seq, 0), done, operation, secret, digest)

    def _ttl(self) -> float | UnsetType:
        """Return how long a key lives: some end between two entries that let anything end, some at one moment."""
        return self.random.choice((UNSET, UNSET, UNSET, 0.000_01, 0.000_010_1, 0.000_2, 0.001, 3600.0))

    def _value(self, key: str) -> msgspec.Raw:
        return msgspec.Raw(self.random.choice(NUMBERS if key.startswith("n") else VALUES).encode())

    def _write(self) -> AnyWrite:
        random, key = self.random, self.random.choice(KEYS)
        revision = random.choice((UNSET, UNSET, UNSET, 0, max(self.index - random.randrange(40), 0)))
        match random.choice("ssssdcciit"):
            case "s":
                return Set(key, self._value(key), random.choice((UNSET, UNSET, revision)), self._ttl())
            case "d":
                return Delete(key, revision)
            case "c":
                return Cas(key, self._value(key), random.choice((UNSET, self._value(key))), self._ttl())
            case "i":
                return Incr(random.choice(("n", "n1", "n2", key)), random.randrange(-3, 4), self._ttl())
            case _:
                return Txn(tuple(self._conditions()), tuple(self._branch()), tuple(self._branch()))

    def _conditions(self) -> Iterator[Condition]:
        for _ in range(self.random.choice((0, 0, 1, 2))):
            key = self.random.choice(KEYS)
            yield self.random.choice(
                (
                    Condition(key, exists=self.random.random() < 0.6),
                    Condition(key, equals=self._value(key)),
                    Condition(key, revision=max(self.index - self.random.randrange(40), 0)),
                )
            )

    def _branch(self) -> Iterator[BranchOperation]:
        written = set()
        for _ in range(self.random.choice((0, 1, 2, 4))):
            key = self.random.choice(KEYS)
            drawn = self.random.choice("gsdi" if key not in written else "g")
            if drawn == "g":
                yield Get(key)
                continue
            written.add(key)
            if drawn == "s":
                yield Set(key, self._value(key), ttl=self._ttl())
            else:
                yield Delete(key) if drawn == "d" else Incr(key, self.random.randrange(-3, 4), self._ttl())


class Comparison:
    """A machine, another one of the same process that lags behind, and the model, under one random log."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.drawing, self.model = Drawing(self.random), Model()
        self.machine, self.follower, siblings = Machine(), Machine(), Siblings()
        self.machine.join(siblings)
        self.follower.join(siblings)
        self.behind: list[Entry] = []
        self.codes: dict[str, int] = {}

    def run(self, operations: int) -> None:
        """Apply so many entries, in runs of any length.

        Raises:
            AssertionError: something differs.

        """
        while self.drawing.index < operations:
            count = min(self.random.choice((1, 1, 3, 20, 150)), operations - self.drawing.index)
            self._apply([self.drawing.entry() for _ in range(count)])
            if self.random.random() < 0.05:
                self._disturb()

    def _apply(self, entries: Sequence[Entry]) -> None:
        asked: list[Asked] = []
        expected: list[list[Told]] = []
        due: list[Told] = []
        for entry in entries:
            due.append(self.model.apply(entry))
            if self.random.random() < 0.05:
                queries = [self.drawing.query() for _ in range(self.random.choice((1, 3)))]
                asked.append(Asked(entry.index, queries, []))
                expected.append([self.model.answer(query, entry.index) for query in queries])
        replies: list[Reply] = []
        while len(replies) < len(entries):
            rest = [each for each in asked if not each.replies]
            replies += self.machine.apply(entries[len(replies) :], self.random.choice((30, 10**6)), rest)
        for entry, reply, told in zip(entries, replies, due, strict=True):
            is_use = isinstance(entry.command, commands.OpenSession | commands.RenewSession)
            assert tell(reply, has_value=not is_use) == told, f"{entry} {entry.command}: {reply}, not {told}"
            self.codes[told[0]] = self.codes.get(told[0], 0) + 1
        for each, answers in zip(asked, expected, strict=True):
            for query, reply, told in zip(each.queries, each.replies, answers, strict=True):
                assert tell(reply) == told, f"{query} at {each.index}: {reply}, not {told}"
        held = {key: (bytes(item.value), item.revision) for key, item in self.machine.items.items()}
        assert list(held.items()) == list(self.model.items.items()), f"at {entries[-1]}"
        ends = {key: item.due[0] for key, item in self.machine.items.items() if item.due is not None}
        assert ends == self.model.ends, f"at {entries[-1]}"
        assert self.machine.expires_at_us == self.model.next_end(), f"at {entries[-1]}"
        assert sorted(self.machine.sessions.by_id) == sorted(self.model.sessions)
        self.behind += entries
        if len(self.behind) > self.random.randrange(1000):
            self._catch_up()

    def _catch_up(self) -> None:
        """Let the other machine apply what it has not yet."""
        while self.behind:
            self.follower.apply(self.behind[: self.random.choice((1, 7, 200))])
            self.behind = self.behind[self.follower.applied - self.behind[0].index + 1 :]
        assert (self.follower.state_digest, self.follower.items) == (
            self.machine.state_digest,
            self.machine.items,
        )

    def _disturb(self) -> None:
        """Take a snapshot, and go on frozen; or make the machine anew from one."""
        if not isinstance(self.machine.items, dict):
            self.machine.settle(self.random.choice((1, 1000)))
            return
        chunks = list(self.machine.freeze().chunks())
        self.machine.thaw()
        if self.random.random() < 0.5:
            self._catch_up()
            siblings, restorer = self.machine.siblings, Restorer()
            for chunk in chunks:
                restorer.feed(chunk)
            restored = restorer.finish()
            assert restored.expires_at_us == self.machine.expires_at_us
            self.machine = restored
            self.machine.join(siblings)


def tell(reply: Reply, *, has_value: bool = True) -> Told:
    """Return what of a reply the model tells, too."""
    value = None if reply.value is None or not has_value else bytes(reply.value)
    return (reply.code, value, reply.revision)


def main() -> None:
    """Compare as many operations as the command line says, and tell how it went."""
    parser = argparse.ArgumentParser(description="hold the state machine against a model of it")
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began_at, comparison = time.monotonic(), Comparison(options.seed)
    comparison.run(options.operations)
    took_s = time.monotonic() - began_at
    codes = ", ".join(f"{code} {count:,}" for code, count in sorted(comparison.codes.items()))
    print(f"{options.operations:,} operations are equal, in {took_s:.0f} s: {codes}")  # noqa: T201 - its output


if __name__ == "__main__":
    main()
