"""TLS and tokens over real sockets: both doors, their clients, certificates that change, and bad clients."""

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
import trustme

from tests.doubles import MemorySink, MemoryStore
from trio_kv import open_client
from trio_kv.client.client import Client
from trio_kv.client.errors import NotConnectedError, UnauthorizedError
from trio_kv.client.tls import Tls
from trio_kv.proxy.access import parse_tokens
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.server import Proxy
from trio_kv.proxy.sockets import bind_host
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import ClientNotAuthenticated, ClientRefused
from trio_kv.transport.tls import CertificateError, Credentials, Files, load

ALICE, ROB = "alice-token-0123456789", "rob-token-0123456789"
TOKENS = f"alice {ALICE}\nrob {ROB} read\n"


@attrs.frozen
class Papers:
    """Certificates in files."""

    directory: Path
    ca: trustme.CA = attrs.field(factory=trustme.CA)

    @property
    def ca_file(self) -> Path:
        path = self.directory / "ca.pem"
        self.ca.cert_pem.write_to_path(path)
        return path

    def issue(self, name: str, *identities: str) -> tuple[Path, Path]:
        """Return files with a certificate and its key."""
        issued = self.ca.issue_cert(*(identities or ("127.0.0.1", "localhost")))
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return certificate, key


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


@attrs.frozen
class Door:
    proxy: Proxy
    sink: MemorySink
    credentials: Credentials
    clients: list[trio.SocketStream] = attrs.field(factory=list)

    async def open(self) -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.proxy.port)
        self.clients.append(stream)
        return stream

    async def connect(self, tls: Tls) -> trio.SSLStream[trio.SocketStream]:
        stream = await self.open()
        secure = trio.SSLStream(stream, tls.context, server_hostname="127.0.0.1")
        await secure.do_handshake()
        return secure

    def refusals(self) -> list[str]:
        return [each.event.reason for each in self.sink.records if isinstance(each.event, ClientRefused)]


@contextlib.asynccontextmanager
async def open_door(files: Files, tokens: str | None = None, **limits: Any) -> AsyncIterator[Door]:
    """Open a client door over TLS."""
    sink, credentials = MemorySink(), Credentials(load(files))
    config = ProxyConfig(port=0, **limits)
    proxy = Proxy(
        MemoryStore(),
        config,
        Trace([sink]),
        tokens=None if tokens is None else parse_tokens(tokens),
        credentials=credentials,
    )
    sockets = await bind_host("127.0.0.1", 0)
    for sock in sockets:
        sock.listen()
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve, sockets)
        door = Door(proxy, sink, credentials)
        try:
            yield door
        finally:
            for client in door.clients:
                client.socket.close()
        with trio.fail_after(30):
            await proxy.stop()


async def receive_line(stream: trio.abc.Stream) -> dict[str, Any]:
    received = b""
    with trio.fail_after(30):
        while not received.endswith(b"\n"):
            chunk = await stream.receive_some(65536)
            assert chunk, received
            received += chunk
    reply: dict[str, Any] = json.loads(received)
    return reply


async def ask(stream: trio.abc.Stream, line: bytes) -> dict[str, Any]:
    await stream.send_all(line + b"\n")
    return await receive_line(stream)


async def call(client: Client, key: str) -> dict[str, Any]:
    """Set a key and read it, in a thread."""

    def run() -> dict[str, Any]:
        with client:
            client.set(key, key)
            return {"key": client.get(key).data}

    return await trio.to_thread.run_sync(run)


# --- the client door ----------------------------------------------------------------------------------------


async def test_a_client_over_tls(papers: Papers) -> None:
    """The client knows the server by its CA and its name, and what it asks for is carried out."""
    async with open_door(Files(*papers.issue("server"))) as door:
        tls = Tls.of_files(papers.ca_file)
        assert await call(Client(port=door.proxy.port, tls=tls), "a") == {"key": "a"}
        stranger = Client(port=door.proxy.port, tls=Tls.of_files(Papers(papers.directory).ca_file))
        with pytest.raises(NotConnectedError, match="not what was expected"):
            await call(stranger, "a")
        named = Client(port=door.proxy.port, tls=Tls.of_files(papers.ca_file, server_name="example.org"))
        with pytest.raises(NotConnectedError, match="not what was expected"):
            await call(named, "a")


async def test_a_connection_that_is_kept_is_used_again(papers: Papers) -> None:
    """What TLS says by itself is no news of the server: one connection serves all calls."""
    async with open_door(Files(*papers.issue("server"))) as door:
        client = Client(port=door.proxy.port, tls=Tls.of_files(papers.ca_file))

        def run() -> None:
            with client:
                for number in range(20):
                    client.set("a", number)
                    assert client.get("a").data == number

        await trio.to_thread.run_sync(run)
        assert door.proxy.client_count == 1


