"""One client's connection: chunks of bytes in, replies out, in program order.

The life of a chunk: read up to 64 KiB, split it into lines, decode them, cut them into runs of writes and
runs of reads, hand each run to the store and wait for its answer, send all replies at once. The next run
starts when the last is answered, so requests take effect in their order; the socket is not read
meanwhile, which is what holds a fast client back. A chunk of lines that are no requests is worth a hundred of it
in replies: they are sent, at the client's pace, before more of its lines are decoded.

Nobody works for long without a pause. What is done is counted in units of some microseconds, and not in time, so that
a simulated run repeats itself.

The unit of work is the chunk. A request costs no task, no event, no cancel scope and no log call of its
own: with one request in flight on each of many connections those would cost more than all the rest. So
this module uses the socket itself, waits for it once a chunk, and writes down what is in flight in
plain attributes: a connection that is cut short by a stopping door knows from them what it still owes.
"""

import socket
from collections.abc import Callable, Sequence

import trio

from trio_kv.gateway.store import Answer, Store, View
from trio_kv.kv.operations import AnyQuery, AnyWrite
from trio_kv.kv.reply import Reply
from trio_kv.proxy.books import HalfLines, UnsentReplies
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.framing import TOO_LARGE, Line, LineBuffer
from trio_kv.proxy.outbox import ConnectionLostError, Outbox
from trio_kv.proxy.sockets import Socket, Sockets
from trio_kv.wire.refusals import EXPLAINED_BYTES_MAX
from trio_kv.wire.requests import (
    CLOSE_SHUTDOWN,
    BadRequestError,
    Ping,
    Query,
    Request,
    Status,
    WriteOperation,
    encode_error,
    encode_reply,
    encode_status,
    is_http,
    parse_line,
)

CHUNK_BYTES_MAX = 65536
"""How much is read at once. More waits in the kernel, whose window then holds the client back."""
REPLY_BYTES_MAX = 262144
"""Replies kept before they are sent; beyond it they go out before the chunk is done."""
WORK_MAX = 256
"""Units of work, a good line each, before other tasks get their turn."""
BAD_LINE_WORK = 16
"""What it costs to explain what is wrong with a line, however short it is."""
BAD_BYTES_A_UNIT = 32
"""How much of a bad line is a unit of work, as far as it is explained."""
STATUS_WORK = 32
"""What it costs to ask all nodes how they are, and to write that down."""
LINES_GIVEN_UP_MAX = 16
"""Lines given up by a door that stops, before others have their turn: they may not even be decoded."""


