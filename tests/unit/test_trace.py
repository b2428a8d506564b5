"""The trace: stamps, levels, sinks, files and what people see."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.doubles import MemorySink
from trio_kv.raft.events import (
    DEBUG,
    INFO,
    ElectionStarted,
    EntriesCommitted,
    Event,
    LeaderElected,
    VoteRefused,
)
from trio_kv.trace import schema
from trio_kv.trace.file import encode_line, start_record, trace_file
from trio_kv.trace.lines import LineSink, close_writers
from trio_kv.trace.log import console_log, json_log, render_console
from trio_kv.trace.marks import TraceEnded, TraceLost, TraceStarted, UnknownEvent
from trio_kv.trace.reading import TraceFormatError, read_trace
from trio_kv.trace.schema import OFF, event_classes
from trio_kv.trace.trace import Record, Trace, format_time, parse_time
from trio_kv.trace.vocabulary import (
    EntriesApplied,
    LinkCut,
    LinksPartitioned,
    NodeCrashed,
    NodeStarted,
    ServerStarted,
)

WAIT_S = 30.0

ELECTED = LeaderElected(votes=(1, 2, 4), first_index=17)
REFUSED = VoteRefused(candidate=3, is_pre_vote=True, reason="a leader is alive")
CRASHED = NodeCrashed(reason="asked to", is_injected=True, restart_in_s=1.0)


def make_trace(*sinks: MemorySink) -> Trace:
    walls = iter(range(1_700_000_000, 1_700_001_000))
    monos = iter(range(100, 1100))
    return Trace(sinks, wall_s=lambda: float(next(walls)), mono_s=lambda: float(next(monos)))


def record(
    event: Event, seq: int = 1, *, node: int | None = None, term: int | None = None, role: str | None = None
) -> Record:
    return Record(1_700_000_000.25, 12.5, seq, event, node, term, role)


def test_each_event_is_stamped_with_time_seq_and_who_tells_it() -> None:
    """Records carry both clocks, a count from 1, and the node, term and role they were told with."""
    sink = MemorySink()
    trace = make_trace(sink)
    trace.emit(ELECTED, node=2, term=5, role="leader")
    trace.emit(CRASHED, node=1)
    assert sink.records == [
        Record(1_700_000_000.0, 100.0, 1, ELECTED, 2, 5, "leader"),
        Record(1_700_000_001.0, 101.0, 2, CRASHED, 1, None, None),
    ]


def test_the_level_of_a_trace_is_the_lowest_that_a_sink_wants() -> None:
    """Callers can skip making an event by one comparison: the level follows sinks that come and go."""
    trace = make_trace()
    assert trace.level == OFF
    everything, people = MemorySink(DEBUG), MemorySink(INFO)
    trace.add_sink(people)
    assert trace.level == INFO
    trace.add_sink(everything)
    assert trace.level == DEBUG
    trace.remove_sink(everything)
    assert trace.level == INFO
    with pytest.raises(ValueError, match="not in this trace"):
        trace.remove_sink(everything)


def test_a_sink_gets_its_level_and_up() -> None:
    """An event below a sink's level does not reach it; one that nobody wants takes no seq."""
    everything, people = MemorySink(DEBUG), MemorySink(INFO)
    trace = make_trace(everything, people)
    trace.emit(REFUSED, node=1)
    trace.emit(ELECTED, node=2)
    assert everything.events(VoteRefused) == [REFUSED]
    assert people.events(VoteRefused) == []
    assert people.events(LeaderElected) == [ELECTED]
    trace.remove_sink(everything)
    trace.emit(REFUSED, node=1)
    trace.emit(ELECTED, node=2)
    assert [record.seq for record in people.records] == [2, 3]


@pytest.mark.parametrize("name", sorted(event_classes()))
def test_no_event_hides_a_common_member(name: str) -> None:
    """An event's own members never collide with those the trace adds, and its name is area.past_tense."""
    event_class = event_classes()[name]
    own = {attribute.name for attribute in attrs.fields(event_class)}
    assert not own & set(schema.COMMON_MEMBERS)
    area, _, happening = name.partition(".")
    assert area.islower()
    assert happening.replace("_", "").islower()
    assert schema.level_name(event_class.level) in {"debug", "info", "warning", "error"}
    assert event_class.__doc__


def test_core_and_surroundings_share_one_vocabulary() -> None:
    """The registry by name, which readers use, knows the core's events and all others."""
    assert event_classes()["leader.elected"] is LeaderElected
    assert event_classes()["node.crashed"] is NodeCrashed
    assert len(event_classes()) > 40


