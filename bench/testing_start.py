"""Measure how long a test waits for a cluster of `trio_kv.testing`: `python bench/testing_start.py [TIMES]`."""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import trio

from trio_kv.testing import Cluster, open_cluster, open_server

TIMES = 50


async def start_and_end(
    opening: Callable[[], AbstractAsyncContextManager[Cluster]],
) -> tuple[float, float, float]:
    """Return how long a cluster took to start, how much of a processor that was, and how long it took to end; in ms."""
    began_s, used_s = time.perf_counter(), time.process_time()
    async with opening():
        started_s, start_used_s = time.perf_counter() - began_s, time.process_time() - used_s
        ends_s = time.perf_counter()
    return 1000 * started_s, 1000 * start_used_s, 1000 * (time.perf_counter() - ends_s)


def show(name: str, figures: list[tuple[float, float, float]]) -> None:
    """Print the medians, and the slowest start."""
    start, used, end = (statistics.median(column) for column in zip(*figures, strict=True))
    slowest = max(figure[0] for figure in figures)
    print(
        f"{name}: start {start:.0f} ms ({used:.0f} ms of a processor, slowest {slowest:.0f} ms), end {end:.0f} ms"
    )


def start_and_end_in_thread() -> tuple[float, float, float]:
    """Do the same for a server in a thread."""
    began_s, used_s = time.perf_counter(), time.process_time()
    with open_server():
        started_s, start_used_s = time.perf_counter() - began_s, time.process_time() - used_s
        ends_s = time.perf_counter()
    return 1000 * started_s, 1000 * start_used_s, 1000 * (time.perf_counter() - ends_s)


if __name__ == "__main__":
    times = int(sys.argv[1]) if len(sys.argv) > 1 else TIMES
    for nodes in (1, 3, 5):
        show(
            f"{nodes} nodes in memory",
            [trio.run(start_and_end, partial(open_cluster, nodes)) for _ in range(times)],
        )
    with tempfile.TemporaryDirectory() as folder:
        show(
            "3 nodes on disk",
            [
                trio.run(start_and_end, partial(open_cluster, path=Path(folder, str(number))))
                for number in range(times)
            ],
        )
    show("3 nodes in a thread, with a port", [start_and_end_in_thread() for _ in range(times)])
