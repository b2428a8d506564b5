"""Twins of the connections between the processes of a cluster, and what can be wrong with the way between two of them.

A wire is one direction of the way between two processes; all connections between these go over the two. What is wrong
with a wire is wrong for bytes, as with a real one, and none of it is seen at once:

- **stuck**: nothing comes through, and nobody is told. What was sent comes when it ends, if somebody is there then. A
  connection of which one end is gone and the other was not told is half open.
- **torn**: what is sent comes in many small pieces.
- **flipped**: a bit of what is sent next comes wrong, as it does once in a long while past the check of TCP.
- **closed**: no connection is opened this way; it is refused, or the attempt is never answered.

`reset` ends connections at once, in the midst of whatever is on its way.
"""

import errno
from collections.abc import Callable, Collection
from random import Random

import trio

from trio_kv.proxy.stream import ConnectionLostError
from trio_kv.sim.whole.sockets import ClientNetwork, Endpoint, lost
from trio_kv.transport.peers import Address
from trio_kv.transport.secure import Plain

Wire = tuple[int, int]
"""From which process to which."""

WINDOW_BYTES = 16384
TORN_PIECES_MAX = 12


class WireEnd(Endpoint):
    """One end of a connection between two processes."""

    def __init__(self, wires: "Wires", wire: Wire) -> None:
        """Be the end from which this wire leads to the other one."""
        super().__init__(wires)
        self.wire = wire
        self._wires = wires
        self._held: list[tuple[Callable[..., None], tuple[object, ...]]] = []
        """What is stuck on the wire."""
        self._is_dead = False
        """Nothing that is under way arrives any more."""
        self.is_silent = False

    def _travel(self, arrive: Callable[..., None], *arguments: object) -> None:
        if self._held or self.wire in self._wires.stuck:
            self._held.append((arrive, arguments))
        else:
            super()._travel(arrive, *arguments)

    def let_go(self) -> None:
        """Let arrive what was stuck."""
        held, self._held = self._held, []
        for arrive, arguments in held:
            super()._travel(arrive, *arguments)

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Take as much as the other end has room for; return how much."""
        if self._is_closed:
            raise lost("sending", errno.EBADF, "it was closed on this side")
        return super().send_nowait(data)

    def close(self) -> None:
        """Let go; the other end hears of it, if there is anybody left to tell."""
        if not self._is_dead:
            super().close()
        self._is_closed = True
        self.wake()

    def _arrive(self, piece: bytes) -> None:
        if not self._is_dead:
            super()._arrive(self._wires.maybe_flip(self.wire, piece))
        elif not self.is_silent:
            self._travel(self.peer_end._reset)  # noqa: SLF001 - the other end of the same thing

    def die(self, *, is_silent: bool = False) -> None:
        """Be reset, and lose what is under way here.

        Args:
            is_silent: whether there is nobody who would answer by a reset what comes from now on.

        """
        if not self._is_dead:
            self._is_dead, self.is_silent = True, is_silent
            self._held.clear()
            self._reset()

    @property
    def is_over(self) -> bool:
        """Whether nobody uses it any more."""
        return self._is_closed and not self._held and not self.is_silent


class WireStream(trio.abc.Stream):
    """An end of a connection as a stream of Trio's."""

    def __init__(self, end: Endpoint) -> None:
        """Own that end."""
        self._end = end
        self._is_closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `trio.abc.ReceiveStream`."""
        del max_bytes
        while True:
            try:
                await self._end.wait_readable()
                data = self._end.receive_nowait()
            except ConnectionLostError as error:
                raise self._broken(error) from error
            if data is not None:
                return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        rest = bytes(data)
        try:
            while rest:
                await self._end.wait(lambda: self._end.is_writable)
                rest = rest[self._end.send_nowait(rest) :]
        except ConnectionLostError as error:
            raise self._broken(error) from error

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._end.wait(lambda: self._end.is_writable)

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`."""
        self._is_closed = True
        self._end.close()
        await trio.lowlevel.checkpoint()

    def _broken(self, error: Exception) -> Exception:
        kind = trio.ClosedResourceError if self._is_closed else trio.BrokenResourceError
        return kind(str(error))


