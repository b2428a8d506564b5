"""What `sim` may be asked for."""

import os
from pathlib import Path
from typing import Annotated, Literal

import attrs
from cyclopts import Parameter

from trio_kv.cli.parsing import Count, NaturalNumber, OutputOption, Seconds, flag


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class SimOptions:
    """What to run, where, and for how long."""

    seeds: Annotated[
        str | None,
        Parameter(
            name=["--seeds", "--seed"],
            env_var="TRIO_KV_SIM_SEEDS",
            help="One, as 7, or a range, as 1..100 or 1.. [default: 1..100, or 1.. with --minutes]",
        ),
    ] = None
    minutes: Annotated[
        Seconds | None,
        Parameter(env_var="TRIO_KV_SIM_MINUTES", help="Begin no seed after that time."),
    ] = None
    world: Annotated[
        Literal["core", "whole", "both"],
        Parameter(
            env_var="TRIO_KV_SIM_WORLD",
            help="core: replicas, disks and links, without Trio. whole: the whole server, under a simulated clock.",
        ),
    ] = "core"
    jobs: Annotated[
        Count | None,
        Parameter(env_var="TRIO_KV_SIM_JOBS", help="Processes at a time. [default: one a core]"),
    ] = None
    kinds: Annotated[
        str | None,
        Parameter(
            env_var="TRIO_KV_SIM_KINDS",
            help="Kinds of faults, with commas: these and no others happen. [default: each seed draws its own]",
        ),
    ] = None
    is_beyond_budget: Annotated[
        bool,
        flag(
            "Break more than can be mended: only safety is judged.",
            "TRIO_KV_SIM_BEYOND_BUDGET",
            "--beyond-budget",
        ),
    ] = False
    is_bare: Annotated[
        bool, flag("Without the judges, to see what the world costs by itself.", "TRIO_KV_SIM_BARE", "--bare")
    ] = False
    plan: Annotated[
        Path | None, Parameter(env_var="TRIO_KV_SIM_PLAN", help="Run a plan on file, instead of seeds.")
    ] = None
    trace: Annotated[
        Path | None,
        Parameter(env_var="TRIO_KV_SIM_TRACE", help="File for all that happens in the run of one seed."),
    ] = None
    is_verbose: Annotated[
        bool,
        flag(
            "Print all that happens in one seed, or a line for each of many.",
            "TRIO_KV_SIM_VERBOSE",
            "--verbose",
            "-v",
        ),
    ] = False
    output: OutputOption = "table"
    out: Annotated[
        Path | None,
        Parameter(
            env_var="TRIO_KV_SIM_OUT",
            help="Directory for the summary, and for a folder of each failure. [default: trio_kv-sim, for failures]",
        ),
    ] = None
    shrink_runs: Annotated[
        NaturalNumber,
        Parameter(
            env_var="TRIO_KV_SIM_SHRINK_RUNS", help="Runs that may be spent on making a failing plan smaller."
        ),
    ] = 400

    @property
    def worlds(self) -> tuple[str, ...]:
        """The names of the worlds."""
        return ("core", "whole") if self.world == "both" else (self.world,)

    @property
    def processes(self) -> int:
        """How many seeds run at a time."""
        return self.jobs or os.cpu_count() or 1
