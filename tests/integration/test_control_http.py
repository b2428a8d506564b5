"""Plain HTTP at the control door, over real sockets: what is served, to whom, and how a connection ends."""

import contextlib
import http.client
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio
import trustme

from tests.doubles import MemorySink
from trio_kv.control import http as http_module
from trio_kv.control import server
from trio_kv.control.config import ControlConfig
from trio_kv.control.http import Request, Route
from trio_kv.control.response import Response
from trio_kv.control.server import ControlDoor
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import ClientFailed, ClientRefused
from trio_kv.transport.tls import Credentials, Files, load

TOKEN = "a token of the token file"
BODY = b"x" * 100_000


async def show(request: Request) -> Response:
    await trio.lowlevel.checkpoint()
    text = ";".join(f"{name}={','.join(values)}" for name, values in request.query.items())
    return Response(200, f"{text} {request.header('accept')}".encode(), headers={"X-Own": "yes"})


async def large(_: Request) -> Response:
    await trio.lowlevel.checkpoint()
    return Response(200, BODY, "application/octet-stream", {"Cache-Control": "max-age=60"})


async def fail(_: Request) -> Response:
    await trio.lowlevel.checkpoint()
    raise LookupError("a bug of ours")


async def hang(_: Request) -> Response:
    await trio.sleep_forever()
    raise AssertionError


ROUTES = {
    "/show": Route(show),
    "/large": Route(large),
    "/fail": Route(fail),
    "/hang": Route(hang),
    "/free": Route(show, needs_token=False),
}


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
async def port(nursery: trio.Nursery, sink: MemorySink) -> AsyncGenerator[int]:
    """Return the port of an open door; after the test it still answers."""
    door = ControlDoor(
        None,  # type: ignore[arg-type]
        ControlConfig(port=0, command_timeout_s=0.2),
        Trace([sink]),
        routes=ROUTES,
        opens=lambda token: token == TOKEN,
    )
    port: int = await nursery.start(door.serve)
    yield port
    assert (await ask(port, "/show?a=1"))[0] == 200


async def raw(port: int, data: bytes) -> bytes:
    """Send bytes; return all that comes back until the door closes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        received = b""
        # What is cut off is shown as far as it came.
        with trio.fail_after(30), contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(data)
            while chunk := await stream.receive_some(65536):
                received += chunk
        return received


async def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Ask by the standard library's client; return status, headers with names in small letters, and body."""

    def run() -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        body = response.read()
        connection.close()
        return response.status, named, body

    return await trio.to_thread.run_sync(run)


async def test_a_path_is_served(port: int) -> None:
    """A handler knows the query and the headers, its response is whole, and the connection ends with it."""
    status, headers, body = await ask(port, "/show?verbose&a=1&a=2&b=%20", Accept="text/plain")
    assert (status, body) == (200, b"verbose=;a=1,2;b=  text/plain")
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["content-length"] == str(len(body))
    assert headers["connection"] == "close"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["date"].endswith("GMT")
    assert headers["x-own"] == "yes"


async def test_a_large_body_is_whole(port: int) -> None:
    """What does not fit into a socket's buffer comes all the same, with the handler's own headers."""
    status, headers, body = await ask(port, "/large")
    assert (status, body) == (200, BODY)
    assert headers["cache-control"] == "max-age=60"


