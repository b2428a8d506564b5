"""A connection between two processes: frames of items both ways, an outbox that nobody waits for, and a watch.

Whoever has something to say puts it into the outbox and goes on. One task sends what has gathered since its last
flush, so the items of a node's pass go out together. An outbox that is full takes nothing more: a message of Raft is
lost then, and a request is not handed over.
"""

import math
import ssl
from collections.abc import Iterator, Sequence

import attrs
import trio

from trio_kv.transport.tls import explain, is_end
from trio_kv.wire.links import PING, PONG
from trio_kv.wire.peer_frames import FrameReader, encode_frame

RECEIVE_BYTES = 1 << 16
"""A larger buffer would be mapped and unmapped by the system each time, for it is made anew whatever comes."""
PIECE_BYTES = 1 << 16
"""So much is sent at a time. That the other end takes the next piece of a frame is a sign of life as well."""
FLUSH_BYTES = 1 << 18
"""A frame takes items until it has more bytes than this. All of one is decoded in one go: some milliseconds."""
ITEM_BYTES_MAX = (1 << 30) + (32 << 20)
"""An item that is larger is never sent: it would not be taken. The longest line that a server can be told to take has
room in it, and so have 256 values, the most that are read together, of the length that they have elsewhere."""
FRAME_BYTES_MAX = ITEM_BYTES_MAX + 2 * FLUSH_BYTES
"""The longest frame that is taken from a process that has said who it is."""
SMALL_BYTES = 4096
"""Items up to this size find room as long as there are not too many: votes, heartbeats, and how all is here."""
SIGNS_OF_LIFE = (PING, PONG)
CLOSED = "the other process closed it"


class LinkLostError(Exception):
    """A connection to another process is of no use any more. The text says why."""


@attrs.define
class ByteCounts:
    """What went over one connection after the other."""

    bytes_sent: int = 0
    bytes_received: int = 0


class RejectedError(LinkLostError):
    """Another process does not take this one, or is not the one that was meant. The text says why."""


class Outbox:
    """What waits to be sent.

    Args:
        items_max: so many items may wait.
        bytes_max: of so many bytes, small ones aside. An item that is larger is taken if it is alone.

    """

    def __init__(self, *, items_max: int, bytes_max: int) -> None:
        """Have nothing to send yet; see the class."""
        self._items_max = items_max
        self._bytes_max = bytes_max
        self._items: list[bytes] = []
        self._bytes = 0
        self._wake = trio.Event()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: bytes) -> bool:
        """Take an item, if it fits."""
        items, size = self._items, len(item)
        if len(items) >= self._items_max or size > ITEM_BYTES_MAX:
            return False
        if items and size > SMALL_BYTES and self._bytes + size > self._bytes_max:
            return False
        items.append(item)
        self._bytes += size
        if len(items) == 1:
            self._wake.set()
        return True

    @property
    def is_half_full(self) -> bool:
        """Whether what can wait should leave the rest of the room to what can't."""
        return 2 * len(self._items) >= self._items_max or 2 * self._bytes >= self._bytes_max

    async def take(self) -> list[bytes]:
        """Wait until there is something, and return all of it."""
        while not self._items:
            self._wake = trio.Event()
            await self._wake.wait()
        items, self._items, self._bytes = self._items, [], 0
        return items

    def drop(self) -> int:
        """Forget what waits; return how many items that were."""
        count, self._items, self._bytes = len(self._items), [], 0
        return count


