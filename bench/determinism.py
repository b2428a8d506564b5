#!/usr/bin/env python3
"""Prove that a seed decides everything: each seed is run in two processes, with different PYTHONHASHSEEDs.

    python bench/determinism.py                 # seeds 1..1000 of all worlds there are
    python bench/determinism.py --seeds 1..200 --against ../before    # where nothing but the form of code was changed

Compared are the hash over the steps of a run and the SHA-256 of its trace's text. What the core world gave is kept in
build/determinism, and compared with what other versions of Python gave for the same sources. `--against` compares with
other sources instead, those in a folder.
"""

import argparse
import hashlib
import json
import pathlib
import sys
from collections.abc import Iterator

import trio_kv
from trio_kv.sim.attempt import Outcome, Task
from trio_kv.sim.campaign import parse_seeds
from trio_kv.sim.pool import WORKER, run_in_processes
from trio_kv.sim.worlds import WORLDS, world_kind

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
SAME_ON_ALL_VERSIONS = ("core",)
"""The whole world is Trio's, too: it is the same for one version of Python and Trio."""


def hashes(
    world: str, seeds: range, jobs: int, hash_seed: int, sources: pathlib.Path | None = None
) -> dict[int, list[str]]:
    """Run the seeds in processes with that PYTHONHASHSEED, and with those sources; return the hashes of each."""
    environment, command = {"PYTHONHASHSEED": str(hash_seed)}, WORKER
    if sources is not None:
        # Without -P the folder in which this is started would come first, and in it the sources of this version.
        environment["PYTHONPATH"] = str(sources.resolve(strict=True))
        command = [sys.executable, "-P", "-m", "trio_kv.sim.worker"]

    def tasks() -> Iterator[Task]:
        return (Task(world=world, seed=seed, is_traced=True) for seed in seeds)

    outcomes = run_in_processes(tasks(), jobs, command=command, environment=environment)
    return {outcome.task.seed: hashes_of(outcome) for outcome in outcomes}


def hashes_of(outcome: Outcome) -> list[str]:
    """Return what is compared."""
    if outcome.figures is None:
        what = outcome.lost if outcome.failure is None else outcome.failure.text
        print(f"seed {outcome.task.seed} of the {outcome.task.world} world: {what}")
        return [f"{what}"]
    return [outcome.figures.trace_hash, outcome.figures.text_hash]


def compare(what: str, first: dict[int, list[str]], second: dict[int, list[str]]) -> bool:
    """Print how many seeds are equal, and which are not; return whether all are."""
    different = [seed for seed in first if first[seed] != second.get(seed)]
    print(f"{what}: {len(first) - len(different):,} of {len(first):,} seeds have equal traces", flush=True)
    if different:
        print(f"  different: {different[:20]}")
    return not different


def compare_sources(what: str, found: dict[int, list[str]], other: dict[int, list[str]]) -> bool:
    """Print how many seeds go the same way, and of how many all that is told is equal; return whether all are."""
    steps = [{seed: each[:1] for seed, each in either.items()} for either in (found, other)]
    return compare(f"{what}, steps alone", *steps) & compare(f"{what}, steps and words", found, other)


def compare_versions(world: str, found: dict[int, list[str]], folder: pathlib.Path) -> bool:
    """Keep the hashes, and compare them with those of other versions."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{world}-{VERSION}.json").write_text(json.dumps(found))
    are_equal = True
    for path in sorted(folder.glob(f"{world}-*.json")):
        other = {int(seed): each for seed, each in json.loads(path.read_text()).items()}
        if path.stem != f"{world}-{VERSION}" and other.keys() == found.keys():
            are_equal &= compare(f"{world}, {VERSION} and {path.stem.partition('-')[2]}", found, other)
    return are_equal


def digest_of_sources() -> str:
    """Return a digest of all code: hashes of other code say nothing about this one."""
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(trio_kv.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def main() -> int:
    """Compare; return 0 if all is equal, else 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="1..1000", type=parse_seeds)
    parser.add_argument("--world", choices=[*WORLDS], help="this one alone")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--against", type=pathlib.Path, help="the folder of another version's sources")
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path("build/determinism"))
    options = parser.parse_args()
    seeds = range(options.seeds.first, (options.seeds.last or options.seeds.first) + 1)
    folder = options.dir / digest_of_sources()
    are_equal = True
    for world in WORLDS if options.world is None else [options.world]:
        try:
            world_kind(world)
        except LookupError as error:
            print(error)
            continue
        if options.against is not None:
            here, there = (hashes(world, seeds, options.jobs, 1, each) for each in (None, options.against))
            are_equal &= compare_sources(f"{world}, here and in {options.against}", here, there)
            continue
        found, again = (hashes(world, seeds, options.jobs, hash_seed) for hash_seed in (1, 2))
        are_equal &= compare(f"{world}, {VERSION}, in two processes", found, again)
        if world in SAME_ON_ALL_VERSIONS:
            are_equal &= compare_versions(world, found, folder)
    return int(not are_equal)


if __name__ == "__main__":
    sys.exit(main())
