"""The commands of `trace` and their options. What they do stands in the modules beside this one."""

from pathlib import Path
from typing import Annotated

from cyclopts import App

from trio_kv.cli.parsing import OutputOption, option
from trio_kv.cli.trace.feed import Finding
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
        "trio-kv trace check run.jsonl.gz --output json",
        "zcat old.jsonl.gz | trio-kv trace check -",
        more=EXIT_CODES,
    ),
)

TraceFile = Annotated[Path, option("A trace, packed by gzip or not; - for stdin.")]


@app.command(
    help_epilogue=examples(
        "trio-kv trace check run.jsonl",
        "trio-kv trace check run.jsonl --output json | jq .verdict",
        more=EXIT_CODES,
    )
)
def check(file: TraceFile, /, *, output: OutputOption = "table") -> Finding:
    """Prove or refute from the events alone that the run was right: leaders, logs, commits, states, durability.

    It names the first event that can't be, and what led to it. A trace that lost events proves nothing: unknown.
    """
    from trio_kv.cli.trace.check import check as run

    return run(file, output)
