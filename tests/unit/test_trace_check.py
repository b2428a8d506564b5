"""`trace check`: a right run is sound, an altered trace says what broke and where, and a gap is no violation."""

import functools
import gzip
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import crc32c
import pytest

from tests.told import run_core, write_trace
from trio_kv.check.told.broken import Broken
from trio_kv.check.told.contents import join_crc
from trio_kv.check.told.jury import Jury
from trio_kv.cli.main import main
from trio_kv.raft.events import (
    ElectionStarted,
    EntriesAppended,
    EntriesCommitted,
    EntriesStored,
    Event,
    LeaderElected,
    TermAdvanced,
    VoteGranted,
)
from trio_kv.trace.marks import TraceEnded, TraceLost
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import ClusterStarted, EntriesApplied, NodeCrashed, NodeStarted, WritesAnswered

SEED, KINDS = 14, ("crash", "partition", "wipe")


@functools.cache
def _run() -> tuple[Any, ...]:
    """A run with crashes, partitions and a node that lost its disk."""
    return tuple(run_core(SEED, *KINDS))


@pytest.fixture
def run() -> list[Any]:
    return list(_run())


def judge(records: list[Any]) -> Broken | None:
    """Return what the judges find, with the record as they name it."""
    jury = Jury()
    try:
        for record in records:
            jury.hear(record)
    except Broken as broken:
        return broken
    jury.end()
    assert not jury.doubts
    return None


