#!/usr/bin/env python3
"""Measure a store that a thousand clients watch while others write.

    python bench/watchers.py --dir build/watchers --seconds 15

Three things are asked of it. **Each watcher gets every event in order**: all streams are the same to the byte, and the
revisions in one of them rise and are as many as the writes. **Writers keep at least half of their speed**: at 500
writes a second nothing is late, and 64 clients in a closed loop are compared with the same loop without watchers, slice
by slice. **Memory stays under 400 MiB.** One more watcher stops reading: it is ended with `lost`, begins anew where it
stood, and misses nothing. At last all are silent, and the processor time of that is measured.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib

from blocked import Server

RATE = 500
CLIENTS = 64
MEMORY_MIB_MAX = 400
RATIO_MIN = 0.5
IDLE_SHARE_MAX = 0.03


class Watchers:
    """Many connections, each with one watch of all keys, read by one thread."""

    def __init__(self, port: int, count: int) -> None:
        """Connect, and begin to watch."""
        self.first = bytearray()
        """What the first of them was told."""
        self.sizes: dict[int, int] = {}
        self.sums: dict[int, int] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._epoll = select.epoll()
        self._is_over = False
        for number in range(count):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.sendall(b'{"op":"watch","prefix":"","id":1}\n')
            reply = b""
            while not reply.endswith(b"\n"):
                reply += sock.recv(1)
            assert json.loads(reply)["status"] == "ok", reply
            sock.setblocking(False)
            descriptor = sock.fileno()
            self.sizes[descriptor] = self.sums[descriptor] = 0
            self._sockets[descriptor] = sock
            self._epoll.register(descriptor, select.EPOLLIN)
            if not number:
                self._first = descriptor
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._is_over:
            for descriptor, _ in self._epoll.poll(0.2, 256):
                data = self._sockets[descriptor].recv(65536)
                assert data, "a watcher was cut off"
                self.sizes[descriptor] += len(data)
                self.sums[descriptor] = zlib.crc32(data, self.sums[descriptor])
                if descriptor == self._first:
                    self.first += data

    def settle(self) -> float:
        """Wait until all have been told the same; return how long that took."""
        began = time.monotonic()
        last = None
        while True:
            time.sleep(0.2)
            now = max(self.sizes.values())
            if now == last and len(set(self.sizes.values())) == 1:
                return time.monotonic() - began - 0.2
            if time.monotonic() - began > 60:
                raise SystemExit(f"streams of {min(self.sizes.values())} to {now} bytes after a minute")
            last = now

    def check(self) -> int:
        """Return how many events each was told, all in order; exit if that is not so."""
        if len(set(self.sums.values())) != 1:
            raise SystemExit(f"{len(set(self.sums.values()))} different streams")
        lines = [json.loads(line) for line in self.first.splitlines()]
        revisions = [line["revision"] for line in lines]
        if revisions != sorted(set(revisions)):
            raise SystemExit("revisions do not rise")
        return sum(len(line["events"]) for line in lines)

    def close(self) -> None:
        """End all."""
        self._is_over = True
        self._thread.join()
        for sock in self._sockets.values():
            sock.close()


def load(port: int, seconds: float, *options: str) -> dict[str, object]:
    """Let 64 clients write; return the figures of `trio-kv bench`."""
    command = [sys.executable, "-m", "trio_kv", "bench", "--json", "--port", str(port), "--mix", "100"]
    command += ["--warm-up", "0", "--duration", str(seconds), "--connections", str(CLIENTS), *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    figures = json.loads(done.stdout)
    assert not figures["errors"], figures
    return figures


def processor_s(pid: int) -> float:
    """Return how long a process has used a processor."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stopped_reader(port: int, rate: float) -> dict[str, object]:
    """Stop reading until the watch is lost, begin anew, and look for gaps."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    lines = sock.makefile("rb")
    sock.sendall(b'{"op":"watch","prefix":"","id":1}\n')
    begun = json.loads(lines.readline())["revision"]
    told: list[int] = []
    writer = threading.Thread(target=load, args=(port, 25.0, "--rate", str(rate), "--value-bytes", "1000"))
    writer.start()
    time.sleep(20.0)
    lost = 0
    while not lost:
        line = json.loads(lines.readline())
        if line.get("event") == "lost":
            lost = line["revision"]
        else:
            told.append(line["revision"])
    sock.sendall(b'{"op":"watch","prefix":"","id":2,"from":%d}\n' % lost)
    again = json.loads(lines.readline())
    assert again["status"] == "ok", again
    writer.join()
    sock.sendall(b'{"key":"end","value":1,"meta":true}\n')
    end = None
    while end is None or told[-1] < end:
        line = json.loads(lines.readline())
        if "watch" in line:
            told.append(line["revision"])
        else:
            end = line["revision"]
    sock.close()
    gaps = [(a, b) for a, b in itertools.pairwise(told) if b <= a]
    return {"begun": begun, "lost_at": lost, "told": len(told), "repeats": gaps, "end": end}


def main() -> None:
    """Measure, print, and exit 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dir", type=pathlib.Path, default=None, help="where the data goes")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--parts", default="rate,speed,lost,idle")
    options = parser.parse_args()
    base = options.dir or pathlib.Path(tempfile.mkdtemp(prefix="watchers-"))
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = Server(base / "data", **quiet)
    failures: list[str] = []
    try:
        measure(server, options, failures)
    finally:
        server.stop()
        with contextlib.suppress(OSError):
            shutil.rmtree(base)
    for failure in failures:
        print("FAILED:", failure)
    sys.exit(bool(failures))


def measure(server: Server, options: argparse.Namespace, failures: list[str]) -> None:
    """Measure all parts that were asked for."""
    parts, port = options.parts.split(","), server.port
    if "lost" in parts:
        found = stopped_reader(port, 1000)
        print("a watcher that stopped reading:", json.dumps(found))
        if found["repeats"]:
            failures.append("a lost watcher was told something twice")
    alone: list[float] = []
    watched: list[float] = []
    if "speed" in parts:
        alone = [float(load(port, 3.0)["per_second"]) for _ in range(3)]
    watchers = Watchers(port, options.watchers)
    print(f"{options.watchers} watchers: {server.memory_mib('VmRSS')} MiB")
    if "rate" in parts:
        figures = load(port, options.seconds, "--rate", str(RATE))
        late_s = watchers.settle()
        events = watchers.check()
        print(f"{RATE} writes a second: {json.dumps(figures)[:600]}")
        print(f"each was told {events} events, {late_s:.1f} s after the last write at the latest")
    if "speed" in parts:
        watched = [float(load(port, 3.0)["per_second"]) for _ in range(3)]
        watchers.settle()
        watchers.check()
        ratio = statistics.median(watched) / statistics.median(alone)
        print(f"64 clients: {alone} alone, {watched} watched: {ratio:.2f}")
        if ratio < RATIO_MIN:
            failures.append(f"writers keep {ratio:.2f} of their speed")
    memory = server.memory_mib("VmHWM")
    print(f"memory at most: {memory} MiB")
    if memory > MEMORY_MIB_MAX:
        failures.append(f"{memory} MiB of memory")
    if "idle" in parts:
        time.sleep(2.0)
        began, used = time.monotonic(), processor_s(server.process.pid)
        time.sleep(options.seconds)
        share = (processor_s(server.process.pid) - used) / (time.monotonic() - began)
        print(f"idle: {share:.2%} of a processor")
        if share > IDLE_SHARE_MAX:
            failures.append(f"{share:.2%} of a processor while idle")
    watchers.close()


if __name__ == "__main__":
    main()
