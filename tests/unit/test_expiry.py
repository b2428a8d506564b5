"""Keys with a time to live: they end by an entry, at their time or later, the same on every node."""

from collections.abc import Sequence

import msgspec
import pytest

from trio_kv.kv.commands import Command, Expire, OpenSession, Write, decode_command
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import AnyWrite, Cas, Delete, Get, Incr, Set, Txn
from trio_kv.kv.operations.operation import Change, SessionChange, TimedSet
from trio_kv.kv.reply import Item, Reply, TimedReply
from trio_kv.kv.restorer import Restorer
from trio_kv.kv.siblings import Siblings
from trio_kv.raft.entry import Entry, make_entry

S = 1_000_000
"""A second, in µs."""
YEAR_S = 31_536_000


def raw(text: str) -> msgspec.Raw:
    """Return a JSON text as the commands hold it."""
    return msgspec.Raw(text.encode())


class Log:
    """Makes entries, and lets machines apply them."""

    def __init__(self, machines: int = 1) -> None:
        """Open a session at cluster time 0."""
        self.machines = [Machine() for _ in range(machines)]
        self.entries: list[Entry] = []
        siblings = Siblings()
        for machine in self.machines:
            machine.join(siblings)
        self.at(0, OpenSession(2 * YEAR_S * S))

    @property
    def machine(self) -> Machine:
        """The first of them."""
        return self.machines[0]

    def at(self, time_us: int, *commands: Command | AnyWrite | None) -> list[Reply]:
        """Apply commands or operations at a cluster time."""
        first = len(self.entries) + 1
        new = [
            make_entry(index, 1, time_us, _command(index, command))
            for index, command in enumerate(commands, first)
        ]
        self.entries += new
        replies = [machine.apply(new) for machine in self.machines]
        return replies[0]

    def holds(self) -> dict[str, str]:
        """Return all keys and values of the first machine, having compared the others with it."""
        for other in self.machines[1:]:
            assert other.items == self.machine.items
            assert other.state_digest == self.machine.state_digest
            assert other.expires_at_us == self.machine.expires_at_us
        return {key: bytes(item.value).decode() for key, item in self.machine.items.items()}


def _command(index: int, command: Command | AnyWrite | None) -> Command | None:
    return command if command is None or isinstance(command, Command) else Write(1, index, 0, command)


def restore(chunks: Sequence[bytes]) -> Machine:
    """Return the machine that these chunks tell."""
    restorer = Restorer()
    for chunk in chunks:
        restorer.feed(chunk)
    return restorer.finish()


def tell(machine: Machine) -> list[bytes]:
    """Return the chunks of a snapshot."""
    chunks = list(machine.freeze().chunks())
    machine.thaw()
    machine.settle(1 << 30)
    return chunks


def test_a_key_ends_by_an_entry_at_its_time_or_later() -> None:
    """It lives to the last microsecond, and on until an entry says that it ends; that is told with its revision."""
    log = Log()
    log.at(5 * S, Set("k", raw("1"), ttl=10))
    assert log.machine.expires_at_us == 15 * S
    log.at(15 * S - 1, Expire(1000))
    log.at(99 * S, None)
    assert log.holds() == {"k": "1"}
    log.at(99 * S, Expire(1000))
    assert log.holds() == {}
    assert list(log.machine.changes) == [Change("expire", "k", None, 5, 2)]
    assert log.machine.expires_at_us == 2 * YEAR_S * S + 5 * S


def test_a_time_of_a_fraction_is_never_cut() -> None:
    """0.1000004 s are 100,001 µs: at least the time that was asked for."""
    log = Log()
    log.at(0, Set("k", raw("1"), ttl=0.1000004))
    assert log.machine.expires_at_us == 100_001


@pytest.mark.parametrize(
    ("operation", "due_us"),
    [
        pytest.param(Set("k", raw("2")), None, id="set for good"),
        pytest.param(Set("k", raw("2"), ttl=1), 4 * S, id="set, sooner"),
        pytest.param(Set("k", raw("2"), ttl=60), 63 * S, id="set, later"),
        pytest.param(Cas("k", raw("2"), raw("1")), None, id="cas for good"),
        pytest.param(Cas("k", raw("2"), raw("1"), 60), 63 * S, id="cas, later"),
        pytest.param(Cas("k", raw("2"), raw("7")), 10 * S, id="cas that does not hold"),
        pytest.param(Set("k", raw("2"), 1), 10 * S, id="set that does not hold"),
        pytest.param(Incr("k"), 10 * S, id="incr keeps it"),
        pytest.param(Incr("k", ttl=60), 63 * S, id="incr, later"),
        pytest.param(Incr("k", ttl=1), 4 * S, id="incr, sooner"),
    ],
)
def test_the_last_write_decides(operation: AnyWrite, due_us: int | None) -> None:
    """A write without a time keeps the key for good, but incr keeps the time; one in vain changes nothing."""
    log = Log(2)
    log.at(0, Set("k", raw("1"), ttl=10))
    log.at(3 * S, operation)
    due = log.machine.items["k"].due
    assert due == (None if due_us is None else (due_us, "k"))
    assert len(log.machine.expiry) == (due is not None)
    log.at(10 * S, Expire(1000))
    assert ("k" in log.holds()) == (due_us is None or due_us > 10 * S)