def test_times_are_utc_with_microseconds_and_come_back() -> None:
    """A time survives the trip through text to the microsecond."""
    assert format_time(1_700_000_000.25) == "2023-11-14T22:13:20.250000Z"
    assert parse_time("2023-11-14T22:13:20.250000Z") == 1_700_000_000.25


@given(st.floats(0, 4e9))
@example(1_700_000_000.9999997)
@example(1_700_000_000.0000005)
@example(0.9999995)
def test_times_are_written_as_the_standard_library_does(time_s: float) -> None:
    """A second is made a text once for all its events; what comes of it, rounded at its ends too, is the same."""
    text = datetime.fromtimestamp(time_s, UTC).isoformat(timespec="microseconds")
    assert format_time(time_s) == text.replace("+00:00", "Z")


# --- the console --------------------------------------------------------------------------------------------


class Pipe:
    """What a log writes into."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def log(self, log: LineSink, *records: Record) -> bytes:
        """Write records, and return what came of all that was written so far."""
        for stamped in records:
            log.write(stamped)
        assert close_writers(log.writer, wait_s=WAIT_S)
        return os.read(self.reader, 1 << 16)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.reader)
    os.close(pipe.writer)


@pytest.fixture
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_utc")
@pytest.mark.parametrize(
    ("stamped", "line"),
    [
        (
            record(ELECTED, node=2, term=5, role="leader"),
            "22:13:20.250 n2@5   leader        leader.elected votes=1,2,4 first_index=17",
        ),
        (
            record(REFUSED, node=4, term=12, role="follower"),
            (
                "22:13:20.250 n4@12  follower      vote.refused candidate=3 is_pre_vote=yes "
                'reason="a leader is alive"'
            ),
        ),
        (
            record(EntriesApplied(1, 4, 2, 0xBEEF, 0xC0FFEE), node=1, term=2),
            (
                "22:13:20.250 n1@2                 entries.applied first=1 last=4 last_term=2 "
                "entries_digest=0000beef state_digest=00c0ffee"
            ),
        ),
        (record(LinkCut((1, 2))), "22:13:20.250                      link.cut nodes=1,2"),
        (
            record(LinksPartitioned(((1, 2), (3, 4, 5)))),
            "22:13:20.250                      link.partitioned groups=1,2/3,4,5",
        ),
        (
            record(NodeCrashed("KeyError", is_injected=False, restart_in_s=None, traceback="a\nb\n"), node=3),
            "22:13:20.250 n3                   node.crashed reason=KeyError is_injected=no\n    a\n    b",
        ),
    ],
    ids=lambda value: value.event.name if isinstance(value, Record) else "",
)
def test_people_read_short_aligned_lines(stamped: Record, line: str) -> None:
    """A console line: local time, node@term, role, event, members; digests in hex, texts quoted if needed."""
    assert render_console(stamped) == line


def test_a_text_of_another_can_not_speak_to_the_terminal() -> None:
    """Control characters are escaped and long texts cut, so that a log line stays one line of plain text."""
    line = render_console(record(ElectionStarted(reason="\x1b[2Jgone\n" + "x" * 500)))
    assert "\x1b" not in line
    assert "\n" not in line
    assert len(line) < 300
    assert line.endswith('x…"')


def test_color_marks_warnings_only_where_it_is_wanted(pipe: Pipe) -> None:
    """Without a terminal there are no escape sequences; with one, a crash is yellow."""
    assert b"\x1b" not in pipe.log(console_log(pipe.writer), record(CRASHED))
    assert "\x1b[33mnode.crashed\x1b[0m" in render_console(record(CRASHED), has_color=True)


def test_the_console_shows_its_level_and_up(pipe: Pipe) -> None:
    """The console's default is INFO: through a trace, debug events never reach it."""
    log = console_log(pipe.writer)
    trace = Trace([log])
    trace.emit(REFUSED, node=1)
    trace.emit(ELECTED, node=2, term=5, role="leader")
    lines = pipe.log(log).splitlines()
    assert len(lines) == 1
    assert lines[0].endswith(b"n2@5   leader        leader.elected votes=1,2,4 first_index=17")


def test_json_lines_carry_what_trace_files_carry(pipe: Pipe) -> None:
    """--log-json prints the very line that --trace writes, so that one analyser reads both."""
    stamped = record(ELECTED, node=2, term=5, role="leader")
    line = pipe.log(json_log(pipe.writer), stamped)
    assert line == encode_line(stamped)
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250000Z",
        "mono": 12.5,
        "seq": 1,
        "level": "info",
        "event": "leader.elected",
        "node": 2,
        "term": 5,
        "role": "leader",
        "votes": [1, 2, 4],
        "first_index": 17,
    }


