#!/usr/bin/env python3
"""A load generator for the two base requests: many connections, a number of requests in flight on each.

One process, bare epoll, so that it takes as little of the machine from the server as Python can.

    python bench/load.py --port 3001 --operation set --connections 64 --pipeline 1 --seconds 3

It prints one line of JSON: operations a second, latencies in milliseconds, errors.
"""

import argparse
import json
import random
import select
import socket
import time


class Connection:
    """One connection with a batch of requests in flight."""

    def __init__(self, port: int) -> None:
        """Connect."""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.missing = 0
        self.sent_at = 0.0
        self.errors = 0

    def send(self, batch: bytes, count: int) -> None:
        """Put a batch of requests in flight."""
        self.missing = count
        self.sent_at = time.perf_counter()
        while batch:
            try:
                batch = batch[self.socket.send(batch) :]
            except BlockingIOError:
                select.select([], [self.socket], [])

    def receive(self) -> bool:
        """Take what came; return whether the whole batch is answered."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.missing -= data.count(b"\n")
        self.errors += data.count(b'"error": ')
        return self.missing <= 0


def make_batches(operation: str, keys: int, value_bytes: int, pipeline: int) -> list[bytes]:
    """Return ready-made batches, so that making them costs nothing during the run."""
    source = random.Random(1)
    value = "x" * value_bytes
    batches = []
    for _ in range(512):
        lines = []
        for _ in range(pipeline):
            key = f"k{source.randrange(keys):07d}"
            is_set = operation == "set" or (operation == "mix" and source.random() < 0.5)
            request = {"key": key, "value": value} if is_set else {"key": key}
            lines.append(json.dumps(request) + "\n")
        batches.append("".join(lines).encode())
    return batches


def run(args: argparse.Namespace) -> dict[str, float]:
    """Load the server for the given time; return the figures."""
    batches = make_batches(args.operation, args.keys, args.value_bytes, args.pipeline)
    poll = select.epoll()
    connections = {}
    for _ in range(args.connections):
        connection = Connection(args.port)
        connections[connection.socket.fileno()] = connection
        poll.register(connection.socket.fileno(), select.EPOLLIN)
    latencies: list[float] = []
    count = 0
    begin = time.perf_counter()
    end = begin + args.seconds
    for connection in connections.values():
        connection.send(batches[count % 512], args.pipeline)
        count += 1
    now = begin
    while now < end:
        for number, _ in poll.poll(1.0):
            connection = connections[number]
            if connection.receive():
                now = time.perf_counter()
                latencies.append(now - connection.sent_at)
                connection.send(batches[count % 512], args.pipeline)
                count += 1
        now = time.perf_counter()
    latencies.sort()
    return {
        "per_second": round(len(latencies) * args.pipeline / (now - begin)),
        "p50_ms": round(latencies[len(latencies) // 2] * 1000, 3),
        "p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 3),
        "max_ms": round(latencies[-1] * 1000, 3),
        "errors": sum(connection.errors for connection in connections.values()),
    }


def main() -> None:
    """Parse the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=3001)
    parser.add_argument("--operation", choices=["set", "get", "mix"], default="set")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--pipeline", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--value-bytes", type=int, default=100)
    print(json.dumps(run(parser.parse_args())))


if __name__ == "__main__":
    main()
