#!/usr/bin/env python3
"""Overwrite few keys very often, and watch what the disk and the memory hold.

    python bench/overwrites.py --dir build/overwrites --writes 10000000 --keys 10000

The bound to keep: nodes x (2 segments + 2 snapshots) and, as reserve, one prepared segment a node. It
starts the store itself, samples it, and ends with exit status 1 if the bound was passed.
"""

import argparse
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

SEGMENT_BYTES = 8 << 20
PORT = 3111


def start(data_dir: pathlib.Path, nodes: int) -> subprocess.Popen[str]:
    """Start the store and wait until it is ready."""
    command = [
        sys.executable,
        "-m",
        "trio_kv",
        "serve",
        "--port",
        str(PORT),
        "--control-port",
        "0",
        "--log-json",
    ]
    command += ["--data-dir", str(data_dir), "--nodes", str(nodes)]
    server = subprocess.Popen(command, stderr=(data_dir.parent / "server.log").open("w"), text=True)
    while "server.started" not in (data_dir.parent / "server.log").read_text():
        time.sleep(0.1)
        if server.poll() is not None:
            raise SystemExit("the store did not start")
    return server


def disk_bytes(data_dir: pathlib.Path) -> tuple[int, int]:
    """Return the bytes of all files, and of the largest snapshot."""
    total, largest = 0, 0
    for file in data_dir.glob("node-*/*"):
        try:
            size = file.stat().st_size
        except FileNotFoundError:
            continue
        total += size
        if ".snap" in file.name:
            largest = max(largest, size)
    return total, largest


def memory_mib(pid: int) -> int:
    """Return the process's resident memory."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024


def main() -> None:
    """Run the load, sample, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--writes", type=int, default=10_000_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=5)
    args = parser.parse_args()
    shutil.rmtree(args.dir, ignore_errors=True)
    args.dir.mkdir(parents=True)
    data_dir = args.dir / "data"
    server = start(data_dir, args.nodes)
    load = [sys.executable, "-m", "trio_kv", "bench", "--json", "--port", str(PORT), "--mix", "100"]
    load += ["--connections", "32", "--pipeline", "64", "--warm-up", "0", "--duration", "10"]
    load += ["--keys", str(args.keys)]
    done, worst, peak_disk, peak_memory, begin = 0, 0.0, 0, 0, time.monotonic()
    try:
        while done < args.writes:
            with subprocess.Popen(load, stdout=subprocess.PIPE, text=True) as client:
                while client.poll() is None:
                    total, snapshot = disk_bytes(data_dir)
                    bound = args.nodes * (3 * SEGMENT_BYTES + 2 * snapshot) + (1 << 20)
                    worst = max(worst, total / bound)
                    peak_disk, peak_memory = max(peak_disk, total), max(peak_memory, memory_mib(server.pid))
                    time.sleep(0.5)
                assert client.stdout is not None
                figures = json.loads(client.stdout.read())
            assert not figures["errors"], figures
            done += figures["per_second"] * 10
            print(
                f"{done:>11,} writes, {time.monotonic() - begin:5.0f} s, disk {peak_disk >> 20} MiB at most"
                f" ({worst:.2f} of the bound), memory {memory_mib(server.pid)} MiB",
                flush=True,
            )
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)
    print(f"peak disk {peak_disk >> 20} MiB, {worst:.2f} of the bound; peak memory {peak_memory} MiB")
    raise SystemExit(0 if worst <= 1 else 1)


if __name__ == "__main__":
    main()
