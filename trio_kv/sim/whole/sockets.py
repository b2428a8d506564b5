"""Twins of the client door's streams: bytes that travel in virtual time, split and merged on their way.

A connection is two `Endpoint`s. What one sends arrives at the other in its order, in pieces of any size; what came
before it was read is read as one. An endpoint takes no more than its peer has room for, so a peer that does not read
holds its sender back. As with TCP, who closes with bytes unread resets the connection, and bytes that come to a
closed endpoint are answered by a reset.
"""

import errno
import itertools
from collections.abc import Callable
from random import Random

import trio

from trio_kv.proxy.stream import CHUNK_BYTES_MAX, ConnectionLostError, Listener

WINDOW_BYTES = 4096
"""How much may be on its way to an endpoint, or wait there to be read."""
PIECES_MAX = 3
"""In so many pieces one sending arrives at most."""


class Endpoint:
    """One end of a connection: a `proxy.stream.ByteStream`."""

    def __init__(self, network: "ClientNetwork") -> None:
        """Be one end; `ClientNetwork.connect` joins two."""
        self.peer_end = self
        self.peer = "client:0"
        self._network = network
        self._came = bytearray()
        self._taken_bytes = 0
        """Of the peer's: on their way here, or not read yet."""
        self._arrives_at = 0.0
        self._is_at_end = False
        self._is_reset = False
        self._is_closed = False
        self._is_shut = False
        self._changed = trio.Event()
        self._on_readable: Callable[[], object] | None = None

    # The stream

    async def wait_readable(self) -> None:
        """See `ByteStream`."""
        await self.wait(lambda: self.is_readable)

    def watch(self, on_readable: Callable[[], object]) -> bool:
        """See `ByteStream`."""
        self._on_readable = on_readable
        self._network.after(0.0, self._tell)
        return True

    def unwatch(self) -> None:
        """See `ByteStream`."""
        self._on_readable = None

    def _tell(self) -> None:
        """Tell who watches that there is something to receive, as long as there is."""
        if self._on_readable is not None and self.is_readable:
            self._on_readable()
            if self.is_readable:
                self._network.after(0.0, self._tell)

    def receive_nowait(self) -> bytes | None:
        """See `ByteStream`."""
        if self._came:
            data = bytes(self._came[:CHUNK_BYTES_MAX])
            del self._came[: len(data)]
            self._taken_bytes -= len(data)
            self.peer_end.wake()
            return data
        if self._is_reset:
            raise lost("receiving", errno.ECONNRESET, "reset by the peer")
        return b"" if self._is_at_end else None

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Take as much as the peer has room for; return how much."""
        if self._is_reset or self._is_shut:
            raise lost("sending", errno.EPIPE, "the peer is gone")
        peer = self.peer_end
        taken = bytes(data[: max(0, self._network.window_bytes - peer._taken_bytes)])  # noqa: SLF001 - the other end of the same thing
        peer._taken_bytes += len(taken)  # noqa: SLF001
        if taken:
            for piece in self._network.split(taken):
                self._travel(peer._arrive, piece)  # noqa: SLF001
        return len(taken)

    async def send_some(self, data: memoryview) -> int:
        """See `ByteStream`."""
        await self.wait(lambda: self.is_writable)
        return self.send_nowait(data)

    async def send_eof(self) -> None:
        """See `ByteStream`."""
        if self._is_reset:
            raise lost("shutting down", errno.ENOTCONN, "the peer is gone")
        self._is_shut = True
        self._travel(self.peer_end._end)  # noqa: SLF001

    async def aclose(self) -> None:
        """See `ByteStream`."""
        self.close()

    def close(self) -> None:
        """Let go; what has come and was not read resets the connection."""
        if self._is_closed:
            return
        self._is_closed = True
        self._travel(self.peer_end._reset if self._came else self.peer_end._end)  # noqa: SLF001
        self.wake()

    # Waiting

    @property
    def is_readable(self) -> bool:
        """Whether `receive_nowait` returns something."""
        return bool(self._came) or self._is_at_end or self._is_reset

    @property
    def is_writable(self) -> bool:
        """Whether `send_nowait` takes something, or raises."""
        return self._is_reset or self.peer_end._taken_bytes < self._network.window_bytes  # noqa: SLF001

    async def wait(self, is_true: Callable[[], bool]) -> None:
        """Wait until something is true of it.

        Raises:
            ConnectionLostError: it was closed meanwhile.

        """
        while not is_true():
            await self._changed.wait()
            if self._is_closed:
                raise ConnectionLostError("it was closed on this side")
        await trio.lowlevel.checkpoint()

    def wake(self) -> None:
        """Let who waits look again."""
        self._changed.set()
        self._changed = trio.Event()
        self._tell()

    # What travels

    def _travel(self, arrive: Callable[..., None], *arguments: object) -> None:
        """Let something arrive at the peer, behind all that was sent before."""
        now = trio.current_time()
        self._arrives_at = max(self._arrives_at, now + self._network.draw_latency_s())
        self._network.after(self._arrives_at - now, arrive, *arguments)

    def _arrive(self, piece: bytes) -> None:
        if self._is_closed:
            self._travel(self.peer_end._reset)  # noqa: SLF001
            return
        self._came += piece
        self.wake()

    def _end(self) -> None:
        self._is_at_end = True
        self.wake()

    def _reset(self) -> None:
        self._is_reset = True
        self.wake()
        self.peer_end.wake()


class DoorListener:
    """A `proxy.stream.Listener`: a port that is open."""

    def __init__(self, network: "ClientNetwork", port: int) -> None:
        """Listen."""
        self.port = port
        self.waiting: list[Endpoint] = []
        self._network = network
        self._came = trio.Event()

    async def run(self) -> None:
        """See `Listener`; its connections need nothing."""
        await trio.sleep_forever()

    async def accept(self) -> Endpoint:
        """See `Listener`."""
        while not self.waiting:
            self._came = trio.Event()
            await self._came.wait()
        await trio.lowlevel.checkpoint()
        return self.waiting.pop(0)

    def arrive(self, end: Endpoint) -> None:
        """Let a connection wait to be accepted."""
        self.waiting.append(end)
        self._came.set()

    def close(self) -> None:
        """Let nobody connect any more; who waited is cut off."""
        self._network.close_port(self.port)
        for end in self.waiting:
            end.close()


class ClientNetwork:
    """What lies between clients and the door: a `proxy.stream.Listen`, and the way in for clients.

    Args:
        after: lets something happen later.
        random: draws latencies and pieces.
        latency_s: bytes take between half and twice as long.

    """

    window_bytes = WINDOW_BYTES

    def __init__(self, after: Callable[..., None], random: Random, latency_s: float) -> None:
        """Have no open door; see the class."""
        self.after = after
        self._random = random
        self._latency_s = latency_s
        self._ports: dict[int, DoorListener] = {}

    def draw_latency_s(self) -> float:
        """Draw how long something takes."""
        return self._latency_s * (0.5 + 1.5 * self._random.random())

    def split(self, data: bytes) -> list[bytes]:
        """Cut bytes into pieces: mostly one."""
        pieces = 1 if self._random.random() < 0.8 else self._random.randint(2, PIECES_MAX)
        cuts = sorted(self._random.randint(0, len(data)) for _ in range(pieces - 1))
        ends = [0, *cuts, len(data)]
        return [data[start:end] for start, end in itertools.pairwise(ends) if start < end]

    def close_port(self, port: int) -> None:
        """Let a port be closed."""
        self._ports.pop(port, None)

    def connect(self, port: int) -> Endpoint:
        """Return the client's end of a new connection.

        Raises:
            ConnectionRefusedError: no door is open there.

        """
        listener = self._ports.get(port)
        if listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "no door is open")
        ours, theirs = Endpoint(self), Endpoint(self)
        ours.peer_end, theirs.peer_end = theirs, ours
        listener.arrive(theirs)
        return ours

    async def listen(self, host: str, port: int) -> list[Listener]:
        """Open a port; see `proxy.stream.Listen`."""
        del host
        await trio.lowlevel.checkpoint()
        listener = self._ports[port] = DoorListener(self, port)
        return [listener]


def lost(doing: str, number: int, message: str) -> ConnectionLostError:
    """Return the error that a socket would raise."""
    return ConnectionLostError(f"{doing} failed: {OSError(number, message)}")