async def test_head_is_get_without_the_body(port: int) -> None:
    """HEAD gets the very headers of GET, and not a byte more; also where there is nothing, or nothing for them."""
    for path, host in (("/large", "localhost"), ("/nothing", "localhost"), ("/show", "example.org")):
        reply = await raw(port, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        head = await raw(port, f"HEAD {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert reply.startswith(head[: head.index(b"\r\nDate")])
        assert head.endswith(b"\r\n\r\n")
        assert head.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize(
    ("request_line", "status", "has"),
    [
        ("GET /nothing HTTP/1.1", 404, b"there are /fail, /free, /hang, /large, /show, /ws"),
        ("POST /show HTTP/1.1", 405, b"\r\nAllow: GET, HEAD\r\n"),
        ("OPTIONS /show HTTP/1.1", 405, b"\r\nAllow: GET, HEAD\r\n"),
        ("OPTIONS * HTTP/1.1", 400, b"names a path"),
        ("GET http://127.0.0.1/show HTTP/1.1", 200, b"X-Own: yes"),
        ("GET http://example.org/show HTTP/1.1", 400, b"no proxy"),
        ("CONNECT 127.0.0.1:80 HTTP/1.1", 400, b"no proxy"),
        ("GET /show HTTP/1.0", 200, b"\r\nConnection: close\r\n"),
        ("GET /show/ HTTP/1.1", 404, b"there is no /show/ here"),
        ("GET /ws HTTP/1.1", 426, b"\r\nUpgrade: websocket\r\n"),
    ],
)
async def test_what_is_asked_for_wrongly_is_explained(
    port: int, request_line: str, status: int, has: bytes
) -> None:
    """Each mistake has the status that HTTP has for it, and a line that says what would be right."""
    reply = await raw(port, f"{request_line}\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert reply.startswith(b"HTTP/1.1 %d " % status)
    assert has in reply


@pytest.mark.parametrize("path", [*ROUTES, "/nothing"])
async def test_host_and_origin_are_looked_at_on_each_path(port: int, path: str) -> None:
    """A name that was made point here, or a page of another origin, gets nothing, whatever it asks for."""
    foreign = await raw(port, f"GET {path} HTTP/1.1\r\nHost: example.org\r\n\r\n".encode())
    assert foreign.startswith(b"HTTP/1.1 403 ")
    page = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://example.org\r\n\r\n"
    assert (await raw(port, page.encode())).startswith(b"HTTP/1.1 403 ")


async def test_a_body_that_nobody_wants_harms_no_response(port: int) -> None:
    """What comes behind the head is taken, so that the system does not cut the response off with it."""
    head = b"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 300000\r\n\r\n"
    assert (await raw(port, head + b"y" * 300_000)).endswith(BODY)


async def test_a_handler_that_fails_or_hangs(port: int, sink: MemorySink) -> None:
    """A bug is told to the client in no detail and to the log in all; a handler that hangs is given up."""
    status, _, body = await ask(port, "/fail")
    assert status == 500
    assert b"a bug of ours" not in body
    # The client is told first.
    with trio.fail_after(30):
        while not sink.events(ClientFailed):  # noqa: ASYNC110
            await trio.sleep(0.01)
    (failed,) = sink.events(ClientFailed)
    assert "a bug of ours" in failed.traceback
    status, headers, _ = await ask(port, "/hang")
    assert (status, headers["retry-after"]) == (503, "5")


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
        ("Bearer guess", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer", 401),
        ("", 401),
    ],
)
async def test_elsewhere_it_takes_a_token(
    port: int, sink: MemorySink, monkeypatch: pytest.MonkeyPatch, authorization: str, status: int
) -> None:
    """From another machine what tells of the store takes a token of the token file, and the rest does not."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(server, "is_local", lambda _: False)
        elsewhere.setattr(http_module, "WRONG_TOKEN_S", 0.05)
        got, headers, _ = await ask(port, "/show", Authorization=authorization)
        free, _, _ = await ask(port, "/free")
    assert (got, free) == (status, 200)
    if status == 401:
        assert headers["www-authenticate"] == 'Bearer realm="trio_kv"'
        assert len(sink.events(ClientRefused)) == 1


async def test_the_doors_own_token_will_do(monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery) -> None:
    """Who may command may also read."""
    monkeypatch.setattr(server, "is_local", lambda _: False)
    door = ControlDoor(None, ControlConfig(port=0), Trace(), routes=ROUTES)  # type: ignore[arg-type]
    port: int = await nursery.start(door.serve)
    assert (await ask(port, "/show", Authorization=f"Bearer {door._token}"))[0] == 200


@pytest.mark.parametrize("has_client_ca", [False, True])
async def test_over_tls_a_client_certificate_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, has_client_ca: bool
) -> None:
    """Elsewhere, over TLS: who had to show a certificate needs no token any more, and everybody else does."""
    monkeypatch.setattr(server, "is_local", lambda _: False)
    ca = trustme.CA()
    issued = ca.issue_cert("localhost")
    certificate, key, ca_file = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    ca.cert_pem.write_to_path(ca_file)
    credentials = Credentials(load(Files(certificate, key, ca_file if has_client_ca else None)))
    door = ControlDoor(None, ControlConfig(port=0), Trace(), credentials, routes=ROUTES)  # type: ignore[arg-type]
    port: int = await nursery.start(door.serve)
    context = ssl.create_default_context(cafile=str(ca_file))
    if has_client_ca:
        ca.issue_cert("prometheus").configure_cert(context)

    def run() -> int:
        connection = http.client.HTTPSConnection("localhost", port, timeout=30, context=context)
        connection.request("GET", "/show")
        response = connection.getresponse()
        response.read()
        connection.close()
        return response.status

    assert await trio.to_thread.run_sync(run) == (200 if has_client_ca else 401)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("address", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("0.0.0.0", False),
    ],
)
def test_what_is_local(address: str, is_local: bool) -> None:
    """Loopback is local, in each way to write it."""
    assert http_module.is_local(address) == is_local