class Connection:
    """Frames over a stream. One task receives; `write` and `watch` are tasks of their own.

    Args:
        stream: what carries the bytes. It is owned from now on.
        outbox: what is to be sent.
        counts: where the bytes are counted.

    """

    def __init__(self, stream: trio.abc.Stream, outbox: Outbox, counts: ByteCounts) -> None:
        """Have received nothing yet; see the class."""
        self.outbox = outbox
        self._counts = counts
        self._stream = stream
        self._frames = FrameReader(FRAME_BYTES_MAX)
        self._heard_at = trio.current_time()
        self._used_at = trio.current_time()

    def limit_frames(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        """Take no longer frames than this from now on."""
        self._frames.frame_bytes_max = frame_bytes_max

    async def receive(self) -> list[bytes]:
        """Return the items of the next frame.

        Raises:
            LinkLostError: the connection is at its end, or broken.
            PeerError: what came is no frame.

        """
        while (items := self._frames.next()) is None:
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise _lost(error) from error
            if not data:
                raise LinkLostError(CLOSED)
            self._heard_at = trio.current_time()
            self._counts.bytes_received += len(data)
            self._frames.feed(data)
        return items

    async def send(self, items: Sequence[bytes]) -> None:
        """Send items at once, before `write` runs.

        Raises:
            LinkLostError: the connection is broken.

        """
        is_first = True
        try:
            for frame in _frames_of(items):
                for begin in range(0, len(frame), PIECE_BYTES):
                    if not is_first:
                        # What is large takes its time on a slow link, and pings wait behind it.
                        self._heard_at = self._used_at = trio.current_time()
                    is_first = False
                    await self._stream.send_all(frame[begin : begin + PIECE_BYTES])
                self._counts.bytes_sent += len(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _lost(error) from error

    async def write(self) -> None:
        """Send what is put into the outbox, until cancelled. Raises as `send`."""
        while True:
            items = await self.outbox.take()
            if len(items) > 1 or items[0][:1] not in SIGNS_OF_LIFE:
                self._used_at = trio.current_time()
            await self.send(items)

    async def watch(self, silence_s: float, *, pings: bool = False, idle_s: float = math.inf) -> None:
        """Look whether the other process lives, until cancelled.

        Args:
            silence_s: one from which nothing comes for so long does not.
            pings: whether to ask four times in that time; else the other one does.
            idle_s: after so long without use the connection is not needed.

        Raises:
            LinkLostError: it does not live, or is not needed.

        """
        ping_at = trio.current_time()
        while True:
            if trio.current_time() >= ping_at:
                ping_at = trio.current_time() + silence_s / 4
                if pings:
                    self.outbox.put(PING + _stamp(trio.current_time()))
            due_at = min(ping_at, self._heard_at + silence_s)
            await trio.sleep_until(due_at)
            now = trio.current_time()
            if now - due_at > silence_s / 4:
                # This process stood still: what came meanwhile is still to be read.
                self._heard_at = max(self._heard_at, now - silence_s / 2)
            if now >= self._heard_at + silence_s:
                raise LinkLostError(f"nothing came for {silence_s:g} s")
            if now - self._used_at > idle_s:
                raise LinkLostError("")


def round_trip_s(pong: bytes) -> float:
    """Return how long a ping and the pong that has come now were on their way."""
    return max(0.0, trio.current_time() - int.from_bytes(pong[1:9], "little") / 1e6)


def _stamp(at: float) -> bytes:
    return round(at * 1e6).to_bytes(8, "little")


def _frames_of(items: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the frames for items: as few as there can be, each made when the one before was sent."""
    first, size = 0, 0
    for place, item in enumerate(items):
        size += len(item)
        if size > FLUSH_BYTES:
            yield encode_frame(items[first : place + 1])
            first, size = place + 1, 0
    if first < len(items):
        yield encode_frame(items[first:])


def _lost(error: Exception) -> LinkLostError:
    cause = error.__cause__
    # By the rules of TLS a process says goodbye; one that is killed does not.
    if is_end(error):
        return LinkLostError(CLOSED)
    if isinstance(cause, ssl.SSLError):
        # Who calls has done with the handshake of TLS 1.3 before his certificate is judged: he hears of that here.
        return RejectedError(f"the other process ended TLS: {explain(cause)}")
    return LinkLostError(explain(cause or error))
