#!/usr/bin/env python3
"""A host that was away while a million keys were written comes back, while further writes go on.

    python bench/catch_up.py            # three hosts on ports of this machine, 1,000,000 keys, 1,000 writes a second

It tells how long the follower took, and how late heartbeats came meanwhile: the replies of the leader's heartbeats by
the histogram of its metrics, and how late its event loop was. A heartbeat is late from half an election time-out on.
"""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LATE_S = 0.1
"""Half of the least election time-out."""
FOLLOWER = 3
COUNT = 3
WAIT_S = 600.0
PYTHON = [sys.executable, "-m", "trio_kv"]
BUCKET = re.compile(
    r"^trio_kv_(network_peer_round_trip_time|runtime_loop_lag)_seconds_bucket\{(.*)\} (\S+)$", re.MULTILINE
)


def run(*command: str) -> str:
    """Run a command of trio-kv; return what it says."""
    return subprocess.run([*PYTHON, *command], check=True, capture_output=True, text=True).stdout


class Hosts:
    """Three hosts on ports of this machine."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "cluster.toml"
        run("cluster", "init", str(folder), "--with-certificates")
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        for node in range(1, COUNT + 1):
            run("cluster", "create", "--cluster", str(self._file), "--node", str(node))

    def start(self, node: int) -> None:
        """Start a host."""
        command = [*PYTHON, "serve", "--cluster", str(self._file), "--node", str(node)]
        self._processes[node] = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill(self, node: int) -> None:
        """Kill a host."""
        self._processes[node].kill()
        self._processes[node].wait()

    def end(self) -> None:
        """Kill all."""
        for process in self._processes.values():
            process.kill()
            process.wait()


def door(node: int) -> int:
    """Return a host's port for clients, as `cluster init` gives them."""
    return 2999 + 2 * node


def status(node: int) -> dict[str, Any]:
    """Return what a host knows of all nodes; nothing while it can't be reached."""
    with contextlib.suppress(subprocess.CalledProcessError):
        found: dict[str, Any] = json.loads(run("status", "--port", str(door(node)), "--output", "json"))
        return found
    return {}


def wait_for(what: str, is_so: Any) -> float:
    """Wait until something is so; return how long that took."""
    began_at = time.monotonic()
    while not is_so():
        if time.monotonic() - began_at > WAIT_S:
            raise SystemExit(f"{what}: not within {WAIT_S:g} s")
        time.sleep(0.2)
    return time.monotonic() - began_at


def late(node: int) -> dict[str, tuple[int, int]]:
    """Return of each histogram how many there are in all, and how many took longer than `LATE_S`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{door(node) + 1}/metrics") as reply:
        text = reply.read().decode()
    found: dict[str, dict[float, int]] = {}
    for name, labels, count in BUCKET.findall(text):
        bound = re.search(r'le="([^"]+)"', labels)
        others = re.sub(r',?le="[^"]+"', "", labels)
        assert bound is not None
        found.setdefault(f"{name} {others}".strip(), {})[float(bound[1])] = int(float(count))
    told = {}
    for name, buckets in found.items():
        total = buckets[float("inf")]
        within = max(count for bound, count in buckets.items() if bound <= LATE_S * 1.03)
        told[name] = (total, total - within)
    return told


def load(*options: str) -> "subprocess.Popen[bytes]":
    """Begin to load the first host."""
    command = [*PYTHON, "bench", "--port", str(door(1)), "--json", "--mix", "100", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@contextlib.contextmanager
def opened() -> Iterator[Hosts]:
    """Give hosts that are ended when the block is left."""
    with tempfile.TemporaryDirectory(prefix="trio_kv-") as folder:
        hosts = Hosts(Path(folder) / "setup")
        try:
            yield hosts
        finally:
            hosts.end()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=1000)
    arguments = parser.parse_args()
    with opened() as hosts:
        for node in range(1, COUNT + 1):
            hosts.start(node)
        wait_for("a leader", lambda: status(1).get("leader"))
        hosts.kill(FOLLOWER)
        wait_for("a leader", lambda: status(1).get("leader") in {1, 2})
        began_at = time.monotonic()
        load("--keys", str(arguments.keys), "--fill", "--duration", "1").wait()
        print(f"{arguments.keys:,} keys were written in {time.monotonic() - began_at:.0f} s")
        leader = status(1)["leader"]
        term = status(1)["term"]
        rated = load("--rate", str(arguments.rate), "--keys", str(arguments.keys), "--duration", "60")
        time.sleep(3)
        before = late(leader)
        hosts.start(FOLLOWER)

        def is_near() -> bool:
            nodes = {node["node"]: node for node in status(1).get("nodes", [])}
            own = nodes.get(FOLLOWER, {})
            return (
                own.get("state") == "up" and own["applied"] >= nodes[leader]["applied"] - 2 * arguments.rate
            )

        took_s = wait_for("the follower", is_near)
        after = late(leader)
        print(
            f"node {FOLLOWER} had all of it after {took_s:.1f} s, beside {arguments.rate:,} writes a second"
        )
        for name, (total, slow) in after.items():
            was = before.get(name, (0, 0))
            print(
                f"  {name}: {total - was[0]:,}, of which {slow - was[1]:,} took longer than {LATE_S * 1000:g} ms"
            )
        now = status(1)
        print(f"  leader {leader} of term {term} before, {now['leader']} of term {now['term']} after")
        assert rated.stdout is not None
        figures = json.loads(rated.stdout.read())
        print(
            f"  writes: {figures['per_second']:,.0f} a second, p50 {figures['p50_ms']:.2f} ms,"
            f" p99 {figures['p99_ms']:.1f} ms, errors {figures['errors']},"
            f" longest gap {figures['longest_gap_ms']:.0f} ms"
        )


if __name__ == "__main__":
    main()
