"""The dashboard's door over real sockets: the page's files, frames at each one's pace, the rewind, the console."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import h11
import pytest
import trio
import trio_websocket

from trio_kv.cli.house import open_house
from trio_kv.cli.options import ServeOptions
from trio_kv.control.token import read_control_file
from trio_kv.trace.trace import Trace

WAIT_S = 20.0


class Throttled(trio.abc.HalfCloseableStream):
    """A stream that gives little at a time, as a thin line does.

    Args:
        inner: where it comes from.
        bytes_per_s: so much is let through, until it is opened.

    """

    def __init__(self, inner: trio.SocketStream, bytes_per_s: float) -> None:
        self._inner = inner
        self.bytes_per_s = bytes_per_s
        self._opened = trio.Event()

    def open(self) -> None:
        self._opened.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await self._inner.receive_some(65536 if self._opened.is_set() else 1000)
        with trio.move_on_after(len(data) / self.bytes_per_s):
            await self._opened.wait()
        return bytes(data)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def aclose(self) -> None:
        await self._inner.aclose()


@attrs.define
class Page:
    """A page that is open: what it is sent, apart into replies and frames."""

    websocket: trio_websocket.WebSocketConnection
    frames: list[dict[str, Any]] = attrs.field(factory=list)
    _count: int = 0

    async def ask(self, command: str, **members: object) -> dict[str, Any]:
        """Send a command; return its reply. Frames that come before it are kept."""
        self._count += 1
        number = self._count
        await self.websocket.send_message(json.dumps({"id": number, "command": command, **members}))
        with trio.fail_after(WAIT_S):
            while True:
                message = await self._receive()
                if message.get("id") == number:
                    return message

    async def frame(self) -> dict[str, Any]:
        """Return the next frame."""
        with trio.fail_after(WAIT_S):
            while not self.frames:
                await self._receive()
        return self.frames.pop(0)

    async def frame_where(self, what: str) -> dict[str, Any]:
        """Return the next frame in which an event of this name is told."""
        while True:
            frame = await self.frame()
            if any(event["event"] == what for event in frame["events"]):
                return frame

    async def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self.websocket.get_message())
        if "frame" in message:
            self.frames.append(message["frame"])
        return message


@attrs.define
class Site:
    port: int
    client_port: int
    token: str

    @asynccontextmanager
    async def open(self, *, bytes_per_s: float | None = None) -> AsyncGenerator[tuple[Page, Throttled]]:
        """Open a page, as it was loaded just now."""
        async with (
            await trio.open_tcp_stream("127.0.0.1", self.port) as stream,
            trio.open_nursery() as nursery,
        ):
            throttled = Throttled(stream, bytes_per_s or 1e9)
            websocket = await trio_websocket.wrap_client_stream(
                nursery,
                throttled,  # type: ignore[arg-type]
                f"127.0.0.1:{self.port}",
                "/ws",
            )
            await websocket.send_message(json.dumps({"auth": self.token}))
            yield Page(websocket), throttled
            nursery.cancel_scope.cancel()

    async def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Ask for a path; return status, headers and body."""
        asked = {
            "Host": f"127.0.0.1:{self.port}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in asked.items()), "", ""]
        received = b""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            with trio.fail_after(WAIT_S):
                await stream.send_all("\r\n".join(lines).encode())
                while chunk := await stream.receive_some(65536):
                    received += chunk
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target=path, headers=[("Host", "x")]))
        connection.receive_data(received)
        connection.receive_data(b"")
        head = connection.next_event()
        assert isinstance(head, h11.Response)
        body = b""
        while isinstance(event := connection.next_event(), h11.Data):
            body += event.data
        return head.status_code, {name.decode(): value.decode() for name, value in head.headers}, body


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    """Return a store of three nodes with a leader, and its control door."""
    options = ServeOptions(port=0, control_port=0, nodes=3, data_dir=tmp_path / "data", has_no_fsync=True)
    async with open_house(options, Trace()) as house:
        with trio.fail_after(WAIT_S):
            await house.wait_leader()
        token = read_control_file(options.data_dir / "control.json").token
        yield Site(house.control_port, house.port, token)


async def test_a_page_sees_nodes_and_what_happens_to_them(site: Site) -> None:
    """Five facts of each node, faults, events and messages; a crash is seen, and so is who leads then."""
    async with site.open() as (page, _), site.open() as (other, _):
        run = (await page.ask("frames"))["run"]
        assert (await page.ask("frames"))["run"] == run, "once more is no second stream"
        frame = await page.frame()
        while frame["leader"] is None:
            frame = await page.frame()
        leader = frame["leader"]
        nodes = {node["node"]: node for node in frame["nodes"]}
        assert (frame["run"], set(nodes), nodes[leader]["role"]) == (run, {1, 2, 3}, "leader")
        (follower, second) = sorted({1, 2, 3} - {leader})
        assert nodes[leader]["election_ms"] is None
        assert nodes[follower]["election_of_ms"] == 400
        assert (frame["links"], frame["faults"]) == ([], [])
        await other.ask("cut", link=[follower, second])
        frame = await page.frame_where("link.cut")
        assert {tuple(each["link"]) for each in frame["links"] if each["is_cut"]} == {
            (follower, second),
            (second, follower),
        }
        await other.ask("heal", link=[second, follower])
        frame = await page.frame_where("link.healed")
        assert frame["links"] == []
        assert any(each["kind"] == "heartbeat" and each["from"] == leader for each in frame["messages"])
        await other.ask("crash", node=leader)
        frame = await page.frame_where("node.crashed")
        numbers = [frame["number"]]
        while frame["leader"] in {None, leader}:
            frame = await page.frame()
            numbers.append(frame["number"])
        assert frame["term"] > nodes[leader]["term"]
        assert numbers == sorted(set(numbers))


