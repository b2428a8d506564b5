"""The state machine against a plain model of it, and however its log is cut, copied or restored."""

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from itertools import islice
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from trio_kv.check import reference
from trio_kv.check.state_machine_safety import outcome_of
from trio_kv.kv import sessions
from trio_kv.kv.asking import Asked
from trio_kv.kv.commands import Command, Expire, OpenSession, RenewSession, Write, decode_command
from trio_kv.kv.equality import is_equal_json
from trio_kv.kv.layers import Layers
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Cas, Delete, Get, Incr, Set, Txn
from trio_kv.kv.operations.operation import Change, TimedSet
from trio_kv.kv.reply import Item, Reply
from trio_kv.kv.restorer import Restorer
from trio_kv.kv.siblings import Siblings
from trio_kv.raft.entry import Entry, decode_entries, make_entry

KEYS = st.sampled_from(["a", "b", "\u00e9"])
VALUES = st.sampled_from(["null", "1", "1.0", '"x"', "[1, 2]", '{"b":1,"a":2}']).map(msgspec.Raw)
SESSIONS = st.integers(1, 4)
SEQS = st.integers(0, 12)
DONES = st.integers(0, 2)
TICK_US = 50_000
"""Cluster time goes on by some of these from one entry to the next."""
TTLS = st.sampled_from([UNSET, UNSET, 0.1, 0.15, 0.4])
REVISIONS = st.sampled_from([UNSET, UNSET, UNSET, UNSET, *range(6)])

Writes = list[tuple[int, bool]]

