"""`txn`: what it does, what it leaves when it fails, and what its answer and its refusals tell."""

import json
from typing import Any

import msgspec
import pytest

from trio_kv.check.reference import Reference
from trio_kv.check.state_machine_safety import outcome_of
from trio_kv.kv.commands import Command, OpenSession, Write, decode_command
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import AnyWrite, Cas, Delete, Get, Incr, Set, Txn
from trio_kv.kv.operations.operation import Change, NoChange
from trio_kv.kv.operations.txn import Condition
from trio_kv.kv.reply import Item, Reply
from trio_kv.kv.restorer import Restorer
from trio_kv.raft.entry import make_entry
from trio_kv.wire.operations import BadRequestError, Request
from trio_kv.wire.replies import encode_reply
from trio_kv.wire.requests import encode_request, parse_line


def raw(text: str | bytes) -> msgspec.Raw:
    """Return a JSON text as the commands hold it."""
    return msgspec.Raw(text.encode() if isinstance(text, str) else text)


class Log:
    """A machine, and the judges' rule beside it, with one open session."""

    def __init__(self) -> None:
        self.machine, self.rule, self.seq = Machine(), Reference(), 0
        self.commit(OpenSession(10**9))

    def commit(self, command: Command) -> Reply:
        """Apply one command as the next entry."""
        entry = make_entry(self.machine.applied + 1, 1, 0, command)
        (reply,) = self.machine.apply([entry])
        assert outcome_of(reply) == self.rule.apply(entry)
        held = {key: (bytes(item.value), item.revision) for key, item in self.machine.items.items()}
        assert held == self.rule.items
        return reply

    def apply(self, operation: AnyWrite) -> Reply:
        """Apply an operation under a fresh seq."""
        self.seq += 1
        return self.commit(Write(1, self.seq, 0, operation))

    def ask(self, line: str) -> dict[str, Any]:
        """Carry out the line of a client; return the reply to it."""
        request = parse_line(line.encode())
        operation = request.operation
        assert isinstance(operation, Txn | Set)
        found: dict[str, Any] = json.loads(encode_reply(request, self.apply(operation)))
        return found


@pytest.fixture(name="log")
def make_log() -> Log:
    """Return a log with some keys."""
    log = Log()
    for key, value in (("a", "1"), ("b", '"x"'), ("n", "41")):
        log.apply(Set(key, raw(value)))
    return log


def ok(key: str, value: object) -> dict[str, Any]:
    """Return a result that is ok."""
    return {"key": key, "value": value, "status": "ok"}


def test_operations_run_in_order_and_see_the_earlier_ones(log: Log) -> None:
    """Each result is what the reply to the operation alone would be; all have one revision."""
    reply = log.ask(
        '{"op":"txn","if":[{"key":"a","equals":1.0},{"key":"b","revision":3},{"key":"c","exists":false}],"then":['
        '{"op":"get","key":"a"},{"op":"set","key":"a","value":[2]},{"key":"a"},{"op":"incr","key":"n"},'
        '{"op":"delete","key":"b"},{"op":"get","key":"b"},{"op":"delete","key":"z"},{"key":"c","value":null}]}'
    )
    missing = {"key": "b", "value": None, "status": "error"}
    results = [ok("a", 1), ok("a", [2]), ok("a", [2]), ok("n", 42), ok("b", "x"), missing]
    results += [missing | {"key": "z"}, ok("c", None)]
    assert reply == {"succeeded": True, "results": results, "revision": 5, "status": "ok"}
    assert log.machine.items == {
        "a": Item(raw("[2]"), 5, "a"),
        "n": Item(raw("42"), 5, "n"),
        "c": Item(raw("null"), 5, "c"),
    }
    assert list(log.machine.changes) == [
        Change("set", "a", raw("[2]"), 5, 2),
        Change("set", "n", raw("42"), 5, 4),
        Change("delete", "b", None, 5, 3),
        Change("set", "c", raw("null"), 5, 0),
    ]


