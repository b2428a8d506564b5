"""`sim`: runs seeds of the simulated worlds, and judges them. What is done stands in `simulate`."""

from cyclopts import App

from trio_kv.cli.sim_options import SimOptions
from trio_kv.cli.words import examples

EXIT_CODES = (
    "Exit codes: 0 valid · 1 violation · 2 usage · 4 unknown (no violation, and no proof: a situation that so many"
    " seeds should reach was not reached, or a seed did not end) · 70 an unexpected error · 74 valid, but what was"
    " found could not be written · 130 interrupted, no violation until then."
)

app = App(
    name="sim",
    help="Run the real code through bad days, each replayable from its seed, and judge every step.",
    help_format="plaintext",
    help_epilogue=examples(
        "trio-kv sim --seeds 1..1000 --minutes 10      # until either is over, on all cores",
        "trio-kv sim --seed 17 --verbose               # one of them, with all that happens",
        "trio-kv sim --kinds crash,partition --seeds 1..",
        "trio-kv sim --plan trio_kv-sim/core-17/plan.json --trace trace.txt",
        more=EXIT_CODES,
    ),
)

DEFAULT_OPTIONS = SimOptions()


@app.default
def sim(*, options: SimOptions = DEFAULT_OPTIONS) -> int:
    """Run what is asked for; return the exit code."""
    from trio_kv.cli.simulate import simulate

    return simulate(options)
