"""The client on Trio in the whole world: over its sockets, with its faults."""

from collections.abc import Awaitable, Callable
from random import Random

import trio

from trio_kv import NotConnectedError, TrioClient, open_client
from trio_kv.proxy.stream import ConnectionLostError
from trio_kv.sim.whole.clients import PORT, RETRY_S, Client
from trio_kv.sim.whole.host import WholeHost
from trio_kv.sim.whole.sockets import Endpoint


class WorldStream(trio.abc.Stream):
    """The client's end of a connection of the world, as a stream of Trio's."""

    def __init__(self, end: Endpoint) -> None:
        self._end = end
        self._is_closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        del max_bytes
        while True:
            try:
                await self._end.wait_readable()
                data = self._end.receive_nowait()
            except ConnectionLostError as error:
                raise self._broken(error) from error
            if data is not None:
                return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        rest = bytes(data)
        try:
            while rest:
                await self._end.wait(lambda: self._end.is_writable)
                rest = rest[self._end.send_nowait(rest) :]
        except ConnectionLostError as error:
            raise self._broken(error) from error

    async def wait_send_all_might_not_block(self) -> None:
        await self._end.wait(lambda: self._end.is_writable)

    async def aclose(self) -> None:
        self._is_closed = True
        self._end.close()
        await trio.lowlevel.checkpoint()

    def _broken(self, error: Exception) -> Exception:
        kind = trio.ClosedResourceError if self._is_closed else trio.BrokenResourceError
        return kind(str(error))


class TrioWorldClient(Client):
    """A client of the world that speaks through `open_client`.

    Args:
        number, random, host: as the world makes a client.
        use: what it does with its client, again and again until it is to leave. Its errors end the run.
        options: of `open_client`.

    """

    def __init__(
        self,
        number: int,
        random: Random,
        host: WholeHost,
        use: Callable[[TrioClient, "TrioWorldClient"], Awaitable[None]],
        **options: object,
    ) -> None:
        super().__init__(number, random, host)
        self.host = host
        self.random = random
        self._use = use
        self._options = options

    async def run(self) -> None:
        """Use a client until told to stop."""
        try:
            while not self.is_stopping:
                try:
                    async with open_client("door", PORT, open_stream=self.open_stream, **self._options) as kv:  # type: ignore[arg-type]
                        while not self.is_stopping:
                            await self._use(kv, self)
                except NotConnectedError:
                    await trio.sleep(RETRY_S)
        except Exception as error:  # noqa: BLE001 - it ends the run
            self.host.fail(error)
        finally:
            self._end = None
            self._left.set()

    async def open_stream(self, host: str, port: int) -> trio.abc.Stream:
        """Open a connection of the world; the one that planned faults end is the last one."""
        del host
        await trio.sleep(self.host.network.draw_latency_s())
        self._end = self.host.network.connect(port)
        return WorldStream(self._end)
