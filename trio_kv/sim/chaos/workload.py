"""The clients: seeded requests over real connections, and what became of each.

Each connection is a task. Mostly it asks one thing at a time; sometimes it pipelines, and then each request in flight
is a client of its own, because a client of a history has one operation under way at a time. A client whose operation
has no known outcome never speaks again: its connection goes on under a new number, as Jepsen's processes do. Some
connections are broken off in the middle of a request, some after half a line, on purpose.

What is promised to one connection is judged at once, answer by answer, because the history does not show it: pipelined
requests take effect in their order, which own values tell, and a key that nobody else uses, and no read goes back in
time, not even a stale one. The rules stand in `check`, in `program_order`, `own_key`, `revision_order` and `versions`.

Every value that is written is written once, so that a read tells which write it saw.
"""

from collections.abc import Callable, Sequence
from random import Random

import attrs
import msgspec
import trio
from msgspec import UNSET

from trio_kv.check.history import Operation, what_is_asked
from trio_kv.check.own_key import OwnKey
from trio_kv.check.program_order import ProgramOrder
from trio_kv.check.revision_order import RevisionOrder
from trio_kv.check.violation import Violation
from trio_kv.kv.operations import Cas, Delete, Get, Set
from trio_kv.sim.chaos.families import FamilyClient
from trio_kv.sim.chaos.lines import GONE_ERRORS, LineStream, connect, converse
from trio_kv.sim.chaos.outcomes import NonsenseError, classify
from trio_kv.sim.chaos.recorder import Call, Recorder
from trio_kv.sim.chaos.target import Target
from trio_kv.wire.operations import Request
from trio_kv.wire.replies import ReplyLine
from trio_kv.wire.requests import encode_request

PIPELINE_MAX = 16
PIPELINED = 0.25
"""Share of the times a client asks at which it asks several things at once."""
CHAINED = 0.3
"""Share of the pipelines that are about a key of the connection's own."""
FAMILY = 0.4
"""Share of the times at which it asks for a family of keys, with all kinds of requests."""
STALE = 0.2
"""Share of the reads that may be stale."""
REQUEST_TIMEOUTS_S = (0.2, 1.0, 1.0, 3.0)
"""Drawn for each connection: impatient clients meet `timeout`, patient ones see a fault through."""
REPLY_GRACE_S = 1.0
"""How much longer than the request's time-out a client waits."""
CONNECT_S = 5.0
RECONNECT_S = (0.02, 0.2)
CONNECTION_REQUESTS = 400
"""About so many requests go over a connection before its client opens another."""


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


