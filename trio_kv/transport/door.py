"""Where other processes of the cluster call: who may come in, and what becomes of what they say."""

import traceback
from collections.abc import Callable
from functools import partial

import trio

from trio_kv.raft.messages import Message
from trio_kv.trace.processes import LinkFailed, LinkRefused
from trio_kv.trace.trace import Trace
from trio_kv.transport.connection import ByteCounts, Connection, LinkLostError, Outbox, RejectedError
from trio_kv.transport.hello import why_refused
from trio_kv.transport.link import BYTES_MAX, ITEMS_MAX
from trio_kv.transport.peers import Guest, Host, Identity, decode_faults
from trio_kv.transport.secure import Security
from trio_kv.wire import links
from trio_kv.wire.links import HELLO_BYTES_MAX, Hello, LinkFormatError
from trio_kv.wire.node_port import Answer, NodePortError, ReplyTo, Unknown, decode_request, encode_answer
from trio_kv.wire.peers import MessageReader, PeerError

GREETING_S = 2.0
"""Who has not said by then who it is, is sent away."""
GREETING_MAX = 64
"""So many may be about to say it; further ones are closed at once."""
CALLS_MAX = 16
"""Calls of one connection that are carried out at a time; further ones wait."""
CALLS_WAITING_MAX = 1024
"""Who asks for more is cut off: nobody could still wait for what comes of that."""
TOLD_S = 1.0
"""Refusals of one kind are told once in so long: whoever is refused tries again and again."""

NOT_OURS = (LinkLostError, LinkFormatError, PeerError, NodePortError)


