"""Machines of one process hold what is equal once; and one that is wrong stays so, and alone."""

from collections.abc import Sequence

import msgspec
import pytest
from msgspec import UNSET, Raw

from trio_kv.kv.commands import Expire, OpenSession, Write, decode_command
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import AnyWrite, Cas, Set
from trio_kv.kv.operations.operation import Change
from trio_kv.kv.reply import Item, Reply
from trio_kv.kv.restorer import Restorer
from trio_kv.kv.siblings import Siblings
from trio_kv.raft.entry import Entry, decode_entries, make_entry


def log_of(*operations: AnyWrite) -> list[Entry]:
    """Return a log that opens a session and carries these out."""
    commands = [Write(1, number, 0, operation) for number, operation in enumerate(operations, 2)]
    return [
        make_entry(index, 1, index, each) for index, each in enumerate([OpenSession(10**9), *commands], 1)
    ]


def sets(*pairs: str) -> list[Entry]:
    """Return a log that gives keys values: `a1` is key a, value 1."""
    return log_of(*[Set(pair[0], Raw(pair[1:])) for pair in pairs])


def read_again(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries as another node reads them from its disk."""
    return list(decode_entries(b"".join(each.encoded for each in entries), decode_command))


def machines(count: int, siblings: Siblings | None = None) -> list[Machine]:
    """Return machines of one process."""
    siblings = Siblings() if siblings is None else siblings
    made = [Machine() for _ in range(count)]
    for machine in made:
        machine.join(siblings)
    return made


def restored(source: Machine, siblings: Siblings, *, is_sharing: bool = True) -> Machine:
    """Return a machine made of a snapshot of another one."""
    restorer = Restorer(siblings.find if is_sharing else None)
    frozen = source.freeze()
    for chunk in frozen.chunks():
        restorer.feed(chunk)
    source.thaw()
    machine = restorer.finish()
    machine.join(siblings)
    return machine


def require_shared(first: Machine, second: Machine, keys: str) -> None:
    """Require that both hold the very same items and texts under these keys, and are in the same state."""
    assert first.state_digest == second.state_digest
    texts = [{key: id(key) for key in machine.items} for machine in (first, second)]
    for key in keys:
        assert first.get(key) is second.get(key)
        assert texts[0][key] == texts[1][key]


def test_machines_that_apply_an_entry_share_what_it_makes() -> None:
    """Item, change and reply are made by the first one."""
    first, *others = machines(3)
    entries = sets("a1", "b2", "a3")
    replies = first.apply(entries)
    for other in others:
        assert [mine is its for mine, its in zip(other.apply(entries), replies, strict=True)][1:] == [
            True
        ] * 3
        assert all(mine is its for mine, its in zip(other.changes[1:], first.changes[1:], strict=True))
        require_shared(first, other, "ab")


def test_a_machine_that_reads_the_log_anew_shares_with_the_one_ahead() -> None:
    """After a restart each node has read its own log: what is still held is shared, key and all."""
    ahead, behind = machines(2)
    entries = sets("a1", "b2", "a3", "c4")
    ahead.apply(entries)
    for entry in read_again(entries):
        behind.apply([entry])
    require_shared(ahead, behind, "abc")


def test_a_machine_made_of_a_snapshot_shares_items_and_keys() -> None:
    """Where the revision is another one the key's text is shared all the same."""
    siblings = Siblings()
    old, ahead = Machine(), Machine()
    ahead.join(siblings)
    entries = sets("a1", "b2", "a3")
    old.apply(entries[:3])
    ahead.apply(read_again(entries))
    behind = restored(old, siblings)
    assert behind.get("b") is ahead.get("b")
    assert behind.get("a") == Item(Raw("1"), 2, "a")
    behind.apply(read_again(entries[3:]))
    require_shared(ahead, behind, "ab")


def test_what_is_ahead_of_the_snapshots_machine_is_not_taken_over() -> None:
    """A snapshot tells the state of its moment, and its bytes are those of a machine that shares nothing."""
    siblings = Siblings()
    old, ahead = Machine(), Machine()
    ahead.join(siblings)
    entries = sets("a1", "b2", "a3", "c4")
    old.apply(entries[:3])
    ahead.apply(entries)
    behind, alone = restored(old, siblings), restored(old, Siblings(), is_sharing=False)
    assert list(behind.items) == ["a", "b"]
    assert list(behind.freeze().chunks()) == list(alone.freeze().chunks())


@pytest.mark.parametrize("wrong", [Item(Raw("8"), 3, "b"), Item(Raw("2"), 4, "b"), None])
def test_an_item_that_differs_is_not_shared(wrong: Item | None) -> None:
    """What the machine ahead holds wrongly stays there: by value, by revision, or not at all."""
    entries = sets("a1", "b2")
    for is_restored in (False, True):
        siblings = Siblings()
        sound, ahead = Machine(), Machine()
        ahead.join(siblings)
        sound.apply(entries)
        ahead.apply([*read_again(entries), make_entry(4, 1, 4, None)])
        del ahead.items["b"]
        if wrong is not None:
            ahead.items["b"] = wrong
        if is_restored:
            behind = restored(sound, siblings)
        else:
            behind = Machine()
            behind.join(siblings)
            for entry in read_again(entries):
                behind.apply([entry])
        assert behind.get("b") == Item(Raw("2"), 3, "b")
        assert behind.state_digest == sound.state_digest


def test_a_machine_that_diverged_is_found_by_what_it_does_with_shared_entries() -> None:
    """What another one made of an entry is not taken over where something else was held before."""
    sound, diverged = machines(2)
    entries = log_of(
        Set("a", Raw("1")), Cas("a", Raw("2"), Raw("1")), Set("b", Raw("3"), 0), Cas("c", Raw("4"))
    )
    sound.apply(entries[:2])
    diverged.apply(entries[:2])
    diverged.items["a"] = Item(Raw("7"), 2, "a")
    assert [reply.code for reply in sound.apply(entries[2:])] == ["ok", "ok", "ok"]
    assert [reply.code for reply in diverged.apply(entries[2:])] == ["conflict", "ok", "ok"]
    assert sound.entries_digest == diverged.entries_digest
    assert sound.state_digest != diverged.state_digest


def test_a_run_is_not_taken_over_where_its_session_stands_otherwise() -> None:
    """An answer that one machine keeps and another does not makes another thing of the same entries."""
    sound, diverged = machines(2)
    entries = sets("a1", "b2", "c3")
    sound.apply(entries[:1])
    diverged.apply(entries[:1])
    known = Reply("conflict", None, 0)
    diverged.sessions.by_id[1].replies[2] = known
    assert [reply.code for reply in sound.apply(entries[1:])] == ["ok"] * 3
    assert diverged.apply(entries[1:])[0] is known
    assert diverged.get("a") is None
    assert sound.state_digest != diverged.state_digest


def test_what_comes_of_other_entries_is_not_taken_over() -> None:
    """Two logs of one process differ at the same place: each machine does what its own log says."""
    first, second = machines(2)
    entries, others = sets("a1", "b2"), sets("a1", "b3")
    first.apply(entries)
    second.apply(others)
    assert second.get("b") == Item(Raw("3"), 3, "b")


def test_machines_that_commit_in_other_steps_share_all_the_same() -> None:
    """One that is in the midst of a run goes on one by one, and takes over the next."""
    first, second = machines(2)
    entries = sets("a1", "b2", "c3", "d4", "e5", "f6")
    first.apply(entries[:1])
    first.apply(entries[1:4])
    first.apply(entries[4:])
    second.apply(entries[:3])
    second.apply(entries[3:])
    require_shared(first, second, "abcdef")
    assert [mine is its for mine, its in zip(second.changes[1:], first.changes, strict=True)] == [True] * 3


def ending(*keys: str) -> list[Entry]:
    """Return a log that gives keys a second each, two entries that let two of them end, and one that ends the rest."""
    log = log_of(*[Set(key, Raw(b"1"), ttl=1.0) for key in keys])
    expires = [Expire(2), Expire(2), Expire(None)]
    return [*log, *[make_entry(len(log) + n, 1, 5_000_000, each) for n, each in enumerate(expires, 1)]]


def test_what_ends_is_told_once_for_all() -> None:
    """Each machine decides what ends; the changes that they make of it are kept once."""
    first, *others = machines(3)
    entries = ending("e", "a", "c", "b", "d")
    for machine in (first, *others):
        machine.apply(entries[:6])
        assert len(machine.items) == 5
    for entry in entries[6:]:
        for machine in (first, *others):
            machine.apply([entry])
        assert 1 <= len(first.changes) <= 2
        for other in others:
            assert len(other.changes) == len(first.changes)
            assert all(one is another for one, another in zip(first.changes, other.changes, strict=True))
    alone = Machine()
    alone.apply(entries)
    assert {machine.state_digest for machine in (first, *others)} == {alone.state_digest}
    assert [len(machine.items) for machine in (first, *others, alone)] == [0, 0, 0, 0]


@pytest.mark.parametrize("missing", ["a", "e"])
def test_a_machine_that_lacks_a_key_does_not_say_that_it_ended(missing: str) -> None:
    """What another one told of the entry is not believed: each key and its revision are compared."""
    first, second = machines(2)
    entries = ending("e", "a", "c", "b", "d")
    for machine in (first, second):
        machine.apply(entries[:6])
    second.expiry.replace(second.items.pop(missing), None)
    second.items["c"] = msgspec.structs.replace(second.items["c"], revision=1)
    for entry in entries[6:]:
        for machine in (first, second):
            machine.apply([entry])
            told = {change.key: change.previous for change in machine.changes if isinstance(change, Change)}
            assert missing not in told or machine is first
            if "c" in told:
                assert told["c"] == (4 if machine is first else 1)
    assert first.state_digest != second.state_digest


def test_a_wrong_revision_shows_in_the_digest_of_a_plain_set() -> None:
    """A change tells the revision before it: that of this machine, whatever the first one had."""
    sound, diverged = machines(2)
    entries = sets("a1", "a2", "b3")
    for machine in (sound, diverged):
        machine.apply(entries[:2])
    diverged.items["a"] = Item(Raw("1"), 9, "a")
    sound.apply(entries[2:])
    diverged.apply(entries[2:])
    assert diverged.changes == [Change("set", "a", Raw("2"), 3, 9), Change("set", "b", Raw("3"), 4, 0)]
    assert sound.state_digest != diverged.state_digest


def test_digests_are_those_of_machines_that_share_nothing() -> None:
    """Sharing is about memory alone."""
    entries = log_of(
        Set("a", Raw("1")), Set("a", Raw("2"), 2), Cas("a", Raw("3"), Raw("9")), Set("b", Raw("4"), UNSET)
    )
    alone, first, second = Machine(), *machines(2)
    replies = alone.apply(read_again(entries))
    assert first.apply(entries) == second.apply(entries) == replies
    assert {machine.state_digest for machine in (alone, first, second)} == {alone.state_digest}


def test_an_item_does_not_keep_its_entry_in_memory() -> None:
    """A value that was read from a log is copied out of the bytes around it."""
    (machine,) = machines(1)
    machine.apply(read_again(sets("a1")))
    item = machine.get("a")
    assert item is not None
    assert item.value.copy() is item.value
    assert msgspec.json.decode(item.value) == 1


@pytest.mark.parametrize("size", [1, 4], ids=["one by one", "as a run"])
def test_a_change_holds_the_texts_of_the_item(size: int) -> None:
    """Changes are kept for those who watch: what they hold beside the items would be the values once more."""
    (machine,) = machines(1)
    entries = read_again(sets("a1", "b2", "c3"))
    for place in range(0, len(entries), size):
        machine.apply(entries[place : place + size])
        for change in machine.changes:
            if isinstance(change, Change):
                item = machine.items[change.key]
                assert change.value is item.value
                assert change.key is item.key
    assert list(machine.items) == ["a", "b", "c"]


def test_a_machine_that_is_gone_is_not_kept_and_not_waited_for() -> None:
    """The one that was ahead may crash: the next one that starts takes its part."""
    siblings = Siblings()
    (ahead,) = machines(1, siblings)
    entries = sets("a1", "b2")
    ahead.apply(entries)
    del ahead
    assert not siblings.is_led
    assert siblings.find("a") is None
    (later,) = machines(1, siblings)
    later.apply(read_again(entries))
    assert siblings.find("a") is later.get("a")
