"""The replay judge on random histories: what one copy of the data told is valid, and what it did not is found."""

import json
import math
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import attrs
import pytest

from tests.one_copy import OneCopy
from trio_kv.check.exchange import Exchange
from trio_kv.check.replay import Replayed
from trio_kv.check.replay_log import judge_log
from trio_kv.check.replay_replies import judge_replies
from trio_kv.check.rules import Due, Version, carry_out
from trio_kv.sim.families import Family, FamilyDraw
from trio_kv.wire.replies import encode_reply
from trio_kv.wire.requests import parse_line

KEYS = ("s/a", "s/b", "s/c", "s/n", "s/m")
COUNTERS = ("s/n", "s/m")


@attrs.define
class Copy:
    """One copy of the data, and what it did at each revision."""

    state: dict[str, Version] = attrs.field(factory=dict)
    revision: int = 10
    changes: dict[int, dict[str, bytes | None]] = attrs.field(factory=dict)
    before: dict[int, dict[str, Version]] = attrs.field(factory=dict)
    expiries: set[int] = attrs.field(factory=set)
    is_early: bool = False
    """It lets keys vanish before their time."""

    def expire(self, now_s: float) -> None:
        """Let keys vanish whose time is over: all of them at one revision."""
        due = [key for key, each in self.state.items() if each.due_s <= now_s + 8.0 * self.is_early]
        if due:
            self.revision += 1
            self.expiries.add(self.revision)
            self.before[self.revision] = dict(self.state)
            self.apply({key: Version(self.revision, None) for key in due})

    def with_ttl(self, exchange: Exchange, told: Mapping[str, Any], now_s: float) -> Mapping[str, Any]:
        """Return what a request is told, and when its key ends, if it does."""
        held = self.state.get(exchange.keys[0]) if exchange.op == "get" else None
        if held is None or held.due_s == math.inf:
            return told
        return {**told, "ttl": max(0.0, held.due_s - now_s)}

    def do(self, exchange: Exchange) -> Due:
        """Carry a request out."""
        if not exchange.is_read:
            self.revision += 1
        self.before[self.revision] = dict(self.state)
        due = carry_out(exchange, self.state, self.revision)
        self.apply(due.changes)
        return due

    def apply(self, changes: Mapping[str, Version]) -> None:
        """Change keys, under the present revision."""
        for key, version in changes.items():
            self.changes.setdefault(self.revision, {})[key] = version.value
            if version.value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = version


def reply_of(exchange: Exchange, due: Mapping[str, Any]) -> bytes:
    """Return the line that tells an outcome."""
    members: dict[str, Any] = {"key": exchange.keys[0] if exchange.keys else None}
    for name, told in due.items():
        if name == "items":
            members["items"] = [
                {"key": key, "revision": revision} | ({} if value is None else {"value": json.loads(value)})
                for key, value, revision in told
            ]
        elif name == "results":
            members["results"] = [
                {
                    "key": key,
                    "value": None if value is None else json.loads(value),
                    "status": "ok" if code == "ok" else "error",
                }
                for code, key, value in told
            ]
        elif name == "value":
            members["value"] = None if told is None else json.loads(told)
        elif name != "code":
            members[name] = told
    members["status"] = "ok" if due["code"] == "ok" else "error"
    if due["code"] == "conflict":
        members["error"] = "conflict"
    return json.dumps(members, separators=(",", ":")).encode()


