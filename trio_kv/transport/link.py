"""A link: the connection that this process opens to another one, again and again, and what waits to go over it."""

import math
import os
from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import trio

from trio_kv.meter.histogram import Histogram
from trio_kv.trace.processes import LinkConnected, LinkLost, LinkRejected
from trio_kv.trace.trace import Trace
from trio_kv.transport.connection import (
    ByteCounts,
    Connection,
    LinkLostError,
    Outbox,
    RejectedError,
    round_trip_s,
)
from trio_kv.transport.hello import why_not_welcome
from trio_kv.transport.peers import Address, Host, Identity, encode_faults
from trio_kv.wire import links
from trio_kv.wire.links import HELLO_BYTES_MAX, LinkFormatError, Refusal
from trio_kv.wire.node_port import (
    Answer,
    Batch,
    Done,
    Full,
    Gone,
    NodePortError,
    Propose,
    Pull,
    Read,
    Refused,
    ReplyTo,
    Request,
    Unknown,
    decode_answer,
    encode_request,
)
from trio_kv.wire.peers import PeerError

ITEMS_MAX = 4096
"""So many items wait for a flush at most: as many as the inbox of a node takes."""
BYTES_MAX = 64 << 20
REDIAL_MIN_S = 0.05
REDIAL_MAX_S = 1.0
BULK_ITEMS_MAX = 32
BULK_IDLE_S = 10.0
"""A connection for snapshots is closed when none was sent for so long."""

Dial = Callable[[Address, int], Awaitable[trio.abc.Stream]]
"""Opens a connection to a process, given its address and number. Raises OSError or LinkLostError."""


@attrs.define
class LinkCounts(ByteCounts):
    """What happened on a link since the process started."""

    connects: int = 0
    messages_lost: int = 0
    """Messages of Raft that did not fit, or for which there was no connection."""
    round_trips: Histogram = attrs.field(factory=Histogram)


