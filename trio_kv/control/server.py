"""The control door: one loopback port. A WebSocket behind a token, commands in and events out; and plain HTTP.

Each client is a task with everything of its own: its time limits, its bounded queue of events, and a
boundary for whatever goes wrong. Commands of one client are carried out one after the other. The head of a
request is read and judged here before any of it reaches the WebSocket library, so what is not for `/ws`
costs nothing further: it gets one response, and that is the end of its connection.
"""

import contextlib
import hmac
import os
import socket
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import h11
import trio
import trio_websocket
from wsproto.utilities import ProtocolError

from trio_kv.cluster.cluster import Cluster
from trio_kv.control.config import ControlConfig
from trio_kv.control.connection import ControlConnection
from trio_kv.control.feed import FrameFeed
from trio_kv.control.head import check_head, check_upgrade, is_for_websocket, parse_head
from trio_kv.control.http import Routes, answer, is_local
from trio_kv.control.response import Response, encode_response, refuse
from trio_kv.control.token import (
    ControlFile,
    control_path,
    kept_from_cleaners,
    make_token,
    remove_control_file,
    token_of,
    write_control_file,
)
from trio_kv.gateway.store import Store
from trio_kv.storage.errors import FULL
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import ClientFailed, ClientRefused, ControlFileDelayed
from trio_kv.transport.tls import Credentials, HandshakeError, ReplayStream, shake_hands
from trio_kv.wire.replies import encode_error

FILE_REMOVED_S = 1.0
"""How long the end of the door waits until its file is removed."""
FILE_RETRY_S = 1.0
"""How often a file that does not fit on a full disk is tried again."""
MESSAGES_MAX = 16
"""Messages of one client that wait to be read; further ones wait in the client."""
RECEIVE_BYTES = 65_536
LINGER_S = 1.0
"""How long a client is heard that still sends after its response: were it cut off, it might never see that."""

GONE_ERRORS = (
    OSError,
    ProtocolError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
)
"""A client that is gone, too slow, or speaks something else. Its connection ends, and that is all."""


WRONG_DOOR = encode_error(
    "bad_request", "this is the control door, for trio-kv ctl; requests go to the client door, at its --port"
)
"""What a client of the store is told that knocks here: a line of the protocol that it speaks."""


class WrongDoor:
    """Stands for a client that begins with JSON, as no request of HTTP does."""


@attrs.frozen
class _Head:
    """A request."""

    data: bytes
    """All that has come by now."""
    request: h11.Request


