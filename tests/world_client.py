"""The client on Trio in the whole world: over its sockets, with its faults."""

from collections.abc import Awaitable, Callable, Sequence
from random import Random

import attrs
import pytest
import trio

from trio_kv import NotConnectedError, TrioClient, open_client
from trio_kv.sim.plan import Plan
from trio_kv.sim.whole import house
from trio_kv.sim.whole.clients import PORT, RETRY_S, Client
from trio_kv.sim.whole.host import WholeHost
from trio_kv.sim.whole.kind import KIND
from trio_kv.sim.whole.wires import WireStream

Use = Callable[[TrioClient, "TrioWorldClient"], Awaitable[None]]
"""What a client of the world does with the client that it was given, once; its errors end the run."""


class TrioWorldClient(Client):
    """A client of the world that speaks through `open_client`.

    Args:
        number, random, host: as the world makes a client.
        use: what it does again and again, until it is to leave.

    """

    def __init__(
        self,
        number: int,
        random: Random,
        host: WholeHost,
        use: Use,
    ) -> None:
        super().__init__(number, random, host)
        self.host = host
        self.random = random
        self._use = use
        self._last_use: Use | None = None
        self._clients: Sequence[TrioWorldClient] = ()

    async def run(self) -> None:
        """Use a client until told to stop."""
        try:
            while not self.is_stopping:
                try:
                    async with open_client("door", PORT, open_stream=self.open_stream) as kv:
                        while not self.is_stopping:
                            await self._use(kv, self)
                except NotConnectedError:
                    await trio.sleep(RETRY_S)
            await self._end_all()
        except Exception as error:  # noqa: BLE001 - it ends the run
            self.host.fail(error)
        finally:
            self._end = None
            self._left.set()

    def end_with(self, use: Use, clients: "Sequence[TrioWorldClient]") -> None:
        """Do one more thing when all these clients have left."""
        self._last_use, self._clients = use, clients

    async def _end_all(self) -> None:
        if self._last_use is None:
            return
        for client in self._clients:
            if client is not self:
                await client.wait_left()
        async with open_client("door", PORT, open_stream=self.open_stream) as kv:
            await self._last_use(kv, self)

    async def open_stream(self, host: str, port: int) -> trio.abc.Stream:
        """Open a connection of the world; the one that planned faults end is the last one."""
        del host
        await trio.sleep(self.host.network.draw_latency_s())
        self._end = self.host.network.connect(port)
        return WireStream(self._end)


def run_with(
    plan: Plan,
    uses: Sequence[Use],
    monkeypatch: pytest.MonkeyPatch,
    others: int = 0,
    at_end: Use | None = None,
) -> None:
    """Run a plan with a client for each of these uses, beside so many of the world's own.

    Args:
        plan: what happens.
        uses: what is done again and again, each by a client of its own.
        monkeypatch: undoes what is done to the world.
        others: how many of the world's own clients there are.
        at_end: done once by the first client, when all is healed and the others have left.

    Raises:
        SimulationFailedError: a judge, or one of the uses, found something.

    """

    def make_client(number: int, random: Random, host: WholeHost) -> Client:
        if not 0 < number <= len(uses):
            return Client(number, random, host)
        ours.append(TrioWorldClient(number, random, host, uses[number - 1]))
        if number == 1 and at_end is not None:
            ours[0].end_with(at_end, ours)
        return ours[-1]

    ours: list[TrioWorldClient] = []

    monkeypatch.setattr(house, "Client", make_client)
    monkeypatch.setattr(WholeHost, "are_values_unique", False)
    named = max([getattr(fault, "client", 0) for fault in plan.faults], default=0)
    KIND.run(attrs.evolve(plan, clients=max(len(uses) + others, named)))
