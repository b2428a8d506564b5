#!/usr/bin/env python3
"""Measure a store in which a million keys come to their end at the same moment.

    python bench/due.py --dir build/due --keys 1000000

A snapshot with so many keys is made, all of which are due at the same microsecond, and a store of five nodes is made of
it and started. When the moment comes, one client writes on, one request after the other, one watches the keys, and two
nodes take snapshots. Asked is that each key is told to have ended, once and in order; that an entry ends 1,000 at most;
that no write waits for long; that all nodes hold the same at the end; and what it takes of time and memory.
"""

import argparse
import contextlib
import json
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from random import Random

from blocked import Server
from msgspec import Raw
from watchers import processor_s

from trio_kv.kv.commands import OpenSession, Write
from trio_kv.kv.expiry import EXPIRED_IN_AN_ENTRY_MAX
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Set
from trio_kv.raft.entry import make_entry
from trio_kv.storage.files import RealFiles
from trio_kv.storage.restore import restore
from trio_kv.storage.snapshots import SnapshotStore
from trio_kv.wire.frames import Identity

DUE_IN_S = 20.0
"""Cluster time from the start of the store until the keys are due: it must be ready by then."""
PAUSE_S = 0.01
"""Between two writes."""


def make_snapshot(folder: pathlib.Path, keys: int) -> pathlib.Path:
    """Write a snapshot with keys that are all due at the same moment; return its file."""
    machine = Machine()
    machine.apply([make_entry(1, 1, 0, OpenSession(1 << 50))])
    for first in range(0, keys, 1000):
        writes = [
            Write(1, number, number, Set(f"due/{number:07}", Raw(b"%d" % number), ttl=DUE_IN_S))
            for number in range(first, min(first + 1000, keys))
        ]
        machine.apply([make_entry(machine.applied + 1 + n, 1, 0, write) for n, write in enumerate(writes)])
    folder.mkdir(parents=True)
    writer = SnapshotStore(RealFiles(folder, is_synced=False), Identity("0" * 32, 1, 1)).begin(
        machine.applied, 1
    )
    for number, chunk in enumerate(machine.freeze().chunks()):
        writer.add(number, chunk)
    return folder / writer.finish().name


class Watcher:
    """Watches the keys, in a thread."""

    def __init__(self, port: int, keys: int) -> None:
        """Begin to watch."""
        self.ended = self.revisions = 0
        self.began_s = self.ended_s = 0.0
        self.problem = ""
        self._keys = keys
        self._lines = socket.create_connection(("127.0.0.1", port)).makefile("rwb")
        self._lines.write(b'{"op":"watch","prefix":"due/","id":1}\n')
        self._lines.flush()
        assert json.loads(self._lines.readline())["status"] == "ok"
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        while self.ended < self._keys:
            line = json.loads(self._lines.readline())
            self.began_s = self.began_s or time.monotonic()
            events = line.get("events", ())
            due = [f"due/{self.ended + n:07}" for n in range(len(events))]
            if not events or [event["key"] for event in events] != due:
                self.problem = f"told {str(line)[:200]} after {self.ended} keys"
                return
            if len(events) > EXPIRED_IN_AN_ENTRY_MAX or any(event["event"] != "expire" for event in events):
                self.problem = f"{len(events)} events of kind {events[0]['event']} in one revision"
                return
            self.ended += len(events)
            self.revisions += 1
        self.ended_s = time.monotonic()


def write_on(port: int, watcher: Watcher, on_begun: threading.Event) -> list[float]:
    """Write until the watcher has been told all; return how long each write took, from the first end on."""
    took_s: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as sock, sock.makefile("rb") as lines:
        while watcher.thread.is_alive():
            began_s = time.monotonic()
            sock.sendall(b'{"key":"other","value":1}\n')
            assert json.loads(lines.readline())["status"] == "ok"
            if watcher.ended:
                on_begun.set()
                took_s.append(time.monotonic() - began_s)
            time.sleep(PAUSE_S)
    return took_s


def ask(port: int, request: bytes) -> dict[str, object]:
    """Return the reply to one request."""
    with socket.create_connection(("127.0.0.1", port)) as sock, sock.makefile("rb") as lines:
        sock.sendall(request + b"\n")
        reply: dict[str, object] = json.loads(lines.readline())
        return reply


def wait_equal(port: int) -> bool:
    """Return whether all nodes come to hold the same."""
    for _ in range(100):
        nodes: list[dict[str, object]] = ask(port, b'{"op":"status"}')["nodes"]  # type: ignore[assignment]
        if len({(node["applied"], node["digest"]) for node in nodes}) == 1:
            return True
        time.sleep(0.1)
    return False


def measure(base: pathlib.Path, keys: int) -> list[str]:
    """Measure; return what is not as it should be."""
    snapshot = make_snapshot(base / "snapshot", keys)
    restore(snapshot, base / "data", nodes=5, random=Random(1), segment_bytes=8 << 20)
    server = Server(base / "data", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ready_mib = server.memory_mib("VmRSS")
        watcher, begun = Watcher(server.port, keys), threading.Event()
        used_s = processor_s(server.process.pid)

        def take_snapshots() -> None:
            begun.wait()
            for node in ("1", "leader"):
                server.ctl("snapshot", node)

        helper = threading.Thread(target=take_snapshots, daemon=True)
        helper.start()
        took_s = write_on(server.port, watcher, begun)
        failures = [watcher.problem] if watcher.problem else []
        if not took_s:
            return [*failures, "nothing ended"]
        helper.join()
        ended_s, used_s = watcher.ended_s - watcher.began_s, processor_s(server.process.pid) - used_s
        left = ask(server.port, b'{"op":"scan","prefix":"due/","count":true}')["count"]
        is_equal = wait_equal(server.port)
        print(
            f"{keys:,} keys ended in {ended_s:.1f} s, {watcher.revisions} entries, {used_s:.1f} s of a processor;"
            f" {len(took_s)} writes meanwhile, p50 {statistics.median(took_s):.3f} s, at most {max(took_s):.3f} s;"
            f" memory: {ready_mib} MiB ready, {server.memory_mib('VmHWM')} at most, {server.memory_mib('VmRSS')} now"
        )
        return failures + [f"{left} keys are left"] * bool(left) + ["nodes differ"] * (not is_equal)
    finally:
        server.stop()


def main() -> None:
    """Measure, print, and exit 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path("build/due"), help="emptied first")
    parser.add_argument("--keys", type=int, default=1_000_000)
    options = parser.parse_args()
    shutil.rmtree(options.dir, ignore_errors=True)
    failures = measure(options.dir.absolute(), options.keys)
    with contextlib.suppress(OSError):
        shutil.rmtree(options.dir)
    for failure in failures:
        print("FAILED:", failure)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
