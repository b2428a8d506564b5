"""`top`: the cluster on a terminal, as it is; the same frames that the dashboard shows."""

from typing import Annotated

from cyclopts import App
from cyclopts.validators import Number

from trio_kv.cli.control import DEFAULT_DOOR, DoorOptions
from trio_kv.cli.output import ExitCode
from trio_kv.cli.parsing import NaturalNumber, option
from trio_kv.cli.words import examples

INTERVAL_MAX_S = 3600.0

app = App(
    name="top",
    help_format="plaintext",
    help_epilogue=examples(
        "trio-kv top                               # q or Ctrl-C ends it",
        "trio-kv top --count 1                     # once, as lines",
        "trio-kv top --output json --interval 10 >>frames.jsonl",
    ),
)

Interval = Annotated[
    float | None,
    option(
        "Seconds between two looks. [default: 0.25 on a terminal, else 1]",
        validator=Number(gt=0, lte=INTERVAL_MAX_S),
    ),
]


@app.default
def top(
    *,
    interval: Interval = None,
    count: Annotated[NaturalNumber, option("How many looks; 0: until it is ended.")] = 0,
    door: DoorOptions = DEFAULT_DOOR,
) -> ExitCode:
    """Show nodes, leader, log, rates, faults and events of a running cluster, as they change.

    On a terminal it fills the screen, and goes on when the server is started again; into a pipe it prints one look
    after the other.
    """
    from trio_kv.cli.top_loop import run

    return run(door, interval_s=interval, count=count)