async def test_the_client_on_trio_over_tls(papers: Papers) -> None:
    """It knows the server, shows its token and its certificate, and says what is wrong as the blocking one does."""
    files = Files(*papers.issue("server"), client_ca=papers.ca_file)
    async with open_door(files, TOKENS) as door:
        tls = Tls.of_files(papers.ca_file, *papers.issue("client"))
        open_it = partial(open_client, port=door.proxy.port, repeats_writes=False)
        async with open_it(tls=tls, token=ALICE) as kv, trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(kv.set, f"a{number}", number)
        with pytest.raises(UnauthorizedError):
            await open_it(tls=tls, token="a-wrong-token-0123456789").__aenter__()
        stranger = Tls.of_files(Papers(papers.directory).ca_file)
        with pytest.raises(NotConnectedError, match="not what was expected"):
            await open_it(tls=stranger, token=ALICE).__aenter__()
        nobody = Tls.of_files(papers.ca_file)
        with pytest.raises(NotConnectedError, match="wants a certificate"):
            await open_it(tls=nobody, token=ALICE).__aenter__()


async def test_a_client_that_speaks_plainly_is_told_so(papers: Papers) -> None:
    """In its own protocol, and its connection ends; that is an event."""
    async with open_door(Files(*papers.issue("server"))) as door:
        stream = await door.open()
        reply = await ask(stream, b'{"key":"a"}')
        assert reply["error"] == "bad_request"
        assert "TLS" in reply["message"]
        with trio.fail_after(30):
            assert await stream.receive_some() == b""
        await trio.testing.wait_all_tasks_blocked()
        assert door.refusals() == ["the client speaks no TLS"]


async def test_mutual_tls(papers: Papers) -> None:
    """Who shows no certificate of the CA is not served, and learns why; who does is."""
    files = Files(*papers.issue("server"), client_ca=papers.ca_file)
    async with open_door(files) as door:
        for certificate, words in ((None, "wants a certificate"), ("stranger", "does not know the CA")):
            shown = () if certificate is None else Papers(papers.directory).issue(certificate)
            client = Client(port=door.proxy.port, tls=Tls.of_files(papers.ca_file, *shown))
            with pytest.raises(NotConnectedError, match=words):
                await call(client, "a")
        tls = Tls.of_files(papers.ca_file, *papers.issue("client", "alice"))
        assert await call(Client(port=door.proxy.port, tls=tls), "a") == {"key": "a"}
        await trio.testing.wait_all_tasks_blocked()
        assert len(door.refusals()) == 2
        assert "handshake failed" in door.refusals()[0]


async def test_tokens_over_tls(papers: Papers) -> None:
    """A client shows its token on each connection; one that opens nothing is its own kind of error."""
    async with open_door(Files(*papers.issue("server")), TOKENS) as door:
        tls, port = Tls.of_files(papers.ca_file), door.proxy.port
        assert await call(Client(port=port, tls=tls, token=ALICE), "a") == {"key": "a"}
        with pytest.raises(UnauthorizedError, match="rob may only read"):
            await call(Client(port=port, tls=tls, token=ROB), "a")
        with pytest.raises(UnauthorizedError, match="opens nothing"):
            await call(Client(port=port, tls=tls, token="x" * 20), "a")
        with pytest.raises(UnauthorizedError, match="show a token first"):
            await call(Client(port=port, tls=tls), "a")
        failed = [each for each in door.sink.records if isinstance(each.event, ClientNotAuthenticated)]
        assert len(failed) == 1


async def test_handshakes_that_stall_cost_nobody_else(
    papers: Papers, mock_clock: trio.testing.MockClock
) -> None:
    """Others are served meanwhile; each of them ends when its time is over, whatever it has sent by then."""
    async with open_door(Files(*papers.issue("server")), handshake_timeout_s=5.0) as door:
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        halves = []
        for size in [0, 1, 5, len(hello)] * 20:
            stream = await door.open()
            await stream.send_all(hello[:size])
            halves.append(stream)
        client = await door.connect(Tls.of_files(papers.ca_file))
        assert (await ask(client, b'{"op":"ping"}')) == {"status": "ok"}
        mock_clock.jump(4.9)
        await trio.testing.wait_all_tasks_blocked()
        assert door.refusals() == []
        mock_clock.jump(0.2)
        await trio.testing.wait_all_tasks_blocked()
        assert door.refusals() == ["no TLS handshake in time"] * len(halves)
        for stream in halves:
            assert await stream.receive_some() == b""
        assert (await ask(client, b'{"op":"ping"}')) == {"status": "ok"}


