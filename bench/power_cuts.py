#!/usr/bin/env python3
"""Cut the power, a thousand times: on real file systems, after kills at each step of what a store does on a disk.

    python bench/power_cuts.py                              # 1,000 cycles on ext4, xfs and btrfs: about half an hour
    python bench/power_cuts.py --fs xfs --phase restore     # one of each alone
    python bench/power_cuts.py --cycles 100 --seed 7 --keep build/power_cuts

A cycle kills `python -m trio_kv` as by kill -9 at one of its steps, on a file system of its own. In every second one a
server is then started there and acknowledges writes. Then the power fails: what the disk's image holds at this moment
is mounted elsewhere. There a start must not be refused, no node be damaged or stay down, and no acknowledged write be
missing. What was interrupted may be repeated where its own words say so, as long as nothing was promised since.

A cycle that finds something prints the command that repeats it. Exit status: 0 all is well, 1 something was found.
Linux and root: it mounts, in a namespace of its own. What differs from run to run is how threads meet.
"""

import argparse
import contextlib
import itertools
import os
import pathlib
import random
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import attrs
from power_cut_disk import KINDS, copy_image, cut_power, make_image, mounted, run_tool
from power_cut_phases import FoundError, Phase, Trial, make_phases

INSIDE = "POWER_CUTS_INSIDE"
"""Tells us that we are in a namespace of our own."""
PHASES = [phase.name for phase in make_phases()]
KINDS_OF_FINDINGS = ("refused", "down", "damaged", "lost")
LOG_SYNCS_MAX = 6
"""So many of the syncs of one log are steps to be killed at: one is much like the other."""

OF_NAMES = {"rename", "remove", "link", "mkdir"}
"""Steps whose effect the next process sees, be it durable or not: they are tried first."""


@attrs.frozen
class Point:
    """Where a cycle kills, and what follows."""

    kill_at: str
    """As kill_at_step.py takes it."""
    is_restarted: bool
    """Whether a server is started, and written to, before the power fails."""


@attrs.define
class Bench:
    """The cycles of one phase on one file system.

    Args:
        kind: of file system.
        phase: what is interrupted.
        folder: where its images are.
        keep: where the images of cycles go that found something; None to throw them away.

    """

    kind: str
    phase: Phase
    folder: pathlib.Path
    keep: pathlib.Path | None
    before: dict[str, str] = attrs.field(factory=dict)
    """What was acknowledged before."""
    tried: Counter[Point] = attrs.field(factory=Counter)
    found: Counter[str] = attrs.field(factory=Counter)
    missed: int = 0
    """In so many cycles the step was not reached, as threads met in another way."""
    points: int = 0

    @property
    def base(self) -> pathlib.Path:
        """The image of what there is before."""
        return self.folder / "base.img"

    def run(self, cycles: int, seed: int, only: Point | None) -> None:
        """Run so many cycles, or that one."""
        make_image(self.kind, self.base)
        with mounted(self.kind, self.base) as root:
            trial = Trial(root, self.folder, self.phase)
            self.phase.prepare(trial)
            self.before = trial.acknowledged
        points = [only] if only else self.list_points()
        self.points = len(points)
        random.Random(f"{seed} {self.kind} {self.phase.name}").shuffle(points)
        points.sort(key=lambda point: point.kill_at.split()[1] not in OF_NAMES)
        for point in itertools.islice(itertools.cycle(points), 1 if only else cycles):
            self.tried[point] += 1
            try:
                self.cycle(point)
            except FoundError as error:
                self.tell(point, error)
            except OSError as error:
                self.tell(point, FoundError("down", f"a server that ran is gone: {error}"))

    @contextlib.contextmanager
    def trial(self) -> Iterator[Trial]:
        """Mount a copy of what there is before."""
        work = self.folder / "work.img"
        copy_image(self.base, work)
        with mounted(self.kind, work) as root:
            yield Trial(root, self.folder, self.phase, dict(self.before))

    def list_points(self) -> list[Point]:
        """Do it once without a kill, and return where it can be killed."""
        path = self.folder / "steps"
        with self.trial() as trial:
            self.phase.act(trial, {"STEPS_UNDER": str(trial.root), "STEPS_LIST": str(path)})
        steps = []
        for step in path.read_text().splitlines():
            what, _, count = step.rpartition(" #")
            is_log_sync = what.startswith("fdatasync") and what.endswith(".log")
            if not is_log_sync or int(count) <= LOG_SYNCS_MAX:
                steps.append(step)
        kills = [f"before {steps[0]}", *(f"after {step}" for step in steps)]
        return [Point(kill_at, is_restarted) for kill_at in kills for is_restarted in (False, True)]

    def cycle(self, point: Point) -> None:
        """Kill, perhaps start again, cut the power, and see what is there.

        Raises:
            FoundError: something is not as it must be.

        """
        after = self.folder / "after.img"
        with self.trial() as trial:
            self.phase.act(trial, {"STEPS_UNDER": str(trial.root), "KILL_AT": point.kill_at})
            self.missed += not trial.was_killed
            with contextlib.ExitStack() as stack:
                if point.is_restarted:
                    server = stack.enter_context(trial.start_again())
                    self.phase.again(trial, server)
                    server.pause()
                cut_power(trial.root, self.folder / "work.img", after)
        if self.keep is not None:
            shutil.copy(after, self.folder / "kept.img")
        with mounted(self.kind, after) as root:
            attrs.evolve(trial, root=root).check()

    def tell(self, point: Point, error: FoundError) -> None:
        """Count and print what was found, and how to find it again; keep the image."""
        self.found[error.kind] += 1
        again = " --restarted" * point.is_restarted
        command = f"--fs {self.kind} --phase {self.phase.name} --at {shlex.quote(point.kill_at)}{again}"
        words = " ".join(error.words.replace(str(self.folder), "").split())
        lines = [f"{self.kind}, {self.phase.name}: {error.kind.upper()}: {words}"]
        lines.append(f"  again: python bench/power_cuts.py {command}")
        if self.keep is not None and (self.folder / "kept.img").exists():
            self.keep.mkdir(parents=True, exist_ok=True)
            image = self.keep / f"{self.kind}-{self.phase.name}-{self.found.total()}.img"
            run_tool("cp", "--sparse=always", self.folder / "kept.img", image)
            lines.append(f"  image: {image}")
        print("\n".join(lines), flush=True)


