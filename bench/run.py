#!/usr/bin/env python3
"""Measure trio_kv beside other stores: same machine, same disk, same minutes, slices in turn, ratios pair by pair.

    python bench/run.py --dir build/bench --pairs 5 --seconds 3                  # all of it: some hours
    python bench/run.py --dir build/bench --pairs 5 --seconds 2 --rows set,mix   # a part

A machine that others use too is fast one minute and slow the next: so only the ratio of two slices that follow
each other means anything, and only the median of several. After each row the figures are written to a JSON file,
from which `bench/tables.py` makes the tables and plots of docs/performance.md.
"""

import argparse
import concurrent.futures
import datetime as dt
import json
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from typing import Any

from rows import STORES, Row, Subject, make_rows
from systems import Etcd, Figures, Floor, Point, PySyncObj, TrioKV, build_etcd_load, why_no_pysyncobj
from tables import fill_page

HERE = pathlib.Path(__file__).parent
FAILOVER_S = 6.0
FAILOVER_AT_S = 2.0
System = TrioKV | Floor | Etcd | PySyncObj


class Stores:
    """Starts stores by their labels, and says of which there are none."""

    def __init__(self, folder: pathlib.Path, baseline: str | None, only: list[str] | None) -> None:
        """See what there is on this machine."""
        self._folder = folder
        self._baseline = baseline
        self.missing: dict[str, str] = {}
        is_etcd_wanted = not only or "etcd-3" in only
        self._etcd_load = build_etcd_load(folder) if is_etcd_wanted else "not asked for"
        if isinstance(self._etcd_load, str):
            self.missing["etcd-3"] = self._etcd_load
        if why := why_no_pysyncobj():
            self.missing["pysyncobj-3"] = why
        for store in STORES:
            if store.startswith("base-") and baseline is None:
                self.missing[store] = "no --baseline"
            elif only and store not in only:
                self.missing[store] = "not asked for"

    def has(self, subject: Subject) -> bool:
        """Return whether a subject can be measured."""
        return subject.label.partition(" ")[0] not in self.missing

    def open(self, subject: Subject) -> System:
        """Start a store on an empty folder."""
        kind, _, nodes = subject.label.partition(" ")[0].rpartition("-")
        folder = self._folder / "".join(each if each.isalnum() else "-" for each in subject.label)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        match kind:
            case "trio_kv":
                nodes, _, processes = nodes.partition("x")
                return TrioKV(folder, int(nodes), processes=int(processes) if processes else None)
            case "base":
                assert self._baseline is not None
                return TrioKV(folder, int(nodes), self._baseline)
            case "floor":
                return Floor(folder, int(nodes))
            case "etcd":
                assert isinstance(self._etcd_load, pathlib.Path)
                return Etcd(folder, int(nodes), self._etcd_load)
            case "pysyncobj":
                return PySyncObj(folder, int(nodes))
            case _:
                raise ValueError(kind)


def say(*words: object) -> None:
    """Tell how far it is, on stderr."""
    print(*words, file=sys.stderr, flush=True)


def check(label: str, figures: Figures) -> Figures:
    """Return figures of work that was right; end the run with any other."""
    if figures["wrong"]:
        raise SystemExit(f"{label} gave wrong answers: {figures}")
    return figures


def measure_slice(system: System, subject: Subject, row: Row, seconds: float) -> Figures:
    """Measure one slice; of several loads the best one is returned."""
    if row.kind == "failover":
        return check(subject.label, fail_over(system, subject.points[0]))
    slices = [(point, check(subject.label, system.load(point, seconds))) for point in subject.points]
    for point, figures in slices:
        figures["mib_per_second"] = figures["per_second"] * point.value_bytes / (1 << 20)
        figures["calls"] = point.calls or point.connections * point.pipeline
    return max((figures for _, figures in slices), key=lambda figures: figures[row.metric])


def fail_over(system: System, point: Point) -> Figures:
    """Kill the leader under a load of writes; return the load's figures."""
    assert isinstance(system, TrioKV | Etcd)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        if isinstance(system, Etcd):
            load = pool.submit(system.load_all, point, FAILOVER_S)
        else:
            load = pool.submit(system.load, point, FAILOVER_S, 0.0)
        time.sleep(FAILOVER_AT_S)
        system.kill_leader()
        figures = load.result()
    system.mend()
    time.sleep(1.0)  # the member that was away has to catch up before the next time
    return figures


