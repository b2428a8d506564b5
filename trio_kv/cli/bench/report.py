"""What `bench` prints: a table, or one JSON object, and a histogram on demand."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from trio_kv import __version__
from trio_kv.cli.bench.answers import Answers
from trio_kv.cli.bench.figures import Figures, Tally
from trio_kv.cli.bench.histogram import PERCENTILES, RELATIVE_ERROR, Histogram
from trio_kv.cli.bench.options import BenchOptions
from trio_kv.cli.output import say, show_json
from trio_kv.cli.terminal import open_console

if TYPE_CHECKING:
    from rich.table import Table

BAR_CHARACTERS = 40
BUSY_SHARE = 0.9
"""A load that takes more of a processor than this measures itself."""


_PERCENTILES = tuple(f"p{percent:g}" for percent in PERCENTILES)
LAYOUTS: Final[Sequence[Sequence[str]]] = (
    ("operation", "count", "per second", *_PERCENTILES, "max ms", "errors"),
    ("operation", "count", "per second", "p50", "p99", "max ms", "errors"),
    ("operation", "per second", "p50", "p99", "errors"),
)
"""Columns, the widest layout first: the first one that fits is shown."""


def show(options: BenchOptions, figures: Figures, answers: Answers) -> None:
    """Print all that is known; what is wrong goes to stderr, in words."""
    if options.form == "json":
        show_json(to_json(options, figures, answers))
    else:
        _show_table(options, figures)
        if options.has_histogram:
            for name, tally in figures.tallies.items():
                print(f"\n{name}, latency in ms")
                for line in histogram_lines(tally.latencies):
                    print(line)
    for line in remarks(figures, answers):
        say(line)


def to_json(options: BenchOptions, figures: Figures, answers: Answers) -> dict[str, Any]:
    """Return the members of the report: the figures of all requests together, and of each operation."""
    done = sum(tally.done for tally in figures.tallies.values())
    seconds = figures.seconds
    return {
        "version": __version__,
        "connections": options.connections,
        "pipeline": options.pipeline,
        "rate": options.rate,
        "mix": options.mix,
        "stale": options.is_stale,
        "keys": options.keys,
        "distribution": options.distribution,
        "value_bytes": options.value_bytes,
        "seed": options.seed,
        "seconds": round(seconds, 3),
        "per_second": round(done / seconds, 1) if seconds else 0.0,
        **figures.latencies.to_json(),
        "errors": dict(sorted(figures.errors.items())),
        "operations": {name: tally.to_json(seconds) for name, tally in figures.tallies.items()},
        "wrong": answers.wrong,
        "longest_gap_ms": round(figures.longest_gap_ns / 1e6, 3),
        "not_sent": figures.not_sent * options.pipeline,
        "lost": dict(sorted(figures.lost.items())),
        "load_cpu": round(figures.cpu_seconds / seconds, 3) if seconds else 0.0,
        "latency_error": RELATIVE_ERROR,
    }


def _show_table(options: BenchOptions, figures: Figures) -> None:
    console = open_console(sys.stdout)
    rows = [_cells(name, tally, figures.seconds) for name, tally in figures.tallies.items()]
    tables = [_table(columns, rows) for columns in LAYOUTS]
    unlimited = console.options.update(max_width=sys.maxsize)
    fitting = (each for each in tables if console.measure(each, options=unlimited).maximum <= console.width)
    console.print(next(fitting, tables[-1]))
    loop = f"{options.rate:g}/s" if options.rate else "closed loop"
    print(
        f"{options.connections} connections x {options.pipeline}, {loop}, {options.keys:,} keys"
        f" ({options.distribution}), {options.value_bytes:,}-byte values, {figures.seconds:.1f} s;"
        f" latencies are exact to {RELATIVE_ERROR:.1%}"
    )


def _cells(name: str, tally: Tally, seconds: float) -> dict[str, str]:
    """Return what stands in each column of an operation's row."""
    latencies = tally.latencies
    return {
        "operation": name,
        "count": f"{tally.done:,}",
        "per second": f"{tally.done / seconds:,.0f}" if seconds else "-",
        **{f"p{percent:g}": f"{latencies.percentile_ms(percent):.2f}" for percent in PERCENTILES},
        "max ms": f"{latencies.percentile_ms(100.0):.2f}",
        "errors": ", ".join(f"{code} {times:,}" for code, times in tally.errors.most_common()) or "none",
    }


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(
            name, justify="left" if name in {"operation", "errors"} else "right", overflow="fold"
        )
    for cells in rows:
        table.add_row(*(cells[name] for name in columns))
    return table


def remarks(figures: Figures, answers: Answers) -> Iterator[str]:
    """Yield what a reader of the figures has to know, in words."""
    if answers.wrong:
        yield f"WRONG ANSWERS, {answers.wrong:,} times: no figure of this run means anything. Such as:"
        yield from answers.examples
    if figures.lost:
        lost = ", ".join(f"{reason} {times:,} times" for reason, times in figures.lost.most_common())
        yield f"connections were lost or refused: {lost}"
    if figures.gets.missing:
        yield f"{figures.gets.missing:,} GETs found no value, which is less work: --fill writes each key first"
    if figures.not_sent:
        yield f"{figures.not_sent:,} batches were due and not sent: the server is slower than the rate"
    if not figures.answered:
        yield "nothing was answered"
    if figures.seconds and figures.cpu_seconds / figures.seconds > BUSY_SHARE:
        yield "the load itself took all of a processor: the server may be faster than this"


def histogram_lines(histogram: Histogram) -> Iterator[str]:
    """Yield a line for each span of latencies: its bounds, a bar, its share, its count."""
    spans = list(histogram.spans())
    most = max((times for _, _, times in spans), default=1)
    for low_ms, above_ms, times in spans:
        bar = "#" * round(BAR_CHARACTERS * times / most)
        yield f"{low_ms:>8g} to {above_ms:<8g} {bar:<{BAR_CHARACTERS}} {times / histogram.count:7.2%} {times:>12,}"