class WireListener(trio.abc.Listener[trio.abc.Stream]):
    """Where a process is called."""

    def __init__(self, wires: "Wires", process: int) -> None:
        """Listen."""
        self._wires = wires
        self._process = process
        self._waiting: list[WireEnd] = []
        self._came = trio.Event()

    async def accept(self) -> trio.abc.Stream:
        """See `trio.abc.Listener`."""
        while not self._waiting:
            self._came = trio.Event()
            await self._came.wait()
        await trio.lowlevel.checkpoint()
        return WireStream(self._waiting.pop(0))

    def arrive(self, end: WireEnd) -> None:
        """Let a connection wait to be accepted."""
        self._waiting.append(end)
        self._came.set()

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Let nobody connect any more; who waited is cut off."""
        self._wires.close_listener(self._process, self)
        for end in self._waiting:
            end.close()


class WireSecurity(Plain):
    """How a process connects to others."""

    def __init__(self, wires: "Wires", process: int) -> None:
        """Connect as this process."""
        self._wires = wires
        self._process = process

    async def dial(self, address: Address, process: int) -> trio.abc.Stream:
        """See `transport.secure.Security`."""
        del address
        return await self._wires.dial(self._process, process)


class Wires(ClientNetwork):
    """All ways between processes.

    Args:
        after: lets something happen later.
        random: draws latencies, pieces and bits.
        latency_s: bytes take between half and twice as long.

    """

    window_bytes = WINDOW_BYTES

    def __init__(self, after: Callable[..., None], random: Random, latency_s: float) -> None:
        """Be sound; see the class."""
        super().__init__(after, random, latency_s)
        self.stuck: set[Wire] = set()
        self.is_torn = False
        self.on_flip: Callable[[], object] = _nothing
        """Called when a bit comes wrong."""
        self._refused: set[Wire] = set()
        self._to_flip: set[Wire] = set()
        self._listeners: dict[int, WireListener] = {}
        self._ends: list[WireEnd] = []
        self._moves = trio.Event()

    # Connections

    def listen_at(self, process: int) -> WireListener:
        """Let a process be called, and answer for what its former life had open."""
        for end in self._ends:
            if end.wire[0] == process:
                end.is_silent = False
        listener = self._listeners[process] = WireListener(self, process)
        return listener

    def close_listener(self, process: int, listener: WireListener) -> None:
        """Let a process be called no more, if this is where it was."""
        if self._listeners.get(process) is listener:
            del self._listeners[process]

    async def dial(self, source: int, target: int) -> trio.abc.Stream:
        """Open a connection.

        Raises:
            ConnectionRefusedError: nobody takes it.

        """
        await trio.sleep(self.draw_latency_s())
        while {(source, target), (target, source)} & self.stuck:
            await self._moves.wait()
        listener = self._listeners.get(target)
        if listener is None or (source, target) in self._refused:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "connection refused")
        ours, theirs = WireEnd(self, (source, target)), WireEnd(self, (target, source))
        ours.peer_end, theirs.peer_end = theirs, ours
        self._ends = [end for end in self._ends if not end.is_over]
        self._ends += [ours, theirs]
        listener.arrive(theirs)
        return WireStream(ours)

    def split(self, data: bytes) -> list[bytes]:
        """Cut bytes into pieces: mostly one."""
        if not self.is_torn:
            return super().split(data)
        random = self._random
        pieces: list[bytes] = []
        while data and len(pieces) < TORN_PIECES_MAX:
            size = random.choice((1, 1, 2, 7, 8, 9, 100))
            pieces.append(data[:size])
            data = data[size:]
        return [*pieces, data] if data else pieces

    def maybe_flip(self, wire: Wire, piece: bytes) -> bytes:
        """Return what comes of a piece that arrives at the end of which this is the way back."""
        source, target = wire
        if (target, source) not in self._to_flip:
            return piece
        self._to_flip.discard((target, source))
        self.on_flip()
        changed = bytearray(piece)
        changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    # What is wrong

    def stick(self, wires: Collection[Wire]) -> None:
        """Let nothing come through."""
        self.stuck |= {*wires}

    def let_go(self, wires: Collection[Wire]) -> None:
        """Let come what was stuck."""
        self.stuck -= {*wires}
        moves, self._moves = self._moves, trio.Event()
        moves.set()
        for end in self._ends:
            if end.wire in wires:
                end.let_go()

    def refuse(self, wires: Collection[Wire]) -> None:
        """Let no connection be opened this way."""
        self._refused |= {*wires}

    def accept(self, wires: Collection[Wire]) -> None:
        """Let connections be opened again."""
        self._refused -= {*wires}

    def flip_next(self, wire: Wire) -> None:
        """Let a bit of what comes next come wrong."""
        self._to_flip.add(wire)

    def reset(self, one: int, other: int, *, is_told: bool = True) -> None:
        """End all connections between two processes, and lose what is under way.

        Args:
            one: this end is told.
            other: and this one.
            is_told: whether the other one is told as well; else it hears of it when it says something.

        """
        for end in list(self._ends):
            if {*end.wire} == {one, other} and (is_told or end.wire[0] == one):
                end.die()

    def kill(self, process: int, *, is_told: bool) -> None:
        """End all that a process has, at this moment: nothing that it says from now on is sent.

        Args:
            process: which one.
            is_told: whether the others are told, as when a process is killed; a host that loses power tells nobody.

        """
        for end in list(self._ends):
            if end.wire[0] == process:
                if is_told:
                    end.close()
                else:
                    end.die(is_silent=True)
        listener = self._listeners.get(process)
        if listener is not None:
            listener.close()

    def mend(self) -> None:
        """Be sound."""
        self.is_torn = False
        self._refused.clear()
        self._to_flip.clear()
        self.let_go([*self.stuck])


def _nothing() -> None:
    """Do nothing."""
