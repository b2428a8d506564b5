#!/usr/bin/env python3
"""Measure a store that a thousand clients watch while others write.

    python bench/watchers.py --dir build/watchers --seconds 15

Three things are asked of it. **Each watcher gets every event in order**: all streams are the same to the byte, and the
revisions in one of them rise and are as many as the writes. **Writers keep at least half of their speed**: at 500
writes a second nothing is late, and 64 clients in a closed loop are compared with the same loop on a second server
that nobody watches, slice by slice in turn. **Memory stays under 400 MiB.** One more watcher stops reading: it is
ended with `lost`, begins anew where it stood, and is told the very revisions that one was told that read all the time.
At last all are silent, with 10,000 keys that end in a day, and the processor time of that is measured.
"""

import argparse
import contextlib
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

from blocked import Server
from crc32c import crc32c

RATE = 500
CLIENTS = 64
MEMORY_MIB_MAX = 400
RATIO_MIN = 0.5
IDLE_SHARE_MAX = 0.03
IDLE_KEYS = 10_000
LOST_WRITES = 4_000
LOST_VALUE_BYTES = 8_000
"""Written while a watcher stops reading: more than the store's window and the buffers of its connection hold, and less
than nodes keep. That must be done before the connection is dropped, 30 s after it took something last."""


class Watchers:
    """Many connections, each with one watch of all keys, read by one thread.

    They share the machine with the store, so they cost as little as they can: one buffer, and a sum in hardware.
    """

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
        buffer = memoryview(bytearray(1 << 20))
        while not self._is_over:
            for descriptor, _ in self._epoll.poll(0.2, 256):
                size = self._sockets[descriptor].recv_into(buffer)
                assert size, "a watcher was cut off"
                self.sizes[descriptor] += size
                self.sums[descriptor] = crc32c(buffer[:size], self.sums[descriptor])
                if descriptor == self._first:
                    self.first += buffer[:size]

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
        """Return how many events each was told since the last call, all in order; exit if that is not so."""
        if len(set(self.sums.values())) != 1:
            raise SystemExit(f"{len(set(self.sums.values()))} different streams")
        lines = [json.loads(line) for line in self.first.splitlines()]
        revisions = [line["revision"] for line in lines]
        if revisions != sorted(set(revisions)):
            raise SystemExit("revisions do not rise")
        self.first.clear()
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


def write(port: int, lines: list[bytes]) -> None:
    """Write, 64 requests at a time."""
    with socket.create_connection(("127.0.0.1", port)) as sock, sock.makefile("rb") as replies:
        for first in range(0, len(lines), 64):
            some = lines[first : first + 64]
            sock.sendall(b"".join(some))
            for _ in some:
                assert json.loads(replies.readline())["status"] == "ok"


