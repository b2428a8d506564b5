"""A real Prometheus, as Debian has it, scrapes a real server."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest

from trio_kv import Client
from trio_kv.client.control import command, find_door

ALERTS = Path(__file__).parents[2] / "docs/alerts.yml"
SOON_S = 60
NODES = 3

T = TypeVar("T")

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed: apt-get install prometheus"
)


def wait_for(ask: Callable[[], T], is_it: Callable[[T], bool]) -> T:
    """Ask until it is so; return the answer."""
    deadline = time.monotonic() + SOON_S
    while True:
        answer = ask()
        if is_it(answer):
            return answer
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)


@attrs.frozen
class Prometheus:
    address: str

    def ask(self, path: str, **query: str) -> Any:
        """Return the data of an answer; None as long as it does not listen."""
        words = urllib.parse.urlencode(query)
        try:
            with urllib.request.urlopen(
                f"http://{self.address}/api/v1/{path}?{words}", timeout=30
            ) as response:
                answer = json.load(response)
        except OSError:
            return None
        assert answer["status"] == "success"
        return answer["data"]

    def query(self, expression: str) -> dict[str, float]:
        """Return the values of an expression by the label `node`, or by nothing."""
        data = self.ask("query", query=expression) or {"result": []}
        return {each["metric"].get("node", ""): float(each["value"][1]) for each in data["result"]}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def open_server(data_dir: Path) -> Iterator[dict[str, Any]]:
    """Run a server; give what it says of itself when it is ready."""
    words = [
        "serve",
        "--nodes",
        NODES,
        "--data-dir",
        data_dir,
        "--log-json",
        "--port",
        0,
        "--control-port",
        0,
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_kv", *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if (event := json.loads(line))["event"] == "server.started":
                yield event
                break
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@contextlib.contextmanager
def open_prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes a target, and knows the alert rules."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [{"job_name": "trio_kv", "static_configs": [{"targets": [target]}]}],
    }
    path = folder / "prometheus.yml"
    path.write_text(json.dumps(config))  # JSON is YAML
    address = f"127.0.0.1:{free_port()}"
    log = (folder / "prometheus.log").open("w")
    words = [
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
    ]
    process = subprocess.Popen(["prometheus", *words], stdout=log, stderr=log)
    try:
        yield Prometheus(address)
    finally:
        process.kill()
        process.wait()
        log.close()


def test_a_real_prometheus_scrapes_a_real_server(tmp_path: Path) -> None:
    """It takes every sample of the page, knows types and nodes, reads the alerts, and sees a node go and a fault."""
    with open_server(tmp_path / "data") as started:
        door = f"127.0.0.1:{started['control_port']}"
        with Client(port=started["port"]) as store:
            for number in range(3):
                store.set(f"k{number}", "v")
        with open_prometheus(tmp_path, door) as prometheus:
            targets = wait_for(
                lambda: (prometheus.ask("targets") or {"activeTargets": []})["activeTargets"],
                lambda targets: [target["health"] for target in targets] == ["up"],
            )
            assert targets[0]["lastError"] == ""
            nodes = {str(node): 1.0 for node in range(1, NODES + 1)}
            wait_for(lambda: prometheus.query("trio_kv_node_up"), lambda up: up == nodes)
            assert prometheus.query("sum(trio_kv_server_is_leader)") == {"": 1.0}
            assert prometheus.query("trio_kv_cluster_quorum_size") == {"": 2.0}
            # Setting three keys takes three entries, beside those that open a term and a session.
            committed = prometheus.query("trio_kv_server_proposals_committed_total")
            assert max(committed.values()) >= 3
            assert prometheus.query('trio_kv_client_request_duration_seconds_count{operation="set"}') == {
                "": 3.0
            }
            syncs = prometheus.query("trio_kv_disk_wal_fsync_duration_seconds_count")
            assert syncs.keys() == nodes.keys()
            assert min(syncs.values()) > 0
            changes = prometheus.query("trio_kv_server_leader_changes_seen_total")
            assert changes.keys() == nodes.keys()
            assert min(changes.values()) >= 1
            commits = prometheus.query("sum(trio_kv_server_commit_duration_seconds_count)")
            assert commits[""] == max(committed.values())
            trips = prometheus.query("count(trio_kv_network_peer_round_trip_time_seconds_count > 0)")
            assert trips[""] >= NODES - 1
            check_all_is_taken(prometheus, door)

            types = prometheus.ask("metadata", metric="trio_kv_server_leader_changes_seen_total")
            types |= prometheus.ask("metadata", metric="trio_kv_server_leader_changes_seen")
            assert [each["type"] for entries in types.values() for each in entries] == ["counter"]
            groups = prometheus.ask("rules")["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            assert len(rules) == ALERTS.read_text().count("- alert:")
            wait_for(
                lambda: {
                    rule["health"] for group in prometheus.ask("rules")["groups"] for rule in group["rules"]
                },
                lambda health: health == {"ok"},
            )
            assert prometheus.query("ALERTS{alertstate='firing'}") == {}

            found = find_door(tmp_path / "data", started["control_port"])
            assert command(found, "stop", {"node": 3}, timeout_s=30)["status"] == "ok"
            gone = nodes | {"3": 0.0}
            wait_for(lambda: prometheus.query("trio_kv_node_up"), lambda up: up == gone)
            stopped = prometheus.query('trio_kv_node_state{state="stopped"}')
            assert stopped == {"1": 0.0, "2": 0.0, "3": 1.0}


def check_all_is_taken(prometheus: Prometheus, door: str) -> None:
    """As many samples arrive as there are on the page: none was a duplicate, and none could not be read."""
    with urllib.request.urlopen(f"http://{door}/metrics", timeout=30) as response:
        page = response.read().decode()
    lines = [line for line in page.splitlines() if not line.startswith("#")]
    ours = len([line for line in lines if re.match("trio_kv_", line)])
    counted = prometheus.query('count({__name__=~"trio_kv_.*"})')
    # What was counted since the scrape may have made new buckets and peers; nothing takes any away.
    assert counted[""] <= ours <= counted[""] * 1.2
    assert prometheus.query("scrape_samples_post_metric_relabeling") == prometheus.query(
        "scrape_samples_scraped"
    )
