"""Exactly once through the door, whatever happens behind it: a client of the whole world counts under a session."""

import json
from random import Random
from typing import Any

import pytest
import trio

from trio_kv.check.violation import Violation
from trio_kv.proxy.stream import ConnectionLostError
from trio_kv.sim.whole import house
from trio_kv.sim.whole.clients import GRACE_S, RETRY_S, Client
from trio_kv.sim.whole.host import WholeHost
from trio_kv.sim.whole.kind import KIND

NOT_NOW = ("timeout", "unavailable", "overloaded", "read_only")


class CountingClient(Client):
    """Adds to a counter of its own, each time under a new seq, and asks again under the same one until it is answered.

    Every answer must tell one more than the last, however often the request was sent, and over whichever connection.
    """

    def __init__(self, number: int, random: Random, host: WholeHost) -> None:
        super().__init__(number, random, host)
        self.count = self.seq = self.attempts = 0
        self.key = f"counter {number}"
        self.session: str | None = None

    async def run(self) -> None:
        """Count until it is told to stop."""
        try:
            while not self.is_stopping:
                await self._count()
                await trio.sleep(self._random.expovariate(1 / self._host.plan.pause_between_s))
        finally:
            self._leave()
            self._left.set()

    async def _count(self) -> None:
        if self.session is None:
            self.session, self.seq = (await self._insist(op="session"))["session"], 0
        self.seq += 1
        request = {"op": "incr", "key": self.key, "session": self.session, "seq": self.seq}
        for _ in range(self._random.choice((1, 1, 2))):
            reply = await self._insist(**request)
            if reply.get("error") == "session_expired":
                await self._begin_anew()
                return
            if reply.get("value") != self.count + 1:
                raise Violation(f"{request} got {reply}, and {self.count} were counted before")
        self.count += 1

    async def _begin_anew(self) -> None:
        """Find out what became of the last request: no attempt of it takes effect any more."""
        self.session = None
        value = (await self._insist(key=self.key)).get("value") or 0
        if value not in (self.count, self.count + 1):
            raise Violation(f"{self.key} is {value}, and {self.count} were counted and one is unknown")
        self.count = value

    async def _insist(self, **request: Any) -> dict[str, Any]:
        """Ask again and again, over one connection after the other, until there is an answer."""
        while True:
            try:
                reply = await self._ask_once({**request, "timeout": self._random.choice((0.2, 1.0))})
                if reply.get("error") not in NOT_NOW:
                    return reply
            except ConnectionLostError:
                self._leave()
            await trio.sleep(RETRY_S)

    async def _ask_once(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._end is None and not self._connect():
            raise ConnectionLostError("there is no door")
        self.attempts += 1
        patience_s = (
            request["timeout"] + GRACE_S if self._random.random() < 0.8 else self._random.uniform(0.0, 0.2)
        )
        with trio.move_on_after(patience_s) as patience:
            await self._send(json.dumps(request).encode() + b"\n")
            reply: dict[str, Any] = json.loads(await self._receive_line(patience))
            if "close" in reply:
                raise ConnectionLostError("the door said good-bye")
            return reply
        raise ConnectionLostError("the client left")


@pytest.mark.parametrize("seed", range(100, 104))
def test_C1_each_request_counts_once_whatever_happens(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over crashes, partitions, full disks, doors that are restarted and sessions that end (scenario C1)."""
    counting: list[CountingClient] = []

    def make_client(number: int, random: Random, host: WholeHost) -> Client:
        if number != host.plan.clients:
            return Client(number, random, host)
        counting.append(CountingClient(number, random, host))
        return counting[-1]

    monkeypatch.setattr(house, "Client", make_client)
    KIND.run_seed(seed)
    (client,) = counting
    assert client.count
    assert client.attempts > client.count
