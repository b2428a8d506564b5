"""`chaos`: breaks a live cluster while clients use it, and gives a verdict on what they saw."""

from cyclopts import App

from trio_kv.cli.chaos_options import ChaosOptions, Verdict
from trio_kv.cli.words import examples

EXIT_CODES = (
    "Exit codes: 0 valid · 1 violation · 2 unknown, also usage · 3 no server · 70 an unexpected error · 74 valid, but"
    " the output could not be written · 130 interrupted twice."
    " Ctrl-C once ends load and faults, and the verdict follows."
)

app = App(
    name="chaos",
    help_format="plaintext",
    help_epilogue=examples(
        "trio-kv chaos --minutes 10                  # breaks a server of its own",
        "trio-kv chaos --nodes 3 --faults kill,partition --seed 7",
        "trio-kv chaos --processes 5                 # kills and freezes single processes of it, too",
        "trio-kv chaos --nodes 3 --cluster           # breaks a cluster of hosts, each with doors of its own",
        "trio-kv chaos --port 3001                   # only load and verdict, on a server that runs",
        "trio-kv chaos --port 3001 --data-dir trio_kv-data     # and faults through its control door",
        "trio-kv chaos --host 10.0.0.5 --fault-command ./break   # runs `./break start`, later `./break stop`",
        more=EXIT_CODES,
    ),
)

DEFAULT_OPTIONS = ChaosOptions()


@app.default
def chaos(*, options: ChaosOptions = DEFAULT_OPTIONS) -> Verdict:
    """Break a live cluster while clients use it: was every acknowledged write kept, was no read stale?

    A server is started for it and also killed and frozen as a process; with --host or --port one that runs is taken.
    The folder of the run gets the history, a picture, the figures and the server's log.
    """
    options.check()
    from trio_kv.cli.chaos_run import run

    return run(options)
