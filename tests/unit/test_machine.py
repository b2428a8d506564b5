"""The state machine, operation by operation."""

import msgspec
import pytest
from msgspec import UNSET, UnsetType

from trio_kv.check.reference import Reference
from trio_kv.check.state_machine_safety import outcome_of
from trio_kv.kv.commands import Command, Expire, OpenSession, RenewSession, Write
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import AnyWrite, Cas, Delete, Set
from trio_kv.kv.operations.operation import Change, NoChange, SessionChange
from trio_kv.kv.reply import Item, Reply
from trio_kv.kv.restorer import Restorer
from trio_kv.raft.entry import Entry, make_entry

SESSION = 1


def raw(text: str) -> msgspec.Raw:
    """Return a JSON text as the commands hold it."""
    return msgspec.Raw(text)


def write(seq: int, operation: AnyWrite) -> Write:
    """Return an operation of the open session."""
    return Write(SESSION, seq, 0, operation)


class Log:
    """A machine with one open session, fed one command at a time under fresh seqs."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.machine.apply([make_entry(1, 1, 0, OpenSession(1_000_000))])
        self.seq = 0

    def set(self, key: str, value: str, if_revision: int | UnsetType = UNSET) -> Reply:
        """Apply a set."""
        return self.apply(Write(SESSION, self.next_seq(), 0, Set(key, raw(value), if_revision)))

    def delete(self, key: str, if_revision: int | UnsetType = UNSET) -> Reply:
        """Apply a delete."""
        return self.apply(Write(SESSION, self.next_seq(), 0, Delete(key, if_revision)))

    def cas(self, key: str, value: str, *expected: str) -> Reply:
        """Apply a cas."""
        return self.apply(
            Write(SESSION, self.next_seq(), 0, Cas(key, raw(value), raw(expected[0]) if expected else UNSET))
        )

    def next_seq(self) -> int:
        """Return a seq that was not used yet."""
        self.seq += 1
        return self.seq

    def apply(self, command: Command | None) -> Reply:
        """Apply one command as the next entry."""
        return self.machine.apply([make_entry(self.machine.applied + 1, 1, 0, command)])[0]


@pytest.fixture
def log() -> Log:
    """Return a log whose entry 1 opened the session."""
    return Log()


def test_set_gives_the_revision_of_its_entry(log: Log) -> None:
    """A write's revision is the index of its entry, and the value is the text that was sent."""
    assert log.set("k", "1.10") == Reply("ok", revision=2)
    assert log.set("k", '{"b":1, "a":2}') == Reply("ok", revision=3)
    assert log.machine.get("k") == Item(raw('{"b":1, "a":2}'), 3, "k")
    assert log.machine.get("other") is None


def test_C7_verdicts_depend_on_the_log_alone() -> None:
    """A condition on a large value gets one verdict: of a node that was there, of one made of a snapshot, of a reader.

    It is that of the judges' rule: equal as JSON up to 64 KiB, and byte for byte beyond (scenario C7).
    """
    texts = [
        msgspec.Raw(b"[" + b"1," * count + last + b"]")
        for count in (16_000, 16_500)
        for last in (b"1", b"1.0")
    ]
    commands: list[Command] = [OpenSession(1_000_000), Write(SESSION, 1, 0, Set("k", texts[0]))]
    commands += [
        Write(SESSION, len(texts) * place + number + 2, 0, Cas("k", value, expected))
        for place, expected in enumerate(texts[:3])
        for number, value in enumerate(texts[1:3])
    ]
    entries = [make_entry(index, 1, 0, command) for index, command in enumerate(commands, 1)]
    first, later, rule = Machine(), Machine(), Reference()
    codes = []
    for entry in entries:
        (reply,) = first.apply([entry])
        codes.append(reply.code)
        assert outcome_of(reply) == rule.apply(entry)
        restorer = Restorer()
        for chunk in later.freeze().chunks():
            restorer.feed(chunk)
        later = restorer.finish()
        assert later.apply([entry]) == [reply]
    reader = Machine()
    reader.apply(entries)
    assert reader.state_digest == first.state_digest == later.state_digest
    assert {"ok", "conflict"} == set(codes[2:])


