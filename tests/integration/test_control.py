"""The control door over real sockets: who is let in, what can be commanded, what is told."""

import errno
import json
import os
import stat
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio_websocket

from tests.doubles import MemorySink
from trio_kv.client import control as client
from trio_kv.control import server, token
from trio_kv.control.commands import BY_NAME
from trio_kv.control.config import ControlConfig
from trio_kv.control.server import ControlDoor
from trio_kv.control.token import ControlFile, control_path, read_control_file, write_control_file
from trio_kv.raft.events import LeaderSteppedDown
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import ClientFailed, ControlCommanded, ControlFileDelayed


class FakeCluster:
    """Remembers what it was asked, to operate or to break it."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.faults = self
        self.others = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*args: object) -> None:
            self.calls.append((name, *args))

        return call

    def crash(self, node: int) -> None:
        if node == 9:
            raise ValueError("there is no node 9")
        if node == 8:
            raise LookupError("a bug of ours")
        self.calls.append(("crash", node))

    async def rebuild(self, node: int) -> dict[str, object]:
        await trio.lowlevel.checkpoint()
        if node == 7:
            await trio.sleep_forever()
        self.calls.append(("rebuild", node))
        return {}

    def leader(self) -> int:
        return 2

    async def backup(self, without: Collection[int]) -> dict[str, object]:
        await trio.sleep(0.1)
        self.calls.append(("backup", without))
        return {"path": "here/a.snap", "index": 17, "term": 3, "node": 1}

    def status(self) -> dict[str, object]:
        return {"leader": 1, "term": 3, "nodes": []}


@attrs.define
class Door:
    door: ControlDoor
    cluster: FakeCluster
    trace: Trace
    sink: MemorySink
    file: Path

    @property
    def token(self) -> str:
        return read_control_file(self.file).token

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[trio_websocket.WebSocketConnection]:
        """Open a WebSocket; at the end cut it."""
        async with (
            await trio.open_tcp_stream("127.0.0.1", self.door.port) as stream,
            trio.open_nursery() as nursery,
        ):
            yield await trio_websocket.wrap_client_stream(
                nursery, stream, f"127.0.0.1:{self.door.port}", "/ws"
            )
            nursery.cancel_scope.cancel()

    async def enter(self, websocket: trio_websocket.WebSocketConnection) -> None:
        await websocket.send_message(json.dumps({"auth": self.token}))

    async def raw(self, data: bytes) -> bytes:
        """Send bytes; return all that comes back until the door closes."""
        async with await trio.open_tcp_stream("127.0.0.1", self.door.port) as stream:
            await stream.send_all(data)
            received = b""
            with trio.fail_after(30):
                while chunk := await stream.receive_some(65536):
                    received += chunk
            return received


async def ask(websocket: trio_websocket.WebSocketConnection, **message: object) -> dict[str, Any]:
    await websocket.send_message(json.dumps(message))
    return await receive(websocket)


async def receive(websocket: trio_websocket.WebSocketConnection) -> dict[str, Any]:
    with trio.fail_after(30):
        reply = json.loads(await websocket.get_message())
    assert isinstance(reply, dict)
    return reply


@pytest.fixture
def limits() -> dict[str, float]:
    """Return the door's limits; a test overrides this by its parameters."""
    return {}


@pytest.fixture
async def door(nursery: trio.Nursery, tmp_path: Path, limits: dict[str, float]) -> AsyncGenerator[Door]:
    """Return an open door; after the test it still serves a good client, and nothing has failed."""
    sink = MemorySink()
    trace, cluster = Trace([sink]), FakeCluster()
    config = ControlConfig(port=0, data_dir=tmp_path, **limits)  # type: ignore[arg-type]
    control = ControlDoor(cluster, config, trace)  # type: ignore[arg-type]
    port = await nursery.start(control.serve)
    assert port == control.port > 0
    door = Door(control, cluster, trace, sink, tmp_path / "control.json")
    yield door
    assert not sink.events(ClientFailed), sink.events(ClientFailed)[0].traceback
    for _ in range(20):
        # A slow machine may be later than a door whose patience is a test's. trio-websocket never hears that it closed.
        with trio.move_on_after(5):
            async with door.open() as websocket:
                await door.enter(websocket)
                assert (await ask(websocket, id=1, command="status"))["status"] == "ok"
            return
    raise AssertionError("the door serves nobody any more")


