#!/usr/bin/env python3
"""Measure the simulated worlds: events a second of one core, and how much faster than real time they are.

    python bench/speed.py --seeds 1..100 --rounds 3

The same seeds are run bare, then with all judges, in turns; the median of the rounds counts, since the machine may be
busy with other things.
"""

import argparse
import statistics
import sys
import time

from trio_kv.sim.attempt import Task, run_task
from trio_kv.sim.campaign import parse_seeds
from trio_kv.sim.worlds import world_kind

TO_REACH = {("core", True): 30_000, ("core", False): 10_000, ("whole", False): 5_000}
"""Events a second, by world and whether it is bare."""


def measure(world: str, seeds: range, *, is_bare: bool) -> tuple[float, float]:
    """Run the seeds; return events a second, and simulated seconds a second."""
    events, simulated_s = 0, 0.0
    began_s = time.perf_counter()
    for seed in seeds:
        figures = run_task(Task(world=world, seed=seed, is_bare=is_bare)).figures
        if figures is None:
            raise SystemExit(f"seed {seed} of the {world} world failed: there is nothing to measure")
        events, simulated_s = events + figures.events, simulated_s + figures.simulated_s
    took_s = time.perf_counter() - began_s
    return events / took_s, simulated_s / took_s


def main() -> int:
    """Measure; return 0 if all is as fast as it must be, else 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="1..100", type=parse_seeds)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    seeds = range(options.seeds.first, (options.seeds.last or options.seeds.first) + 1)
    points = []
    for point in TO_REACH:
        try:
            world_kind(point[0])
        except LookupError as error:
            print(error)
            continue
        points.append(point)
    found: dict[tuple[str, bool], list[tuple[float, float]]] = {point: [] for point in points}
    for _ in range(options.rounds):
        for world, is_bare in points:
            found[world, is_bare].append(measure(world, seeds, is_bare=is_bare))
    is_fast = True
    print(f"{'':24}{'events/s':>12}{'to reach':>12}{'times real time':>18}")
    for (world, is_bare), rounds in found.items():
        events, factor = (statistics.median(each) for each in zip(*rounds, strict=True))
        name = f"{world}, {'bare' if is_bare else 'all judges'}"
        print(f"{name:24}{events:12,.0f}{TO_REACH[world, is_bare]:12,}{factor:18,.0f}")
        is_fast &= events >= TO_REACH[world, is_bare]
    return int(not is_fast)


if __name__ == "__main__":
    sys.exit(main())
