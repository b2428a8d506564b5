"""`scan`: ranges, pages, and when a node answers one."""

import json
from typing import Any

import msgspec
import pytest

from trio_kv.check.reference import Reference, page_of
from trio_kv.check.state_machine_safety import outcome_of
from trio_kv.kv.asking import Asked
from trio_kv.kv.commands import Command, OpenSession, Write
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Get, Scan, Set
from trio_kv.kv.operations.scan import PAGE_BYTES_MAX, PAGE_ITEMS_MAX
from trio_kv.kv.reply import Reply
from trio_kv.proxy.runs import cut_run
from trio_kv.proxy.states import READ, WRITE
from trio_kv.raft.entry import Entry, make_entry
from trio_kv.wire.operations import Request
from trio_kv.wire.replies import encode_reply

KEYS = ["a", "a/1", "a/2", "a/é", "a/\U0010ffff", "a/\U0010ffffx", "b", "\ufffd", "\U0001f600"]


def entries_of(*operations: Set) -> list[Entry]:
    """Return a log that opens a session and carries out these operations."""
    commands: list[Command] = [OpenSession(1_000_000)]
    commands += [Write(1, seq, 0, operation) for seq, operation in enumerate(operations, 1)]
    return [make_entry(index, 1, 0, command) for index, command in enumerate(commands, 1)]


def machine_of(values: dict[str, bytes]) -> Machine:
    """Return a machine with these keys."""
    machine = Machine()
    machine.apply(entries_of(*[Set(key, msgspec.Raw(value)) for key, value in values.items()]))
    return machine


def ask(machine: Machine, scan: Scan) -> dict[str, Any]:
    """Return the line that answers a scan."""
    (reply,) = machine.query([scan])
    line: dict[str, Any] = json.loads(encode_reply(Request(scan), reply))
    assert line.pop("status") == "ok"
    assert line.pop("revision") == machine.applied
    return line


def keys_of(machine: Machine, scan: Scan) -> list[str]:
    """Return the keys of the page that answers a scan."""
    return [item["key"] for item in ask(machine, scan)["items"]]


@pytest.fixture(name="machine")
def make_machine() -> Machine:
    """Return a machine with keys of all kinds."""
    return machine_of({key: b"%d" % number for number, key in enumerate(reversed(KEYS))})


def test_a_page_has_keys_values_and_revisions(machine: Machine) -> None:
    """In the order of the bytes of the keys; the values are the texts that were sent."""
    assert ask(machine, Scan("a/", limit=2)) == {
        "items": [{"key": "a/1", "value": 7, "revision": 9}, {"key": "a/2", "value": 6, "revision": 8}],
        "more": True,
    }
    assert ask(machine, Scan("a/", values=False, limit=1)) == {
        "items": [{"key": "a/1", "revision": 9}],
        "more": True,
    }
    assert keys_of(machine, Scan()) == sorted(KEYS, key=str.encode)
    assert keys_of(machine, Scan(reverse=True)) == sorted(KEYS, key=str.encode)[::-1]
    assert ask(machine, Scan("c")) == {"items": [], "more": False}


def test_prefixes_and_after(machine: Machine) -> None:
    """A prefix may end in the last character that there is; `after` is beyond a key, whether it exists or not."""
    assert keys_of(machine, Scan("a/")) == ["a/1", "a/2", "a/é", "a/\U0010ffff", "a/\U0010ffffx"]
    assert keys_of(machine, Scan("a/\U0010ffff")) == ["a/\U0010ffff", "a/\U0010ffffx"]
    assert keys_of(machine, Scan("\U0010ffff")) == []
    assert keys_of(machine, Scan("a/", "a/1")) == ["a/2", "a/é", "a/\U0010ffff", "a/\U0010ffffx"]
    assert keys_of(machine, Scan("a/", "a/10", limit=1)) == ["a/2"]
    assert keys_of(machine, Scan("a/", "a/2", reverse=True)) == ["a/1"]
    assert keys_of(machine, Scan("a/", "z", reverse=True, limit=1)) == ["a/\U0010ffffx"]
    assert keys_of(machine, Scan("a/", "z")) == []
    assert keys_of(machine, Scan("a/", "a", reverse=True)) == []
    assert keys_of(machine, Scan("a/", "a", limit=1)) == ["a/1"]