async def test_status(door: Door) -> None:
    """After the token a command gets its reply, with its id whatever that is."""
    async with door.open() as websocket:
        await door.enter(websocket)
        reply = await ask(websocket, id={"a": [1.5]}, command="status")
        assert reply == {"id": {"a": [1.5]}, "status": "ok", "leader": 1, "term": 3, "nodes": []}
        assert await ask(websocket, command="heal") == {"status": "ok"}


@pytest.mark.parametrize(
    ("command", "call"),
    [
        ({"command": "crash", "node": 2}, ("crash", 2)),
        ({"command": "stop", "node": 2}, ("stop", 2)),
        ({"command": "restart", "node": 2}, ("restart", 2)),
        ({"command": "pause", "node": 2}, ("pause", 2)),
        ({"command": "resume", "node": 2}, ("resume", 2)),
        ({"command": "partition", "groups": [[1, 2], [3, 4, 5]]}, ("partition", [[1, 2], [3, 4, 5]])),
        ({"command": "cut", "link": [1, 2]}, ("cut", 1, 2)),
        ({"command": "heal"}, ("heal", None)),
        ({"command": "heal", "link": [1, 2]}, ("heal", (1, 2))),
        ({"command": "delay", "ms": 50}, ("delay", 0.05, None)),
        ({"command": "delay", "ms": 50, "link": [3, 1]}, ("delay", 0.05, (3, 1))),
        ({"command": "drop", "percent": 12.5}, ("drop", 0.125, None)),
        ({"command": "drop", "percent": 100, "link": [1, 2]}, ("drop", 1.0, (1, 2))),
        ({"command": "slow-disk", "node": 3, "ms": 20}, ("slow_disk", 3, 0.02)),
        ({"command": "stall-disk", "node": 3}, ("stall_disk", 3)),
        ({"command": "fill-disk", "node": 3}, ("fill_disk", 3)),
        ({"command": "fail-disk", "node": 3}, ("fail_disk", 3)),
        ({"command": "heal-disk", "node": 3}, ("heal_disk", 3)),
        ({"command": "transfer", "node": 3}, ("transfer", 3)),
        ({"command": "transfer", "target": 3}, ("transfer", 3)),
        ({"command": "snapshot", "node": 3}, ("snapshot", 3)),
        ({"command": "rebuild", "node": 3}, ("rebuild", 3)),
    ],
)
async def test_a_command_is_carried_out(
    door: Door, command: dict[str, object], call: tuple[object, ...]
) -> None:
    """Each command calls its method of the cluster, in seconds and fractions, and is told as an event."""
    async with door.open() as websocket:
        await door.enter(websocket)
        assert await ask(websocket, id=7, **command) == {"id": 7, "status": "ok"}
    assert door.cluster.calls == [call]
    (commanded,) = door.sink.events(ControlCommanded)
    assert commanded.command == command["command"]
    assert door.token not in commanded.detail


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("nonsense", '"command": "status"'),
        ("[1]", '"command": "status"'),
        ('{"id":7}', "`command` is missing"),
        ('{"id":7,"command":"explode"}', "the commands are status, links, events, frames, frames-kept"),
        ('{"id":7,"command":"crash"}', '{"command": "crash", "node": 2}'),
        ('{"id":7,"command":"crash","node":"2"}', '{"command": "crash", "node": 2}'),
        ('{"id":7,"command":"crash","node":2.5}', '{"command": "crash", "node": 2}'),
        ('{"id":7,"command":"crash","node":0}', '{"command": "crash", "node": 2}'),
        ('{"id":7,"command":"crash","node":9}', "there is no node 9"),
        ('{"id":7,"command":"crash","node":2,"hard":true}', "hard"),
        ('{"id":7,"command":"partition","groups":[[1,2],[2,3]]}', "two groups"),
        ('{"id":7,"command":"partition","groups":[[1,2]]}', '"groups": [[1, 2], [3, 4, 5]]'),
        ('{"id":7,"command":"cut","link":[1,1]}', "two different ends"),
        ('{"id":7,"command":"heal","link":[2,2]}', "two different ends"),
        ('{"id":7,"command":"drop","percent":101}', '"percent": 10'),
        ('{"id":7,"command":"delay","ms":-1}', '"ms": 50'),
        ('{"id":7,"command":"transfer"}', "name one node"),
        ('{"id":7,"command":"snapshot"}', '{"command": "snapshot", "node": 2}'),
        ('{"id":7,"command":"backup","node":1}', '{"command": "backup"}'),
        ("[" * 30_000 + "]" * 30_000, '"command": "status"'),
    ],
)
async def test_a_wrong_command_is_explained(door: Door, message: str, hint: str) -> None:
    """What is no command gets the error object, with its id and with what would be right."""
    async with door.open() as websocket:
        await door.enter(websocket)
        await websocket.send_message(message)
        reply = await receive(websocket)
        assert hint in reply.pop("message")
        expected = {"key": None, "value": None, "status": "error", "error": "bad_request"}
        assert reply == (expected | {"id": 7} if "id" in message else expected)
    assert door.cluster.calls == []


