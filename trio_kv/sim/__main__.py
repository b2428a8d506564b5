"""`python -m trio_kv.sim`: run seeds of the core world."""

import argparse
import sys
import time
import traceback

from trio_kv.sim.coverage import SITUATIONS, Coverage
from trio_kv.sim.run import SimulationFailedError, run_seed


def _seeds(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> int:
    """Run what the command line asks for; return the exit status: 0 all well, 1 a violation."""
    parser = argparse.ArgumentParser(prog="python -m trio_kv.sim", description=__doc__)
    seeds = parser.add_mutually_exclusive_group(required=True)
    seeds.add_argument("--seed", type=int, help="run one seed")
    seeds.add_argument("--seeds", type=_seeds, metavar="A..B", help="run these seeds")
    parser.add_argument("--verbose", action="store_true", help="print all that happens")
    arguments = parser.parse_args()
    write = sys.stdout.write
    tell = _tell if arguments.verbose else None
    coverage = Coverage()
    events, operations, crashes, simulated_s, failed, slowest_s = 0, 0, 0, 0.0, [], 0.0
    began_s = time.perf_counter()
    for seed in [arguments.seed] if arguments.seeds is None else arguments.seeds:
        try:
            result = run_seed(seed, tell)
        except SimulationFailedError as error:
            failed.append(seed)
            write(f"{error}\n")
            traceback.print_exception(error.__cause__, limit=-6, file=sys.stdout)
            continue
        coverage.update(result.coverage)
        events, operations = events + result.events, operations + result.operations
        crashes, simulated_s = crashes + result.crashes, simulated_s + result.simulated_s
        slowest_s = max(slowest_s, result.recovered_after_s)
        if arguments.seeds is None:
            write(f"seed {seed}: trace {result.trace_hash}\n")
    took_s = time.perf_counter() - began_s
    for situation in SITUATIONS:
        write(f"{coverage[situation]:8}  {situation}\n")
    write(
        f"{events} events ({events / took_s:.0f}/s), {operations} operations judged, {crashes} crashes,"
        f" {simulated_s:.0f} s simulated ({simulated_s / took_s:.0f} x real time), {took_s:.1f} s,"
        f" longest recovery {slowest_s:.2f} s\n"
    )
    write(f"failed: {failed}\n" if failed else "no violation\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