def find(records: list[Any], kind: type[Event], is_it: Callable[[Any], bool] = bool) -> int:
    """Return the place of an event in the middle of a trace."""
    places = [n for n, record in enumerate(records) if isinstance(record.event, kind) and is_it(record)]
    return places[len(places) // 2]


def change(records: list[Any], at: int, **members: object) -> int:
    """Alter an event of a trace; return where."""
    records[at] = attrs.evolve(records[at], event=attrs.evolve(records[at].event, **members))
    return at


def test_a_run_with_crashes_and_partitions_is_sound(run: list[Any]) -> None:
    """What simulated nodes tell through crashes, partitions and a rebuild proves the run right."""
    events = [type(record.event) for record in run]
    assert events.count(NodeStarted) > 10
    assert events.count(LeaderElected) > 3
    assert WritesAnswered in events
    assert judge(run) is None


# Ten ways to alter it, each with the property that it breaks. Each returns where it breaks.


def two_leaders(records: list[Any]) -> int:
    at = find(records, LeaderElected)
    other = records[at].node % 3 + 1
    records.insert(at + 1, attrs.evolve(records[at], node=other))
    return at + 1


def too_few_votes(records: list[Any]) -> int:
    at = find(records, LeaderElected)
    return change(records, at, votes=(records[at].node,))


def a_vote_for_somebody_else(records: list[Any]) -> int:
    elected = find(records, LeaderElected)
    term, leader = records[elected].term, records[elected].node
    voter = next(voter for voter in records[elected].event.votes if voter != leader)

    def is_that_vote(record: Any) -> bool:
        return (record.term, record.node) == (term, voter)

    change(
        records,
        find(records, VoteGranted, is_that_vote),
        candidate=voter % 3 + 1 if voter % 3 + 1 != leader else voter,
    )
    return elected


def other_contents(records: list[Any]) -> int:
    return change(records, _follower_appends(records), crc=4711)


def another_term_in_a_log(records: list[Any]) -> int:
    at = _follower_appends(records)
    return change(records, at, last_term=records[at].event.last_term - 1)


def a_commit_that_no_majority_has(records: list[Any]) -> int:
    at = find(
        records, EntriesCommitted, lambda record: record.role == "leader" and _is_quiet(records, record)
    )
    index = records[at].event.last
    for n, record in enumerate(records[:at]):
        if (
            isinstance(record.event, EntriesStored)
            and record.event.last >= index
            and record.node != records[at].node
        ):
            change(records, n, last=index - 1)
    return at


def a_commit_beyond_the_log(records: list[Any]) -> int:
    at = find(records, EntriesCommitted, lambda record: record.role == "leader")
    return change(records, at, last=records[at].event.last + 1000)


def a_commit_that_goes_back(records: list[Any]) -> int:
    # The same entries are committed twice.
    at = find(records, EntriesCommitted, lambda record: record.role == "follower")
    records.insert(at + 1, records[at])
    return at + 1


def a_follower_that_commits_by_itself(records: list[Any]) -> int:
    commits: dict[int, int] = {}
    for at, record in enumerate(records):
        if not isinstance(record.event, EntriesCommitted):
            continue
        index = record.event.last
        holders = {
            each.node
            for each in records[max(0, at - 40) : at]
            if isinstance(each.event, EntriesAppended)
            and each.event.last >= index
            and each.role == "follower"
            and commits.get(each.node) == record.event.first - 1
        }
        if at > len(records) // 3 and record.role == "leader" and holders:
            # As if one of them had known it before the leader did.
            records.insert(at, attrs.evolve(record, node=min(holders), role="follower"))
            return at
        commits[record.node] = index
    raise AssertionError


def another_state(records: list[Any]) -> int:
    seen: set[int] = set()
    for n, record in enumerate(records):
        if n > len(records) // 2 and isinstance(record.event, EntriesApplied):
            if record.event.last in seen:
                return change(records, n, state_digest=record.event.state_digest ^ 1)
            seen.add(record.event.last)
    raise AssertionError


def an_entry_applied_twice(records: list[Any]) -> int:
    at = find(records, EntriesApplied)
    return change(records, at, first=records[at].event.first - 1)


def a_term_that_goes_back(records: list[Any]) -> int:
    at = find(records, EntriesAppended, lambda record: record.role == "follower")
    records[at] = attrs.evolve(records[at], term=records[at].term - 1)
    return at


def an_answer_before_it_is_applied(records: list[Any]) -> int:
    at = find(records, WritesAnswered)
    return change(records, at, last=records[at].event.last + 1)


def a_log_that_is_shorter_after_a_restart(records: list[Any]) -> int:
    def begins_last_term(event: Any) -> int:
        return int(max(event.log_first, event.log_terms[-1][0]))

    def has_log(record: Any) -> bool:
        """Tell whether the disk had said before that it has more than will be left."""
        event, stored = record.event, 0
        for each in records[: record.seq]:
            if each.node == record.node and isinstance(each.event, EntriesStored):
                stored = each.event.last
        is_there = event.log_terms and not event.is_rebuilding
        return bool(is_there) and begins_last_term(event) < stored <= event.log_last

    at = find(records, NodeStarted, has_log)
    return change(records, at, log_last=begins_last_term(records[at].event))


def _follower_appends(records: list[Any]) -> int:
    """Return where a follower appends what the leader of its term appended in it."""
    ends = {
        (record.term, record.event.last)
        for record in records
        if isinstance(record.event, EntriesAppended) and record.role == "leader"
    }

    def is_it(record: Any) -> bool:
        event = record.event
        is_alike = {(event.last_term, event.first - 1), (event.last_term, event.last)} <= ends
        return record.role == "follower" and is_alike and event.first > 3

    return find(records, EntriesAppended, is_it)


def _is_quiet(records: list[Any], record: Any) -> bool:
    """Return whether an entry stood in the logs of three nodes when it was committed, and a snapshot in none."""
    at = records.index(record)
    starts = [n for n, each in enumerate(records[:at]) if isinstance(each.event, NodeStarted)]
    appended = [
        each
        for each in records[starts[-1] : at]
        if isinstance(each.event, EntriesStored) and each.event.last >= record.event.last
    ]
    return len({each.node for each in appended}) > 1


ALTERATIONS = [
    (two_leaders, "election safety"),
    (too_few_votes, "election safety"),
    (a_vote_for_somebody_else, "election safety"),
    (other_contents, "log matching"),
    (another_term_in_a_log, "log matching"),
    (a_commit_that_no_majority_has, "durable on a majority"),
    (a_commit_beyond_the_log, "monotonic commit"),
    (a_commit_that_goes_back, "monotonic commit"),
    (a_follower_that_commits_by_itself, "commit rule"),
    (another_state, "state-machine safety"),
    (an_entry_applied_twice, "monotonic applied"),
    (an_answer_before_it_is_applied, "monotonic applied"),
    (a_term_that_goes_back, "monotonic term"),
    (a_log_that_is_shorter_after_a_restart, "durable log"),
]


@pytest.mark.parametrize(("alter", "broken"), ALTERATIONS, ids=[alter.__name__ for alter, _ in ALTERATIONS])
def test_an_altered_trace_says_which_property_broke_and_where(
    alter: Callable[[list[Any]], int],
    broken: str,
    run: list[Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first event that can't be is named by its line, and what led to it is told."""
    at = alter(run)
    # Whoever alters a trace with care counts its events anew.
    altered = [run[0], *(attrs.evolve(record, seq=seq) for seq, record in enumerate(run[1:], start=1))]
    path = write_trace(tmp_path / "altered.jsonl", altered)
    assert main(["trace", "check", str(path), "-o", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["property"], found["line"]) == ("violated", broken, at + 1), found[
        "words"
    ]
    assert found["event"]["seq"] == altered[at].seq
    assert main(["trace", "check", str(path)]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{path}: violated: {broken}\n  line {at + 1:,}: ")
    assert "what led to it:" in out


# What is missing makes it unknown, and never violated.


def verdict(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object]]:
    code = main(["trace", "check", str(path), "-o", "json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_trace_that_lost_events_is_unknown(
    share: float, run: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever a buffer overflowed, what is left refutes nothing and proves nothing; the doubt says what is missing."""
    begin, end = int(share * len(run)), int(share * len(run)) + 40
    lost = TraceLost(end - begin, run[begin].seq, run[end - 1].seq)
    told = attrs.evolve(run[end - 1], event=lost, node=None, term=None, role=None)
    path = write_trace(tmp_path / "lost.jsonl", [*run[:begin], told, *run[end:]])
    code, found = verdict(path, capsys)
    assert (code, found["verdict"]) == (2, "unknown")
    assert found["doubts"] == [f"40 events were lost: {lost.first} to {lost.last}"]


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.8])
def test_lines_that_were_cut_out_are_missed(
    share: float, run: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also without a word of it in the trace: events are counted."""
    begin = int(share * len(run))
    path = write_trace(tmp_path / "cut.jsonl", [*run[:begin], *run[begin + 7 :]])
    code, found = verdict(path, capsys)
    assert (code, found["verdict"]) == (2, "unknown")
    assert found["doubts"] == [
        f"event {run[begin + 7].seq}: {run[begin].seq} to {run[begin + 6].seq} are missing"
    ]


def test_two_leaders_are_two_leaders_whatever_was_lost_between_them(run: list[Any]) -> None:
    """What the cluster once did stays true over a gap."""
    at = two_leaders(run)
    other = run.pop(at)
    jury = Jury()
    for record in run:
        jury.hear(record)
    gap = TraceLost(5, other.seq + 100_000, other.seq + 100_004)
    jury.hear(attrs.evolve(other, event=gap, node=None, term=None, role=None))
    with pytest.raises(Broken, match="has two leaders"):
        jury.hear(attrs.evolve(other, seq=other.seq + 100_005))


@pytest.mark.parametrize("share", [0.05, 0.35, 0.65, 0.95])
def test_a_run_that_was_killed_is_sound_as_far_as_it_told(
    share: float, run: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A last line that is torn is passed over, and that there is no end is said."""
    end = int(share * len(run))
    path = write_trace(tmp_path / "killed.jsonl", run[:end])
    with path.open("ab") as file:
        file.write(b'{"time":"2026-')
    code, found = verdict(path, capsys)
    assert (code, found["verdict"], found["is_torn"], found["killed"]) == (0, "sound", True, 1)


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_a_file_holds_run_after_run(share: float, run: list[Any]) -> None:
    """A restart of the whole store goes on with the same cluster, another one begins anew."""
    other = attrs.evolve(run[1].event, cluster="another")
    again = [run[0], attrs.evolve(run[1], event=other), *run[2:]]
    assert judge([*run[: int(share * len(run))], *again]) is None


@pytest.mark.parametrize("cut", [0, 3, 25])
def test_a_cluster_that_was_killed_and_went_on_is_sound(cut: int) -> None:
    """The last that a killed process told never reached the file: the next run knows more than it did."""
    records = run_core(5, "crash_all")
    downs = [n for n, record in enumerate(records) if isinstance(record.event, NodeStarted)]
    first = {records[n].node for n in downs}
    # Where all nodes start again, one after the other with nothing between, the process might have been killed.
    again = next(
        n
        for n in downs[len(first) :]
        if {record.node for record in records[n:] if record.node} == first and _all_start(records[n:], first)
    )
    second = [attrs.evolve(record, seq=seq) for seq, record in enumerate(records[again:-1], start=2)]
    cluster = attrs.evolve(records[1], seq=1)
    end = attrs.evolve(records[-1], seq=second[-1].seq + 1)
    assert judge([*records[: again - cut], records[0], cluster, *second, end]) is None


def _all_start(records: list[Any], nodes: set[int | None]) -> bool:
    """Return whether each of these nodes starts before it tells anything else."""
    firsts: dict[int | None, type[Event]] = {}
    for record in records:
        firsts.setdefault(record.node, type(record.event))
    return all(firsts.get(node) is NodeStarted for node in nodes)


def test_a_trace_without_its_beginning_is_unknown(
    run: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The end of a file refutes nothing."""
    code, found = verdict(write_trace(tmp_path / "tail.jsonl", run[len(run) // 2 :]), capsys)
    assert (code, found["verdict"]) == (2, "unknown")


def test_a_trace_of_one_process_of_several_is_unknown(run: list[Any]) -> None:
    """What the nodes of another process stored can't be known."""
    records = [record for record in run if record.node != 2]
    here = tuple(node for node in run[1].event.nodes if node != 2)
    change(records, 1, here=here)
    records = [
        records[0],
        *(attrs.evolve(record, seq=seq) for seq, record in enumerate(records[1:], start=1)),
    ]
    jury = Jury()
    for record in records:
        jury.hear(record)
    jury.end()
    assert jury.doubts == ["what the nodes 2 told is not in it: `trace merge` joins the traces of processes"]


# What it reads.


def test_it_reads_packed_files_and_stdin(
    run: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gzip is known by its first bytes, whatever the file is called."""
    path = write_trace(tmp_path / "run", run)
    plain = path.read_bytes()
    path.write_bytes(gzip.compress(plain))
    assert verdict(path, capsys)[0] == 0
    path.write_bytes(gzip.compress(plain)[:-20])
    assert main(["trace", "check", str(path)]) == 2
    assert "its end is missing" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(plain))))
    assert main(["trace", "check", "-"]) == 0
    assert capsys.readouterr().out.startswith("stdin: sound\n")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file or directory"),
        (b"a letter\n", "this is no trace: "),
        (
            b'{"time":"2026-01-01T00:00:00Z","mono":0.0,"seq":0,"event":"trace.started","schema":9,"version":"9"}\n',
            "schema 9",
        ),
    ],
)
def test_what_is_no_trace_is_refused(
    content: bytes | None, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says why, and where."""
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    assert main(["trace", "check", str(path)]) == 2
    assert complaint in capsys.readouterr().err


def test_an_empty_trace_proves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No event, no proof."""
    (tmp_path / "empty").write_bytes(b"")
    assert verdict(tmp_path / "empty", capsys)[1]["doubts"] == ["there are no events in it"]


def test_checksums_of_neighbours_are_joined() -> None:
    """The CRC of two texts one behind the other comes of theirs."""
    texts = [b"", b"a", b"snack" * 99, bytes(range(256)) * 40]
    for first in texts:
        for second in texts:
            joined = join_crc(crc32c.crc32c(first), crc32c.crc32c(second), len(second))
            assert joined == crc32c.crc32c(first + second)


# Rules that no edit of a line shows.


def tell(*events: tuple[Event, int | None, int | None, str | None]) -> Iterator[Record]:
    """Tell events of (event, node, term, role)."""
    for seq, (event, node, term, role) in enumerate(events, start=1):
        yield Record(float(seq), float(seq), seq, event, node, term, role)


def test_a_leader_that_lacks_a_committed_entry_is_found() -> None:
    """Leader completeness (paper §5.4.3): the log with which a leader begins holds what was committed before."""
    three = (1, 2, 3)
    story = [
        (ClusterStarted("c", three, three), None, None, None),
        *((NodeStarted(1, 0, node), node, 0, None) for node in three),
        (TermAdvanced(0), 1, 1, "follower"),
        (ElectionStarted("heard no leader"), 1, 1, "candidate"),
        (VoteGranted(1), 2, 1, "follower"),
        (LeaderElected((1, 2), 1), 1, 1, "leader"),
        (EntriesAppended(1, 1, 1, 7, 28), 1, 1, "leader"),
        (EntriesStored(1), 1, 1, "leader"),
        (EntriesAppended(1, 1, 1, 7, 28), 2, 1, "follower"),
        (EntriesStored(1), 2, 1, "follower"),
        (EntriesCommitted(1, 1, 1, 7, 28), 1, 1, "leader"),
        (NodeCrashed("asked to crash", True, 1.0), 2, 1, None),
    ]
    forgetful = [
        # It comes back without what it had stored, and nobody compares: the disk that it gave it to is said to be new.
        (NodeStarted(1, 0, 99), 2, 1, None),
        (ElectionStarted("heard no leader"), 3, 2, "candidate"),
        (VoteGranted(3), 2, 2, "follower"),
        (LeaderElected((2, 3), 1), 3, 2, "leader"),
    ]
    broken = judge(list(tell(*story, *forgetful)))
    assert broken is not None
    assert (broken.name, broken.index, broken.term) == ("leader completeness", 1, 2)
    assert [type(record.event) for record in broken.chain if record.node == 3][-1] is ElectionStarted
    assert EntriesCommitted in [type(record.event) for record in broken.chain]


def test_a_restart_that_ends_nothing_is_told_by_its_events() -> None:
    """A trace of nothing but an orderly start and end is sound."""
    records = [*tell((ClusterStarted("c", (1,), (1,)), None, None, None), (NodeStarted(1, 0, 1), 1, 0, None))]
    end = Record(9.0, 9.0, 3, TraceEnded(0))
    assert judge([*records, end]) is None
