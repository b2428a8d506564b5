"""What is said on one connection, without any input or output: bytes in, steps out.

A session takes chunks of bytes and tells what to do about them, one step after the other: hand a run of requests to
the store, send some bytes, let others have their turn. Whoever drives it asks for the next step until there is none,
and only then receives again, which is what holds a fast client back.

A run has requests that the store carries out in one go (`proxy.runs`). The next run is given out when the last one is
answered, so requests take effect in their order; within a run the store sees to that. A chunk of lines that are no
requests is worth a hundred of it in replies: they go out before more of its lines are decoded.

Nobody works for long without a pause. What is done is counted in units of some microseconds, and not in time, so that
a simulated run repeats itself.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from trio_kv.gateway.store import Answer
from trio_kv.kv.reply import Reply
from trio_kv.proxy.access import TRIES_MAX, Admission
from trio_kv.proxy.answers import answer_here
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.decoding import WORK_MAX, LineDecoder
from trio_kv.proxy.framing import TOO_LARGE, Line, LineBuffer
from trio_kv.proxy.runs import STEP_OF_RUN, cut_run, take_plain
from trio_kv.proxy.states import PAUSE, WAIT, IllegalStateError, Life, State, Step
from trio_kv.wire.operations import Auth, BadRequestError, Request, Status
from trio_kv.wire.replies import encode_reply
from trio_kv.wire.requests import is_http, parse_chunk, parse_line

REPLY_BYTES_MAX = 262144
"""Replies kept before they are sent; beyond it they go out before the chunk is done."""
STATUS_WORK = 32
"""What it costs to ask all nodes how they are, and to write that down."""


class Session(Life):
    """One client's session.

    Its driver, in this order: while `is_hearing`, gives it a chunk (`receive`) and carries out the step that this
    returns, and each that follows, until there is none; then it closes it (`close`), and carries out the steps of that.
    What follows a run is returned by `take_answer`, what follows another step by `next_step`. `retire`, `stop` and
    `refuse` may come at any time.

    Invariant: `_items[:_done]` have their replies in `_out` or were given out; `_items[_done:_handed]` were handed to
    the store; the rest has not begun, and what else `_decoder` has is not even decoded. There are items or lines as
    long as not all of their replies were given out.

    Args:
        config: the door's limits.
        status: tells the members of a status reply.
        admission: looks at each request when its turn has come; None if there is nothing to look at.

    """

    def __init__(
        self,
        config: ProxyConfig,
        status: Callable[[], Mapping[str, Any]],
        admission: Admission | None = None,
    ) -> None:
        """Await the first line; see the class."""
        super().__init__()
        self.is_owing = False
        """Whether there is a next step."""
        self.operations: Sequence[Any] = ()
        """The run that was given out last. Its requests have one time-out, and its reads one consistency."""
        self.timeout_s = 0.0
        self.is_stale = False
        self.delay_s = 0.0
        """How long the step `WAIT` is."""
        self.request_count = 0
        """How many lines were completed, good ones and bad ones."""
        self.half_bytes = 0
        """How many bytes of an incomplete line are held."""
        self._status = status
        self._admission = admission
        self._line_bytes_max = config.line_bytes_max
        self._run_requests_max = config.run_requests_max
        self._buffer = LineBuffer(config.line_bytes_max)
        self._is_between_lines = True
        self._decoder = LineDecoder(config.line_bytes_max, REPLY_BYTES_MAX)
        self._items: list[Any] = []
        """Requests, and replies to lines that are none."""
        self._done = 0
        self._handed = 0
        self._answer: Answer | None = None
        """To the last run, as long as not all of its replies are in `_out`."""
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._work = 0
        """Units of work since others had their turn."""

    @property
    def first_request(self) -> Request:
        """The first request of the run that was given out last."""
        request: Request = self._items[self._done]
        return request

    @property
    def is_answered(self) -> bool:
        """Whether all replies to the run that was given out last are among the bytes given out, or will be next."""
        return self._answer is None and not self._out

    # What happens to it

    def receive(self, chunk: bytes) -> Step | None:
        """Take the next bytes, or b"" for the end of input; return the first step, None if they complete no line.

        Raises:
            IllegalStateError: it does not hear any more, or the last chunk is not answered.

        """
        if self.is_owing or not self.is_hearing:
            raise IllegalStateError(f"a chunk came to a session that is {self.state.value}")
        if (
            self._is_between_lines
            and chunk.startswith(b"{")
            and chunk.find(b"\n") == len(chunk) - 1 <= self._line_bytes_max
            and self.request_count
        ):
            # One whole line, which is what a client sends that waits for each answer. It goes the shortest way.
            line: Any = chunk[:-1]
        elif (items := self._parse_plain(chunk)) is not None:
            return self._take_plain(items)
        else:
            lines = self._split(chunk)
            if not lines or not (self.request_count or self._greet(lines[0])):
                return None
            if len(lines) > 1 or lines[0] is TOO_LARGE:
                return self._take_many(lines)
            (line,) = lines
        self.request_count += 1
        self.is_owing = True
        try:
            item: Any = parse_line(line)
        except BadRequestError:
            # What is told of it is about the line without its end, as where it comes in pieces.
            item, step = self._decoder.decode_line(line.removesuffix(b"\r")), None
        else:
            step = STEP_OF_RUN.get(type(item.operation))
        self._items, self._done = [item], 0
        if step is None or self._admission is not None:
            self._handed = self._work = 0
            return self.next_step()
        self._handed = 1
        self.operations, self.timeout_s, self.is_stale = (item.operation,), item.timeout, item.is_stale
        return step

    def take_answer(self, answer: Answer) -> Step | None:
        """Take the store's answer to the run that was given out last; return what to do next.

        Raises:
            IllegalStateError: there is no such run, or it has not as many requests as there are replies.

        """
        if len(answer.replies) != self._handed - self._done or self._answer is not None:
            raise IllegalStateError(f"{len(answer.replies)} replies to {self._handed - self._done} requests")
        if len(self._items) > 1 or self._decoder.lines:
            self._answer = answer
            return self.next_step()
        # It was one line, alone.
        item = self._items[0]
        self._items, self.operations = [], ()
        self.is_owing, self._handed = False, 0
        return encode_reply(item, answer.replies[0], answer.node, answer.term)

    def drop_half_line(self) -> None:
        """Forget the line that is not complete yet, and what is still to come of it."""
        self._buffer.drop()
        self._note_buffer()

    def close(self) -> Step | None:
        """Answer what is still owed without a result, and say the last words; return the first step.

        Raises:
            IllegalStateError: it has no end yet, or was closed already.

        """
        self.become(State.CLOSING)
        self.is_hearing = False
        self.is_owing = True
        return self.next_step()

    # What to do

    def next_step(self) -> Step | None:
        """Return what to do next; None when all that was received is answered."""
        while self.is_owing:
            if self._out_bytes > REPLY_BYTES_MAX:
                # The peer may take megabytes at once, again and again.
                self._work = WORK_MAX
                return self._take_out()
            if self._work >= WORK_MAX:
                self._work = 0
                return PAUSE
            if self._answer is not None:
                self._put_replies(self._answer)
            elif self._decoder.is_in_block:
                self._work = self._decoder.go_on(self._items, self._work)
            elif self._done < len(self._items):
                if (step := self._take_up(self._admit(self._done))) is not None:
                    return step
            elif self._decoder.has_more:
                self._begin_block()
            elif self.state is State.CLOSING:
                self.become(State.CLOSED)
                if self.farewell:
                    self._put(self.farewell)
            else:
                self._forget_chunk()
        return self._take_out() if self._out else None

    def _forget_chunk(self) -> None:
        """Keep nothing of a chunk that is answered: there are thousands of silent sessions."""
        self._items, self.operations = [], ()
        self._decoder.forget()
        self.is_owing = False

    def _cut_run(self, first: Request) -> Step:
        """Cut the run that begins with the next item, and return its step."""
        items: Iterable[Any] = islice(self._items, self._done, self._done + self._run_requests_max)
        if self._admission is not None:
            items = map(
                self._admit, range(self._done, min(len(self._items), self._done + self._run_requests_max))
            )
        step, self.is_stale, self.operations = cut_run(first, items)
        self.timeout_s, self._handed = first.timeout, self._done + len(self.operations)
        return step

    def _take_up(self, item: Any) -> Step | None:
        """Begin with the next item; return the step that it needs, or None once it is answered."""
        kind = None if isinstance(item, bytes) else type(item.operation)
        if kind in STEP_OF_RUN and self.state is not State.CLOSING:
            return self._cut_run(item)
        if kind is Auth and self._admission is not None:
            if self._out:
                return self._take_out()
            self.delay_s = 0.0 if self.state is State.CLOSING else self._admission.delay_s()
            if self.delay_s:
                return WAIT
            item = self._show_token(self._admission, item)
        self._put(answer_here(item, self._status, is_handed=self._done < self._handed))
        self._done += 1
        self._work += STATUS_WORK if kind is Status else 1
        return None

    def _admit(self, place: int) -> Any:
        """Return an item whose turn has come, or what is said in its place to who may not ask for it."""
        item = self._items[place]
        if self._admission is None or type(item) is bytes or place < self._handed:
            # What the store has may take effect, whoever has asked for it.
            return item
        refusal = self._admission.refuse(item)
        item = self._admission.narrow(item) if refusal is None else encode_reply(item, refusal)
        self._items[place] = item
        return item

    def _show_token(self, admission: Admission, request: Request) -> bytes:
        """Let a token be looked at; return what is said to that."""
        if self.state is State.CLOSING:
            return encode_reply(request, Reply("unavailable", message="the server stops"))
        reply = admission.show(request)
        if reply.code == "ok" and self.state is State.AUTHENTICATING:
            self.become(State.OPEN)
        if admission.is_given_up:
            self.refuse("unauthorized", f"{TRIES_MAX} tokens that open nothing are enough")
        return encode_reply(request, reply)

    def _take_out(self) -> bytes:
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._out_bytes = 0
        return data

    # Lines in

    def _split(self, chunk: bytes) -> list[Line]:
        """Return the lines that a chunk completes."""
        if chunk:
            lines = self._buffer.feed(chunk)
        else:
            lines = self._buffer.end()
            self.retire(b"", "end of input")
            self.is_hearing = False
        self._note_buffer()
        return lines

    def _note_buffer(self) -> None:
        self._is_between_lines = self._buffer.is_between_lines
        self.half_bytes = self._buffer.half_bytes

    def _greet(self, line: Line) -> bool:
        """Judge the first line; return whether the peer is a client of ours."""
        if line is not TOO_LARGE and is_http(line):
            self.refuse("bad_request", "this door speaks JSON, one object a line, and not HTTP")
            return False
        if self.state is State.GREETING:
            has_to_show = self._admission is not None and self._admission.needs_token
            self.become(State.AUTHENTICATING if has_to_show else State.OPEN)
        return True

    def _parse_plain(self, chunk: bytes) -> list[Request] | None:
        """Return the requests of a chunk of whole, plain lines that are one run; None if that is in doubt."""
        if not (self._is_between_lines and self.request_count and chunk.endswith(b"\n")):
            return None
        lines_max = min(WORK_MAX, self._run_requests_max)
        if len(chunk) > self._line_bytes_max or chunk.count(b"\n") > lines_max:
            return None
        return parse_chunk(chunk)

    def _take_plain(self, items: list[Request]) -> Step | None:
        """Take requests that are one run."""
        self.request_count += len(items)
        self.is_owing = True
        self._items, self._done, self._handed, self._work = items, 0, len(items), len(items)
        taken = None if self._admission is not None else take_plain(items)
        if taken is None:
            self._handed = 0
            return self.next_step()
        step, self.operations = taken
        self.timeout_s, self.is_stale = items[0].timeout, False
        return step

    def _take_many(self, lines: list[Line]) -> Step | None:
        self.request_count += len(lines)
        self._decoder.take(lines)
        self._work = 0
        self.is_owing = True
        self._begin_block()
        return self.next_step()

    def _begin_block(self) -> None:
        self._decoder.begin_block()
        self._items, self._done, self._handed = [], 0, 0

    # Lines out

    def _put(self, line: bytes) -> None:
        self._out.append(line)
        self._out_bytes += len(line)

    def _put_replies(self, answer: Answer) -> None:
        """Put the replies to the last run, as many as may be kept."""
        replies, node, term = answer.replies, answer.node, answer.term
        out, out_bytes, done = self._out, self._out_bytes, self._done
        told = len(replies) - (self._handed - done)
        for item, reply in zip(self._items[done : self._handed], islice(replies, told, None), strict=True):
            if out_bytes > REPLY_BYTES_MAX:
                break
            line = encode_reply(item, reply, node, term)
            out.append(line)
            out_bytes += len(line)
            done += 1
        self._done = done
        self._out_bytes = out_bytes
        if self._done == self._handed:
            self._answer = None