def test_a_name_that_is_not_utf_8_is_logged_as_an_escape(pipe: Pipe) -> None:
    """A byte of a file name that is no text costs neither the line nor its JSON, and readers of traces take it."""
    started = ServerStarted("::1", 1, 2, 3, "caf\udce9", 4, leader=None)
    line = pipe.log(json_log(pipe.writer), record(started))
    assert json.loads(line)["data_dir"] == r"caf\udce9"


def test_what_the_encoding_of_a_terminal_lacks_is_shown_escaped(pipe: Pipe) -> None:
    """With LC_ALL=C, a log line has escapes and is whole."""
    text = pipe.log(console_log(pipe.writer, encoding="ascii"), record(ElectionStarted(reason="žluť")))
    assert text.endswith(rb"election.started reason=\u017elu\u0165" + b"\n")


# --- files --------------------------------------------------------------------------------------------------


START = start_record("0.0", time_s=1.0, mono_s=1.0)


@contextlib.contextmanager
def trace_into(path: Path, **options: Any) -> Iterator[LineSink]:
    """Open a trace file; at the end of the block it is whole."""
    sink = trace_file(path, START, **options)
    yield sink
    assert close_writers(sink.writer, wait_s=WAIT_S)


def events(path: Path) -> list[Event]:
    return [stamped.event for stamped in read_trace(path)]


STARTED = TraceStarted(schema.SCHEMA_VERSION, "0.0")


def test_a_trace_file_comes_back_as_the_records_that_went_in(tmp_path: Path) -> None:
    """All levels are kept, framed by trace.started and trace.ended, and the reader returns equal records."""
    path = tmp_path / "trace.jsonl"
    records = [
        record(ELECTED, 1, node=2, term=5, role="leader"),
        record(REFUSED, 2, node=1, term=5, role="follower"),
        record(EntriesCommitted(1, 3, 5, 99), 3, node=2),
        record(CRASHED, 4, node=2),
        record(NodeStarted(1, 3, 2**63 - 1), 5, node=2),
        record(LinkCut((1, 2)), 6),
        record(LinksPartitioned(((1, 2), (3, 4, 5))), 7),
    ]
    with trace_into(path) as sink:
        for stamped in records:
            sink.write(stamped)
    first, *middle, last = read_trace(path)
    assert first.event == STARTED
    assert middle == records
    assert last.event == TraceEnded(lost=0)
    assert sink.writer.statistics().written == len(records) + 2


def test_what_the_file_is_too_slow_for_is_counted_and_told_in_its_place(tmp_path: Path) -> None:
    """With a full buffer events are dropped; the file says how many and which, and goes on afterwards."""
    path = tmp_path / "trace.jsonl"
    gate = threading.Event()
    with trace_into(path, lines_max=3, gather=lambda _: gate.wait()) as sink:
        records = [record(ELECTED, seq) for seq in range(1, 6)]
        for stamped in records:
            sink.write(stamped)  # the opening record and two more fill the buffer
        assert sink.writer.statistics().lost == 3
        gate.set()
    _, first, second, lost, ended = read_trace(path)
    assert [first, second] == records[:2]
    assert lost.event == TraceLost(count=3, first=3, last=5)
    assert ended.event == TraceEnded(lost=3)


def test_a_restart_goes_on_in_the_trace_of_the_run_that_crashed(tmp_path: Path) -> None:
    """Runs stand one after the other, and half a line of the one that was killed is cut off."""
    path = tmp_path / "trace.jsonl"
    half = encode_line(record(REFUSED))[:-9]
    write_lines(path, encode_line(record(ELECTED)), half)
    with trace_into(path) as sink:
        sink.write(record(CRASHED))
    assert events(path) == [STARTED, ELECTED, STARTED, CRASHED, TraceEnded(0)]


@pytest.mark.parametrize("left", [b"", encode_line(START)[:20], b"\0" * 5000], ids=["empty", "torn", "zeros"])
def test_what_a_killed_run_left_of_its_first_line_is_no_hindrance(tmp_path: Path, left: bytes) -> None:
    """Killed at its very beginning, or by a power failure: the next run begins the file."""
    path = tmp_path / "trace.jsonl"
    path.write_bytes(left)
    with trace_into(path):
        pass
    assert events(path) == [STARTED, TraceEnded(0)]


