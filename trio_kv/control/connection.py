"""One client of the control door, once it has a WebSocket: token first, then commands, events and frames."""

import hmac
from collections.abc import Awaitable, Mapping

import attrs
import msgspec
import trio
from trio_websocket import WebSocketConnection

from trio_kv.cluster.cluster import Cluster
from trio_kv.control.anywhere import carry_out_anywhere
from trio_kv.control.commands import (
    COMMANDS,
    Command,
    CommandError,
    Describe,
    Events,
    Frames,
    FramesKept,
    FramesMarks,
    FramesPage,
    Links,
    Status,
    StoreRequest,
    describe,
    parse_command,
)
from trio_kv.control.config import ControlConfig
from trio_kv.control.console import ask_store
from trio_kv.control.events import EventQueue
from trio_kv.control.feed import FrameFeed
from trio_kv.gateway.store import Store
from trio_kv.trace.text import encodable, encode_json
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import ControlCommanded
from trio_kv.wire.replies import encode_error

CLOSE_S = 1.0
"""How long the closing handshake of a WebSocket may take."""
POLICY_VIOLATION = 1008
REQUESTS_MAX = 8
"""Requests to the store that one client may have under way."""
PAGE_BYTES_MAX = 128 << 10
"""Frames of the past that are sent at once: a slow client has to take them before `send_timeout_s` is over."""


class _Auth(msgspec.Struct, forbid_unknown_fields=True):
    auth: str


_decode_auth = msgspec.json.Decoder(_Auth).decode


@attrs.define(eq=False)
class ControlConnection:
    """What one client may do, and what is under way for it.

    Args:
        websocket: an open connection.
        nursery: where the task that sends events runs.
        token: what the client has to show.
        cluster: what the commands are for.
        config: the door's limits.
        trace: where events go, and where this client may listen.
        feed: the frames, if some are taken.
        store: what the console asks, if there is one.

    """

    _websocket: WebSocketConnection
    _nursery: trio.Nursery
    _token: str
    _cluster: Cluster
    _config: ControlConfig
    _trace: Trace
    _feed: FrameFeed | None = None
    _store: Store | None = None
    _queue: EventQueue | None = None
    _is_looking: bool = False
    _request_count: int = 0

    async def serve(self, auth_deadline_s: float) -> None:
        """Serve the client until it leaves.

        Args:
            auth_deadline_s: until when, by Trio's clock, the token must have come.

        Raises:
            trio_websocket.ConnectionClosed: the client left.
            trio.TooSlowError: the token did not come in time, or the client does not take its messages.

        """
        with trio.fail_at(auth_deadline_s):
            first = await self._websocket.get_message()
        if not self._is_authorized(first):
            await self._send(_error("unauthorized", 'the first message must be {"auth": TOKEN}'))
            with trio.move_on_after(CLOSE_S):
                await self._websocket.aclose(POLICY_VIOLATION, "unauthorized")
            return
        try:
            while True:
                await self._answer(await self._websocket.get_message())
        finally:
            if self._queue is not None:
                self._trace.remove_sink(self._queue)

    def _is_authorized(self, message: str | bytes) -> bool:
        try:
            auth = _decode_auth(message).auth
        except (ValueError, RecursionError):
            return False
        return hmac.compare_digest(auth.encode(), self._token.encode())

    async def _answer(self, message: str | bytes) -> None:
        try:
            command = parse_command(message)
        except CommandError as error:
            await self._send(_error("bad_request", str(error), error.id))
            return
        match command:
            case Describe():
                await self._send(_reply(command, {"commands": [each.described() for each in COMMANDS]}))
            case Events():
                # The reply goes first, so that a client knows events from the reply it waits for.
                await self._send(_reply(command, {}))
                self._listen()
            case Frames() | FramesKept() | FramesMarks() | FramesPage():
                await self._answer_on_frames(command)
            case StoreRequest():
                await self._begin_request(command)
            case Status() | Links():
                await self._send(await self._carry_out(command, carry_out_anywhere(command, self._cluster)))
            case _:
                self._trace.emit(ControlCommanded(command.name(), describe(command)))
                await self._send(await self._carry_out(command, carry_out_anywhere(command, self._cluster)))

    async def _answer_on_frames(self, command: Frames | FramesKept | FramesMarks | FramesPage) -> None:
        feed = self._feed
        if feed is None:
            await self._send(_error("bad_request", "no frames are taken here", command.id))
            return
        match command:
            case Frames():
                await self._send(_reply(command, {"run": feed.run_id}))
                if not self._is_looking:
                    self._is_looking = True
                    self._nursery.start_soon(self._send_frames, feed)
            case FramesKept():
                await self._send(_reply(command, feed.kept_members()))
            case FramesMarks():
                await self._send(_reply(command, feed.marks_members()))
            case FramesPage(first=first, count=count):
                texts = await feed.page(first, count, PAGE_BYTES_MAX)
                await self._send(_reply(command, {"frames": [msgspec.Raw(text) for text in texts]}))

    async def _send_frames(self, feed: FrameFeed) -> None:
        """Send the newest frame again and again: the next one when the client has the last.

        That it was sent means little: megabytes of it may lie in buffers on the way, and each would be shown long after
        its time. So the client is asked whether it has come that far.
        """
        number = 0
        with feed.looking():
            while True:
                frame = await feed.wait_frame(number)
                number = frame.number
                await self._send(f'{{"frame":{frame.text.decode()}}}')
                with trio.fail_after(self._config.send_timeout_s):
                    await self._websocket.ping()

    async def _begin_request(self, command: StoreRequest) -> None:
        """Let a request to the store be under way: it may wait for a leader, and what ends that comes from here."""
        store = self._store
        if store is None:
            await self._send(_error("bad_request", "there is no store behind this door", command.id))
        elif self._request_count >= REQUESTS_MAX:
            message = f"{REQUESTS_MAX} requests are under way, which is the limit"
            await self._send(_error("overloaded", message, command.id))
        else:
            self._request_count += 1
            self._nursery.start_soon(self._ask_store, command, store)

    async def _ask_store(self, command: StoreRequest, store: Store) -> None:
        try:
            asking = ask_store(command, store, self._cluster, self._trace)
            await self._send(await self._carry_out(command, asking))
        finally:
            self._request_count -= 1

    async def _carry_out(self, command: Command, carrying: Awaitable[dict[str, object]]) -> str:
        config = self._config
        timeout_s = config.slow_command_timeout_s if command.is_slow else config.command_timeout_s
        try:
            with trio.fail_after(timeout_s):
                members = await carrying
        except CommandError as error:
            return _error("bad_request", str(error), error.id)
        except trio.TooSlowError:
            return _error("timeout", "the command takes too long; it may still take effect", command.id)
        return _reply(command, members)

    def _listen(self) -> None:
        if self._queue is None:
            self._queue = EventQueue(self._config.events_max)
            self._trace.add_sink(self._queue)
            self._nursery.start_soon(self._send_events, self._queue)

    async def _send_events(self, queue: EventQueue) -> None:
        while True:
            for message in await queue.wait_messages():
                await self._send(message)

    async def _send(self, message: str) -> None:
        with trio.fail_after(self._config.send_timeout_s):
            await self._websocket.send_message(message)


def _reply(command: Command, members: Mapping[str, object]) -> str:
    lead = {"id": command.id} if len(command.id) else {}
    return encode_json({**lead, "status": "ok", **members}).decode()


def _error(code: str, message: str, id: msgspec.Raw = msgspec.Raw()) -> str:  # noqa: B008
    return encode_error(code, encodable(message), None, id).decode().rstrip("\n")
