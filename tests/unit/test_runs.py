"""Packed entries: the same list as before, in less memory, and shared where the bytes are the same."""

import gc
from random import Random

import pytest
from msgspec import Raw

from trio_kv.kv.commands import Write, decode_command
from trio_kv.kv.operations import Set
from trio_kv.raft.entry import UNREAD, Entry, decode_entries, make_entry
from trio_kv.raft.log import Log
from trio_kv.raft.runs import JOINED_BYTES_MAX, RUN_ENTRIES, Entries, SharedReader, SharedRuns


def entry(index: int, term: int = 1, text: str = "x") -> Entry:
    """Return an entry that gives a key a value."""
    return make_entry(index, term, index, Write(1, index, 1, Set(f"k{index}", Raw(f'"{text}"'.encode()))))


def entries_to(last: int, first: int = 1) -> list[Entry]:
    """Return entries up to an index, of a new term each 100."""
    return [entry(index, 1 + index // 100) for index in range(first, last + 1)]


@pytest.fixture
def shared() -> SharedRuns:
    """Return the runs of one process."""
    return SharedRuns(decode_command)


@pytest.mark.parametrize("seed", range(30))
def test_entries_are_a_list_whatever_is_packed(shared: SharedRuns, seed: int) -> None:
    """Packing changes nothing that can be asked: content, slices, sizes, terms, the time of the last one."""
    random = Random(seed)
    first = random.choice([1, 2, RUN_ENTRIES, RUN_ENTRIES + 1, 1000])
    plain: list[Entry] = []
    packed = Entries(shared=shared)
    for _ in range(40):
        match random.choice("aaaappcd"):
            case "a":
                start = first + len(plain)
                new = entries_to(start + random.randrange(300), start)
                plain += new
                packed.extend(new)
            case "p":
                packed.pack(random.randrange(len(plain) + 1))
            case "c":
                count = random.randrange(max(0, len(plain) - 400), len(plain) + 1)
                del plain[count:]
                packed.cut(count)
            case _:
                count = random.randrange(min(600, len(plain)) + 1)
                first += count
                del plain[:count]
                packed.drop(count)
        begin, end = sorted(random.randrange(len(plain) + 1) for _ in range(2))
        assert len(packed) == len(plain)
        assert packed[begin:end] == plain[begin:end]
        assert packed.size_bytes(begin, end) == sum(len(each.encoded) for each in plain[begin:end])
        if plain:
            assert packed[begin - 1] == plain[begin - 1]
            assert packed.last_time_us == plain[-1].time_us
        assert terms_of(packed) == [(each.index, each.term) for each in plain if is_first(each, plain)]
    assert packed == plain
    assert packed.copy() == plain
    assert list(packed) == plain


def is_first(entry: Entry, entries: list[Entry]) -> bool:
    """Return whether the one before an entry is of another term."""
    return entry is entries[0] or entries[entry.index - entries[0].index - 1].term != entry.term


def terms_of(entries: Entries) -> list[tuple[int, int]]:
    """Return index and term of the first entry of each term."""
    found: list[tuple[int, int]] = []
    for index, term in entries.terms():
        if not found or found[-1][1] != term:
            found.append((index, term))
    return found


def test_a_log_of_packed_entries_answers_as_before(shared: SharedRuns) -> None:
    """Terms, compaction and batches of a log don't depend on what is packed."""
    entries = entries_to(1000)
    plain, packed = Log(entries), Log(Entries(entries, shared))
    packed.pack(900)
    assert [packed.term_at(index) for index in range(1002)] == [plain.term_at(index) for index in range(1002)]
    batch, size_bytes = plain.batch(5, 700, 20_000)
    assert packed.batch(5, 700, 20_000) == (batch, size_bytes)
    assert size_bytes == plain.size_bytes(5, 4 + len(batch)) <= 20_000 < plain.size_bytes(5, 5 + len(batch))
    assert plain.batch(5, 700, 1) == (plain.slice(5, 5), plain.size_bytes(5, 5)), "one goes in any case"
    for log in (plain, packed):
        log.compact(300)
    assert (packed.base_term, packed.base_time_us) == (plain.base_term, plain.base_time_us)
    assert packed.slice(301, 1000) == plain.slice(301, 1000)
    assert packed.size_bytes(0, 1000) == plain.size_bytes(0, 1000)


def test_logs_of_a_process_share_their_runs(shared: SharedRuns) -> None:
    """Entries with the same bytes are in memory once, packed by whichever log comes first."""
    logs = [Entries(entries_to(600), shared) for _ in range(3)]
    for log in logs:
        log.pack(600)
    runs = [log._runs for log in logs]
    assert len(runs[0]) == 2
    assert all(other[place] is runs[0][place] for other in runs for place in range(2))


def test_a_run_that_differs_in_one_entry_is_not_shared(shared: SharedRuns) -> None:
    """A log keeps what it held, whatever others hold at the same place."""
    other = entries_to(300)
    other[100] = entry(101, other[100].term, "y")
    logs = [Entries(each, shared) for each in (entries_to(300), other)]
    for log in logs:
        log.pack(300)
    assert logs[0]._runs[0] is not logs[1]._runs[0]
    assert logs[1][100] == other[100] != logs[0][100]


def test_a_run_goes_with_the_last_log_that_holds_it(shared: SharedRuns) -> None:
    """What is known of runs keeps none of them in memory."""
    log = Entries(entries_to(256), shared)
    log.pack(256)
    assert shared.find(1) is log._runs[0]
    log.drop(256)
    gc.collect()
    assert shared.find(1) is None


def test_large_entries_stay_as_they_are(shared: SharedRuns) -> None:
    """A run that is too large to be copied holds its entries themselves."""
    large = [entry(index, 1, "x" * (1 + JOINED_BYTES_MAX // RUN_ENTRIES)) for index in range(1, 257)]
    log = Entries(large, shared)
    log.pack(256)
    assert log[7] is large[7]


def test_entries_that_are_known_are_not_decoded_again(shared: SharedRuns) -> None:
    """The second log of a process is compared with the first one; what is the same is taken as read."""
    entries = entries_to(600)
    data = b"".join(each.encoded for each in entries)
    first = Entries(decode_entries(data, SharedReader(shared)), shared)
    first.pack(600)
    again = list(decode_entries(data, SharedReader(shared)))
    assert [each.command is UNREAD for each in again] == [True] * 512 + [False] * 88
    second = Entries(again[:400], shared)
    second.pack(400)
    second.end_reading()
    assert second._runs[0] is first._runs[0]
    assert [each.command for each in second] == [each.command for each in entries[:400]]


def test_an_entry_that_differs_is_decoded_and_so_found_unreadable(shared: SharedRuns) -> None:
    """Only the very bytes that could be read are taken as read: a log that can't be read is still refused."""
    entries = entries_to(300)
    first = Entries(entries, shared)
    first.pack(300)
    data = bytearray(b"".join(each.encoded for each in entries))
    place = data.index(b'"set"', 5000)
    data[place : place + 5] = b'"sit"'
    with pytest.raises(ValueError, match="sit"):
        list(decode_entries(bytes(data), SharedReader(shared)))


def test_entries_cut_out_of_a_run_can_be_read(shared: SharedRuns) -> None:
    """What a truncation leaves of a run that was taken as read has its commands."""
    entries = entries_to(600)
    data = b"".join(each.encoded for each in entries)
    first = Entries(entries, shared)
    first.pack(600)
    second = Entries(decode_entries(data, SharedReader(shared)), shared)
    second.pack(512)
    second.cut(300)
    second.end_reading()
    assert [each.command for each in second] == [each.command for each in entries[:300]]


def test_logs_share_the_entries_that_are_not_packed_yet(shared: SharedRuns) -> None:
    """What another log holds unpacked is decoded once: where the bytes are the same it is the same entry."""
    entries = entries_to(600)
    first = Entries(entries, shared)
    first.pack(300)
    first.end_reading()
    other = entries.copy()
    other[400] = entry(401, other[400].term, "y")
    second = list(decode_entries(b"".join(each.encoded for each in other), SharedReader(shared)))
    assert [each is entries[place] for place, each in enumerate(second)] == (
        [False] * 256 + [True] * 144 + [False] + [True] * 199
    )
    assert second[400].command == other[400].command
    shared.forget_read()
    again = list(decode_entries(entries[-1].encoded, SharedReader(shared)))
    assert again[0] is entries[-1]


def test_a_log_that_is_gone_is_shared_with_nobody(shared: SharedRuns) -> None:
    """What nodes share keeps no entry in memory once a load is over."""
    entries = entries_to(10)
    log = Entries(entries, shared)
    log.end_reading()
    SharedReader(shared)
    assert shared.unpacked == entries
    shared.forget_read()
    del log
    SharedReader(shared)
    assert shared.unpacked == []


def test_what_a_snapshot_covers_is_not_decoded(shared: SharedRuns) -> None:
    """Nobody will ask for it; it is decoded if somebody does."""
    entries = entries_to(300)
    data = b"".join(each.encoded for each in entries)
    reader = SharedReader(shared)
    reader.covered_index = 280
    log = Entries(decode_entries(data, reader), shared)
    assert [each.command is UNREAD for each in log] == [True] * 280 + [False] * 20
    log.pack(280)
    log.end_reading()
    assert [each.command for each in log] == [each.command for each in entries]
