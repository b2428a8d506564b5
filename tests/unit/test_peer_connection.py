"""A connection between processes: what finds room in its outbox, and what is a sign of life."""

import pytest
import trio
import trio.testing

from trio_kv.transport.connection import (
    ITEM_BYTES_MAX,
    SMALL_BYTES,
    ByteCounts,
    Connection,
    LinkLostError,
    Outbox,
)
from trio_kv.wire.links import MESSAGE

SILENCE_S = 0.8


class Slow(trio.abc.Stream):
    """One end of a link that carries so many bytes a second, and none after a while."""

    def __init__(self, stream: trio.abc.Stream, bytes_a_s: float) -> None:
        self._stream = stream
        self._bytes_a_s = bytes_a_s
        self.is_dead = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep(len(data) / self._bytes_a_s)
        if self.is_dead:
            await trio.sleep_forever()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


def connect(stream: trio.abc.Stream) -> Connection:
    return Connection(stream, Outbox(items_max=100, bytes_max=1 << 30), ByteCounts())


async def test_a_frame_that_takes_its_time_on_a_slow_link_arrives(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A piece of a snapshot takes ten time-outs here: nothing comes back meanwhile, and the connection holds."""
    raw, far = trio.testing.memory_stream_pair()
    sender, receiver = connect(Slow(raw, 1 << 18)), connect(far)
    piece = MESSAGE + bytes(2 << 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.write)
        # For a piece that is long under way the connection for snapshots is in use.
        watching = lambda: sender.watch(SILENCE_S, pings=True, idle_s=5.0)  # noqa: E731
        nursery.start_soon(watching)
        nursery.start_soon(receiver.watch, SILENCE_S)
        assert sender.outbox.put(piece)
        while (items := await receiver.receive())[-1] != piece:
            assert len(items) < 10
        assert trio.current_time() > 8 * SILENCE_S
        nursery.cancel_scope.cancel()


async def test_a_large_frame_that_nobody_takes_is_no_sign_of_life(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """As soon as its next piece is not taken, the other end has as long as ever."""
    raw, _far = trio.testing.memory_stream_pair()
    slow = Slow(raw, 1 << 18)
    sender = connect(slow)
    with pytest.RaisesGroup(pytest.RaisesExc(LinkLostError, match="nothing came for 0.8 s")):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.write)
            sender.outbox.put(MESSAGE + bytes(2 << 20))
            nursery.start_soon(lambda: sender.watch(SILENCE_S, pings=True))
            await trio.sleep(2.0)
            slow.is_dead, began_at = True, trio.current_time()
    assert trio.current_time() - began_at <= 1.5 * SILENCE_S


def test_small_items_find_room_where_large_ones_do_not() -> None:
    """Votes and heartbeats are not lost because large answers wait; and there is a limit to them, too."""
    outbox = Outbox(items_max=4, bytes_max=1 << 20)
    assert outbox.put(bytes(2 << 20))
    assert not outbox.put(bytes(SMALL_BYTES + 1))
    assert [outbox.put(bytes(SMALL_BYTES)) for _ in range(4)] == [True, True, True, False]


def test_an_item_that_no_frame_has_room_for_is_never_taken() -> None:
    """Sent again and again it would end one connection after the other."""

    class Huge(bytes):
        def __len__(self) -> int:
            return ITEM_BYTES_MAX + 1

    assert not Outbox(items_max=4, bytes_max=1 << 20).put(Huge())