def test_delete_answers_with_the_old_value(log: Log) -> None:
    """A delete carries what it removed; of a missing key it says `missing`."""
    log.set("k", '"old"')
    assert log.delete("k") == Reply("ok", raw('"old"'), 3)
    assert log.machine.get("k") is None
    assert log.delete("k") == Reply("missing")


def test_set_if_revision(log: Log) -> None:
    """A conditional set applies at that revision only; 0 means that the key must not exist."""
    assert log.set("k", "1", 5).code == "conflict"
    assert log.set("k", "1", 0) == Reply("ok", revision=3)
    refused = log.set("k", "2", 0)
    assert (refused.code, refused.value, refused.revision) == ("conflict", raw("1"), 3)
    assert log.set("k", "2", 2).message == "the key is at revision 3, not at 2"
    assert log.set("k", "2", 3) == Reply("ok", revision=6)


def test_delete_if_revision(log: Log) -> None:
    """A conditional delete likewise; a key that must not exist and does not is simply missing."""
    assert log.delete("k", 0) == Reply("missing")
    missing = log.delete("k", 9)
    assert (missing.code, missing.value, missing.revision) == ("conflict", None, 0)
    log.set("k", "1")
    assert log.delete("k", 0).value == raw("1")
    assert log.delete("k", 4) == Reply("ok", raw("1"), 6)


def test_cas_without_expected_means_must_not_exist(log: Log) -> None:
    """`expected` left out: the key must not exist. That is not the same as expecting null."""
    assert log.cas("k", "null") == Reply("ok", revision=2)
    refused = log.cas("k", "2")
    assert (refused.code, refused.value, refused.revision) == ("conflict", raw("null"), 2)
    assert log.cas("k", "3", "null") == Reply("ok", revision=4)


def test_cas_compares_values_and_not_texts(log: Log) -> None:
    """Equality in cas is JSON equality; the new text is stored as it came."""
    log.set("k", '{"n": 1.0, "s": "A"}')
    assert log.cas("k", "[ 2 ]", '{"s":"\\u0041","n":10e-1}').code == "ok"
    assert log.machine.get("k") == Item(raw("[ 2 ]"), 3, "k")
    refused = log.cas("k", "3", "2")
    assert (refused.code, refused.value) == ("conflict", raw("[ 2 ]"))


def test_cas_of_a_missing_key_conflicts(log: Log) -> None:
    """Expecting any value, even null, of a key that does not exist is a conflict without a value."""
    refused = log.cas("k", "1", "null")
    assert (refused.code, refused.value, refused.revision) == ("conflict", None, 0)
    assert log.machine.get("k") is None


def test_no_op_answers_ok_and_changes_nothing(log: Log) -> None:
    """The entry that opens a term moves `applied` and the digest of entries, not the state."""
    before = log.machine.copy()
    assert log.machine.apply([make_entry(2, 7, 50, None)]) == [Reply("ok")]
    after = log.machine
    assert (after.applied, after.applied_term, after.time_us) == (2, 7, 50)
    assert after.state_digest == before.state_digest
    assert after.entries_digest != before.entries_digest


def test_gap_in_the_log_is_refused(log: Log) -> None:
    """Entries come without a gap and without a repetition."""
    for index in (1, 3):
        with pytest.raises(AssertionError, match=f"entry {index} applied after 1"):
            log.machine.apply([make_entry(index, 1, 0, None)])


def test_cluster_time_running_back_is_refused(log: Log) -> None:
    """Cluster time never decreases along a log."""
    log.machine.apply([make_entry(2, 1, 50, Expire())])
    with pytest.raises(AssertionError, match="cluster time back from 50 to 49"):
        log.machine.apply([make_entry(3, 1, 49, None)])


def test_empty_run_changes_nothing(log: Log) -> None:
    """A run of no entries is no run."""
    assert log.machine.apply([]) == []
    assert log.machine.applied == 1