operations = st.one_of(
    st.builds(Set, KEYS, VALUES, REVISIONS, TTLS),
    st.builds(Delete, KEYS, REVISIONS),
    st.builds(Cas, KEYS, VALUES, st.just(UNSET) | VALUES, TTLS),
    st.builds(Incr, KEYS, st.integers(-2, 2), TTLS),
)
session_writes = st.builds(Write, SESSIONS, SEQS, DONES, operations)
others = st.one_of(
    st.none(),
    st.builds(OpenSession, st.integers(1, 20).map(lambda ticks: ticks * TICK_US)),
    st.builds(RenewSession, SESSIONS),
    st.builds(Expire, st.sampled_from([None, 1000, 2, 1])),
)
commands = st.sampled_from((session_writes, session_writes, session_writes, others)).flatmap(
    lambda each: each
)


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Draw a log; its first entries open sessions, some of them for long, or little else would happen."""
    drawn: list[Command | None] = [OpenSession(TICK_US * draw(st.sampled_from((8, 1000)))) for _ in range(3)]
    drawn += draw(st.lists(commands, min_size=draw(st.integers(0, 20)), max_size=30))
    entries, time_us = [], 0
    for place, command in enumerate(drawn):
        time_us += TICK_US * draw(st.integers(0, 4))
        entries.append(make_entry(place + 1, 1, time_us, command))
    return entries


class Model:
    """What the machine promises, written as slowly and plainly as possible."""

    def __init__(self) -> None:
        self.items: dict[str, tuple[msgspec.Raw, int]] = {}
        self.ends: dict[str, int] = {}
        self.due: dict[int, tuple[int, int]] = {}
        self.done: dict[int, int] = {}
        self.answers: dict[tuple[int, int], tuple[str, msgspec.Raw | None, int]] = {}

    def apply(self, entry: Entry) -> tuple[str, msgspec.Raw | None, int]:  # noqa: PLR0911 - one a command
        """Return code, value and revision of the reply."""
        command = entry.command
        match command:
            case OpenSession():
                self.due[entry.index] = (entry.time_us + command.timeout_us, command.timeout_us)
                self.done[entry.index] = 0
                return ("ok", None, entry.index)
            case RenewSession(session):
                return self.use(session, entry)
            case Expire(at_most):
                self.expire(entry.time_us, at_most)
                return ("ok", None, 0)
            case Write(session, seq, done, operation):
                if session not in self.due:
                    return ("session_expired", None, 0)
                self.done[session] = max(self.done[session], done)
                if seq < self.done[session]:
                    return ("session_expired", None, 0)
                if (session, seq) not in self.answers:
                    self.use(session, entry)
                    assert not isinstance(operation, Txn)
                    self.answers[session, seq] = self.write(operation, entry)
                return self.answers[session, seq]
            case _:
                return ("ok", None, 0)

    def expire(self, time_us: int, at_most: int | None) -> None:
        """Let end what is due, one by one."""
        while at_most is None or at_most > 0:
            ends: list[tuple[int, str, Any]] = [(end_us, "key", key) for key, end_us in self.ends.items()]
            ends += [(due[0], "session", session) for session, due in self.due.items()]
            if not ends or min(ends)[0] > time_us:
                break
            _, kind, name = min(ends)
            if kind == "key":
                del self.items[name], self.ends[name]
            else:
                del self.due[name]
            at_most = None if at_most is None else at_most - 1

    def use(self, session: int, entry: Entry) -> tuple[str, msgspec.Raw | None, int]:
        """Give a session its whole time-out again."""
        if session not in self.due:
            return ("session_expired", None, 0)
        timeout_us = self.due[session][1]
        self.due[session] = (entry.time_us + timeout_us, timeout_us)
        return ("ok", None, entry.index)

    def write(self, command: Set | Delete | Cas | Incr, entry: Entry) -> tuple[str, msgspec.Raw | None, int]:
        """Carry out one write, and find out when the key ends from then on."""
        answer = self.answer(command, entry.index)
        if answer[0] == "ok":
            ttl = UNSET if isinstance(command, Delete) else command.ttl
            if ttl is not UNSET:
                self.ends[command.key] = entry.time_us + round(ttl * 1_000_000)
            elif not isinstance(command, Incr):
                self.ends.pop(command.key, None)
        return answer

    def answer(self, command: Set | Delete | Cas | Incr, index: int) -> tuple[str, msgspec.Raw | None, int]:
        """Carry out one write, as far as values go."""
        value, revision = self.items.get(command.key, (None, 0))
        if isinstance(command, Incr):
            if value is not None and not bytes(value).removeprefix(b"-").isdigit():
                return ("conflict", value, revision)
            total = msgspec.Raw(str(int(bytes(value or b"0")) + command.by))
            self.items[command.key] = (total, index)
            return ("ok", total, index)
        if isinstance(command, Cas):
            expected = command.expected
            if value is None or expected is UNSET:
                is_met = value is None and expected is UNSET
            else:
                is_met = is_equal_json(value, expected)
        else:
            is_met = command.if_revision in (UNSET, revision)
        if not is_met:
            return ("conflict", value, revision)
        if not isinstance(command, Delete):
            self.items[command.key] = (command.value, index)
            return ("ok", None, index)
        if value is None:
            return ("missing", None, 0)
        del self.items[command.key]
        return ("ok", value, index)


def plain(replies: Sequence[Reply]) -> list[tuple[str, msgspec.Raw | None, int]]:
    """Return replies without their words for people."""
    return [(reply.code, reply.value, reply.revision) for reply in replies]


@given(logs())
def test_machine_does_what_the_model_does(log: list[Entry]) -> None:
    """Every reply, every key, every open session and the next due time are those of the model."""
    model, machine = Model(), Machine()
    for entry in log:
        assert plain(machine.apply([entry])) == [model.apply(entry)]
        ends = [*model.ends.values(), *(due for due, _ in model.due.values())]
        assert machine.expires_at_us == min(ends, default=None)
        assert {key: item.due[0] for key, item in machine.items.items() if item.due} == model.ends
    assert {key: (item.value, item.revision) for key, item in machine.items.items()} == model.items
    assert [session for session, _ in machine.sessions] == sorted(model.due)


@given(logs())
def test_what_was_not_applied_for_its_first_time_is_told(log: list[Entry]) -> None:
    """A write of which a session has an answer, or may have had one, is a repetition; any other one is not."""
    model, machine = Model(), Machine()
    for entry in log:
        names = set(model.answers)
        model.apply(entry)
        machine.apply([entry])
        is_new = not isinstance(entry.command, Write) or set(model.answers) != names
        assert machine.repeated == ([] if is_new else [entry.index])


@given(
    logs(),
    st.lists(st.tuples(st.integers(0, 33), st.lists(KEYS, min_size=1, max_size=3)), max_size=12),
    st.data(),
)
def test_questions_between_entries_are_answered_there(
    log: list[Entry], questions: list[tuple[int, list[str]]], data: st.DataObject
) -> None:
    """However the log is cut, and wherever a call ends early: each is answered from the state behind its entry."""
    questions = sorted((min(index, len(log)), keys) for index, keys in questions)
    plain, machine = Machine(), Machine()
    due = []
    for index in range(len(log) + 1):
        due += [plain.query([Get(key) for key in keys]) for place, keys in questions if place == index]
        plain.apply(log[index : index + 1])
    asked = [Asked(index, [Get(key) for key in keys], []) for index, keys in questions]
    while machine.applied < len(log):
        last = data.draw(st.integers(machine.applied + 1, len(log)))
        now = [each for each in asked if not each.replies and each.index <= last]
        machine.apply(log[machine.applied : last], data.draw(st.sampled_from((0, 10, 10**6))), now)
        assert all(each.replies for each in asked if each.index <= machine.applied)
    assert [each.replies for each in asked] == due
    assert (machine.state_digest, machine.applied) == (plain.state_digest, plain.applied)


@given(logs(), st.integers(1, 8))
def test_changes_tell_all_that_happens_to_keys(log: list[Entry], size: int) -> None:
    """Whoever carries out the changes alone, run by run, holds the same keys, and each names the revision before it."""
    machine = Machine()
    told: dict[str, Item] = {}
    for place in range(0, len(log), size):
        run = log[place : place + size]
        machine.apply(run)
        for change in machine.changes:
            if not isinstance(change, Change):
                continue
            assert run[0].index <= change.revision <= run[-1].index
            before = told.pop(change.key, None)
            assert change.previous == (0 if before is None else before.revision)
            assert (change.kind == "set") == (change.value is not None)
            if change.value is not None:
                due = (change.due_us, change.key) if isinstance(change, TimedSet) else None
                told[change.key] = Item(change.value, change.revision, change.key, due)
    assert told == machine.items


@given(logs(), st.integers(0, 30), st.integers(1, 4), st.sampled_from(["", "a", "b", "z"]))
def test_the_order_of_keys_is_that_of_their_bytes(
    log: list[Entry], begin: int, size: int, first: str
) -> None:
    """From whatever entry on it is kept, and in however small slices, frozen or not; and it changes no digest."""
    machine, plain_machine = Machine(), Machine()
    for place, entry in enumerate(log):
        plain_machine.apply([entry])
        machine.apply([entry])
        if place == begin // 2:
            machine.freeze()
        if place >= begin:
            machine.order_keys(size)
    while not machine.order_keys(size):
        pass
    order = machine.take_order()
    assert order is not None
    ordered = sorted(machine.items, key=str.encode)
    end = first + "\N{GREEK SMALL LETTER OMEGA}"
    for begin_at, end_at in (("", None), (first, end), (end, first), (first, None)):
        due = [key for key in ordered if begin_at <= key and (end_at is None or key < end_at)]
        assert list(order.between(begin_at, end_at)) == due
        assert list(order.between_reversed(begin_at, end_at)) == due[::-1]
        assert order.count(begin_at, end_at) == len(due)
    assert machine.state_digest == plain_machine.state_digest


@given(logs(), st.data())
def test_cutting_a_run_changes_nothing(log: list[Entry], data: st.DataObject) -> None:
    """Digests and replies at equal applied index are equal, however the log was cut into runs."""
    whole, cut = Machine(), Machine()
    replies: list[Reply] = []
    place = 0
    while place < len(log):
        size = data.draw(st.integers(1, 8))
        replies += cut.apply(log[place : place + size])
        place += size
    assert whole.apply(log) == replies
    assert tell(whole) == tell(cut)


@given(logs(), st.integers(0, 30))
def test_a_run_that_is_cut_for_its_work_goes_on_where_it_was_cut(
    log: list[Entry], compared_bytes_max: int
) -> None:
    """Applied in as many goes as the work of comparing asks for, a run gives the same replies and digests."""
    whole, cut = Machine(), Machine()
    replies: list[Reply] = []
    while len(replies) < len(log):
        replies += (some := cut.apply(log[len(replies) :], compared_bytes_max))
        assert some
    assert whole.apply(log) == replies
    assert tell(whole) == tell(cut)


@given(logs(), st.data())
def test_restored_or_copied_anywhere_it_behaves_the_same(log: list[Entry], data: st.DataObject) -> None:
    """From a snapshot or copy taken anywhere, the rest of the log gives the same replies and digests."""
    place = data.draw(st.integers(0, len(log)))
    machine = Machine()
    machine.apply(log[:place])
    others = [restore(tell(machine)), machine.copy()]
    rest = machine.apply(log[place:])
    for other in others:
        assert other.applied == place
        assert other.apply(log[place:]) == rest
        assert other.expires_at_us == machine.expires_at_us
        assert tell(other) == tell(machine)


# A limit of nothing at all is none that could be: the machine looks at room only where an answer holds a text.
@given(logs(), st.data(), st.integers(1, 20), st.integers(1, 40), st.integers(0, 5))
def test_limits_of_answers_depend_on_the_log_alone(
    log: list[Entry], data: st.DataObject, one_max: int, all_max: int, small_max: int
) -> None:
    """With limits so low that answers reach them, every reply is that of the judges' rule, also after a restart.

    However often the machine is made anew from its own snapshot, it tells the same, and its snapshots stay the same.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "HELD_BYTES_MAX", one_max)
        patch.setattr(sessions, "ALL_HELD_BYTES_MAX", all_max)
        patch.setattr(sessions, "SMALL_TEXT_BYTES_MAX", small_max)
        patch.setattr(reference, "SMALL_TEXT_BYTES_MAX", small_max)
        patch.setattr(reference, "SESSION_TEXT_BYTES_MAX", one_max)
        patch.setattr(reference, "ALL_TEXT_BYTES_MAX", all_max)
        rule, machine, restarted = reference.Reference(), Machine(), Machine()
        for entry in log:
            due = rule.apply(entry)
            for each in (machine, restarted):
                (reply,) = each.apply([entry])
                assert outcome_of(reply) == due
            assert machine.sessions.held_bytes == sum(each.held_bytes for _, each in machine.sessions)
            if data.draw(st.booleans()):
                restarted = restore(tell(restarted))
            assert restarted.sessions.held_bytes == machine.sessions.held_bytes
        assert tell(restarted) == tell(machine)


