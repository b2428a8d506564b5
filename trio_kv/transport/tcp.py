"""The links between the processes of a cluster, over TCP or whatever carries bytes as it does.

The network of a process (`transport.memory`) knows a door for each node. That of a node which runs elsewhere leads to
the link to its process: so faults of links, delays and taps are the same for all messages, and heartbeats never wait
behind snapshots, which have a connection of their own.
"""

from collections.abc import Sequence
from functools import partial

import trio

from trio_kv.raft.messages import InstallSnapshot, Message
from trio_kv.trace.trace import Trace
from trio_kv.transport.door import PeerDoor
from trio_kv.transport.link import Link
from trio_kv.transport.memory import MemoryNetwork
from trio_kv.transport.peers import Host, Identity
from trio_kv.transport.secure import Security
from trio_kv.wire.links import EVENT, MESSAGE
from trio_kv.wire.peers import encode_message

Listener = trio.abc.Listener[trio.abc.Stream]
"""Where other processes call."""


class TcpLinks:
    """All links of a process: those that it opens, and those that others open to it. `run` must be running.

    Args:
        identity: who this process is.
        host: what is done with what others say.
        network: carries messages; nodes that run elsewhere are attached to it.
        trace: is told of connections.
        silence_s: a process from which nothing comes for so long is not there.
        security: opens connections, and takes those of others.

    """

    def __init__(
        self,
        identity: Identity,
        host: Host,
        network: MemoryNetwork,
        trace: Trace,
        *,
        silence_s: float,
        security: Security,
    ) -> None:
        """Connect nobody yet; see the class."""
        layout = identity.layout
        make = partial(
            Link,
            dial=security.dial,
            identity=identity,
            host=host,
            trace=trace,
            silence_s=silence_s,
        )
        self.links = {process: make(process) for process in layout.others}
        self.bulk = {process: make(process, is_bulk=True) for process in layout.others}
        self.door = PeerDoor(identity, host, self._called, trace, security=security, silence_s=silence_s)
        for process in layout.others:
            for node in layout.nodes[process]:
                network.attach(node, partial(self._send, self.links[process], self.bulk[process]))

    async def run(self, listeners: Sequence[Listener]) -> None:
        """Keep all links, and take what others say, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self.door.serve, [*listeners])
            for link in (*self.links.values(), *self.bulk.values()):
                nursery.start_soon(link.run)

    def tell_all(self, item: bytes) -> bool:
        """Tell something to all processes that can be reached; return False if there was no room for it somewhere."""
        told = [link.post(item) for link in self.links.values() if link.is_up]
        return all(told)

    def tell_event(self, process: int, data: bytes) -> bool:
        """Tell an event to one process; return False if there is no room. Half of it is for what nodes say."""
        link = self.links[process]
        return link.is_up and not link.is_half_full and link.post(EVENT + data)

    def _called(self, process: int) -> None:
        self.links[process].called()

    @staticmethod
    def _send(link: Link, bulk: Link, message: Message) -> bool:
        way = bulk if type(message) is InstallSnapshot else link
        return way.post(MESSAGE + encode_message(message))