@pytest.mark.parametrize(
    "condition",
    [
        '{"key":"a","equals":2}',
        '{"key":"z","equals":null}',
        '{"key":"a","revision":3}',
        '{"key":"a","revision":0}',
        '{"key":"a","exists":false}',
        '{"key":"z","exists":true}',
    ],
)
def test_a_condition_that_does_not_hold_leads_to_else(log: Log, condition: str) -> None:
    """One is enough. Left out, `else` is nothing to do."""
    line = f'{{"op":"txn","if":[{{"key":"a","exists":true}},{condition}],"then":[{{"key":"a","value":9}}]'
    reply = log.ask(line + ',"else":[{"op":"get","key":"a"}]}')
    assert (reply["succeeded"], reply["results"]) == (False, [ok("a", 1)])
    assert log.ask(line + "}") == {"succeeded": False, "results": [], "revision": 6, "status": "ok"}
    assert list(log.machine.changes) == [NoChange("ok", 6, raw("[false,[]]"))]


def test_an_incr_that_can_not_be_fails_the_whole_txn(log: Log) -> None:
    """Nothing of it stays, and the answer says which one it was and what its key holds."""
    before = dict(log.machine.items)
    reply = log.ask(
        '{"op":"txn","then":[{"key":"a","value":9},{"op":"delete","key":"n"},{"op":"incr","key":"b"}]}'
    )
    assert (reply["error"], reply["key"], reply["value"]) == ("conflict", None, "x")
    assert reply["message"].startswith('"then"[2] of the txn, of "b": the key does not hold a whole number')
    assert log.machine.items == before
    assert list(log.machine.items) == list(before)
    assert list(log.machine.changes) == [NoChange("conflict", 3, raw('"x"'))]


def test_an_incr_that_can_not_be_because_of_an_earlier_one(log: Log) -> None:
    """It sees what the txn itself has written, which is told, and then never was."""
    reply = log.apply(Txn((), (Set("k", raw('"no"')), Get("k"), Incr("k"))))
    assert (reply.code, reply.value) == ("conflict", raw('"no"'))
    assert log.machine.get("k") is None


@pytest.mark.parametrize(("count", "code"), [(2, "ok"), (3, "too_large")])
def test_results_are_at_most_a_mebibyte(log: Log, count: int, code: str) -> None:
    """Beyond that the whole txn has no effect. That is decided where it is applied."""
    log.apply(Set("big", raw(b'"%b"' % (b"x" * 400_000))))
    reply = log.apply(Txn((), (*[Get("big")] * count, Set("a", raw("5")))))
    assert reply.code == code
    held = log.machine.get("a")
    assert held is not None
    assert bytes(held.value) == (b"5" if code == "ok" else b"1")


def test_results_that_are_just_small_enough() -> None:
    """The limit is that of the results as they stand in the line."""
    for spare, code in ((0, "ok"), (-1, "too_large")):
        log = Log()
        size = (1 << 20) - len('{"key": "k", "value": "", "status": "ok"}, ') - spare
        log.apply(Set("k", raw(b'"%b"' % (b"x" * size))))
        assert log.apply(Txn((), (Get("k"),))).code == code


def test_comparing_has_a_budget(log: Log) -> None:
    """An entry compares 64 KiB as JSON; what exceeds that is equal only byte for byte."""
    half = "[" + "1," * 7_000 + "1.0]"
    other = half.replace("1.0", "1")
    for key in ("x", "y", "z"):
        log.apply(Set(key, raw(half)))
    same = [Condition(key, raw(other)) for key in ("x", "y")]
    (first, second) = same
    assert log.apply(Txn((first, second), (Set("done", raw("1")),))).value == raw('[true,[["ok"]]]')
    third = Condition("z", raw(other))
    assert log.apply(Txn((first, second, third), ())).value == raw("[false,[]]")
    assert log.apply(Txn((first, second, Condition("z", raw(half))), ())).value == raw("[true,[]]")
    assert log.apply(Txn((first, second, third, Condition("a", raw("1.0"))), ())).value == raw("[false,[]]")