def test_state_digest_sees_a_machine_that_diverged() -> None:
    """Two machines on an equal log differ in the second digest as soon as one holds something else."""
    healthy, diverged = Log(), Log()
    for log in (healthy, diverged):
        log.set("k", "1")
    diverged.machine.items["k"] = Item(raw("2"), 2, "k")
    for log in (healthy, diverged):
        log.cas("k", "3", "1")
    assert healthy.machine.entries_digest == diverged.machine.entries_digest
    assert healthy.machine.state_digest != diverged.machine.state_digest


def test_changes_say_what_each_entry_did(log: Log) -> None:
    """A change has key, value, revision and the revision before; an entry that changed nothing tells its answer."""
    told: list[object] = []
    for command in (
        None,
        write(1, Set("k", raw("1"))),
        write(2, Cas("k", raw("2"), raw("1.0"))),
        write(3, Set("k", raw("3"), 9)),
        write(4, Delete("k")),
        write(5, Delete("k")),
        write(1, Set("k", raw("1"))),
        RenewSession(SESSION),
        OpenSession(7),
        Write(99, 1, 0, Delete("k")),
    ):
        log.apply(command)
        told.append(list(log.machine.changes))
    log.machine.apply([Entry(12, 1, 7, Expire(), b"")])
    told.append(list(log.machine.changes))
    assert told == [
        [],
        [Change("set", "k", raw("1"), 3, 0)],
        [Change("set", "k", raw("2"), 4, 3)],
        [NoChange("conflict", 4, raw("2"))],
        [Change("delete", "k", None, 6, 4)],
        [NoChange("missing", 0, None)],
        [NoChange("ok", 3, None)],
        [SessionChange("renew", SESSION)],
        [SessionChange("open", 10, 7)],
        [NoChange("session_expired", 0, None)],
        [SessionChange("forget", 10)],
    ]


def test_digests_of_equal_logs_are_equal_and_stay_what_they_were() -> None:
    """The digests are part of the format: nodes of two versions compare them, so they must not drift."""
    log = Log()
    log.set("k", "1")
    log.cas("k", "2", "1.0")
    log.delete("k")
    log.delete("k")
    assert (log.machine.entries_digest, log.machine.state_digest) == (458_331_900, 3_994_646_186)


def test_copy_changes_on_its_own(log: Log) -> None:
    """What is applied to a copy does not show in the original, and the other way round."""
    log.set("k", "1")
    twin = log.machine.copy()
    log.set("k", "2")
    log.delete("k")
    assert twin.get("k") == Item(raw("1"), 2, "k")
    assert list(twin.sessions.by_id[SESSION].replies) == [1]
    twin.apply([Entry(3, 1, 10**9, Expire(), b"")])
    assert len(twin.sessions) == 0
    assert len(log.machine.sessions) == 1


def test_frozen_state_stays_as_it_is(log: Log) -> None:
    """What is applied after `freeze` shows in the machine and not in the frozen state, sessions included."""
    for key in ("a", "b", "c"):
        log.set(key, '"old"')
    before = tell(log.machine)
    frozen = log.machine.freeze()
    log.set("a", '"new"')
    log.delete("b")
    log.set("d", '"new"')
    log.apply(RenewSession(SESSION))
    log.apply(OpenSession(5))
    assert (frozen.head.applied, frozen.head.applied_term) == (4, 1)
    assert list(frozen.chunks()) == before
    assert [(key, item.value) for key, item in log.machine.items.items()] == [
        ("a", raw('"new"')),
        ("c", raw('"old"')),
        ("d", raw('"new"')),
    ]
    assert len(log.machine.items) == 3
    assert log.machine.get("b") is None
    assert "b" not in log.machine.items


def test_settling_keeps_the_order_of_one_dict(log: Log) -> None:
    """A key overwritten while frozen keeps its place; one that was deleted and came back stands at the end."""
    for key in ("a", "b", "c", "d"):
        log.set(key, "1")
    log.machine.freeze()
    log.set("new", "1")
    for key in ("a", "c"):
        log.delete(key)
    log.set("b", "2")
    log.set("a", "2")
    for key in ("new", "a"):
        log.delete(key)
        log.set(key, "3")
    order = ["b", "d", "new", "a"]
    assert list(log.machine.items) == order
    log.machine.thaw()
    rounds = 0
    while not log.machine.is_settled:
        assert list(log.machine.items) == order
        log.machine.settle(1)
        rounds += 1
    assert rounds == 4
    assert isinstance(log.machine.items, dict)
    assert list(log.machine.items) == order