@pytest.mark.parametrize(
    "content",
    [b"a letter", b"a letter\n", b'{"some": "json"}\n', encode_line(record(ELECTED)), b'{"a":1}' * 9999],
)
def test_a_file_that_is_no_trace_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    """A mistyped --trace costs nobody a file."""
    path = tmp_path / "letter"
    path.write_bytes(content)
    with pytest.raises(TraceFormatError, match=f"{path}(:1: the first line is | holds something else)"):
        trace_file(path, START)
    assert path.read_bytes() == content


def test_two_processes_do_not_write_into_one_trace(tmp_path: Path) -> None:
    """Lines of two stores in one file would make no sense, and one would cut off what the other writes."""
    path = tmp_path / "trace.jsonl"
    with trace_into(path), pytest.raises(BlockingIOError, match="Another process"):
        trace_file(path, START)
    with trace_into(path):
        pass
    assert events(path) == [STARTED, TraceEnded(0)] * 2


def test_a_named_pipe_is_written_once_somebody_reads_it(tmp_path: Path) -> None:
    """Opening it waits for nobody; whoever comes reads it from the beginning."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with trace_into(path) as sink:
        sink.write(record(ELECTED))
        reader = path.open("rb")
    with reader:
        names = [json.loads(line)["event"] for line in reader]
    assert names == ["trace.started", "leader.elected", "trace.ended"]


def test_a_named_pipe_that_nobody_reads_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """Neither the opening nor the closing wait for a reader."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    sink = trace_file(path, START)
    assert not close_writers(sink.writer, wait_s=0.01)
    with path.open("rb"):  # let the thread go
        assert sink.writer.wait_closed(WAIT_S)


def write_lines(path: Path, *lines: bytes) -> Path:
    path.write_bytes(encode_line(START) + b"".join(lines))
    return path


def test_the_torn_last_line_of_a_killed_process_is_passed_over(tmp_path: Path) -> None:
    r"""What lacks its \n was cut short by a kill; the records before it are read."""
    whole = encode_line(record(ELECTED))
    path = write_lines(tmp_path / "trace.jsonl", whole, whole[:-9])
    assert [stamped.event for stamped in read_trace(path)][1:] == [ELECTED]


def test_an_event_of_a_newer_version_is_kept(tmp_path: Path) -> None:
    """An unknown name comes back with its members; the common ones are read as ever."""
    line = encode_line(record(ELECTED, 7, node=3)).replace(b"leader.elected", b"leader.praised")
    [stamped] = list(read_trace(write_lines(tmp_path / "trace.jsonl", line)))[1:]
    assert stamped.event == UnknownEvent("leader.praised", {"votes": [1, 2, 4], "first_index": 17})
    assert (stamped.seq, stamped.node) == (7, 3)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{}\n", "missing required field `time`"),
        (b"[]\n", "Expected `object`"),
        (b"noise\n", "malformed"),
        (
            b'{"time":"2026-01-01T00:00:00Z","mono":1,"seq":1,"event":"link.cut","nodes":["a"]}\n',
            "Expected `int`",
        ),
        (b'{"event":"link.cut","nodes":[1,2],"time":"noon","mono":1,"seq":1}\n', "noon"),
    ],
)
def test_a_line_that_is_no_record_is_refused_by_its_number(
    tmp_path: Path, line: bytes, complaint: str
) -> None:
    """The reader never skips what it can't read: it names file, line and reason."""
    path = write_lines(tmp_path / "trace.jsonl", line)
    with pytest.raises(TraceFormatError, match=complaint) as caught:
        list(read_trace(path))
    assert f"{path}:2" in str(caught.value)


def test_a_file_of_another_kind_or_schema_is_refused(tmp_path: Path) -> None:
    """A reader that would misread says so at once."""
    path = tmp_path / "trace.jsonl"
    path.write_bytes(encode_line(record(ELECTED)))
    with pytest.raises(TraceFormatError, match=r"first line is leader\.elected"):
        list(read_trace(path))
    path.write_bytes(encode_line(attrs.evolve(record(ELECTED), event=TraceStarted(99, "9.0"))))
    with pytest.raises(TraceFormatError, match="schema 99"):
        list(read_trace(path))
    with pytest.raises(TraceFormatError, match="schema 99"):
        trace_file(path, START)
    path.write_bytes(encode_line(START) + path.read_bytes())
    with pytest.raises(TraceFormatError, match=":2: has schema 99"):
        list(read_trace(path))