async def test_a_page_on_a_thin_line_is_never_far_behind(site: Site) -> None:
    """What it is shown is true at the time, whatever fits into the buffers on the way; nobody waits for it."""
    async with site.open(bytes_per_s=10_000) as (slow, line), site.open() as (quick, _):
        await slow.ask("frames")
        await quick.ask("frames")
        frame = await slow.frame()
        behind_s = []
        began_s = time.monotonic()
        async with trio.open_nursery() as nursery:

            async def look_quickly() -> None:
                while True:
                    await quick.frame()

            nursery.start_soon(look_quickly)
            while time.monotonic() < began_s + 3.0:
                frame = await slow.frame()
                behind_s.append(time.monotonic() - frame["mono"])
            line.open()
            opened_s = time.monotonic()
            while frame["mono"] < opened_s:
                frame = await slow.frame()
            right_after_s = time.monotonic() - opened_s
            nursery.cancel_scope.cancel()
        # A frame of 3 kB takes 0.3 s. Without a word of the page about each, it would be shown seconds late by now.
        assert max(behind_s) < 2.0
        assert right_after_s < 1.0
        last = (await quick.ask("frames-kept"))["last"]
        assert last >= 25, "frames were taken as if nobody were slow"


async def test_a_page_that_takes_nothing_holds_up_nobody(site: Site) -> None:
    """It may be gone without a word: others go on, and nothing piles up for it."""
    async with site.open() as (silent, line), site.open() as (page, _):
        await silent.ask("frames")
        line.bytes_per_s = 1e-3
        await page.ask("frames")
        first = frame = await page.frame()
        for _ in range(10):
            frame = await page.frame()
        assert frame["number"] >= first["number"] + 10
        assert frame["mono"] - first["mono"] < WAIT_S


async def test_the_rewind_is_there_after_a_reload(site: Site) -> None:
    """What a page was shown it finds again, to the letter, by the numbers that it had."""
    async with site.open() as (page, _):
        await page.ask("frames")
        shown = [await page.frame() for _ in range(20)]
        assert [frame["number"] for frame in shown] == sorted({frame["number"] for frame in shown})
    async with site.open() as (page, _):
        kept = await page.ask("frames-kept")
        assert kept["run"] == shown[0]["run"]
        assert kept["first"] == 1
        assert kept["last"] >= shown[-1]["number"]
        assert kept["count"] == kept["last"]
        found: list[dict[str, Any]] = []
        while not found or found[-1]["number"] < shown[-1]["number"]:
            first = found[-1]["number"] + 1 if found else 0
            found += (await page.ask("frames-page", **{"from": first, "count": 50}))["frames"]
        by_number = {frame["number"]: frame for frame in found}
        assert [by_number[frame["number"]] for frame in shown] == shown
        assert list(by_number) == list(range(1, len(found) + 1))
        assert (await page.ask("frames-page", **{"from": 10**9}))["frames"] == []
        marks = await page.ask("frames-marks")
        told = [(each["number"], each["term"], each["leader"], each["events"]) for each in marks["marks"]]
        assert (marks["run"], told) == (
            kept["run"],
            marks_of([*by_number.values()], found[-1]["number"], told),
        )
        refused = await page.ask("frames-page", **{"from": 1, "count": 201})
        assert refused["error"] == "bad_request"


def marks_of(frames: list[dict[str, Any]], last: int, told: list[Any]) -> list[Any]:
    """Return what stands out in frames by their own account, and what was told of later ones."""
    marks = []
    before = None
    for frame in frames:
        names = dict.fromkeys(event["event"] for event in frame["events"])
        seen = (frame["term"], frame["leader"])
        if names or seen != before:
            marks.append((frame["number"], *seen, list(names)))
        before = seen
    assert any("leader.elected" in mark[3] for mark in marks)
    return marks + [mark for mark in told if mark[0] > last]


