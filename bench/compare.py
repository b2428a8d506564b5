#!/usr/bin/env python3
"""Measure trio_kv beside the floor: same machine, same minutes, slices in turn, ratios pair by pair.

    python bench/compare.py --dir build/bench --pairs 9 --seconds 2

`floor.py` is a replicated log with group commit and no consensus: what Trio, JSON and fsync cost by themselves. The
machine may be busy with other things, so only the ratio of two slices that follow each other means anything, and
only the median of several. Both servers write to the same real disk.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
POINTS = [
    ("set", 64, 1),
    ("get", 64, 1),
    ("set", 1, 1),
    ("get", 1, 1),
    ("set", 64, 16),
    ("get", 64, 16),
]


def start(command: list[str], ready: str) -> subprocess.Popen[str]:
    """Start a server and wait for the line that says it is ready."""
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        if ready in line:
            return server
    raise SystemExit(f"{command} ended before it was ready")


def load(port: int, operation: str, connections: int, pipeline: int, seconds: float) -> dict[str, float]:
    """Run the load generator in a process of its own; return its figures."""
    command = [sys.executable, str(HERE / "load.py"), "--port", str(port), "--operation", operation]
    command += ["--connections", str(connections), "--pipeline", str(pipeline), "--seconds", str(seconds)]
    figures: dict[str, float] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    assert not figures["errors"], f"{operation}: {figures['errors']} errors"
    return figures


def measure(
    ports: dict[str, int], point: tuple[str, int, int], pairs: int, seconds: float
) -> dict[str, object]:
    """Measure both servers in turn; return the medians."""
    slices: dict[str, list[dict[str, float]]] = {name: [] for name in ports}
    for _ in range(pairs):
        for name, port in ports.items():
            slices[name].append(load(port, *point, seconds))
    ratios = [
        ours["per_second"] / floor["per_second"]
        for ours, floor in zip(slices["trio_kv"], slices["floor"], strict=True)
    ]
    median = {
        name: {key: statistics.median(figures[key] for figures in measured) for key in measured[0]}
        for name, measured in slices.items()
    }
    return {"point": point, "ratio": statistics.median(ratios), "ratios": ratios, **median}


def main() -> None:
    """Start both servers, measure all points, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dir", type=pathlib.Path, required=True, help="a folder on a real disk; emptied first"
    )
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument(
        "--points", type=int, default=len(POINTS), help="how many of the points, from the first"
    )
    args = parser.parse_args()
    shutil.rmtree(args.dir, ignore_errors=True)
    args.dir.mkdir(parents=True)
    ports = {"trio_kv": 3101, "floor": 3102}
    ours = [sys.executable, "-m", "trio_kv", "serve", "--port", "3101", "--control-port", "0", "--log-json"]
    ours += ["--data-dir", str(args.dir / "trio_kv"), "--nodes", str(args.nodes)]
    floor = [sys.executable, str(HERE / "floor.py"), "--port", "3102", "--nodes", str(args.nodes)]
    servers = [
        start(ours, "server.started"),
        start([*floor, "--dir", str(args.dir / "floor")], "ready"),
    ]
    try:
        print(
            "| operation | connections x pipeline | trio_kv /s | p50 ms | p99 ms | floor /s | p50 ms | ratio |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for point in POINTS[: args.points]:
            row = measure(ports, point, args.pairs, args.seconds)
            us, them = row["trio_kv"], row["floor"]
            print(
                f"| {point[0]} | {point[1]} x {point[2]} | {us['per_second']:,.0f} | {us['p50_ms']:.2f} |"
                f" {us['p99_ms']:.2f} | {them['per_second']:,.0f} | {them['p50_ms']:.2f} | **{row['ratio']:.2f}** |",
                flush=True,
            )
            time.sleep(0.5)
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.communicate(timeout=10)


if __name__ == "__main__":
    main()
