"""`serve --cluster`: nodes with processes, directories and doors of their own, on ports of one machine."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from tests.integration.test_process import READY_S, STOPPED_S
from tests.page_examples import Example, examples
from trio_kv.cli.main import main
from trio_kv.client.control import command, find_door

NODES = (1, 2, 3)
Event = dict[str, Any]


def run(*words: object) -> "subprocess.CompletedProcess[str]":
    """Carry out one of our commands."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_KV_")}
    return subprocess.run(
        [sys.executable, "-m", "trio_kv", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=READY_S,
    )


def free_ports(count: int) -> list[int]:
    """Return ports at which nobody listens just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def wait(condition: Callable[[], bool], told: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + READY_S
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


@attrs.define
class Hosts:
    """A cluster, and those of its nodes that run."""

    file: Path
    running: dict[int, "subprocess.Popen[bytes]"] = attrs.field(factory=dict)

    def data_dir(self, node: int) -> Path:
        return self.file.parent / f"trio_kv-data-{node}"

    def log(self, node: int) -> Path:
        return self.file.parent / f"{node}.log"

    def events(self, node: int, name: str) -> list[Event]:
        """Return what a node's last process has told."""
        lines = self.log(node).read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def create(self, *nodes: int) -> None:
        for node in nodes:
            assert main(["cluster", "create", "--cluster", str(self.file), "--node", str(node)]) == 0

    def serve(self, *nodes: int) -> None:
        """Start nodes, and wait for none of them."""
        for node in nodes:
            words = ["serve", "--cluster", str(self.file), "--node", str(node), "--log-json"]
            ports = ["--port", "0", "--control-port", "0", "--segment-bytes", "65536"]
            with self.log(node).open("wb") as log:
                self.running[node] = subprocess.Popen(
                    [sys.executable, "-m", "trio_kv", *words, *ports], stderr=log
                )

    def start(self, *nodes: int) -> None:
        """Start nodes, and wait until they are ready."""
        self.serve(*nodes)
        for node in nodes:
            wait(lambda: bool(self.events(node, "server.started")), self.log(node).read_text)  # noqa: B023

    def end(self, node: int, number: int = signal.SIGTERM) -> None:
        process = self.running.pop(node)
        process.send_signal(number)
        process.wait(STOPPED_S)

    def ask(self, node: int, **request: object) -> dict[str, Any]:
        """Ask at the door of a node's host."""
        (started,) = self.events(node, "server.started")
        with socket.create_connection(("127.0.0.1", started["port"]), timeout=READY_S) as sock:
            sock.sendall(json.dumps(request).encode() + b"\n")
            reply: dict[str, Any] = json.loads(sock.makefile("rb").readline())
            return reply

    def command(self, host: int, name: str, /, **members: object) -> dict[str, Any]:
        return command(find_door(self.data_dir(host), None), name, members, timeout_s=READY_S)

    def seen_by(self, node: int) -> dict[int, dict[str, Any]]:
        """Return all nodes as a host sees them."""
        return {each["node"]: each for each in self.ask(node, op="status")["nodes"]}

    def wait_same(self) -> None:
        """Wait until all nodes run with the same data."""

        def is_same() -> bool:
            seen = self.seen_by(1).values()
            return len({each["digest"] for each in seen}) == 1 and all(each["state"] == "up" for each in seen)

        wait(is_same, lambda: self.seen_by(1))

    def write(self, node: int, numbers: range) -> None:
        for number in numbers:
            assert self.ask(node, key=f"k{number}", value=number)["status"] == "ok"

    def check(self, node: int, numbers: range) -> None:
        assert [self.ask(node, key=f"k{number}")["value"] for number in numbers] == list(numbers)


@contextlib.contextmanager
def hosts(directory: Path, *options: str) -> Iterator[Hosts]:
    """Give a cluster whose directories are made; what runs at the end is killed."""
    peers = ",".join(f"127.0.0.1:{port}" for port in free_ports(len(NODES)))
    assert main(["cluster", "init", str(directory), "--nodes", peers, *options]) == 0
    cluster = Hosts(directory / "cluster.toml")
    try:
        cluster.create(*NODES)
        yield cluster
    finally:
        for process in cluster.running.values():
            process.kill()
            process.wait()


def test_three_hosts_lose_one_and_its_disk(tmp_path: Path) -> None:
    """What one of them wrote another one reads; a minority may die, and lose its disk, which the others fill anew."""
    with hosts(tmp_path) as cluster:
        cluster.start(*NODES)
        cluster.write(1, range(20))
        cluster.check(2, range(20))
        cluster.end(3, signal.SIGKILL)
        cluster.write(2, range(20, 40))
        wait(lambda: cluster.seen_by(1)[3]["state"] != "up", lambda: cluster.seen_by(1))
        assert "its process 3 can't be reached" in cluster.seen_by(1)[3]["reason"]
        cluster.start(3)
        cluster.check(3, range(40))
        cluster.end(3)
        shutil.rmtree(cluster.data_dir(3))
        _refuse_what_is_lost(cluster)
        done = run("rebuild", 3, "--cluster", cluster.file)
        assert done.returncode == 0, done.stderr
        assert "Node 3 has a new, empty directory." in done.stdout
        cluster.start(3)
        cluster.wait_same()
        cluster.check(3, range(40))
        # It counts again: without another one the cluster goes on.
        cluster.end(1)
        cluster.write(3, range(40, 50))


def _refuse_what_is_lost(cluster: Hosts) -> None:
    """A start refuses, with the way out; and one that was made anew by mistake is sent away by the others."""
    cluster.serve(3)
    assert cluster.running.pop(3).wait(READY_S) == 1
    told = cluster.log(3).read_text()
    assert "the data of node 3 is lost" in told
    assert "`trio-kv rebuild 3 --cluster FILE` lets the other nodes fill a new one" in told
    cluster.create(3)
    cluster.serve(3)
    wait(lambda: bool(cluster.events(1, "link.refused")), cluster.log(1).read_text)
    assert "node 3 was made twice" in cluster.events(1, "link.refused")[0]["reason"]
    wait(lambda: bool(cluster.events(3, "link.rejected")), cluster.log(3).read_text)
    assert "node 3 was made twice" in cluster.events(3, "link.rejected")[0]["reason"]
    cluster.end(3)
    shutil.rmtree(cluster.data_dir(3))


def test_a_host_gives_its_node_a_new_directory(tmp_path: Path) -> None:
    """While it runs: the others are known to run with all of their data. And without them it is not done."""
    with hosts(tmp_path) as cluster:
        cluster.start(*NODES)
        cluster.write(1, range(10))
        assert cluster.command(2, "stop", node=2)["status"] == "ok"
        rebuilt = cluster.command(1, "rebuild", node=2)
        assert rebuilt["status"] == "ok", rebuilt
        assert Path(rebuilt["moved_to"]).exists()
        cluster.wait_same()
        assert cluster.command(2, "stop", node=2)["status"] == "ok"
        cluster.end(3)
        wait(lambda: cluster.seen_by(2)[3]["state"] != "up", lambda: cluster.seen_by(2))
        refused = cluster.command(2, "rebuild", node=2)
        assert refused["status"] == "error"
        assert "takes 2 other nodes that have all of their data, and 1 of 2 have" in refused["message"]
        assert "Node 3: it lives elsewhere" in refused["message"]
        cluster.end(2)
        refused_cold = run("rebuild", 2, "--cluster", cluster.file)
        assert refused_cold.returncode == 1
        assert "and 1 of 2 have.\nNode 3: Connection refused." in refused_cold.stderr
        # That of a node which is there is moved aside, as ever.
        cluster.start(3)
        wait(lambda: cluster.seen_by(3)[1]["state"] == "up", lambda: cluster.seen_by(3))
        done = run("rebuild", 2, "--cluster", cluster.file, "-o", "json")
        assert done.returncode == 0, done.stderr
        assert Path(json.loads(done.stdout)["moved_to"]).exists()
        cluster.start(2)
        cluster.wait_same()
        cluster.check(2, range(10))


def test_a_stranger_is_refused_and_opens_its_doors(tmp_path: Path) -> None:
    """A host of another cluster: both tell why; alone it has no leader, and says so to whoever asks."""
    with hosts(tmp_path / "ours") as ours, hosts(tmp_path / "theirs") as theirs:
        ours.start(1, 2)
        lines = ours.file.read_text().replace(_cluster_of(ours.file), _cluster_of(theirs.file))
        theirs.file.write_text(lines)
        theirs.start(3)
        (started,) = theirs.events(3, "server.started")
        assert started["leader"] is None
        assert theirs.ask(3, key="k", value=1)["status"] == "error"
        assert theirs.ask(3, op="status")["leader"] is None
        word = f"it belongs to cluster {_cluster_of(theirs.file)}, and this is {_cluster_of(ours.file)}"
        assert {event["reason"] for event in ours.events(1, "link.refused")} == {f"process 3: {word}"}
        assert {event["reason"] for event in theirs.events(3, "link.rejected")} == {f"refused: {word}"}
        assert f"its process 1 can't be reached: refused: {word}" in theirs.seen_by(3)[1]["reason"]
        ours.write(1, range(5))


def _cluster_of(file: Path) -> str:
    (line,) = [line for line in file.read_text().splitlines() if line.startswith("cluster = ")]
    return line.split('"')[1]


def test_certificates_between_hosts_are_read_anew(tmp_path: Path) -> None:
    """On SIGHUP, without a connection lost; one that would not do changes nothing, and is told."""
    with hosts(tmp_path, "--with-certificates") as cluster:
        cluster.start(*NODES)
        cluster.write(2, range(5))
        place = tmp_path / "certificates"
        good = (place / "node-2.pem").read_bytes()
        (place / "node-2.pem").write_bytes((place / "node-3.pem").read_bytes())
        cluster.running[2].send_signal(signal.SIGHUP)
        wait(lambda: bool(cluster.events(2, "access.reload_failed")), cluster.log(2).read_text)
        assert "node-2.pem" in cluster.events(2, "access.reload_failed")[0]["reason"]
        (place / "node-2.pem").write_bytes(good)
        cluster.running[2].send_signal(signal.SIGHUP)
        wait(lambda: bool(cluster.events(2, "access.reloaded")), cluster.log(2).read_text)
        cluster.write(2, range(5, 10))
        for node in NODES:
            assert not cluster.events(node, "link.lost")


PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


@attrs.define
class Walk:
    """Carries out what the page on operations says of three nodes on one machine, at ports that are free here."""

    directory: Path
    ports: dict[str, str] = attrs.field(factory=dict)
    servers: dict[str, "subprocess.Popen[bytes]"] = attrs.field(factory=dict)

    def words(self, example: Example) -> list[str]:
        text = re.sub(r"--port (\d+)", lambda found: f"--port {self.ports[found[1]]}", example.text)
        return ["bash", "-c", f'trio-kv() {{ {sys.executable} -m trio_kv "$@"; }}; {text}']

    def move(self, file: Path) -> None:
        """Give the nodes ports that are free."""
        text = file.read_text()
        used = re.findall(r":(\d+)\"", text)
        self.ports = dict(zip(used, map(str, free_ports(len(used))), strict=True))
        file.write_text(re.sub(r":(\d+)\"", lambda found: f':{self.ports[found[1]]}"', text))

    def serve(self, example: Example) -> None:
        node = example.text[-1]
        out = self.directory / f"{node}.out"
        with out.open("wb") as file:
            self.servers[node] = subprocess.Popen(
                [sys.executable, "-m", "trio_kv", *example.text.split()[1:]],
                cwd=self.directory,
                stdout=file,
                stderr=file,
            )

    def run(self, example: Example) -> None:
        out = ""

        def is_shown() -> bool:
            nonlocal out
            done = subprocess.run(
                self.words(example), cwd=self.directory, capture_output=True, text=True, check=False
            )
            out = done.stdout + done.stderr
            return example.matches(out)

        # What is asked for may take a moment; what is done is done once.
        if " status" in example.text:
            wait(is_shown, lambda: f"{example.text}: {out}")
        else:
            assert is_shown(), f"{example.text}: {out}"

    def kill(self, node: str) -> None:
        server = self.servers.pop(node)
        server.kill()
        server.wait()

    def end(self) -> None:
        for node in list(self.servers):
            self.kill(node)


def test_the_page_leads_to_a_cluster(tmp_path: Path) -> None:
    """What the page on operations says is done as it stands there, and shows what stands there."""
    walk = Walk(tmp_path)
    steps = [example for example in examples(PAGE) if re.search(r"\btrial\b|--port", example.text)]
    try:
        for example in steps:
            if example.text == "trio-kv ctl status --data-dir trial/trio_kv-data-1":
                walk.kill("3")
            if " serve " in example.text and not example.shown:
                walk.serve(example)
            else:
                walk.run(example)
            if " init " in example.text:
                walk.move(tmp_path / "trial" / "cluster.toml")
            elif len(walk.servers) == len(NODES):
                for node in walk.servers:
                    out = tmp_path / f"{node}.out"
                    wait(lambda: " leads" in out.read_text(), out.read_text)  # noqa: B023
        assert len(steps) == 13
        walk.run(Example(0, "trio-kv get trial --port 3005", "yes"))
    finally:
        walk.end()