def test_incr_of_a_key_for_good_keeps_it_for_good() -> None:
    """There is no time to keep."""
    log = Log()
    log.at(0, Incr("k"), Incr("k"), Incr("m", ttl=5), Delete("m"), Incr("m"))
    assert log.machine.items["k"].due is log.machine.items["m"].due is None
    assert len(log.machine.expiry) == 0


def test_a_deleted_key_leaves_nothing_behind() -> None:
    """Its time is forgotten with it: one that is made anew under the name lives on, and nothing is due."""
    log = Log(2)
    log.at(0, *[operation for _ in range(100) for operation in (Set("k", raw("1"), ttl=YEAR_S), Delete("k"))])
    assert len(log.machine.expiry) == 0
    log.at(0, Set("k", raw("1")))
    log.at(YEAR_S * S, Expire(1000))
    assert log.holds() == {"k": "1"}


def test_an_entry_ends_the_first_thousand_of_keys_and_sessions() -> None:
    """The earliest first, of equals keys before sessions, by name; the next entry ends the rest."""
    log = Log(2)
    log.at(0, *[Set(f"k{number}", raw("1"), ttl=1) for number in range(1500)])
    log.at(0, OpenSession(500_000), OpenSession(S), OpenSession(S + 1))
    early, equal, late = range(1502, 1505)
    assert log.machine.expires_at_us == 500_000
    log.at(2 * S, Expire(1000))
    told = list(log.machine.changes)
    assert told[0] == SessionChange("forget", early)
    names = sorted(f"k{number}" for number in range(1500))
    assert [change.key for change in told[1:] if isinstance(change, Change)] == names[:999]
    log.at(2 * S, Expire(1000))
    told = list(log.machine.changes)
    assert [change.key for change in told[:501] if isinstance(change, Change)] == names[999:]
    assert told[501:] == [SessionChange("forget", equal), SessionChange("forget", late)]
    assert log.holds() == {}


def test_keys_of_one_entry_share_its_revision() -> None:
    """A watch tells them in one line."""
    log = Log()
    log.at(0, Set("a", raw("1"), ttl=1), Set("b", raw("1"), ttl=2))
    log.at(9 * S, Expire(1000))
    assert list(log.machine.changes) == [Change("expire", "a", None, 4, 2), Change("expire", "b", None, 4, 3)]


def test_an_entry_of_format_2_ends_all_sessions_that_are_due() -> None:
    """Logs of that time have entries without a limit; all nodes must go on doing to them what they did."""
    command = decode_command(b'["expire"]')
    assert command == Expire(None)
    log = Log()
    log.at(0, *[OpenSession(S)] * 1500)
    log.at(S, command)
    assert len(log.machine.sessions) == 1


def test_commands_without_a_time_have_the_bytes_of_before() -> None:
    """A plain write takes no more room in the log than it did; a time stands at its end."""
    assert Write(1, 2, 0, Set("k", raw("1"))).encode() == b'["write",1,2,0,{"op":"set","key":"k","value":1}]'
    timed = Write(1, 2, 0, Set("k", raw("1"), ttl=0.5))
    assert timed.encode() == b'["write",1,2,0,{"op":"set","key":"k","value":1,"ttl":0.5}]'
    assert decode_command(timed.encode()) == timed
    assert Expire(1000).encode() == b'["expire",1000]'


def test_the_digest_knows_when_a_key_ends() -> None:
    """Two machines that disagree about it alone are told apart."""
    digests = set()
    for ttl in (1.0, 2.0):
        log = Log()
        log.at(0, Set("k", raw("1"), ttl=ttl))
        assert list(log.machine.changes) == [TimedSet("set", "k", raw("1"), 2, 0, int(ttl * S))]
        digests.add(log.machine.state_digest)
    assert len(digests) == 2


def test_a_machine_that_is_wrong_about_a_time_stays_so_alone() -> None:
    """What was made of an entry on another machine, or is held there, is not taken where it differs."""
    log = Log(2)
    log.at(0, Set("k", raw("1"), ttl=5))
    wrong, right = log.machine, log.machines[1]
    due = (7 * S, "k")
    item = Item(raw("1"), 2, "k", due)
    wrong.expiry.replace(wrong.items["k"], item)
    wrong.items["k"] = item
    log.at(S, Incr("k"))
    assert wrong.items["k"].due == due
    assert right.items["k"].due == (5 * S, "k")
    assert wrong.state_digest != right.state_digest
    log.at(S, Set("k", raw("3")))
    assert wrong.items["k"] == right.items["k"]
    assert len(wrong.expiry) == len(right.expiry) == 0