async def test_a_door_that_stops_waits_for_no_handshake(
    papers: Papers, mock_clock: trio.testing.MockClock
) -> None:
    """Who has not come in yet is not owed anything: the door stops, and no time passes."""
    async with open_door(
        Files(*papers.issue("server")), stop_grace_s=1000.0, handshake_timeout_s=1000.0
    ) as door:
        stream = await door.open()
        await stream.send_all(b"\x16")
        while not door.proxy._handshakes:
            await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(door.proxy.stop)
            await trio.testing.wait_all_tasks_blocked()
            assert not nursery.child_tasks
        assert await stream.receive_some() == b""


async def test_garbage_behind_the_first_byte(papers: Papers) -> None:
    """What only begins like TLS ends its own connection, as an event and not as a bug."""
    async with open_door(Files(*papers.issue("server"))) as door:
        stream = await door.open()
        await stream.send_all(b"\x16" + os.urandom(2000))
        with trio.fail_after(30), contextlib.suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        await trio.testing.wait_all_tasks_blocked()
        assert len(door.refusals()) == 1
        assert "handshake failed" in door.refusals()[0]


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
async def test_old_versions_are_refused(papers: Papers, version: str) -> None:
    """TLS 1.2 is the least."""
    async with open_door(Files(*papers.issue("server"))) as door:
        tls = Tls.of_files(papers.ca_file)
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            tls.context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            tls.context.maximum_version = ssl.TLSVersion[version]
        tls.context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(trio.BrokenResourceError):
            await door.connect(tls)


async def test_no_renegotiation_and_no_tickets(papers: Papers) -> None:
    """A connection is negotiated once, and there is nothing to resume."""
    loaded = load(Files(*papers.issue("server")))
    assert loaded.context.options & ssl.OP_NO_RENEGOTIATION
    assert loaded.context.num_tickets == 0
    async with open_door(Files(*papers.issue("server"))) as door:
        client = await door.connect(Tls.of_files(papers.ca_file))
        assert (await ask(client, b'{"op":"ping"}')) == {"status": "ok"}
        assert client.session is None or not client.session.has_ticket


async def test_certificates_change_beneath_open_connections(papers: Papers) -> None:
    """Who is connected stays so; who comes then is shown the new one."""
    old, other = Files(*papers.issue("server")), Papers(papers.directory)
    async with open_door(old) as door:
        client = await door.connect(Tls.of_files(papers.ca_file))
        assert (await ask(client, b'{"op":"ping"}')) == {"status": "ok"}
        door.credentials.replace(load(Files(*other.issue("new"))))
        assert (await ask(client, b'{"key":"a","value":1}'))["status"] == "ok"
        late = await door.connect(Tls.of_files(other.ca_file))
        assert (await ask(late, b'{"key":"a"}'))["value"] == 1


async def test_tokens_change_beneath_open_connections(papers: Papers) -> None:
    """Who has shown one that is there still stays; who has shown another is told so and sent away."""
    async with open_door(Files(*papers.issue("server")), TOKENS) as door:
        alice, rob = [await door.connect(Tls.of_files(papers.ca_file)) for _ in range(2)]
        assert (await ask(alice, b'{"op":"auth","token":"%b"}' % ALICE.encode())) == {"status": "ok"}
        assert (await ask(rob, b'{"op":"auth","token":"%b"}' % ROB.encode())) == {"status": "ok"}
        door.proxy.change_tokens(parse_tokens(f"alice {ALICE}\n"))
        reply = await receive_line(rob)
        assert (reply["error"], "any more" in reply["message"]) == ("unauthorized", True)
        assert (await ask(alice, b'{"key":"a","value":1}'))["status"] == "ok"


# --- files --------------------------------------------------------------------------------------------------


def test_files_that_are_no_certificates(papers: Papers) -> None:
    """Each mistake names its file, and what is wrong with it."""
    certificate, key = papers.issue("server")
    _, other = papers.issue("other")
    empty, missing = papers.directory / "empty.pem", papers.directory / "missing.pem"
    empty.write_text("")
    for files, words in (
        (Files(missing, key), "missing.pem: no such file"),
        (Files(certificate, missing), "missing.pem: no such file"),
        (Files(certificate, other), "the key is not that of the certificate"),
        (Files(empty, key), "empty.pem"),
        (Files(certificate, empty), "empty.pem"),
        (Files(certificate, key, missing), "missing.pem: no such file"),
        (Files(certificate, key, empty), "empty.pem: "),
    ):
        with pytest.raises(CertificateError, match=words):
            load(files)


# --- the whole process --------------------------------------------------------------------------------------


