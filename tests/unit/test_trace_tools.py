"""What shows traces: filters, the timeline, sums, and the formats of viewers, judged by the viewers' own rules."""

import csv
import functools
import io
import json
import re
from collections import Counter, defaultdict
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.told import run_core, write_trace
from trio_kv.check.told.jury import Jury
from trio_kv.cli.main import main
from trio_kv.cli.trace.timeline import _Timeline
from trio_kv.raft.events import (
    ElectionStarted,
    EntriesAppended,
    LeaderElected,
    LeaderSteppedDown,
    LogTruncated,
)
from trio_kv.trace.export.mermaid import CHARACTERS_MAX, escape, export_mermaid
from trio_kv.trace.export.perfetto import export_perfetto
from trio_kv.trace.marks import TraceEnded
from trio_kv.trace.merge import merge_traces
from trio_kv.trace.reading import read_trace
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import (
    ClusterStarted,
    ControlCommanded,
    DiskSlowed,
    LinkFaulted,
    NodeCrashed,
    NodeResumed,
    NodeStarted,
    RebuildStarted,
    ServerStarted,
    SnapshotTaken,
)
from trio_kv.trace.words import describe

HUGE = (1 << 63) - 1


@functools.cache
def _run() -> tuple[Any, ...]:
    """A run with crashes, partitions and a rebuild."""
    records: list[Any] = run_core(8, "crash", "partition", "wipe")
    at = next(n for n, record in enumerate(records) if isinstance(record.event, NodeStarted))
    # Larger than a double holds exactly.
    records[at] = attrs.evolve(records[at], event=attrs.evolve(records[at].event, incarnation=HUGE))
    return tuple(records)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_trace(tmp_path / "run.jsonl", list(_run()))


def output(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["trace", *words]) == 0
    return capsys.readouterr().out


# show


@pytest.mark.parametrize(
    ("options", "is_it"),
    [
        (["--node", "2"], lambda line: line.get("node") == 2),
        (["--node", "n1, n3"], lambda line: line.get("node") in {1, 3}),
        (
            ["--event", "election.*,leader.elected"],
            lambda line: line["event"].startswith(("election.", "leader.elected")),
        ),
        (["--level", "info"], lambda line: line["level"] != "debug"),
        (["--seq", "10..40"], lambda line: 10 <= line["seq"] <= 40),
        (["--seq", "900.."], lambda line: line["seq"] >= 900),
        (["--time", "2..4.5"], lambda line: 2 <= line["mono"] <= 4.5),
        (["--grep", "HEARD no"], lambda line: "heard no" in json.dumps(line)),
        (
            ["--node", "1", "--level", "info", "--time", "..6"],
            lambda line: line.get("node") == 1 and line["level"] != "debug" and line["mono"] <= 6,
        ),
    ],
)
def test_filters_choose_events(
    options: list[str], is_it: object, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each filter chooses what it says, and together they choose what all do."""
    assert callable(is_it)
    lines = path.read_text().splitlines(keepends=True)
    chosen = [line for line in lines if is_it(json.loads(line))]
    assert 0 < len(chosen) < len(lines)
    assert output(capsys, "show", str(path), "-o", "json", *options) == "".join(chosen)
    assert len(output(capsys, "show", str(path), *options).splitlines()) == len(chosen)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--node", "two"], "--node: 'two'"),
        (["--event", "elections"], "no event is called 'elections'; there are those of"),
        (["--time", "9..3"], "it ends before it begins"),
        (["--seq", "a..b"], "a range is written as 3..10"),
        (["--level", "loud"], "--level"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(
    options: list[str], complaint: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what would be right."""
    assert main(["trace", "show", str(path), *options]) == 2
    assert complaint in capsys.readouterr().err


# timeline


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 250])
def test_a_timeline_fits_the_terminal(columns: int) -> None:
    """Side by side where there is room, and no line wider than it."""
    timeline = _Timeline(columns, is_colored=False)
    lines = []
    for record in _run():
        timeline.note(record)
        if isinstance(record.event, LeaderElected | ElectionStarted | NodeStarted):
            lines += list(timeline.lines(record))
    nodes = next(record.event.nodes for record in _run() if isinstance(record.event, ClusterStarted))
    is_wide = (columns - 10) // len(nodes) - 1 >= 18
    assert any(line.split() == ["s", *(f"n{node}" for node in nodes)] for line in lines) is is_wide
    if is_wide:
        assert max(map(len, lines)) <= columns
    assert sum("leads term" in line for line in lines) == sum(
        isinstance(r.event, LeaderElected) for r in _run()
    )


