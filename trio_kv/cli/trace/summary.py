"""`trace summary`: who led and why no longer, elections, how long commits and syncs took, restarts, faults."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trio_kv.cli.output import Output, show_json
from trio_kv.cli.terminal import open_console
from trio_kv.cli.trace.feed import Feed, Finding
from trio_kv.cli.words import count
from trio_kv.trace.sums import Sums, ranks_ms
from trio_kv.trace.text import printable_lines

if TYPE_CHECKING:
    from rich.console import Console


def summarize(path: Path, output: Output) -> Finding:
    """Sum a trace up."""
    feed, sums = Feed(path), Sums()
    for record in feed:
        sums.take(record)
    if output == "json":
        show_json({"file": feed.name, **sums.members()})
    else:
        _show(open_console(sys.stdout), feed.name, sums)
    return Finding.SOUND


def _show(console: "Console", name: str, sums: Sums) -> None:
    for line in _lines(name, sums):
        console.print(printable_lines(line), markup=False, soft_wrap=True)


def _lines(name: str, sums: Sums) -> Iterator[str]:
    yield (
        f"{name}: {count(sums.events, 'event')} in {sums.lasted_s:.1f} s, {count(sums.runs, 'run')}"
        + (f", {count(sums.lost, 'event')} lost" if sums.lost else "")
    )
    yield f"committed up to {sums.committed:,}"
    yield from _section("leaders", sums.describe_reigns(), sums.reigns_left_out)
    yield from _section("elections", [f"{times}  {why}" for why, times in sums.elections.most_common()])
    for what, latencies in (
        ("commits, from the leader's log to a majority", sums.commits),
        ("syncs, all nodes", sums.syncs),
    ):
        if latencies.count:
            ranks = ", ".join(f"{name} {value_ms:.1f} ms" for name, value_ms in ranks_ms(latencies).items())
            yield f"{what}: {latencies.count:,}, {ranks}"
    yield from _section("slowest syncs", sums.describe_slowest())
    yield from _section("starts and ends of nodes", sums.describe_lives())
    yield from _section("faults and commands", sums.faults, sums.faults_left_out)


def _section(title: str, lines: Sequence[str], left_out: int = 0) -> Iterator[str]:
    if lines:
        yield f"{title}:"
        yield from (f"  {line}" for line in lines)
        if left_out:
            yield f"  and {left_out:,} more"
