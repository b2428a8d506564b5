"""Clients of several doors, as a program of their own: `python host_load.py SECONDS HOST:PORT...` prints a history."""

import itertools
import json
import sys
from random import Random
from typing import Any

import trio

from trio_kv.check.history import Operation, RisingClock, encode_history

KEYS = 4
TIMEOUT_S = 1.0
CLIENTS_A_DOOR = 2
FAILED = {"unavailable", "overloaded", "read_only"}


class Client:
    """Asks one door, one request after the other, as long as there is time."""

    def __init__(self, number: int, host: str, port: int, clock: RisingClock) -> None:
        self.operations: list[Operation] = []
        self._number = number
        self._address = (host, port)
        self._clock = clock
        self._random = Random(number)
        self._values = itertools.count(number * 1_000_000)
        self._stream: trio.SocketStream | None = None
        self._is_sent = False

    def _now(self) -> float:
        return self._clock.stamp(trio.current_time())

    async def run(self, until: float) -> None:
        while trio.current_time() < until:
            await self._ask()
            await trio.sleep(0.005)

    async def _ask(self) -> None:
        key, is_get = f"k{self._random.randrange(KEYS)}", self._random.random() < 0.5
        value = None if is_get else b"%d" % next(self._values)
        request: dict[str, Any] = {"key": key, "timeout": TIMEOUT_S / 2}
        if value is not None:
            request["value"] = int(value)
        called_at = self._now()
        reply = await self._converse(json.dumps(request).encode() + b"\n")
        returned_at = self._now()
        op, result = "get" if value is None else "set", None
        if reply is None:
            # Before there was a connection nothing was sent.
            outcome = "unknown" if self._is_sent else "failed"
        elif reply["status"] == "ok":
            outcome, result = "ok", b"%d" % reply["value"] if is_get else None
        elif "error" not in reply:
            # That is how a GET says that there is no such key.
            outcome = "missing"
        else:
            outcome = "failed" if reply["error"] in FAILED or is_get else "unknown"
        end = None if outcome == "unknown" else returned_at
        self.operations.append(
            Operation(self._number, op, key, called_at, end, outcome, value=value, result=result)
        )

    async def _converse(self, line: bytes) -> dict[str, Any] | None:
        """Return the reply; None if there is none, and the connection is lost with it."""
        self._is_sent = False
        with trio.move_on_after(TIMEOUT_S):
            try:
                if self._stream is None:
                    self._stream = await trio.open_tcp_stream(*self._address)
                self._is_sent = True
                await self._stream.send_all(line)
                data = b""
                while not data.endswith(b"\n"):
                    more = await self._stream.receive_some()
                    if not more:
                        break
                    data += more
                else:
                    found: dict[str, Any] = json.loads(data)
                    return found
            except (OSError, trio.BrokenResourceError):
                pass
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)
            self._stream = None
        return None


async def main(seconds: float, doors: list[str]) -> None:
    clock = RisingClock()
    clients: list[Client] = []
    for door in doors:
        host, port = door.rsplit(":", 1)
        for _ in range(CLIENTS_A_DOOR):
            clients.append(Client(len(clients) + 1, host, int(port), clock))
    until = trio.current_time() + seconds
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(client.run, until)
    for line in encode_history([each for client in clients for each in client.operations]):
        sys.stdout.buffer.write(line)


if __name__ == "__main__":
    trio.run(main, float(sys.argv[1]), sys.argv[2:])