def test_a_repetition_gets_the_first_answer(log: Log) -> None:
    """Also after a restart from a snapshot, when the keys have gone on; and it is counted as a text of its own."""
    txn = Txn((), (Get("b"), Incr("n"), Delete("a")))
    first = log.apply(txn)
    log.apply(Set("b", raw("0")))
    assert first.value is not None
    assert log.machine.sessions.held_bytes == len(first.value)
    restorer = Restorer()
    for chunk in log.machine.freeze().chunks():
        restorer.feed(chunk)
    log.machine.thaw()
    again = make_entry(log.machine.applied + 1, 1, 0, Write(1, 4, 0, txn))
    restarted = restorer.finish()
    assert restarted.sessions.held_bytes == len(first.value)
    assert restarted.apply([again]) == log.machine.apply([again]) == [first]


def test_an_answer_that_is_too_large_for_the_session_is_refused(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of any other operation: where answers hold too much, one that may hold more is not given."""
    log.apply(Set("big", raw(b'"%b"' % (b"x" * 1000))))
    log.apply(Txn((), (Get("big"),)))
    for module in ("trio_kv.kv.sessions.HELD_BYTES_MAX", "trio_kv.check.reference.SESSION_TEXT_BYTES_MAX"):
        monkeypatch.setattr(module, 1000)
    assert log.apply(Txn((), (Get("big"),))).code == "overloaded"
    assert log.apply(Txn((), (Set("a", raw(b'"%b"' % (b"x" * 1000))),))).code == "ok"
    assert log.apply(Txn((), (Get("a"),), (Get("big"),))).code == "overloaded"
    assert log.apply(Txn((), (Get("b"),))).code == "ok"


def test_it_stands_in_the_log_as_the_protocol_spells_it() -> None:
    """What was not sent is left out."""
    txn = Txn((Condition("a", exists=False),), (Set("a", raw("1.10")), Get("a")))
    data = Write(1, 2, 3, txn).encode()
    assert data == (
        b'["write",1,2,3,{"op":"txn","if":[{"key":"a","exists":false}],"then":[{"op":"set","key":"a","value":1.10},'
        b'{"op":"get","key":"a"}]}]'
    )
    decoded = decode_command(data)
    assert isinstance(decoded, Write)
    assert decoded.operation == txn
    request = Request(txn, raw("7"))
    assert parse_line(encode_request(request).rstrip()) == request


def test_what_writes_and_what_only_reads() -> None:
    """One that can only read is no write, whoever may ask for it."""
    assert not Txn((Condition("a", exists=True),), (Get("a"),), (Get("b"),)).is_write
    assert Txn((), (Get("a"),), (Incr("b"),)).is_write
    assert Set("a", raw("1")).is_write
    assert Cas("a", raw("1")).is_write
    assert not Get("a").is_write


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ('"then":{}', '"then" must be an array, not an object'),
        ('"if":7', '"if" must be an array, not a number'),
        (
            '"then":[7]',
            '"then"[0]: a request is one JSON object, like {"key": "snack"}; this is a number (byte 1 of "t',
        ),
        ('"then":[{"key":"a"},{"op":"sett","key":"a"}]', '"then"[1]: unknown op "sett"'),
        ('"then":[{"op":"set","key":"a"}]', '"then"[0]: "value" is missing: a set looks like'),
        (
            '"else":[{"op":"cas","key":"a","value":1}]',
            '"else"[0] is a "cas"; in a txn there may be get, set, delete, incr',
        ),
        ('"then":[{"op":"txn"}]', '"then"[0] is a "txn"'),
        ('"then":[{"op":"ping"}]', '"then"[0] is a "ping"'),
        (
            '"then":[{"key":"a","value":1,"if_revision":0}]',
            '"then"[0] has "if_revision"; in a txn conditions stand in',
        ),
        (
            '"then":[{"key":"a","id":1}]',
            '"then"[0]: "id", "timeout", "consistency" and "meta" belong to the whole',
        ),
        (
            '"then":[{"key":"a","value":1},{"op":"incr","key":"a"}]',
            '"then"[1] writes the key of "then"[0] again',
        ),
        (
            '"else":[{"op":"delete","key":"a"},{"key":"a"},{"op":"delete","key":"a"}]',
            '"else"[2] writes the key of "else"[0]',
        ),
        ('"then":[{"key":"a","key":"a"}]', '"then"[0]: the member "key" stands twice'),
        ('"then":[{"key":""}]', '"then"[0]: "key" is empty'),
        (
            '"if":[{"key":"a"}]',
            '"if"[0] needs one of "equals", "revision" and "exists": a condition looks like',
        ),
        ('"if":[{"key":"a","exists":true,"revision":1}]', '"if"[0] needs one of'),
        ('"if":[{"key":"a","equals":1,"equals":1}]', '"if"[0]: the member "equals" stands twice'),
        ('"if":[{"key":"a","is":1}]', '"if"[0]: a condition looks like'),
        ('"if":[{"key":"","exists":true}]', '"if"[0]: "key" is empty'),
        ('"if":[{"key":"a","revision":-1}]', '"if"[0]: a condition looks like'),
        (
            '"then":[{"key":"a","value":1,"session":"s","seq":1}]',
            '"then"[0]: "session", "seq" and "done" belong to the whole txn',
        ),
        ('"then":[],"then":[]', 'the member "then" stands twice'),
        ('"than":[]', 'unknown member "than"; a txn takes if, then, else'),
        ('"key":"a"', '"key" belongs to'),
    ],
)
def test_refusals_name_the_place(members: str, message: str) -> None:
    """Which list, which element, what was wrong, and what would be right."""
    with pytest.raises(BadRequestError) as caught:
        parse_line(b'{"op":"txn",%b}' % members.encode())
    assert caught.value.code == "bad_request"
    assert message in caught.value.message


def test_limits_of_its_lists() -> None:
    """120 conditions and 120 operations a branch, and not one more; a key is no longer than any."""
    lists = {
        "if": ('{"key":"a","exists":true}', "conditions"),
        "then": ('{"key":"a"}', "operations"),
        "else": ('{"key":"a"}', "operations"),
    }
    for name, (element, what) in lists.items():
        parse_line(f'{{"op":"txn","{name}":[{",".join([element] * 120)}]}}'.encode())
        with pytest.raises(BadRequestError, match=f'"{name}" has more than 120 {what}'):
            parse_line(f'{{"op":"txn","{name}":[{",".join([element] * 121)}]}}'.encode())
        long_key = element.replace('"a"', f'"{"k" * 4097}"')
        with pytest.raises(BadRequestError, match="has 4097 bytes; it may have 4096") as caught:
            parse_line(f'{{"op":"txn","{name}":[{long_key}]}}'.encode())
        assert caught.value.code == "too_large"


def test_values_in_it_nest_as_deep_as_any() -> None:
    """128 levels, and not the ones around them."""
    for depth, is_fine in ((128, True), (129, False)):
        value = "[" * depth + "]" * depth
        for part in (f'"then":[{{"key":"a","value":{value}}}]', f'"if":[{{"key":"a","equals":{value}}}]'):
            if is_fine:
                parse_line(f'{{"op":"txn",{part}}}'.encode())
            else:
                with pytest.raises(BadRequestError, match="nested too deep"):
                    parse_line(f'{{"op":"txn",{part}}}'.encode())


def test_meta_tells_the_revision_once() -> None:
    """The answer has it anyway, also in a session of the client."""
    for session in ("", ',"session":"1-0123456789abcdef","seq":1'):
        request = parse_line(b'{"op":"txn","meta":true%b}' % session.encode())
        line = encode_reply(request, Reply("ok", raw("[true,[]]"), 7), 2, 5)
        assert line == (
            b'{"succeeded": true, "results": [], "revision": 7, "status": "ok", "node": 2, "term": 5}\n'
        )


def test_meta_tells_the_revision_of_what_a_conflict_is_about(log: Log) -> None:
    """As every other conflict does."""
    reply = log.ask('{"op":"txn","then":[{"op":"incr","key":"b"}],"meta":true}')
    assert (reply["error"], reply["value"], reply["revision"]) == (
        "conflict",
        "x",
        log.machine.items["b"].revision,
    )
