#!/usr/bin/env python3
"""A host that was away while a million keys were written comes back, while further writes go on.

    python bench/catch_up.py            # three hosts on ports of this machine, 1,000,000 keys, 1,000 writes a second

It tells how long the follower took, and how late heartbeats came meanwhile: the replies of the leader's heartbeats by
the histogram of its metrics, and how late the event loop of each host was. A heartbeat is late from half an election
time-out on. `--keep` keeps the hosts' logs, which tell of elections and why they were.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trio_kv.client.client import Client
from trio_kv.client.errors import StoreError

LATE_S = 0.1
"""Half of the least election time-out."""
FOLLOWER = 3
NODES = (1, 2, 3)
WAIT_S = 600.0
PYTHON = [sys.executable, "-m", "trio_kv"]
LAG = "runtime_loop_lag"
BUCKET = re.compile(
    r"^trio_kv_(network_peer_round_trip_time|runtime_loop_lag)_seconds_bucket\{(.*)\} (\S+)$", re.MULTILINE
)


def run(*command: str) -> str:
    """Run a command of trio-kv; return what it says."""
    return subprocess.run([*PYTHON, *command], check=True, capture_output=True, text=True).stdout


class Hosts:
    """Three hosts on ports of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "cluster.toml"
        run("cluster", "init", str(folder), "--with-certificates")
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        # One connection each, kept: a process for each question would take the processor from what is measured.
        self._clients = {node: Client(port=door(node), timeout_s=5) for node in NODES}
        for node in NODES:
            run("cluster", "create", "--cluster", str(self._file), "--node", str(node))

    def start(self, node: int) -> None:
        """Start a host."""
        command = [*PYTHON, "serve", "--log-json", "--cluster", str(self._file), "--node", str(node)]
        with (self._folder / f"node-{node}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, node: int) -> None:
        """Kill a host."""
        process = self._processes.pop(node)
        process.kill()
        process.wait()

    def end(self) -> None:
        """Kill all."""
        for node in list(self._processes):
            self.kill(node)
        for client in self._clients.values():
            client.close()

    def status(self, node: int) -> dict[str, Any]:
        """Return what a host knows of all nodes; nothing while it can't be reached."""
        with contextlib.suppress(StoreError):
            found: dict[str, Any] = json.loads(self._clients[node].status().line)
            return found
        return {}

    def wait_for(self, what: str, is_so: Callable[[], object]) -> float:
        """Wait until something is so; return how long that took. Ends the program when a host has ended."""
        began_at = time.monotonic()
        while not is_so():
            for node, process in self._processes.items():
                if process.poll() is not None:
                    log = (self._folder / f"node-{node}.log").read_text().splitlines()
                    raise SystemExit(f"host {node} ended with {process.returncode}: {log[-1:]}")
            if time.monotonic() - began_at > WAIT_S:
                raise SystemExit(f"{what}: not within {WAIT_S:g} s")
            time.sleep(0.2)
        return time.monotonic() - began_at


def door(node: int) -> int:
    """Return a host's port for clients, as `cluster init` gives them."""
    return 2999 + 2 * node


def late(node: int) -> dict[str, tuple[int, int]]:
    """Return of each histogram how many there are in all, and how many took longer than `LATE_S`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{door(node) + 1}/metrics", timeout=WAIT_S) as reply:
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
def opened(kept: Path | None) -> Iterator[Hosts]:
    """Give hosts that are ended when the block is left."""
    with contextlib.ExitStack() as stack:
        folder = kept or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trio_kv-")))
        hosts = Hosts(folder / "setup")
        stack.callback(hosts.end)
        yield hosts


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="a new folder for the hosts' files and logs")
    arguments = parser.parse_args()
    with opened(arguments.keep) as hosts:
        for node in NODES:
            hosts.start(node)
        hosts.wait_for("a leader", lambda: hosts.status(1).get("leader"))
        hosts.kill(FOLLOWER)
        hosts.wait_for("a leader", lambda: hosts.status(1).get("leader") in {1, 2})
        began_at = time.monotonic()
        load("--keys", str(arguments.keys), "--fill", "--duration", "1").wait()
        print(f"{arguments.keys:,} keys were written in {time.monotonic() - began_at:.0f} s", flush=True)
        catch_up(hosts, arguments.keys, arguments.rate)


def catch_up(hosts: Hosts, keys: int, rate: int) -> None:
    """Let the follower come back beside writes, and tell how that went."""
    was = hosts.status(1)
    leader, living = was["leader"], [node for node in NODES if node != FOLLOWER]
    rated = load("--rate", str(rate), "--keys", str(keys), "--duration", "60")
    time.sleep(3)
    before = {node: late(node) for node in living}
    hosts.start(FOLLOWER)

    def is_near() -> bool:
        nodes = {node["node"]: node for node in hosts.status(1).get("nodes", [])}
        own = nodes.get(FOLLOWER, {})
        return bool(own.get("state") == "up" and own["applied"] >= nodes[leader]["applied"] - 2 * rate)

    took_s = hosts.wait_for("the follower", is_near)
    now, after = hosts.status(1), {node: late(node) for node in NODES}
    print(f"node {FOLLOWER} had all of it after {took_s:.1f} s, beside {rate:,} writes a second")
    for node in NODES:
        for name, (total, slow) in after[node].items():
            total_was, slow_was = before.get(node, {}).get(name, (0, 0))
            # Each host tells what its own node saw, and what it heard of others.
            if total > total_was and (name == LAG or node == now["leader"]):
                counts = f"{total - total_was:,}, of which {slow - slow_was:,} took over {LATE_S * 1000:g} ms"
                print(f"  host {node}: {name}: {counts}")
    print(f"  leader {leader} of term {was['term']} before, {now['leader']} of term {now['term']} after")
    assert rated.stdout is not None
    figures = json.loads(rated.stdout.read())
    print(
        f"  writes: {figures['per_second']:,.0f} a second, p50 {figures['p50_ms']:.2f} ms,"
        f" p99 {figures['p99_ms']:.1f} ms, errors {figures['errors']},"
        f" longest gap {figures['longest_gap_ms']:.0f} ms"
    )


if __name__ == "__main__":
    main()