@contextlib.contextmanager
def folder_in_memory() -> Iterator[pathlib.Path]:
    """Give a folder for images whose every sync is fast."""
    with tempfile.TemporaryDirectory(prefix="power_cuts-") as name:
        run_tool("mount", "-t", "tmpfs", "tmpfs", name)
        try:
            yield pathlib.Path(name)
        finally:
            # Not lazily: an image in it that is still mounted would hold it, and it the image, for ever.
            run_tool("umount", "--recursive", name)


def run_bench(
    kind: str, phase: Phase, options: argparse.Namespace, cycles: int, folder: pathlib.Path
) -> Bench:
    """Run the cycles of one phase on one file system, in a folder of its own."""
    own = folder / f"{kind}-{phase.name}"
    own.mkdir()
    only = Point(options.at, options.restarted) if options.at else None
    bench = Bench(kind, phase, own, options.keep)
    bench.run(cycles, options.seed, only)
    shutil.rmtree(own)
    print(f"{kind}, {phase.name}: done, {bench.tried.total()} cycles", flush=True)
    return bench


def show(benches: list[Bench], took_s: float) -> None:
    """Print the table."""
    heads = "".join(f"{kind:>9}" for kind in KINDS_OF_FINDINGS)
    print(f"\n{'':8}{'':14}{'cycles':>8}{'points':>14}{'missed':>8}{heads}")
    for bench in benches:
        points = f"{len(bench.tried)} of {bench.points}"
        found = "".join(f"{bench.found[kind]:>9}" for kind in KINDS_OF_FINDINGS)
        print(
            f"{bench.kind:8}{bench.phase.name:14}{bench.tried.total():>8}{points:>14}{bench.missed:>8}{found}"
        )
    total = sum(bench.tried.total() for bench in benches)
    found = "".join(f"{sum(bench.found[kind] for bench in benches):>9}" for kind in KINDS_OF_FINDINGS)
    missed = sum(bench.missed for bench in benches)
    print(
        f"{'all':22}{total:>8}{'':>14}{missed:>8}{found}\n{took_s / 60:.1f} minutes, {took_s / total:.2f} s a cycle"
    )


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cycles", type=int, default=1000, help="over all file systems and phases together")
    parser.add_argument("--fs", choices=[*KINDS], action="append", help="may be given again; default: all")
    parser.add_argument("--phase", choices=PHASES, action="append", help="may be given again; default: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="cycles that run side by side")
    parser.add_argument(
        "--at", help='one cycle that kills there, such as "after rename data/manifest.json #1"'
    )
    parser.add_argument(
        "--restarted", action="store_true", help="with --at: start a server before the power fails"
    )
    parser.add_argument("--keep", type=pathlib.Path, help="where images go that something was found in")
    return parser.parse_args()


def main() -> int:
    """Run it; return the exit code."""
    options = parse_options()
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        raise SystemExit("it mounts file systems of its own, which takes Linux and root")
    if INSIDE not in os.environ:
        # Mounts and processes are ours alone, and end with us, whatever we die of.
        words = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]
        words += [sys.executable, *sys.argv]
        os.execvpe(words[0], words, {**os.environ, INSIDE: "1"})  # noqa: S606
    began = time.monotonic()
    pairs = [
        (kind, phase)
        for kind in options.fs or KINDS
        for phase in make_phases()
        if phase.name in (options.phase or PHASES)
    ]
    cycles = [
        options.cycles // len(pairs) + (each < options.cycles % len(pairs)) for each in range(len(pairs))
    ]
    with folder_in_memory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        runs = [
            pool.submit(run_bench, kind, phase, options, count, folder)
            for (kind, phase), count in zip(pairs, cycles, strict=True)
        ]
        try:
            benches = [run.result() for run in runs]
        finally:
            pool.shutdown(cancel_futures=True)
    show(benches, time.monotonic() - began)
    return int(any(bench.found for bench in benches))


if __name__ == "__main__":
    sys.exit(main())
