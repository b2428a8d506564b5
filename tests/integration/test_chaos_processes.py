"""Claims about `chaos` on several processes and on hosts: single ones are killed and frozen, and come back."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.integration.test_chaos import DONE_S, Door, chaos_line
from trio_kv.cli.main import main
from trio_kv.sim.chaos.cards import LINK_CARDS, NODE_CARDS, ONE_CARDS, possible_kinds, required_situations
from trio_kv.sim.chaos.config import FAULT_KINDS, ONE_KINDS, PROCESS_KINDS, ChaosConfig
from trio_kv.sim.chaos.nemesis import Nemesis
from trio_kv.sim.chaos.own_hosts import PORTS, draw_ports
from trio_kv.sim.chaos.own_server import open_own_server
from trio_kv.sim.chaos.run import Run

BACK_S = 30.0


def run(folder: Path, *options: str) -> dict[str, Any]:
    line = chaos_line(folder, "--nodes", "3", "--seconds", "6", "--seed", "1", *options)
    done = subprocess.run(line, capture_output=True, text=True, timeout=2 * DONE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    assert summary["verdict"] == "valid"
    assert summary["checked"] > 100
    assert summary["faults"].keys() & ONE_KINDS
    assert summary["situations"]["a single process was killed"] > 0
    return summary


def events_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def assert_gone(events: Sequence[dict[str, Any]]) -> None:
    """No process that was ever started is there any more."""
    for event in events:
        if event["event"] in ("server.started", "process.started"):
            with pytest.raises(ProcessLookupError):
                os.kill(event["pid"], 0)


# --- the whole command --------------------------------------------------------------------------------------


def test_a_server_of_several_processes_is_valid(tmp_path: Path) -> None:
    """Further processes die and freeze beside all else, are started again, and nothing is wrong or left behind."""
    folder = tmp_path / "run"
    summary = run(folder, "--processes", "3")
    events = events_of(folder / "server.log")
    assert {event["started"] for event in events if event["event"] == "process.started"} == {1, 2}
    assert_gone(events)
    assert "--processes 3" in summary["command"]
    assert not (folder / "data").exists()


def test_a_cluster_of_hosts_is_valid(tmp_path: Path) -> None:
    """Hosts die and freeze one by one, clients go to another door, and nothing is wrong or left behind."""
    folder = tmp_path / "run"
    summary = run(folder, "--cluster")
    for host in (1, 2, 3):
        events = events_of(folder / f"host-{host}.log")
        assert_gone(events)
        connected = [event for event in events if event["event"] == "server.started"]
        assert connected
        assert (folder / "traces" / f"host-{host}-001.jsonl").exists()
    assert summary["command"].endswith("--cluster")
    assert (folder / "cluster" / "cluster.toml").exists()
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--processes", "6"], "give at most 5"),
        (["--processes", "2", "--cluster"], "leave --processes out"),
        (["--port", "1", "--cluster"], "leave --host and --port out"),
        (["--port", "1", "--processes", "2"], "leave --host and --port out"),
        (["--faults", "kill-one"], "add --processes or --cluster"),
        (["--port", "1", "--faults", "freeze-one"], "leave --host and --port out"),
    ],
)
def test_wrong_command_lines(capsys: pytest.CaptureFixture[str], options: list[str], words: str) -> None:
    """What can't be is refused with a word, exit code 2, and nothing is started."""
    assert main(["chaos", *options]) == 2
    assert words in capsys.readouterr().err


# --- the processes ------------------------------------------------------------------------------------------


