"""The state machine, operation by operation."""

import msgspec
import pytest

from trio_kv.kv.commands import Cas, Command, Delete, Expire, OpenSession, Set
from trio_kv.kv.machine import Machine
from trio_kv.kv.reply import Item, Reply
from trio_kv.raft.entry import Entry, make_entry

SESSION = 1

LABEL = b'{"format":"trio_kv state","version":1}'
"""How a snapshot begins."""


def raw(text: str) -> msgspec.Raw:
    """Return a JSON text as the commands hold it."""
    return msgspec.Raw(text)


class Log:
    """A machine with one open session, fed one command at a time under fresh seqs."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.machine.apply([make_entry(1, 1, 0, OpenSession(1_000_000))])
        self.seq = 0

    def set(self, key: str, value: str, if_revision: int | None = None) -> Reply:
        """Apply a set."""
        return self.apply(Set(SESSION, self.next_seq(), 0, key, raw(value), if_revision))

    def delete(self, key: str, if_revision: int | None = None) -> Reply:
        """Apply a delete."""
        return self.apply(Delete(SESSION, self.next_seq(), 0, key, if_revision))

    def cas(self, key: str, value: str, *expected: str) -> Reply:
        """Apply a cas."""
        return self.apply(Cas(SESSION, self.next_seq(), 0, key, raw(value), tuple(map(raw, expected))))

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
    assert log.machine.get("k") == Item(raw('{"b":1, "a":2}'), 3)
    assert log.machine.get("other") is None


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
    assert log.machine.get("k") == Item(raw("[ 2 ]"), 3)
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
    diverged.machine.items["k"] = Item(raw("2"), 2)
    for log in (healthy, diverged):
        log.cas("k", "3", "1")
    assert healthy.machine.entries_digest == diverged.machine.entries_digest
    assert healthy.machine.state_digest != diverged.machine.state_digest


def test_digests_of_equal_logs_are_equal_and_stay_what_they_were() -> None:
    """The digests are part of the format: nodes of two versions compare them, so they must not drift."""
    log = Log()
    log.set("k", "1")
    log.cas("k", "2", "1.0")
    log.delete("k")
    log.delete("k")
    assert (log.machine.entries_digest, log.machine.state_digest) == (2_199_237_337, 616_398_736)


def test_copy_changes_on_its_own(log: Log) -> None:
    """What is applied to a copy does not show in the original, and the other way round."""
    log.set("k", "1")
    twin = log.machine.copy()
    before = twin.snapshot()
    log.set("k", "2")
    log.delete("k")
    assert twin.snapshot() == before
    twin.apply([Entry(3, 1, 10**9, Expire(), b"")])
    assert len(twin.sessions) == 0
    assert len(log.machine.sessions) == 1


def test_snapshot_holds_everything(log: Log) -> None:
    """A restored machine is the same machine, answers of sessions and null values included."""
    log.set("k", "null")
    log.set('\u00e9\n\u2028"', "[1,\r 2]")
    log.delete("k")
    log.cas("x", "1", "2")
    restored = Machine.restore(log.machine.snapshot())
    assert restored.snapshot() == log.machine.snapshot()
    assert restored.items == log.machine.items
    kept, original = (machine.sessions.by_id[SESSION].replies for machine in (restored, log.machine))
    assert kept == original
    assert kept[3].value == raw("null")
    assert kept[1].value is None


def test_snapshot_comes_in_parts_of_bounded_size() -> None:
    """Many keys make many parts, so that whoever writes them can pause in between."""
    log = Log()
    for number in range(3_000):
        log.set(f"key{number}", "1")
    parts = list(log.machine.snapshot_parts())
    assert len(parts) > 12
    assert Machine.restore(b"".join(parts)).items == log.machine.items


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated"),
        (b"{}\n", "format"),
        (b'{"format":"trio_kv state","version":2}\n[]', "version 2, not 'trio_kv state' version 1"),
        (b'{"format":"shopping list","version":1}\n', "shopping list"),
        (b'{"format":"trio_kv state","version":1}\n{"head":[0,0,0,0,0],"sessions":[', "truncated"),
        (
            b"\n".join(
                [
                    LABEL,
                    b'{"head":[0,0,0,0,0],"sessions":[],"replies":[[9,1,"ok",null,false,1,""]],"items":[]}',
                ]
            ),
            "session 9",
        ),
    ],
)
def test_what_is_no_snapshot_is_refused(data: bytes, message: str) -> None:
    """A damaged snapshot, or one of another format, raises and says which."""
    with pytest.raises(ValueError, match=message):
        Machine.restore(data)
