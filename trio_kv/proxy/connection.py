"""One client's connection: a session, an outbox, and the byte stream that carries both.

The life of a chunk: it is received and given to the session, whose steps are carried out until there are none: runs
go to the store, bytes to the outbox. The stream is not read meanwhile.

The unit of work is the chunk. A request costs no task, no event, no cancel scope and no log call of its own. Nor
does it cost a turn of its connection's task, for to wake a task and let it wait again takes longer than all else that
is done for a request. As long as nothing is waited for but the client and the store, the task rests, and what happens
is done in the task of whom it comes from: the one that watches the sockets, or the node that answers. The connection's
own task is woken for all else: a client that takes its replies slowly, a turn for others, an error, a door that stops.
"""

import contextlib
from collections.abc import Callable

import trio

from trio_kv.gateway.store import Answer, Store, View
from trio_kv.proxy.access import Admission
from trio_kv.proxy.books import HalfLines, UnsentReplies
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.meter import RequestMeter
from trio_kv.proxy.outbox import Outbox
from trio_kv.proxy.session import Session
from trio_kv.proxy.states import ANSWER, BYTES, READ, WAIT, WATCH, WRITE, Need, Step
from trio_kv.proxy.stream import ByteStream, ConnectionLostError, lost
from trio_kv.proxy.watches import Watches