@pytest.mark.parametrize(
    "first", ['{"auth":"guess"}', '{"command":"status","id":1}', "[]", '{"auth":1}', "é"]
)
async def test_the_token_comes_first(door: Door, first: str) -> None:
    """Without the token nothing is carried out: one error, and the connection is closed."""
    async with door.open() as websocket:
        await websocket.send_message(first)
        assert (await receive(websocket))["error"] == "unauthorized"
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await websocket.get_message()
    assert closed.value.reason is not None
    assert closed.value.reason.code == 1008


@pytest.mark.parametrize("limits", [{"auth_timeout_s": 0.1}])
async def test_silence_instead_of_a_token(door: Door) -> None:
    """Who says nothing is closed, before the handshake, within it, and after it."""
    assert await door.raw(b"") == b""
    assert await door.raw(b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\n") == b""
    async with door.open() as websocket:
        with pytest.raises(trio_websocket.ConnectionClosed), trio.fail_after(30):
            await websocket.get_message()


UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /ws HTTP/1.1\r\nHost: example.org\r\n", 403),
        (b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1.example.org\r\n", 403),
        (b"GET /ws HTTP/1.1\r\nHost: localhost.example.org:3002\r\n", 403),
        (b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:3002@example.org\r\n", 403),
        (b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:\r\n", 403),
        (b"GET / HTTP/1.1\r\nHost: example.org\r\n", 403),
        (b"GET /ws HTTP/1.1\r\n", 400),
        (b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n", 400),
        (b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:3002\r\nOrigin: http://example.org\r\n", 403),
        (b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:3002\r\nOrigin: http://127.0.0.1:8000\r\n", 403),
        (b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:3002\r\nOrigin: https://127.0.0.1:3002\r\n", 403),
        (b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:3002\r\nOrigin: null\r\n", 403),
        (
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:3002\r\nOrigin: http://127.0.0.1:3002\r\nOrigin: null\r\n",
            403,
        ),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1:3002\r\n", 404),
        (b"GET /wss HTTP/1.1\r\nHost: 127.0.0.1:3002\r\n", 404),
        (b"POST /ws HTTP/1.1\r\nHost: 127.0.0.1:3002\r\nContent-Length: 0\r\n", 426),
        (b"GET /ws HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n", 431),
        (b"\x00\xff nonsense\r\n", 400),
    ],
)
async def test_a_stranger_is_refused(door: Door, head: bytes, status: int) -> None:
    """A request for another host, from another origin, to another path, or that is none, is not served."""
    reply = await door.raw(head + UPGRADE)
    assert reply.startswith(b"HTTP/1.1 %d " % status), reply


@pytest.mark.parametrize(
    "head",
    [
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:3002\r\n",
        b"GET /ws?x=1 HTTP/1.1\r\nHost: LocalHost\r\n",
        b"GET /ws HTTP/1.1\r\nHost: [::1]:3002\r\nOrigin: http://[::1]:3002\r\n",
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:3002\r\nOrigin: http://127.0.0.1:3002\r\n",
    ],
)
@pytest.mark.parametrize("limits", [{"auth_timeout_s": 0.2}])
async def test_the_door_itself_is_let_in(door: Door, head: bytes) -> None:
    """The three names of this machine, and pages of the door itself, may open a WebSocket."""
    assert (await door.raw(head + UPGRADE)).startswith(b"HTTP/1.1 101 ")


async def test_events_are_told(door: Door) -> None:
    """After `events` a client gets each event, between its replies."""
    async with door.open() as websocket:
        await door.enter(websocket)
        assert await ask(websocket, id=1, command="events") == {"id": 1, "status": "ok"}
        assert await ask(websocket, id=2, command="events") == {"id": 2, "status": "ok"}
        door.trace.emit(LeaderSteppedDown("test"), node=2, term=5, role="leader")
        event = (await receive(websocket))["event"]
        assert {name: event[name] for name in ("event", "node", "term", "role", "reason")} == {
            "event": "leader.stepped_down",
            "node": 2,
            "term": 5,
            "role": "leader",
            "reason": "test",
        }
        await websocket.send_message('{"id":3,"command":"heal"}')
        replies = [await receive(websocket), await receive(websocket)]
        assert {"id": 3, "status": "ok"} in replies
        assert "control.commanded" in [reply["event"]["event"] for reply in replies if "event" in reply]


@pytest.mark.parametrize("limits", [{"events_max": 10}])
async def test_a_slow_listener_loses_events(door: Door) -> None:
    """A client that is slower than the cluster loses events, is told how many, and slows nobody down."""
    async with door.open() as websocket:
        await door.enter(websocket)
        await ask(websocket, id=1, command="events")
        for number in range(25):
            door.trace.emit(LeaderSteppedDown(str(number)))
        reasons = [(await receive(websocket))["event"]["reason"] for _ in range(10)]
        door.trace.emit(LeaderSteppedDown("last"))
        lost = (await receive(websocket))["event"]
        if lost["event"] != "trace.lost":
            # One more was handed over directly, because the sending task waited already.
            reasons.append(lost["reason"])
            lost = (await receive(websocket))["event"]
        assert reasons == [str(number) for number in range(len(reasons))]
        assert (lost["event"], lost["count"]) == ("trace.lost", 25 - len(reasons))
        assert lost["last"] - lost["first"] == lost["count"] - 1
        assert (await receive(websocket))["event"]["reason"] == "last"


@pytest.mark.parametrize("limits", [{"send_timeout_s": 0.1, "events_max": 10}])
async def test_a_listener_that_never_reads_is_dropped(door: Door) -> None:
    """A client that takes nothing is dropped; its queue is gone from the trace."""
    async with await trio.open_tcp_stream("127.0.0.1", door.door.port) as stream:
        async with trio.open_nursery() as nursery:
            websocket = await trio_websocket.wrap_client_stream(nursery, stream, "127.0.0.1", "/ws")
            await door.enter(websocket)
            await ask(websocket, id=1, command="events")
            # From here on nobody reads, and the connection stays open.
            nursery.cancel_scope.cancel()
        with trio.fail_after(30):
            await trio.lowlevel.checkpoint()
            while len(door.trace._sinks) > 1:
                for _ in range(10):
                    door.trace.emit(LeaderSteppedDown("x" * 100_000))
                await trio.sleep(0.002)


async def test_a_message_too_long_closes(door: Door) -> None:
    """A message over the limit closes the connection with code 1009."""
    async with door.open() as websocket:
        await door.enter(websocket)
        await websocket.send_message("x" * 100_000)
        with pytest.raises(trio_websocket.ConnectionClosed) as closed, trio.fail_after(30):
            await websocket.get_message()
    assert closed.value.reason is not None
    assert closed.value.reason.code == 1009


@pytest.mark.parametrize("limits", [{"connections_max": 2}])
async def test_one_client_too_many(door: Door) -> None:
    """Beyond the limit a client gets 503; when one left, the next is let in."""
    async with door.open() as first, door.open() as second:
        await door.enter(first)
        await door.enter(second)
        assert (await door.raw(b"")).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("limits", [{"auth_timeout_s": 0.2}])
async def test_garbage_after_the_handshake(door: Door) -> None:
    """A client that breaks the WebSocket protocol, or resets, ends its own connection only."""
    head = b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:3002\r\n" + UPGRADE
    for garbage in (b"\xff" * 100, b"\x83\x00", b"\xc1\x7f" + b"\xff" * 20, b"\x81\x81\0\0\0\0\xff"):
        reply = await door.raw(head + garbage)
        assert reply.startswith(b"HTTP/1.1 101 ")


async def test_each_command_is_described(door: Door) -> None:
    """A page learns what each command will do, its members, and what takes it back: a command that takes these."""
    async with door.open() as websocket:
        await door.enter(websocket)
        told = (await ask(websocket, id=1, command="describe"))["commands"]
    by_name = {each["command"]: each for each in told}
    assert set(by_name) == set(BY_NAME)
    assert all(each["what"].split(".")[0] for each in told)
    assert by_name["pause"]["members"] == ["node"]
    assert by_name["pause"]["undo"] == {"command": "resume", "with": ["node"], "members": {}}
    assert by_name["delay"]["undo"] == {"command": "delay", "with": ["link"], "members": {"ms": 0}}
    assert by_name["crash"]["undo"] is None
    for each in told:
        undo = each["undo"]
        if undo is not None:
            assert set(undo["with"]) <= set(each["members"])
            taken = by_name[undo["command"]]["members"]
            assert {*undo["with"], *undo["members"]} <= set(taken)
    assert not door.sink.events(ControlCommanded)


@pytest.mark.parametrize("limits", [{"slow_command_timeout_s": 0.05}])
async def test_a_command_that_hangs(door: Door) -> None:
    """A command that takes too long is answered `timeout`, and the next one is carried out."""
    async with door.open() as websocket:
        await door.enter(websocket)
        assert (await ask(websocket, id=1, command="rebuild", node=7))["error"] == "timeout"
        assert (await ask(websocket, id=2, command="crash", node=1))["status"] == "ok"


@pytest.mark.parametrize("limits", [{"command_timeout_s": 0.02}])
async def test_a_backup_may_take_its_time(door: Door) -> None:
    """`backup` tells the snapshot by an absolute path, and is not held to the limit of quick commands."""
    async with door.open() as websocket:
        await door.enter(websocket)
        reply = await ask(websocket, id=1, command="backup")
    path = str(Path.cwd() / "here" / "a.snap")  # noqa: ASYNC240 - asks no disk
    assert reply == {"id": 1, "status": "ok", "path": path, "index": 17, "term": 3, "node": 1}


async def test_what_the_cluster_refuses_is_not_called_a_typing_mistake(door: Door) -> None:
    """A command that is right, but makes no sense now, is answered with the reason alone."""
    async with door.open() as websocket:
        await door.enter(websocket)
        assert (await ask(websocket, command="crash", node=9))["message"] == "there is no node 9"


async def test_a_bug_ends_one_connection(door: Door) -> None:
    """An unexpected exception ends the connection and is told with its traceback; the door goes on."""
    async with door.open() as websocket:
        await door.enter(websocket)
        await websocket.send_message('{"id":1,"command":"crash","node":8}')
        with pytest.raises(trio_websocket.ConnectionClosed), trio.fail_after(30):
            await websocket.get_message()
    (failed,) = door.sink.events(ClientFailed)
    assert "a bug of ours" in failed.traceback
    assert door.token not in failed.traceback
    door.sink.records.clear()


async def test_the_command_line_finds_the_door(door: Door) -> None:
    """The client of the command line finds the token file and gets its command carried out."""

    def command() -> dict[str, Any]:
        found = client.find_door(door.file.parent, door.door.port)
        return client.command(found, "transfer", {"target": 3}, timeout_s=5)

    assert await trio.to_thread.run_sync(command) == {"id": 1, "status": "ok"}
    assert door.cluster.calls == [("transfer", 3)]


async def test_the_token_file(tmp_path: Path) -> None:
    """The file is its owner's alone, says where the door is, and is gone when the door is."""
    path = tmp_path / "control.json"
    path.write_text("left by a crash")
    async with trio.open_nursery() as nursery:
        door = ControlDoor(FakeCluster(), ControlConfig(port=0, data_dir=tmp_path), Trace())  # type: ignore[arg-type]
        port = await nursery.start(door.serve)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        content = read_control_file(path)
        assert content.address == f"127.0.0.1:{port}"
        assert len(content.token) >= 32
        assert content.token not in repr(content)
        door.stop()
    assert not path.exists()


async def test_a_page_finds_its_way_back_to_a_server_that_was_started_again(tmp_path: Path) -> None:
    """The token is that of the data directory, in a file of its owner alone; in another directory it is another."""
    tokens = []
    for directory in ("one", "one", "other"):
        (tmp_path / directory).mkdir(exist_ok=True)
        async with trio.open_nursery() as nursery:
            config = ControlConfig(port=0, data_dir=tmp_path / directory)
            door = ControlDoor(FakeCluster(), config, Trace())  # type: ignore[arg-type]
            await nursery.start(door.serve)
            tokens.append(read_control_file(tmp_path / directory / "control.json").token)
            assert door.page_address(has_token=True).endswith(f"/#token={tokens[-1]}")
            assert tokens[-1] not in door.page_address(has_token=False)
            door.stop()
        kept = tmp_path / directory / "control.token"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert kept.read_text() == f"{tokens[-1]}\n"
    assert tokens[0] == tokens[1] != tokens[2]


@pytest.mark.parametrize("spoil", ["mode", "content", "link", "pipe", "directory"])
def test_a_token_that_others_may_know_is_replaced(tmp_path: Path, spoil: str) -> None:
    """So is what is no token: it is as if there were none."""
    path = tmp_path / token.TOKEN_NAME
    first = token.token_of(tmp_path)
    assert token.token_of(tmp_path) == first
    if spoil == "mode":
        path.chmod(0o640)
    elif spoil == "content":
        path.write_text("guess-me")
    else:
        path.unlink()
        if spoil == "link":
            (tmp_path / "elsewhere").write_text(f"{first}\n")
            path.symlink_to(tmp_path / "elsewhere")
        elif spoil == "pipe":
            os.mkfifo(path)
        else:
            path.mkdir()
    second = token.token_of(tmp_path)
    assert second != first
    assert len(second) >= 32
    if spoil != "directory":
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert token.token_of(tmp_path) == second


async def test_D12_the_token_file_waits_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the door opens all the same, is found by its port meanwhile, and by the directory afterwards."""
    real, is_full = token._write, True

    def write(path: Path, content: ControlFile) -> None:
        if is_full and path.parent == tmp_path / "data":
            raise OSError(errno.ENOSPC, "no space is left")
        real(path, content)

    monkeypatch.setattr(token, "_write", write)
    monkeypatch.setattr(server, "FILE_RETRY_S", 0.01)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = tmp_path / "data" / "control.json"
    path.parent.mkdir()
    path.write_text("left by a crash")
    sink = MemorySink()
    async with trio.open_nursery() as nursery:
        door = ControlDoor(FakeCluster(), ControlConfig(port=0, data_dir=path.parent), Trace([sink]))  # type: ignore[arg-type]
        port = await nursery.start(door.serve)
        with trio.fail_after(30):
            while not (elsewhere := control_path(None, port)).exists():  # noqa: ASYNC110 - as a client would
                await trio.sleep(0.01)
        assert client.find_door(path.parent, port).address == f"127.0.0.1:{port}"
        assert not path.exists()
        is_full = False
        with trio.fail_after(30):
            while elsewhere.exists():  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert read_control_file(path).address == f"127.0.0.1:{port}"
        door.stop()
    assert not path.exists()
    assert [event.file for event in sink.events(ControlFileDelayed)] == [str(path)]


def test_D12_what_a_server_left_makes_room_for_the_next_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of a server that is gone is worth nothing, and its place on a full disk is; other errors are errors."""
    real = token._write
    path = tmp_path / "control.json"

    def write(path: Path, content: ControlFile) -> None:
        if path.exists():
            raise OSError(error, "refused")
        real(path, content)

    monkeypatch.setattr(token, "_write", write)
    content = ControlFile("127.0.0.1:1", "token", 1)
    for error in (errno.ENOSPC, errno.EACCES):
        path.write_text("left by a crash")
        if error == errno.ENOSPC:
            write_control_file(path, content)
            assert read_control_file(path) == content
        else:
            with pytest.raises(OSError, match="refused"):
                write_control_file(path, content)
            assert path.exists()


async def test_the_file_of_a_later_server_stays(tmp_path: Path) -> None:
    """A door that ends removes its own token file, not the one that replaced it."""
    other = ControlFile("127.0.0.1:1", "another token", 1)
    async with trio.open_nursery() as nursery:
        door = ControlDoor(FakeCluster(), ControlConfig(port=0, data_dir=tmp_path), Trace())  # type: ignore[arg-type]
        await nursery.start(door.serve)
        write_control_file(tmp_path / "control.json", other)
        door.stop()
    assert read_control_file(tmp_path / "control.json") == other


def test_a_store_that_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a data directory the file is in a run-time directory that is the user's alone."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert control_path(None, 3002) == tmp_path / "trio_kv" / "control-3002.json"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert control_path(None, 3002) == client.ephemeral_door_path(3002)
    made = control_path(None, 3002).parent
    assert made.parent == tmp_path
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o777)
    with pytest.raises(PermissionError, match="remove it"):
        control_path(None, 3002)