class PeerDoor:
    """Takes the connections of other processes.

    Args:
        identity: who this process is.
        host: what is done with what they say.
        on_called: is called with the number of a process that has come in.
        trace: is told who was refused.
        security: takes connections, and tells who is at their other end.
        silence_s: a process from which nothing comes for so long is not there.

    """

    def __init__(
        self,
        identity: Identity,
        host: Host,
        on_called: Callable[[int], object],
        trace: Trace,
        *,
        security: Security,
        silence_s: float,
    ) -> None:
        """Let nobody in yet; see the class."""
        self._counts = ByteCounts()
        self._identity = identity
        self._host = host
        self._on_called = on_called
        self._trace = trace
        self._security = security
        self._silence_s = silence_s
        self._greeting = 0
        self._inside: dict[tuple[int, bool], trio.CancelScope] = {}
        """By process, and whether it is for snapshots."""
        self._told_at: dict[str, float] = {}

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Look after one connection until it ends. Its stream is closed then."""
        try:
            if self._greeting < GREETING_MAX:
                await self._serve(stream)
        except* NOT_OURS as group:
            self._tell(group)
        except* Exception as group:  # noqa: BLE001 - told, with its traceback
            # The boundary of one connection: whatever this bug is, the nodes here go on, and it is told.
            self._trace.emit(LinkFailed("".join(traceback.format_exception(group))))
        finally:
            await trio.aclose_forcefully(stream)

    async def _serve(self, raw: trio.abc.Stream) -> None:
        greeted: tuple[Hello, Connection] | None = None
        self._greeting += 1
        try:
            with trio.fail_after(GREETING_S):
                stream = await self._security.accept(raw)
                outbox = Outbox(items_max=ITEMS_MAX, bytes_max=BYTES_MAX)
                connection = Connection(stream, outbox, self._counts)
                greeted = await self._greet(connection, stream)
        except LinkLostError as error:
            # One that only looks whether somebody is here is not worth a word.
            if isinstance(error, RejectedError):
                self._tell_refused(str(error))
        except trio.TooSlowError:
            self._tell_refused(f"it did not say within {GREETING_S:g} s who it is")
        finally:
            self._greeting -= 1
        if greeted is not None:
            hello, connection = greeted
            self._host.heard(hello.incarnations)
            await self._let_in(hello, connection)

    async def _greet(
        self, connection: Connection, stream: trio.abc.Stream
    ) -> tuple[Hello, Connection] | None:
        """Hear who calls, and answer; return None if it is sent away."""
        connection.limit_frames(HELLO_BYTES_MAX)
        items = await connection.receive()
        hello = links.decode_hello(items[0])
        why = why_refused(hello, self._identity, self._host.known_incarnation)
        why = why or self._security.why_not(stream, hello.process)
        if why is None and len(items) > 1:
            why = "more than a hello came at once"
        known = None
        if why is None and hello.is_asking:
            try:
                known = self._host.vouch(hello.process)
            except ValueError as error:
                why = str(error)
        if why is None:
            connection.limit_frames()
            welcome = self._identity.welcome(self._host, known)
            await connection.send([links.WELCOME + links.encode(welcome)])
            # Who asks has his answer, and is listened to no longer.
            return None if hello.is_asking else (hello, connection)
        self._tell_refused(f"process {hello.process}: {why}")
        await connection.send([links.REFUSED + links.encode(links.Refusal(why[:200]))])
        return None

    async def _let_in(self, hello: Hello, connection: Connection) -> None:
        """Take what comes, until the connection ends or the same process calls anew."""
        key, scope = (hello.process, hello.is_bulk), trio.CancelScope()
        former = self._inside.get(key)
        if former is not None:
            former.cancel()
        self._inside[key] = scope
        self._on_called(hello.process)
        answer = partial(self._answer, connection, scope)
        guest = self._host.open_guest(hello.process, answer)
        try:
            with scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connection.write)
                    nursery.start_soon(connection.watch, self._silence_s)
                    await self._receive(hello, connection, guest, nursery)
        finally:
            guest.leave()
            if self._inside.get(key) is scope:
                del self._inside[key]

    async def _receive(
        self, hello: Hello, connection: Connection, guest: Guest, nursery: trio.Nursery
    ) -> None:
        host, process = self._host, hello.process
        read = MessageReader().read
        calls = trio.CapacityLimiter(CALLS_MAX)
        while True:
            for item in await connection.receive():
                match item[:1]:
                    case links.MESSAGE:
                        self._take_message(hello, read(memoryview(item)[1:]))
                    case links.REQUEST:
                        node, data = links.unwrap_request(item)
                        guest.request(node, decode_request(data))
                    case links.PING:
                        connection.outbox.put(links.PONG + item[1:9])
                    case links.STATUS:
                        host.take_statuses(process, links.decode_statuses(item))
                    case links.FAULTS:
                        host.take_faults(decode_faults(item))
                    case links.EVENT:
                        host.take_event(process, item[1:])
                    case links.CALL:
                        _check_room(calls)
                        nursery.start_soon(self._carry_out, links.decode_call(item), connection, calls)
                    case kind:
                        raise LinkFormatError(f"an item {kind!r}, which nobody sends who calls")

    def _take_message(self, hello: Hello, message: Message) -> None:
        if message.incarnation != hello.incarnations.get(message.source):
            # A node that came back with another disk comes with another hello.
            raise LinkFormatError(f"a message of node {message.source}, which it does not have")
        if message.target not in self._identity.layout.here:
            raise LinkFormatError(f"a message to node {message.target}, which is not here")
        self._host.take_message(message)

    async def _carry_out(self, call: links.Call, connection: Connection, calls: trio.CapacityLimiter) -> None:
        async with calls:
            try:
                result = links.Result(call.number, "", await self._host.carry_out(call.name, call.payload))
            except ValueError as error:
                result = links.Result(call.number, str(error) or repr(error), b"")
        if not connection.outbox.put(links.RESULT + links.encode(result)):
            raise LinkLostError("it takes no answers")

    @staticmethod
    def _answer(connection: Connection, scope: trio.CancelScope, reply_to: ReplyTo, answer: Answer) -> None:
        """Send an answer. One that finds no room becomes unknown, so that all that is under way is not.

        A process that takes none at all is cut off: it hears then that they are unknown.
        """
        put = connection.outbox.put
        if not put(links.ANSWER + encode_answer(reply_to, answer)) and not put(
            links.ANSWER + encode_answer(reply_to, Unknown(answer.number, answer.node))
        ):
            scope.cancel()

    def _tell(self, group: BaseExceptionGroup[BaseException]) -> None:
        """Tell what was wrong with a connection, unless it merely ended."""
        for error in group.exceptions:
            if isinstance(error, BaseExceptionGroup):
                self._tell(error)
            elif not isinstance(error, LinkLostError):
                self._tell_refused(str(error))

    def _tell_refused(self, reason: str) -> None:
        now = trio.current_time()
        told = {each: at for each, at in self._told_at.items() if now - at < TOLD_S}
        if reason not in told and len(told) < GREETING_MAX:
            self._trace.emit(LinkRefused(reason))
            told[reason] = now
        self._told_at = told


def _check_room(calls: trio.CapacityLimiter) -> None:
    if calls.statistics().tasks_waiting >= CALLS_WAITING_MAX:
        raise LinkFormatError(f"more than {CALLS_WAITING_MAX} calls at a time")
