"""Claims about `chaos`: it finds what is wrong with a store, and nothing where nothing is wrong."""

import contextlib
import html
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import attrs
import msgspec
import pytest
import trio
import trio.testing
from msgspec import UNSET

from trio_kv.check.history import decode_history
from trio_kv.check.linearizability import check_history
from trio_kv.check.program_order import ProgramOrder
from trio_kv.check.reasons import KINDS
from trio_kv.cli.main import main
from trio_kv.kv.operations import Cas, Delete, Get, Set
from trio_kv.kv.reply import Reply
from trio_kv.sim.chaos import run as chaos_run
from trio_kv.sim.chaos import workload
from trio_kv.sim.chaos.cards import LINK_CARDS, NODE_CARDS, required_situations
from trio_kv.sim.chaos.config import DOOR_KINDS, FAULT_KINDS, ChaosConfig
from trio_kv.sim.chaos.nemesis import Nemesis, draw_partition
from trio_kv.sim.chaos.run import run_chaos
from trio_kv.sim.chaos.summary import Summary
from trio_kv.sim.chaos.target import Own, RefusedError, RunningServer, Target
from trio_kv.wire.operations import Request
from trio_kv.wire.replies import encode_error, encode_reply
from trio_kv.wire.requests import parse_line

DONE_S = 60.0
Answer = Callable[[Request], Reply]


# --- the whole command --------------------------------------------------------------------------------------


def chaos_line(folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "trio_kv", "chaos", "--out", str(folder), "--output", "json", *options]


def assert_no_server_left(folder: Path) -> None:
    events = map(json.loads, (folder / "server.log").read_text().splitlines())
    for pid in [event["pid"] for event in events if event["event"] == "server.started"]:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_sound_store_is_valid(tmp_path: Path) -> None:
    """A few seconds of all faults on a server of its own: valid, and the folder holds what can be judged again."""
    folder = tmp_path / "run"
    line = chaos_line(folder, "--nodes", "3", "--seconds", "6", "--seed", "1")
    done = subprocess.run(line, capture_output=True, text=True, timeout=DONE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((folder / "summary.json").read_text())
    assert summary["verdict"] == "valid"
    assert summary["checked"] > 100
    assert sum(summary["faults"].values()) >= 3
    history = decode_history((folder / "history.jsonl").read_bytes().splitlines())
    assert check_history(history.operations).is_valid
    calls = [operation.call_s for operation in history.operations]
    assert calls == sorted(calls)
    # Each key was read once more at the end, and each family by some reads.
    told = len(history.operations) + len(history.exchanges)
    assert told >= summary["checked"] + summary["keys"]
    registers = {operation.key for operation in history.operations}
    assert len(registers) < summary["keys"], "families are among what was used"
    assert len(history.faults) == sum(summary["faults"].values())
    assert "<html" in (folder / "timeline.html").read_text()
    assert summary["watched"]["watches"] == 3
    assert summary["watched"]["events"] > 100
    assert summary["watched"]["keys judged by all that was told"] > 0
    assert (folder / "traces" / "001.jsonl").exists()
    assert not (folder / "data").exists()
    assert not (folder / "watched.jsonl").exists()
    assert_no_server_left(folder)


def test_a_server_that_runs_is_broken_through_its_door(tmp_path: Path) -> None:
    """With --port and --data-dir faults go through the door of a server that goes on when the run is over."""
    data_dir, folder = tmp_path / "data", tmp_path / "run"
    ports = ["--port", "0", "--control-port", "0", "--log-json"]
    line = [sys.executable, "-m", "trio_kv", "serve", "--nodes", "3", "--data-dir", str(data_dir), *ports]
    with subprocess.Popen(line, stderr=subprocess.PIPE) as server:
        try:
            assert server.stderr is not None
            events = map(json.loads, server.stderr)
            ready = next(event for event in events if event["event"] == "server.started")
            line = chaos_line(folder, "--port", str(ready["port"]), "--data-dir", str(data_dir))
            line += ["--seconds", "3", "--seed", "2"]
            done = subprocess.run(line, capture_output=True, text=True, timeout=DONE_S, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            summary = json.loads(done.stdout)
            assert summary["faults"]
            assert not {"kill", "freeze"} & summary["faults"].keys(), "the process is not ours"
            assert server.poll() is None
        finally:
            server.kill()


def test_an_interrupt_ends_in_order(tmp_path: Path) -> None:
    """Ctrl-C ends load and faults; recovery and verdict follow, and no process is left."""
    folder = tmp_path / "run"
    line = chaos_line(folder, "--nodes", "3", "--minutes", "60")
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "load and faults" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=DONE_S)
    # It may have come before the first answer: then there is nothing to tell.
    assert (process.returncode, json.loads(output)["verdict"]) in ((0, "valid"), (2, "unknown"))
    assert_no_server_left(folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seconds", "5", "--minutes", "1"], "--seconds and --minutes"),
        (["--faults", "crush"], "did you mean crash?"),
        (["--data-dir", "somewhere"], "add --port"),
        (["--out", "."], "is there already"),
        (["--port", "1", "--faults", "kill"], "leave --host and --port out"),
        (["--port", "1", "--faults", "crash"], "add --data-dir or --control-port"),
        (["--faults", "command"], "needs --fault-command"),
        (["--clients", "0"], "must be > 0"),
    ],
)
def test_wrong_command_lines(capsys: pytest.CaptureFixture[str], options: list[str], words: str) -> None:
    """What can't be is refused with a word, exit code 2, and nothing is started."""
    assert main(["chaos", *options]) == 2
    assert words in capsys.readouterr().err


