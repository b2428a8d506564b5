"""Processes of a cluster in one test: joined by streams in memory, with disks in memory, in virtual time."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import attrs
import trio
import trio.testing

from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.process import ClusterProcess
from trio_kv.gateway.raft import RaftStore
from trio_kv.raft.events import Event
from trio_kv.testing.disks import MemoryDisks
from trio_kv.trace.trace import Record, Trace
from trio_kv.transport.peers import Address, Layout
from trio_kv.transport.secure import Plain, Security

CONFIG = ClusterConfig(restart_delay_min_s=0.1)
SECRET = "known to all"


class Heard:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.level = 20
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        self.records.append(record)

    def events(self, kind: type[Event]) -> list[Event]:
        return [record.event for record in self.records if isinstance(record.event, kind)]


class Port(trio.abc.Listener[trio.abc.Stream]):
    """Where one process is called."""

    def __init__(self) -> None:
        self.send, self._receive = trio.open_memory_channel[trio.abc.Stream](100)

    async def accept(self) -> trio.abc.Stream:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    async def aclose(self) -> None:
        await self._receive.aclose()


class Wires:
    """Opens streams between processes, and can cut what it has opened."""

    def __init__(self) -> None:
        self.ports: dict[int, Port] = {}
        self.is_dead: Callable[[int, int], bool] = lambda source, target: False
        """Whether nothing gets from one process to the other."""
        self._open: list[tuple[int, int, trio.StapledStream[Any, Any]]] = []

    def security_of(self, source: int) -> "Memory":
        return Memory(self, source)

    def open(self, source: int, target: int) -> trio.StapledStream[Any, Any]:
        """Open a stream to a process, for whoever wants to speak as another one."""
        near, far = trio.testing.memory_stream_pair()
        self.ports[target].send.send_nowait(far)
        self._open.append((source, target, near))
        return near

    def break_all(self, source: int, target: int) -> None:
        """Break the streams that one process has opened to another one."""
        for opened in [each for each in self._open if each[:2] == (source, target)]:
            self._open.remove(opened)
            stream = opened[2]
            stream.send_stream.close()
            stream.receive_stream.close()


@attrs.frozen
class Memory(Plain):
    """How one process connects."""

    wires: Wires
    source: int

    async def dial(self, address: Address, process: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.wires.is_dead(self.source, process) or process not in self.wires.ports:
            raise OSError(111, "Connection refused")
        return self.wires.open(self.source, process)


@attrs.frozen
class One:
    """One process."""

    process: ClusterProcess
    store: RaftStore
    heard: Heard


@attrs.frozen
class Linked:
    """What `linked` opened."""

    all: dict[int, One]
    wires: Wires
    disks: MemoryDisks

    async def wait_leader(self, wanted: int | None = None) -> int:
        """Wait until each process knows the same leader, or that one, and return it."""
        while True:
            leaders = [one.process.cluster.registry.leader() for one in self.all.values()]
            found = {leader and (leader.status.node, leader.status.term) for leader in leaders}
            if len(found) == 1 and leaders[0] is not None and wanted in (None, leaders[0].status.node):
                return leaders[0].status.node
            await trio.sleep(0.01)


@asynccontextmanager
async def linked(
    nodes: dict[int, tuple[int, ...]],
    seed: int = 1,
    security: Mapping[int, Callable[[Security], Security]] | None = None,
    *,
    is_host: bool = False,
) -> AsyncIterator[Linked]:
    """Run processes that have these nodes, all in this test; `security` is what each has over its streams."""
    random = Random(seed)
    disks = MemoryDisks(sum(map(len, nodes.values())), random)
    wires = Wires()
    async with trio.open_nursery() as nursery:
        await nursery.start(disks.run)
        made = {}
        for number in nodes:
            heard = Heard()
            trace = Trace([heard], wall_s=trio.current_time, mono_s=trio.current_time)
            layout = Layout(number, nodes, {each: ("memory", each) for each in nodes})
            secured: Security = wires.security_of(number)
            if security is not None:
                secured = security[number](secured)
            process = ClusterProcess.make(
                disks, layout, CONFIG, trace, random, secret=SECRET, security=secured, is_host=is_host
            )
            store = RaftStore(process.cluster.registry, Random(random.getrandbits(64)), secrets=random)
            wires.ports[number] = Port()
            made[number] = One(process, store, heard)
        for number, one in made.items():
            nursery.start_soon(one.process.run, [wires.ports[number]])
            await nursery.start(one.store.run)
        yield Linked(made, wires, disks)
        nursery.cancel_scope.cancel()