@given(logs())
def test_entries_that_travelled_do_the_same(log: list[Entry]) -> None:
    """A follower that decodes the entries from bytes ends where the leader that made them does."""
    leader, follower = Machine(), Machine()
    travelled = list(decode_entries(b"".join(entry.encoded for entry in log), decode_command))
    assert leader.apply(log) == follower.apply(travelled)
    assert tell(leader) == tell(follower)


@given(logs(), st.data())
def test_frozen_anywhere_it_behaves_the_same(log: list[Entry], data: st.DataObject) -> None:
    """Frozen, thawed and settled at any moments, a machine never differs from one that was not.

    Each snapshot tells the state of the machine that stopped there, in the same bytes, while entries go on being
    applied between its chunks.
    """
    plain_one, machine = Machine(), Machine()
    expected: list[bytes] = []
    chunks: Iterator[bytes] | None = None
    taken: list[bytes] = []
    for entry in log:
        match data.draw(st.sampled_from(["apply", "freeze", "chunk", "thaw", "settle"])):
            case "freeze" if chunks is None and isinstance(machine.items, dict):
                expected, taken = tell(plain_one), []
                chunks = machine.freeze().chunks()
            case "chunk" if chunks is not None:
                taken.extend(islice(chunks, 1))
            case "thaw" if chunks is not None:
                taken.extend(chunks)
                assert taken == expected
                chunks = None
                machine.thaw()
            case "settle":
                machine.settle(data.draw(st.integers(0, 3)))
            case _:
                pass
        assert machine.apply([entry]) == plain_one.apply([entry])
        assert list(machine.items.items()) == list(plain_one.items.items())
        assert len(machine.items) == len(plain_one.items)
        assert machine.expires_at_us == plain_one.expires_at_us
    if chunks is not None:
        taken.extend(chunks)
        assert taken == expected
        machine.thaw()
    while not machine.settle(1):
        assert machine.items == plain_one.items
    assert tell(machine) == tell(plain_one)
    assert machine.state_digest == plain_one.state_digest


