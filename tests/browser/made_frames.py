"""Serves the page with made frames: as many events, messages and writes a second as a test wants.

A real cluster gives no load that is the same each time; this gives it to the page, over the same WebSocket.
Prints its address, and serves until it is ended.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio
import trio_websocket

import trio_kv.control
from trio_kv.transport.tls import ReplayStream

PAGE = Path(trio_kv.control.__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
CSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"
NODES = (1, 2, 3, 4, 5)
FRAMES_A_SECOND = 10
TERM_FRAMES = 300
"""After so many frames another node leads."""
MESSAGE_KINDS = ("append", "append-reply", "heartbeat", "heartbeat-reply", "read", "read-reply")


def make_frames(events_a_frame: int, messages_a_frame: int) -> Iterator[dict[str, Any]]:
    """Yield frames for ever, one a call, with the time of day of that call."""
    for number in itertools.count(1):
        time = datetime.now(UTC).isoformat()
        yield make_frame(number, time, events_a_frame, messages_a_frame)


def make_frame(number: int, time: str, event_count: int, message_count: int) -> dict[str, Any]:
    """Return one frame; what is in it follows from its number."""
    term, last = 7 + number // TERM_FRAMES, number * 20
    leader = 1 + term % len(NODES)
    mono = number / FRAMES_A_SECOND
    events = [
        {
            "time": time, "mono": mono, "seq": number * event_count + each, "level": "info",
            "event": "vote.granted", "node": 1 + each % 5, "term": term, "role": "follower", "candidate": leader,
        }
        for each in range(event_count)
    ]  # fmt: skip
    if number % TERM_FRAMES == 0:
        elected = {"event": "leader.elected", "node": leader, "votes": [1, 2, leader], "first_index": last}
        events[-1] = {**events[-1], **elected}
    pairs = list(itertools.permutations(NODES, 2))
    messages = [
        {
            "from": pairs[(number + each) % len(pairs)][0], "to": pairs[(number + each) % len(pairs)][1],
            "kind": MESSAGE_KINDS[each % len(MESSAGE_KINDS)], "at_ms": -100 + each * 100 // message_count,
            "count": 12, "dropped": each % 17 == 0, "term": term, "note": "",
        }
        for each in range(message_count)
    ]  # fmt: skip
    return {
        "run": "made", "number": number, "time": time, "mono": mono, "leader": leader, "term": term, "majority": 3,
        "nodes": [make_node(node, node == leader, term, last, number) for node in NODES],
        "links": [], "faults": [],
        "rates": {
            "writes_per_s": 900 + number % 200, "reads_per_s": 2000 + number % 333, "failed_per_s": 0,
            "write_p50_ms": 1.2, "write_p99_ms": 3 + number % 7, "read_p50_ms": 0.8, "read_p99_ms": 2.0,
            "window_s": 1.0,
        },
        "clients": {"connections": 2, "watches": 0, "list": [
            {"client": 1, "address": "127.0.0.1:50000", "name": None, "requests": number * 90},
        ]},
        "messages": messages, "messages_left_out": 300, "events": events, "events_left_out": 0,
        "events_total": number * event_count,
    }  # fmt: skip


def make_node(node: int, is_leader: bool, term: int, last: int, number: int) -> dict[str, Any]:
    """Return what a frame tells of a node."""
    return {
        "node": node, "state": "up", "detail": "", "role": "leader" if is_leader else "follower", "term": term,
        "leader": None, "vote": None, "first": max(1, last - 500), "last": last - node, "commit": last - 6,
        "applied": last - 6 - node, "snapshot": max(0, last - 600),
        "election_ms": None if is_leader else 100 + 37 * (number + node) % 250,
        "election_of_ms": None if is_leader else 400,
        "disk": {"delay_ms": 0, "is_full": False, "is_stalled": False, "is_failed": False},
        "clock_rate": 1.0, "incarnation": "0f", "digest": "", "starts": 1,
    }  # fmt: skip


class Server:
    """Gives every page the same frames.

    Args:
        events_a_frame: how many events.
        messages_a_frame: how many messages.

    """

    def __init__(self, events_a_frame: int, messages_a_frame: int) -> None:
        self._frames = make_frames(events_a_frame, messages_a_frame)
        self._newest: dict[str, Any] = next(self._frames)
        self._next = trio.Event()

    async def run(self, port: int) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tick)
            listeners = await nursery.start(trio.serve_tcp, self._serve, port)
            sys.stdout.write(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/#token=made\n")
            sys.stdout.flush()

    async def _tick(self) -> None:
        while True:
            await trio.sleep(1 / FRAMES_A_SECOND)
            self._newest = next(self._frames)
            self._next.set()
            self._next = trio.Event()

    async def _serve(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (chunk := await stream.receive_some()):
                return
            head += chunk
        path = head.split(b" ")[1].decode()
        if path != "/ws":
            await stream.send_all(file_response("/index.html" if path == "/" else path))
            return
        try:
            async with trio.open_nursery() as nursery:
                request = await trio_websocket.wrap_server_stream(nursery, ReplayStream(head, stream))
                await self._talk(await request.accept(), nursery)
        except* (trio_websocket.ConnectionClosed, trio.BrokenResourceError):
            pass  # The page is gone.

    async def _talk(self, websocket: trio_websocket.WebSocketConnection, nursery: trio.Nursery) -> None:
        await websocket.get_message()
        while True:
            command = json.loads(await websocket.get_message())
            name = command["command"]
            await websocket.send_message(
                json.dumps({"id": command["id"], "status": "ok", **REPLIES.get(name, {})})
            )
            if name == "frames":
                nursery.start_soon(self._send_frames, websocket)

    async def _send_frames(self, websocket: trio_websocket.WebSocketConnection) -> None:
        while True:
            await websocket.send_message(json.dumps({"frame": self._newest}))
            await self._next.wait()


REPLIES: dict[str, dict[str, Any]] = {
    "describe": {"commands": [
        {"command": name, "what": f"What {name} does, told in a sentence of some length.", "members": [], "undo": None}
        for name in ("crash", "stop", "pause", "restart", "partition", "heal", "delay", "cut", "slow-disk", "drop")
    ]},
    "frames-kept": {"run": "made", "count": 0},
}  # fmt: skip


def file_response(path: str) -> bytes:
    """Return a file of the page as a whole HTTP response."""
    file = PAGE / path.lstrip("/").split("?")[0]
    body = file.read_bytes()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {TYPES[file.suffix]}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Security-Policy: {CSP}\r\nConnection: close\r\n\r\n".encode() + body


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--events", type=int, default=1000, help="a second")
    parser.add_argument("--messages", type=int, default=400, help="a second")
    options = parser.parse_args()
    server = Server(options.events // FRAMES_A_SECOND, options.messages // FRAMES_A_SECOND)
    trio.run(server.run, options.port)


if __name__ == "__main__":
    main()