@attrs.define
class Workload:
    """All clients of a run."""

    _target: Target
    """Whom they ask."""
    _recorder: Recorder
    """Takes their operations, and says which keys are in use."""
    _random: Random
    """Seeds what each of them draws."""
    _clients: int = attrs.field(kw_only=True)
    """How many connections there are at a time."""
    _rate: float = attrs.field(kw_only=True)
    """Operations a second of all together; 0 is as many as the store takes."""
    _has_families: bool = attrs.field(kw_only=True)
    """Whether families are asked for, too."""
    _on_nonsense: Callable[[str], None] = attrs.field(kw_only=True)
    """Is told of a reply that can't be."""
    _numbers: Numbers = attrs.field(factory=Numbers, init=False)

    async def run(self) -> None:
        """Let all clients ask until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._clients):
                nursery.start_soon(self._run_client, Random(self._random.getrandbits(64)))

    async def _run_client(self, random: Random) -> None:
        client = _Client(
            self._recorder, self._numbers, random, self._on_nonsense, FAMILY if self._has_families else 0.0
        )
        pause_s = self._clients / self._rate if self._rate else 0.0
        try:
            while True:
                stream = await self._connect(random)
                try:
                    await client.use(stream, pause_s)
                finally:
                    stream.close()
        finally:
            client.end()

    async def _connect(self, random: Random) -> LineStream:
        while True:
            with trio.move_on_after(CONNECT_S):
                try:
                    return await connect(*random.choice(self._target.addresses))
                except OSError:
                    pass  # it is down, which is what a run of chaos is made of
            await trio.sleep(random.uniform(*RECONNECT_S))


class _Client:
    """What one connection after the other does."""

    def __init__(
        self,
        recorder: Recorder,
        numbers: Numbers,
        random: Random,
        on_nonsense: Callable[[str], None],
        family_share: float,
    ) -> None:
        self._recorder = recorder
        self._numbers = numbers
        self._random = random
        self._on_nonsense = on_nonsense
        self._family_share = family_share
        self._slots = [numbers.next_client() for _ in range(PIPELINE_MAX)]
        """The client's number for each place in a pipeline."""
        self._order = RevisionOrder()
        """What this connection was told of."""
        self._family = FamilyClient(recorder, random, self._slots[0], on_nonsense)
        self._program = ProgramOrder()
        self._own: OwnKey | None = None
        """The key that this connection alone uses, once it has one."""

    async def use(self, stream: LineStream, pause_s: float) -> None:
        """Ask over a connection until it ends, or this client ends it."""
        random = self._random
        self._order, self._program = RevisionOrder(), ProgramOrder()
        self._family.begin()
        self._leave_own()
        timeout_s = random.choice(REQUEST_TIMEOUTS_S)
        left = random.randint(1, 2 * CONNECTION_REQUESTS)
        while left > 0:
            count = random.randint(2, PIPELINE_MAX) if random.random() < PIPELINED else 1
            left -= count
            if pause_s:
                await trio.sleep(random.expovariate(1 / (pause_s * count)))
            if random.random() < self._family_share:
                is_usable = await self._family.ask(stream, count, timeout_s)
            elif count > 1 and random.random() < CHAINED:
                is_usable = await self._ask_chain(stream, count, timeout_s)
            else:
                keys = [self._recorder.draw_key(random) for _ in range(count)]
                is_usable = await self._ask(stream, self._draw_requests(keys, timeout_s), timeout_s)
            if not is_usable:
                return
        if random.random() < 0.3:
            (request,) = self._draw_requests([self._recorder.draw_key(random)], timeout_s)
            await self._break_off(stream, request)

    def end(self) -> None:
        """Ask nothing any more."""
        self._family.end()

    async def _ask_chain(self, stream: LineStream, count: int, timeout_s: float) -> bool:
        """Pipeline requests for this connection's own key; return whether the connection goes on."""
        if self._own is None or not self._own.is_known:
            self._leave_own()
            self._own = OwnKey(self._recorder.take_key())
        own = self._own
        all_judged = own.judged + count
        is_usable = await self._ask(stream, self._draw_requests([own.key] * count, timeout_s), timeout_s)
        if own.judged == all_judged:
            self._recorder.chains += 1
        return is_usable

    def _leave_own(self) -> None:
        if self._own is not None:
            self._recorder.leave_key(self._own.key)
            self._own = None

    async def _ask(self, stream: LineStream, requests: Sequence[Request], timeout_s: float) -> bool:
        """Send requests, take the replies; return whether the connection goes on."""
        calls = [self._call(client, request) for client, request in zip(self._slots, requests, strict=False)]
        return await converse(
            stream,
            [encode_request(request) for request in requests],
            timeout_s + REPLY_GRACE_S,
            lambda number, reply: self._end(calls[number : number + 1], reply),
        )

    def _call(self, client: int, request: Request) -> Call:
        call = self._recorder.call(client, request)
        self._program.asked(call, what_is_asked(call.operation).get("value"))
        return call

    async def _break_off(self, stream: LineStream, request: Request) -> None:
        """Send a request, or half of it, and don't wait for the answer."""
        line = encode_request(request)
        call = self._call(self._slots[0], request)
        try:
            # A whole line without its end still counts as one when the connection closes in order.
            await stream.send(line[: self._random.choice([len(line) // 2, len(line) - 1, len(line)])])
            self._random.choice([stream.reset, stream.close])()
        except GONE_ERRORS:
            pass
        finally:
            self._end([call], None)

    def _end(self, calls: Sequence[Call], reply: ReplyLine | None) -> None:
        for call in calls:
            try:
                outcome, result = classify(call.request, reply)
            except NonsenseError as error:
                self._on_nonsense(str(error))
                outcome, result = classify(call.request, None)
            code, node, revision = "no reply", 0, None
            if reply is not None:
                code, node, revision = reply.code, reply.node or 0, reply.revision
            operation = self._recorder.end(call, outcome, result, code=code, node=node)
            try:
                self._judge(call, operation, revision)
            except Violation as violation:
                asked, answer = encode_request(call.request), reply and reply.line
                self._on_nonsense(f"{violation}: {asked!r} was answered with {answer!r}")
            if outcome == "unknown":
                self._slots[self._slots.index(call.client)] = self._numbers.next_client()

    def _judge(self, call: Call, operation: Operation, revision: int | None) -> None:
        """Judge what the history does not show.

        Raises:
            Violation: says what is wrong.

        """
        if operation.outcome != "ok":
            revision = None  # The protocol says what it means for a value that is there, and for a write.
        call.group.versions.told(operation, revision)
        if revision is not None:
            self._order.follows(operation.key, revision)
        if self._own is not None and operation.key == self._own.key:
            self._own.told(operation)
        self._program.told(call, operation)

    def _draw_requests(self, keys: Sequence[str], timeout_s: float) -> list[Request]:
        """Draw a request for each of these keys; several bear ids, which tell whose answer is whose."""
        requests = [
            self._draw_request(client, key, timeout_s) for client, key in zip(self._slots, keys, strict=False)
        ]
        if len(requests) == 1:
            return requests
        return [
            msgspec.structs.replace(request, id=msgspec.Raw(b"%d" % number))
            for number, request in enumerate(requests)
        ]

    def _draw_request(self, client: int, key: str, timeout_s: float) -> Request:
        random = self._random
        meta = random.random() < 0.5
        drawn = random.random()
        if drawn < 0.45:
            is_stale = random.random() < STALE
            return Request(Get(key), timeout=timeout_s, meta=meta or is_stale, is_stale=is_stale)
        if drawn < 0.52:
            return Request(Delete(key), timeout=timeout_s, meta=meta)
        value = self._numbers.next_value(client)
        if drawn < 0.75:
            return Request(Set(key, value), timeout=timeout_s, meta=meta)
        known = self._recorder.draw_known(key, random)
        expected = UNSET if known is None else msgspec.Raw(known)
        return Request(Cas(key, value, expected), timeout=timeout_s, meta=meta)
