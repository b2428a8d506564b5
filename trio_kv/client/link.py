"""The way of the client on Trio to the store and back: one connection, which many tasks share, and which comes back.

`pipeline` decides whose reply is whose, `patience` whether a call is sent again; here are the tasks that carry bytes.

| task | what it does |
|---|---|
| `run` | connects when a call waits, and again when the connection is lost |
| `_send` | sends what waits, as one piece |
| `_receive` | gives replies to the tasks that wait for them |
| `_watch_time` | ends calls whose time is over, and a connection whose server is silent |

A call costs its own task one wait, and no task, event or cancel scope of its own.
"""

import math
from collections.abc import Iterable

import trio

from trio_kv.client.addresses import REPLY_GRACE_S
from trio_kv.client.dialler import RECEIVE_BYTES, Dialled, Dialler, explain_stream
from trio_kv.client.errors import StoreError
from trio_kv.client.patience import PAUSE_S
from trio_kv.client.pipeline import Call, Pipeline
from trio_kv.wire.replies import ReplyLine


class Link:
    """Carries calls. Its owner runs `run` in a task.

    Args:
        dialler: opens connections.
        timeout_s: a server that says nothing for so long, and a second more, while it owes a reply, is given up.

    """

    def __init__(self, dialler: Dialler, timeout_s: float) -> None:
        """Have no connection; see the class."""
        self._dialler = dialler
        self._silence_s = timeout_s + REPLY_GRACE_S
        self.pipeline = Pipeline()
        self.address: str | None = None
        """Of the server that we are connected to; None if we are not."""
        self.connection_count = 0
        """How many connections there have been."""
        self._wanted = trio.Event()
        self._alarm = trio.CancelScope()
        self._heard_s = -math.inf
        self._scope = trio.CancelScope()
        """Around the connection."""
        self._why = ""
        """Why we ended the connection ourselves, if we did."""
        self._life = trio.CancelScope()
        self.is_closed = False

    async def attempt(self, line: bytes, *, may_write: bool, deadline_s: float) -> ReplyLine:
        """Send a line once, and return its reply, whatever it says.

        Args:
            line: a request, with its end.
            may_write: whether it may change something.
            deadline_s: of Trio's clock; until then there is an answer or an error.

        Raises:
            NotConnectedError: nothing happened.
            OutcomeUnknownError: it may write, went out, and there is no answer.
            UnauthorizedError: the server does not take our token.
            trio.ClosedResourceError: the client is closed.

        """
        if self.is_closed:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError("this client is closed")
        call = Call(line, may_write=may_write, deadline_s=deadline_s, owner=trio.lowlevel.current_task())
        self.pipeline.add(call)
        self._wanted.set()
        if deadline_s < self._alarm.deadline:  # noqa: PLR1730 - to set it costs more than to look at it
            self._alarm.deadline = deadline_s

        def abort(_: object) -> trio.lowlevel.Abort:
            self.pipeline.abandon(call)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if call.error is not None:
            raise call.error
        if call.reply is None:
            raise trio.ClosedResourceError("this client was closed meanwhile")
        return call.reply

    async def run(self, first: Dialled | None) -> None:
        """Keep a connection while there are calls, until closed or cancelled.

        Args:
            first: a connection to begin with.

        """
        try:
            with self._life:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch_time)
                    await self._keep_connected(first)
        finally:
            self.close()

    def close(self) -> None:
        """Carry no more, and end the connection: who waits hears so."""
        self.is_closed = True
        self._life.cancel()
        self._end(self.pipeline.close())

    async def _keep_connected(self, dialled: Dialled | None) -> None:
        while True:
            if dialled is None:
                await self._wait_wanted()
                try:
                    dialled = await self._dialler.dial()
                except StoreError as error:
                    self._end(self.pipeline.refuse(error))
                    continue
            replies = self.pipeline.reply_count
            await self._carry(dialled)
            dialled = None
            if self.pipeline.reply_count == replies:
                # A server that ends each connection at once is not asked more often than one that is not there.
                await trio.sleep(PAUSE_S)

    async def _wait_wanted(self) -> None:
        while not self.pipeline.is_wanted:
            self._wanted = trio.Event()
            await self._wanted.wait()

    async def _carry(self, dialled: Dialled) -> None:
        """Use a connection until it ends."""
        self.connection_count += 1
        self.address, self._why, self._heard_s = dialled.address, "", trio.current_time()
        why = ""
        try:
            with trio.CancelScope() as self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send, dialled.stream)
                    why = await self._receive(dialled.stream)
                    nursery.cancel_scope.cancel()
        finally:
            self.address = None
            await trio.aclose_forcefully(dialled.stream)
        self._end(self.pipeline.lose(f"{dialled.address}: {self._why or why}"))

    async def _send(self, stream: trio.abc.Stream) -> None:
        pipeline = self.pipeline
        while True:  # noqa: ASYNC913 - each turn waits, or ends it
            was_idle = not pipeline.in_flight_count
            data = b"" if self._is_leaving else pipeline.take()
            if not data:
                self._wanted = trio.Event()
                await self._wanted.wait()
                continue
            if was_idle:
                self._heard_s = trio.current_time()
            try:
                await stream.send_all(data)
            except (OSError, trio.BrokenResourceError) as error:
                self._give_up(explain_stream(error))
                return

    @property
    def _is_leaving(self) -> bool:
        """Whether nothing more goes out over the connection: its server can't serve, and there are others."""
        return self.pipeline.is_useless and len(self._dialler.addresses) > 1

    async def _receive(self, stream: trio.abc.Stream) -> str:
        """Give replies to those who wait for them; return why there are no more."""
        pipeline = self.pipeline
        while True:  # noqa: ASYNC913 - each turn waits, or ends it
            try:
                data = await stream.receive_some(RECEIVE_BYTES)
            except (OSError, trio.BrokenResourceError) as error:
                return explain_stream(error)
            if not data:
                return "the server closed the connection"
            self._heard_s = trio.current_time()
            self._end(pipeline.receive(bytes(data)))
            if pipeline.problem is not None:
                return str(pipeline.problem)
            if self._is_leaving and not pipeline.in_flight_count:
                self._dialler.turn()
                return "it can't serve"
            self._wanted.set()

    def _end(self, calls: Iterable[Call]) -> None:
        """Let those who wait for these calls go on."""
        for call in calls:
            trio.lowlevel.reschedule(call.owner)

    def _give_up(self, why: str) -> None:
        self._why = why
        self._scope.cancel()

    async def _watch_time(self) -> None:
        while True:
            now_s = trio.current_time()
            self._end(self.pipeline.expire(now_s))
            silent_at_s = math.inf
            if self.address is not None and self.pipeline.in_flight_count:
                silent_at_s = self._heard_s + self._silence_s
                if silent_at_s <= now_s:
                    self._dialler.turn()
                    self._give_up("it does not answer")
                    silent_at_s = math.inf
            with trio.CancelScope(deadline=min(self.pipeline.deadline_s, silent_at_s)) as self._alarm:
                await trio.sleep_forever()
