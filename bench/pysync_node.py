#!/usr/bin/env python3
"""A node of PySyncObj; the one that leads loads itself through callbacks, and prints the figures.

    python bench/pysync_node.py --journal FILE --calls 64 OWN_ADDRESS OTHER_ADDRESS...

The settings are the fastest that are known: a tick of 1 ms and appends every 2 ms. As it comes it does
10 writes a second a client. There is no hop between client and store, which no other store here is spared. Who started
the nodes ends them.
"""

import argparse
import json
import random
import threading
import time

from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.batteries import ReplDict


def load(store: ReplDict, args: argparse.Namespace) -> dict[str, object]:
    """Keep so many writes under way; return the figures."""
    source = random.Random(1)
    value = "x" * args.value_bytes
    begin = time.perf_counter() + args.warm_up
    end = begin + args.duration
    latencies: list[float] = []
    errors: dict[str, int] = {}
    under_way = threading.Semaphore(args.calls)

    def write() -> None:
        sent = time.perf_counter()

        def on_result(_result: object, error: int) -> None:
            now = time.perf_counter()
            if begin <= now < end:
                if error:
                    errors[str(error)] = errors.get(str(error), 0) + 1
                else:
                    latencies.append(now - sent)
            under_way.release()

        store.set(f"bench:{source.randrange(args.keys):07}", value, callback=on_result)

    while time.perf_counter() < end:
        if under_way.acquire(timeout=1.0):
            write()
    latencies.sort()
    shares = {"p50_ms": 0.5, "p99_ms": 0.99} if latencies else {}
    return {
        "per_second": len(latencies) / args.duration,
        **{name: latencies[int(share * len(latencies))] * 1000 for name, share in shares.items()},
        "errors": errors,
        "wrong": 0,
    }


def main() -> None:
    """Join, and load if it is this node that leads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--journal", required=True)
    parser.add_argument("--calls", type=int, default=64)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--value-bytes", type=int, default=100)
    parser.add_argument("--warm-up", type=float, default=0.5)
    parser.add_argument("--duration", type=float, default=2.0)
    parser.add_argument("addresses", nargs="+")
    args = parser.parse_args()
    store = ReplDict()
    conf = SyncObjConf(autoTickPeriod=0.001, appendEntriesPeriod=0.002, journalFile=args.journal)
    node = SyncObj(args.addresses[0], args.addresses[1:], consumers=[store], conf=conf)
    while not (node.isReady() and node._isLeader()):  # noqa: SLF001 - it has no public word for it
        time.sleep(0.05)
    print(json.dumps(load(store, args)), flush=True)


if __name__ == "__main__":
    main()
