"""What is counted, and how it is told to Prometheus, in documents and by the tools of Prometheus themselves."""

import json
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as open_metrics_parser
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from tests.doubles import MemorySink
from tests.looks import door, look, member, server
from trio_kv.control import seen
from trio_kv.control.http import Request
from trio_kv.control.metrics import encode, make_registry
from trio_kv.kv.operations import Get, Set
from trio_kv.kv.reply import Reply
from trio_kv.meter.histogram import DURATIONS_S, Histogram
from trio_kv.proxy.meter import RequestMeter
from trio_kv.raft.events import LeaderSteppedDown
from trio_kv.replica.commit_times import CommitTimes
from trio_kv.trace.lines import LineSink, LineWriter, lost_record
from trio_kv.trace.trace import Trace
from trio_kv.wire.client_sessions import Numbered
from trio_kv.wire.node_status import State
from trio_kv.wire.requests import parse_line

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "docs/alerts.yml"
ALERT_TESTS = ROOT / "tests/prometheus/alerts_test.yml"
DASHBOARD = ROOT / "docs/grafana/trio_kv.json"
PAGE = ROOT / "docs/metrics.md"
OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"

read_open_metrics: Callable[[str], Iterator[Metric]] = open_metrics_parser.text_string_to_metric_families
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus"
)


def check_by_promtool(*words: str | Path, text: str = "") -> str:
    """Let promtool judge; return what it says of what is wrong."""
    done = subprocess.run(
        ["promtool", *map(str, words)], input=text, capture_output=True, text=True, timeout=120, check=False
    )
    return "" if done.returncode == 0 and not done.stderr else done.stdout + done.stderr


# --- counting -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 1000))))
def test_a_histogram_has_each_in_its_bucket(noted: list[tuple[float, int]]) -> None:
    """Its cumulative counts are those of all that was noted, at or below each bound, and its sum is theirs."""
    histogram = Histogram()
    for value, count in noted:
        histogram.note(value, count)
    for bound, count in histogram.cumulative():
        assert count == sum(many for value, many in noted if value <= bound)
    assert histogram.cumulative()[-1][0] == float("inf")
    assert histogram.total == pytest.approx(sum(value * many for value, many in noted))


def test_a_copy_stands_still() -> None:
    """What is noted after a copy was taken is not in it."""
    histogram = Histogram()
    histogram.note(0.003)
    twin = histogram.copy()
    histogram.note(0.003, 5)
    assert (sum(twin.counts), sum(histogram.counts)) == (1, 6)
    assert twin.total == pytest.approx(0.003)


def test_bounds_are_written_short() -> None:
    """A bound is told as people write it, and not with what doubling makes of its last digit."""
    assert [str(bound) for bound in DURATIONS_S[:4]] == ["0.0001", "0.0002", "0.0004", "0.0008"]
    assert all(len(str(bound)) <= 6 for bound in DURATIONS_S)
    assert DURATIONS_S[-1] == 6.5536


def asked(line: str) -> Any:
    return parse_line(line.encode()).operation


def test_requests_are_counted_by_their_operation() -> None:
    """A run counts each of its requests once, by name; one that a client numbers has the name of what it does."""
    meter = RequestMeter()
    write, read = Set("a", b"1"), Get("a")  # type: ignore[arg-type]
    numbered = asked('{"op":"delete","key":"a","session":"1-a","seq":1}')
    assert isinstance(numbered, Numbered)
    meter.note_run([write], [Reply("ok")], 0.001)
    meter.note_run([write] * 7, [Reply("ok")] * 7, 0.002)
    meter.note_run(
        [read, write, read, numbered], [Reply("missing"), Reply("ok"), Reply("ok"), Reply("timeout")], 0.5
    )
    meter.note_run([numbered], [Reply("missing")], 0.1)
    counts = {name: sum(histogram.counts) for name, histogram in meter.durations.items()}
    assert counts == {"set": 9, "get": 2, "delete": 2}
    assert meter.errors == {"missing": 2, "timeout": 1}
    assert meter.durations["set"].total == pytest.approx(0.001 + 7 * 0.002 + 0.5)


class FakeRaft:
    def __init__(self) -> None:
        self.term, self.commit, self.log = 1, 0, SimpleNamespace(last_index=0)

    def look(self, times: CommitTimes, now: float, last: int, commit: int, term: int = 1) -> None:
        self.term, self.commit, self.log.last_index = term, commit, last
        times.note(now, self)  # type: ignore[arg-type]


def test_commits_are_timed_by_groups() -> None:
    """What was appended together has one time, from its pass to the one in which all of it is committed."""
    times, raft = CommitTimes(), FakeRaft()
    raft.look(times, 10.0, last=5, commit=4)  # the no-op of the term; what is before it came from others
    raft.look(times, 10.1, last=8, commit=4)
    raft.look(times, 10.3, last=8, commit=7)  # the no-op, and a part of the group
    assert sum(times.durations.counts) == 1
    assert times.durations.total == pytest.approx(0.3)
    raft.look(times, 10.6, last=8, commit=8)
    assert sum(times.durations.counts) == 4
    assert times.durations.total == pytest.approx(0.3 + 3 * 0.5)


