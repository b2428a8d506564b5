"""The synchronous client and the way to the control door, against fake servers."""

import contextlib
import fcntl
import json
import math
import os
import resource
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, RejectConnection, Request, TextMessage

import trio_kv
from trio_kv.client import control
from trio_kv.client.client import Client
from trio_kv.client.connection import LineConnection
from trio_kv.client.control import Door, NoDoorError
from trio_kv.client.errors import (
    ERROR_CLASSES,
    NotConnectedError,
    OutcomeUnknownError,
    RefusedError,
    StoreError,
)
from trio_kv.wire import operations

PAGE = (
    b'{"items": [{"key":"a","revision":7},{"key":"b","value":{"b":1},"revision":8}],'
    b' "more": true, "revision": 9, "status": "ok"}\n'
)
TXN = (
    b'{"succeeded": true, "results": [{"key": "a", "value": null, "status": "error"},'
    b' {"key": "n", "value": 1, "status": "ok"}], "revision": 8, "status": "ok"}\n'
)
COUNT = b'{"count": 3, "revision": 9, "status": "ok"}\n'
SCAN = {"prefix": "", "limit": 1000, "reverse": False, "values": True, "count": False}
OK = b'{"key": "k", "value": 1, "status": "ok"}\n'
CLOSE = b'{"close": "ok"}\n'

Script = Callable[[socket.socket], None]


class FakeServer:
    """Accepts one connection after the other and lets each be handled by the next script."""

    def __init__(self, *scripts: Script) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, args=(scripts,), daemon=True)
        self._thread.start()

    def _serve(self, scripts: tuple[Script, ...]) -> None:
        for script in scripts:
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(10)
                script(connection)
        self._listener.close()

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeServer]]:
    servers: list[FakeServer] = []

    def start(*scripts: Script) -> FakeServer:
        servers.append(FakeServer(*scripts))
        return servers[-1]

    yield start
    for server in servers:
        server.join()