class Link:
    """What this process says to another one. `run` must be running.

    Args:
        target: the other process.
        dial: opens connections.
        identity: who this process is.
        host: takes what comes back.
        trace: is told of connections that come and go.
        silence_s: a process from which nothing comes for so long is not there.
        is_bulk: whether it is for snapshots alone: its connection is opened when it is needed.

    """

    def __init__(
        self,
        target: int,
        dial: Dial,
        identity: Identity,
        host: Host,
        trace: Trace,
        *,
        silence_s: float,
        is_bulk: bool = False,
    ) -> None:
        """Have no connection yet; see the class."""
        self.target = target
        self.counts = LinkCounts()
        self.reason = "not connected yet"
        """Why there is no connection; empty if there is one."""
        self._dial = dial
        self._identity = identity
        self._host = host
        self._trace = trace
        self._silence_s = silence_s
        self._is_bulk = is_bulk
        self._outbox = Outbox(items_max=BULK_ITEMS_MAX if is_bulk else ITEMS_MAX, bytes_max=BYTES_MAX)
        self._is_up = False
        self._is_rejected = False
        """Whether the last try was to no avail for a reason that somebody has to see to."""
        self._asked: dict[tuple[int, ReplyTo, int], tuple[int | None, int]] = {}
        """Requests that wait for their answers, by node, asker and number: how many replies are due (None: changes),
        and how often it was handed over, for each time is answered."""
        self._calls: dict[int, _Waiting] = {}
        self._call_count = 0
        self._stir = trio.Event()

    @property
    def is_up(self) -> bool:
        """Whether there is a connection, over which both have said who they are."""
        return self._is_up

    def called(self) -> None:
        """Note that the other process has just called: it is there, and what it was told before may be lost to it."""
        self._stir.set()
        if self._is_up:
            self._tell_state()

    def _tell_state(self) -> None:
        """Tell how all is here. A cut acts on what nodes say to one another, and never on this: `heal` gets through."""
        self._outbox.put(links.encode_statuses(self._host.statuses()))
        self._outbox.put(encode_faults(self._host.faults()))

    # What goes out

    @property
    def is_half_full(self) -> bool:
        """Whether what can wait should leave the rest of the room to what can't."""
        return self._outbox.is_half_full

    def post(self, item: bytes) -> bool:
        """Take an item to be sent; return False if it is lost."""
        if self._is_up or self._is_bulk:
            if self._is_bulk:
                self._stir.set()
            if self._outbox.put(item):
                return True
        self.counts.messages_lost += 1
        return False

    def submit(self, node: int, request: Request) -> bool:
        """Hand a request over; its answer, or `Unknown`, goes to `Host.take_answer`.

        Returns:
            False if it was not handed over, and has no effect.

        """
        key = (node, request.reply_to, request.number)
        if not self._is_up or not self._outbox.put(links.wrap_request(node, encode_request(request))):
            return False
        self._asked[key] = _replies_due(request), self._asked.get(key, (0, 0))[1] + 1
        return True

    async def call(self, name: str, payload: bytes) -> bytes:
        """Let the other process do something, and return what came of it.

        Raises:
            ValueError: it was not done; the text says why.
            LinkLostError: there is no connection, or it was lost meanwhile: what came of it is unknown.

        """
        self._call_count += 1
        number, waiting = self._call_count, _Waiting()
        self._calls[number] = waiting
        try:
            if not self._is_up or not self._outbox.put(
                links.CALL + links.encode(links.Call(number, name, payload))
            ):
                raise LinkLostError(
                    f"process {self.target} can't be reached: {self.reason or 'too much waits'}"
                )
            await waiting.ended.wait()
        finally:
            del self._calls[number]
        if waiting.result is None:
            raise LinkLostError(f"process {self.target} was lost meanwhile: {self.reason}")
        if waiting.result.error:
            raise ValueError(waiting.result.error)
        return waiting.result.payload

    # The connection

    async def run(self) -> None:
        """Keep a connection, until cancelled."""
        delay_s = REDIAL_MIN_S
        while True:
            self._stir = trio.Event()
            if self._is_bulk and not len(self._outbox):
                await self._stir.wait()
            reason = await self._connect()
            was_up, self._is_up = self._is_up, False
            if was_up:
                delay_s = REDIAL_MIN_S
            self._down(reason, was_up=was_up)
            # Whoever called while this one was tried is there now: the next try is due at once.
            with trio.move_on_after(delay_s):
                await self._stir.wait()
            delay_s = min(2 * delay_s, REDIAL_MAX_S)

    def _down(self, reason: str, *, was_up: bool) -> None:
        """Let all know that there is no connection. One for snapshots is not needed most of the time."""
        is_new, self.reason = reason != self.reason, reason
        if not self._is_bulk:
            if was_up:
                self._trace.emit(LinkLost(self.target, reason))
            elif is_new and self._is_rejected:
                self._trace.emit(LinkRejected(self.target, reason))
            if was_up or is_new:
                self._host.link_changed(self.target, reason)
        self._lose()

    async def _connect(self) -> str:
        """Have one connection; return why it ended."""
        stream: trio.abc.Stream | None = None
        self._is_rejected = False
        try:
            with trio.move_on_after(self._silence_s) as opening:
                stream = await self._dial(self._identity.layout.addresses[self.target], self.target)
            if stream is None or opening.cancelled_caught:
                return "nobody answers"
            return await self._use(Connection(stream, self._outbox, self.counts))
        except (OSError, LinkLostError) as error:
            self._is_rejected = isinstance(error, RejectedError)
            return why_unreachable(error)
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)

    async def _use(self, connection: Connection) -> str:
        reason = ""
        try:
            with trio.move_on_after(self._silence_s) as greeting:
                await self._greet(connection)
            if greeting.cancelled_caught:
                return "it takes connections, and says nothing"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.write)
                idle_s = BULK_IDLE_S if self._is_bulk else math.inf
                nursery.start_soon(partial(connection.watch, self._silence_s, pings=True, idle_s=idle_s))
                await self._receive(connection)
        except* (LinkLostError, LinkFormatError, PeerError, NodePortError) as group:
            error = _first(group)
            self._is_rejected = isinstance(error, RejectedError)
            reason = str(error)
        return reason

    async def _greet(self, connection: Connection) -> None:
        """Say who this process is, and hear whether the other one is the one that is meant."""
        host, identity = self._host, self._identity
        connection.limit_frames(HELLO_BYTES_MAX)
        hello = identity.hello(host.incarnations(), self.target, is_bulk=self._is_bulk)
        await connection.send([links.HELLO + links.encode(hello)])
        items = await connection.receive()
        welcome = links.decode_reply(items[0])
        if len(items) > 1:
            raise LinkFormatError("more than an answer to the hello")
        if isinstance(welcome, Refusal):
            raise RejectedError(f"refused: {welcome.reason}")
        why = why_not_welcome(welcome, self.target, identity, host.known_incarnation)
        if why is not None:
            raise RejectedError(f"not taken: {why}")
        connection.limit_frames()
        host.heard(welcome.incarnations)
        self._is_up, self.reason = True, ""
        self.counts.connects += 1
        if not self._is_bulk:
            self._tell_state()
            self._trace.emit(LinkConnected(self.target, self.counts.connects))
            host.link_changed(self.target, None)

    async def _receive(self, connection: Connection) -> None:
        while True:
            for item in await connection.receive():
                match item[:1]:
                    case links.ANSWER:
                        self._on_answer(item)
                    case links.PONG:
                        self.counts.round_trips.note(round_trip_s(item))
                    case links.RESULT:
                        result = links.decode_result(item)
                        waiting = self._calls.get(result.number)
                        if waiting is not None:
                            waiting.end(result)
                    case kind:
                        raise LinkFormatError(f"an item {kind!r}, which is no answer")

    def _on_answer(self, item: bytes) -> None:
        reply_to, answer = decode_answer(item[1:])
        key = (answer.node, reply_to, answer.number)
        if key not in self._asked:
            return
        due, times = self._asked.pop(key)
        if not _is_answer(answer, due):
            raise LinkFormatError(f"node {answer.node} answers what it was not asked")
        if times > 1:
            self._asked[key] = due, times - 1
        self._host.take_answer(reply_to, answer)

    def _lose(self) -> None:
        """Let all know who wait for something that was on the connection."""
        self.counts.messages_lost += self._outbox.drop()
        asked, self._asked = self._asked, {}
        for node, reply_to, number in asked:
            self._host.take_answer(reply_to, Unknown(number, node))
        for waiting in list(self._calls.values()):
            waiting.end(None)


def _replies_due(request: Request) -> int | None:
    """Return how many replies a request will have; None if it draws changes."""
    match request:
        case Pull():
            return None
        case Read():
            return len(request.queries)
        case Propose():
            return len(request.commands) + sum([len(queries) for _, queries in request.queries])


def _is_answer(answer: Answer, due: int | None) -> bool:
    """Return whether something answers a request with so many replies due: those who asked rely on it."""
    match answer:
        case Done():
            return due == len(answer.replies)
        case Batch() | Gone():
            return due is None
        case Refused() | Full() | Unknown():
            return True


class _Waiting:
    """Somebody who waits for the result of a call."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.result: links.Result | None = None

    def end(self, result: links.Result | None) -> None:
        """Tell it; None: the connection was lost."""
        self.result = result
        self.ended.set()


def why_unreachable(error: Exception) -> str:
    """Return why a connection could not be opened: of several addresses, what the first one said."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        error = cause.exceptions[0] if isinstance(cause.exceptions[0], OSError) else error
    elif isinstance(error, OSError) and isinstance(cause, OSError):
        error = cause
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        # Without the address, which is known: Trio's text has it, as a tuple.
        return os.strerror(error.errno)
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
