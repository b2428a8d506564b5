"""What `sim` may be asked for."""

import os
from pathlib import Path
from typing import Annotated, Literal

import attrs
from cyclopts import Parameter

from trio_kv.cli.parsing import Count, NaturalNumber, OutputOption, Seconds, flag, option


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class SimOptions:
    """What to run, where, and for how long."""

    seeds: Annotated[
        str | None,
        option(
            "One, as 7, or a range, as 1..100 or 1.. [default: 1..100, or 1.. with --minutes]",
            *("SIM_SEEDS", "--seeds", "--seed"),
        ),
    ] = None
    minutes: Annotated[Seconds | None, option("Begin no seed after that time.", "SIM_MINUTES")] = None
    world: Annotated[
        Literal["core", "whole", "both"],
        option(
            "core: replicas, disks and links, without Trio. whole: the whole server, under a simulated clock.",
            "SIM_WORLD",
        ),
    ] = "core"
    jobs: Annotated[Count | None, option("Processes at a time. [default: one a core]", "SIM_JOBS")] = None
    kinds: Annotated[
        str | None,
        option(
            "Kinds of faults, with commas: these and no others happen. [default: each seed draws its own]",
            "SIM_KINDS",
        ),
    ] = None
    is_beyond_budget: Annotated[
        bool,
        flag("Break more than can be mended: only safety is judged.", "SIM_BEYOND_BUDGET", "--beyond-budget"),
    ] = False
    is_bare: Annotated[
        bool, flag("Without the judges, to see what the world costs by itself.", "SIM_BARE", "--bare")
    ] = False
    plan: Annotated[Path | None, option("Run a plan on file, instead of seeds.", "SIM_PLAN")] = None
    trace: Annotated[
        Path | None, option("File for all that happens in the run of one seed.", "SIM_TRACE")
    ] = None
    is_verbose: Annotated[
        bool,
        flag(
            "Print all that happens in one seed, or a line for each of many.",
            *("SIM_VERBOSE", "--verbose", "-v"),
        ),
    ] = False
    output: OutputOption = "text"
    out: Annotated[
        Path | None,
        option(
            "Directory for the summary, and for a folder of each failure. [default: trio_kv-sim, for failures]",
            "SIM_OUT",
        ),
    ] = None
    shrink_runs: Annotated[
        NaturalNumber, option("Runs that may be spent on making a failing plan smaller.", "SIM_SHRINK_RUNS")
    ] = 400

    @property
    def worlds(self) -> tuple[str, ...]:
        """The names of the worlds."""
        return ("core", "whole") if self.world == "both" else (self.world,)

    @property
    def processes(self) -> int:
        """How many seeds run at a time."""
        return self.jobs or os.cpu_count() or 1