def read_line(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as file:
        return file.readline()


def answer(*replies: bytes, requests: list[bytes] | None = None) -> Script:
    """Read one line for each reply, answer it, close."""

    def script(connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            for reply in replies:
                line = file.readline()
                if requests is not None:
                    requests.append(line)
                connection.sendall(reply)

    return script


def say(text: bytes) -> Script:
    """Say something without having read anything, close."""
    return lambda connection: connection.sendall(text)


def hang_up_after_request(connection: socket.socket) -> None:
    read_line(connection)


def test_each_method_asks_in_the_words_of_the_protocol(serve: Callable[..., FakeServer]) -> None:
    """Requests carry exactly what was asked for: conditions, time-out and meta only where they are given."""
    requests: list[bytes] = []
    server = serve(answer(*[OK] * 9, PAGE, PAGE, COUNT, TXN, *[OK] * 4, requests=requests))
    with Client(port=server.port, timeout_s=7) as client:
        client.get("k")
        client.get("k", is_stale=True, meta=True)
        client.set("k", {"a": [1]})
        client.set("k", msgspec.Raw(b"1.10"), if_revision=0)
        client.delete("k", if_revision=9)
        client.cas("k", 2)
        client.cas("k", 2, expected=None)
        client.incr("k")
        client.incr("k", -7)
        assert client.scan("a/", after="a/b", limit=2, is_reversed=True, has_values=False).is_more
        assert [item.data for item in client.scan(is_stale=True).items] == [None, {"b": 1}]
        assert client.count("a/") == 3
        done = client.txn(
            [{"op": "get", "key": "a"}, {"key": "b", "value": {"c": [1]}}],
            conditions=[{"key": "a", "equals": None}],
            otherwise=[{"op": "incr", "key": "n"}],
        )
        assert (done.has_succeeded, [each.data for each in done.results], done.revision) == (
            True,
            [None, 1],
            8,
        )
        with pytest.raises(ValueError, match='is a "cas"; in a txn there may be get, set'):
            client.txn([{"op": "cas", "key": "a", "value": 1}])
        client.set("k", 1, ttl_s=60)
        client.cas("k", 2, expected=1, ttl_s=0.1)
        client.incr("k", ttl_s=1.5)
        client.status()
    assert [json.loads(line) for line in requests] == [
        {"key": "k", "timeout": 7},
        {"key": "k", "timeout": 7, "consistency": "stale", "meta": True},
        {"key": "k", "timeout": 7, "value": {"a": [1]}},
        {"key": "k", "timeout": 7, "value": 1.1, "if_revision": 0},
        {"op": "delete", "key": "k", "timeout": 7, "if_revision": 9},
        {"op": "cas", "key": "k", "timeout": 7, "value": 2},
        {"op": "cas", "key": "k", "timeout": 7, "value": 2, "expected": None},
        {"op": "incr", "key": "k", "timeout": 7, "by": 1},
        {"op": "incr", "key": "k", "timeout": 7, "by": -7},
        {
            "op": "scan",
            "prefix": "a/",
            "after": "a/b",
            "timeout": 7,
            "limit": 2,
            "reverse": True,
            "values": False,
            "count": False,
        },
        {"op": "scan", "timeout": 7, "consistency": "stale", **SCAN},
        {"op": "scan", "timeout": 7, **SCAN, "prefix": "a/", "count": True},
        {
            "op": "txn",
            "if": [{"key": "a", "equals": None}],
            "then": [{"op": "get", "key": "a"}, {"op": "set", "key": "b", "value": {"c": [1]}}],
            "else": [{"op": "incr", "key": "n"}],
            "timeout": 7,
        },
        {"key": "k", "timeout": 7, "value": 1, "ttl": 60},
        {"op": "cas", "key": "k", "timeout": 7, "value": 2, "expected": 1, "ttl": 0.1},
        {"op": "incr", "key": "k", "timeout": 7, "by": 1, "ttl": 1.5},
        {"op": "status"},
    ]
    assert b"1.10" in requests[3]


@pytest.mark.parametrize(
    ("ttl_s", "error"),
    [
        ("60", TypeError),
        (True, TypeError),
        (0, ValueError),
        (0.09, ValueError),
        (31_536_001, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
    ],
)
def test_a_time_to_live_that_is_none_is_refused(ttl_s: Any, error: type[Exception]) -> None:
    """The call says what would be right, and nothing is sent."""
    with Client(port=1) as client, pytest.raises(error, match="ttl_s"):
        client.set("k", 1, ttl_s=ttl_s)


def test_a_reply_tells_how_long_a_key_lives(serve: Callable[..., FakeServer]) -> None:
    """With `meta`, of a key that ends."""
    line = b'{"key": "k", "value": 1, "status": "ok", "revision": 7, "node": 1, "term": 2, "ttl": 59.5}\n'
    server = serve(answer(line, OK))
    with Client(port=server.port) as client:
        assert client.get("k", meta=True).ttl == 59.5
        assert client.get("k", meta=True).ttl is None


def test_a_reply_says_what_was_found(serve: Callable[..., FakeServer]) -> None:
    """A value keeps its text, and a missing key is no exception but a code of its own."""
    server = serve(
        answer(
            b'{"key": "k", "value": 1.10, "status": "ok", "revision": 7, "node": 1, "term": 2}\n',
            b'{"key": "k", "value": null, "status": "error"}\n',
        )
    )
    with Client(port=server.port) as client:
        first, second = client.get("k"), client.get("k")
    assert (first.code, first.value, first.revision, first.data) == ("ok", msgspec.Raw(b"1.10"), 7, 1.1)
    assert (second.code, second.data) == ("missing", None)


CALLS: list[Callable[[Client], object]] = [
    lambda client: client.get("k"),
    lambda client: client.set("k", 1),
    lambda client: client.delete("k"),
    lambda client: client.cas("k", 1),
    lambda client: client.status(),
]


@pytest.mark.parametrize("code", sorted(ERROR_CLASSES))
def test_each_error_code_is_raised_as_a_class_of_its_own(serve: Callable[..., FakeServer], code: str) -> None:
    """What was not done can't be overlooked; the error carries what the store said, and its family what is known."""
    reply = {"key": "k", "value": 3, "status": "error", "error": code, "message": "so it is"}
    line = json.dumps(reply).encode() + b"\n"
    server = serve(answer(*[line] * (len(CALLS) + 1)))
    with Client(port=server.port) as client:
        for call in CALLS:
            with pytest.raises(StoreError, match=f"{code}: so it is") as caught:
                call(client)
            assert type(caught.value) is ERROR_CLASSES[code]
            assert caught.value.reply is not None
            assert caught.value.reply.data == 3
        assert (
            client.ask(operations.Request(operations.Get("k"))).code == code
        )  # who wants to look at each answer can
    is_unknown = code in ("timeout", "session_expired")
    assert issubclass(ERROR_CLASSES[code], OutcomeUnknownError if is_unknown else RefusedError)


def test_a_code_that_only_a_newer_server_knows(serve: Callable[..., FakeServer]) -> None:
    """Whether a write took effect is not known then; a read had no effect in any case."""
    server = serve(answer(*[b'{"key":"k","value":null,"status":"error","error":"new"}\n'] * 2))
    with Client(port=server.port) as client:
        with pytest.raises(OutcomeUnknownError, match="new"):
            client.set("k", 1)
        with pytest.raises(RefusedError, match="new"):
            client.get("k")


def test_the_package_offers_the_client_and_its_errors() -> None:
    """What a user needs is imported from `trio_kv` itself, and to import that alone imports no more."""
    assert trio_kv.Client is Client
    for name in trio_kv.__all__:
        assert getattr(trio_kv, name) is not None
        assert name in dir(trio_kv)
    assert {each.__name__ for each in ERROR_CLASSES.values()} <= {*trio_kv.__all__}
    with pytest.raises(AttributeError, match="no attribute 'Clinet'"):
        _ = trio_kv.Clinet
    code = "import sys, trio_kv; sys.exit(any(name.startswith('trio_kv.') or name == 'trio' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("timeout_s", [0, -1, 60.1, math.inf, -math.inf, math.nan])
def test_a_time_out_that_can_not_be_is_refused_at_once(timeout_s: float) -> None:
    """Zero would mean "do not wait", infinity is no number of seconds to a socket, and the server takes 60."""
    with pytest.raises(ValueError, match="more than 0 and at most 60"):
        Client(timeout_s=timeout_s)


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_a_port_that_can_not_be_is_refused_at_once(port: int) -> None:
    """The number is named."""
    with pytest.raises(ValueError, match=f"port is {port}"):
        Client(port=port)


def test_a_key_or_a_revision_of_another_type_is_not_made_to_fit() -> None:
    """A revision of 0.9 is not 0, which would mean that the key must not exist."""
    client = Client(port=1)
    with pytest.raises(TypeError, match="a key is a str, not bytes"):
        client.get(b"k")  # type: ignore[call-overload]
    for revision in (0.9, True, "7"):
        with pytest.raises(TypeError, match="a revision is an int"):
            client.set("k", 1, if_revision=revision)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a revision is an int"):
            client.delete("k", if_revision=revision)  # type: ignore[arg-type]


# --- whose reply it is ---------------------------------------------------------------------------------------


def echo(connection: socket.socket) -> None:
    """Answer each read with its own key as the value, until the client goes, however it does."""
    with contextlib.suppress(ConnectionResetError), connection.makefile("rb") as file:
        for line in file:
            key = json.loads(line)["key"]
            connection.sendall(json.dumps({"key": key, "value": key, "status": "ok"}).encode() + b"\n")


def test_an_interrupted_call_leaves_its_reply_to_nobody(
    serve: Callable[..., FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, or any other exception, while a call waits: the next call gets a reply of its own."""
    receive = LineConnection.receive_line
    interruptions: list[type[BaseException]] = [KeyboardInterrupt, SystemExit, MemoryError, RuntimeError]

    def receive_line(self: LineConnection, *, timeout_s: float) -> bytes:
        self._socket.recv(1, socket.MSG_PEEK)  # the reply is there
        if interruptions:
            raise interruptions.pop(0)
        return receive(self, timeout_s=timeout_s)

    server = serve(*[echo] * (len(interruptions) + 1))
    monkeypatch.setattr(LineConnection, "receive_line", receive_line)
    with Client(port=server.port) as client:
        for number, interruption in enumerate(interruptions.copy()):
            with pytest.raises(interruption):
                client.get(f"a{number}")
            assert not client.is_connected
        assert client.get("b").data == "b"


FORK = """
import os, sys
from trio_kv import Client

with Client(port=int(sys.argv[1])) as client:
    assert client.get("before").data == "before"
    kept = client._connection
    child = os.fork()
    name = "child" if child == 0 else "parent"
    for number in range(20):
        assert client.get(f"{name}{number}").data == f"{name}{number}"
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


class EchoHandler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        echo(self.request)


def test_a_forked_process_opens_a_connection_of_its_own() -> None:
    """Neither process gets what the other asked for, and each ends its own connection alone."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), EchoHandler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        command = [sys.executable, "-c", FORK, str(server.server_address[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        server.shutdown()
        thread.join(10)
    assert done.returncode == 0, done.stderr


def test_threads_wait_for_one_another(serve: Callable[..., FakeServer]) -> None:
    """Eight threads use one client: each gets what it asked for, over one connection."""
    server = serve(echo)
    wrong: list[object] = []

    def use(name: str) -> None:
        for number in range(50):
            found = client.get(f"{name}{number}").data
            if found != f"{name}{number}":
                wrong.append(found)

    with Client(port=server.port) as client:
        threads = [threading.Thread(target=use, args=(name,)) for name in "abcdefgh"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert wrong == []


def test_a_client_is_not_used_inside_its_own_call(serve: Callable[..., FakeServer]) -> None:
    """A signal handler that asks in the middle of a call hears so, and the call itself goes on."""
    heard: list[str] = []

    def answer_late(connection: socket.socket) -> None:
        line = read_line(connection)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert asked.wait(10)
        connection.sendall(OK)
        assert line

    def ask(_number: int, _frame: object) -> None:
        with pytest.raises(RuntimeError) as caught:
            client.get("inner")
        heard.append(str(caught.value))
        asked.set()

    asked = threading.Event()
    server = serve(answer_late)
    before = signal.signal(signal.SIGUSR1, ask)
    try:
        with Client(port=server.port) as client:
            assert client.get("k").data == 1
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == ["a client can't be used inside a call of its own, as from a signal handler"]


def test_a_write_without_an_answer_is_unknown_and_never_repeated(serve: Callable[..., FakeServer]) -> None:
    """When the connection ends between a write and its reply, the caller is told, and nothing is resent."""
    server = serve(hang_up_after_request)
    with Client(port=server.port) as client, pytest.raises(OutcomeUnknownError, match="may or may not"):
        client.set("k", 1)


def test_a_garbled_reply_to_a_write_is_unknown_too(serve: Callable[..., FakeServer]) -> None:
    """What does not speak the protocol can't tell whether the write took effect."""
    server = serve(answer(b"HTTP/1.1 400 Bad Request\n"))
    with Client(port=server.port) as client, pytest.raises(OutcomeUnknownError):
        client.delete("k")


def test_a_read_without_an_answer_is_asked_again(serve: Callable[..., FakeServer]) -> None:
    """Reads have no effect, so a lost connection costs them nothing but a new one."""
    words: list[str] = []
    server = serve(hang_up_after_request, answer(OK))
    with Client(port=server.port, on_reconnected=words.append) as client:
        assert client.get("k").code == "ok"
    assert words == [f"connected to 127.0.0.1:{server.port} again"]


def test_a_read_gives_up_after_a_few_connections(serve: Callable[..., FakeServer]) -> None:
    """A server that drops every connection is reported, not asked for ever."""
    server = serve(*[hang_up_after_request] * 3)
    with Client(port=server.port) as client, pytest.raises(NotConnectedError, match="server closed"):
        client.get("k")


def test_a_close_line_in_place_of_a_reply_means_the_write_was_not_taken(
    serve: Callable[..., FakeServer],
) -> None:
    """The server closes for idleness as a write arrives: it was not read, so it is safe to send again."""
    requests: list[bytes] = []
    server = serve(answer(CLOSE), answer(OK, requests=requests))
    with Client(port=server.port) as client:
        assert client.set("k", 1).code == "ok"
    assert len(requests) == 1


def test_an_idle_connection_that_was_closed_is_replaced_before_a_write(
    serve: Callable[..., FakeServer],
) -> None:
    """A write is not sent into a connection that the server has already closed."""

    def answer_then_close(connection: socket.socket) -> None:
        answer(OK)(connection)
        connection.sendall(CLOSE)

    server = serve(answer_then_close, answer(OK))
    with Client(port=server.port) as client:
        assert client.set("k", 1).code == "ok"
        connection = client._connection
        assert connection is not None
        # Wait for the close line itself, which travels on its own time.
        connection._socket.settimeout(10)
        connection._received += connection._socket.recv(100)
        assert client.set("k", 2).code == "ok"


@pytest.fixture
def high_descriptors(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Let connections have descriptors from this number on, as in a program with many files open."""
    lowest = 1100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = lowest + 100
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"no process may have {wanted} descriptors here")
    connect = socket.create_connection

    def connect_high(address: tuple[str, int], timeout_s: float) -> socket.socket:
        with connect(address, timeout_s) as low:
            return socket.socket(fileno=fcntl.fcntl(low.fileno(), fcntl.F_DUPFD_CLOEXEC, lowest))

    monkeypatch.setattr(socket, "create_connection", connect_high)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield lowest
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_connection_may_have_any_descriptor(
    serve: Callable[..., FakeServer], high_descriptors: int
) -> None:
    """`select` takes descriptors below 1024 only; a program with more files open uses the client all the same."""
    server = serve(answer(OK, OK))
    with Client(port=server.port) as client:
        assert client.get("k").code == "ok"
        connection = client._connection
        assert connection is not None
        assert connection._socket.fileno() >= high_descriptors
        assert client.set("k", 1).code == "ok"
        assert client._connection is connection


def test_a_server_that_never_answers_costs_a_read_its_time_out_and_a_write_its_outcome(
    serve: Callable[..., FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting is bounded; a silent server is unreachable to a read, and leaves a write unknown."""
    monkeypatch.setattr("trio_kv.client.asker.REPLY_GRACE_S", 0.0)

    def wait_for_end(connection: socket.socket) -> None:
        while connection.recv(100):
            pass

    server = serve(wait_for_end, wait_for_end)
    with Client(port=server.port, timeout_s=0.05) as client:
        with pytest.raises(NotConnectedError, match="does not answer"):
            client.get("k")
        with pytest.raises(OutcomeUnknownError, match="no answer in time"):
            client.set("k", 1)


def test_another_server_is_asked_when_one_is_gone_or_can_not_serve(serve: Callable[..., FakeServer]) -> None:
    """In turn, and what the client did is told."""
    unavailable = b'{"key":"k","value":null,"status":"error","error":"unavailable","message":"..."}\n'
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody: int = listener.getsockname()[1]
    first, second = serve(answer(*[unavailable] * 3)), serve(answer(OK, OK))
    fallbacks = [("127.0.0.1", first.port), ("127.0.0.1", second.port)]
    with Client(port=nobody, fallbacks=fallbacks) as client:
        for _ in range(3):
            assert client.ask(operations.Request(operations.Get("k"))).code == "unavailable"
        assert client.get("k").code == client.get("k").code == "ok"
        done = client.statistics()
    assert (done.address, done.connections, done.requests, done.replies) == (
        f"127.0.0.1:{second.port}",
        2,
        5,
        5,
    )


def test_nobody_there_is_told_with_the_address() -> None:
    """A refused connection is definite: nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Client(port=port) as client, pytest.raises(NotConnectedError, match=f"127.0.0.1:{port}.*refused"):
        client.set("k", 1)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"key":"k","value":1}', OutcomeUnknownError),
        (b'{"op":"cas","key":"k","value":1}', OutcomeUnknownError),
        (b'{"op":"txn","then":[]}', OutcomeUnknownError),
        (b'{"key":"k"}', NotConnectedError),
        (b'{"op":"status"}', NotConnectedError),
    ],
)
def test_a_raw_line_is_a_write_unless_it_is_known_to_be_none(
    serve: Callable[..., FakeServer], line: bytes, error: type[Exception]
) -> None:
    """Also lines that only a newer server understands are never sent twice."""
    attempts = 1 if error is OutcomeUnknownError else 3
    server = serve(*[hang_up_after_request] * attempts)
    with Client(port=server.port) as client, pytest.raises(error):
        client.send_line(line)


@pytest.mark.parametrize("line", [b"", b"  ", b'{"key":"a"}\n{"key":"b"}'])
def test_a_raw_request_is_one_line(line: bytes) -> None:
    """Blank lines have no reply and two lines have two, so both would leave the client out of step."""
    with pytest.raises(ValueError, match="one line"):
        Client().send_line(line)


# --- the control door ---------------------------------------------------------------------------------------


def write_door(path: Path, port: int, pid: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"address": f"127.0.0.1:{port}", "token": "secret", "pid": pid or os.getpid()}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def run_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


def test_the_door_is_found_by_data_directory_or_by_port(tmp_path: Path, run_time: Path) -> None:
    """A server with a directory leaves its door there, one without in the user's run-time directory."""
    write_door(control.data_door_path(tmp_path), 4000)
    write_door(control.ephemeral_door_path(5000), 5000)
    assert control.find_door(tmp_path, None).endpoint() == ("127.0.0.1", 4000)
    assert control.find_door(tmp_path, 4000).endpoint() == ("127.0.0.1", 4000)
    assert control.find_door(tmp_path, 5000).endpoint() == ("127.0.0.1", 5000)
    assert control.find_door(tmp_path / "other", 5000).token == "secret"
    assert run_time in control.ephemeral_door_path(5000).parents


def test_a_door_that_is_not_there_is_explained(tmp_path: Path, run_time: Path) -> None:
    """No file, a file of another kind and a server that is gone are told apart."""
    with pytest.raises(NoDoorError, match="does a server run"):
        control.find_door(tmp_path, None)
    path = write_door(control.data_door_path(tmp_path), 4000)
    with pytest.raises(NoDoorError, match="tells of port 4711"):
        control.find_door(tmp_path, 4711)
    path.write_text("{}")
    with pytest.raises(NoDoorError, match="not a door file"):
        control.find_door(tmp_path, None)
    write_door(path, 4000, pid=2**30)  # above any system's highest pid
    with pytest.raises(NoDoorError, match="is gone"):
        control.find_door(tmp_path, None)


def test_a_door_does_not_show_its_token() -> None:
    """The token appears in no message, log or traceback that shows a door."""
    assert "secret" not in repr(Door("127.0.0.1:1", "secret", 1))


def websocket_door(received: list[object], *replies: object) -> Script:
    """Accept a WebSocket, take two messages, send the replies."""

    def script(connection: socket.socket) -> None:
        websocket = WSConnection(ConnectionType.SERVER)
        count = 0
        while data := connection.recv(4096):
            websocket.receive_data(data)
            for event in websocket.events():
                match event:
                    case Request():
                        received.append(event.target)
                        connection.sendall(websocket.send(AcceptConnection()))
                    case TextMessage():
                        received.append(json.loads(event.data))
                        count += 1
                        if count == 2:
                            for reply in replies:
                                text = json.dumps(reply)
                                connection.sendall(websocket.send(TextMessage(data=text)))
                    case CloseConnection():
                        return
                    case _:
                        raise AssertionError(event)

    return script


def test_a_command_goes_in_behind_the_token_and_its_own_reply_comes_out(
    serve: Callable[..., FakeServer],
) -> None:
    """The token is the first message; events and replies to others are passed over."""
    received: list[object] = []
    reply = {"id": 1, "status": "ok", "node": 2}
    server = serve(websocket_door(received, {"status": "ok"}, {"event": "x"}, {"id": 9}, reply))
    door = Door(f"127.0.0.1:{server.port}", "secret", os.getpid())
    assert control.command(door, "crash", {"node": 2}, timeout_s=10) == reply
    assert received == ["/ws", {"auth": "secret"}, {"id": 1, "command": "crash", "node": 2}]


def test_a_command_may_wait_for_ever_and_not_for_no_time(serve: Callable[..., FakeServer]) -> None:
    """Infinity is a time-out as people mean it; what is no time is refused."""
    reply = {"id": 1, "status": "ok"}
    server = serve(websocket_door([], reply))
    door = Door(f"127.0.0.1:{server.port}", "secret", os.getpid())
    assert control.command(door, "heal", {}, timeout_s=math.inf) == reply
    for timeout_s in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="more than 0"):
            control.command(door, "heal", {}, timeout_s=timeout_s)


def test_a_door_that_does_not_let_us_in_is_explained(serve: Callable[..., FakeServer]) -> None:
    """A wrong token, a refused upgrade, another kind of server and a closed port are told apart."""

    def refuse(connection: socket.socket) -> None:
        websocket = WSConnection(ConnectionType.SERVER)
        websocket.receive_data(connection.recv(4096))
        connection.sendall(websocket.send(RejectConnection(status_code=403)))

    server = serve(
        websocket_door([], {"status": "error", "error": "unauthorized"}), refuse, say(b"220 mail\r\n")
    )
    door = Door(f"127.0.0.1:{server.port}", "secret", os.getpid())
    for complaint in ("refuses the token", "HTTP status 403", "no control door|closed without|reset by peer"):
        with pytest.raises(NoDoorError, match=complaint):
            control.command(door, "heal", {}, timeout_s=10)
    server.join()
    with pytest.raises(NoDoorError, match="no door at"):
        control.command(door, "heal", {}, timeout_s=10)