class ControlDoor:
    """The control door.

    Its driver starts it with `await nursery.start(door.serve)`, which returns the port once the token file
    is in place, and ends it by cancelling or by `stop`; the file is removed then.

    Args:
        cluster: what the commands are for.
        config: the door's limits.
        trace: where events go, and where clients listen to them.
        credentials: for TLS; None for plain TCP.
        routes: what it serves beside the WebSocket.
        opens: whether a token, which is not the door's own, lets somebody from elsewhere ask for these.
        feed: the frames, if some are taken; it must be running.
        store: what the console asks, if there is one.

    """

    def __init__(
        self,
        cluster: Cluster,
        config: ControlConfig,
        trace: Trace,
        credentials: Credentials | None = None,
        *,
        routes: Routes | None = None,
        opens: Callable[[str], bool] = lambda _: False,
        feed: FrameFeed | None = None,
        store: Store | None = None,
    ) -> None:
        """Prepare a door that is closed; see the class."""
        self.port = 0
        """The port on which it listens, once it does."""
        self._cluster = cluster
        self._config = config
        self._trace = trace
        self._token = make_token()
        self._credentials = credentials
        self._routes = {} if routes is None else routes
        self._opens = opens
        self._feed = feed
        self._store = store
        self._path = Path()
        """Of the token file."""
        self._connection_count = 0
        self._client_count = 0
        self._scope = trio.CancelScope()

    async def serve(
        self,
        opened: Sequence[socket.socket] = (),
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Open the port, write the token file, tell the port through `task_status`, and serve until stopped.

        A disk that is full has no place for the file: until it has, it is where those who keep nothing have theirs.

        Args:
            opened: sockets of our host that listen already; without any the door opens its own.
            task_status: told the port.

        Raises:
            OSError: the port cannot be opened, or the token file cannot be written.

        """
        host = self._config.host
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in opened]
        listeners = listeners or await trio.open_tcp_listeners(self._config.port, host=host)
        self.port = listeners[0].socket.getsockname()[1]
        data_dir = self._config.data_dir
        if data_dir is not None:
            self._token = token_of(data_dir)
        path = control_path(data_dir, self.port)
        self._path = path
        content = self._content()
        is_written = _fits(path, content)
        # A data directory is locked as a whole; this one is for all servers of a user.
        kept = kept_from_cleaners(path.parent) if data_dir is None else contextlib.nullcontext()
        try:
            with kept, self._scope:
                async with trio.open_nursery() as nursery:
                    if not is_written:
                        nursery.start_soon(self._write_when_it_fits, path, content)
                    await nursery.start(trio.serve_listeners, self._serve_stream, listeners)
                    task_status.started(self.port)
        finally:
            # A disk that hangs must not keep the process from ending; the file tells that its process is gone.
            with trio.move_on_after(FILE_REMOVED_S, shield=True):
                await trio.to_thread.run_sync(remove_control_file, path, content, abandon_on_cancel=True)

    def page_address(self, *, has_token: bool) -> str:
        """Return the dashboard's address. With the token in it, whoever reads it may do all that can be done here."""
        scheme = "http" if self._credentials is None else "https"
        return f"{scheme}://{self._content().address}/" + (f"#token={self._token}" if has_token else "")

    @property
    def file_directory(self) -> Path:
        """Where the token file is, which is no place for others."""
        return self._path.parent

    def _content(self) -> ControlFile:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._config.host, self._config.host)  # noqa: S104
        certificate = None if self._credentials is None else self._credentials.loaded.certificate
        return ControlFile(_show(host, self.port), self._token, os.getpid(), certificate)

    def tell_certificate(self) -> None:
        """Write the token file anew, because the certificate is another. It writes a file: not for the event loop.

        Raises:
            OSError: it can't be written.

        """
        write_control_file(self._path, self._content())

    def stop(self) -> None:
        """Close the door and all its connections."""
        self._scope.cancel()

    async def _write_when_it_fits(self, path: Path, content: ControlFile) -> None:
        self._trace.emit(ControlFileDelayed(str(path), content.address))
        is_written = False
        with _elsewhere(self.port, content):
            while not is_written:
                await trio.sleep(FILE_RETRY_S)
                is_written = await trio.to_thread.run_sync(_fits, path, content, abandon_on_cancel=True)

    async def _serve_stream(self, stream: trio.SocketStream) -> None:
        self._connection_count += 1
        self._client_count += 1
        client = self._client_count
        try:
            await self._serve_client(stream, client)
        except* GONE_ERRORS:
            # What the client did to its connection; there is nobody left to tell.
            pass
        except* Exception as group:  # noqa: BLE001 - told below, with its traceback
            # The boundary of one client: whatever this bug is, the cluster goes on and it is told.
            text = "".join(traceback.format_exception(group))
            self._trace.emit(ClientFailed(client=client, address="control door", traceback=text))
        finally:
            self._connection_count -= 1
            await trio.aclose_forcefully(stream)

    async def _serve_client(self, raw: trio.SocketStream, client: int) -> None:
        stream: trio.abc.Stream = raw
        deadline_s = trio.current_time() + self._config.auth_timeout_s
        head: _Head | Response | WrongDoor | None = None
        is_trusted = is_local(raw.socket.getpeername()[0])
        if self._credentials is not None:
            is_trusted = is_trusted or self._credentials.loaded.asks_for_certificates
            try:
                with trio.fail_at(deadline_s):
                    stream = await shake_hands(stream, self._credentials, _answer_plain)
            except HandshakeError as error:
                self._trace.emit(ClientRefused(client=client, address="control door", reason=str(error)))
                return
        with trio.move_on_at(deadline_s):
            head = await self._read_head(stream)
        if head is None:
            return
        if isinstance(head, WrongDoor):
            await self._send_last(stream, WRONG_DOOR)
        elif isinstance(head, Response):
            await self._send_last(stream, encode_response(head))
        elif refusal := self._judge(head.request):
            await self._send_last(stream, encode_response(refusal, is_head=head.request.method == b"HEAD"))
        elif is_for_websocket(head.request):
            await self._serve_websocket(stream, head.data, deadline_s)
        else:
            await self._answer(stream, head.request, client, is_trusted=is_trusted)

    async def _answer(
        self, stream: trio.abc.Stream, request: h11.Request, client: int, *, is_trusted: bool
    ) -> None:
        """Answer a request of plain HTTP."""
        timeout_s, failure = self._config.command_timeout_s, None
        try:
            response = await answer(
                request, self._routes, is_trusted=is_trusted, opens=self._is_token, timeout_s=timeout_s
            )
        except Exception as error:  # noqa: BLE001 - raised as soon as the client is told
            response, failure = refuse(500, "a bug of trio_kv: its log has more"), error
        if response.status == 401:
            reason = "no token, or a wrong one"
            self._trace.emit(ClientRefused(client=client, address="control door", reason=reason))
        await self._send_last(stream, encode_response(response, is_head=request.method == b"HEAD"))
        if failure is not None:
            raise failure

    def _is_token(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._token.encode()) or self._opens(token)

    async def _serve_websocket(self, stream: trio.abc.Stream, head: bytes, deadline_s: float) -> None:
        async with trio.open_nursery() as nursery:
            with trio.fail_at(deadline_s):
                request = await trio_websocket.wrap_server_stream(
                    nursery,
                    ReplayStream(head, stream),
                    message_queue_size=MESSAGES_MAX,
                    max_message_size=self._config.message_bytes_max,
                )
                websocket = await request.accept()
            connection = ControlConnection(
                websocket,
                nursery,
                self._token,
                self._cluster,
                self._config,
                self._trace,
                self._feed,
                self._store,
            )
            await connection.serve(deadline_s)
            nursery.cancel_scope.cancel()

    async def _send_last(self, stream: trio.abc.Stream, data: bytes) -> None:
        """Send what is the last of a connection, and let it arrive.

        What the client still sends is taken: bytes that nobody has read would make the system cut the connection off,
        and what is on its way to the client would be lost.
        """
        with trio.fail_after(self._config.send_timeout_s):
            await stream.send_all(data)
        with trio.move_on_after(LINGER_S):
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
            else:
                await stream.aclose()
                return
            while await stream.receive_some(RECEIVE_BYTES):
                pass

    async def _read_head(self, stream: trio.abc.Stream) -> _Head | Response | WrongDoor | None:
        """Return a request, what is said to one who sent none, or None if the client left."""
        if self._connection_count > self._config.connections_max:
            return refuse(503, f"{self._config.connections_max} connections are open, which is the limit")
        data = b""
        while True:
            chunk = await stream.receive_some()
            if not chunk:
                return None
            data += chunk
            if data.lstrip()[:1] == b"{":
                return WrongDoor()
            # Only a head that has its end is parsed, so a head in many small pieces costs no more than one.
            head = data[: self._config.head_bytes_max]
            if b"\n\r\n" in head or b"\n\n" in head:
                request = parse_head(data)
                if request is not None:
                    return request if isinstance(request, Response) else _Head(data, request)
            elif len(data) > len(head):
                return refuse(431, f"the head of a request has at most {len(head)} bytes")

    def _judge(self, request: h11.Request) -> Response | None:
        """Return what is said to who may not ask, or not so."""
        refusal = check_head(request, is_secure=self._credentials is not None)
        if refusal is None and is_for_websocket(request):
            refusal = check_upgrade(request)
        return refusal


def _show(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _answer_plain(first: bytes) -> bytes:
    """Return what is said to who speaks no TLS: in HTTP, unless it begins like a client of the store."""
    if first.startswith(b"{"):
        return WRONG_DOOR
    return encode_response(refuse(400, "this port speaks TLS: https and wss"))


def _fits(path: Path, content: ControlFile) -> bool:
    """Write the token file; return whether there was room for it."""
    try:
        write_control_file(path, content)
    except OSError as error:
        if error.errno not in FULL:
            raise
        return False
    return True


@contextlib.contextmanager
def _elsewhere(port: int, content: ControlFile) -> Iterator[None]:
    """Keep the token file in the user's run-time directory, most often another file system, if that can be."""
    try:
        path = control_path(None, port)
        write_control_file(path, content)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        remove_control_file(path, content)