def measure_memory(stores: Stores, row: Row, args: argparse.Namespace) -> dict[str, list[Figures]]:
    """Fill, overwrite and restart each build once."""
    slices: dict[str, list[Figures]] = {}
    for subject in row.subjects:
        if not stores.has(subject):
            continue
        out = args.dir / "large.json"
        python = args.baseline if subject.label.startswith("base") else sys.executable
        command = [
            python,
            str(HERE / "large.py"),
            f"--dir={args.dir / 'large'}",
            f"--keys={subject.points[0].keys}",
        ]
        command += ["--nodes=5", f"--seconds={args.overwrite_seconds}", f"--json={out}"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        slices[subject.label] = [json.loads(out.read_text())]
        shutil.rmtree(args.dir / "large", ignore_errors=True)
    return slices


def prepare(system: System, subject: Subject) -> None:
    """Fill a store, and make its log as long as it is to be."""
    point = subject.points[0]
    system.fill(point)
    if point.watchers:
        assert isinstance(system, TrioKV)
        system.watch(point.watchers)
    done = 0.0
    while done < subject.entries:
        figures = system.load(Point(connections=32, pipeline=64), 20.0, 0.0)
        done += figures["per_second"] * 20.0
        say(f"  {done:,.0f} of {subject.entries:,} entries, {figures['per_second']:,.0f}/s")


def measure_row(stores: Stores, row: Row, args: argparse.Namespace) -> dict[str, list[Figures]]:
    """Start the stores of a row, measure them in turn, end them."""
    if row.kind == "memory":
        return measure_memory(stores, row, args)
    systems: dict[str, System] = {}
    slices: dict[str, list[Figures]] = {}
    subjects = [subject for subject in row.subjects if stores.has(subject)]
    try:
        for subject in subjects:
            systems[subject.label] = stores.open(subject)
            prepare(systems[subject.label], subject)
        for turn in range(args.pairs):
            for subject in subjects:
                figures = measure_slice(systems[subject.label], subject, row, args.seconds)
                slices.setdefault(subject.label, []).append(figures)
                say(
                    f"  {turn + 1}: {subject.label}: {figures[row.metric]:,.2f}",
                    *([figures["errors"]] if figures.get("errors") else []),
                )
    finally:
        for system in systems.values():
            system.end()
    return slices


def summarize(
    row: Row, slices: dict[str, list[Figures]], seconds: float, systems: dict[str, str]
) -> dict[str, Any]:
    """Return the row as it stands in the JSON file."""
    ratios = []
    for of, to in row.ratios:
        if of in slices and to in slices:
            pairs = zip(slices[of], slices[to], strict=True)
            values = [
                round(a[row.metric] / b[row.metric], 3) for a, b in pairs if a[row.metric] and b[row.metric]
            ]
            if not values:
                continue
            ratios.append(
                {"of": of, "to": to, "median": round(statistics.median(values), 3), "values": values}
            )
    return {
        "name": row.name,
        "title": row.title,
        "group": row.group,
        "metric": row.metric,
        "seconds": FAILOVER_S if row.kind == "failover" else seconds,
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "load_average": round(os.getloadavg()[0], 1),
        "subjects": {
            label: {
                "durability": systems.get(label.partition(" ")[0].rpartition("-")[0], ""),
                "median": {
                    name: round(statistics.median(each[name] for each in measured), 3)
                    for name, value in measured[0].items()
                    if isinstance(value, int | float) and all(name in each for each in measured)
                },
                "slices": measured,
            }
            for label, measured in slices.items()
        },
        "ratios": ratios,
    }


DURABILITY = {
    "trio_kv": TrioKV.durability,
    "base": TrioKV.durability,
    "floor": Floor.durability,
    "etcd": Etcd.durability,
    "pysyncobj": PySyncObj.durability,
}


def describe_machine(folder: pathlib.Path) -> dict[str, Any]:
    """Return what the figures depend on."""
    cpu = [
        line.partition(":")[2].strip()
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    mounts = [line.split() for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    place = str(folder.resolve())
    mount = max((each for each in mounts if place.startswith(each[1])), key=lambda each: len(each[1]))
    etcd = shutil.which("etcd")
    version = (
        subprocess.run([etcd, "--version"], capture_output=True, text=True, check=True).stdout if etcd else ""
    )
    return {
        "processor": cpu[0] if cpu else platform.machine(),
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "file_system": mount[2],
        "etcd": version.partition("\n")[0].removeprefix("etcd Version: "),
    }


def parse_arguments() -> argparse.Namespace:
    """Return what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dir", type=pathlib.Path, default=pathlib.Path("build/bench"), help="on a real disk; emptied first"
    )
    parser.add_argument(
        "--json", type=pathlib.Path, default=pathlib.Path("build/bench.json"), help="where the figures go"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the rows of that file that are not measured now"
    )
    parser.add_argument("--rows", help="names, with commas between them; default: all")
    parser.add_argument("--systems", help=f"of {', '.join(STORES)}; default: all that there are")
    parser.add_argument(
        "--page", type=pathlib.Path, help="also put the figures into this page, as bench/tables.py does"
    )
    parser.add_argument(
        "--baseline", help="the Python of an environment with another build, for base-5 and base-3"
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a slice")
    parser.add_argument("--keys", type=int, default=1_000_000, help="of the large store")
    parser.add_argument("--entries", type=int, default=10_000_000, help="of the long log")
    parser.add_argument("--overwrite-seconds", type=int, default=45)
    args = parser.parse_args()
    args.all_rows = make_rows(args.entries, args.keys)
    names = [row.name for row in args.all_rows]
    args.wanted = args.rows.split(",") if args.rows else names
    if unknown := set(args.wanted) - set(names):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return args


def main() -> None:
    """Measure the rows that were asked for, and write each down."""
    args = parse_arguments()
    # The servers lead sessions of their own, and are ended by us, whatever ends us.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    shutil.rmtree(args.dir, ignore_errors=True)
    args.dir.mkdir(parents=True)
    stores = Stores(args.dir, args.baseline, args.systems.split(",") if args.systems else None)
    old = json.loads(args.json.read_text())["rows"] if args.keep and args.json.exists() else []
    rows = {row["name"]: row for row in old}
    for store, why in stores.missing.items():
        say(f"without {store}: {why}")
    for row in args.all_rows:
        if row.name not in args.wanted:
            continue
        say(f"{row.name}: {row.title}")
        slices = measure_row(stores, row, args)
        rows[row.name] = summarize(row, slices, args.seconds, DURABILITY)
        for ratio in rows[row.name]["ratios"]:
            say(f"  {ratio['of']} / {ratio['to']}: {ratio['median']} of {ratio['values']}")
        ordered = [rows[each.name] for each in args.all_rows if each.name in rows]
        members = {
            "machine": describe_machine(args.dir),
            "missing": stores.missing,
            "rows": ordered,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(members, indent=1) + "\n")
    say(f"written: {args.json}")
    if args.page is not None:
        fill_page(json.loads(args.json.read_text()), args.page)


if __name__ == "__main__":
    main()
