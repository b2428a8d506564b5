"""The trace: stamps, levels, sinks, files and what people see."""

import errno
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from trio_kv.raft.events import (
    DEBUG,
    INFO,
    ElectionStarted,
    EntriesCommitted,
    Event,
    LeaderElected,
    VoteRefused,
)
from trio_kv.trace import vocabulary
from trio_kv.trace.file import FileSink, TraceFormatError, encode_line, read_trace, start_record
from trio_kv.trace.log import console_log, json_log, render_console
from trio_kv.trace.memory import MemorySink
from trio_kv.trace.trace import Record, Trace, format_time, parse_time
from trio_kv.trace.vocabulary import (
    OFF,
    EntriesApplied,
    LinkCut,
    LinksPartitioned,
    NodeCrashed,
    NodeStarted,
    TraceEnded,
    TraceLost,
    TraceStarted,
    UnknownEvent,
    event_classes,
)

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
    assert not own & set(vocabulary.COMMON_MEMBERS)
    area, _, happening = name.partition(".")
    assert area.islower()
    assert happening.replace("_", "").islower()
    assert vocabulary.level_name(event_class.level) in {"debug", "info", "warning", "error"}
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


# --- the console --------------------------------------------------------------------------------------------


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


def test_color_marks_warnings_only_where_it_is_wanted() -> None:
    """Without a terminal there are no escape sequences; with one, a crash is yellow."""
    stream = io.StringIO()
    console_log(stream).write(record(CRASHED))
    assert "\x1b" not in stream.getvalue()
    assert "\x1b[33mnode.crashed\x1b[0m" in render_console(record(CRASHED), has_color=True)


def test_the_console_shows_its_level_and_up() -> None:
    """The console's default is INFO: through a trace, debug events never reach it."""
    stream = io.StringIO()
    trace = Trace([console_log(stream)])
    trace.emit(REFUSED, node=1)
    trace.emit(ELECTED, node=2, term=5, role="leader")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("n2@5   leader        leader.elected votes=1,2,4 first_index=17")


def test_json_lines_carry_what_trace_files_carry() -> None:
    """--log-json prints the very line that --trace writes, so that one analyser reads both."""
    stream = io.BytesIO()
    stamped = record(ELECTED, node=2, term=5, role="leader")
    json_log(stream).write(stamped)
    assert stream.getvalue() == encode_line(stamped)
    assert json.loads(stream.getvalue()) == {
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


def test_a_log_whose_reader_is_gone_falls_silent() -> None:
    """A broken pipe or a closed stream costs the line and nothing else."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    sink = console_log(Broken())
    sink.write(record(ELECTED))
    assert sink.lost == 1
    stream = io.BytesIO()
    closed = json_log(stream)
    stream.close()
    closed.write(record(ELECTED))
    assert closed.lost == 1


# --- files --------------------------------------------------------------------------------------------------


def open_file(path: Path, **options: object) -> FileSink:
    return FileSink(path, start_record("0.0", time_s=1.0, mono_s=1.0), **options)  # type: ignore[arg-type]


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
    with open_file(path) as sink:
        for stamped in records:
            sink.write(stamped)
    first, *middle, last = read_trace(path)
    assert first.event == TraceStarted(vocabulary.SCHEMA_VERSION, "0.0")
    assert middle == records
    assert last.event == TraceEnded(lost=0)
    assert sink.statistics().written == len(records) + 2
    sink.close()  # a second call does nothing


def test_what_the_file_is_too_slow_for_is_counted_and_told_in_its_place(tmp_path: Path) -> None:
    """With a full buffer events are dropped; the file says how many and which, and goes on afterwards."""
    path = tmp_path / "trace.jsonl"
    gate = threading.Event()
    sink = open_file(path, buffer_records_max=3, gather=gate.wait)
    records = [record(ELECTED, seq) for seq in range(1, 6)]
    for stamped in records:
        sink.write(stamped)  # the opening record and two more fill the buffer
    assert sink.statistics().lost == 3
    gate.set()
    sink.close()
    _, first, second, lost, ended = read_trace(path)
    assert [first, second] == records[:2]
    assert lost.event == TraceLost(count=3, first=3, last=5)
    assert ended.event == TraceEnded(lost=3)


def test_a_file_that_can_not_be_written_ends_the_trace_and_not_the_store(tmp_path: Path) -> None:
    """A write error is reported once; all that follows is counted as lost, and nothing raises."""
    failures: list[OSError] = []
    has_failed = threading.Event()

    def on_failed(error: OSError) -> None:
        failures.append(error)
        has_failed.set()

    sink = FileSink(Path("/dev/full"), start_record("0.0", time_s=1.0, mono_s=1.0), on_failed=on_failed)
    assert has_failed.wait(10)
    sink.write(record(ELECTED, 1))
    sink.close()
    statistics = sink.statistics()
    assert [error.errno for error in failures] == [errno.ENOSPC]
    assert statistics.failure is failures[0]
    assert (statistics.written, statistics.lost) == (0, 2)


def write_lines(path: Path, *lines: bytes) -> Path:
    start = encode_line(start_record("0.0", time_s=1.0, mono_s=1.0))
    path.write_bytes(start + b"".join(lines))
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
        (b"{}\n", "no member 'event'"),
        (b"[]\n", "Expected `object`"),
        (b"noise\n", "malformed"),
        (b'{"event":"link.cut","nodes":["a"]}\n', "Expected"),
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
