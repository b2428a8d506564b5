"""Prove that each mutant is killed: `python -m tests.mutants`, from the project's directory.

Prints a table of what found each mutant, and how many seeds that took, and ends with 1 if one survived.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import attrs

from tests.mutants.all_mutants import MUTANTS
from tests.mutants.killing_seeds import record
from tests.mutants.kills import BrokenMutantError, Kill, kill_by_tests
from tests.mutants.search import SEEDS_MAX, search


def main() -> int:
    """Run all mutants, or some of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "--only", default="", help="mutants of this world or area, or whose names hold this text"
    )
    parser.add_argument(
        "--seeds", type=int, default=SEEDS_MAX, help="a mutant that outlives so many has survived"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument(
        "--record", action="store_true", help="keep the killing seeds for the default test run"
    )
    options = parser.parse_args()

    chosen = [
        mutant
        for name, mutant in MUTANTS.items()
        if options.only in name or options.only in (mutant.world, mutant.area)
    ]
    in_worlds = [mutant for mutant in chosen if mutant.world is not None]
    context = multiprocessing.get_context("spawn")
    kills: list[Kill] = []
    survivors: list[str] = []
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        results = pool.map(partial(search, options.seeds), [mutant.name for mutant in in_worlds])
        for mutant, result in zip(in_worlds, results, strict=True):
            if isinstance(result, Kill):
                kills.append(result)
                print(f"{result.seeds:5} {mutant.name}: {result.killer}: {result.violation}", flush=True)
            else:
                survivors.append(result or f"{mutant.name}: survived {options.seeds} seeds of {mutant.world}")
                print(f"    - {survivors[-1]}", flush=True)
    try:
        for (name, test), kill in kill_by_tests(chosen).items():
            if kill is None:
                survivors.append(f"{name}: survived {test}")
            else:
                kills.append(kill)
                print(f" test {name}: {kill.killer}: {kill.violation}")
    except BrokenMutantError as error:
        survivors.append(str(error))

    if options.record:
        record(kills)
    seeds = sorted(kill.seeds for kill in kills if kill.seeds is not None)
    figures = {
        "mutants": len(chosen),
        "killed": len(chosen) - len({text.partition(": ")[0] for text in survivors}),
        "killed by seeds": len(seeds),
        "seeds, median": statistics.median(seeds) if seeds else None,
        "seeds, worst": max(seeds, default=None),
        "killed by tests": len({kill.mutant for kill in kills if kill.seed is None}),
    }
    if options.json is not None:
        told = {"figures": figures, "kills": [attrs.asdict(kill) for kill in kills], "survivors": survivors}
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    print(f"\n{', '.join(f'{name}: {value}' for name, value in figures.items())}")
    for text in survivors:
        print(f"SURVIVED {text}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