def test_no_server(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Where nobody listens, or nobody left a door, the exit code is 3 and says so."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert main(["chaos", "--port", str(port), "--out", str(tmp_path / "one")]) == 3
        assert "no server of our protocol" in capsys.readouterr().err
        line = ["chaos", "--port", str(port), "--data-dir", str(tmp_path), "--out", str(tmp_path / "two")]
        assert main(line) == 3
        assert "does a server run" in capsys.readouterr().err


# --- servers of the protocol, sound and not -----------------------------------------------------------------


@attrs.define
class HonestStore:
    """One copy of the data: what it says can always be explained."""

    values: dict[str, msgspec.Raw] = attrs.field(factory=dict)
    revisions: dict[str, int] = attrs.field(factory=dict)
    requests: int = 0
    """Counts them, and gives revisions."""

    def answer(self, request: Request) -> Reply:
        self.requests += 1
        match request.operation:
            case Get(key=key):
                return self.get(key)
            case Set(key=key, value=value):
                self.put(key, value)
                return Reply("ok", revision=self.requests)
            case Delete(key=key):
                old = self.values.pop(key, None)
                return Reply("missing") if old is None else Reply("ok", value=old, revision=self.requests)
            case Cas(key=key, value=value, expected=expected):
                old = self.values.get(key)
                if (UNSET if old is None else old) != expected and not self.is_careless():
                    return Reply("conflict", value=old, revision=0 if old is None else self.revisions[key])
                self.put(key, value)
                return Reply("ok", revision=self.requests)
            case _:
                return Reply("bad_request", message="this server knows get, set, delete and cas")

    def get(self, key: str) -> Reply:
        value = self.values.get(key)
        return Reply("missing") if value is None else Reply("ok", value=value, revision=self.revisions[key])

    def put(self, key: str, value: msgspec.Raw) -> None:
        self.values[key] = value
        self.revisions[key] = self.requests

    def is_careless(self) -> bool:
        return False


@attrs.define
class StaleStore(HonestStore):
    """Some reads come from a copy that lags behind."""

    before: dict[str, msgspec.Raw] = attrs.field(factory=dict)

    def get(self, key: str) -> Reply:
        if self.requests % 20 == 0 and key in self.before:
            return Reply("ok", value=self.before[key])
        return HonestStore.get(self, key)

    def put(self, key: str, value: msgspec.Raw) -> None:
        if key in self.values:
            self.before[key] = self.values[key]
        HonestStore.put(self, key, value)


@attrs.define
class ForgetfulStore(HonestStore):
    """Some acknowledged writes are lost."""

    def put(self, key: str, value: msgspec.Raw) -> None:
        if self.requests % 20:
            HonestStore.put(self, key, value)


@attrs.define
class CarelessStore(HonestStore):
    """A cas succeeds now and then though its condition does not hold."""

    def is_careless(self) -> bool:
        return self.requests % 5 == 0


def answer_lines(answer: Answer, lines: Sequence[bytes], *, has_meta: bool = True) -> list[bytes]:
    """Return the replies to the lines of one chunk."""
    replies = []
    for line in lines:
        request = parse_line(line)
        reply = answer(request)
        if isinstance(request.operation, Get | Set | Delete | Cas):
            asked = request if has_meta else msgspec.structs.replace(request, meta=False)
            replies.append(encode_reply(asked, reply, node=1, term=1))
        else:
            replies.append(encode_error(reply.code, reply.message or ""))
    return replies


@contextlib.asynccontextmanager
async def serving(
    answer: Answer, answer_chunk: Callable[[Answer, Sequence[bytes]], list[bytes]] = answer_lines
) -> AsyncIterator[RunningServer]:
    async def serve(stream: trio.SocketStream) -> None:
        rest = b""
        with contextlib.suppress(trio.BrokenResourceError):
            async for chunk in stream:
                *lines, rest = (rest + bytes(chunk)).split(b"\n")
                await stream.send_all(b"".join(answer_chunk(answer, lines)))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield RunningServer(("127.0.0.1", listeners[0].socket.getsockname()[1]))
        nursery.cancel_scope.cancel()


async def run_on(
    target: Target, folder: Path, *, seconds: float, faults: bool = False, has_families: bool = False
) -> Summary:
    @contextlib.asynccontextmanager
    async def open_target(on_event: object) -> AsyncIterator[Target]:
        del on_event
        yield target

    config = ChaosConfig(
        seed=7,
        out=folder,
        seconds=seconds,
        faults=frozenset(FAULT_KINDS if faults else ()),
        has_families=has_families,
        recovery_s=5.0,
    )
    return await run_chaos(config, open_target, on_progress=lambda _: None, stop=trio.Event())


@pytest.mark.parametrize("has_meta", [True, False])
async def test_an_honest_server_is_valid(tmp_path: Path, has_meta: bool) -> None:
    """Any server of the protocol can be judged, with no control door and no status, be it without revisions."""
    async with serving(HonestStore().answer, partial(answer_lines, has_meta=has_meta)) as server:
        summary = await run_on(server, tmp_path / "run", seconds=1.0)
    assert summary.verdict == "valid", summary.in_words()
    assert summary.checked > 100
    assert summary.faults == {}
    assert summary.stale_reads > 0
    assert summary.chains > 0
    assert summary.stale_reads == summary.operations["stale"]["ok"]
    assert f"{summary.stale_reads} stale reads, {summary.chains} chains" in summary.in_words()
    told = attrs.evolve(summary, faults={"kill": 1, "pause": 2}).in_words()
    assert "faults   1 kill, 2 pauses, 0 partitions" in told


async def test_a_server_without_stale_reads_is_valid(tmp_path: Path) -> None:
    """A server that refuses stale reads is judged by the others."""
    store = HonestStore()

    def answer(request: Request) -> Reply:
        return Reply("bad_request") if request.is_stale else store.answer(request)

    async with serving(answer) as server:
        summary = await run_on(server, tmp_path / "run", seconds=1.0)
    assert summary.verdict == "valid", summary.in_words()
    assert summary.checked > 100
    assert summary.stale_reads == 0
    assert summary.operations["stale"].keys() == {"failed"}


@pytest.mark.parametrize(
    ("store", "kinds"),
    [
        (StaleStore(), {"stale read"}),
        (ForgetfulStore(), {"stale read", "lost write", "lost update"}),
        (CarelessStore(), {"lost write", "lost update", "value used twice"}),
    ],
)
async def test_a_faulty_server_is_found_guilty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: HonestStore, kinds: set[str]
) -> None:
    """Stale reads, lost writes, a cas without its condition: a violation, named in words, also in the picture."""
    # It is the history that tells, and not a single connection.
    monkeypatch.setattr(workload, "CHAINED", 0.0)
    monkeypatch.setattr(ProgramOrder, "told", lambda self, request, operation: None)
    async with serving(store.answer, partial(answer_lines, has_meta=False)) as server:
        summary = await run_on(server, tmp_path / "run", seconds=30.0)
    assert summary.verdict == "violation"
    assert summary.seconds < 30.0, "the first violation ends the load"
    kind, words = summary.violations[0].split(" of chaos-", 1)
    assert kind in KINDS, summary.in_words()
    assert any(violation.startswith(tuple(kinds)) for violation in summary.violations), summary.in_words()
    page = html.unescape((tmp_path / "run" / "timeline.html").read_text()).replace("\xa0", " ")
    assert words.split(": ", 1)[1] in page


