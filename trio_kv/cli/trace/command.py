"""The commands of `trace` and their options. What they do stands in the modules beside this one."""

from pathlib import Path
from typing import Annotated

from cyclopts import App

from trio_kv.cli.parsing import OutputOption, option
from trio_kv.cli.trace.feed import Finding
from trio_kv.cli.trace.selection import DEFAULT_SELECTION, Format, Selection
from trio_kv.cli.words import examples

EXIT_CODES = (
    "Exit codes: 0 sound, or done · 1 violated · 2 unknown (something is missing, or it is no trace), also usage"
    " · 70 an unexpected error · 74 sound, but the output could not be written · 130 interrupted."
)

app = App(
    name="trace",
    help="Read what `serve --trace FILE` wrote: was the run right, what happened, and why.",
    help_format="plaintext",
    help_epilogue=examples(
        "trio-kv serve --trace run.jsonl",
        "trio-kv trace check run.jsonl",
        "trio-kv trace timeline run.jsonl",
        "trio-kv trace summary run.jsonl.gz --output json",
        "zcat old.jsonl.gz | trio-kv trace check -",
        more=EXIT_CODES,
    ),
)

TraceFile = Annotated[Path, option("A trace, packed by gzip or not; - for stdin.")]
To = Annotated[Path | None, option("A new file; without it, stdout.")]


@app.command(
    help_epilogue=examples(
        "trio-kv trace check run.jsonl",
        "trio-kv trace check run.jsonl --output json | jq .verdict",
        more=EXIT_CODES,
    )
)
def check(file: TraceFile, /, *, output: OutputOption = "text") -> Finding:
    """Prove or refute from the events alone that the run was right: leaders, logs, commits, states, durability.

    It names the first event that can't be, and what led to it. A trace that lost events proves nothing: unknown.
    """
    from trio_kv.cli.trace.check import check as run

    return run(file, output)


@app.command(
    help_epilogue=examples(
        "trio-kv trace summary run.jsonl",
        "trio-kv trace summary run.jsonl --output json | jq .commits",
    )
)
def summary(file: TraceFile, /, *, output: OutputOption = "text") -> Finding:
    """Sum it up: who led and why no longer, elections, how long commits and syncs took, restarts, faults."""
    from trio_kv.cli.trace.summary import summarize

    return summarize(file, output)


@app.command(
    help_epilogue=examples(
        "trio-kv trace timeline run.jsonl",
        "trio-kv trace timeline run.jsonl --time 3..10 --level debug",
    )
)
def timeline(
    file: TraceFile, /, *, selection: Selection = DEFAULT_SELECTION, output: OutputOption = "text"
) -> Finding:
    """Show what happened to each node, side by side: events of level info and above, unless asked for more."""
    from trio_kv.cli.trace.timeline import show_timeline

    return show_timeline(file, selection, output)


@app.command(
    help_epilogue=examples(
        "trio-kv trace show run.jsonl --node 2 --event 'election.*,vote.*,leader.*'",
        "trio-kv trace show run.jsonl --seq 17200..17250",
        "trio-kv trace show run.jsonl --level warning --output json | jq .reason",
    )
)
def show(
    file: TraceFile, /, *, selection: Selection = DEFAULT_SELECTION, output: OutputOption = "text"
) -> Finding:
    """Print events, all or those that are asked for: as the console shows them, or as they stand in the file."""
    from trio_kv.cli.trace.show import show_events

    return show_events(file, selection, output)


@app.command(
    help_epilogue=examples(
        "trio-kv trace export run.jsonl --format perfetto --to run.json     # for ui.perfetto.dev",
        "trio-kv trace export run.jsonl --format mermaid --time 3..10 | less",
        "trio-kv trace export run.jsonl --format shiviz --event 'election.*,vote.*,leader.*' --to run.log",
        "trio-kv trace export run.jsonl --format csv --to run.csv",
    )
)
def export(
    file: TraceFile,
    /,
    *,
    format: Annotated[Format, option("For which viewer.")] = "perfetto",
    to: To = None,
    selection: Selection = DEFAULT_SELECTION,
) -> Finding:
    """Write a trace for a viewer: Perfetto, Mermaid (level info and above), ShiViz, or as a table."""
    from trio_kv.cli.trace.export import export as run

    return run(file, format, to, selection)


@app.command(help_epilogue=examples("trio-kv trace merge one.jsonl two.jsonl three.jsonl --to all.jsonl"))
def merge(
    *files: Annotated[Path, option("The traces, one of each process.")],
    to: To = None,
) -> Finding:
    """Make one trace of those of several processes: what caused something stands before it, whatever clocks said."""
    from trio_kv.cli.trace.export import merge as run

    return run(files, to)