async def test_a_request_of_the_console_shows_its_way(site: Site) -> None:
    """A write is appended, sent, stored and committed before it is answered; a read asks who leads."""
    async with site.open() as (page, _):
        reply = await page.ask("request", request={"key": "snack", "value": "chips"})
        assert reply["reply"] == {"key": "snack", "value": "chips", "status": "ok"}
        kinds = [hop["kind"] for hop in reply["hops"]]
        assert (kinds[0], kinds[-1]) == ("handed", "answered")
        assert (
            kinds.index("appended") < kinds.index("sent") < kinds.index("committed") < kinds.index("applied")
        )
        before = reply["hops"][: kinds.index("committed")]
        assert len({hop["node"] for hop in before if hop["kind"] == "stored"}) >= 2, "on a majority"
        assert [hop["at_ms"] for hop in reply["hops"]] == sorted(hop["at_ms"] for hop in reply["hops"])
        reply = await page.ask("request", request={"op": "get", "key": "snack"})
        assert reply["reply"]["value"] == "chips"
        assert "confirmed" in [hop["kind"] for hop in reply["hops"]]
        reply = await page.ask("request", request={"op": "frobnicate"})
        assert (reply["status"], reply["reply"]["error"], reply["hops"]) == ("ok", "bad_request", [])
        reply = await page.ask("request", request={"op": "status"})
        assert (reply["error"], "reads or writes keys" in reply["message"]) == ("bad_request", True)


async def test_a_request_that_waits_holds_up_no_command(site: Site) -> None:
    """What ends its wait comes from the same page. So many may wait, and no more."""
    async with site.open() as (page, _):
        await page.ask("partition", groups=[[1], [2], [3]])
        for number in range(100, 109):
            asked = {
                "id": number,
                "command": "request",
                "request": {"key": "snack", "value": number, "timeout": 30},
            }
            await page.websocket.send_message(json.dumps(asked))
        replies: dict[int, dict[str, Any]] = {}
        with trio.fail_after(WAIT_S):
            while not replies:
                message = json.loads(await page.websocket.get_message())
                replies[message["id"]] = message
        assert replies[108]["error"] == "overloaded"
        await page.websocket.send_message('{"id": 200, "command": "heal"}')
        with trio.fail_after(WAIT_S):
            while len(replies) < 10:
                message = json.loads(await page.websocket.get_message())
                replies[message["id"]] = message
        assert [replies[number]["reply"]["status"] for number in range(100, 108)] == ["ok"] * 8


async def test_who_is_connected_is_shown(site: Site) -> None:
    """Each client with its address and how many requests it has made; and how many there are in the last second."""
    async with (
        await trio.open_tcp_stream("127.0.0.1", site.client_port) as client,
        site.open() as (page, _),
    ):
        await page.ask("frames")
        frame = await page.frame()
        await client.send_all(b'{"key":"a","value":1}\n{"op":"watch","prefix":"","id":1}\n')
        while not frame["clients"]["watches"]:
            frame = await page.frame()
        (seen,) = frame["clients"]["list"]
        host, port = client.socket.getsockname()
        assert seen == {"client": 1, "address": f"{host}:{port}", "name": None, "requests": 2}
        assert frame["clients"]["connections"] == 1
        assert frame["rates"]["writes_per_s"] > 0
        assert frame["rates"]["write_p50_ms"] > 0


async def test_the_page_is_served_as_it_lies_in_the_package(site: Site) -> None:
    """Each file with its type, a policy that lets nothing run but what comes from here, and a tag to keep it by."""
    status, headers, body = await site.get("/icon.svg")
    assert (status, headers["content-type"]) == (200, "image/svg+xml")
    assert body.startswith(b"<svg")
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
    assert (headers["cache-control"], headers["referrer-policy"]) == ("no-cache", "no-referrer")
    status, again, body = await site.get("/icon.svg", If_None_Match=headers["etag"])
    assert (status, again["etag"], body) == (304, headers["etag"], b"")
    assert (await site.get("/icon.svg", If_None_Match='"another"'))[0] == 200
    status, again, body = await site.get("/icon.svg", method="HEAD")
    assert (status, again["content-length"], body) == (200, headers["content-length"], b"")
    assert (await site.get("/icon.svg", method="POST"))[0] == 405
    for path in ("/nothing", "/../connection.py", "/%2e%2e/connection.py", "/page/icon.svg", "//icon.svg"):
        assert (await site.get(path))[0] == 404


@pytest.mark.parametrize(
    "headers",
    [{"Host": "attacker.example"}, {"Origin": "http://attacker.example"}, {"Origin": "null"}],
    ids=str,
)
async def test_a_foreign_page_gets_nothing(site: Site, headers: dict[str, str]) -> None:
    """Neither the page's files nor a WebSocket are for other hosts' names and other sites' pages."""
    status, _, body = await site.get("/icon.svg", **headers)
    assert status == 403
    assert b"svg" not in body
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
    assert (await site.get("/ws", **upgrade, Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAAAA==", **headers))[
        0
    ] == 403


async def test_a_wrong_token_sees_no_frame(site: Site) -> None:
    """It hears that it is wrong, and the connection closes."""
    wrong = attrs.evolve(site, token="wrong")
    async with wrong.open() as (page, _):
        with trio.fail_after(WAIT_S):
            assert json.loads(await page.websocket.get_message())["error"] == "unauthorized"
            with pytest.raises(trio_websocket.ConnectionClosed):
                await page.ask("frames")
        assert page.frames == []