def test_what_a_later_term_commits_is_not_timed() -> None:
    """Entries that were on their way when the node lost its lead may have been committed by others, at any time."""
    times, raft = CommitTimes(), FakeRaft()
    raft.look(times, 1.0, last=1, commit=0)
    raft.look(times, 99.0, last=2, commit=2, term=3)
    assert times.durations.total == 0
    assert times._groups == deque()


# --- telling ------------------------------------------------------------------------------------------------


def registry(**members: Any) -> CollectorRegistry:
    return make_registry(server(look(), **members))


async def tell(accept: str = "", known: CollectorRegistry | None = None) -> tuple[str, str]:
    """Return content type and text of a scrape."""
    response = await encode(known or registry(), accept)
    assert response.status == 200
    return response.content_type, response.body.decode()


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
        (OPEN_METRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ],
)
async def test_the_scraper_chooses_the_format(accept: str, content_type: str) -> None:
    """The content type is that of what follows."""
    told, text = await tell(accept)
    assert told.startswith(content_type)
    assert text.endswith("# EOF\n") == told.startswith("application/openmetrics-text")
    assert text.count("# EOF") == text.endswith("# EOF\n")


@pytest.mark.parametrize("version", ["abc", "1.é", "1.0.0.0.0", ";"])
async def test_a_wish_that_nobody_can_fulfil(version: str) -> None:
    """Where prometheus_client makes a TypeError of the header (0.26 does), the scraper gets what everybody can read."""
    told, text = await tell(f"application/openmetrics-text; version={version}")
    assert told.startswith(("text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0"))
    assert "trio_kv_node_up" in text


class _Once(Collector):
    """What a registry has collected, so that it can be written down twice."""

    def __init__(self, known: CollectorRegistry) -> None:
        self.metrics = list(known.collect())

    def collect(self) -> Iterator[Metric]:
        yield from self.metrics


async def test_a_page_in_pieces_is_the_page() -> None:
    """Written down metric by metric, with turns for others between, it is what prometheus_client writes in one go."""
    once: Any = _Once(registry())
    assert (await encode(once, "")).body == generate_latest(once)


async def test_both_formats_say_the_same() -> None:
    """Each is read by the parser of its own, and holds the same samples."""

    def samples(families: Any) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        return {
            (sample.name, tuple(sorted(sample.labels.items())))
            for family in families
            for sample in family.samples
        }

    known = registry()
    text = samples(parse_text((await tell("", known))[1]))
    assert text == samples(read_open_metrics((await tell(OPEN_METRICS, known))[1]))
    assert len(text) > 300


async def test_no_series_is_told_twice() -> None:
    """Prometheus keeps one of several samples with the same labels, and says nothing: so there are none."""
    sink = LineSink(LineWriter(lambda: 2, lambda _: b"", lost_record, name="log"), 20)
    trace = Trace([sink, LineSink(sink.writer, 10), MemorySink()])
    trace.emit(LeaderSteppedDown("x"))
    text = (await tell(known=registry(trace=trace)))[1]
    sink.writer.begin_close()
    assert sink.writer.wait_closed(5)
    names = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(names) == len(set(names))
    assert 'trio_kv_trace_lost_lines_total{sink="log"} 0.0' in text
    assert "trio_kv_trace_events_total 1.0" in text


async def test_each_series_of_a_node_names_it() -> None:
    """What nodes have each of themselves is told of each, with its number; the rest is told once."""
    text = (await tell())[1]
    for family in parse_text(text):
        of_nodes = re.match(r"trio_kv_(server|raft|kv|disk|node|network_peer)_", family.name)
        for sample in family.samples:
            assert ("node" in sample.labels) == bool(of_nodes), sample


async def test_a_node_that_is_down_has_no_figures() -> None:
    """It is told that it is down; what it last said of itself is not told as if it still were so."""
    known = make_registry(server(look(member(3, None, State.DAMAGED))))
    text = (await tell(known=known))[1]
    assert 'trio_kv_node_up{node="3"} 0.0' in text
    assert 'trio_kv_node_state{node="3",state="damaged"} 1.0' in text
    assert 'trio_kv_node_state{node="3",state="up"} 0.0' in text
    assert 'trio_kv_raft_term{node="3"}' not in text
    assert 'trio_kv_raft_term{node="2"} 3.0' in text


async def test_what_takes_long_to_load_is_loaded_when_it_is_asked_for() -> None:
    """The path answers with metrics, and has a registry of its own."""
    routes = seen.routes(server(look(), door(connection_count=41)))
    response = await routes["/metrics"].handler(Request({}, {"accept": OPEN_METRICS}))
    assert b"trio_kv_client_connections 41.0\n" in response.body
    assert b'trio_kv_build_info{version="1.2.3"} 1.0\n' in response.body
    assert b"process_cpu_seconds_total" in response.body