class Draw:
    """Draws requests."""

    def __init__(self, random: Random) -> None:
        """Draw by this."""
        self.random = random
        self.values = 0
        self.ttls = Random(random.random())
        self.known: dict[str, tuple[int, Any]] = {}
        """Versions of which somebody was told."""

    def request(self) -> dict[str, Any]:
        """Return a request of any kind."""
        random = self.random
        key = random.choice(KEYS[:3])
        makers: list[Callable[[], dict[str, Any]]] = [
            lambda: {"op": "get", "key": random.choice(KEYS)},
            lambda: {"op": "get", "key": random.choice(KEYS)},
            lambda: {"op": "set", "key": key, "value": self.value()},
            lambda: {
                "op": "set",
                "key": key,
                "value": self.value(),
                "if_revision": self.known.get(key, (0,))[0],
            },
            lambda: {"op": "delete", "key": random.choice(KEYS)},
            lambda: {"op": "cas", "key": key, "value": self.value(), **self.expected(key)},
            lambda: {"op": "incr", "key": random.choice(COUNTERS), "by": random.randrange(1, 10**12)},
            lambda: {"op": "incr", "key": random.choice(COUNTERS), "by": random.randrange(1, 10**12)},
            self.scan,
            self.scan,
            lambda: self.transaction(key),
        ]
        request = random.choice(makers)()
        for write in (request, *request.get("then", ())):
            if write["op"] in ("set", "cas", "incr") and self.ttls.random() < 0.3:
                write["ttl"] = self.ttls.choice((0.1, 2.0, 10.0, 1000.0))
        return request

    def expected(self, key: str) -> dict[str, Any]:
        """Return what a cas expects."""
        return {"expected": self.known[key][1]} if key in self.known else {}

    def transaction(self, key: str) -> dict[str, Any]:
        """Return a transfer between counters, and more if a condition holds."""
        random = self.random
        by = random.randrange(1, 10**12)
        then = [
            {"op": "incr", "key": "s/n", "by": -by},
            {"op": "incr", "key": "s/m", "by": by},
            {"op": "set", "key": key, "value": self.value()},
            {"op": "get", "key": random.choice(KEYS)},
        ]
        return {
            "op": "txn",
            "if": [{"key": key, "exists": random.random() < 0.5}],
            "then": then,
            # Another amount: whoever is told a sum is to know which branch it comes of, as in `sim.families`.
            "else": [{"op": "incr", "key": "s/n", "by": -by - 1}, {"op": "incr", "key": "s/m", "by": by + 1}],
        }

    def scan(self) -> dict[str, Any]:
        """Return a scan of one of its forms."""
        random = self.random
        scan: dict[str, Any] = {"op": "scan", "prefix": "s/"}
        scan |= random.choice(
            ({}, {}, {"limit": 2}, {"reverse": True}, {"count": True}, {"after": "s/b"}, {"values": False})
        )
        return scan

    def value(self) -> str:
        """Return a value that nobody wrote."""
        self.values += 1
        return f"v{self.values}"


def run(
    seed: int,
    *,
    lost_share: float = 0.1,
    spoil: Callable[[Copy, Exchange, Due, Random], Due] | None = None,
    is_early: bool = False,
) -> tuple[list[Exchange], Copy]:
    """Let some clients ask one copy of the data, all at the same time; return what they were told.

    Args:
        seed: of all that is drawn.
        lost_share: of the writes whose outcome nobody is told; half of them take effect, some of them late.
        spoil: changes what the copy does or tells.
        is_early: it lets keys vanish before their time.

    """
    random = Random(seed)
    draw, copy = Draw(random), Copy(is_early=is_early)
    told, late = [], []
    now_s = 0.0
    for _ in range(120):
        now_s += random.random()
        if random.random() < 0.5:
            copy.expire(now_s)
        client = random.randrange(6)
        asked = Exchange(client, json.dumps(draw.request()).encode(), now_s - random.uniform(0, 3))
        if not asked.is_read and random.random() < lost_share:
            fate = random.random()
            if fate < 0.4:
                copy.do(asked)
            elif fate < 0.6:
                late.append(asked)
            told.append(asked)
        else:
            due = copy.do(asked)
            if spoil is not None:
                due = spoil(copy, asked, due, random)
            if asked.op == "get" and due.told["code"] == "ok":
                draw.known[asked.keys[0]] = due.told["revision"], json.loads(due.told["value"])
            reply = reply_of(asked, copy.with_ttl(asked, due.told, now_s))
            told.append(attrs.evolve(asked, reply=reply, return_s=now_s + random.uniform(0, 3)))
        if late and random.random() < 0.1:
            copy.do(late.pop())
    for key in KEYS:
        copy.expire(now_s + 30)
        ask = Exchange(9, json.dumps({"op": "get", "key": key}).encode(), now_s + 30)
        last = copy.with_ttl(ask, copy.do(ask).told, now_s + 30)
        told.append(attrs.evolve(ask, reply=reply_of(ask, last), return_s=now_s + 31))
    random.shuffle(told)
    return told, copy


def both(told: list[Exchange], copy: Copy) -> tuple[Replayed, Replayed]:
    """Return both verdicts."""
    calm_from_s = max(each.call_s for each in told) - 25.0
    return judge_replies(told, calm_from_s=calm_from_s), judge_log(told, copy.changes, copy.expiries)


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_what_one_copy_told_is_valid(first: int) -> None:
    """Whatever was lost on the way, and whatever ended meanwhile, with the log and without it."""
    for seed in range(first, first + 20):
        for verdict in both(*run(seed)):
            assert verdict.outcome == "valid", (seed, verdict.words)


