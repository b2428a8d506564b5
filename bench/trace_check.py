"""How fast `trace check` is and how much memory it takes, on a trace of as many events as asked for.

    python bench/trace_check.py 10000000

The trace is made while it is judged, and goes through a pipe: a cluster of five nodes commits run after run.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import crc32c

NODES = (1, 2, 3, 4, 5)
ENTRY_BYTES = 64
LEADER = 1


def lines(events: int) -> Iterator[bytes]:
    """Yield the lines of a right run."""
    seq = 0

    def line(event: str, node: int | None = None, term: int = 1, **members: Any) -> bytes:
        role = "leader" if node == LEADER else "follower"
        who = {} if node is None else {"node": node, "term": term, "role": role}
        head = {"time": "2026-01-01T00:00:00.000000Z", "mono": seq / 1e5, "seq": seq, "level": "debug"}
        return json.dumps({**head, "event": event, **who, **members}, separators=(",", ":")).encode() + b"\n"

    yield line("trace.started", schema=1, version="0")
    first: list[tuple[str, int | None, dict[str, Any]]] = [
        ("cluster.started", None, {"cluster": "c", "nodes": NODES, "here": NODES})
    ]
    first += [("node.started", node, {"log_first": 1, "log_last": 0, "incarnation": node}) for node in NODES]
    first += [("election.started", LEADER, {"reason": "heard no leader"})]
    first += [("vote.granted", node, {"candidate": LEADER}) for node in (2, 3)]
    first += [("leader.elected", LEADER, {"votes": (1, 2, 3), "first_index": 1})]
    for name, node, members in first:
        seq += 1
        yield line(name, node, **members)
    index, digest = 1, 0
    while seq < events:
        data = index.to_bytes(8) * (ENTRY_BYTES // 8)
        crc, digest = crc32c.crc32c(data), crc32c.crc32c(data, digest)
        run: dict[str, Any] = {
            "first": index,
            "last": index,
            "last_term": 1,
            "crc": crc,
            "size_bytes": len(data),
        }
        applied: dict[str, Any] = {"first": index, "last": index, "last_term": 1}
        applied |= {"entries_digest": digest, "state_digest": digest ^ 1}
        told: tuple[tuple[str, dict[str, Any]], ...] = (
            ("entries.appended", run),
            ("entries.stored", {"last": index}),
            ("entries.committed", run),
            ("entries.applied", applied),
        )
        for name, members in told:
            for node in NODES:
                seq += 1
                yield line(name, node, **members)
        index += 1


def main() -> None:
    """Make a trace and judge it."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    command = [sys.executable, "-m", "trio_kv", "trace", "check", "-"]
    began_s = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.PIPE) as judge:
        assert judge.stdin is not None
        for line in lines(events):
            judge.stdin.write(line)
        judge.stdin.close()
        judge.wait()
    took_s = time.monotonic() - began_s
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = used.ru_utime + used.ru_stime
    print(
        f"{events:,} events, {took_s:.0f} s, {used_s:.0f} s of a processor: {events / used_s:,.0f} a second of it,"
        f" {used.ru_maxrss / 1024:.0f} MiB at most; {os.cpu_count()} processors"
    )
    sys.exit(judge.returncode)


if __name__ == "__main__":
    main()