async def test_whoever_dies_by_itself_is_told_of(tmp_path: Path) -> None:
    """A further process that we kill comes back, and that is all; one that dies otherwise speaks against the server."""
    told: list[dict[str, Any]] = []
    with trio.fail_after(BACK_S):
        async with open_own_server(
            tmp_path, nodes=3, processes=3, has_trace=False, on_event=told.append
        ) as server:
            assert [(one.name, list(one.nodes)) for one in server.ones] == [
                ("process 1", [2]),
                ("process 2", [3]),
            ]
            one, other = server.ones
            await one.kill()
            assert server.ones == [other]
            await one.start()
            assert server.ones == [one, other]
            assert not [event for event in told if event["event"] == "process.ended"]
            os.kill(_pid(told, 2), signal.SIGKILL)
            await trio.testing.wait_all_tasks_blocked(0.01)
            while not (ended := [event for event in told if event["event"] == "process.ended"]):  # noqa: ASYNC110
                await trio.sleep(0.02)
            one.freeze()
            await server.kill()
            assert server.ones == []
            await server.start()
            assert await server.stop() == []
    assert [(event["ended"], event["reason"]) for event in ended] == [(2, "signal 9")]
    found = Run(ChaosConfig(seed=1, out=tmp_path), lambda _: None, trio.Event())
    for event in told:
        found.take_event(event)
    assert found.findings.violations == ["process 2 ended by itself: signal 9; see server.log"]


def _pid(told: Sequence[dict[str, Any]], process: int) -> int:
    found = [event["pid"] for event in told if event.get("started") == process]
    return int(found[-1])


def test_ports_are_free() -> None:
    """No port is drawn twice, or where somebody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", draw_ports(1)[0]))
        ports = draw_ports(len(PORTS))
        assert len(set(ports)) == len(ports)
        assert taken.getsockname()[1] not in ports
        assert set(ports) <= set(PORTS)


# --- the nemesis --------------------------------------------------------------------------------------------


@attrs.define
class Dummy:
    """A process, or all of them, that only says what is done to it."""

    name: str
    nodes: tuple[int, ...]
    state: str = "up"
    others: list["Dummy"] = attrs.field(factory=list)
    has_ones: bool = True

    @property
    def ones(self) -> list["Dummy"]:
        return [each for each in self.others if each.state == "up"]

    async def start(self) -> None:
        assert self.state == "dead"
        await trio.sleep(0.5)
        self.state = "up"

    async def kill(self) -> None:
        assert all(each.state != "dead" for each in (self, *self.others)), "one death after the other"
        self.state = "dead"
        await trio.sleep(0.01)

    def freeze(self) -> None:
        self.state = "frozen"

    def thaw(self) -> None:
        if self.state == "frozen":
            self.state = "up"

    async def revive(self) -> None:
        raise NotImplementedError

    async def stop(self) -> Sequence[str]:
        raise NotImplementedError


@pytest.mark.parametrize("seed", range(5))
async def test_a_minute_meets_everything(autojump_clock: trio.abc.Clock, seed: int) -> None:
    """Single processes die and freeze within a minute, those of the leader among them, and run again."""
    del autojump_clock
    hosts = [Dummy(f"host {node}", (node,)) for node in range(1, 6)]
    door = Door(own=Dummy("all", (), others=hosts))
    kinds = possible_kinds(door, has_command=False)
    assert kinds == frozenset(FAULT_KINDS) - {"command"}
    nemesis = Nemesis(door, kinds, Random(seed), trio.current_time)
    with trio.move_on_after(120):
        await nemesis.run()
    met = {fault.situation for fault in nemesis.faults if fault.from_s - nemesis.faults[0].from_s < 59}
    assert set(required_situations(kinds, 5)) <= met
    assert {fault.kind for fault in nemesis.faults} == {
        card.kind for card in (*NODE_CARDS, *ONE_CARDS, *LINK_CARDS)
    }
    hurt = [fault.name for fault in nemesis.faults if fault.kind in ONE_KINDS]
    assert sum("host 1" in name for name in hurt) > len(hurt) / 4, "the leader is hurt more than any other"
    assert len({name.split()[2] for name in hurt}) > 2
    assert all(fault.name.split()[0] == fault.kind for fault in nemesis.faults), "as histories want it"
    assert sum(host.state != "up" for host in hosts) <= 1, "the end cuts one fault of each lane short"


def test_what_can_be_done_to_whom() -> None:
    """Single processes need several, and any process needs to be ours."""
    alone = possible_kinds(Door(own=Dummy("the server", (1, 2, 3), has_ones=False)), has_command=False)
    assert alone == frozenset(FAULT_KINDS) - ONE_KINDS - {"command"}
    assert possible_kinds(Door(), has_command=True) == frozenset(FAULT_KINDS) - ONE_KINDS - PROCESS_KINDS