def tear(copy: Copy, asked: Exchange, due: Due, random: Random) -> Due:
    """Show a page whose second half is older than its first."""
    if asked.op != "scan" or "items" not in due.told:
        return due
    other = carry_out(asked, copy.before.get(copy.revision - 2, {}), copy.revision)
    middle = KEYS[2]
    items = tuple(
        [item for item in due.told["items"] if item[0] < middle]
        + [item for item in other.told["items"] if item[0] >= middle]
    )
    return attrs.evolve(due, told={**due.told, "items": items})


def halve(copy: Copy, asked: Exchange, due: Due, random: Random) -> Due:
    """Take back one of the changes of a transaction."""
    if asked.op != "txn" or len(due.changes) < 2:
        return due
    key = min(due.changes)
    copy.state.pop(key)
    if key in copy.before[copy.revision]:
        copy.state[key] = copy.before[copy.revision][key]
    del copy.changes[copy.revision][key]
    return due


def add_twice(copy: Copy, asked: Exchange, due: Due, random: Random) -> Due:
    """Count twice, and tell of the second time."""
    if asked.op != "incr" or due.told["code"] != "ok" or random.random() < 0.5:
        return due
    return copy.do(asked)


def forget(copy: Copy, asked: Exchange, due: Due, random: Random) -> Due:
    """Acknowledge a set that has no effect."""
    if asked.op != "set" or due.told["code"] != "ok" or random.random() < 0.7:
        return due
    key = asked.keys[0]
    copy.state.pop(key)
    if key in copy.before[copy.revision]:
        copy.state[key] = copy.before[copy.revision][key]
    del copy.changes[copy.revision]
    return due


def grow_old(copy: Copy, asked: Exchange, due: Due, random: Random) -> Due:
    """Read what was true long ago."""
    if asked.op != "get" or random.random() < 0.5:
        return due
    return carry_out(asked, copy.before.get(copy.revision - 15, copy.state), 0)


@pytest.mark.parametrize("spoil", [tear, halve, add_twice, forget, grow_old])
def test_what_it_did_not_is_found(spoil: Callable[[Copy, Exchange, Due, Random], Due]) -> None:
    """A torn page, half a transaction, one count that counts twice, a write without effect, an old read."""
    found = [0, 0]
    for seed in range(20):
        for number, verdict in enumerate(both(*run(seed, spoil=spoil))):
            found[number] += verdict.outcome == "violation"
    assert min(found) > 14, found


def test_a_key_that_vanishes_too_early_is_found() -> None:
    """Without the log, too: nobody removed it, and its time was not over."""
    found = [0, 0]
    for seed in range(20):
        for number, verdict in enumerate(both(*run(seed, is_early=True))):
            found[number] += verdict.outcome == "violation"
    assert min(found) > 14, found


def outlive(copy: Copy, asked: Exchange, due: Due, random: Random) -> Due:
    """Forget when the key ends."""
    for key, version in due.changes.items():
        if version.ttl_s < 100.0:
            copy.state[key] = attrs.evolve(version, due_s=math.inf)
    return due


def test_a_key_that_outlives_its_time_is_found() -> None:
    """By its ttl that is not told, and in the end by itself."""
    words = ""
    for seed in range(20):
        verdict, _ = both(*run(seed, spoil=outlive))
        words += verdict.words
    assert words.count("is said to end in None s") > 14
    assert words.count("was to be gone") > 14


@pytest.mark.parametrize("first", range(0, 50, 10))
def test_the_rules_are_those_of_the_state_machine(first: int) -> None:
    """What the state machine does and tells, line by line, is what the rules of the judge say."""
    for seed in range(first, first + 10):
        random = Random(seed)
        copy, family, told = OneCopy(), Family("s/"), []
        values = iter(f"v{number}" for number in range(10_000))
        draw = FamilyDraw(random, Random(f"{seed}/ttls"), values.__next__)
        for number in range(150):
            copy.pass_time(number + 0.25)
            members = draw.request(family)
            request = parse_line(json.dumps(members).encode())
            line = encode_reply(request, copy.answer(request), 1, 1)
            exchange = Exchange(1, json.dumps(members).encode(), number, number + 0.5, line)
            told.append(exchange)
            if random.random() < 0.7:
                family.learn(exchange)
        verdict = judge_replies(told)
        assert verdict.outcome == "valid", (seed, verdict.words)
        assert {exchange.outcome for exchange in told} == {"ok", "missing", "conflict"}