# --- what is said about it ------------------------------------------------------------------------------------


def told_families() -> dict[str, Metric]:
    return {family.name: family for family in registry().collect()}


def full_name(family: Metric) -> str:
    return family.name + ("_total" if family.type == "counter" else "")


def test_the_page_names_all_metrics() -> None:
    """docs/metrics.md has each metric of ours with its type and its labels, and none that does not exist."""
    rows = re.findall(r"^\| `(trio_kv_\w+)` \| (\w+) \|([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    told = {
        full_name(family): (
            family.type,
            sorted({label for sample in family.samples for label in sample.labels if label != "le"}),
        )
        for family in told_families().values()
        if family.name.startswith("trio_kv_")
    }
    shown = {name: (kind, sorted(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    shown["trio_kv_trace_lost_lines_total"] = ("counter", [])  # nobody writes lines here
    assert shown == told


def names_of_samples() -> set[str]:
    names = {"up"}
    for family in told_families().values():
        names.add(full_name(family))
        if family.type == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
    return names


def metrics_in(expression: str) -> set[str]:
    """Return the metrics that an expression names."""
    without_strings = re.sub(r'"[^"]*"', "", expression)
    return set(re.findall(r"\b(?:trio_kv|process|python)_\w+", without_strings))


def alert_rules() -> list[tuple[str, str]]:
    """Return the alerts with their expressions."""
    rules = re.findall(r"- alert: (\w+)\n\s+expr: (\|\n(?:\s{10}.*\n)+|.*\n)", ALERTS.read_text())
    assert len(rules) == ALERTS.read_text().count("- alert:")
    return [(name, expression.removeprefix("|")) for name, expression in rules]


def test_alerts_ask_for_what_there_is() -> None:
    """An alert on a metric that nobody tells would be silent for ever."""
    assert alert_rules()
    for name, expression in alert_rules():
        assert metrics_in(expression) <= names_of_samples(), name


def test_each_alert_is_tested() -> None:
    """For each alert there is a test in which it is silent, and one in which it fires."""
    text = ALERT_TESTS.read_text()
    for name, _ in alert_rules():
        assert re.search(rf"alertname: {name}, exp_alerts: \[\]", text), name
        assert re.search(rf"alertname: {name}\n\s+exp_alerts:\n\s+- exp_labels", text), name


@promtool
def test_promtool_has_nothing_against_the_alerts() -> None:
    """Prometheus itself reads them, and they fire when they should."""
    assert check_by_promtool("check", "rules", ALERTS) == ""
    assert "FAILED" not in check_by_promtool("test", "rules", ALERT_TESTS)


@promtool
async def test_promtool_has_nothing_against_the_metrics() -> None:
    """Names, types and helps are as Prometheus wants them."""
    assert check_by_promtool("check", "metrics", text=(await tell())[1]) == ""


# --- the dashboard of Grafana -----------------------------------------------------------------------------------


def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text())


def expressions() -> list[tuple[str, str]]:
    """Return what the dashboard asks for, with the title of the panel; variables have values."""
    board = dashboard()
    found = [
        (panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", ())
    ]
    found += [(each["name"], each["expr"]) for each in board["annotations"]["list"]]
    values = {"$__rate_interval": "5m", "$__interval": "1m", "$job": ".*", "$instance": ".*", "$node": ".*"}
    for name, value in values.items():
        found = [(title, expression.replace(name, value)) for title, expression in found]
    assert not [title for title, expression in found if "$" in expression]
    return found


def test_the_dashboard_asks_for_what_there_is() -> None:
    """A panel on a metric that nobody tells would be empty; and each metric of ours is on some panel."""
    asked_for = {name for _, expression in expressions() for name in metrics_in(expression)}
    assert asked_for <= names_of_samples()
    ours = {name for name in told_families() if name.startswith("trio_kv_")}
    assert not [name for name in ours if not any(each.startswith(name) for each in asked_for)]


def test_the_dashboard_is_laid_out() -> None:
    """Panels have numbers of their own, lie in the 24 columns of Grafana, and none lies on another."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"]


def test_the_dashboard_takes_its_source_from_a_variable() -> None:
    """Whoever imports it has a Prometheus of another name: each panel asks the one that is chosen."""
    board = dashboard()
    assert (
        board["templating"]["list"][0] | {"type": "datasource", "query": "prometheus"}
        == board["templating"]["list"][0]
    )
    sources = re.findall(r'"uid": "([^"]*)"', DASHBOARD.read_text())
    assert set(sources) == {"${datasource}", board["uid"]}


@promtool
def test_prometheus_can_read_what_the_dashboard_asks(tmp_path: Path) -> None:
    """Each expression is one, and of the kind that can be evaluated: as a recording rule Prometheus takes it."""
    rules = [
        {"record": f"panel:number:{number}", "expr": expression}
        for number, (_, expression) in enumerate(expressions())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    assert check_by_promtool("check", "rules", path) == ""
