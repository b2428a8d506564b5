"""Three hosts with networks of their own: cables are pulled, packets lost, addresses change, a host is killed."""

import contextlib
import io
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest

from tests.integration.test_process import READY_S
from tests.namespaces import Host, hosts, run, why_not
from trio_kv.check.history import decode_history
from trio_kv.check.linearizability import check_history

COUNT = 3
DOOR, PEER = 3001, 4001
LOAD = Path(__file__).parent.parent / "host_load.py"
OPERATIONS_MIN = 300

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "there are namespaces")


@attrs.define
class Cluster:
    """One node on each host; the last host has none, and looks on."""

    hosts: list[Host]
    file: Path
    processes: dict[int, subprocess.Popen[bytes]] = attrs.field(factory=dict)

    @property
    def onlooker(self) -> Host:
        return self.hosts[-1]

    def start(self, node: int) -> None:
        """Start a host's server. It waits for nobody, and nobody waits for it here."""
        options = ["--cluster", str(self.file), "--node", str(node), "--host", "0.0.0.0", "--insecure"]
        command = [sys.executable, "-m", "trio_kv", "serve", *options]
        self.processes[node] = subprocess.Popen(
            self.hosts[node - 1].command(*command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self, node: int) -> None:
        self.processes[node].kill()
        self.processes[node].wait(READY_S)

    def ask(self, node: int, request: dict[str, Any]) -> dict[str, Any]:
        """Ask a door from outside; {} if it can't be reached."""
        program = (
            "import json, socket, sys\n"
            "s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)\n"
            "s.sendall(sys.argv[3].encode() + b'\\n')\n"
            "print(s.makefile().readline())\n"
        )
        address = self.hosts[node - 1].address
        command = [sys.executable, "-c", program, address, str(DOOR), json.dumps(request)]
        done = subprocess.run(self.onlooker.command(*command), check=False, capture_output=True, text=True)
        found: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
        return found

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_S
        while not is_so():
            assert time.monotonic() < deadline, [
                self.ask(node, {"op": "status"}) for node in range(1, COUNT + 1)
            ]
            time.sleep(0.05)

    def is_whole(self) -> bool:
        """Return whether each host sees all nodes up, with the same leader."""
        found = [self.ask(node, {"op": "status"}) for node in range(1, COUNT + 1)]
        leaders = {status.get("leader") for status in found}
        states = {node["state"] for status in found for node in status.get("nodes", [])}
        return len(leaders) == 1 and None not in leaders and states == {"up"}

    def tell_names(self) -> None:
        """Let all hosts know where the others are now, as a name server would."""
        lines = [f"{host.address} n{node}\n" for node, host in enumerate(self.hosts[:COUNT], 1)]
        for host in self.hosts:
            # In its place: processes that run have this very file.
            Path(f"/etc/netns/{host.name}/hosts").write_text("127.0.0.1 localhost\n" + "".join(lines))


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Run a cluster on hosts of its own, with certificates."""
    with hosts(COUNT) as found:
        for host in found:
            Path(f"/etc/netns/{host.name}").mkdir(parents=True)
        try:
            setup = folder / "setup"
            peers = ",".join(f"n{node}:{PEER}" for node in range(1, COUNT + 1))
            python = [sys.executable, "-m", "trio_kv", "cluster"]
            run(*python, "init", str(setup), "--nodes", peers, "--with-certificates")
            cluster = Cluster(found, setup / "cluster.toml")
            cluster.tell_names()
            for node in range(1, COUNT + 1):
                run(*python, "create", "--cluster", str(cluster.file), "--node", str(node))
                cluster.start(node)
            try:
                cluster.wait_for(cluster.is_whole)
                yield cluster
            finally:
                for process in cluster.processes.values():
                    process.kill()
                    process.wait(READY_S)
        finally:
            for host in found:
                names = Path(f"/etc/netns/{host.name}")
                (names / "hosts").unlink(missing_ok=True)
                names.rmdir()


class Trouble:
    """What happens to hosts, one thing after the other, in an order that a seed decides."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._cluster = cluster
        self._random = Random(seed)
        self._deck: list[Callable[[int], None]] = []

    def make(self, until: float) -> None:
        """Make trouble, each kind once before any comes again, until then."""
        while time.monotonic() < until:
            if not self._deck:
                self._deck = [self._cable, self._loss, self._kill, self._freeze, self._move]
                self._random.shuffle(self._deck)
            kind = self._deck.pop()
            kind(self._random.randrange(1, COUNT + 1))
            self.counts[kind.__name__] += 1
            time.sleep(1)

    def _cable(self, node: int) -> None:
        self._cluster.hosts[node - 1].take_down()
        time.sleep(2)
        self._cluster.hosts[node - 1].bring_up()

    def _loss(self, node: int) -> None:
        self._cluster.hosts[node - 1].lose(20)
        time.sleep(2)
        self._cluster.hosts[node - 1].lose_nothing()

    def _kill(self, node: int) -> None:
        self._cluster.kill(node)
        time.sleep(1)
        self._cluster.start(node)

    def _freeze(self, node: int) -> None:
        self._cluster.processes[node].send_signal(signal.SIGSTOP)
        time.sleep(2)
        self._cluster.processes[node].send_signal(signal.SIGCONT)

    def _move(self, node: int) -> None:
        """Give a host another address; its server listened at the one that is gone."""
        host = self._cluster.hosts[node - 1]
        last = int(host.address.rsplit(".", 1)[1])
        self._cluster.hosts[node - 1] = host.readdress(f"10.77.0.{last % 200 + 10}")
        self._cluster.tell_names()
        self._cluster.kill(node)
        self._cluster.start(node)


def test_cables_packets_addresses_and_a_host_that_dies(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """What clients of all hosts saw meanwhile is linearizable, and afterwards the cluster is whole."""
    seconds: float = pytestconfig.getoption("--trouble-seconds")
    with running(tmp_path) as cluster:
        trouble = Trouble(cluster, seed=7)
        doors = [f"n{node}:{DOOR}" for node in range(1, COUNT + 1)]
        load = [sys.executable, str(LOAD), str(seconds), *doors]
        with subprocess.Popen(cluster.onlooker.command(*load), stdout=subprocess.PIPE) as clients:
            time.sleep(1)
            trouble.make(time.monotonic() + seconds - 2)
            assert clients.stdout is not None
            history = decode_history(io.BytesIO(clients.stdout.read()))
        cluster.wait_for(cluster.is_whole)
        outcomes = Counter(operation.outcome for operation in history.operations)
        sys.stdout.write(f"{outcomes} under {trouble.counts}\n")
        assert outcomes["ok"] >= OPERATIONS_MIN, outcomes
        verdict = check_history(history.operations)
        assert verdict.is_valid, verdict.words
        assert cluster.ask(2, {"key": "at the end", "value": 1})["status"] == "ok"