def test_pages_follow_each_other(machine: Machine) -> None:
    """The last key of a page is the `after` of the next one, in both directions."""
    for is_reversed in (False, True):
        found: list[str] = []
        page: dict[str, Any] = {"more": True}
        while page["more"]:
            page = (
                ask(machine, Scan("", found[-1] if found else "", 2, is_reversed))
                if found
                else ask(machine, Scan(limit=2, reverse=is_reversed))
            )
            found += [item["key"] for item in page["items"]]
        assert found == sorted(KEYS, key=str.encode, reverse=is_reversed)


def test_count_tells_how_many_there_are(machine: Machine) -> None:
    """Of all that are in the range, whatever the limit."""
    assert ask(machine, Scan(count=True)) == {"count": len(KEYS)}
    assert ask(machine, Scan("a/", "a/1", 1, count=True)) == {"count": 4}
    assert ask(machine, Scan("a/", "a/2", reverse=True, count=True)) == {"count": 1}


def test_a_page_has_a_mebibyte_and_at_least_one_item() -> None:
    """It ends before the item with which it would be larger, unless that is its first."""
    machine = machine_of({"k1": b'"%s"' % (b"x" * 700_000), "k2": b'"%s"' % (b"x" * 400_000), "k3": b"1"})
    assert keys_of(machine, Scan()) == ["k1"]
    assert keys_of(machine, Scan("", "k1")) == ["k2", "k3"]
    machine = machine_of({"k1": b'"%s"' % (b"x" * PAGE_BYTES_MAX), "k2": b"1"})
    page = ask(machine, Scan())
    assert (len(page["items"]), page["more"]) == (1, True)
    many = machine_of({f"k{number:05}": b"1" for number in range(PAGE_ITEMS_MAX + 1)})
    page = ask(many, Scan())
    assert (len(page["items"]), page["more"]) == (PAGE_ITEMS_MAX, True)


def test_the_judges_rule_says_the_same(machine: Machine) -> None:
    """Each page is that of a rule which shares no code with it."""
    items = {key: (bytes(item.value), item.revision) for key, item in machine.items.items()}
    for prefix in ("", "a", "a/", "b", "\U0010ffff"):
        for after in (msgspec.UNSET, "", "a/1", "a/3", "zz"):
            for limit in (1, 3, 1000):
                for flags in range(8):
                    scan = Scan(prefix, after, limit, bool(flags & 1), bool(flags & 2), bool(flags & 4))
                    (reply,) = machine.query([scan])
                    assert bytes(reply.value or b"") == page_of(items, scan), scan


def test_a_scan_among_writes_sees_those_before_it() -> None:
    """In its place, also when many entries are applied in one go."""
    log = entries_of(*[Set(f"k{number}", msgspec.Raw(b"1")) for number in range(4)])
    machine, rule = Machine(), Reference()
    asked = [Asked(index, [Scan(), Get("k1"), Scan(count=True)], []) for index in range(1, 6)]
    while machine.applied < len(log):
        machine.apply(log[machine.applied :], asked=[each for each in asked if not each.replies])
    for entry in log:
        rule.apply(entry)
    for each in asked:
        for query, reply in zip(each.queries, each.replies, strict=True):
            due = rule.answer(query, each.index)
            assert outcome_of(reply) == due


def test_a_call_ends_when_it_has_made_some_pages() -> None:
    """What is behind is given again, so that others have their turn."""
    log = entries_of(*[Set(f"k{number}", msgspec.Raw(b"1")) for number in range(20)])
    machine = Machine()
    asked = [Asked(index, [Scan()], []) for index in range(1, 21)]
    replies = machine.apply(log, asked=asked)
    assert len(replies) < len(log) // 2
    calls = 1
    while machine.applied < len(log):
        machine.apply(log[machine.applied :], asked=[each for each in asked if not each.replies])
        calls += 1
    assert calls >= 4
    assert [
        len(json.loads(b"{%b}" % bytes(each.replies[0].value or b"")[:-2])["items"]) for each in asked
    ] == list(range(20))


def test_meta_tells_the_revision_once() -> None:
    """The answer has it anyway."""
    line = encode_reply(
        Request(Scan(), meta=True), Reply("ok", msgspec.Raw(b'"items": [], "more": false, '), 7), 2, 5
    )
    assert line == b'{"items": [], "more": false, "revision": 7, "status": "ok", "node": 2, "term": 5}\n'


def test_a_run_has_one_page_at_most() -> None:
    """Each may be a mebibyte, and all replies of a run are made at once."""
    page, write = Request(Scan("a")), Request(Set("k", msgspec.Raw(b"1")))
    step, _, run = cut_run(write, [write, page, write, page, write])
    assert (step, run) == (WRITE, [write.operation, page.operation, write.operation])
    assert cut_run(page, [page, page]) == (READ, False, [page.operation])
