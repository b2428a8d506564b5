"""The clients: seeded requests over real connections, and what became of each.

Each connection is a task. Mostly it asks one thing at a time; sometimes it pipelines, and then each request in flight
is a client of its own, because a client of a history has one operation under way at a time. A client whose operation
has no known outcome never speaks again: its connection goes on under a new number, as Jepsen's processes do. Some
connections are broken off in the middle of a request, some after half a line, on purpose.

Every value that is written is written once, so that a read tells which write it saw.
"""

from collections.abc import Callable, Sequence
from random import Random

import attrs
import msgspec
import trio

from trio_kv.sim.chaos.lines import LineStream, connect
from trio_kv.sim.chaos.outcomes import KeyRequest, NonsenseError, classify
from trio_kv.sim.chaos.recorder import Recorder
from trio_kv.sim.chaos.target import Target
from trio_kv.wire.requests import (
    CasRequest,
    DeleteRequest,
    GetRequest,
    ReplyError,
    ReplyLine,
    SetRequest,
    encode_request,
)

PIPELINE_MAX = 16
PIPELINED = 0.25
"""Share of the times a client asks at which it asks several things at once."""
REQUEST_TIMEOUTS_S = (0.2, 1.0, 1.0, 3.0)
"""Drawn for each connection: impatient clients meet `timeout`, patient ones see a fault through."""
REPLY_GRACE_S = 1.0
"""How much longer than the request's time-out a client waits."""
CONNECT_S = 5.0
RECONNECT_S = (0.02, 0.2)
CONNECTION_REQUESTS = 400
"""About so many requests go over a connection before its client opens another."""
GONE_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError, ReplyError)


@attrs.define
class Numbers:
    """Gives numbers to clients, and values to writes."""

    clients: int = 0
    values: int = 0

    def next_client(self) -> int:
        """Return a number that no client has had."""
        self.clients += 1
        return self.clients

    def next_value(self, client: int) -> msgspec.Raw:
        """Return a value that nobody has written."""
        self.values += 1
        return msgspec.Raw(b'"c%d-%d"' % (client, self.values))


class Workload:
    """All clients of a run."""

    def __init__(
        self,
        target: Target,
        recorder: Recorder,
        random: Random,
        *,
        clients: int,
        rate: float,
        on_nonsense: Callable[[str], None],
    ) -> None:
        """Prepare the clients.

        Args:
            target: whom they ask.
            recorder: takes their operations, and says which keys are in use.
            random: seeds what each of them draws.
            clients: how many connections there are at a time.
            rate: operations a second of all together; 0 is as many as the store takes.
            on_nonsense: is told of a reply that can't be.

        """
        self._target = target
        self._recorder = recorder
        self._random = random
        self._clients = clients
        self._pause_s = clients / rate if rate else 0.0
        self._on_nonsense = on_nonsense
        self._numbers = Numbers()

    async def run(self) -> None:
        """Let all clients ask until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._clients):
                nursery.start_soon(self._run_client, Random(self._random.getrandbits(64)))

    async def _run_client(self, random: Random) -> None:
        client = _Client(self._recorder, self._numbers, random, self._on_nonsense)
        while True:
            stream = await self._connect(random)
            try:
                await client.use(stream, self._pause_s)
            finally:
                stream.close()

    async def _connect(self, random: Random) -> LineStream:
        while True:
            with trio.move_on_after(CONNECT_S):
                try:
                    return await connect(*self._target.address)
                except OSError:
                    pass  # it is down, which is what a run of chaos is made of
            await trio.sleep(random.uniform(*RECONNECT_S))


class _Client:
    """What one connection after the other does."""

    def __init__(
        self, recorder: Recorder, numbers: Numbers, random: Random, on_nonsense: Callable[[str], None]
    ) -> None:
        self._recorder = recorder
        self._numbers = numbers
        self._random = random
        self._on_nonsense = on_nonsense
        self._slots = [numbers.next_client() for _ in range(PIPELINE_MAX)]
        """The client's number for each place in a pipeline."""

    async def use(self, stream: LineStream, pause_s: float) -> None:
        """Ask over a connection until it ends, or this client ends it."""
        random = self._random
        timeout_s = random.choice(REQUEST_TIMEOUTS_S)
        left = random.randint(1, 2 * CONNECTION_REQUESTS)
        while left > 0:
            count = random.randint(2, PIPELINE_MAX) if random.random() < PIPELINED else 1
            left -= count
            if pause_s:
                await trio.sleep(random.expovariate(1 / (pause_s * count)))
            requests = [self._draw_request(slot, timeout_s) for slot in self._slots[:count]]
            if not await self._ask(stream, requests, timeout_s):
                return
        if random.random() < 0.3:
            await self._break_off(stream, self._draw_request(self._slots[0], timeout_s))

    async def _ask(self, stream: LineStream, requests: Sequence[KeyRequest], timeout_s: float) -> bool:
        """Send requests, take the replies; return whether the connection goes on."""
        calls = [
            self._recorder.call(client, request)
            for client, request in zip(self._slots, requests, strict=False)
        ]
        answered = 0
        is_usable = False
        try:
            with trio.move_on_after(timeout_s + REPLY_GRACE_S):
                await stream.send(b"".join(map(encode_request, requests)))
                while answered < len(calls):
                    reply = await stream.receive()
                    if reply is None:
                        break
                    if reply.close is not None:
                        self._end(calls[answered:], requests[answered:], reply)
                        answered = len(calls)
                        break
                    self._end(calls[answered : answered + 1], requests[answered : answered + 1], reply)
                    answered += 1
                else:
                    is_usable = True
        except GONE_ERRORS:
            pass  # what it means for each operation is said below
        finally:
            self._end(calls[answered:], requests[answered:], None)
        return is_usable

    async def _break_off(self, stream: LineStream, request: KeyRequest) -> None:
        """Send a request, or half of it, and don't wait for the answer."""
        line = encode_request(request)
        call = self._recorder.call(self._slots[0], request)
        try:
            # A whole line without its end still counts as one when the connection closes in order.
            await stream.send(line[: self._random.choice([len(line) // 2, len(line) - 1, len(line)])])
            self._random.choice([stream.reset, stream.close])()
        except GONE_ERRORS:
            pass
        finally:
            self._end([call], [request], None)

    def _end(self, calls: Sequence[int], requests: Sequence[KeyRequest], reply: ReplyLine | None) -> None:
        for call, request in zip(calls, requests, strict=True):
            try:
                outcome, result = classify(request, reply)
            except NonsenseError as error:
                self._on_nonsense(str(error))
                outcome, result = classify(request, None)
            code = "no reply" if reply is None else reply.code
            client = self._recorder.end(call, outcome, result, code=code, node=(reply and reply.node) or 0)
            if outcome == "unknown":
                self._slots[self._slots.index(client)] = self._numbers.next_client()

    def _draw_request(self, client: int, timeout_s: float) -> KeyRequest:
        random = self._random
        key = self._recorder.draw_key(random)
        meta = random.random() < 0.5
        drawn = random.random()
        if drawn < 0.45:
            return GetRequest(key, timeout=timeout_s, meta=meta)
        if drawn < 0.52:
            return DeleteRequest(key, timeout=timeout_s, meta=meta)
        value = self._numbers.next_value(client)
        if drawn < 0.75:
            return SetRequest(key, value, timeout=timeout_s, meta=meta)
        known = self._recorder.draw_known(key, random)
        expected = () if known is None else (msgspec.Raw(known),)
        return CasRequest(key, value, expected, timeout=timeout_s, meta=meta)
