"""`serve --processes`: real processes, their deaths, and what is asked of nodes in another one."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.integration.test_process import READY_S, Connection, Server, serving
from trio_kv.cli.main import main
from trio_kv.cli.processors import own_processors
from trio_kv.client.control import command, find_door

OPTIONS = ("--processes", "2", "--nodes", "5")
SECOND = (2, 4)
"""The nodes of the second process."""


@attrs.frozen
class Spread:
    """A server with two processes."""

    server: Server
    data_dir: Path

    def ask(self, name: str, **members: object) -> dict[str, Any]:
        return command(find_door(self.data_dir, None), name, members, timeout_s=READY_S)

    def nodes(self) -> dict[int, dict[str, Any]]:
        return {node["node"]: node for node in self.ask("status")["nodes"]}

    def wait_up(self, *nodes: int) -> None:
        self.wait_state("up", *nodes)

    def wait_state(self, state: str, *nodes: int) -> None:
        deadline = time.monotonic() + READY_S
        while not all(each["state"] == state for node, each in self.nodes().items() if node in nodes):
            assert time.monotonic() < deadline, self.nodes()
            time.sleep(0.05)

    def let_lead(self, node: int) -> None:
        """Let a node lead. It may do so already, or the leader may be handing over to another one just now."""
        deadline = time.monotonic() + READY_S
        while self.ask("status")["leader"] != node:
            assert time.monotonic() < deadline
            self.ask("transfer", node=node)
            time.sleep(0.2)

    def second(self) -> int:
        """Return the second process."""
        tasks = Path(f"/proc/{self.server.process.pid}/task").iterdir()
        (found,) = [child for task in tasks for child in (task / "children").read_text().split()]
        return int(found)


@contextlib.contextmanager
def spread(data_dir: Path, *options: str) -> Iterator[Spread]:
    with serving(data_dir, *OPTIONS, *options) as server:
        found = Spread(server, data_dir)
        found.wait_up(1, 2, 3, 4, 5)
        yield found


def write(connection: Connection, numbers: range) -> None:
    lines = [b'{"key":"k%d","value":%d}' % (number, number) for number in numbers]
    assert all(json.loads(reply)["status"] == "ok" for reply in connection.ask(*lines))


def check(connection: Connection, numbers: range) -> None:
    replies = connection.ask(*[b'{"key":"k%d"}' % number for number in numbers])
    assert [json.loads(reply)["value"] for reply in replies] == list(numbers)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks /proc for the children of a process")
class TestProcesses:
    """Claims about two processes of one server."""

    def test_the_second_process_dies_by_kill_9_and_nothing_is_lost(self, tmp_path: Path) -> None:
        """It holds a minority and no door: writes go on, and its nodes come back by themselves."""
        with spread(tmp_path) as cluster:
            connection = cluster.server.connect()
            write(connection, range(100))
            former = cluster.second()
            os.kill(former, signal.SIGKILL)
            write(connection, range(100, 200))
            cluster.wait_up(*SECOND)
            assert cluster.second() != former
            check(connection, range(200))
            connection.close()

    @pytest.mark.skipif(len(own_processors()) < 2, reason="one processor is all there is")
    def test_each_process_keeps_to_a_processor_of_its_own(self, tmp_path: Path) -> None:
        """One that is started again keeps to that of its predecessor."""
        with spread(tmp_path) as cluster:
            former = cluster.second()
            [first], [second] = map(os.sched_getaffinity, (cluster.server.process.pid, former))
            assert first != second
            os.kill(former, signal.SIGKILL)
            cluster.wait_state("crashed", *SECOND)
            cluster.wait_up(*SECOND)
            assert os.sched_getaffinity(cluster.second()) == {second}
        with spread(tmp_path, "--pin", "no") as cluster:
            assert os.sched_getaffinity(cluster.second()) == set(own_processors())

    def test_the_first_process_dies_by_kill_9_and_takes_the_other_along(self, tmp_path: Path) -> None:
        """A second one that stays would write to a directory that another server opens; so it never does."""
        with spread(tmp_path) as cluster:
            connection = cluster.server.connect()
            write(connection, range(100))
            second = cluster.second()
            cluster.server.kill()
            connection.close()
            deadline = time.monotonic() + READY_S
            while Path(f"/proc/{second}").exists() and _state(second) != "Z":
                assert time.monotonic() < deadline
                time.sleep(0.02)
        with spread(tmp_path) as cluster:
            connection = cluster.server.connect()
            check(connection, range(100))
            connection.close()

    def test_a_frozen_process_harms_its_nodes_alone(self, tmp_path: Path) -> None:
        """Whoever is stopped in the midst of it all is found to be away, and is back when it goes on."""
        with spread(tmp_path) as cluster:
            connection = cluster.server.connect()
            second = cluster.second()
            os.kill(second, signal.SIGSTOP)
            try:
                write(connection, range(50))
                deadline = time.monotonic() + READY_S
                while "can't be reached" not in cluster.nodes()[2].get("reason", ""):
                    assert time.monotonic() < deadline, cluster.nodes()
                    time.sleep(0.05)
            finally:
                os.kill(second, signal.SIGCONT)
            cluster.wait_up(*SECOND)
            check(connection, range(50))
            connection.close()

    def test_commands_reach_nodes_of_both_processes(self, tmp_path: Path) -> None:
        """It makes no difference to whoever stops, pauses, slows, hands over, rebuilds or backs up where a node is."""
        with spread(tmp_path) as cluster:
            connection = cluster.server.connect()
            write(connection, range(50))
            for node in (1, 2):
                assert cluster.ask("stop", node=node)["status"] == "ok"
                cluster.wait_state("stopped", node)
                assert cluster.ask("restart", node=node)["status"] == "ok"
                cluster.wait_up(node)
                assert cluster.ask("pause", node=node)["status"] == "ok"
                cluster.wait_state("paused", node)
                assert cluster.ask("resume", node=node)["status"] == "ok"
                assert cluster.ask("snapshot", node=node)["status"] == "ok"
                assert cluster.ask("slow-disk", node=node, ms=1)["status"] == "ok"
            cluster.wait_up(1, 2, 3, 4, 5)
            cluster.let_lead(4)
            write(connection, range(50, 100))
            found = cluster.ask("crash", node="leader")
            assert found["node"] == 4
            cluster.wait_up(4)
            backup = cluster.ask("backup", without=[1, 3, 5])
            assert backup["status"] == "ok", backup["message"]
            assert backup["node"] in SECOND
            assert Path(backup["path"]).exists()
            cluster.ask("stop", node=2)
            assert cluster.ask("rebuild", node=2)["status"] == "ok"
            cluster.wait_up(1, 2, 3, 4, 5)
            check(connection, range(100))
            connection.close()

    def test_nodes_of_both_processes_that_were_rebuilt_come_back_after_a_restart(
        self, tmp_path: Path
    ) -> None:
        """Each process writes the manifest for its own nodes, and takes back nothing of what another one wrote."""
        with spread(tmp_path) as cluster:
            connection = cluster.server.connect()
            write(connection, range(20))
            for node in (2, 1):
                cluster.ask("stop", node=node)
                cluster.wait_state("stopped", node)
                assert cluster.ask("rebuild", node=node)["status"] == "ok"
                cluster.wait_up(node)
            connection.close()
        with spread(tmp_path) as cluster:
            connection = cluster.server.connect()
            check(connection, range(20))
            connection.close()

    def test_a_partition_holds_in_both_processes_and_heals(self, tmp_path: Path) -> None:
        """The minority, two nodes of two processes, answers nothing until it is whole again."""
        with spread(tmp_path) as cluster:
            connection = cluster.server.connect()
            assert cluster.ask("partition", groups=[[1, 2], [3, 4, 5]])["status"] == "ok"
            write(connection, range(20))
            status = cluster.ask("status")
            assert status["leader"] in {3, 4, 5}
            assert status["faults"] == [{"fault": "partition", "groups": [[1, 2], [3, 4, 5]]}]
            assert cluster.ask("heal")["status"] == "ok"
            deadline = time.monotonic() + READY_S
            while {each["applied"] for each in cluster.nodes().values()} != {status["nodes"][3]["applied"]}:
                applied = {each["applied"] for each in cluster.nodes().values()}
                if len(applied) == 1:
                    break
                assert time.monotonic() < deadline
                time.sleep(0.05)
            check(connection, range(20))
            connection.close()

    def test_the_traces_of_both_processes_make_one_that_is_sound(self, tmp_path: Path) -> None:
        """Each process writes a file of its own; merged by their causes they are judged as one."""
        files = [tmp_path / "trace", tmp_path / "trace.1"]
        with spread(tmp_path / "data", "--trace", str(files[0])) as cluster:
            connection = cluster.server.connect()
            write(connection, range(100))
            cluster.ask("crash", node="leader")
            write(connection, range(100, 200))
            connection.close()
            assert cluster.server.terminate() == 0
        merged = tmp_path / "merged"
        assert main(["trace", "merge", *map(str, files), "--to", str(merged)]) == 0
        assert main(["trace", "check", str(merged)]) == 0

    def test_links_are_seen(self, tmp_path: Path) -> None:
        """Each way between the processes is up, has a round trip, and carries what the other one hears."""
        with spread(tmp_path) as cluster:
            deadline = time.monotonic() + READY_S
            while True:
                links = {(link["from"], link["to"]): link for link in cluster.ask("links")["links"]}
                if links.keys() == {(0, 1), (1, 0)} and all(each["round_trip_ms"] for each in links.values()):
                    break
                assert time.monotonic() < deadline, links
                time.sleep(0.05)
            assert all(each["state"] == "up" and each["bytes_sent"] > 0 for each in links.values())

    def test_a_signal_ends_both_in_order(self, tmp_path: Path) -> None:
        """SIGTERM to the first one is enough, and the exit code is 0."""
        with spread(tmp_path) as cluster:
            second = cluster.second()
            # As systemd does, which tells each process.
            os.kill(second, signal.SIGTERM)
            connection = cluster.server.connect()
            write(connection, range(10))
            connection.close()
            assert cluster.second() == second
            assert cluster.server.terminate() == 0
            assert not Path(f"/proc/{second}").exists()


def _state(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return "Z"