def processor_s(pid: int) -> float:
    """Return how long a process has used a processor."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_lines(port: int, told: list[int]) -> threading.Thread:
    """Watch all keys in a thread, note the revisions, and end with the one in which the key "end" is written."""
    sock = socket.create_connection(("127.0.0.1", port))
    lines = sock.makefile("rb")
    sock.sendall(b'{"op":"watch","prefix":"","id":1}\n')
    assert json.loads(lines.readline())["status"] == "ok"

    def read() -> None:
        with sock:
            is_end = False
            while not is_end:
                line = json.loads(lines.readline())
                told.append(line["revision"])
                is_end = line["events"][0]["key"] == "end"

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def stopped_reader(port: int) -> dict[str, object]:
    """Stop reading until the watch is lost, begin anew, and compare with one that read all the time."""
    all_told: list[int] = []
    witness = read_lines(port, all_told)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.connect(("127.0.0.1", port))
    lines = sock.makefile("rb")
    sock.sendall(b'{"op":"watch","prefix":"","id":1}\n')
    begun = json.loads(lines.readline())["revision"]
    value = b"x" * LOST_VALUE_BYTES
    write(
        port, [b'{"key":"large/%d","value":"%b"}\n' % (number % 100, value) for number in range(LOST_WRITES)]
    )
    told: list[int] = []
    line = json.loads(lines.readline())
    while "events" in line:
        told.append(line["revision"])
        line = json.loads(lines.readline())
    lost = line["revision"]
    sock.sendall(b'{"op":"watch","prefix":"","id":2,"from":%d}\n' % lost)
    again = json.loads(lines.readline())
    assert again["status"] == "ok", again
    write(port, [b'{"key":"end","value":1}\n'])
    witness.join()
    first_life = len(told)
    while told[-1] < all_told[-1]:
        told.append(json.loads(lines.readline())["revision"])
    sock.close()
    due = [revision for revision in all_told if revision > begun]
    return {
        "begun": begun,
        "lost_at": lost,
        "told_before": first_life,
        "told": len(told),
        "is_whole": told == due,
    }


def main() -> None:
    """Measure, print, and exit 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dir", type=pathlib.Path, default=None, help="where the data goes")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--parts", default="rate,speed,lost,idle")
    options = parser.parse_args()
    base = options.dir or pathlib.Path(tempfile.mkdtemp(prefix="watchers-"))
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    failures: list[str] = []
    with contextlib.ExitStack() as stack:
        servers = [Server(base / name, **quiet) for name in ("watched", "alone")]
        for each in servers:
            stack.callback(each.stop)
        measure(*servers, options, failures)
    with contextlib.suppress(OSError):
        shutil.rmtree(base)
    for failure in failures:
        print("FAILED:", failure)
    sys.exit(bool(failures))


def compare_speed(port: int, unwatched: int, watchers: Watchers, pairs: int) -> float:
    """Return how much of their speed writers keep where they are watched: the median of pairs of slices."""
    ratios = []
    for _ in range(pairs):
        alone = float(load(unwatched, 3.0)["per_second"])
        watched = float(load(port, 3.0)["per_second"])
        late_s = watchers.settle()
        events = watchers.check()
        ratios.append(watched / alone)
        print(
            f"64 clients: {alone:.0f} alone, {watched:.0f} watched, {events} events, the last {late_s:.1f} s late"
        )
    print(
        f"of their speed writers keep {statistics.median(ratios):.2f} of {[round(each, 2) for each in ratios]}"
    )
    return statistics.median(ratios)


def measure(server: Server, unwatched: Server, options: argparse.Namespace, failures: list[str]) -> None:
    """Measure all parts that were asked for."""
    parts, port = options.parts.split(","), server.port
    if "lost" in parts:
        found = stopped_reader(port)
        print("a watcher that stopped reading:", json.dumps(found))
        if not found["is_whole"]:
            failures.append("a lost watcher was not told what another one was")
    watchers = Watchers(port, options.watchers)
    print(f"{options.watchers} watchers: {server.memory_mib('VmRSS')} MiB")
    if "rate" in parts:
        figures = load(port, options.seconds, "--rate", str(RATE))
        late_s = watchers.settle()
        events = watchers.check()
        print(f"{RATE} writes a second: {json.dumps(figures)[:600]}")
        print(f"each was told {events} events, {late_s:.1f} s after the last write at the latest")
    if "speed" in parts:
        ratio = compare_speed(port, unwatched.port, watchers, options.pairs)
        if ratio < RATIO_MIN:
            failures.append(f"writers keep {ratio:.2f} of their speed")
    memory = server.memory_mib("VmHWM")
    print(f"memory at most: {memory} MiB")
    if memory > MEMORY_MIB_MAX:
        failures.append(f"{memory} MiB of memory")
    if "idle" in parts:
        write(
            port, [b'{"op":"set","key":"ends/%d","value":1,"ttl":86400}\n' % key for key in range(IDLE_KEYS)]
        )
        time.sleep(5.0)
        began, used = time.monotonic(), processor_s(server.process.pid)
        time.sleep(options.seconds)
        share = (processor_s(server.process.pid) - used) / (time.monotonic() - began)
        print(f"idle: {share:.2%} of a processor")
        if share > IDLE_SHARE_MAX:
            failures.append(f"{share:.2%} of a processor while idle")
    watchers.close()


if __name__ == "__main__":
    main()