def ask(call_s: float, return_s: float, asked: str, told: str) -> Exchange:
    return Exchange(int(call_s * 10), asked.encode(), call_s, return_s, told.encode())


def test_when_a_key_was_gone_unseen_bounds_nothing() -> None:
    """Whoever misses a key may have looked when its time was over, and need not have looked when it was deleted."""
    history = [
        ask(0.0, 0.1, '{"op":"set","key":"a","value":1,"ttl":0.1}', '{"key":"a","value":1,"status":"ok","revision":1}'),
        ask(0.2, 0.3, '{"op":"set","key":"b","value":1}', '{"key":"b","value":1,"status":"ok","revision":2}'),
        ask(0.4, 2.0, '{"op":"get","key":"a"}', '{"key":"a","value":null,"status":"error","revision":0}'),
        ask(0.5, 1.9, '{"op":"set","key":"a","value":2}', '{"key":"a","value":2,"status":"ok","revision":5}'),
        ask(0.6, 3.0, '{"op":"set","key":"b","value":2}', '{"key":"b","value":2,"status":"ok","revision":8}'),
        ask(0.7, 3.1, '{"op":"delete","key":"a"}', '{"key":"a","value":2,"status":"ok","revision":9}'),
        ask(2.1, 2.2, '{"op":"get","key":"b"}', '{"key":"b","value":1,"status":"ok","revision":2}'),
    ]  # fmt: skip
    assert judge_replies(history).outcome == "valid"
    # A key that does not end was there all the while: then it is the deletion that was seen, and b is behind it.
    lasting = ask(
        0.0, 0.1, '{"op":"set","key":"a","value":1}', '{"key":"a","value":1,"status":"ok","revision":1}'
    )
    assert "is true of no state from revision 9" in judge_replies([lasting, *history[1:]]).violations[0]


@pytest.mark.parametrize("value", ["1", "2"])
def test_whose_version_it_was_is_told_later(value: str) -> None:
    """A page without values tells of one of two lost writes; which one it was says whoever reads the value."""
    lost = '{"key":"a","value":null,"status":"error","error":"timeout"}'
    scan = '{"op":"scan","prefix":"a","values":false}'
    txn = '{"op":"txn","if":[],"then":[{"op":"get","key":"a"},{"op":"set","key":"b","value":3}],"else":[]}'
    results = f'[{{"key":"a","value":{value},"status":"ok"}},{{"key":"b","value":3,"status":"ok"}}]'

    def page(revision: int) -> str:
        return f'{{"items":[{{"key":"a","revision":5}}],"more":false,"revision":{revision},"status":"ok"}}'

    history = [
        ask(0.0, 0.5, '{"op":"set","key":"a","value":1}', lost),
        ask(0.1, 0.6, '{"op":"set","key":"a","value":2}', lost),
        ask(0.7, 0.8, scan, page(6)),
        ask(0.9, 1.0, txn, f'{{"succeeded":true,"results":{results},"revision":8,"status":"ok"}}'),
        ask(1.1, 1.2, scan, page(9)),
    ]
    assert judge_replies(history).outcome == "valid"
    both_told = results.replace(f'"value":{value},', '"value":7,')
    history[3] = ask(0.9, 1.0, txn, f'{{"succeeded":true,"results":{both_told},"revision":8,"status":"ok"}}')
    assert judge_replies(history).outcome == "violation"


def test_what_a_lost_write_needed_may_be_the_work_of_another() -> None:
    """A lost transaction adds to two counters; one holds a text, which only a lost deletion can have removed."""
    lost = '{"key":null,"value":null,"status":"error","error":"timeout"}'
    txn = '{"op":"txn","if":[],"then":[{"op":"incr","key":"n","by":5},{"op":"incr","key":"m","by":-5}],"else":[]}'
    page = '{"items":[{"key":"n","value":5,"revision":4}],"more":false,"revision":6,"status":"ok"}'
    history = [
        ask(
            0.0,
            0.1,
            '{"op":"set","key":"m","value":"x"}',
            '{"key":"m","value":"x","status":"ok","revision":1}',
        ),
        ask(0.2, 0.5, txn, lost),
        ask(0.7, 0.8, '{"op":"scan","prefix":"","after":"m"}', page),
    ]
    assert "which nobody wrote there" in judge_replies(history).violations[0]
    history.append(ask(0.3, 0.6, '{"op":"delete","key":"m"}', lost))
    assert judge_replies(history).outcome == "valid"