@attrs.define
class BackwardStore(StaleStore):
    """Stale reads give what a copy holds that may be far behind, whatever their connection has seen."""

    behind: dict[str, Reply] = attrs.field(factory=dict)

    def answer(self, request: Request) -> Reply:
        if isinstance(request.operation, Get) and request.is_stale:
            return self.behind.get(request.operation.key, Reply("missing"))
        return HonestStore.answer(self, request)

    def put(self, key: str, value: msgspec.Raw) -> None:
        if self.requests % 7 == 0:
            self.behind[key] = self.get(key)
        HonestStore.put(self, key, value)


@attrs.define
class InventiveStore(HonestStore):
    """Stale reads give what nobody wrote."""

    def answer(self, request: Request) -> Reply:
        if isinstance(request.operation, Get) and request.is_stale:
            return Reply("ok", value=msgspec.Raw(b'"?"'), revision=1 << 40)
        return HonestStore.answer(self, request)


def answer_reads_first(answer: Answer, lines: Sequence[bytes]) -> list[bytes]:
    """Let reads overtake the writes of a pipeline: linearizable, and yet not in the order that is promised."""
    early = {number: answer_lines(answer, [line]) for number, line in enumerate(lines) if is_read(line)}
    return [
        reply
        for number, line in enumerate(lines)
        for reply in early.get(number) or answer_lines(answer, [line])
    ]