@attrs.frozen
class Server:
    process: "subprocess.Popen[str]"
    data_dir: Path
    port: int
    control_port: int

    def wait_event(self, name: str) -> dict[str, Any]:
        """Return the next event of this name."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("{") and (event := json.loads(line))["event"] == name:
                return dict(event)
        raise AssertionError(f"it ended without {name}")

    def hang_up(self, event: str) -> dict[str, Any]:
        self.process.send_signal(signal.SIGHUP)
        return self.wait_event(event)


def trio_kv(*words: object, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "trio_kv", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **variables},
    )


@contextlib.contextmanager
def open_server(data_dir: Path, *options: object) -> Iterator[Server]:
    words = ["serve", "--nodes", 1, "--data-dir", data_dir, "--log-json", "--port", 0, "--control-port", 0]
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_kv", *map(str, [*words, *options])], stderr=subprocess.PIPE, text=True
    )
    try:
        server = Server(process, data_dir, 0, 0)
        event = server.wait_event("server.started")
        yield attrs.evolve(server, port=event["port"], control_port=event["control_port"])
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_a_server_with_all_of_it(papers: Papers) -> None:
    """Commands, shell and `ctl` reach it; SIGHUP reads all anew, keeps what was when it can't, and drops nobody."""
    certificate, key = papers.issue("server")
    token_file = papers.directory / "tokens"
    token_file.write_text(TOKENS)
    token_file.chmod(0o600)
    options = ["--token-file", token_file, "--tls-cert", certificate, "--tls-key", key]
    with open_server(papers.directory / "data", *options) as server:
        way = ["--port", server.port, "--ca", papers.ca_file]
        assert trio_kv("set", "a", "1", *way, TRIO_KV_TOKEN=ALICE).returncode == 0
        done = trio_kv("get", "a", *way, TRIO_KV_TOKEN=ROB)
        assert (done.returncode, done.stdout) == (0, "1\n")
        done = trio_kv("set", "a", "2", *way, TRIO_KV_TOKEN=ROB)
        assert (done.returncode, "may only read" in done.stderr) == (1, True)
        assert "show a token first" in trio_kv("get", "a", *way).stderr
        assert "TLS" in trio_kv("get", "a", "--port", server.port).stderr
        load = [
            "bench",
            "--duration",
            0.5,
            "--warm-up",
            0,
            "--connections",
            4,
            "--pipeline",
            40,
            "--value-bytes",
            999,
        ]
        done = trio_kv(*load, "--fill", "--keys", 40, "--json", *way, TRIO_KV_TOKEN=ALICE)
        assert done.returncode == 0, done.stderr
        assert trio_kv(*load, *way, TRIO_KV_TOKEN="x" * 20).returncode == 3
        door = ["--data-dir", server.data_dir]
        assert trio_kv("ctl", "status", *door).returncode == 0
        assert "n1 leads" in trio_kv("ctl", "status", *door, "--ca", papers.ca_file).stdout

        client = Client(port=server.port, tls=Tls.of_files(papers.ca_file), token=ALICE)
        with client:
            client.set("a", 3)
            connection = client._connection
            token_file.write_text("alice short\n")
            assert "line 1: a token has 16" in server.hang_up("access.reload_failed")["reason"]
            token_file.write_text(f"alice {ALICE}\n")
            key.rename(key.with_suffix(".away"))
            assert "server.key" in server.hang_up("access.reload_failed")["reason"]
            other = Papers(papers.directory / "..")
            other_certificate, other_key = attrs.evolve(other, directory=papers.directory).issue("server")
            assert (other_certificate, other_key) == (certificate, key)
            assert server.hang_up("access.reloaded")["names"] == ["alice"]
            assert client.get("a").data == 3
            assert client._connection is connection
        assert trio_kv("get", "a", *way, TRIO_KV_TOKEN=ALICE).returncode == 3
        other.ca.cert_pem.write_to_path(papers.directory / "other-ca.pem")
        way = ["--port", server.port, "--ca", papers.directory / "other-ca.pem"]
        assert trio_kv("get", "a", *way, TRIO_KV_TOKEN=ALICE).returncode == 0
        assert "opens nothing" in trio_kv("get", "a", *way, TRIO_KV_TOKEN=ROB).stderr
        assert trio_kv("ctl", "status", *door).returncode == 0


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_a_token_file_that_others_can_read_is_refused(papers: Papers, mode: int) -> None:
    """The server does not start, and says what to do."""
    token_file = papers.directory / "tokens"
    token_file.write_text(TOKENS)
    token_file.chmod(mode)
    done = trio_kv("serve", "--ephemeral", "--port", 0, "--control-port", 0, "--token-file", token_file)
    assert (done.returncode, f"chmod 600 {token_file}" in done.stderr) == (1, True)
    assert ALICE not in done.stderr