def test_settling_ends_under_a_load_of_overwrites(log: Log) -> None:
    """However many old keys are overwritten between two slices, each slice brings the end nearer."""
    keys = [f"k{number}" for number in range(50)]
    for key in keys:
        log.set(key, "1")
    log.machine.freeze()
    for key in keys[:10]:
        log.set(key, "2")
    log.machine.thaw()
    for _ in range(4):
        for key in keys:
            log.set(key, "3")
        assert not log.machine.settle(2)
    assert log.machine.settle(2)
    assert all(item.value == raw("3") for item in log.machine.items.values())


def test_settle_does_nothing_where_there_is_nothing_to_do(log: Log) -> None:
    """A machine that is frozen, or was never, is settled; one to which nothing was applied meanwhile is at once."""
    assert log.machine.is_settled
    assert log.machine.settle(1)
    log.set("k", "1")
    frozen = log.machine.freeze()
    assert log.machine.is_settled
    assert log.machine.settle(1)
    assert len(list(frozen.chunks())) == 4
    log.machine.thaw()
    assert log.machine.is_settled
    assert isinstance(log.machine.items, dict)


def test_one_state_is_frozen_at_a_time(log: Log) -> None:
    """A second freeze is refused until the first is thawed and settled; so is a thaw without a freeze."""
    log.machine.freeze()
    with pytest.raises(AssertionError, match="frozen already"):
        log.machine.freeze()
    log.set("k", "1")
    log.machine.thaw()
    with pytest.raises(AssertionError, match="not settled"):
        log.machine.freeze()
    with pytest.raises(AssertionError, match="no state is frozen"):
        log.machine.thaw()
    log.machine.settle(10)
    assert log.machine.freeze().head.applied == 2


def test_thawed_state_is_not_read(log: Log) -> None:
    """Whoever asks for more chunks of a state that was thawed hears so, instead of getting a mixture."""
    log.set("k", "1")
    chunks = log.machine.freeze().chunks()
    next(chunks)
    log.machine.thaw()
    with pytest.raises(AssertionError, match="thawed"):
        next(chunks)


def test_copy_of_a_frozen_machine_is_not_frozen(log: Log) -> None:
    """A copy taken while a snapshot is made is a machine of its own, in one layer."""
    log.set("k", "1")
    frozen = log.machine.freeze()
    before = list(frozen.chunks())
    log.set("k", "2")
    log.set("l", "2")
    twin = log.machine.copy()
    assert twin.items == log.machine.items
    twin.apply([make_entry(5, 1, 0, Write(SESSION, 9, 0, Delete("k")))])
    assert list(twin.freeze().chunks()) != before
    assert list(frozen.chunks()) == before
    assert log.machine.get("k") == Item(raw("2"), 3, "k")


def test_machine_is_dismantled_in_slices(log: Log) -> None:
    """A machine that is not needed any more lets go of its keys bit by bit, settled or not; not while frozen."""
    for number in range(5):
        log.set(f"k{number}", "1")
    log.machine.freeze()
    log.set("new", "1")
    with pytest.raises(AssertionError, match="frozen"):
        log.machine.dismantle(1)
    log.machine.thaw()
    assert [log.machine.dismantle(2) for _ in range(3)] == [False, False, True]
    assert log.machine.dismantle(2)
    assert not log.machine.items


def test_layers_miss_like_a_dict(log: Log) -> None:
    """Looking up or deleting a key that is not there is an error in two layers as in one."""
    log.set("gone", "1")
    log.machine.freeze()
    log.delete("gone")
    for key in ("gone", "never"):
        with pytest.raises(KeyError):
            log.machine.items[key]
        with pytest.raises(KeyError):
            del log.machine.items[key]
        assert log.machine.items.get(key, Item(raw("0"), 0, key)) == Item(raw("0"), 0, key)


def tell(machine: Machine) -> list[bytes]:
    """Return a machine's snapshot."""
    chunks = list(machine.freeze().chunks())
    machine.thaw()
    return chunks
