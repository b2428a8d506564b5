"""The stores that are measured beside each other: how each is started, loaded and ended, and what its writes survive.

All of them run on this machine, write to the same disk, and are told the same keys, values and numbers of
connections. Loads are processes of their own. Where the makers of a store offer a client, that is the load: etcd is
loaded through its Go client (`etcd_load.go`). PySyncObj has none, and is loaded inside its leader's process, which
flatters it.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from watchers import Watchers

HERE = pathlib.Path(__file__).parent
START_S = 60.0
GO_PATH = "/usr/share/gocode"
GO_CLIENT = pathlib.Path(GO_PATH, "src/go.etcd.io/etcd/clientv3")
Figures = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """A load."""

    mix: float = 100.0
    stale: bool = False
    connections: int = 64
    pipeline: int = 1
    keys: int = 10_000
    value_bytes: int = 100
    calls: int = 0
    """Calls under way, for a client that has no pipeline; 0: connections times pipeline."""
    watchers: int = 0
    """Clients that watch all keys meanwhile, and must be told all of it."""

    def options(self, *, has_pipeline: bool) -> list[str]:
        """Return it as options of a load."""
        words = [f"--mix={self.mix}", f"--keys={self.keys}", f"--value-bytes={self.value_bytes}"]
        words += [f"--connections={self.connections}", *(["--stale"] if self.stale else [])]
        calls = self.calls or self.connections * self.pipeline
        return [*words, f"--pipeline={self.pipeline}" if has_pipeline else f"--clients={calls}"]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


class Process:
    """A server process, whose output goes to a file."""

    def __init__(self, command: list[str], log: pathlib.Path, ready: str) -> None:
        """Start it, and wait for the line that says it is ready."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_ready(log, ready)
        except BaseException:
            self.kill()
            raise

    def _wait_ready(self, log: pathlib.Path, ready: str) -> None:
        until = time.monotonic() + START_S
        while ready not in log.read_text(errors="replace"):
            if self.process.poll() is not None or time.monotonic() > until:
                words = " ".join(map(str, self.process.args))
                raise SystemExit(f"{words} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)

    def end(self) -> None:
        """End it, in order if it does so within 10 s."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        """Let it die as if the power failed."""
        self.process.kill()
        self.process.wait()


def run_load(command: list[str]) -> Figures:
    """Run a load; return the JSON that it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    figures: Figures = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


class LineServer:
    """A server of the project's protocol; its load is `python -m trio_kv bench`."""

    port: int

    def load(self, point: Point, seconds: float, warm_up: float = 0.5, *, fill: bool = False) -> Figures:
        """Load it."""
        command = [sys.executable, "-m", "trio_kv", "bench", "--json", f"--port={self.port}"]
        command += [*point.options(has_pipeline=True), f"--duration={seconds}", f"--warm-up={warm_up}"]
        return run_load([*command, *(["--fill"] if fill else [])])

    def fill(self, point: Point) -> None:
        """Write every key once."""
        self.load(point, 0.1, 0.0, fill=True)


class TrioKV(LineServer):
    """The project."""

    durability = "fdatasync on a majority of the nodes"

    def __init__(
        self, folder: pathlib.Path, nodes: int, python: str = sys.executable, *, processes: int | None = None
    ) -> None:
        """Start it with `python`, which may be that of another checkout.

        Args:
            folder: where its data and its log go.
            nodes: how many.
            python: runs it.
            processes: how many, each kept to a processor of its own; None: one that is not.

        """
        self.folder = folder
        self.port, control_port = free_ports(2)
        command = [
            python,
            "-P",  # not what lies in the working directory
            "-m",
            "trio_kv",
            "serve",
            "--log-json",
            f"--port={self.port}",
            f"--control-port={control_port}",
        ]
        command += [f"--nodes={nodes}", f"--data-dir={folder / 'data'}"]
        # Builds of before don't know the option.
        command += [f"--processes={processes}", "--pin=yes"] if processes is not None else []
        self._python = python
        self.server = Process(command, folder / "log", "server.started")
        self._watchers: Watchers | None = None

    def watch(self, count: int) -> None:
        """Let so many clients watch all keys from now on."""
        self._watchers = Watchers(self.port, count)

    def load(self, point: Point, seconds: float, warm_up: float = 0.5, *, fill: bool = False) -> Figures:
        """Load it; whoever watches has to be told all that was written, the same and in order."""
        figures = super().load(point, seconds, warm_up, fill=fill)
        if self._watchers is not None:
            figures["told_late_s"] = self._watchers.settle()
            figures["told"] = self._watchers.check()
        return figures

    def end(self) -> None:
        """End it."""
        if self._watchers is not None:
            self._watchers.close()
        self.server.end()

    def kill_leader(self) -> None:
        """Let the leader crash, as `ctl crash leader` does."""
        command = [
            self._python,
            "-P",  # not what lies in the working directory
            "-m",
            "trio_kv",
            "ctl",
            f"--data-dir={self.folder / 'data'}",
            "crash",
            "leader",
        ]
        subprocess.run(command, check=True, capture_output=True)

    def mend(self) -> None:
        """Do nothing: a node that crashed comes back by itself."""


class Floor(LineServer):
    """What Trio, JSON and syncs cost by themselves (`floor.py`)."""

    durability = "fdatasync on a majority of the files; no consensus, no recovery"

    def __init__(self, folder: pathlib.Path, nodes: int) -> None:
        """Start it."""
        [self.port] = free_ports(1)
        command = [sys.executable, str(HERE / "floor.py"), f"--port={self.port}", f"--nodes={nodes}"]
        self.server = Process([*command, f"--dir={folder / 'data'}"], folder / "log", "ready")

    def end(self) -> None:
        """End it."""
        self.server.end()


class Etcd:
    """etcd of Debian's package, a process a member, as it comes."""

    durability = "fdatasync on a majority of the members"

    def __init__(self, folder: pathlib.Path, nodes: int, load: pathlib.Path) -> None:
        """Start it; `load` is the built load."""
        self._load = load
        self._folder = folder
        ports = free_ports(2 * nodes)
        self._urls = {f"m{n}": f"127.0.0.1:{port}" for n, port in enumerate(ports[:nodes])}
        peers = {f"m{n}": f"http://127.0.0.1:{port}" for n, port in enumerate(ports[nodes:])}
        cluster = ",".join(f"{name}={peer}" for name, peer in peers.items())
        self._commands = {
            name: [
                *("etcd", "--name", name, "--data-dir", str(folder / name), "--log-level", "info"),
                *("--listen-client-urls", f"http://{url}", "--advertise-client-urls", f"http://{url}"),
                *("--listen-peer-urls", peers[name], "--initial-advertise-peer-urls", peers[name]),
                *("--initial-cluster", cluster, "--initial-cluster-token", str(folder)),
            ]
            for name, url in self._urls.items()
        }
        self.members: dict[str, Process] = {}
        # A member is ready when a majority is there: they have to start together.
        with contextlib.ExitStack() as threads:
            for name in self._urls:
                thread = threading.Thread(target=self._start, args=(name,))
                thread.start()
                threads.callback(thread.join)
        if len(self.members) < nodes:
            self.end()
            raise SystemExit(f"etcd did not start: see {folder}")

    def _start(self, name: str) -> None:
        log = self._folder / f"{name}.log"
        log.unlink(missing_ok=True)
        self.members[name] = Process(self._commands[name], log, "ready to serve client requests")

    def leader(self) -> str:
        """Return the name of the member that leads."""
        command = [
            "etcdctl",
            "endpoint",
            "status",
            "-w",
            "json",
            f"--endpoints={','.join(self._urls.values())}",
        ]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        text = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        for name, each in zip(self._urls, json.loads(text), strict=True):
            if each["Status"]["header"]["member_id"] == each["Status"]["leader"]:
                return name
        raise SystemExit("etcd has no leader")

    def load(self, point: Point, seconds: float, warm_up: float = 0.5, *, fill: bool = False) -> Figures:
        """Load the leader; with serializable reads all members, with a leader that is to die as well."""
        is_on_all = point.stale or fill
        urls = self._urls.values() if is_on_all else [self._urls[self.leader()]]
        return self._run(point, urls, seconds, warm_up, ["--fill"] if fill else [])

    def load_all(self, point: Point, seconds: float) -> Figures:
        """Load all members with calls that give up after a second, as one does who wants to go on without a leader."""
        return self._run(point, self._urls.values(), seconds, 0.0, ["--timeout=1"])

    def _run(self, point: Point, urls: Any, seconds: float, warm_up: float, more: list[str]) -> Figures:
        command = [str(self._load), f"--endpoints={','.join(urls)}", *point.options(has_pipeline=False)]
        return run_load([*command, f"--duration={seconds}", f"--warm-up={warm_up}", *more])

    def fill(self, point: Point) -> None:
        """Write every key once."""
        self.load(point, 0.1, 0.0, fill=True)

    def kill_leader(self) -> None:
        """Kill the leader's process."""
        self._dead = self.leader()
        self.members[self._dead].kill()

    def mend(self) -> None:
        """Start the member that was killed again."""
        self._start(self._dead)

    def end(self) -> None:
        """End all members."""
        for member in self.members.values():
            member.process.send_signal(signal.SIGTERM)
        for member in self.members.values():
            member.end()


class PySyncObj:
    """PySyncObj from PyPI, three processes, with its fastest settings (`pysync_node.py`)."""

    durability = "a journal in a mapped file, never synced"

    def __init__(self, folder: pathlib.Path, nodes: int) -> None:
        """Start nothing: it is started for each slice, for it takes a part of the processor when nobody asks it."""
        self._folder = folder
        self._nodes = nodes

    def load(self, point: Point, seconds: float, warm_up: float = 0.5) -> Figures:
        """Start it, let its leader load itself, end it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        options = [f"--calls={point.connections * point.pipeline}", f"--keys={point.keys}"]
        options += [f"--value-bytes={point.value_bytes}", f"--duration={seconds}", f"--warm-up={warm_up}"]
        read, write = os.pipe()
        nodes = []
        addresses = [f"127.0.0.1:{port}" for port in free_ports(self._nodes)]
        for n in range(self._nodes):
            others = addresses[n:] + addresses[:n]
            command = [
                *(sys.executable, str(HERE / "pysync_node.py"), f"--journal={self._folder / str(n)}"),
                *(*options, *others),
            ]
            nodes.append(subprocess.Popen(command, stdout=write, stderr=subprocess.DEVNULL))
        os.close(write)
        try:
            is_told = bool(select.select([read], [], [], START_S + warm_up + seconds)[0])
            line = os.read(read, 65_536) if is_told else b""
        finally:
            for node in nodes:
                node.kill()
                node.wait()
            os.close(read)
        if not line:
            return {"per_second": 0.0, "wrong": 0, "errors": {"no figures": 1}}
        figures: Figures = json.loads(line)
        return figures

    def fill(self, point: Point) -> None:
        """Do nothing: it is only written to."""

    def end(self) -> None:
        """Do nothing: it has ended with its slice."""


def build_etcd_load(folder: pathlib.Path) -> pathlib.Path | str:
    """Build the load of etcd; return it, or why there is none."""
    if shutil.which("etcd") is None:
        return "etcd is not installed (Debian: etcd-server, etcd-client)"
    go = shutil.which("go")
    if go is None or not GO_CLIENT.is_dir():
        return "etcd's Go client can't be built (Debian: golang-go, golang-etcd-server-dev)"
    binary = folder.parent / "etcd_load"
    source = HERE / "etcd_load.go"
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        environment = {**os.environ, "GO111MODULE": "off", "GOPATH": GO_PATH, "GOFLAGS": ""}
        environment["GOCACHE"] = str(folder.absolute().parent / "gocache")
        subprocess.run([go, "build", "-o", str(binary), str(source)], check=True, env=environment)
    return binary


def why_no_pysyncobj() -> str:
    """Return why PySyncObj can't be measured, or nothing."""
    return "" if importlib.util.find_spec("pysyncobj") else "PySyncObj is not installed (PyPI: pysyncobj)"