class Connection:
    """A connection and what it has in flight.

    Invariants: while `is_busy`, nobody but this connection's task may cut it short before the deadline of a stop. While
    not, the task only waits for the client, and may be called away from that. While the task rests, `_resting` says for
    what; while it does not, nobody else goes on with the session.

    Args:
        stream: what carries the bytes. The connection owns it.
        store: what answers the requests.
        config: the door's limits.
        halves: the books of half lines over all connections.
        unsent: the books of replies that wait for their clients, over all connections.
        meter: counts what the store answers.
        now: the clock of the run, in seconds.
        admission: looks at the client's requests; None if there is nothing to look at.

    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        store: Store,
        config: ProxyConfig,
        halves: HalfLines,
        unsent: UnsentReplies,
        meter: RequestMeter,
        now: Callable[[], float],
        admission: Admission | None = None,
    ) -> None:
        """Begin idle; see the class."""
        self.session = Session(config, store.status, admission)
        self.is_busy = True
        self.active_s = now()
        """When it last completed a line or was sent a reply."""
        self._stream = stream
        self._receive_nowait = stream.receive_nowait
        self._outbox = Outbox(self, stream, unsent, config.send_stall_s)
        self._admission = admission
        self._store = store
        self._watches: Watches | None = None
        self._watches_max = config.watches_max
        self._view = View()
        self._halves = halves
        self._half_bytes = 0
        self._farewell_s = config.farewell_s
        self._now = now
        self._note_run = meter.note_run
        self._began_s = 0.0
        """When the run that is under way was given to the store."""
        self._stop_deadline_s = float("inf")
        self._scope = trio.CancelScope()
        self._is_called = False
        """Whether its task has to look up from waiting for the client."""
        self._run: object = None
        """What is under way at the store."""
        self._task: trio.lowlevel.Task | None = None
        self._resting: Need | None = None
        self._woken_for = Need.NOTHING
        self._error: Exception | None = None
        """What went wrong while the task rested: it raises that."""
        self._is_watched = False

    async def serve(self) -> None:
        """Answer the client until it or the door ends the connection; the session's `reason` tells which."""
        session = self.session
        try:
            while session.is_open:
                with trio.CancelScope(deadline=self._stop_deadline_s) as self._scope:
                    self.is_busy, self._is_called = True, False
                    await self._outbox.flush()
                    self._tell_watches()
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

    @property
    def holder_name(self) -> str | None:
        """Whose token the client has shown, if it did."""
        return None if self._admission is None else self._admission.holder_name

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way for the client: no request, and no watch."""
        return not self.is_busy and not self._watches

    @property
    def watch_count(self) -> int:
        """How many watches are open."""
        return len(self._watches or ())

    def evict(self) -> None:
        """Drop the half line, which is one too many over all connections, and close."""
        self._half_bytes = 0
        self.session.drop_half_line()
        reason = "too many unfinished lines on all connections; send a whole line at once"
        self.session.refuse("overloaded", reason)
        self._call()

    def send_away_if_void(self) -> None:
        """End the connection if the token that came over it opens nothing any more."""
        if self._admission is not None and self._admission.is_void:
            self.session.refuse("unauthorized", "the token that was shown opens nothing here any more")
            self._call()

    def drop(self) -> None:
        """Drop the client: it does not take its replies, and there are too many that others don't take either."""
        self._outbox.drop()

    async def aclose(self) -> None:
        """Close the stream and forget the half line. Call it when `serve` has ended."""
        self._halves.forget(self)
        if self._watches is not None:
            self._watches.close()
        self._outbox.close()
        self._unwatch()
        with trio.move_on_after(self._farewell_s):
            await self._stream.aclose()

    def _call(self) -> None:
        """Call the task away from waiting for the client."""
        self._is_called = True
        if not self.is_busy:
            self._scope.cancel()

    # What needs no wait

    def _go_on(self, step: Step | None, now: float | None = None) -> Need:
        """Carry out a step of the session and those that follow; return what is needed then.

        Args:
            step: the step.
            now: the time, if it was just read, as for most replies.

        """
        session, outbox = self.session, self._outbox
        while step is not None:
            if step is READ or step is WRITE:
                answer = self._begin_run(step)
                if answer is None:
                    return ANSWER
                step = session.take_answer(answer)
            elif isinstance(step, bytes):
                is_sent = outbox.send_nowait(step)
                self.active_s = self._now() if now is None else now
                if self._watches is not None and self._watches.is_opening and session.is_answered:
                    self._watches.open()
                    self._tell_watches()
                if not is_sent:
                    return Need.ROOM
                step = session.next_step() if session.is_owing else None
            elif step is WATCH:
                answer = self._begin_watch()
                if answer is None:
                    return ANSWER
                step = session.take_answer(answer)
            else:
                return Need.TIME if step is WAIT else Need.TURN
        return BYTES if session.is_hearing else Need.NOTHING

    def _begin_run(self, step: Step) -> Answer | None:
        """Give a run to the store; return the answer if it is known at once."""
        session, store, done = self.session, self._store, self._on_answer
        self._began_s = self._now()
        operations, timeout_s = session.operations, session.timeout_s
        if step is READ:
            call = store.start_read(
                operations, timeout_s=timeout_s, is_stale=session.is_stale, view=self._view, done=done
            )
        else:
            call = store.start_write(operations, timeout_s=timeout_s, done=done)
        if isinstance(call, Answer):
            self._note_answer(call)
            return call
        self._run = call
        return None

    def _begin_watch(self) -> Answer | None:
        """Let a watch begin or end; return the answer if it is known at once."""
        self._began_s = self._now()
        if self._watches is None:
            self._watches = Watches(self._store, self._watches_max, self._on_more)
        call = self._watches.start(self.session.first_request, self._on_answer)
        if isinstance(call, Answer):
            self._note_answer(call)
            return call
        self._run = call
        return None

    def _tell_watches(self) -> None:
        """Send what watches have to tell, as long as the client takes it.

        Raises:
            ConnectionLostError: the client is gone.

        """
        watches, outbox = self._watches, self._outbox
        while watches and self.session.is_open and not outbox.waiting_bytes:
            lines = watches.next_lines()
            if lines is None:
                return
            if not outbox.send_nowait(lines):
                self._call()

    def _take_answer(self, answer: Answer) -> Need:
        self._run = None
        now = self._note_answer(answer)
        return self._go_on(self.session.take_answer(answer), now)

    def _note_answer(self, answer: Answer) -> float:
        """Count a run that was answered; return the time."""
        if answer.applied > self._view.applied:
            # The store itself has noted what a read saw.
            self._view.note(answer)
        now = self._now()
        self._note_run(self.session.operations, answer.replies, now - self._began_s)
        return now

    def _take_bytes(self) -> Need:
        """Go on with what has come, if something has."""
        chunk = self._receive()
        if chunk is None:
            return BYTES
        self.is_busy = True
        session = self.session
        step = session.receive(chunk)
        if session.half_bytes or self._half_bytes:
            self._half_bytes = session.half_bytes
            self._halves.note(self, self._half_bytes, is_new=step is not None)
        return self._go_on(step)

    def _receive(self) -> bytes | None:
        """Return what has come: b"" at the end of input, None if there is nothing."""
        try:
            return self._receive_nowait()
        except BlockingIOError:
            return None
        except OSError as error:
            raise lost("receiving", error) from error

    # While the task rests

    def _on_readable(self) -> None:
        if self._resting is BYTES:
            self._attend(self._take_bytes)
        else:
            # The client sends more than it has answers for. That is received when it is its turn.
            self._unwatch()

    def _on_more(self) -> None:
        """Watches have something to tell. Whoever calls has other clients, and waits for none."""
        # The connection hears by itself that its client is gone, when it receives.
        with contextlib.suppress(ConnectionLostError):
            self._tell_watches()

    def _on_answer(self, answer: Answer) -> None:
        assert self._resting is ANSWER
        self._attend(self._take_answer, answer)

    def _attend(self, go_on: Callable[..., Need], *arguments: Answer) -> None:
        """Do what needs no wait at once, in the task of whoever calls; wake the own one for the rest."""
        need = Need.NOTHING
        try:
            need = go_on(*arguments)
        except Exception as error:  # noqa: BLE001 - the connection's own task raises it
            self._error = error
        if not (need is BYTES and self._is_called) and self._may_rest(need):
            return
        assert self._task is not None
        self._resting, self._woken_for = None, need
        trio.lowlevel.reschedule(self._task)

    def _may_rest(self, need: Need) -> bool:
        """Let the task rest, or rest on, if somebody tells when there is what it needs; return whether it may."""
        if need is BYTES:
            self.is_busy = False
            if not self._is_watched:
                self._is_watched = self._stream.watch(self._on_readable)
        self._resting = need if need is ANSWER or (need is BYTES and self._is_watched) else None
        return self._resting is not None

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._stream.unwatch()

    # What the task does

    async def _work(self, step: Step | None = None) -> None:
        """Carry out a step of the session and those that follow; receive more until it hears no more.

        A session that is open waits for its client, and may be called away from that; one that drains does not wait.
        """
        session = self.session
        is_waiting = session.is_open
        # The client is heard also while lines of watches wait for it.
        need = self._take_bytes() if is_waiting and self._outbox.waiting_bytes else self._go_on(step)
        while need is not Need.NOTHING:
            if need is Need.ROOM:
                await self._outbox.flush()
                self._tell_watches()
                need = self._go_on(session.next_step() if session.is_owing else None)
            elif need is Need.TURN:
                await trio.lowlevel.checkpoint()
                need = self._go_on(session.next_step())
            elif need is Need.TIME:
                await trio.sleep(session.delay_s)
                need = self._go_on(session.next_step())
            elif need is ANSWER or (is_waiting and not self._is_called):
                need = await self._rest(need)
            else:
                self.is_busy = False
                if is_waiting:
                    return
                await trio.lowlevel.checkpoint()
                need = self._take_bytes()
                if not self.is_busy:
                    return  # Nothing has come.
        self.is_busy = False

    async def _rest(self, need: Need) -> Need:
        """Let others go on with the session as far as that needs no wait; return what is needed then."""
        if not self._may_rest(need):
            await self._stream.wait_readable()
            return BYTES if self._is_called else self._take_bytes()
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._error is not None:
            raise self._error
        return self._woken_for

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._resting = None
        if self._run is not None:
            self._store.cancel(self._run)
            self._run = None
        return trio.lowlevel.Abort.SUCCEEDED

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