def answer_reads_last(answer: Answer, lines: Sequence[bytes]) -> list[bytes]:
    """Let the writes of a pipeline overtake its reads, as a run whose reads are answered behind all of it."""
    early = {number: answer_lines(answer, [line]) for number, line in enumerate(lines) if not is_read(line)}
    return [
        reply
        for number, line in enumerate(lines)
        for reply in early.get(number) or answer_lines(answer, [line])
    ]


def is_read(line: bytes) -> bool:
    return isinstance(parse_line(line).operation, Get)


def answer_in_disorder(answer: Answer, lines: Sequence[bytes]) -> list[bytes]:
    """Send the replies to equal requests in any order."""
    return sorted(answer_lines(answer, lines))


BACKWARD = partial(serving, BackwardStore().answer)


@pytest.mark.parametrize(
    ("open_server", "chained", "words"),
    [
        (BACKWARD, 0.0, "a read of chaos-"),
        (partial(BACKWARD, partial(answer_lines, has_meta=False)), 1.0, "which one connection alone uses"),
        (partial(serving, InventiveStore().answer), 0.0, "tells of a value that nobody wrote"),
        (partial(serving, HonestStore().answer, answer_reads_first), 1.0, "which one connection alone uses"),
        (partial(serving, HonestStore().answer, answer_reads_last), 0.0, "asked for behind it"),
        (partial(serving, HonestStore().answer, answer_in_disorder), 1.0, "as if it were another one"),
    ],
)
async def test_a_promise_to_one_connection_that_is_broken_is_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    open_server: Callable[[], AbstractAsyncContextManager[RunningServer]],
    chained: float,
    words: str,
) -> None:
    """Stale reads that go back or give what never was, pipelines out of order: each is linearizable, and found."""
    monkeypatch.setattr(workload, "CHAINED", chained)
    async with open_server() as server:
        summary = await run_on(server, tmp_path / "run", seconds=30.0)
    assert summary.verdict == "violation"
    assert summary.seconds < 30.0, "it ends the load"
    assert words in summary.violations[0]
    assert words in summary.in_words()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["violations"] == summary.violations
    history = decode_history((tmp_path / "run" / "history.jsonl").read_bytes().splitlines())
    assert check_history(history.operations).is_valid, "the history alone would not have told"


async def test_nonsense_is_a_violation(tmp_path: Path) -> None:
    """A reply that can't answer the request, whatever the store holds, speaks against the server."""
    store = HonestStore()

    def answer(request: Request) -> Reply:
        reply = store.answer(request)
        return Reply("missing") if isinstance(request.operation, Set) and store.requests > 50 else reply

    async with serving(answer) as server:
        summary = await run_on(server, tmp_path / "run", seconds=30.0)
    assert summary.verdict == "violation"
    assert summary.seconds < 30.0, "it ends the load"
    assert any("can't be answered with" in violation for violation in summary.violations)


async def test_values_lost_after_the_load_are_missed(tmp_path: Path) -> None:
    """A key whose value vanishes when nobody uses it any more is found by the last read of every key."""
    store = HonestStore()

    def answer(request: Request) -> Reply:
        asked = request.operation
        if isinstance(asked, Get) and asked.key.endswith("whole"):
            store.values = {asked.key: store.values[asked.key]}
        return store.answer(request)

    async with serving(answer) as server:
        summary = await run_on(server, tmp_path / "run", seconds=0.5)
    assert summary.verdict == "violation"
    assert len(summary.violations) > 1


# --- the nemesis --------------------------------------------------------------------------------------------


