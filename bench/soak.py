#!/usr/bin/env python3
"""Run the simulated worlds for an hour on all cores, and hold what came of it against the figures to reach.

    python bench/soak.py                        # both worlds, 60 minutes, summary and failures in build/soak
    python bench/soak.py --minutes 5 --world core

Further arguments go to `trio-kv sim`, whose exit code is ours: 0 valid, 1 violation, 4 unknown. A run of an hour that
stays below a figure is 1, too. Ctrl-C ends it in order.
"""

import argparse
import json
import pathlib
import signal
import subprocess
import sys

HOUR_MINUTES = 60.0
TO_REACH = {"seeds": 10_000, "events": 50_000_000, "crashes": 100_000, "operations": 1_000_000}
"""Of the core world. Events and the rest count for all worlds together."""


def main() -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=HOUR_MINUTES)
    parser.add_argument("--world", default="both")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/soak"))
    options, others = parser.parse_known_args()
    for other in ("--bare", "--kinds", "--beyond-budget"):
        if any(each.split("=")[0] == other for each in others):
            parser.error(f"{other} would prove less than the figures say: run `trio-kv sim {other}`")
    # Should the simulation end without one, an old one must not stand for it.
    (options.out / "summary.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "trio_kv", "sim", "--world", options.world, "--out", str(options.out)]
    with subprocess.Popen([*command, "--minutes", str(options.minutes), *others]) as simulation:
        # Whoever ends this ends the simulation, in order; then comes the table of what there is.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: simulation.terminate())
        code = simulation.wait()
    if code not in {0, 1, 4, 130}:
        return code
    summary = json.loads((options.out / "summary.json").read_text())
    is_reached = show(summary)
    return code or int(not is_reached and options.minutes >= HOUR_MINUTES)


def show(summary: dict) -> bool:
    """Print the figures beside those to reach; return whether all are reached."""
    worlds = summary["worlds"]
    reached = {name: sum(world[name] for world in worlds.values()) for name in TO_REACH}
    reached["seeds"] = worlds.get("core", {"seeds": 0})["seeds"]
    print(f"\n{'':28}{'reached':>14}{'to reach':>14}")
    names = {
        "seeds": "core seeds",
        "events": "checked events",
        "crashes": "crash-restarts",
        "operations": "checked client operations",
    }
    for name, shown in names.items():
        is_enough = reached[name] >= TO_REACH[name]
        print(f"{shown:28}{reached[name]:14,}{TO_REACH[name]:14,}{'' if is_enough else '  not reached'}")
    hours = sum(world["simulated_hours"] for world in worlds.values())
    failures = sum(len(world["failures"]) for world in worlds.values())
    print(f"{'violations':28}{failures:14,}{0:14,}")
    print(f"{'cluster-hours simulated':28}{hours:14,.1f}")
    print(f"{'minutes of wall time':28}{summary['took_s'] / 60:14,.1f}")
    return all(reached[name] >= TO_REACH[name] for name in TO_REACH)


if __name__ == "__main__":
    sys.exit(main())
