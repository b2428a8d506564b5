#!/usr/bin/env python3
"""Measure the client on Trio: 64 tasks on one connection, beside 64 connections of `trio-kv bench`.

    python bench/client_tasks.py --dir build/client --rounds 7 --seconds 3

One server of three nodes serves both, slice by slice in turn; the same keys, values and mix. The load of `trio-kv
bench` sends ready-made bytes and reads a sample of the answers; the client encodes each request, gives each answer to
the task that waits for it, and numbers its writes (`--plain`: it does not). The median of the ratios of two slices
counts, since the machine may be busy with other things.
"""

import argparse
import itertools
import json
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import trio
from blocked import Server

from trio_kv import open_client
from trio_kv.cli.bench.workload import is_value_of, key_of, value_of

TASKS = 64
KEYS = 10_000
VALUE_BYTES = 100
RATIO_MIN = 0.9
MIXES = {"set": 100.0, "get": 0.0, "mixed": 50.0}


async def use_client(port: int, mix: float, seconds: float, *, is_plain: bool) -> dict[str, float]:
    """Let the tasks of one client load the server; return figures."""
    source, numbers = random.Random(1), itertools.count(1)
    drawn = [(source.random() * 100 < mix, key_of(source.randrange(KEYS))) for _ in range(16_384)]
    requests = itertools.cycle(drawn)
    count = 0

    async def use() -> None:
        nonlocal count
        while time.perf_counter() < end_s:
            is_set, key = next(requests)
            if is_set:
                await kv.set(key, value_of(key, next(numbers), VALUE_BYTES))
            else:
                reply = await kv.get(key)
                assert reply.data is None or is_value_of(key, reply.data), reply
            count += 1

    async with open_client(port=port, repeats_writes=not is_plain) as kv:
        await kv.set("ready", 1)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        end_s = began_s + seconds
        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(use)
        took_s = time.perf_counter() - began_s
        told = kv.statistics()
    assert told.connections == 1
    cpu_us = (time.process_time() - began_cpu_s) / count * 1e6
    return {"per_second": count / took_s, "processor_us": cpu_us}


def run(command: list[str]) -> dict[str, float]:
    """Run one slice in a process of its own."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return json.loads(done.stdout)


def compare(server: Server, mix: float, arguments: argparse.Namespace) -> dict[str, object]:
    """Measure both in turn, now this first and now that."""
    bench = [sys.executable, "-m", "trio_kv", "bench", "--json", "--port", str(server.port)]
    bench += ["--mix", str(mix), "--warm-up", "0", "--duration", str(arguments.seconds)]
    client = [sys.executable, __file__, "--port", str(server.port), "--seconds", str(arguments.seconds)]
    client += ["--mix", str(mix)] + ["--plain"] * arguments.plain
    rates: dict[str, list[float]] = {"bench": [], "client": []}
    processor_us = []
    for number in range(arguments.rounds):
        for name in ("bench", "client") if number % 2 else ("client", "bench"):
            figures = run(bench if name == "bench" else client)
            assert not figures.get("errors"), figures
            rates[name].append(figures["per_second"])
            if name == "client":
                processor_us.append(figures["processor_us"])
    ratios = [mine / other for mine, other in zip(rates["client"], rates["bench"], strict=True)]
    return {
        "bench_per_second": round(statistics.median(rates["bench"])),
        "client_per_second": round(statistics.median(rates["client"])),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(each, 2) for each in sorted(ratios)],
        "client_processor_us": round(statistics.median(processor_us), 1),
    }


def main() -> int:
    """Measure; return 0 if the client is fast enough with all mixes, else 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dir", type=pathlib.Path, help="where the server keeps its data; default: a new one"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--mixes", default=",".join(MIXES))
    parser.add_argument("--plain", action="store_true", help="writes without numbers")
    parser.add_argument("--port", type=int, help="be one slice of the client, with --mix")
    parser.add_argument("--mix", type=float, default=50.0)
    arguments = parser.parse_args()
    if arguments.port is not None:
        figures = trio.run(
            lambda: use_client(arguments.port, arguments.mix, arguments.seconds, is_plain=arguments.plain)
        )
        sys.stdout.write(json.dumps(figures))
        return 0
    folder = pathlib.Path(tempfile.mkdtemp(prefix="client_tasks-", dir=arguments.dir))
    server = Server(folder, "--nodes", "3", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    told: dict[str, dict[str, object]] = {}
    try:
        fill = [sys.executable, "-m", "trio_kv", "bench", "--json", "--port", str(server.port), "--fill"]
        run([*fill, "--warm-up", "1", "--duration", "1"])
        for name in arguments.mixes.split(","):
            told[name] = compare(server, MIXES[name], arguments)
            print(name, json.dumps(told[name]), flush=True)
    finally:
        server.stop()
        shutil.rmtree(folder)
    is_fast = all(float(str(each["ratio"])) >= RATIO_MIN for each in told.values())
    print(f"at least {RATIO_MIN} of the bench: {is_fast}")
    return 0 if is_fast else 1


if __name__ == "__main__":
    sys.exit(main())
