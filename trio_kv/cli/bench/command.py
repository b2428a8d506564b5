"""`bench`, as the command line has it."""

from cyclopts import App

from trio_kv.cli.bench.options import BenchOptions
from trio_kv.cli.output import ExitCode
from trio_kv.cli.words import examples

EXIT_CODES = (
    "Exit codes: 0 done, whatever errors the table counts · 1 a wrong answer, or none at all · 2 usage · 3 no server"
    " · 70 an unexpected error · 74 done, but the output could not be written · 130 interrupted, with the figures so"
    " far."
)

app = App(
    name="bench",
    help_format="plaintext",
    help_epilogue=examples(
        "trio-kv bench                               # half SET, half GET, on the server of this machine",
        "trio-kv bench --nodes 3 --mix 100           # on a server of its own",
        "trio-kv bench --pipeline 16 --connections 256 --duration 30",
        "trio-kv bench --rate 5000 --histogram       # how long do 5,000 requests a second take?",
        "trio-kv bench --mix 10 --keys 1000000 --distribution zipf --fill --json",
        more=EXIT_CODES,
    ),
)

DEFAULT_OPTIONS = BenchOptions()


@app.default
def bench(*, options: BenchOptions = DEFAULT_OPTIONS) -> ExitCode:
    """Load a server, and tell how fast it answers and whether it answers right.

    It writes to keys that begin with `bench:`. Each batch of answers is counted, and a sample is read: a SET must be
    answered with what was sent, and a GET with a value that was written to its key.
    """
    options.check()
    from trio_kv.cli.bench.run import run

    return run(options)
