"""Watchers of the door: each keeps a watch over whatever happens to its connection, as a client of the protocol does.

They know the protocol from its description alone. After a connection that ended they begin anew behind the last line;
after `lost` where that says; after `compacted` behind the gap. So what all connections tell together is one history.
Each has a random source of its own: they change nothing that the other clients draw.
"""

import json
from functools import partial
from random import Random
from typing import Any

import trio

from trio_kv.check.violation import Violation
from trio_kv.check.watch_order import Event, WatchOrder
from trio_kv.proxy.stream import ConnectionLostError
from trio_kv.sim.whole.host import WholeHost
from trio_kv.sim.whole.sockets import Endpoint

PORT = 3001
RETRY_S = 0.05
FIRST_CLIENT = 200
"""As the first of them is called in the trace."""
TEXTS = (("", True), ("k", True), ("k1", False))
"""What they watch, and whether that is a prefix."""
WATCHERS = 3
PROGRESS_S = 0.5


class Watcher:
    """One watch. `run` it until cancelled."""

    def __init__(self, number: int, host: WholeHost) -> None:
        """Have no connection."""
        text, is_prefix = TEXTS[number % len(TEXTS)]
        self.order = WatchOrder(f"w{number}", text, is_prefix=is_prefix, chronicle=host.chronicle)
        self._number = number
        self._host = host
        self._random = Random(f"{host.plan.seed}/watch/{number}")
        self._selects = {"prefix" if is_prefix else "key": text}
        self._wants_progress = self._random.random() < 0.5
        self._end: Endpoint | None = None
        self._received = b""
        self._first: int | None = None
        """From where on it asks next; None: for what comes next."""
        self._ids = 0

    async def run(self) -> None:
        """Watch, over one connection after the other."""
        while True:
            await trio.sleep(self._random.expovariate(10.0))
            try:
                self._end = self._host.network.connect(PORT)
            except ConnectionRefusedError:
                await trio.sleep(RETRY_S)
                continue
            self._received = b""
            try:
                while True:
                    await self._watch(self._end)
            except ConnectionLostError:
                if self._first is not None:
                    self._host.coverage.reach("watch resumed")
            finally:
                self._end.close()

    @property
    def is_complete(self) -> bool:
        """Whether it was told all."""
        return self.order.is_complete

    async def _watch(self, end: Endpoint) -> None:
        """Begin a watch, and follow it to its end.

        Raises:
            ConnectionLostError: the connection ended.
            Violation: a line is wrong.

        """
        self._ids += 1
        asked: dict[str, Any] = {"op": "watch", "id": [self._ids]} | self._selects
        if self._first is not None:
            asked["from"] = self._first
        if self._wants_progress:
            asked["progress"] = PROGRESS_S
        self.order.asked()
        self._send(end, asked)
        reply = await self._receive(end)
        if reply.get("id") != [self._ids]:
            raise Violation(f"w{self._number} began watch {self._ids}, and got {reply}")
        if reply["status"] != "ok":
            await self._on_refused(reply)
            return
        self.order.begun(reply["revision"], self._first)
        self._first = self.order.position + 1
        self._host.coverage.reach("watch begun")
        leaves_at = trio.current_time() + self._random.expovariate(0.3)
        while True:
            if self._random.random() < 0.02:
                # It is slow to read.
                await trio.sleep(self._random.uniform(0.0, 2.0))
            if trio.current_time() > leaves_at:
                await self._unwatch(end)
                return
            line = await self._receive(end)
            if line.get("watch") != [self._ids]:
                raise Violation(f"w{self._number} got {line}")
            if self._take(line):
                return

    async def _on_refused(self, reply: dict[str, Any]) -> None:
        if reply["error"] == "compacted":
            self._host.coverage.reach("watch compacted")
            self.order.jumped(reply["revision"])
            self._first = reply["revision"]
        elif reply["error"] in ("unavailable", "overloaded"):
            await trio.sleep(RETRY_S)
        else:
            raise Violation(f"w{self._number} asked for {self._first}, and got {reply}")

    async def _unwatch(self, end: Endpoint) -> None:
        """End the watch; nothing of it comes behind the reply."""
        self._send(end, {"op": "unwatch", "id": [self._ids]})
        while True:
            line = await self._receive(end)
            if line.get("id") == [self._ids]:
                break
            if self._take(line):
                # It was lost before it was ended: then there is nothing to end.
                line = await self._receive(end)
                if line.get("error") != "bad_request":
                    raise Violation(f"w{self._number} ended a watch that was lost, and got {line}")
                return
        self._host.coverage.reach("watch ended")

    def _take(self, line: dict[str, Any]) -> bool:
        """Take a line of the watch; return whether it is the last one."""
        order, revision = self.order, line["revision"]
        if line.get("event") == "lost":
            self._host.coverage.reach("watch lost")
            order.lost(revision)
            self._first = revision
            return True
        events = [_event(event) for event in line["events"]]
        if events:
            order.told(revision, events)
        else:
            order.progressed(revision)
            self._host.coverage.reach("progress told")
        self._first = order.position + 1
        return False

    def _send(self, end: Endpoint, asked: dict[str, Any]) -> None:
        line = json.dumps(asked).encode() + b"\n"
        self._host.line(FIRST_CLIENT + self._number, ">", line)
        if end.send_nowait(line) < len(line):
            # It takes nothing, as it stops: whoever waits for that waits for good.
            raise ConnectionLostError("the door takes nothing")

    async def _receive(self, end: Endpoint) -> dict[str, Any]:
        while b"\n" not in self._received:
            await end.wait_readable()
            chunk = end.receive_nowait()
            if chunk == b"":
                raise ConnectionLostError("the door closed it")
            self._received += chunk or b""
        text, _, self._received = self._received.partition(b"\n")
        self._host.line(FIRST_CLIENT + self._number, "<", text)
        line: dict[str, Any] = json.loads(text)
        if "close" in line:
            raise ConnectionLostError("the door said good-bye")
        return line


def _event(event: dict[str, Any]) -> Event:
    # As clients have written it: without spaces.
    compact = partial(json.dumps, ensure_ascii=False, separators=(",", ":"))
    value = compact(event["value"]).encode() if "value" in event else None
    return event["event"], event["key"], value