def test_machines_of_a_process_share_the_time() -> None:
    """It takes memory once, also on a machine that comes later."""
    log = Log(2)
    log.at(0, Set("k", raw("1"), ttl=5), Incr("n", ttl=5))
    late = Machine()
    late.join(log.machine.siblings)
    late.apply([make_entry(entry.index, 1, entry.time_us, entry.command) for entry in log.entries])
    assert late.items["k"] is log.machines[1].items["k"] is log.machine.items["k"]
    assert late.items["n"] is log.machine.items["n"]
    assert late.state_digest == log.machine.state_digest


def test_snapshots_tell_when_keys_end() -> None:
    """A restored machine goes on as the one that was frozen, also with what changed meanwhile; so does a copy."""
    log = Log()
    log.at(0, Set("a", raw("1"), ttl=5), Set("b", raw("2"), ttl=3), Set("c", raw("3")))
    frozen = log.machine.freeze()
    log.at(S, Set("a", raw("4")), Set("c", raw("5"), ttl=1), Delete("b"))
    chunks = list(frozen.chunks())
    assert b'{"chunk":2,"items":[["a",1,2,5000000],["b",2,3,3000000],["c",3,4]]}\n' in chunks
    restored = restore(chunks)
    log.machine.thaw()
    assert restored.expires_at_us == 3 * S
    restored.apply(log.entries[restored.applied :])
    late = Log()
    late.machine.apply(log.entries[1:])
    log.machine.settle(1 << 30)
    machines = log.machine, restored, late.machine, log.machine.copy()
    assert len({machine.state_digest for machine in machines}) == 1
    for machine in machines:
        machine.apply([make_entry(8, 1, 2 * S, Expire(1000))])
        assert set(machine.items) == {"a"}
        assert machine.expires_at_us == 2 * YEAR_S * S + S
    assert tell(restored) == tell(log.machine)


def test_a_restored_machine_shares_what_it_is_given_only_if_it_ends_at_the_same_time() -> None:
    """An item of the process with the same text and revision, but another time, is another one."""
    log = Log()
    log.at(0, Set("a", raw("1"), ttl=5))
    chunks = tell(log.machine)
    for due in (None, (5 * S, "a"), (6 * S, "a")):
        known = Item(raw("1"), 2, "a", due)
        restorer = Restorer({"a": known}.get)
        for chunk in chunks:
            restorer.feed(chunk)
        item = restorer.finish().items["a"]
        assert item.due == (5 * S, "a")
        assert (item is known) == (known.due == item.due)


def test_a_machine_is_dismantled_in_slices() -> None:
    """So many keys end at most in one call; nothing is left in the end."""
    log = Log()
    log.at(0, *[Set(f"k{number}", raw("1"), ttl=1) for number in range(25)])
    calls = 1
    while not log.machine.dismantle(10):
        calls += 1
    assert calls == 5
    assert len(log.machine.expiry) == 0


def test_get_tells_how_long_a_key_lives_at_least() -> None:
    """By the cluster time that its node knows; what is due and not gone yet has no time left; others tell nothing."""
    log = Log()
    log.at(0, Set("k", raw("1"), ttl=10), Set("m", raw("2")))
    for known_us, left_us in ((0, 10 * S), (4 * S, 6 * S), (11 * S, 0)):
        log.machine.known_time_us = known_us
        assert log.machine.query([Get("k"), Get("m"), Get("none")]) == [
            TimedReply("ok", raw("1"), 2, ttl_us=left_us),
            Reply("ok", raw("2"), 3),
            Reply("missing"),
        ]


def test_a_transaction_sets_and_keeps_times_and_one_in_vain_changes_none() -> None:
    """Its writes have the rules of those alone, and take effect together: also what ends, and when."""
    log = Log(2)
    log.at(0, Set("a", raw("1"), ttl=5), Set("b", raw("1"), ttl=5), Set("w", raw('"x"'), ttl=5))
    log.at(S, Txn(then=(Incr("a"), Set("b", raw("2")), Set("c", raw("3"), ttl=9), Delete("w"))))
    ends = {key: item.due and item.due[0] for key, item in log.machine.items.items()}
    assert ends == {"a": 5 * S, "b": None, "c": 10 * S}
    log.at(S, Set("w", raw('"x"'), ttl=5))
    (reply,) = log.at(S, Txn(then=(Set("a", raw("7")), Set("d", raw("1"), ttl=1), Incr("w"))))
    assert reply.code == "conflict"
    assert len(log.machine.expiry) == len(log.machines[1].expiry) == 3
    log.at(6 * S, Expire(1000))
    assert set(log.holds()) == {"b", "c"}
