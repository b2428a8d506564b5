#!/usr/bin/env python3
"""Measure what it costs to be seen: to count, to tell events, to write a trace, to be scraped, to be watched.

    python bench/seen.py --dir build/seen --slices 9

Five stores of five nodes side by side, each loaded for a slice in turn, so that what else the machine does meets all of
them: one as it is, one that was made to count and to tell nothing and to take no frames, one that writes a trace of all
levels, one whose metrics are read each second, and one whose frames somebody takes, as the dashboard does. Printed are
the medians of speed against the plain one in the same round, and of the processor's time for a request, which does not
depend on who else wants the processor.

To reach: with a trace 0.6 of the speed without; the plain one 0.97 of the silent one; scraped 0.97; watched 0.9.
"""

import argparse
import contextlib
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator

from systems import LineServer, Point, Process, free_ports

SILENT = """
from trio_kv.meter.histogram import Histogram
from trio_kv.proxy.meter import RequestMeter
from trio_kv.raft.state import NodeState
from trio_kv.replica.commit_times import CommitTimes
from trio_kv.control import feed
from trio_kv.trace.trace import Trace

feed.ALONE_S = 1e9

def nothing(*_, **__):
    pass

Histogram.note = RequestMeter.note_run = CommitTimes.note = NodeState.emit = Trace.emit = nothing
from trio_kv.cli.main import run
run()
"""
WATCH = """
import sys
from pathlib import Path
from trio_kv.client.control import find_door, frames
for frame in frames(find_door(Path(sys.argv[1]), None), timeout_s=30):
    if frame["number"] and len(sys.argv) == 2:
        print("ready", flush=True)
        sys.argv.append("told")
"""
SCRAPE_S = 1.0
TICKS_PER_S = 100
TARGETS = {
    "traced": ("plain", 0.6),
    "scraped": ("plain", 0.97),
    "watched": ("plain", 0.9),
    "plain": ("silent", 0.97),
}


class Server(LineServer):
    """A store, and what was measured of it."""

    def __init__(self, folder: pathlib.Path, *options: str, code: str = "") -> None:
        """Start it."""
        self.port, self.control_port = free_ports(2)
        self.data = folder / "data"
        start = ["-c", code] if code else ["-m", "trio_kv"]
        command = [sys.executable, *start, "serve", "--data-dir", str(self.data), *options]
        command += ["--port", str(self.port), "--control-port", str(self.control_port)]
        self.process = Process(command, folder / "log", "  clients  ")
        self.rates: list[float] = []
        self.cpu_us: list[float] = []

    def cpu_s(self) -> float:
        """Return the processor's time that it has had."""
        path = pathlib.Path(f"/proc/{self.process.process.pid}/stat")
        fields = path.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def measure(self, point: Point, seconds: float) -> None:
        """Load it for a slice."""
        began_s = self.cpu_s()
        figures = self.load(point, seconds, 0.0)
        self.rates.append(figures["per_second"])
        self.cpu_us.append((self.cpu_s() - began_s) / (figures["per_second"] * seconds) * 1e6)


@contextlib.contextmanager
def scraping(server: Server) -> Iterator[None]:
    """Read a server's metrics each second."""
    is_over = threading.Event()

    def scrape() -> None:
        while not is_over.wait(SCRAPE_S):
            with urllib.request.urlopen(
                f"http://127.0.0.1:{server.control_port}/metrics", timeout=30
            ) as page:
                page.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextlib.contextmanager
def watching(server: Server) -> Iterator[None]:
    """Take a server's frames, in a process of its own."""
    command = [sys.executable, "-c", WATCH, str(server.data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


AROUND = {"scraped": scraping, "watched": watching}


def measure(servers: dict[str, Server], point: Point, slices: int, seconds: float) -> None:
    """Load all servers in turn; each round begins with another one."""
    for number in range(slices):
        names = list(servers)
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            server = servers[name]
            with AROUND[name](server) if name in AROUND else contextlib.nullcontext():
                server.measure(point, seconds)


def report(servers: dict[str, Server], load: str) -> bool:
    """Print what was measured; return whether all is as it must be."""
    is_good = True
    for name, server in servers.items():
        line = f"{load:10} {name:8} {statistics.median(server.rates):8,.0f}/s"
        line += f"  {min(server.cpu_us):6.1f} us of the processor at least"
        if name in TARGETS:
            other, least = TARGETS[name]
            ratio = statistics.median(a / b for a, b in zip(server.rates, servers[other].rates, strict=True))
            work = min(servers[other].cpu_us) / min(server.cpu_us)
            line += f"; of {other}: speed {ratio:.2f}, by processor {work:.2f} (to reach: {least})"
            is_good &= ratio >= least
        print(line, flush=True)
    return is_good


def main() -> int:
    """Measure; return 0 if all is as it must be, else 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dir", type=pathlib.Path, required=True, help="a folder on a real disk; ours goes into it"
    )
    parser.add_argument("--slices", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a slice")
    parser.add_argument(
        "--loads",
        nargs="+",
        default=["100:64:1", "100:64:16", "50:64:16"],
        help="SET %%:connections:pipeline",
    )
    args = parser.parse_args()
    args.dir.mkdir(parents=True, exist_ok=True)
    path = pathlib.Path(tempfile.mkdtemp(dir=args.dir))
    servers: dict[str, Server] = {}
    try:
        servers["plain"] = Server(path / "plain")
        servers["silent"] = Server(path / "silent", code=SILENT)
        servers["traced"] = Server(path / "traced", "--trace", str(path / "trace.jsonl"))
        servers["scraped"] = Server(path / "scraped")
        servers["watched"] = Server(path / "watched")
        is_good = True
        for load in args.loads:
            mix, connections, pipeline = map(int, load.split(":"))
            point = Point(mix=mix, connections=connections, pipeline=pipeline)
            measure(servers, point, 1, 1.0)  # a warm-up, which is not counted
            for server in servers.values():
                server.rates, server.cpu_us = [], []
            measure(servers, point, args.slices, args.seconds)
            is_good &= report(servers, load)
        return 0 if is_good else 1
    finally:
        for server in servers.values():
            server.process.kill()
        shutil.rmtree(path)


if __name__ == "__main__":
    sys.exit(main())