class Connection:
    """A connection and what it has in flight.

    Invariants:
        - While `is_busy`, a chunk is being worked on, and nobody but this connection's task may cut it
          short before the deadline of a stop. While not, the task only waits for the client.
        - `_items[:_done]` have their replies in the outbox or on the way; `_items[_done:_handed]`
          were handed to the store; the rest has not begun, and `_lines[_taken:]` are not even decoded.

    Args:
        sock: a connected socket that does not block. The connection owns it.
        sockets: what it is one of, and is waited for by.
        store: what answers the requests.
        config: the door's limits.
        halves: the books of half lines over all connections.
        unsent: the books of replies that wait for their clients, over all connections.
        now: the clock of the run, in seconds.

    """

    def __init__(
        self,
        sock: Socket,
        *,
        sockets: Sockets,
        store: Store,
        config: ProxyConfig,
        halves: HalfLines,
        unsent: UnsentReplies,
        now: Callable[[], float],
    ) -> None:
        """Begin idle; see the class."""
        self.reason = "end of input"
        """Why it ended, once it has."""
        self.is_refused = False
        """Whether it is ended because of what came over it."""
        self.request_count = 0
        """How many lines it has completed, good ones and bad ones."""
        self.is_busy = False
        self.active_s = now()
        """When it last completed a line or was sent a reply."""
        self._scope = trio.CancelScope()
        self._stop_deadline_s = float("inf")
        self._farewell: bytes | None = None
        self._sock = sock
        self._sockets = sockets
        self._store = store
        self._config = config
        self._halves = halves
        self._outbox = Outbox(self, sock, sockets, unsent, config.send_stall_s)
        self._now = now
        self._view = View()
        self._buffer = LineBuffer(config.line_bytes_max)
        self._half_bytes = 0
        self._is_between_lines = True
        self._lines: Sequence[Line] = ()
        self._taken = 0
        self._items: Sequence[Request | bytes] = ()
        self._unpaused = 0
        """Work since the last time that others had their turn."""
        self._done = 0
        self._handed = 0

    async def serve(self) -> None:
        """Answer the client until it or the door ends the connection; `reason` tells which."""
        try:
            with self._scope:
                await self._work()
            if self._farewell is CLOSE_SHUTDOWN and not self.is_busy:
                # It waited for the client when the door stopped: what had come by then is still answered.
                with trio.CancelScope(deadline=self._stop_deadline_s):
                    await self._work()
            with trio.move_on_after(self._config.farewell_s):
                await self._leave()
        except ConnectionLostError as error:
            self.reason = str(error)

    def retire(self, farewell: bytes, reason: str) -> None:
        """End the connection with these last bytes, once it has answered what it is working on."""
        if self._farewell is None:
            self._farewell, self.reason = farewell, reason
            if not self.is_busy:
                self._scope.cancel()

    def stop(self, deadline_s: float) -> None:
        """End the connection once all that has come is answered, or at the deadline of the run's clock."""
        self._stop_deadline_s = deadline_s
        self._scope.deadline = min(self._scope.deadline, deadline_s)
        self.retire(CLOSE_SHUTDOWN, "shutdown")

    def refuse(self, code: str, message: str) -> None:
        """End the connection with an error, because of what came over it."""
        self.is_refused = True
        self.retire(encode_error(code, message), message)

    def evict(self) -> None:
        """Drop the half line, which is one too many over all connections, and close."""
        self._buffer.drop()
        self._half_bytes = 0
        self.refuse("overloaded", "too many unfinished lines on all connections; send a whole line at once")

    def drop(self) -> None:
        """Drop the client: it does not take its replies, and there are too many that others don't take either."""
        self._outbox.drop()

    def close(self) -> None:
        """Close the socket and forget the half line. Call it when `serve` has ended."""
        self._halves.forget(self)
        self._outbox.close()
        self._sockets.notify_closing(self._sock.fileno())
        self._sock.close()

    async def _work(self) -> None:
        """Answer chunk after chunk until the input ends or the connection is retired."""
        sock, line_bytes_max = self._sock, self._config.line_bytes_max
        descriptor, wait_readable = sock.fileno(), self._sockets.wait_readable
        while True:
            farewell = self._farewell
            if farewell is None:
                await wait_readable(descriptor)
                if self._farewell is not None:
                    return
            elif farewell is CLOSE_SHUTDOWN:
                await trio.lowlevel.checkpoint()
            else:
                return
            try:
                chunk = sock.recv(CHUNK_BYTES_MAX)
            except BlockingIOError:
                if farewell is not None:
                    return
                continue
            except OSError as error:
                raise ConnectionLostError(f"receiving failed: {error}") from error
            size = len(chunk)
            if (
                self._is_between_lines
                and chunk.startswith(b"{")
                and chunk.find(b"\n") == size - 1
                and size <= line_bytes_max
            ):
                # One whole line, which is what a client sends that waits for each answer.
                await self._answer_one(chunk[:-1])
            elif size:
                await self._answer_chunk(self._buffer.feed(chunk))
            else:
                await self._answer_chunk(self._buffer.end())
                self._farewell = self._farewell or b""
                return
            # Thousands of silent connections must not keep their last chunk in memory.
            del chunk

    async def _answer_one(self, line: Line) -> None:
        """Answer one line, when there is no other."""
        self.is_busy = True
        self.request_count += 1
        request = self._decode(line)
        self._items, self._done, self._handed = (request,), 0, 1
        if isinstance(request, bytes):
            data = request
        elif isinstance(request.operation, Query):
            answer = await self._store.read(
                (request.operation,), timeout_s=request.timeout, is_stale=request.is_stale, view=self._view
            )
            data = encode_reply(request, answer.replies[0], answer.node, answer.term)
        elif isinstance(request.operation, WriteOperation):
            answer = await self._store.write((request.operation,), timeout_s=request.timeout)
            self._view.note(answer)
            data = encode_reply(request, answer.replies[0], answer.node, answer.term)
        else:
            data = self._answer_here(request)
        self._items = ()
        sent = self._outbox.send_nowait(data)
        if sent != len(data):
            await self._outbox.send_rest(data, sent)
        self.active_s = self._now()
        self.is_busy = False

    async def _answer_chunk(self, lines: list[Line]) -> None:
        """Answer the lines that a chunk completed, in order, and write down what it left over."""
        buffer = self._buffer
        self._is_between_lines = buffer.is_between_lines
        if self._half_bytes or buffer.half_bytes:
            self._half_bytes = buffer.half_bytes
            self._halves.note(self, self._half_bytes, is_new=bool(lines))
        if not lines:
            return
        if not self.request_count and lines[0] is not TOO_LARGE and is_http(lines[0]):
            self.refuse("bad_request", "this door speaks JSON, one object a line, and not HTTP")
        elif len(lines) == 1:
            await self._answer_one(lines[0])
        else:
            self.is_busy = True
            self.request_count += len(lines)
            self._lines, self._taken = lines, 0
            while self._taken < len(lines):
                await self._take_lines()
                await self._answer_all()
            self._items = self._lines = ()
            self._taken = 0
            self.active_s = self._now()
            self.is_busy = False

    async def _take_lines(self) -> None:
        """Decode the next lines: all there are, unless their replies are known and too many already."""
        items: list[Request | bytes] = []
        self._items, self._done, self._handed = items, 0, 0
        first, work, error_bytes = self._taken, self._unpaused, 0
        for line in self._lines[first:]:
            item = self._decode(line)
            items.append(item)
            work += 1
            if isinstance(item, bytes):
                error_bytes += len(item)
                work += BAD_LINE_WORK
                if line is not TOO_LARGE:
                    work += min(len(line), EXPLAINED_BYTES_MAX) // BAD_BYTES_A_UNIT
            if work >= WORK_MAX:
                self._taken = first + len(items)
                await self._pause()
                work = 0
            if error_bytes > REPLY_BYTES_MAX:
                break
        self._taken = first + len(items)
        self._unpaused = work

    async def _pause(self) -> None:
        """Let others have their turn."""
        self._unpaused = 0
        await trio.lowlevel.checkpoint()

    async def _answer_all(self) -> None:
        """Answer the items, in order."""
        items = self._items
        while self._done < len(items):
            item = items[self._done]
            operation = None if isinstance(item, bytes) else item.operation
            if isinstance(operation, WriteOperation):
                await self._write_run()
            elif isinstance(operation, Query):
                await self._read_run()
            else:
                self._outbox.put(self._answer_here(item))
                self._done += 1
                self._unpaused += STATUS_WORK if isinstance(operation, Status) else 1
                if self._unpaused >= WORK_MAX:
                    await self._pause()
            if self._outbox.waiting_bytes > REPLY_BYTES_MAX:
                await self._outbox.flush()
        await self._outbox.flush()

    def _decode(self, line: Line) -> Request | bytes:
        """Return a line's request, or the reply to a line that is none."""
        if line is TOO_LARGE:
            message = f"a line has at most {self._config.line_bytes_max} bytes; the rest of it is skipped"
            return encode_error("too_large", message)
        try:
            return parse_line(line)
        except BadRequestError as error:
            return encode_error(error.code, error.message, error.key, error.id)

    async def _write_run(self) -> None:
        """Hand the run of writes that begins with the next item to the store, and put its replies."""
        run: list[Request] = []
        operations: list[AnyWrite] = []
        for item in self._items[self._done : self._done + self._config.run_requests_max]:
            if isinstance(item, bytes) or not isinstance(item.operation, WriteOperation):
                break
            if run and item.timeout != run[0].timeout:
                break
            run.append(item)
            operations.append(item.operation)
        self._handed = self._done + len(run)
        answer = await self._store.write(operations, timeout_s=run[0].timeout)
        self._view.note(answer)
        await self._put_run(run, answer)

    async def _read_run(self) -> None:
        """Hand the run of queries that begins with the next item to the store, and put its replies."""
        run: list[Request] = []
        queries: list[AnyQuery] = []
        for item in self._items[self._done : self._done + self._config.run_requests_max]:
            if isinstance(item, bytes) or not isinstance(item.operation, Query):
                break
            # One time-out and one consistency a run, so that the store need know no more of it than that.
            if run and (item.timeout != run[0].timeout or item.is_stale != run[0].is_stale):
                break
            run.append(item)
            queries.append(item.operation)
        self._handed = self._done + len(run)
        timeout_s, is_stale = run[0].timeout, run[0].is_stale
        await self._put_run(
            run, await self._store.read(queries, timeout_s=timeout_s, is_stale=is_stale, view=self._view)
        )

    async def _put_run(self, run: Sequence[Request], answer: Answer) -> None:
        node, term = answer.node, answer.term
        for request, reply in zip(run, answer.replies, strict=True):
            self._outbox.put(encode_reply(request, reply, node, term))
            self._done += 1
            if self._outbox.waiting_bytes > REPLY_BYTES_MAX:
                await self._outbox.flush()
                # The kernel may take megabytes at once, again and again.
                await self._pause()

    def _answer_here(self, item: Request | bytes) -> bytes:
        """Return the reply to what needs no run."""
        if isinstance(item, bytes):
            return item
        if isinstance(item.operation, Status):
            return encode_status(item, self._store.status())
        assert isinstance(item.operation, Ping), item
        return encode_reply(item, Reply("ok"))

    async def _leave(self) -> None:
        """Say what is still owed and the last words, then wait for the client to close its side."""
        assert self._farewell is not None
        self._outbox.go_on()
        for place in range(self._done, len(self._items) + len(self._lines) - self._taken):
            self._outbox.put(self._give_up(place))
            if self._outbox.waiting_bytes > REPLY_BYTES_MAX:
                await self._outbox.flush()
            if place % LINES_GIVEN_UP_MAX == 0:
                await self._pause()
        self._outbox.put(self._farewell)
        await self._outbox.flush()
        if not self._farewell:
            return
        # To close a socket with bytes unread would reset the connection, and the reset may overtake the
        # last words on their way to the client (RFC 2525 §2.17). So the rest is read and dropped first.
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise ConnectionLostError(f"shutting down failed: {error}") from error
        while self._receive() != b"":
            await self._sockets.wait_readable(self._sock.fileno())

    def _receive(self) -> bytes | None:
        """Return the next chunk, b"" at the end of input, None if there is nothing now."""
        try:
            return self._sock.recv(CHUNK_BYTES_MAX)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ConnectionLostError(f"receiving failed: {error}") from error

    def _give_up(self, index: int) -> bytes:
        """Return the reply to an item, or to a line behind the items, that gets no result because the door stops."""
        behind = index - len(self._items)
        item = self._items[index] if behind < 0 else self._decode(self._lines[self._taken + behind])
        if isinstance(item, bytes) or not isinstance(item.operation, Query | WriteOperation):
            return self._answer_here(item)
        if isinstance(item.operation, WriteOperation) and index < self._handed:
            reply = Reply("timeout", message="the server stops; this write may still take effect")
        else:
            reply = Reply("unavailable", message="the server stops; this request had no effect")
        return encode_reply(item, reply)
