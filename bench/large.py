#!/usr/bin/env python3
"""A million keys: what snapshots cost a load of writes, how long a restart takes, and the memory of it all.

    python bench/large.py --dir build/large --keys 1000000

It fills the store, then loads it with overwrites and prints the writes of each second beside the
snapshots that were taken in it; then it kills the store and starts it again.
"""

import argparse
import json
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time

PORT = 3121
BATCH = 256
CONNECTIONS = 16


class Server:
    """The store as a process, and what it logs."""

    def __init__(self, data_dir: pathlib.Path, nodes: int) -> None:
        """Start it; return when it is ready."""
        command = [
            sys.executable,
            "-P",  # not what lies in the working directory
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
        self.snapshots = 0
        self.loading: list[str] = []
        begin = time.perf_counter()
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._ready = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        if not self._ready.wait(300):
            raise SystemExit("the store did not start")
        self.ready_s = time.perf_counter() - begin
        # Ready in earnest: it answers a write, which it can only when all of the log is applied.
        with socket.create_connection(("127.0.0.1", PORT)) as connection, connection.makefile("rb") as lines:
            reply = b""
            while b'"ok"' not in reply:
                connection.sendall(b'{"key":"ready","value":true,"timeout":60}\n')
                reply = lines.readline()
        self.answers_s = time.perf_counter() - begin

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            event = json.loads(line)
            if event["event"] == "server.started":
                self._ready.set()
            elif event["event"] == "snapshot.taken":
                self.snapshots += 1
            elif event["event"] == "node.loading":
                self.loading.append(f"n{event['node']} {event['percent']} %")
            elif event["level"] in ("warning", "error"):
                print(line.strip())

    def memory_mib(self) -> int:
        """Return the process's resident memory."""
        lines = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024

    def kill(self) -> None:
        """Let it die as if the power failed."""
        self.process.kill()
        self.process.wait()


class Load:
    """Writes by many connections, each with a batch in flight."""

    def __init__(self, keys: int) -> None:
        """Write to so many keys, in turn."""
        self.keys = keys
        self.next = 0
        self.done = 0
        self.until: int | None = None
        self.is_stopping = False
        self.lock = threading.Lock()

    def run(self, until: int | None = None) -> list[threading.Thread]:
        """Start writing, up to a number of writes or until told to stop."""
        self.until = until
        threads = [threading.Thread(target=self._write, daemon=True) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        return threads

    def _take(self) -> range | None:
        with self.lock:
            if self.is_stopping or (self.until is not None and self.next >= self.until):
                return None
            self.next += BATCH
            return range(self.next - BATCH, self.next)

    def _write(self) -> None:
        value = "x" * 100
        with socket.create_connection(("127.0.0.1", PORT)) as connection, connection.makefile("rb") as lines:
            while (batch := self._take()) is not None:
                requests = [f'{{"key":"key{n % self.keys:08d}","value":"{value}"}}\n' for n in batch]
                connection.sendall("".join(requests).encode())
                for _ in batch:
                    reply = lines.readline()
                    assert b'"ok"' in reply, reply
                self.done += BATCH


def main() -> None:
    """Fill, load, restart; print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to a file")
    args = parser.parse_args()
    shutil.rmtree(args.dir, ignore_errors=True)
    server = Server(args.dir, args.nodes)
    load = Load(args.keys)
    begin = time.perf_counter()
    for thread in load.run(until=args.keys):
        thread.join()
    figures: dict[str, float] = {"filled_mib": server.memory_mib()}
    print(f"filled in {time.perf_counter() - begin:.0f} s; memory {figures['filled_mib']} MiB", flush=True)
    threads = load.run()
    seconds, beside = [], []
    for _ in range(args.seconds):
        done, snapshots = load.done, server.snapshots
        time.sleep(1)
        seconds.append(load.done - done)
        beside.append(server.snapshots - snapshots)
    load.is_stopping = True
    for thread in threads:
        thread.join()
    print("writes each second:", " ".join(str(each) for each in seconds))
    print("snapshots finished:", " ".join(str(each) for each in beside))
    print(
        f"worst second {min(seconds)}, median {statistics.median(seconds):.0f}, "
        f"ratio {min(seconds) / statistics.median(seconds):.2f}, {sum(beside)} snapshots finished",
        flush=True,
    )
    figures["overwritten_mib"] = server.memory_mib()
    print(f"memory before the restart {figures['overwritten_mib']} MiB")
    server.kill()
    server = Server(args.dir, args.nodes)
    print(f"ready after {server.ready_s:.1f} s, answers after {server.answers_s:.1f} s")
    print(f"progress told: {server.loading}")
    time.sleep(5)
    figures |= {
        "restarted_mib": server.memory_mib(),
        "ready_s": server.ready_s,
        "answers_s": server.answers_s,
    }
    figures |= {
        "median_second": statistics.median(seconds),
        "worst_second": min(seconds),
        "snapshots": sum(beside),
    }
    print(f"memory after the restart {figures['restarted_mib']} MiB")
    server.kill()
    if args.json:
        args.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