def test_a_timeline_shows_what_matters(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without colours where there are none, with them where they are wanted; for programs as JSON."""
    plain = output(capsys, "timeline", str(path))
    assert "leads term" in plain
    assert "\x1b" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[32mleads term" in output(capsys, "timeline", str(path))
    lines = [json.loads(line) for line in output(capsys, "timeline", str(path), "-o", "json").splitlines()]
    assert {"at_s", "node", "what"} == lines[0].keys()


# summary


def test_sums_are_those_of_the_events(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reigns, elections, starts and latencies are counted, and shown to people too."""
    found = json.loads(output(capsys, "summary", str(path), "-o", "json"))
    events = Counter(type(record.event) for record in _run())
    assert found["events"] == len(_run())
    assert len(found["reigns"]) == events[LeaderElected]
    assert sum(found["elections"].values()) == events[ElectionStarted]
    assert sum(found["starts"].values()) == events[NodeStarted]
    assert sum(sum(ends.values()) for ends in found["ends"].values()) == events[NodeCrashed]
    assert found["commits"]["count"] > 50
    assert 0 < found["commits"]["p50_ms"] <= found["commits"]["p100_ms"]
    assert len(found["slowest_syncs"]) == 5
    text = output(capsys, "summary", str(path))
    assert f"{len(_run()):,} events in " in text
    for part in (
        "leaders:",
        "elections:",
        "commits, ",
        "syncs, ",
        "slowest syncs:",
        "starts and ends of nodes:",
    ):
        assert part in text


# exports


def test_csv_has_a_row_an_event(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Digests are texts, also those of digits alone, and large numbers exact."""
    rows = list(csv.DictReader(io.StringIO(output(capsys, "export", str(path), "--format", "csv"))))
    assert len(rows) == len(_run())
    first = next(row for row in rows if row["event"] == "node.started")
    assert json.loads(first["members"])["incarnation"] == str(HUGE)
    applied = [json.loads(row["members"]) for row in rows if row["event"] == "entries.applied"]
    assert all(re.fullmatch("[0-9a-f]{8}", each["state_digest"]) for each in applied)


def check_shiviz(text: str) -> int:
    """Refuse what ShiViz's parser refuses; return how many events there are."""
    head, _, body = text.partition("\n\n")
    expression = head.replace("(?<", "(?P<")
    clocks: dict[str, int] = defaultdict(int)
    found = list(re.finditer(expression, body, re.MULTILINE))
    assert sum(len(each.group(0)) + 1 for each in found) == len(body)
    told = []
    for each in found:
        host, clock = each["host"], json.loads(each["clock"])
        clocks[host] += 1
        assert clock[host] == clocks[host], "a host's clock begins at 1 and has no gap"
        told.append((host, clock))
    for host, clock in told:
        for other, count in clock.items():
            assert 1 <= count <= clocks[other], f"{host} knows of an event of {other} that is not there"
    return len(told)


@pytest.mark.parametrize(
    "options", [[], ["--time", "3..6"], ["--event", "election.*,vote.*,leader.*"], ["--node", "1,2"]]
)
def test_shiviz_takes_its_log(options: list[str], path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clocks begin at 1 and have no gap, also those of a part of the trace."""
    assert check_shiviz(output(capsys, "export", str(path), "--format", "shiviz", *options)) > 5


def test_clocks_tell_who_knew_what(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A leader's clock has the votes that elected it."""
    options = ("--format", "shiviz", "--event", "election.*,vote.granted,leader.elected")
    body = output(capsys, "export", str(path), *options).partition("\n\n")[2]
    lines = body.splitlines()
    elected = [
        json.loads(lines[n - 1].split(" ", 1)[1]) for n, line in enumerate(lines) if "leads term" in line
    ]
    assert elected
    assert all(len(clock) >= 2 for clock in elected)


def check_perfetto(slots: list[dict[str, Any]]) -> Counter[str]:
    """Refuse what Perfetto's trace processor drops or never ends; return how many slots of each phase there are."""
    lanes: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    owners: dict[int, int] = {}
    open_roles: Counter[tuple[int, int]] = Counter()
    begun: dict[tuple[int, str, str], str] = {}
    flows: Counter[int] = Counter()
    for each in slots:
        pid, tid = each["pid"], each["tid"]
        if each["ph"] != "M":
            assert isinstance(each["ts"], int)
            assert owners.setdefault(tid, pid) == pid, "each node has lanes of its own"
        match each["ph"]:
            case "X":
                lanes[pid, tid].append((each["ts"], each["dur"]))
            case "B" | "E":
                open_roles[pid, tid] += 1 if each["ph"] == "B" else -1
                assert open_roles[pid, tid] in {0, 1}
            case "b":
                assert (
                    begun.setdefault((pid, each["cat"], each["id2"]["local"]), each["name"]) == each["name"]
                )
            case "e":
                # One that ends has to have the name of what began.
                assert begun.pop((pid, each["cat"], each["id2"]["local"])) == each["name"]
            case "s" | "f":
                assert (each["ts"], 1) in lanes[pid, tid]
                flows[each["id"]] += 1
            case _:
                pass
    for slices in lanes.values():
        slices.sort()
        for (first, first_us), (second, second_us) in pairwise(slices):
            assert second >= first + first_us or second + second_us <= first + first_us, "they overlap"
    assert set(flows.values()) <= {2}
    return Counter(each["ph"] for each in slots)


@pytest.mark.parametrize("options", [[], ["--time", "0..4"], ["--level", "info"]])
def test_perfetto_takes_its_slices(
    options: list[str], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slices nest, what is asynchronous ends, arrows join slices that are there, big numbers are texts."""
    found = json.loads(output(capsys, "export", str(path), "--format", "perfetto", *options))
    slots = found["traceEvents"]
    phases = check_perfetto(slots)
    assert phases["s"]
    assert phases["B"]
    assert "--level" in options or phases["e"] > phases["b"] / 2
    assert f'"{HUGE}"' in json.dumps(slots) or options
    assert (
        len({each["pid"] for each in slots if each["name" if "name" in each else "ph"] == "process_name"})
        >= 3
    )


def test_perfetto_shows_events_of_neighbouring_microseconds() -> None:
    """Times of today, a microsecond apart: the slices touch each other, and none of them overlap."""
    at_s = datetime(2026, 11, 30, 8, 27, 40, tzinfo=UTC).timestamp()
    records = [Record(at_s + n / 1e6, n / 1e6, n, SnapshotTaken(n, 1, 1), 1) for n in range(1, 200)]
    slots = json.loads("".join(export_perfetto(records, lambda _record: True)))["traceEvents"]
    assert check_perfetto(slots)["X"] == 199


@pytest.mark.parametrize(
    ("ends", "still_open"),
    [
        (NodeCrashed("a bug", False, None), set()),
        (NodeStarted(1, 1, 2), set()),
        (LogTruncated(2, 3), {1}),
        (LeaderSteppedDown("a newer term"), {1, 2}),
    ],
)
def test_perfetto_ends_what_comes_to_nothing(ends: Any, still_open: set[int]) -> None:
    """What a crash or another leader took is on its way to the disk no more, or does not wait to be committed."""
    records = [Record(1.0, 1.0, 1, ClusterStarted("c", (1, 2, 3), (1,)))]
    records += [
        Record(2.0, 2.0, 2, EntriesAppended(1, 1, 1, 0), 1, 1, "leader"),
        Record(3.0, 3.0, 3, EntriesAppended(2, 3, 1, 0), 1, 1, "leader"),
        Record(4.0, 4.0, 4, ends, 1, 2, "follower"),
    ]
    slots = json.loads("".join(export_perfetto(records, lambda _record: True)))["traceEvents"]
    check_perfetto(slots)
    ended = {(each["cat"], each["id2"]["local"]) for each in slots if each["ph"] == "e"}
    left = [each for each in slots if each["ph"] == "b" and (each["cat"], each["id2"]["local"]) not in ended]
    assert {each["args"]["first"] for each in left} == still_open
    assert all(each["cat"] == "disk" for each in left if isinstance(ends, LeaderSteppedDown))


def test_mermaid_is_cut_and_escaped() -> None:
    """It begins with who takes part, ends in time, says what was cut, and no text can end a line of it."""
    crash = NodeCrashed("#1; <b>\nend", True, None)
    nodes = ClusterStarted("c", (1, 2), (1, 2))
    records = [Record(0.0, 0.0, 1, nodes)]
    records += [Record(0.0, 0.0, seq, crash, 1) for seq in range(2, 3000)]
    text = "".join(export_mermaid(records, lambda _record: True))
    lines = text.splitlines()
    assert lines[:3] == ["sequenceDiagram", "    participant n1", "    participant n2"]
    assert lines[3] == "    Note over n1: crashed: #35;1#59; #60;b#62; end"
    assert len(text) < CHARACTERS_MAX + 200
    assert re.fullmatch(r"    Note over n1: [\d,]+ more events are left out here", lines[-1])
    assert escape("a;b") == "a#59;b"
    # Mermaid takes these for a formula, for settings and for a character, wherever they stand.
    assert escape("$$x$$ %%{init: {}}%% &lt;") == ("#36;#36;x#36;#36; #37;#37;{init: {}}#37;#37; #38;lt#59;")


def test_mermaid_draws_causes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A vote is an arrow from the candidate, an election one from each voter; both say who does it."""
    text = output(capsys, "export", str(path), "--format", "mermaid")
    assert re.search(r"^    n(\d)->>n(\d): n\2 votes for n\1 in term \d+$", text, re.MULTILINE)
    assert re.search(r"^    n\d->>n(\d): n\1 leads term \d+, elected by ", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (ControlCommanded("heal", ""), "asked for: heal"),
        (ControlCommanded("pause", "node=2"), "asked for: pause node=2"),
        (ServerStarted("127.0.0.1", 3001, 3002, 5, "/srv/data", 17, 2), "listens at 127.0.0.1:3001"),
        (RebuildStarted("/srv/data/node-2.replaced-de13"), "begins anew with an empty directory"),
        (NodeResumed(1.048182792), "goes on after 1.0 s"),
        (DiskSlowed(0.02), "each sync takes 20 ms longer"),
        (DiskSlowed(0.0), "the disk is as fast as before"),
        (LinkFaulted(0.1, 0.0, 30.0, 0.0), "messages 100 ms late, 30 % lost"),
        (
            LinkFaulted(0.0, 0.05, 10.0, 2.5, (1, 3)),
            "n1,n3: messages up to 50 ms later, 10 % lost, 2.5 % twice",
        ),
        (LinkFaulted(0.0, 0.0, 0.0, 0.0), "messages on time"),
    ],
)
def test_what_was_done_is_told_in_words(event: Any, words: str) -> None:
    """A drawing that is pasted into an issue says what was done, and not in which folder of whose machine."""
    assert describe(Record(0.0, 0.0, 1, event)) == words


def test_an_export_into_a_file(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there is left as it is, and one that did not come to its end is removed."""
    to = tmp_path / "run.csv"
    assert output(capsys, "export", str(path), "--format", "csv", "--to", str(to)) == ""
    assert to.read_bytes().count(b"\r\n") == len(_run()) + 1
    assert main(["trace", "export", str(path), "--format", "csv", "--to", str(to)]) == 2
    assert "is there already" in capsys.readouterr().err
    path.write_bytes(path.read_bytes() + b"noise\n")
    torn = tmp_path / "torn.csv"
    assert main(["trace", "export", str(path), "--format", "csv", "--to", str(torn)]) == 2
    assert not torn.exists()


# merge


def split(records: list[Any], skews_s: dict[int, float]) -> list[list[Any]]:
    """Return what each node would have told if it were a process of its own, with its own wrong clock."""
    traces = []
    for node, skew_s in skews_s.items():
        mine = [record for record in records if record.node == node]
        cluster = attrs.evolve(records[1].event, here=(node,))
        first = [records[0], attrs.evolve(records[1], event=cluster)]
        told = [*first, *mine, records[-1]]
        assert isinstance(told[-1].event, TraceEnded)
        traces.append(
            [attrs.evolve(record, seq=seq, time_s=record.time_s + skew_s) for seq, record in enumerate(told)]
        )
    return traces


def _as_written(record: Any) -> Any:
    time_s: Any = pytest.approx(record.time_s, abs=1e-5)
    return attrs.evolve(record, mono_s=round(record.mono_s, 6), time_s=time_s)


@pytest.mark.parametrize("skew_s", [0.0, 0.7, 3600.0])
def test_traces_of_processes_with_wrong_clocks_are_one_sound_trace(
    skew_s: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What caused something stands before it, whatever the clocks said; the judges find nothing missing."""
    records = list(_run())
    nodes = records[1].event.nodes
    traces = split(records, {node: (place - 1) * skew_s for place, node in enumerate(nodes)})
    paths = [str(write_trace(tmp_path / f"{n}.jsonl", trace)) for n, trace in enumerate(traces)]
    merged = tmp_path / "all.jsonl"
    assert output(capsys, "merge", *paths, "--to", str(merged)) == ""
    found = list(read_trace(merged))
    assert len(found) == sum(map(len, traces))
    for process, trace in enumerate(traces, start=1):
        assert [attrs.evolve(record, process=None) for record in found if record.process == process] == [
            attrs.evolve(
                record, mono_s=round(record.mono_s, 6), time_s=pytest.approx(record.time_s, abs=1e-5)
            )
            for record in trace
        ]
    assert main(["trace", "check", str(merged)]) == 0, capsys.readouterr().out


def test_a_process_that_was_killed_is_a_gap_in_a_merged_trace() -> None:
    """The others may have counted on what it told last, so nothing is proved, and nothing refuted."""
    records = list(_run())
    traces = split(records, dict.fromkeys(records[1].event.nodes, 0.0))
    cut = traces[1][: len(traces[1]) // 2]
    again = [attrs.evolve(each, seq=seq) for seq, each in enumerate(traces[1][:2])]
    jury = Jury()
    for record in merge_traces([traces[0], [*cut, *again], *traces[2:]]):
        jury.hear(record)
    jury.end()
    assert jury.doubts


def test_one_trace_is_merged_already(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says so."""
    assert main(["trace", "merge", str(path)]) == 2
    assert "merged already" in capsys.readouterr().err
