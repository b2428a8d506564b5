"""The client door over streams of Trio's: in memory, and with TLS."""

import ssl
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
import trustme

from tests.doubles import MemoryStore
from trio_kv.kv.operations.operation import Change
from trio_kv.proxy.books import HalfLines, UnsentReplies
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.connection import Connection
from trio_kv.proxy.meter import RequestMeter
from trio_kv.proxy.stream import ConnectionLostError, TrioStream
from trio_kv.wire.replies import CLOSE_OK, CLOSE_SHUTDOWN

SET, GET = b'{"key":"a","value":1}\n', b'{"key":"a"}\n'
REPLY = b'{"key": "a", "value": 1, "status": "ok"}\n'
WATCH = b'{"op":"watch","key":"a","id":1}\n'
LINE = b'{"watch": 1, "revision": %d, "events": [{"event": "set", "key": "a", "value": 1}]}\n'


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key, its certificate, and that of its CA."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    # The CA's own certificate is what the client trusts; the leaf stands first, for the server.
    ca = trustme.CA()
    issued = ca.issue_cert("localhost")
    path.write_bytes(issued.private_key_and_cert_chain_pem.bytes() + ca.cert_pem.bytes())
    return path


class Pair:
    """A client, and the connection that serves it."""

    def __init__(self, client: trio.abc.Stream, server: trio.abc.Stream) -> None:
        self.client = client
        self.store = MemoryStore()
        self.connection = Connection(
            TrioStream(server, "test"),
            store=self.store,
            config=ProxyConfig(farewell_s=0.1),
            halves=HalfLines(1 << 20),
            unsent=UnsentReplies(1 << 30),
            meter=RequestMeter(),
            now=trio.current_time,
        )

    async def serve(self) -> None:
        await self.connection.serve()
        await self.connection.aclose()

    async def take(self, size: int) -> bytes:
        data = b""
        with trio.fail_after(5):
            while len(data) < size:
                data += await self.client.receive_some(size - len(data))
        return data


@pytest.fixture(params=["memory", "tls"])
async def pair(request: pytest.FixtureRequest, nursery: trio.Nursery) -> AsyncGenerator[Pair]:
    client: trio.abc.Stream
    server: trio.abc.Stream
    client, server = trio.testing.memory_stream_pair()
    if request.param == "tls":
        path = request.getfixturevalue("certificate")
        ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ours.load_cert_chain(path)
        client = trio.SSLStream(client, ssl.create_default_context(cafile=path), server_hostname="localhost")
        server = trio.SSLStream(server, ours, server_side=True)
    pair = Pair(client, server)
    nursery.start_soon(pair.serve)
    yield pair
    await trio.aclose_forcefully(client)


async def test_requests_are_answered(pair: Pair) -> None:
    """One alone, many at once, and one in pieces."""
    await pair.client.send_all(SET)
    assert await pair.take(len(REPLY)) == REPLY
    await pair.client.send_all(GET * 5_000)
    assert await pair.take(len(REPLY) * 5_000) == REPLY * 5_000
    for piece in (GET[:4], GET[4:]):
        await pair.client.send_all(piece)
    assert await pair.take(len(REPLY)) == REPLY


async def test_lines_go_out_between_replies(pair: Pair) -> None:
    """The connection's task is called from its wait for the client, which loses nothing by that."""
    begun = b'{"id": 1, "status": "ok", "revision": 0}\n'
    await pair.client.send_all(WATCH)
    assert await pair.take(len(begun)) == begun
    await pair.client.send_all(SET + GET[:4])
    await pair.take(len(REPLY) + len(LINE % 1))
    for revision in range(2, 5):
        await trio.testing.wait_all_tasks_blocked(0.001)
        pair.store.change(Change("set", "a", msgspec.Raw(b"1"), revision, 0))
        assert await pair.take(len(LINE % revision)) == LINE % revision
    await pair.client.send_all(GET[4:])
    assert await pair.take(len(REPLY)) == REPLY


async def test_an_idle_one_gets_its_last_words(pair: Pair) -> None:
    """Then the stream ends as it should, which with TLS is more than a closed socket."""
    await pair.client.send_all(SET)
    await pair.take(len(REPLY))
    await trio.testing.wait_all_tasks_blocked(0.001)
    pair.connection.retire(CLOSE_OK, "idle")
    assert await pair.take(len(CLOSE_OK)) == CLOSE_OK
    assert await pair.client.receive_some() == b""


async def test_a_stop_is_told(pair: Pair) -> None:
    """What was answered stays so; a close line in place of a reply means that the request was not read."""
    await pair.client.send_all(SET)
    await pair.take(len(REPLY))
    await trio.testing.wait_all_tasks_blocked(0.001)
    pair.connection.stop(trio.current_time() + 1)
    assert await pair.take(len(CLOSE_SHUTDOWN)) == CLOSE_SHUTDOWN
    assert await pair.client.receive_some() == b""


async def test_a_client_that_is_gone_ends_the_connection(pair: Pair) -> None:
    """Without its goodbye, too."""
    await pair.client.send_all(SET)
    await pair.take(len(REPLY))
    await trio.aclose_forcefully(pair.client)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert not pair.connection.session.is_open


async def test_a_piece_that_was_cut_short_is_the_last_one() -> None:
    """A stream that does not tell how far it came can't go on after its sending was cancelled."""
    _, server = trio.testing.lockstep_stream_pair()
    stream = TrioStream(server, "test")
    with trio.move_on_after(0.01):
        await stream.send_some(memoryview(b"begun"))
    with pytest.raises(ConnectionLostError, match="cut short"):
        await stream.send_some(memoryview(b"more"))
