#!/usr/bin/env python3
"""Measure a store around which everything stands still, beside one that is left in peace.

    python bench/blocked.py --dir build/blocked --seconds 60

Nobody reads its stdout, its stderr (at level debug) and its trace (a named pipe), one client sends requests and reads
no answer, and the disk of a follower does one sync a minute. 64 clients must keep 0.8 of the speed that they have on
the other server, memory must not grow, and SIGTERM must end it within 5 s. The servers are measured in turn, slice by
slice, and the median ratio of two slices counts, since the machine may be busy with other things.

A third server tells the same to /dev/null: what telling costs by itself, blocked or not.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

SLICE_S = 2.0
RATIO_MIN = 0.8
STOP_S_MAX = 5.0
MEMORY_MIB_MAX = 512
STALL_MS = 60_000
VALUE = "x" * 100_000


class Server:
    """A running store of five nodes."""

    def __init__(self, data_dir: pathlib.Path, *options: str, **streams: object) -> None:
        """Start it, and wait until it is ready; what it tells is not read any more."""
        self.data_dir = data_dir
        command = [sys.executable, "-m", "trio_kv", "serve", "--data-dir", str(data_dir), *options]
        command += ["--port", "0", "--control-port", "0", "--idle-timeout", "0"]
        self.process = subprocess.Popen(command, **streams)
        self.rates: list[float] = []
        while not (data_dir / "control.json").exists():
            if self.process.poll() is not None:
                raise SystemExit("the store did not start")
            time.sleep(0.1)
        address = json.loads((data_dir / "control.json").read_text())["address"]
        [self.port] = listening_ports(self.process.pid) - {int(address.rpartition(":")[2])}
        wait_answer(self.port)

    def ctl(self, *words: str) -> None:
        """Give the store an order."""
        command = [sys.executable, "-m", "trio_kv", "ctl", *words, "--data-dir", str(self.data_dir)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=30)

    def load(self, mix: float) -> None:
        """Let 64 clients load it for a slice."""
        command = [sys.executable, "-m", "trio_kv", "bench", "--json", "--port", str(self.port)]
        command += ["--mix", str(mix), "--warm-up", "0", "--duration", str(SLICE_S)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        figures = json.loads(done.stdout)
        assert not figures["errors"], figures
        self.rates.append(figures["per_second"])

    def memory_mib(self, what: str) -> int:
        """Return its memory: VmRSS, now, or VmHWM, at most."""
        lines = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(what)).split()[1]) // 1024

    def stop(self) -> tuple[float, int | None]:
        """Send SIGTERM; return how long it took, and the exit code."""
        began_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        code = self.process.poll()
        self.process.kill()
        self.process.wait()
        return time.monotonic() - began_s, code


def listening_ports(pid: int) -> set[int]:
    """Return the TCP ports on which a process listens."""
    ports = set()
    links = {str(link.readlink()) for link in pathlib.Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in links:
            ports.add(int(fields[1].split(":")[1], 16))
    return ports


def wait_answer(port: int) -> None:
    """Wait until somebody leads, and a write is answered."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(b'{"key":"ready","value":1,"timeout":30}\n')
        assert b'"ok"' in connection.recv(1 << 16)


def full_pipe() -> int:
    """Return the end of a pipe into which not one byte more can be written, since nobody reads it."""
    _, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    return writer


def send_and_never_read(port: int) -> None:
    """Be a client that asks for ever and reads nothing; come back when it is thrown out."""
    lines = [{"key": "large", "value": VALUE}, *({"key": "large"} for _ in range(1000))]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as connection:
            while True:
                connection.sendall(data)
        time.sleep(0.1)


def start_all(path: pathlib.Path) -> dict[str, Server]:
    """Start the servers."""
    pipe = path / "trace"
    os.mkfifo(pipe)
    os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # it has a reader, who never reads
    tells = ("--log-level", "debug", "--trace")
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    unread = {"stdout": full_pipe(), "stderr": full_pipe()}
    return {
        "in peace": Server(path / "peace", **silent),
        "telling": Server(path / "telling", *tells, os.devnull, **silent),
        "blocked": Server(path / "blocked", *tells, str(pipe), **unread),
    }


def main() -> int:
    """Measure; return 0 if all is as it must be, else 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dir", type=pathlib.Path, required=True, help="a folder on a real disk; ours goes into it"
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--mix", type=float, default=50.0, help="share of SETs in per cent")
    args = parser.parse_args()
    args.dir.mkdir(parents=True, exist_ok=True)
    path = pathlib.Path(tempfile.mkdtemp(dir=args.dir))
    servers: dict[str, Server] = {}
    try:
        servers = start_all(path)
        blocked = servers["blocked"]
        threading.Thread(target=send_and_never_read, args=(blocked.port,), daemon=True).start()
        stalled = stall_follower(blocked)
        print(f"node {stalled} stands still")
        end_s = time.monotonic() + args.seconds
        while time.monotonic() < end_s:
            for server in servers.values():
                server.load(args.mix)
            print(f"{'':12}" + ", ".join(f"{name} {s.rates[-1]:,.0f}/s" for name, s in servers.items()))
        return judge(servers)
    finally:
        for server in servers.values():
            server.process.kill()
            server.process.wait()
        shutil.rmtree(path, ignore_errors=True)


def stall_follower(server: Server) -> int:
    """Let the disk of a follower stand still, and return which."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(b'{"op":"status"}\n')
        leader = json.loads(connection.makefile("rb").readline())["leader"]
    follower = leader % 5 + 1
    server.ctl("slow-disk", str(follower), str(STALL_MS))
    return follower


def judge(servers: dict[str, Server]) -> int:
    """Print the table; return 0 if all is as it must be, else 1."""
    is_right = True
    print(f"{'':12}{'per second':>12}{'ratio':>8}{'MiB now':>9}{'at most':>9}{'SIGTERM':>10}{'exit':>6}")
    for name, server in servers.items():
        pairs = zip(server.rates, servers["in peace"].rates, strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        memory, peak = server.memory_mib("VmRSS"), server.memory_mib("VmHWM")
        took_s, code = server.stop()
        rate = statistics.median(server.rates)
        print(f"{name:12}{rate:12,.0f}{ratio:8.2f}{memory:9}{peak:9}{took_s:8.1f} s{code!s:>6}")
        if name == "blocked":
            is_right = ratio >= RATIO_MIN and took_s <= STOP_S_MAX and code == 0 and peak <= MEMORY_MIB_MAX
    print(f"to reach: ratio {RATIO_MIN}, {MEMORY_MIB_MAX} MiB, {STOP_S_MAX:.0f} s, exit 0")
    return int(not is_right)


if __name__ == "__main__":
    sys.exit(main())
