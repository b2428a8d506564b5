"""One client's connection: a session, an outbox, and the byte stream that carries both.

The life of a chunk: it is received and given to the session, whose steps are carried out until there are none: runs
go to the store, bytes to the outbox. The stream is not read meanwhile.

The unit of work is the chunk. A request costs no task, no event, no cancel scope and no log call of its own: with one
request in flight on each of many connections those would cost more than all the rest.
"""

from collections.abc import Callable

import trio

from trio_kv.gateway.store import Store, View
from trio_kv.proxy.books import HalfLines, UnsentReplies
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.outbox import Outbox
from trio_kv.proxy.session import Session
from trio_kv.proxy.states import PAUSE, READ, WRITE, Step
from trio_kv.proxy.stream import ByteStream, ConnectionLostError, lost

WAITING_BYTES_MAX = 262144
"""While more than this waits to be sent, no line is taken that no request asked for."""


class Connection:
    """A connection and what it has in flight.

    Invariant: while `is_busy`, nobody but this connection's task may cut it short before the deadline of a stop.
    While not, the task only waits for the client, and may be called away from that.

    Args:
        stream: what carries the bytes. The connection owns it.
        store: what answers the requests.
        config: the door's limits.
        halves: the books of half lines over all connections.
        unsent: the books of replies that wait for their clients, over all connections.
        now: the clock of the run, in seconds.

    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        store: Store,
        config: ProxyConfig,
        halves: HalfLines,
        unsent: UnsentReplies,
        now: Callable[[], float],
    ) -> None:
        """Begin idle; see the class."""
        self.session = Session(config, store.status)
        self.is_busy = True
        self.active_s = now()
        """When it last completed a line or was sent a reply."""
        self._stream = stream
        self._receive_nowait = stream.receive_nowait
        self._outbox = Outbox(self, stream, unsent, config.send_stall_s)
        self._store = store
        self._view = View()
        self._halves = halves
        self._half_bytes = 0
        self._farewell_s = config.farewell_s
        self._now = now
        self._stop_deadline_s = float("inf")
        self._scope = trio.CancelScope()
        self._is_called = False
        """Whether its task has to look up from waiting for the client."""

    async def serve(self) -> None:
        """Answer the client until it or the door ends the connection; the session's `reason` tells which."""
        session = self.session
        try:
            while session.is_open:
                with trio.CancelScope(deadline=self._stop_deadline_s) as self._scope:
                    self.is_busy, self._is_called = True, False
                    await self._outbox.flush()
                    await self._work()
            if session.is_hearing and not self.is_busy:
                # It waited for the client when the door stopped: what had come by then is still answered.
                with trio.CancelScope(deadline=self._stop_deadline_s):
                    await self._work()
            step = session.close()
            with trio.move_on_after(self._farewell_s):
                await self._work(step)
                if session.farewell:
                    await self._linger()
        except ConnectionLostError as error:
            session.lose(str(error))

    def retire(self, farewell: bytes, reason: str) -> None:
        """End the connection with these last bytes, once it has answered what it is working on."""
        self.session.retire(farewell, reason)
        self._call()

    def stop(self, deadline_s: float) -> None:
        """End the connection once all that has come is answered, or at the deadline of the run's clock."""
        self._stop_deadline_s = self._scope.deadline = deadline_s
        self.session.stop()
        self._call()

    def offer(self, line: bytes) -> bool:
        """Send a line that no request asked for now, between replies; return whether it will be sent.

        It never waits: the client may be slow, and whoever offers a line has other clients.
        """
        if not self.session.is_open or self._outbox.waiting_bytes > WAITING_BYTES_MAX:
            return False
        try:
            if not self._outbox.send_nowait(line):
                self._call()
        except ConnectionLostError:
            # Not the business of whoever offers a line. The connection hears of it when it receives.
            return False
        return True

    def evict(self) -> None:
        """Drop the half line, which is one too many over all connections, and close."""
        self._half_bytes = 0
        self.session.drop_half_line()
        reason = "too many unfinished lines on all connections; send a whole line at once"
        self.session.refuse("overloaded", reason)
        self._call()

    def drop(self) -> None:
        """Drop the client: it does not take its replies, and there are too many that others don't take either."""
        self._outbox.drop()

    async def aclose(self) -> None:
        """Close the stream and forget the half line. Call it when `serve` has ended."""
        self._halves.forget(self)
        self._outbox.close()
        with trio.move_on_after(self._farewell_s):
            await self._stream.aclose()

    def _call(self) -> None:
        """Call the task away from waiting for the client."""
        self._is_called = True
        if not self.is_busy:
            self._scope.cancel()

    async def _work(self, step: Step | None = None) -> None:
        """Carry out a step of the session and those that follow; receive more until it hears no more.

        A session that is open waits for its client, and may be called away from that; one that drains does not wait.
        """
        session, store, outbox, view = self.session, self._store, self._outbox, self._view
        is_waiting = session.is_open
        wait = self._stream.wait_readable if is_waiting else trio.lowlevel.checkpoint
        while True:
            while step is not None:
                if step is READ:
                    answer = await store.read(
                        session.operations, timeout_s=session.timeout_s, is_stale=session.is_stale, view=view
                    )
                    step = session.take_answer(answer)
                elif step is WRITE:
                    answer = await store.write(session.operations, timeout_s=session.timeout_s)
                    view.note(answer)
                    step = session.take_answer(answer)
                else:
                    if step is PAUSE:
                        await trio.lowlevel.checkpoint()
                    elif not outbox.send_nowait(step):
                        await outbox.flush()
                    self.active_s = self._now()
                    step = session.next_step() if session.is_owing else None
            self.is_busy = False
            if not session.is_hearing or (self._is_called and is_waiting):
                return
            await wait()
            if self._is_called and is_waiting:
                return
            self.is_busy = True
            chunk = self._receive()
            if chunk is not None:
                step = session.receive(chunk)
                if session.half_bytes or self._half_bytes:
                    self._half_bytes = session.half_bytes
                    self._halves.note(self, self._half_bytes, is_new=step is not None)
                # Thousands of silent connections must not keep their last chunk in memory.
                del chunk
            elif not is_waiting:
                return

    async def _linger(self) -> None:
        """Wait for the client to close its side.

        To close a socket with bytes unread would reset the connection, and the reset may overtake the last words on
        their way to the client (RFC 2525 §2.17). So the rest is read and dropped first.
        """
        try:
            await self._stream.send_eof()
        except OSError as error:
            raise lost("shutting down", error) from error
        while self._receive() != b"":
            await self._stream.wait_readable()

    def _receive(self) -> bytes | None:
        """Return what has come: b"" at the end of input, None if there is nothing."""
        try:
            return self._receive_nowait()
        except BlockingIOError:
            return None
        except OSError as error:
            raise lost("receiving", error) from error