@attrs.define
class Door:
    """A control door to a cluster that only keeps count."""

    addresses: tuple[tuple[str, int], ...] = (("127.0.0.1", 1),)
    has_door: bool = True
    own: Own | None = None
    leader: int | None = 1
    states: dict[int, str] = attrs.field(factory=lambda: dict.fromkeys((1, 2, 3, 4, 5), "up"))
    are_links_hurt: bool = False
    commands: list[str] = attrs.field(factory=list)

    async def ask_door(self, name: str, *, timeout_s: float = 1.0, **arguments: Any) -> dict[str, Any]:
        del timeout_s
        await trio.lowlevel.checkpoint()
        if name != "status":
            self.commands.append(name)
        match name:
            case "crash" | "stop" | "fail-disk" | "pause":
                states = {"crash": "crashed", "pause": "paused"}
                self.states[arguments["node"]] = states.get(name, "stopped")
            case "resume" | "restart" | "rebuild":
                self.states[arguments["node"]] = "up"
            case "partition" | "cut" | "delay" | "drop" | "slow-disk" | "fill-disk":
                self.are_links_hurt = True
            case "heal":
                self.are_links_hurt = False
            case _:
                pass
        return {
            "leader": self.leader,
            "nodes": [{"node": node, "state": state} for node, state in self.states.items()],
        }

    async def wait_up(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("seed", range(5))
async def test_a_minute_meets_everything(autojump_clock: trio.abc.Clock, seed: int) -> None:
    """A run of a minute meets every situation that it must have met, and each fault that began has ended."""
    del autojump_clock
    door = Door()
    nemesis = Nemesis(door, DOOR_KINDS, Random(seed), trio.current_time)
    with trio.move_on_after(120):
        await nemesis.run()
    met = {fault.situation for fault in nemesis.faults if fault.from_s - nemesis.faults[0].from_s < 59}
    assert set(required_situations(DOOR_KINDS, 5)) <= met
    assert {fault.kind for fault in nemesis.faults} == {
        card.kind for card in (*NODE_CARDS, *LINK_CARDS) if card.kind in DOOR_KINDS
    }
    assert all(fault.from_s <= fault.to_s < float("inf") for fault in nemesis.faults)
    assert all(fault.name.split()[0] == fault.kind for fault in nemesis.faults), "as histories want it"
    assert sum(state != "up" for state in door.states.values()) <= 1, (
        "the end cuts one fault of each lane short"
    )


async def test_a_node_that_was_left_down_comes_up(autojump_clock: trio.abc.Clock) -> None:
    """A fault whose end went wrong does not last for the rest of the run."""
    del autojump_clock
    door = Door(states={1: "up", 2: "stopped", 3: "paused", 4: "needs_rebuild", 5: "crashed"})
    nemesis = Nemesis(door, frozenset({"pause"}), Random(1), trio.current_time)
    with trio.move_on_after(5):
        await nemesis.run()
    assert list(door.states.values()).count("up") >= 4


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("seed", range(20))
def test_partitions_put_the_leader_where_it_is_wanted(size: int, seed: int) -> None:
    """Two groups hold all nodes, and the leader is in the smaller or the larger one, as asked."""
    nodes = list(range(1, size + 1))
    for variant in ("minority", "majority", "any"):
        first, second = draw_partition(nodes, 2, variant, Random(seed))
        assert sorted(first + second) == nodes
        smaller, larger = sorted((first, second), key=len)
        assert smaller
        if variant != "any":
            assert 2 in (smaller if variant == "minority" else larger)
    with pytest.raises(RefusedError):
        draw_partition(nodes, None, "minority", Random(seed))


async def test_the_users_command_starts_and_stops(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """The fault command runs with `start`, and always with `stop` after it; a failure of it is told."""
    mock_clock.rate = 20.0  # the command is a real process: time goes on while it runs, only faster
    log = tmp_path / "log"
    script = tmp_path / "break"
    script.write_text(f'#!/bin/sh\necho $1 >> {log}\ntest "$1" = stop\n')
    script.chmod(0o700)
    nemesis = Nemesis(Door(), frozenset({"command"}), Random(1), trio.current_time, str(script))
    with trio.move_on_after(20):
        await nemesis.run()
    words = log.read_text().split()
    assert len(words) >= 4
    assert words[0] == "start"
    assert words[-1] == "stop"
    assert ("start", "start") not in pairwise(words)
    assert nemesis.problems == [f"the command '{script} start' ended with 1"]


async def test_a_run_that_met_too_little_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no leader to hurt, a run that was long enough proves nothing, and says what it never met."""
    monkeypatch.setattr(chaos_run, "COVERAGE_S", 0.0)
    async with serving(HonestStore().answer) as server:
        summary = await run_on(
            Door((server.address,), leader=None), tmp_path / "run", seconds=0.5, faults=True
        )
    assert summary.verdict == "unknown", summary.in_words()
    assert "never met: the leader crashed" in summary.doubts