writes = st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=40)
"""Which key, and whether it is deleted (if it is there) or set."""


@given(writes, writes, writes, st.integers(0, 3))
def test_layers_are_one_dict(before: Writes, during: Writes, after: Writes, settled: int) -> None:
    """Writes before, during and after freezing leave what they leave in one dict, order included."""
    plain_one: dict[str, Item] = {}
    below: dict[str, Item] = {}
    write_all(before, 0, plain_one, below)
    frozen, kept = below, list(below.items())
    layers = Layers(below)
    write_all(during, 100, plain_one, layers)
    assert list(frozen.items()) == kept
    layers.thaw()
    for place, write in enumerate(after):
        layers.settle(settled)
        write_all([write], 200 + place, plain_one, layers)
        assert list(layers.items()) == list(plain_one.items())
        assert len(layers) == len(plain_one)
    one = layers.settle(1_000)
    assert one is frozen
    assert list(one.items()) == list(plain_one.items())


def write_all(writes: Writes, revision: int, *places: MutableMapping[str, Item]) -> None:
    """Carry the same writes out in each place."""
    for number, (key, is_delete) in enumerate(writes):
        for items in places:
            if not is_delete:
                items[str(key)] = Item(msgspec.Raw(b"1"), revision + number, str(key))
            elif str(key) in items:
                del items[str(key)]


