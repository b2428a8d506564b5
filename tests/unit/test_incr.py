"""`incr`: what counts as a whole number, and how its answer is kept."""

import msgspec
import pytest

from trio_kv.kv.commands import Command, OpenSession, Write
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Delete, Incr, Set
from trio_kv.kv.operations.operation import Change, NoChange
from trio_kv.kv.reply import Item, Reply
from trio_kv.kv.restorer import Restorer
from trio_kv.kv.siblings import Siblings
from trio_kv.raft.entry import Entry, make_entry

SESSION = 1
LARGEST = 10**18 - 1


def raw(text: str) -> msgspec.Raw:
    """Return a JSON text as the commands hold it."""
    return msgspec.Raw(text.encode())


def entries_of(*operations: Set | Incr | Delete) -> list[Entry]:
    """Return a log that opens a session and carries out these operations."""
    commands: list[Command] = [OpenSession(1_000_000)]
    commands += [Write(SESSION, seq, 0, operation) for seq, operation in enumerate(operations, 1)]
    return [make_entry(index, 1, 0, command) for index, command in enumerate(commands, 1)]


def test_incr_counts_from_0_and_tells_the_sum() -> None:
    """A missing key counts as 0; the answer has the new value, the key its shortest text."""
    machine = Machine()
    replies = machine.apply(entries_of(Incr("n"), Incr("n", 41), Incr("n", -43)))
    assert replies[1:] == [Reply("ok", raw(text), index) for text, index in (("1", 2), ("42", 3), ("-1", 4))]
    assert machine.get("n") == Item(raw("-1"), 4, "n")
    assert list(machine.changes)[1:] == [
        Change("set", "n", raw("1"), 2, 0),
        Change("set", "n", raw("42"), 3, 2),
        Change("set", "n", raw("-1"), 4, 3),
    ]


@pytest.mark.parametrize("text", ["-0", "0", "-5", "9" * 18, "-" + "9" * 18])
def test_whole_numbers_count(text: str) -> None:
    """A whole number of up to 18 digits is counted with."""
    by = -1 if int(text) > 0 else 1
    reply = Machine().apply(entries_of(Set("n", raw(text)), Incr("n", by)))[-1]
    assert reply == Reply("ok", raw(str(int(text) + by)), 3)


@pytest.mark.parametrize("text", ["1.0", "1e3", '"1"', "null", "1" + "0" * 18, "[1]", "true"])
def test_other_values_conflict(text: str) -> None:
    """What is no whole number by its text is left alone, and told."""
    machine = Machine()
    reply = machine.apply(entries_of(Set("n", raw(text)), Incr("n")))[-1]
    assert (reply.code, reply.value, reply.revision) == ("conflict", raw(text), 2)
    assert reply.message == "the key does not hold a whole number of at most 18 digits"
    assert machine.get("n") == Item(raw(text), 2, "n")
    assert list(machine.changes)[-1] == NoChange("conflict", 2, raw(text))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_that_is_too_large_conflicts(sign: int) -> None:
    """No sum has more than 18 digits."""
    machine = Machine()
    reply = machine.apply(entries_of(Incr("n", sign * LARGEST), Incr("n", sign)))[-1]
    assert (reply.code, reply.value) == ("conflict", raw(str(sign * LARGEST)))
    assert reply.message == "the sum would have more than 18 digits"


def test_a_repetition_gets_the_first_sum() -> None:
    """Asked again under the same seq nothing is added, also after a restart, and when the key has gone on."""
    log = entries_of(Incr("n", 5), Incr("n", 2))
    machine = Machine()
    machine.apply(log)
    restorer = Restorer()
    for chunk in machine.freeze().chunks():
        restorer.feed(chunk)
    again = make_entry(4, 1, 0, Write(SESSION, 1, 0, Incr("n", 5)))
    assert restorer.finish().apply([again]) == machine.apply([again]) == [Reply("ok", raw("5"), 2)]
    assert machine.get("n") == Item(raw("7"), 3, "n")


def test_the_sum_is_counted_as_a_text_that_an_answer_holds() -> None:
    """It is held by the session as long as its owner awaits it, and not longer."""
    machine = Machine()
    machine.apply(entries_of(Incr("n", 12345), Incr("n", -12345)))
    assert machine.sessions.held_bytes == len("12345") + len("0")
    machine.apply([make_entry(4, 1, 0, Write(SESSION, 3, 3, Delete("other")))])
    assert machine.sessions.held_bytes == 0


def test_machines_of_one_process_share_a_sum() -> None:
    """What came of the entry on the first machine serves the others, answers included."""
    log = entries_of(Set("n", raw("1")), Incr("n"))
    siblings, machines = Siblings(), (Machine(), Machine())
    told = []
    for machine in machines:
        machine.join(siblings)
        told.append(machine.apply(log)[-1])
    assert machines[0].get("n") is machines[1].get("n")
    assert told[0].value is told[1].value
    assert machines[0].sessions.held_bytes == machines[1].sessions.held_bytes == 1
    assert machines[0].state_digest == machines[1].state_digest