def tell(machine: Machine) -> list[bytes]:
    """Return a machine's snapshot."""
    chunks = list(machine.freeze().chunks())
    machine.thaw()
    return chunks


def restore(chunks: Iterable[bytes]) -> Machine:
    """Return the machine of a snapshot."""
    restorer = Restorer()
    for chunk in chunks:
        restorer.feed(chunk)
    return restorer.finish()


@st.composite
def logs_of_runs(draw: st.DrawFn) -> list[Entry]:
    """Draw a log of plain sets of two sessions, mostly under new numbers, with something else here and there."""
    drawn: list[Command | None] = [OpenSession(1000), OpenSession(1000)]
    seqs = {1: 0, 2: 0}
    for _ in range(draw(st.integers(1, 5))):
        session = draw(st.sampled_from((1, 1, 2)))
        for _ in range(draw(st.integers(1, 6))):
            seqs[session] += 1
            seq = draw(st.sampled_from([seqs[session]] * 8 + [max(1, seqs[session] - 2), seqs[session] + 3]))
            done = draw(st.sampled_from((0, 0, max(0, seqs[session] - 3), seqs[session])))
            drawn.append(Write(session, seq, done, Set(draw(KEYS), draw(VALUES))))
        drawn += draw(st.lists(commands, max_size=1))
    return [make_entry(index, 1, index, command) for index, command in enumerate(drawn, 1)]


@given(logs_of_runs(), st.data())
def test_a_run_does_what_its_entries_do_one_by_one(log: list[Entry], data: st.DataObject) -> None:
    """Whether it is foreseen by one machine of the process, taken over by another, or neither."""
    alone = Machine()
    wanted = [alone.apply([entry])[0] for entry in log]
    siblings = Siblings()
    for _ in range(3):
        machine = Machine()
        machine.join(siblings)
        replies: list[Reply] = []
        changes: list[object] = []
        while len(replies) < len(log):
            count = data.draw(st.integers(1, len(log)), "entries in a call")
            replies += machine.apply(log[len(replies) : len(replies) + count])
            changes += machine.changes
        assert replies == wanted
        assert (machine.entries_digest, machine.state_digest) == (alone.entries_digest, alone.state_digest)
        assert list(machine.items.items()) == list(alone.items.items())
        assert b"".join(machine.freeze().chunks()) == b"".join(alone.freeze().chunks())
        alone.thaw()


@given(logs_of_runs(), st.data())
def test_questions_in_a_run_see_what_stands_before_them(log: list[Entry], data: st.DataObject) -> None:
    """Also if what comes of the run is foreseen for the other machines, which hold the very same items then."""
    alone = Machine()
    places = sorted(data.draw(st.sets(st.integers(0, len(log)), max_size=4), "places"))
    keys = [Get("a"), Get("b")]
    wanted = {0: alone.query(keys)} | {
        entry.index: alone.apply([entry]) and alone.query(keys) for entry in log
    }
    asking, other = Machine(), Machine()
    siblings = Siblings()
    asking.join(siblings)
    other.join(siblings)
    asked = [Asked(place, keys, []) for place in places]
    assert asking.apply(log, asked=asked) == other.apply(log)
    assert [each.replies for each in asked] == [wanted[place] for place in places]
    assert asking.state_digest == other.state_digest == alone.state_digest
    assert all(asking.items[key] is item for key, item in other.items.items())
